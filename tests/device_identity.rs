//! A device is recognised by what lasts of it: through renames, other loop numbers and remounts, and never by its name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kcopyfs::blkdev::{Device, identity, open_source};
use kcopyfs::{SECTOR_SIZE, Sector};

/// Bytes of an image: enough for the smallest ext4.
const SIZE: u64 = 4 << 20;

/// Numbers of loop devices belong to everybody on the machine; another may take the one that a test wants.
const TRIES: usize = 20;

fn known(path: &Path) -> String {
    let text = identity(&open_source(path, 4096).unwrap()).unwrap_or_else(|| panic!("{} is unknown", path.display()));
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
    text
}

fn image(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    fs::File::create(&path).unwrap().set_len(SIZE).unwrap();
    path
}

fn run(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// A loop device, detached when it goes.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path) -> Option<Self> {
        run(Command::new("losetup").args(["--find", "--show"]).arg(file)).map(|path| Self(path.into()))
    }

    fn with(options: &[&str], device: &Path, file: &Path) -> Option<Self> {
        run(Command::new("losetup").args(options).arg(device).arg(file)).map(|_| Self(device.to_owned()))
    }

    /// Detaches it; its path is free for another.
    fn detach(self) -> PathBuf {
        self.0.clone()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run(Command::new("losetup").arg("--detach").arg(&self.0));
    }
}

/// A mount, undone when it goes.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        run(Command::new("umount").arg(&self.0));
    }
}

/// Whether loop devices are to be had; without them a test is skipped, which is a failure under `CI`.
fn loops_work(file: &Path) -> bool {
    if Loop::over(file).is_some() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "no loop devices: run as root");
    eprintln!("SKIPPED: no loop devices: run as root");
    false
}

#[test]
fn a_file_is_its_inode_and_not_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let first = known(&image(folder.path(), "a"));
    assert!(first.starts_with("inode:"), "{first}");
    assert_ne!(known(&image(folder.path(), "b")), first);
    fs::rename(at("a"), at("c")).unwrap();
    fs::hard_link(at("c"), at("d")).unwrap();
    assert_eq!(known(&at("c")), first);
    assert_eq!(known(&at("d")), first);
    assert_ne!(known(&image(folder.path(), "a")), first, "a new file of the old name");
}

#[test]
fn a_file_that_gets_the_inode_of_a_deleted_one_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..50 {
        let path = image(folder.path(), "a");
        assert!(seen.insert(known(&path)));
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn memory_has_no_identity() {
    let device = Device::in_memory(Sector::from_bytes(SECTOR_SIZE).unwrap(), 512).unwrap();
    assert_eq!(identity(&device), None);
}

#[test]
fn needs_root_a_loop_device_is_its_file_and_not_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (image(folder.path(), "a"), image(folder.path(), "b"));
    if !loops_work(&a) {
        return;
    }
    let first = Loop::over(&a).unwrap();
    let before = known(&first.0);
    assert!(before.starts_with("loop:0+0;sectors=8192;on=inode:"), "{before}");

    let second = Loop::over(&a).unwrap();
    assert_ne!(second.0, first.0);
    assert_eq!(known(&second.0), before, "under another number");
    drop(second);

    let renamed = folder.path().join("c");
    fs::rename(&a, &renamed).unwrap();
    assert_eq!(known(&first.0), before, "attached while its file was renamed");
    let number = first.detach();
    let again = (0..TRIES).find_map(|_| Loop::with(&[], &number, &b));
    if let Some(other) = again {
        assert_ne!(known(&other.0), before, "another file under the old number");
    }
    assert_eq!(known(&Loop::over(&renamed).unwrap().0), before, "attached again by its new name");

    let free = Loop::over(&renamed).unwrap().detach();
    if let Some(shifted) = Loop::with(&["--offset", "4096"], &free, &renamed) {
        assert_ne!(known(&shifted.0), before, "another part of the file");
    }
}

#[test]
fn needs_root_a_loop_device_over_a_deleted_file_is_known_until_it_is_detached() {
    let folder = tempfile::tempdir().unwrap();
    let a = image(folder.path(), "a");
    if !loops_work(&a) {
        return;
    }
    let device = Loop::over(&a).unwrap();
    fs::remove_file(&a).unwrap();
    let before = known(&device.0);
    assert!(before.starts_with("boot:") && before.contains(";diskseq="), "{before}");
    // Another file at the path that sysfs still tells of.
    let new = image(folder.path(), "a");
    assert_eq!(known(&device.0), before);
    assert_ne!(known(&Loop::over(&new).unwrap().0), before);
}

#[test]
fn needs_root_a_file_is_known_after_its_file_system_was_mounted_again() {
    let folder = tempfile::tempdir().unwrap();
    let disk = image(folder.path(), "disk");
    if !loops_work(&disk) {
        return;
    }
    let made = run(Command::new("mkfs.ext4").arg("-q").arg(&disk));
    assert!(made.is_some(), "mkfs.ext4");
    let mount = |name: &str| {
        let point = folder.path().join(name);
        fs::create_dir_all(&point).unwrap();
        let device = Loop::over(&disk).unwrap();
        assert!(run(Command::new("mount").arg(&device.0).arg(&point)).is_some(), "mount");
        (Mount(point), device)
    };
    let first = mount("first");
    let before = known(&image(&first.0.0, "file"));
    drop(first);
    let _blocker = Loop::over(&image(folder.path(), "blocker"));
    let second = mount("second");
    assert_eq!(known(&second.0.0.join("file")), before);
    assert!(before.contains(";on=uuid:"), "{before}");
}
