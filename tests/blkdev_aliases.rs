//! One disk behind all its names, on real loop devices, mounts and swap. Needs root.
//!
//! What a job would do: open a destination, ask who holds it, resolve its region. Every test makes its own
//! devices in a scratch directory and takes them down again, also when it fails.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use kcopyfs::blkdev::{
    Device, Extent, HolderKind, LastingExtent, OpenDest, Place, in_use, lasting, open_dest, open_source, resolve,
};
use kcopyfs::{ErrorKind, Sector};

/// Size of every image: the smallest on which mkfs and mkswap are at ease.
const IMAGE_BYTES: u64 = 16 << 20;

/// Runs a command, which must succeed; its standard output.
fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Whether the test can run; if not it says so, and fails where it is asked to be complete.
fn root(test: &str) -> bool {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0 && Path::new("/dev/loop-control").exists();
    is_root || skip(test, "it needs root and loop devices")
}

fn skip(test: &str, why: &str) -> bool {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{test} must not be skipped under CI=true: {why}");
    eprintln!("SKIPPED: {test}: {why}");
    false
}

/// Commands that undo what a test did, run in reverse order when it ends.
#[derive(Default)]
struct Undo(Vec<Vec<String>>);

impl Undo {
    fn with(&mut self, words: &[&str]) {
        self.0.push(words.iter().map(|word| (*word).to_owned()).collect());
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for words in self.0.drain(..).rev() {
            let status = Command::new(&words[0]).args(&words[1..]).status();
            if !status.is_ok_and(|status| status.success()) {
                eprintln!("left behind: {words:?} failed");
            }
        }
    }
}

/// A scratch directory with an image, and what lies over it. Undone before the directory goes.
struct Rig {
    undo: Undo,
    directory: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("kcopyfs-aliases-").tempdir().unwrap();
        let rig = Self { undo: Undo::default(), directory };
        fs::File::create(rig.image()).unwrap().set_len(IMAGE_BYTES).unwrap();
        rig
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn image(&self) -> PathBuf {
        self.path("image")
    }

    /// A loop device over `path` from `offset`.
    fn attach(&mut self, path: &Path, offset: u64) -> PathBuf {
        let name = run(&["losetup", "--find", "--show", "--offset", &offset.to_string(), text(path)]);
        self.undo.with(&["losetup", "--detach", &name]);
        PathBuf::from(name)
    }

    /// A partition of `disk`, made known to the kernel without a partition table, which not every kernel reads.
    fn partition(&mut self, disk: &Path, number: u32, start: u64, sectors: u64) -> PathBuf {
        let number = number.to_string();
        run(&["addpart", text(disk), &number, &start.to_string(), &sectors.to_string()]);
        self.undo.with(&["delpart", text(disk), &number]);
        PathBuf::from(format!("{}p{number}", disk.display()))
    }

