//! The store in a real directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

fn open(path: &Path) -> Opened {
    let opened = Store::open(path).unwrap();
    assert_eq!(opened.set_aside, []);
    opened
}

fn ids(opened: &Opened) -> Vec<JobId> {
    opened.records.iter().map(|record| record.id).collect()
}

/// Flips a bit in the middle of a file.
fn spoil(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn jobs_come_back_in_order_and_numbers_go_on() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("var/lib/kcopyfs");
    let opened = open(&path);
    assert_eq!((ids(&opened), opened.next_id), (vec![], 1));
    opened.store.save(&[]).unwrap();
    opened.store.save(&[10, 9, 1].map(|id| record(id, 1))).unwrap();
    opened.store.save(&[record(9, 2)]).unwrap();
    opened.store.remove(1).unwrap();
    opened.store.remove(1).unwrap();
    drop(opened);

    let opened = open(&path);
    assert_eq!((ids(&opened), opened.next_id), (vec![9, 10], 11));
    assert_eq!(opened.records[0], record(9, 2));
    opened.store.remove(10).unwrap();
    opened.store.remove(9).unwrap();
    drop(opened);
    assert_eq!(open(&path).next_id, 11, "all are gone, their numbers are not");

    for made in [&path, &parent.path().join("var")] {
        assert_eq!(fs::metadata(made).unwrap().mode() & 0o777, 0o700);
    }
    for entry in fs::read_dir(&path).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_second_daemon_is_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let error = Store::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    let text = error.to_string();
    assert!(text.contains(&folder.path().display().to_string()), "{text}");
    assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    drop(first);
    open(folder.path());
}

#[test]
fn threads_save_their_jobs_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let opened = open(folder.path());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &opened.store;
            scope.spawn(move || {
                for generation in 1..=10 {
                    store.save(&[record(thread * 2 + 1, generation), record(thread * 2 + 2, generation)]).unwrap();
                }
            });
        }
    });
    drop(opened);
    let opened = open(folder.path());
    assert_eq!(opened.records, (1..=8).map(|id| record(id, 10)).collect::<Vec<_>>());
}

#[test]
fn what_is_not_a_record_is_set_aside_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    open(folder.path()).store.save(&(1..=7).map(|id| record(id, 1)).collect::<Vec<_>>()).unwrap();
    spoil(&at("2.job"));
    fs::write(at("3.job"), b"").unwrap();
    fs::write(at("4.job"), seal::seal_as("job", 2, "future 1\n")).unwrap();
    fs::copy(at("1.job"), at("5.job")).unwrap();
    fs::remove_file(at("6.job")).unwrap();
    symlink(at("1.job"), at("6.job")).unwrap();
    fs::remove_file(at("7.job")).unwrap();
    fs::create_dir(at("7.job")).unwrap();
    // Not the store's.
    for name in ["007.job", "notes", "8.job~", "9.tmp.swp", "9223372036854775807.job", "18446744073709551615.job"] {
        fs::write(at(name), b"mine").unwrap();
    }
    fs::write(at("9.tmp"), b"half").unwrap();

    let opened = Store::open(folder.path()).unwrap();
    assert_eq!((ids(&opened), opened.next_id), (vec![1], 8));
    let told: BTreeMap<String, &str> = opened
        .set_aside
        .iter()
        .map(|(path, why)| {
            assert!(fs::symlink_metadata(path).is_ok() && path.starts_with(at(DAMAGED)), "{}", path.display());
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), why.as_str())
        })
        .collect();
    let expected = [
        ("2.job", "damaged: its checksum does not fit"),
        ("3.job", "damaged: it is cut off"),
        ("4.job", "its format is version 2, this kcopyfs reads version 1"),
        ("5.job", "damaged: it is the record of job 1"),
        ("6.job", "damaged: it is a symbolic link"),
        ("7.job", "damaged: it is no regular file"),
    ];
    assert_eq!(told, expected.map(|(name, why)| (name.to_owned(), why)).into());
    drop(opened);
    assert_eq!(open(folder.path()).next_id, 8, "told once, and their numbers stay theirs");
    for name in ["007.job", "notes", "8.job~", "9.tmp.swp", "9223372036854775807.job", "18446744073709551615.job"] {
        assert_eq!(fs::read(at(name)).unwrap(), b"mine");
    }
    assert!(!at("9.tmp").exists());
}

#[test]
fn numbers_outlive_a_damaged_mark() {
    for name in marks::MARKS {
        let folder = tempfile::tempdir().unwrap();
        let opened = open(folder.path());
        opened.store.save(&[record(41, 1)]).unwrap();
        opened.store.remove(41).unwrap();
        drop(opened);
        spoil(&folder.path().join(name));
        let opened = Store::open(folder.path()).unwrap();
        assert_eq!((opened.next_id, opened.set_aside.len()), (42, 1));
        opened.store.save(&[record(42, 1)]).unwrap();
        opened.store.remove(42).unwrap();
        drop(opened);
        assert_eq!(open(folder.path()).next_id, 43);
        assert!(marks::MARKS.iter().all(|name| folder.path().join(name).exists()), "both are there again");
    }
}

