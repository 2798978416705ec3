//! `jobs/ID/devices`: which disk is which, in a line each, whatever their names are.
//!
//! Needs FUSE and root.

use std::collections::BTreeMap;
use std::fs;

use kcopyfs_support::{Daemon, LoopDevice, need};

const SIZE: u64 = 1 << 20;

/// The lines of `devices`: name, and keys with values. The path comes last and may hold blanks.
fn devices(daemon: &Daemon, job: u64) -> Vec<(String, BTreeMap<String, String>)> {
    let text = daemon.read(format!("jobs/{job}/devices")).expect("devices");
    let line = |line: &str| {
        let (words, path) = line.split_once(" path=").unwrap_or_else(|| panic!("no path: {line}"));
        let (name, words) = words.split_once(' ').expect("a name and words");
        let pair = |word: &str| word.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        let words = words.split(' ').map(|word| pair(word).unwrap_or_else(|| panic!("no value: {line}")));
        let mut keys: BTreeMap<_, _> = words.collect();
        keys.insert("path".to_owned(), path.to_owned());
        (name.to_owned(), keys)
    };
    text.lines().map(line).collect()
}

#[test]
fn devices_tells_each_region_before_and_after_the_end_and_a_restart_needs_root_and_fuse() {
    if !(need::loops() && need::fuse()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let hostile = folder.path().join("a b\nstate=done\\ \u{1b}[2J.img");
    fs::write(&hostile, vec![7; usize::try_from(SIZE).unwrap()]).unwrap();
    let from = LoopDevice::over(&hostile, 512);
    let to = LoopDevice::new(SIZE, 512);
    let image = folder.path().join("made.img");
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_kcopyfs")).start();
    let (source, dest) = (from.path().display(), to.path().display());
    let job = daemon.job(&format!("from={source} to={dest} to={} create paused", image.display())).unwrap();
    let told = devices(&daemon, job);
    let names: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["source", "0", "1"]);
    let escaped = hostile.display().to_string();
    let escaped =
        escaped.replace('\\', "\\134").replace(' ', "\\040").replace('\n', "\\012").replace('\u{1b}', "\\033");
    let expected = |size: &str, model: &str, transport: &str, path: &str| {
        let unknown = ["serial", "wwid", "temperature", "usb_port"].map(|key| (key, "-"));
        let known = [("size", size), ("model", model), ("transport", transport), ("path", path)];
        let all = known.into_iter().chain(unknown).map(|(key, value)| (key.to_owned(), value.to_owned()));
        all.collect::<BTreeMap<_, _>>()
    };
    let size = SIZE.to_string();
    let mut lines = told.iter().map(|(_, keys)| {
        let mut keys = keys.clone();
        let rotational = keys.remove("rotational").expect("rotational");
        assert!(matches!(rotational.as_str(), "0" | "1" | "-"), "{rotational}");
        keys
    });
    assert_eq!(lines.next().unwrap(), expected(&size, &escaped, "loop", &source.to_string()));
    assert_eq!(lines.next().unwrap(), expected(&size, to.image().to_str().unwrap(), "loop", &dest.to_string()));
    assert_eq!(lines.next().unwrap(), expected("-", "-", "file", image.to_str().unwrap()));
    daemon.control(job, "resume").unwrap();
    assert_eq!(daemon.wait(job).state(), "done");
    assert_eq!(devices(&daemon, job), told, "the same when it has ended");
    daemon.stop();
    daemon.restart();
    assert_eq!(devices(&daemon, job), told, "and when the daemon was started again");
    daemon.stop();
}

#[test]
fn a_device_that_was_never_open_is_unknown_needs_root_and_fuse() {
    if !(need::loops() && need::fuse()) {
        return;
    }
    let (from, to) = (LoopDevice::new(SIZE, 512), LoopDevice::new(SIZE, 512));
    let held = fs::OpenOptions::new();
    let held = std::os::unix::fs::OpenOptionsExt::custom_flags(held.clone().read(true), libc::O_EXCL).open(to.path());
    let held = held.expect("hold the disk");
    let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_kcopyfs")).option("state=none").start();
    let job = daemon.job(&format!("from={} to={} queue", from.path().display(), to.path().display())).unwrap();
    for (_, keys) in devices(&daemon, job) {
        assert!(keys.iter().all(|(key, value)| key == "path" || value == "-"), "{keys:?}");
    }
    drop(held);
    assert_eq!(daemon.wait(job).state(), "done");
    assert_eq!(devices(&daemon, job)[1].1["transport"], "loop");
    daemon.stop();
}
