//! Locks on disks: as udev, mkfs and others take them, and as they see ours.
//!
//! Needs FUSE and root. No udev runs here: a watcher in Python does what it does, which is to look at a disk each time that
//! somebody closes it who had it open for writing, and only where it gets the lock.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use kcopyfs_support::{Daemon, LoopDevice, need, until};

const SIZE: u64 = 1 << 20;

fn can_run() -> bool {
    need::loops() && need::fuse() && need::program("flock", "util-linux") && need::program("python3", "python3")
}

fn daemon() -> Daemon {
    Daemon::builder(env!("CARGO_BIN_EXE_kcopyfs")).option("state=none").start()
}

/// Whether flock(1) gets a lock on a disk now.
fn is_free(disk: &Path, how: &str) -> bool {
    let status = Command::new("flock").args([how, "-n"]).arg(disk).arg("true").status().expect("flock runs");
    status.success()
}

/// A program that has a disk locked until it is dropped.
struct Locked(Child);

impl Locked {
    fn new(disk: &Path) -> Self {
        let holder = Command::new("flock").arg(disk).arg("cat").stdin(Stdio::piped()).spawn().expect("flock runs");
        until("the disk is locked", || (!is_free(disk, "-x")).then_some(()));
        Self(holder)
    }

    fn let_go(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("flock ends");
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// Looks at disks as udev does; tells what it did, a line each. The last path is no disk, but tells when all before was seen.
const WATCHER: &str = r#"
import ctypes, fcntl, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
IN_CLOSE_WRITE = 8
fd = libc.inotify_init1(0)
names = {libc.inotify_add_watch(fd, path.encode(), IN_CLOSE_WRITE): path for path in sys.argv[1:]}
print("ready", flush=True)
while True:
    data, at = os.read(fd, 4096), 0
    while at < len(data):
        wd, mask, cookie, length = struct.unpack_from("iIII", data, at)
        at += 16 + length
        path = names[wd]
        if path == sys.argv[-1]:
            print("mark", flush=True)
            continue
        node = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fcntl.flock(node, fcntl.LOCK_SH | fcntl.LOCK_NB)
            print("probed " + path, flush=True)
        except BlockingIOError:
            print("skipped " + path, flush=True)
        os.close(node)
"#;

struct Watcher {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    mark: PathBuf,
}

impl Watcher {
    fn new(disks: &[&Path], folder: &Path) -> Self {
        let mark = folder.join("mark");
        std::fs::write(&mark, "").unwrap();
        let mut command = Command::new("python3");
        command.args(["-c", WATCHER]).args(disks).arg(&mark).stdout(Stdio::piped());
        let mut process = command.spawn().expect("python3 runs");
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut watcher = Self { process, lines, mark };
        assert_eq!(watcher.next(), "ready");
        watcher
    }

    fn next(&mut self) -> String {
        self.lines.next().expect("the watcher lives").unwrap()
    }

    /// What it has done since it was asked last.
    fn told(&mut self) -> Vec<String> {
        std::fs::write(&self.mark, "now").unwrap();
        let mut told = Vec::new();
        loop {
            match self.next() {
                line if line == "mark" => return told,
                line => told.push(line),
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Opens for writing and closes, as many programs do that only look.
fn touch(disk: &Path) {
    drop(OpenOptions::new().write(true).open(disk).expect("open the disk"));
}

#[test]
fn a_disk_that_another_program_has_locked_is_refused_by_name_needs_root_and_fuse() {
    if !can_run() {
        return;
    }
    let disks: Vec<_> = (0..3).map(|_| LoopDevice::new(SIZE, 512)).collect();
    let [from, free, held] = [0, 1, 2].map(|index: usize| disks[index].path());
    let mut holder = Locked::new(held);
    let mut daemon = daemon();
    let spec = format!("from={} to={} to={}", from.display(), free.display(), held.display());
    for file in ["check", "jobs/new"] {
        let refused = daemon.refused_by(file, &spec);
        let reason = format!(
            "{} is in use: the disk {0} is locked (flock) by process {} (flock)",
            held.display(),
            holder.0.id()
        );
        assert_eq!((refused.errno, refused.reason), (libc::EBUSY, reason), "{file}");
        assert!(is_free(free, "-x"), "the lock of a job that is refused is released");
    }
    let refused = daemon.refused(&format!("{spec} force=mounted"));
    assert_eq!(refused.errno, libc::EBUSY, "force=mounted does not lift it");
    // Reading needs no lock.
    let job = daemon.job(&format!("from={} to={}", held.display(), free.display())).unwrap();
    assert_eq!(daemon.wait(job).state(), "done");
    let job = daemon.job(&format!("{spec} queue")).unwrap();
    let waits = until("it says why it waits", || daemon.status(job).error().map(str::to_owned));
    assert!(waits.contains("is locked (flock) by process"), "{waits}");
    assert!(is_free(free, "-x"), "a job that waits has no lock");
    holder.let_go();
    assert_eq!(daemon.wait(job).state(), "done");
    assert!(is_free(held, "-x") && is_free(free, "-x"));
    daemon.stop();
}

#[test]
fn a_prober_leaves_the_disk_alone_until_the_job_has_ended_needs_root_and_fuse() {
    if !can_run() {
        return;
    }
    let (from, to) = (LoopDevice::new(SIZE, 512), LoopDevice::new(SIZE, 512));
    let folder = tempfile::tempdir().unwrap();
    let mut daemon = daemon();
    let mut watcher = Watcher::new(&[from.path(), to.path()], folder.path());
    let (source, dest) = (from.path().display(), to.path().display());
    daemon.check(&format!("from={source} to={dest}")).expect("check");
    assert_eq!(watcher.told(), [""; 0], "a check opens nothing for writing");
    assert!(is_free(to.path(), "-x"));
    let first = daemon.job(&format!("from={source},0,8 to={dest} paused")).unwrap();
    let second = daemon.job(&format!("from={source},8,8 to={dest},8 paused")).unwrap();
    assert!(!is_free(to.path(), "-s") && is_free(from.path(), "-x"), "the destination alone is locked");
    assert_eq!(watcher.told(), [""; 0]);
    touch(to.path());
    assert_eq!(watcher.told(), [format!("skipped {dest}")]);
    daemon.control(first, "resume").unwrap();
    assert_eq!(daemon.wait(first).state(), "done");
    assert!(!is_free(to.path(), "-s"), "two jobs share it");
    assert_eq!(watcher.told(), [""; 0], "and nothing is closed yet");
    daemon.control(second, "resume").unwrap();
    assert_eq!(daemon.wait(second).state(), "done");
    // The devices are closed before the end is told; so the disk is free when the prober comes.
    assert_eq!(watcher.told(), [format!("probed {dest}")]);
    assert!(is_free(to.path(), "-x"));
    daemon.stop();
}

#[test]
fn partitions_lock_their_disk_together_needs_root_and_fuse() {
    if !can_run() || !need::program("addpart", "util-linux-extra") {
        return;
    }
    let (from, disk) = (LoopDevice::new(SIZE, 512), LoopDevice::new(SIZE, 512));
    let run = |words: &[&str]| {
        let status = Command::new(words[0]).args(&words[1..]).status().expect("it runs");
        assert!(status.success(), "{words:?}");
    };
    let path = disk.path().to_str().unwrap().to_owned();
    run(&["addpart", &path, "1", "256", "256"]);
    run(&["addpart", &path, "2", "512", "256"]);
    let mut daemon = daemon();
    let job = |part: u32| daemon.job(&format!("from={},0,8 to={path}p{part} paused", from.path().display())).unwrap();
    let [first, second] = [1, 2].map(job);
    assert!(!is_free(disk.path(), "-s"));
    daemon.control(first, "cancel").unwrap();
    daemon.wait(first);
    assert!(!is_free(disk.path(), "-s"), "the other partition still has it");
    daemon.control(second, "cancel").unwrap();
    daemon.wait(second);
    assert!(is_free(disk.path(), "-x"));
    let _holder = Locked::new(disk.path());
    let refused = daemon.refused(&format!("from={},0,8 to={path}p1", from.path().display()));
    assert!(refused.reason.contains(&format!("the disk {path} is locked")), "{}", refused.reason);
    daemon.stop();
    run(&["delpart", &path, "1"]);
    run(&["delpart", &path, "2"]);
}
