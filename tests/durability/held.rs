//! A held job keeps what it reads and writes, by whatever name another job comes for it, until it goes on or is cancelled.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use kcopyfs_support::{Daemon, LoopDevice, MountPoint, mounted::make_ext4, need, stamp};

use crate::kit::{checkpoint, daemon, until, until_reason, until_state};

const SIZE: u64 = 2 << 20;
const SECTORS: u64 = SIZE / 512;
const SEED: u64 = 81;
/// Where a partition, and a loop device with an offset, begin, and how many sectors they have.
const BEGIN: u64 = 64;
const PART: u64 = 512;

/// A scratch directory, and commands that undo what was done, last first.
struct Place {
    undo: Vec<Vec<String>>,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kcopyfs-held-").tempdir().expect("a scratch directory");
        Self { undo: Vec::new(), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn undo_by(&mut self, words: &[&str]) {
        self.undo.push(words.iter().map(|word| (*word).to_owned()).collect());
    }

    fn undo(&mut self) {
        for words in self.undo.drain(..).rev() {
            if !Command::new(&words[0]).args(&words[1..]).status().is_ok_and(|status| status.success()) {
                eprintln!("left behind: {words:?} failed");
            }
        }
    }

    fn loop_over(&mut self, file: &str, offset: u64) -> String {
        let name = run(&["losetup", "--find", "--show", "--offset", &offset.to_string(), file]);
        self.undo_by(&["losetup", "--detach", &name]);
        name
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.undo();
    }
}

fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

/// A job that has a part of its destination, and is held: its source is not what it was.
struct Held {
    daemon: Daemon,
    source: PathBuf,
    away: PathBuf,
    id: u64,
}

impl Held {
    fn new(place: &Place, dest: &str) -> Self {
        let [source, away] = ["source", "source, away"].map(|name| place.path(name));
        fs::write(&source, stamp::stamped(SEED, 0, usize::try_from(SECTORS).expect("small"))).unwrap();
        let mut daemon = daemon().start();
        let id = daemon.job(&format!("from={} to={dest} speed_max=512K", source.display())).unwrap();
        until("progress", || (daemon.status(id).copied() > 0).then_some(()));
        checkpoint(&daemon, id);
        daemon.kill9();
        fs::rename(&source, &away).unwrap();
        fs::write(&source, vec![0; usize::try_from(SIZE).expect("small")]).unwrap();
        daemon.restart();
        until_state(&daemon, id, "held");
        Self { daemon, source, away, id }
    }

    /// `PART` sectors from `sector` of that name are its own: nobody writes them, nobody reads them.
    fn keeps(&self, place: &Place, name: &str, sector: u64) {
        let bystander = place.path("bystander");
        fs::write(&bystander, vec![1; usize::try_from(PART * 512).expect("small")]).unwrap();
        let bystander = bystander.display();
        for spec in [
            format!("zero to='{name}',{sector},8"),
            format!("from={bystander},0,{PART} to='{name}',{sector}"),
            format!("from='{name}',{sector},{PART} to={bystander}"),
        ] {
            let refused = self.daemon.refused(&spec);
            let kept = format!("is kept for job {}", self.id);
            assert!(refused.errno == libc::EBUSY && refused.reason.contains(&kept), "{spec}: {}", refused.reason);
        }
    }

    /// It goes on when its source is back.
    fn goes_on(&self) {
        fs::rename(&self.away, &self.source).unwrap();
        let _ = self.daemon.write(format!("jobs/{}/speed_max", self.id), "max\n");
        self.daemon.control(self.id, "resume").unwrap();
        let status = self.daemon.wait(self.id);
        assert_eq!(status.state(), "done", "{status}");
    }
}

fn can_run() -> bool {
    need::fault_disk() && need::program("addpart", "util-linux-extra") && need::program("losetup", "mount")
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_held_job_keeps_its_disk_from_every_alias() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let disk = LoopDevice::new(SIZE, 512);
    disk.fill(82);
    let path = text(disk.path());
    let held = Held::new(&place, &path);
    let before = disk.read(0..SIZE);

    let [link, node] = ["link", "node"].map(|name| text(&place.path(name)));
    symlink(&path, &link).unwrap();
    let number = fs::metadata(&path).unwrap().rdev();
    run(&["mknod", &node, "b", &libc::major(number).to_string(), &libc::minor(number).to_string()]);
    let (again, behind) = (disk.alias(0), disk.alias(BEGIN * 512));
    run(&["addpart", &path, "1", &BEGIN.to_string(), &PART.to_string()]);
    place.undo_by(&["delpart", &path, "1"]);
    for (name, sector) in [
        (path.clone(), 0),
        (link, BEGIN),
        (node, BEGIN),
        (text(again.path()), 0),
        (text(behind.path()), 0),
        (format!("{path}p1"), 0),
    ] {
        held.keeps(&place, &name, sector);
    }
    assert!(disk.read(0..SIZE) == before, "somebody has written");
    place.undo();
    held.goes_on();
    disk.check(SEED).unwrap();
}

#[test]
fn a_held_job_keeps_its_file_from_every_alias() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let [file, link, hard] = ["file", "link", "hard link"].map(|name| text(&place.path(name)));
    fs::write(&file, vec![9; usize::try_from(SIZE).expect("small")]).unwrap();
    let held = Held::new(&place, &file);
    let before = fs::read(&file).unwrap();

