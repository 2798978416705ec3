//! Judges from outside: programs that know nothing of kcopyfs say whether its copies and maps are right.

use std::path::Path;
use std::process::{Command, Output};

use kcopyfs_support::{Daemon, LoopDevice, need};

const SIZE: u64 = 16 << 20;

fn daemon() -> Daemon {
    Daemon::builder(env!("CARGO_BIN_EXE_kcopyfs")).option("state=none").start()
}

/// fio writes blocks that carry their own checksums and places, or checks them.
fn fio(disk: &Path, checks: bool) -> Output {
    let mut command = Command::new("fio");
    command.args(["--name=judge", "--rw=randwrite", "--bs=4k", "--direct=1", "--ioengine=psync", "--randseed=7"]);
    command.args(["--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--output-format=terse"]);
    command.arg(format!("--size={SIZE}")).arg(format!("--filename={}", disk.display()));
    if checks {
        command.arg("--verify_only=1");
    }
    // It leaves a file with its state where it runs.
    command.current_dir(std::env::temp_dir()).arg("--verify_state_save=0").output().expect("fio runs")
}

#[test]
fn fio_finds_its_own_blocks_on_every_copy_needs_root_and_fuse() {
    if !(need::root() && need::fuse() && need::loops() && need::program("fio", "fio")) {
        return;
    }
    let (from, to) = (LoopDevice::new(SIZE, 512), [LoopDevice::new(SIZE, 512), LoopDevice::new(SIZE, 4096)]);
    let written = fio(from.path(), false);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let mut daemon = daemon();
    let [first, second] = to.each_ref().map(|disk| disk.path().display().to_string());
    let job = daemon.job(&format!("copy from={} to={first} to={second}", from.path().display())).unwrap();
    assert_eq!(daemon.wait(job).state(), "done");
    for disk in &to {
        let checked = fio(disk.path(), true);
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
    // A judge that never says no is none.
    let spoil = format!("printf spoilt | dd of={} bs=1 seek=5000000 conv=notrunc status=none", to[0].path().display());
    assert!(Command::new("sh").arg("-c").arg(spoil).status().unwrap().success());
    assert!(!fio(to[0].path(), true).status.success(), "fio does not see a spoilt block");
    daemon.stop();
}

#[test]
fn ddrescuelog_reads_every_map_needs_root_and_fuse() {
    if !(need::root() && need::fuse() && need::loops() && need::program("ddrescuelog", "gddrescue")) {
        return;
    }
    let (from, to) = (LoopDevice::new(SIZE, 512), LoopDevice::new(SIZE, 512));
    from.fill(1);
    let mut daemon = daemon();
    let spec = format!("copy from={},100,20000 to={},3000 paused", from.path().display(), to.path().display());
    let job = daemon.job(&spec).unwrap();
    let judge = |option: &str| {
        let map = daemon.path(format!("jobs/{job}/map.0"));
        Command::new("ddrescuelog").arg(option).arg(map).output().expect("ddrescuelog runs")
    };
    // Nothing is copied yet: well formed, and not done.
    assert!(judge("-t").status.success());
    assert_eq!(judge("-D").status.code(), Some(1));
    daemon.control(job, "resume").unwrap();
    assert_eq!(daemon.wait(job).state(), "done");
    let text = judge("-t");
    assert!(text.status.success() && String::from_utf8_lossy(&text.stdout).contains("finished"));
    assert_eq!(judge("-D").status.code(), Some(0));
    daemon.stop();
}