    /// Mounts a new ext4 on `device`.
    fn mount(&mut self, device: &Path) -> PathBuf {
        let point = self.path("mount point");
        fs::create_dir(&point).unwrap();
        run(&["mkfs.ext4", "-q", text(device)]);
        run(&["mount", text(device), text(&point)]);
        self.undo.with(&["umount", text(&point)]);
        point
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A destination. Whoever looks for a free loop device claims the one that it tries for a moment, also one that is taken by now.
fn dest(path: &Path) -> Arc<Device> {
    kcopyfs_support::until("nobody else holds it", || match open_dest(path, OpenDest::default()) {
        Err(error) if error.kind() == ErrorKind::Busy => None,
        device => Some(device.unwrap()),
    })
}

fn source(path: &Path) -> Arc<Device> {
    open_source(path, 4096).unwrap()
}

fn extents(device: &Device, sector: u64, count: u64) -> Vec<Extent> {
    resolve(device, Sector::new(sector).unwrap(), Sector::new(count).unwrap()).unwrap()
}

fn meet(a: &[Extent], b: &[Extent]) -> bool {
    a.iter().any(|a| b.iter().any(|b| a.overlaps(b)))
}

/// The refusal of a destination, which must be `kind` and name `words`.
fn refused(path: &Path, kind: HolderKind, words: &[&str]) {
    let holder = in_use(&dest(path)).unwrap().unwrap_or_else(|| panic!("{} is not refused", path.display()));
    assert_eq!(holder.kind, kind, "{}", holder.message);
    for word in words.iter().chain(&[text(path), "force=mounted"]) {
        assert!(holder.message.contains(word), "no {word:?} in: {}", holder.message);
    }
    assert_eq!(kcopyfs::Error::from(holder).kind(), ErrorKind::Busy);
}

fn free(path: &Path) {
    assert_eq!(in_use(&dest(path)).unwrap(), None, "{}", path.display());
}

#[test]
fn root_a_symlink_and_a_copy_of_the_node_are_the_device() {
    if !root("symlink and mknod") {
        return;
    }
    let mut rig = Rig::new();
    let device = rig.attach(&rig.image(), 0);
    let (link, copy) = (rig.path("link"), rig.path("copy"));
    std::os::unix::fs::symlink(&device, &link).unwrap();
    let rdev = fs::metadata(&device).unwrap().rdev();
    let (major, minor) = (libc::major(rdev).to_string(), libc::minor(rdev).to_string());
    run(&["mknod", text(&copy), "b", &major, &minor]);
    let written = extents(&dest(&device), 0, 8);
    for name in [&link, &copy] {
        assert!(meet(&written, &extents(&dest(name), 7, 1)));
        assert!(!meet(&written, &extents(&dest(name), 8, 8)));
    }
}

#[test]
fn root_a_partition_is_a_part_of_its_disk_and_of_what_lies_below() {
    if !root("partition and disk") {
        return;
    }
    let mut rig = Rig::new();
    let disk = rig.attach(&rig.image(), 0);
    let first = rig.partition(&disk, 1, 2048, 8192);
    let second = rig.partition(&disk, 2, 10240, 8192);
    let first_four = extents(&dest(&first), 0, 4);
    assert_eq!(first_four.len(), 2);
    assert!(first_four.iter().all(|extent| extent.bytes == (2048 * 512..2052 * 512)), "{first_four:?}");
    let whole = |path: &Path, sectors| extents(&source(path), 0, sectors);
    assert!(meet(&first_four, &extents(&source(&disk), 2051, 1)));
    assert!(!meet(&first_four, &extents(&source(&disk), 2052, 1)));
    assert!(!meet(&whole(&first, 8192), &whole(&second, 8192)));
    assert!(meet(&whole(&second, 8192), &extents(&source(&rig.image()), 18431, 1)));
    free(&disk);
    // What the kernel does itself, and we build on: a hold on either shuts out the other, both ways.
    let hold = dest(&first);
    assert_eq!(open_dest(&disk, OpenDest::default()).unwrap_err().kind(), ErrorKind::Busy);
    free(&second);
    drop(hold);
    let _hold = dest(&disk);
    assert_eq!(open_dest(&second, OpenDest::default()).unwrap_err().kind(), ErrorKind::Busy);
}

#[test]
fn root_two_loops_over_one_file_meet_where_the_bytes_do() {
    if !root("two loops over one file") {
        return;
    }
    let mut rig = Rig::new();
    let (zero, eight) = (rig.attach(&rig.image(), 0), rig.attach(&rig.image(), 8 * 512));
    let (zero, eight) = (dest(&zero), dest(&eight));
    let agree = || {
        assert!(meet(&extents(&zero, 8, 1), &extents(&eight, 0, 1)));
        assert!(!meet(&extents(&zero, 0, 8), &extents(&eight, 0, 8)));
    };
    agree();
    assert_eq!(in_use(&zero).unwrap(), None);
    fs::rename(rig.image(), rig.path("renamed")).unwrap();
    agree();
    assert!(meet(&extents(&eight, 0, 1), &extents(&source(&rig.path("renamed")), 8, 1)));
    // Deleted, and the name taken by another file, which is not the one below.
    fs::remove_file(rig.path("renamed")).unwrap();
    fs::write(rig.path("renamed"), vec![0; 1 << 20]).unwrap();
    agree();
    assert!(!meet(&extents(&eight, 0, 1), &extents(&source(&rig.path("renamed")), 8, 1)));
    free(&rig.path("renamed"));
}

#[test]
fn root_hard_links_and_bind_mounts_are_one_file() {
    if !root("hard link and bind mount") {
        return;
    }
    let mut rig = Rig::new();
    let (link, bound) = (rig.path("link"), rig.path("bound"));
    fs::hard_link(rig.image(), &link).unwrap();
    fs::write(&bound, "").unwrap();
    run(&["mount", "--bind", text(&rig.image()), text(&bound)]);
    rig.undo.with(&["umount", text(&bound)]);
    let image = extents(&dest(&rig.image()), 0, 8);
    for name in [&link, &bound] {
        assert!(meet(&image, &extents(&source(name), 7, 8)), "{}", name.display());
        assert!(!meet(&image, &extents(&source(name), 8, 8)), "{}", name.display());
        free(name);
    }
    let over = rig.attach(&link, 0);
    refused(&bound, HolderKind::Loop, &[text(&over), "losetup -d"]);
    refused(&rig.image(), HolderKind::Loop, &[text(&over)]);
    // The link by which it was attached goes, the file stays.
    fs::remove_file(&link).unwrap();
    refused(&rig.image(), HolderKind::Loop, &[text(&over)]);
}

#[test]
fn root_a_loop_over_a_loop_reaches_the_lowest_file() {
    if !root("loop over loop") {
        return;
    }
    let mut rig = Rig::new();
    let lower = rig.attach(&rig.image(), 512);
    let part = rig.partition(&lower, 1, 2048, 8192);
    let upper = rig.attach(&part, 1024);
    let found = extents(&dest(&upper), 0, 1);
    let starts: Vec<_> = found.iter().map(|extent| extent.bytes.start / 512).collect();
    assert_eq!(starts, [0, 2050, 2051]);
    assert!(matches!(found[2].place, Place::File { .. }));
    assert!(meet(&found, &extents(&source(&rig.image()), 2051, 1)));
    free(&upper);
    // The kernel lets us have both exclusively.
    for below in [&lower, &part] {
        refused(below, HolderKind::Loop, &[text(&upper)]);
    }
    refused(&rig.image(), HolderKind::Loop, &["losetup -d"]);
}

#[test]
fn root_a_mount_is_seen_through_a_second_loop() {
    if !root("mounted, by another name") {
        return;
    }
    let mut rig = Rig::new();
    let disk = rig.attach(&rig.image(), 0);
    let part = rig.partition(&disk, 1, 2048, 8192);
    let point = rig.mount(&part);
    let beside = rig.attach(&rig.image(), 10240 * 512);
    let again = rig.attach(&rig.image(), 0);
    let over = rig.attach(&disk, 0);
    for name in [&disk, &part] {
        assert_eq!(open_dest(name, OpenDest::default()).unwrap_err().kind(), ErrorKind::Busy);
    }
    for name in [&again, &over, &rig.image()] {
        refused(name, HolderKind::Mounted, &[text(&part), "unmount", text(&point)]);
    }
    free(&beside);
}

#[test]
fn root_swap_is_refused_by_all_its_names() {
    if !root("swap") {
        return;
    }
    let mut rig = Rig::new();
    let file = rig.path("swap");
    fs::write(&file, vec![0; 4 << 20]).unwrap();
    let device = rig.attach(&rig.image(), 0);
    for path in [&file, &device] {
        run(&["chmod", "600", text(path)]);
        run(&["mkswap", text(path)]);
        let swapon = Command::new("swapon").arg(path).output().unwrap();
        if !swapon.status.success() {
            skip("swap", &String::from_utf8_lossy(&swapon.stderr));
            return;
        }
        rig.undo.with(&["swapoff", text(path)]);
    }
    let link = rig.path("link");
    fs::hard_link(&file, &link).unwrap();
    refused(&file, HolderKind::Swap, &["swapoff"]);
    refused(&link, HolderKind::Swap, &[text(&file)]);
    assert_eq!(open_dest(&device, OpenDest::default()).unwrap_err().kind(), ErrorKind::Busy);
    let again = rig.attach(&rig.image(), 0);
    refused(&again, HolderKind::Swap, &[text(&device), "swapoff"]);
}

#[test]
fn root_lasting_names_are_the_same_under_every_name() {
    if !root("root_lasting_names_are_the_same_under_every_name") {
        return;
    }
    let mut rig = Rig::new();
    let image = rig.image();
    let hard = rig.path("hard link");
    fs::hard_link(&image, &hard).unwrap();
    let (disk, second) = (rig.attach(&image, 0), rig.attach(&image, 0));
    let (behind, over) = (rig.attach(&image, 64 * 512), rig.attach(&disk, 32 * 512));
    let part = rig.partition(&disk, 1, 64, 512);
    let names = |path: &Path, sector| -> Vec<LastingExtent> {
        let device = source(path);
        lasting(&device, &extents(&device, sector, 8)).unwrap()
    };
    let known = names(&image, 80);
    assert_eq!(known.len(), 1);
    assert!(known[0].medium.starts_with("inode:"), "{known:?}");
    assert_eq!((known[0].bytes.clone(), known[0].exact, known[0].at), (80 * 512..88 * 512, true, Some(0)));
    for (path, sector) in [(&hard, 80), (&disk, 80), (&second, 80), (&behind, 16), (&over, 48), (&part, 16)] {
        assert_eq!(names(path, sector), known, "{}", path.display());
    }
    assert_ne!(names(&part, 17), known);
}
