//! Names that change while they are used: links that are pointed elsewhere, and directories that are replaced, between any
//! two system calls of the daemon. Whatever it opened is what it writes.

use std::{
    fs, io,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use kcopyfs_support::{Daemon, LoopDevice, MountPoint, Rng, mounted::make_ext4, need, stamp};

use crate::kit::{assert_nothing_torn, daemon, many_rounds, point, rounds, scratch, until};

const SIZE: u64 = 4 << 20;
const REGION: u64 = 64 << 10;
const SOURCE: u64 = 41;
const VICTIM: u64 = 42;

/// Does `change` over and over while `work` runs; says how often.
fn while_racing<T>(change: impl Fn(u64) + Sync, work: impl FnOnce(&AtomicU64) -> T) -> (T, u64) {
    let (over, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                change(count.fetch_add(1, Ordering::Relaxed));
                // two cores: the one who is raced must get a turn, too
                thread::sleep(Duration::from_micros(20));
            }
        });
        // also when the work panics
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&count)));
        over.store(true, Ordering::Relaxed);
        result
    });
    (result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), count.into_inner())
}

/// What must not be written, whatever a name leads to at the moment: a mounted disk, a fifo, a directory, a file of devices.
struct Forbidden {
    // dropped first, so that the device below is free
    point: MountPoint,
    mounted: LoopDevice,
    fifo: PathBuf,
    folder: PathBuf,
}

impl Forbidden {
    fn new(scratch: &Path) -> Self {
        let mounted = LoopDevice::new(SIZE, 512);
        make_ext4(mounted.path(), "^has_journal");
        let point = MountPoint::new().unwrap();
        // nothing but a mistake writes to it
        point.mount("ext4", mounted.path(), "noatime");
        fs::write(point.path().join("file"), "x").unwrap();
        point.remount("ro");
        let (fifo, folder) = (scratch.join("fifo"), scratch.join("folder"));
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        fs::create_dir(&folder).unwrap();
        Self { point, mounted, fifo, folder }
    }

    fn paths(&self) -> [&Path; 4] {
        [self.mounted.path(), &self.fifo, &self.folder, Path::new("/dev/null")]
    }

    fn contents(&self) -> Vec<u8> {
        fs::read(self.mounted.image()).unwrap()
    }

    fn assert_untouched(&self, before: &[u8]) {
        assert!(self.contents() == before, "a mounted disk was written");
        assert!(fs::symlink_metadata(&self.fifo).unwrap().file_type().is_fifo());
        assert_eq!(fs::read_dir(&self.folder).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(self.point.path().join("file")).unwrap(), "x");
    }
}

/// Makes a job or is refused for what the name led to.
fn try_job(daemon: &Daemon, spec: &str) -> Option<u64> {
    match daemon.job(spec) {
        Ok(id) => Some(id),
        Err(error) => {
            let errno = error.raw_os_error().unwrap();
            let expected = [libc::EBUSY, libc::ENOTBLK, libc::EACCES, libc::EROFS, libc::ENOENT, libc::EINVAL];
            assert!(expected.contains(&errno), "{error}: {spec}\n{}", daemon.read("error_log").unwrap());
            None
        }
    }
}

