//! The `faultdisk` program, as a shell script drives it.

use std::process::Command;

use kcopyfs_support::{need, stamp::stamped};

#[test]
fn a_script_serves_a_disk_sets_faults_and_replays() {
    if !need::fault_disk() {
        return;
    }
    let script = r#"
        set -eu
        device=$("$FD" serve s 1M --block 4096 --volatile --log log --background)
        test -b "$device"
        test "$("$FD" ctl s path)" = "ok $device"
        "$FD" ctl s "rule read 8K 3s err 5" >out && exit 3
        grep -q "^error: a rule for no byte" out
        "$FD" ctl s "rule read 8K 12K drop" >out && exit 3
        grep -q "^error: that cannot happen" out
        "$FD" ctl s "rule read 8K 12K err 5 x1" "mark here" >out
        dd if="$device" iflag=direct bs=4K skip=2 count=1 of=/dev/null 2>out && exit 4
        dd if="$device" iflag=direct bs=4K skip=2 count=1 of=/dev/null 2>out
        dd if=data of="$device" oflag=direct bs=4K 2>out
        "$FD" ctl s stat "powercut keep 1" revive
        "$FD" down s
        test ! -e s
        truncate -s 1M image
        "$FD" replay log image 2
        cmp -n 4096 data image
    "#;
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("data"), stamped(1, 0, 8)).unwrap();
    let output = Command::new("sh")
        .args(["-c", script])
        .env("FD", env!("CARGO_BIN_EXE_faultdisk"))
        .current_dir(scratch.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("ok writes=1 sectors_kept=8 sectors_lost=0"), "{text}");
}