#[test]
fn a_directory_of_a_later_version_is_set_aside_whole() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    open(folder.path()).store.save(&[record(1, 1), record(30, 1)]).unwrap();
    fs::write(at(VERSION), seal::seal_as("state", 2, "jobs 2\n")).unwrap();
    fs::write(at("index"), b"of version 2").unwrap();
    let opened = Store::open(folder.path()).unwrap();
    assert_eq!((ids(&opened), opened.next_id), (vec![], 31));
    let [(place, why)] = &opened.set_aside[..] else { panic!("{:?}", opened.set_aside) };
    assert_eq!(why, "its format is version 2, this kcopyfs reads version 1");
    for name in ["1.job", "30.job", "index", VERSION] {
        assert!(place.join(name).exists() && !at(name).exists(), "{name}");
    }
    opened.store.save(&[record(31, 1)]).unwrap();
    drop(opened);
    assert_eq!(ids(&open(folder.path())), [31]);
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Access);
    assert!(error.to_string().contains("may be written by everybody"), "{error}");
    assert!(Store::open(Path::new("/dev/null")).is_err());
}

/// A link in place of anything that the store writes leads nowhere.
#[test]
fn links_do_not_lead_the_store_outside() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, b"untouched").unwrap();
    for name in ["1.tmp", "1.job", "version.tmp", VERSION, "next.tmp", "next", "next.copy.tmp", "next.copy", DAMAGED] {
        let folder = tempfile::tempdir().unwrap();
        let target = if name == DAMAGED { outside.path() } else { victim.as_path() };
        symlink(target, folder.path().join(name)).unwrap();
        fs::write(folder.path().join("2.job"), b"damaged").unwrap();
        let opened = Store::open(folder.path()).unwrap();
        opened.store.save(&[record(1, 1)]).unwrap();
        opened.store.remove(1).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"untouched", "{name}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    symlink(&victim, folder.path().join(LOCK)).unwrap();
    assert!(Store::open(folder.path()).is_err());
    assert_eq!(fs::read(&victim).unwrap(), b"untouched");
}

/// The path of the directory is renamed and replaced all the time.
#[test]
fn the_store_stays_in_the_directory_that_it_opened() {
    let parent = tempfile::tempdir().unwrap();
    let (path, away, outside) = (parent.path().join("a"), parent.path().join("b"), parent.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    let opened = open(&path);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                fs::rename(&path, &away).unwrap();
                symlink(&outside, &path).unwrap();
                fs::remove_file(&path).unwrap();
                fs::rename(&away, &path).unwrap();
            }
        });
        for round in 1..=300 {
            opened.store.save(&[record(round, 1)]).unwrap();
            opened.store.remove(round).unwrap();
        }
        opened.store.save(&[record(301, 1)]).unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    drop(opened);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(ids(&open(&path)), [301]);
}

/// A file system of its own, unmounted when it goes.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` without root, which is a failure under `CI`.
    fn new(options: &str) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        if disk.mount(&["-t", "tmpfs", "-o", options, "none"]) {
            return Some(disk);
        }
        assert!(std::env::var_os("CI").is_none(), "mount(8) failed: run as root");
        eprintln!("SKIPPED: mount(8) failed: run as root");
        None
    }

    fn mount(&self, words: &[&str]) -> bool {
        let mut command = std::process::Command::new("mount");
        command.args(words).arg(self.0.path()).stderr(std::process::Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn needs_root_a_full_disk_refuses_and_recovers() {
    for options in ["size=64k,mode=700", "nr_inodes=8,mode=700"] {
        let Some(disk) = SmallDisk::new(options) else { return };
        let path = disk.0.path();
        open(path).store.save(&[record(1, 1)]).unwrap();
        let ballast = |number: usize| path.join(format!("ballast.{number}"));
        let full = (0..100).take_while(|number| fs::write(ballast(*number), [1; 4096]).is_ok()).count();

        let opened = open(path);
        let error = opened.store.save(&[record(1, 2), record(2, 1), record(3, 1)]).unwrap_err();
        assert_eq!(error.errno(), libc::ENOSPC, "{error}");
        assert!(error.to_string().contains(".tmp: No space left on device"), "{error}");
        (0..=full).for_each(|number| drop(fs::remove_file(ballast(number))));
        opened.store.save(&[record(4, 1)]).unwrap();
        drop(opened);
        let opened = open(path);
        assert_eq!(opened.records, [record(1, 1), record(4, 1)]);
    }
}

#[test]
fn needs_root_a_read_only_disk_is_opened_and_refuses_to_save() {
    let Some(disk) = SmallDisk::new("size=1m,mode=700") else { return };
    let path = disk.0.path();
    open(path).store.save(&[record(1, 1)]).unwrap();
    assert!(disk.mount(&["-o", "remount,ro"]));
    let opened = open(path);
    assert_eq!(ids(&opened), [1]);
    assert_eq!(opened.store.save(&[record(2, 1)]).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(opened.store.remove(1).unwrap_err().kind(), ErrorKind::ReadOnly);
    assert!(disk.mount(&["-o", "remount,rw"]));
    opened.store.save(&[record(3, 1)]).unwrap();
    drop(opened);
    assert_eq!(ids(&open(path)), [1, 3]);
}
