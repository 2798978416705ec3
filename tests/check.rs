//! `check`: what a spec would do, without a trace. That it refuses what `jobs/new` refuses is shown with each refusal, in
//! `refusals`; that it opens nothing for writing, in `udev`.
//!
//! Needs FUSE and root.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use kcopyfs_support::{Daemon, LoopDevice, need};

const MIB: u64 = 1 << 20;

fn daemon() -> Daemon {
    Daemon::builder(env!("CARGO_BIN_EXE_kcopyfs")).start()
}

fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The report without its folds.
fn flat(report: &str) -> String {
    report.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// When a file was read, written and changed last, and how long it is.
fn times(path: &Path) -> (i64, i64, i64, i64, i64, i64, u64) {
    let meta = fs::symlink_metadata(path).expect("it is there");
    let (a, m, c) = (meta.atime_nsec(), meta.mtime_nsec(), meta.ctime_nsec());
    (meta.atime(), a, meta.mtime(), m, meta.ctime(), c, meta.len())
}

#[test]
fn a_clone_is_told_without_a_trace_needs_root_and_fuse() {
    let programs = [("sgdisk", "gdisk"), ("mkfs.ext4", "e2fsprogs"), ("mkfs.vfat", "dosfstools"), ("mount", "mount")];
    if !(need::loops() && need::fuse() && programs.iter().all(|(program, package)| need::program(program, package))) {
        return;
    }
    let (from, to) = (LoopDevice::new(32 * MIB, 512), LoopDevice::new(64 * MIB, 512));
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("present.img");
    File::create(&image).unwrap().set_len(MIB).unwrap();
    run(&["mkfs.ext4", "-q", "-F", "-L", "in file", text(&image)]);
    // Read long ago, so that any reading would show.
    run(&["touch", "-a", "-d", "2001-01-01", text(&image)]);
    for (disk, label) in [(&from, "new root"), (&to, "old root")] {
        run(&["sgdisk", "-n", "1:2048:+16M", text(&disk.image())]);
        run(&["mkfs.ext4", "-q", "-F", "-L", label, "-E", "offset=1048576", text(&disk.image()), "16m"]);
    }
    let bytes = |disk: &LoopDevice| disk.read(0..disk.size());
    let mut daemon = daemon();
    let before = (bytes(&from), bytes(&to), fs::read(&image).unwrap());
    run(&["touch", "-a", "-d", "2001-01-01", text(&image)]);
    let paths = [from.path(), to.path(), &image];
    let at = paths.map(times);
    let (jobs, events) = (fs::read_dir(daemon.path("jobs")).unwrap().count(), daemon.read("events").unwrap());
    let (source, dest, file) = (text(from.path()), text(to.path()), text(&image));
    let missing = folder.path().join("made.img");
    let spec = format!("from={source} to={dest} to={file} to={} create name=clone", text(&missing));
    let report = daemon.check(&spec).expect("check");
    let said = flat(&report);
    let size = to.size();
    for part in [
        "copy 32.0 MiB (65536 sectors), named clone".to_owned(),
        format!("source: {source} device: 32.0 MiB, {}, loop", text(&from.image())),
        "1 partition partition 1: 16.0 MiB from sector 2048, ext4 \"new root\", UUID".to_owned(),
        format!("destination 0: {dest} device: 64.0 MiB"),
        "lost: gpt, partition 1 (ext4 \"old root\")".to_owned(),
        format!("stays behind it: gpt (backup header) at byte {}", size - 512),
        format!("destination 1: {file} device: 1.0 MiB, file holds: ext4 \"in file\""),
        "lost: ext4 \"in file\"".to_owned(),
        format!("destination 2: {} device: a file that would be made", text(&missing)),
        format!("backup header of the GPT would be in its middle, at sector 65535; after the copy: sgdisk -e {dest}"),
        format!("{source} and {dest} would have the same UUIDs (gpt, ext4 \"new root\")"),
        "nothing was started, made or written".to_owned(),
    ] {
        assert!(said.contains(&part), "{part}\nis not in\n{report}");
    }
    assert!(report.lines().all(|line| line.chars().count() <= 100), "{report}");
    assert_eq!(daemon.read("check").unwrap(), report, "it can be read later, too");
    assert_eq!(paths.map(times), at, "no time has changed");
    assert!(!missing.exists());
    assert!((bytes(&from), bytes(&to), fs::read(&image).unwrap()) == before, "no byte has changed");
    assert_eq!(fs::read_dir(daemon.path("jobs")).unwrap().count(), jobs);
    assert_eq!(daemon.read("events").unwrap(), events);
    assert_eq!(daemon.job(&format!("{spec} paused")).unwrap(), 1, "no number was used up");
    daemon.stop();
}

#[test]
fn a_mounted_source_and_a_busy_destination_are_told_needs_root_and_fuse() {
    if !(need::loops() && need::fuse() && need::program("mkfs.ext4", "e2fsprogs")) {
        return;
    }
    let (from, to) = (LoopDevice::new(4 * MIB, 512), LoopDevice::new(4 * MIB, 512));
    let folder = tempfile::tempdir().unwrap();
    run(&["mkfs.ext4", "-q", "-O", "^has_journal", text(from.path())]);
    run(&["mount", text(from.path()), text(folder.path())]);
    let mut daemon = daemon();
    let (source, dest) = (text(from.path()), text(to.path()));
    let report = daemon.check(&format!("from={source} to={dest}")).map(|report| flat(&report));
    let forced = daemon.check(&format!("from={dest} to={source} force=mounted")).map(|report| flat(&report));
    let refused = daemon.refused_by("check", &format!("from={dest} to={source}"));
    let waits = daemon.check(&format!("from={dest} to={source} queue")).map(|report| flat(&report));
    run(&["umount", text(folder.path())]);
    let point = text(folder.path());
    let (report, forced) = (report.expect("check"), forced.expect("check"));
    assert!(
        report.contains(&format!("note: {source} is mounted at {point}: it is copied while it changes")),
        "{report}"
    );
    assert!(forced.contains(&format!("{source} is mounted at {point}, and destination 0 is there")), "{forced}");
    assert_eq!(refused.errno, libc::EBUSY);
    assert!(waits.expect("check").contains("would wait:"));
    // A job has the destination: it is shared by a second one, elsewhere, and refused where they meet.
    let job = daemon.job(&format!("from={source},0,8 to={dest} paused")).unwrap();
    let refused = daemon.refused_by("check", &format!("from={source},0,16 to={dest}"));
    assert_eq!(refused.reason, daemon.refused(&format!("from={source},0,16 to={dest}")).reason);
    assert!(refused.reason.contains(&format!("by job {job}")), "{}", refused.reason);
    daemon.check(&format!("from={source},8,8 to={dest},8")).expect("check");
    daemon.control(job, "resume").unwrap();
    assert_eq!(daemon.wait(job).state(), "done");
    // What was looked at through the job's own descriptor is not kept open by that.
    drop(OpenOptions::new().write(true).open(dest).unwrap());
    daemon.job(&format!("from={source} to={dest}")).map(|job| daemon.wait(job)).unwrap();
    daemon.stop();
}

#[test]
fn a_script_reads_what_it_checked_needs_root_and_fuse() {
    if !(need::loops() && need::fuse()) {
        return;
    }
    let (from, to) = (LoopDevice::new(MIB, 512), LoopDevice::new(MIB, 512));
    let mut daemon = daemon();
    let spec = format!("from={} to={}", text(from.path()), text(to.path()));
    let script = format!("exec 3<>$M/check; echo '{spec}' >&3 && cat <&3");
    for shell in ["bash", "dash"] {
        let told = daemon.sh(shell, &script).ok();
        assert!(told.starts_with("copy 1.0 MiB") && told.ends_with("nothing was started, made or written\n"), "{told}");
    }
    let told = daemon.sh("bash", "echo from=/nowhere to=/dev/null > $M/check || cat $M/check").ok();
    assert!(told.starts_with("error: /nowhere: "), "{told}");
    // Two open files do not mix.
    let open = || OpenOptions::new().read(true).write(true).open(daemon.path("check")).unwrap();
    let (mut one, mut other) = (open(), open());
    // One write(2) each.
    one.write_all(format!("{spec}\n").as_bytes()).unwrap();
    other.write_all(format!("verify {spec}\n").as_bytes()).unwrap();
    let read = |file: &mut File| {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    };
    assert!(read(&mut one).starts_with("copy ") && read(&mut other).starts_with("compare "));
    let mut byte = [0];
    assert_eq!(one.read_at(&mut byte, 0).unwrap(), 1, "and again from the beginning");
    daemon.stop();
}