#[test]
fn a_destination_that_is_renamed_is_what_was_opened_or_is_refused() {
    if !need::fault_disk() || !need::program("mkfs.ext4", "e2fsprogs") {
        return;
    }
    let mut rng = Rng::from_env_or(10);
    let scratch = scratch();
    let forbidden = Forbidden::new(scratch.path());
    let before = forbidden.contents();
    let (source, good) = (LoopDevice::new(REGION, 512), LoopDevice::new(SIZE, 512));
    source.fill(SOURCE);
    good.fill(VICTIM);
    let file = scratch.path().join("good.img");
    fs::write(&file, stamp::stamped(VICTIM, 0, 8192)).unwrap();
    let link = scratch.path().join("to");
    point(&link, good.path());
    let daemon = daemon().option("state=none").option("keep=10").start();
    let mut targets = vec![good.path(), &file, good.path(), &file];
    targets.extend(forbidden.paths());
    let total = many_rounds(20_000);
    let ((made, refused), renames) = while_racing(
        |count| point(&link, targets[usize::try_from(count).unwrap() % targets.len()]),
        |renames| {
            let (mut made, mut refused) = (0, 0);
            while renames.load(Ordering::Relaxed) < total || made < total / 1000 {
                let words = *rng.pick(&["", "sparse", "force=mounted create", "verify"]);
                // a mounted disk may be written where it is asked for
                let words = if words.starts_with("force") { "create" } else { words };
                let spec = format!("from={} to={},64K {words}", source.path().display(), link.display());
                match try_job(&daemon, &spec) {
                    Some(id) if rng.one_in(50) => drop(daemon.wait(id)),
                    Some(_) => made += 1,
                    None => refused += 1,
                }
            }
            (made, refused)
        },
    );
    until("all jobs have ended", || {
        let lists = ["queued", "running", "paused", "flushing", "verifying"];
        lists.iter().all(|list| is_empty(&daemon.path(format!("state/{list}")))).then_some(())
    });
    eprintln!("{made} jobs made, {refused} refused, {renames} renames");
    assert!(made > 0 && refused > 0 && renames >= total, "no race");
    forbidden.assert_untouched(&before);
    // and what may be written is written in its region alone
    for data in [good.read(0..SIZE), fs::read(&file).unwrap()] {
        let (start, end) = (64 << 10, (64 << 10) + usize::try_from(REGION).unwrap());
        stamp::check(&data[..start], VICTIM, 0).unwrap();
        stamp::check(&data[start..end], SOURCE, 0).unwrap();
        stamp::check(&data[end..], VICTIM, end as u64 / 512).unwrap();
    }
    assert!(is_null(), "/dev/null is not what it was");
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

fn is_null() -> bool {
    fs::metadata("/dev/null").is_ok_and(|meta| meta.file_type().is_char_device())
}

#[test]
fn a_path_that_leads_elsewhere_later_is_not_followed_within_a_run() {
    if !need::fault_disk() {
        return;
    }
    let scratch = scratch();
    let (source, good, victim) = (LoopDevice::new(REGION, 512), LoopDevice::new(SIZE, 512), LoopDevice::new(SIZE, 512));
    source.fill(SOURCE);
    victim.fill(VICTIM);
    let (link, from) = (scratch.path().join("to"), scratch.path().join("from"));
    let daemon = daemon().start();
    for _ in 0..rounds(20) {
        good.fill(VICTIM);
        point(&link, good.path());
        point(&from, source.path());
        let spec = format!("from={} to={} paused verify", from.display(), link.display());
        let id = daemon.job(&spec).unwrap();
        point(&link, victim.path());
        point(&from, victim.path());
        daemon.control(id, "resume").unwrap();
        let status = daemon.wait(id);
        assert_eq!(status.state(), "done", "\n{status}");
        stamp::check(&good.read(0..REGION), SOURCE, 0).unwrap();
    }
    victim.check(VICTIM).unwrap();
}

#[test]
fn a_state_directory_that_is_renamed_and_strewn_with_links_leads_nowhere() {
    if !need::fault_disk() {
        return;
    }
    let scratch = scratch();
    let (state, moved, outside) =
        (scratch.path().join("state"), scratch.path().join("moved"), scratch.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    let victim = outside.join("victim");
    fs::write(&victim, stamp::stamped(VICTIM, 0, 8)).unwrap();
    let dest = LoopDevice::new(1 << 20, 512);
    let mut daemon = daemon().option(format!("state={}", state.display())).start();
    let real = fs::canonicalize(&state).unwrap();
    let next = AtomicU64::new(1);
    let change = |count: u64| {
        // the directory goes away, and its name leads outside
        if count.is_multiple_of(2) {
            let _ = fs::rename(&real, &moved);
            let _ = std::os::unix::fs::symlink(&outside, &state);
        } else {
            let _ = fs::remove_file(&state);
            let _ = fs::rename(&moved, &real);
        }
        // names that the daemon is about to use lead to the victim
        let inside = if count.is_multiple_of(2) { &moved } else { &real };
        let id = next.load(Ordering::Relaxed) + count % 3;
        for name in [format!("{id}.tmp"), "next.tmp".to_owned(), "next.copy.tmp".to_owned()] {
            let _ = std::os::unix::fs::symlink(&victim, inside.join(name));
        }
    };
    let total = many_rounds(20_000);
    let (kept, changes) = while_racing(change, |changes| {
        let mut kept = Vec::new();
        for round in 0.. {
            if changes.load(Ordering::Relaxed) >= total && kept.len() as u64 > total / 1000 {
                break;
            }
            let made = daemon.job(&format!("zero to={},0,8 paused queue", dest.path().display()));
            let id = match made {
                Ok(id) => id,
                // somebody else's link was in the way at the wrong moment: refused, and nothing lost
                Err(error) => {
                    assert!(matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ELOOP | libc::ENOENT)), "{error}");
                    continue;
                }
            };
            next.store(id + 1, Ordering::Relaxed);
            if round % 2 == 0 {
                daemon.control(id, "cancel").unwrap();
                until("an end", || daemon.status(id).is_ended().then_some(()));
                fs::remove_dir(daemon.path(format!("jobs/{id}"))).unwrap();
            } else {
                kept.push(id);
            }
        }
        kept
    });
    eprintln!("{} jobs kept, {changes} changes", kept.len());
    assert!(changes >= total, "no race");
    daemon.kill9();
    put_back(&state, &moved, &real).unwrap();
    assert_eq!(fs::read(&victim).unwrap(), stamp::stamped(VICTIM, 0, 8), "a link was followed");
    let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["victim"], "a record went outside");
    daemon.restart();
    for id in &kept {
        assert_eq!(daemon.status(*id).state(), "paused", "job {id}");
    }
    assert_nothing_torn(&daemon);
}

fn put_back(state: &Path, moved: &Path, real: &Path) -> io::Result<()> {
    if fs::symlink_metadata(state)?.file_type().is_symlink() {
        fs::remove_file(state)?;
    }
    if moved.exists() { fs::rename(moved, real) } else { Ok(()) }
}