    symlink(&file, &link).unwrap();
    fs::hard_link(&file, &hard).unwrap();
    for name in [&file, &link, &hard] {
        held.keeps(&place, name, BEGIN);
    }
    let whole = place.loop_over(&file, 0);
    held.keeps(&place, &whole, BEGIN);
    let behind = place.loop_over(&file, BEGIN * 512);
    held.keeps(&place, &behind, 0);
    assert!(fs::read(&file).unwrap() == before, "somebody has written");
    place.undo();
    held.goes_on();
    assert!(fs::read(&file).unwrap() == fs::read(&held.source).unwrap());
}

/// Who mounted it has put something there: an unmount is no leave to write on.
#[test]
fn a_job_whose_disk_is_mounted_after_a_restart_is_held_and_stays_so_when_it_is_unmounted() {
    if !can_run() || !need::program("mkfs.ext4", "e2fsprogs") {
        return;
    }
    let [source, disk] = [LoopDevice::new(SIZE, 512), LoopDevice::new(4 * SIZE, 512)];
    source.fill(SEED);
    let other = LoopDevice::new(2 * SIZE, 512);
    let (path, place) = (text(disk.path()), 2 * SIZE);
    // its first half is the file system, the job writes behind that
    run(&["mkfs.ext4", "-q", "-F", "-O", "^has_journal", &path, "4M"]);
    make_ext4(other.path(), "^has_journal");
    let points = [MountPoint::new().unwrap(), MountPoint::new().unwrap()];
    let mut daemon = daemon().start();
    let spec = format!("from={} to={path},{} speed_max=512K", source.path().display(), place / 512);
    let id = daemon.job(&spec).unwrap();
    until("progress", || (daemon.status(id).copied() > 0).then_some(()));
    checkpoint(&daemon, id);
    points[1].mount("ext4", other.path(), "noatime");
    let waits = daemon.job(&format!("zero to={},0,8 queue", other.path().display())).unwrap();
    daemon.kill9();
    // The system takes a killed process's ring apart a little later than the process.
    let exclusive = || fs::OpenOptions::new().write(true).custom_flags(libc::O_EXCL).open(disk.path());
    until("nobody holds the disk", || exclusive().ok().map(drop));
    points[0].mount("ext4", disk.path(), "noatime");
    let before = disk.read(place..place + SIZE);
    daemon.restart();

    until_state(&daemon, id, "held");
    let why = daemon.status(id).error().unwrap_or_default().to_owned();
    assert!(why.contains(&path) && why.contains("mounted at"), "{why}");
    let events = daemon.read("events").unwrap();
    let tells = |line: &str| line.contains(" queued held ") && line.contains("mounted at");
    assert!(events.lines().any(tells), "no event says why:\n{events}");
    until_reason(&daemon, waits, "mounted at");
    points.iter().for_each(MountPoint::unmount);
    // one that waits by its own word is looked at again, and the held one is not
    assert_eq!(daemon.wait(waits).state(), "done");
    let status = daemon.status(id);
    assert_eq!(status.state(), "held", "\n{status}");
    assert!(disk.read(place..place + SIZE) == before, "it was written");

    daemon.write(format!("jobs/{id}/speed_max"), "max\n").unwrap();
    daemon.control(id, "resume").unwrap();
    assert_eq!(daemon.wait(id).state(), "done");
    assert_eq!(stamp::check(&disk.read(place..place + SIZE), SEED, 0), Ok(()));
}
