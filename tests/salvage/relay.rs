//! A rescue that is handed on: from here to ddrescue, and back, by maps; and what `map=` takes and refuses.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use kcopyfs_support::{Daemon, Fault, FaultDisk, Op, Rng, need};

use crate::{NEW, OLD, end, image, join, len, listed, map, mapped, rounds, span, start};

const SIZE: u64 = 4 << 20;
/// The region on the source and on the destination.
const FROM: Range<u64> = 512 << 10..3 << 20;
const TO: u64 = 1 << 20;

struct Disks {
    from: FaultDisk,
    to: FaultDisk,
    /// Where the source cannot be read; each may be mended by itself.
    bad: Vec<Range<u64>>,
    folder: tempfile::TempDir,
}

impl Disks {
    /// Whole devices, or images as they lie in files.
    fn new(images: bool, rng: &mut Rng) -> Self {
        let shape = |disk: kcopyfs_support::faultdisk::Builder| {
            if images { disk.file_only() } else { disk.merging(false) }
        };
        let from = crate::stamped(shape(FaultDisk::builder(SIZE)), NEW);
        let to = crate::stamped(shape(FaultDisk::builder(SIZE).log(true)), OLD);
        let mut bad = Vec::new();
        for _ in 0..rng.within(1..12) {
            // Of a file in a file system nobody reads less than a page.
            let block = if images { 4096 } else { 512 };
            let blocks = *rng.pick(&[1, 1, 2, 8, 60]);
            let first = FROM.start / block + rng.below((FROM.end - FROM.start) / block - blocks);
            bad.push(first * block..(first + blocks) * block);
        }
        let disks = Self { from, to, bad: join(bad), folder: tempfile::tempdir_in("/var/tmp").unwrap() };
        disks.set_rules();
        disks
    }

    fn set_rules(&self) {
        self.from.clear();
        for range in &self.bad {
            self.from.rule(Op::Read, range.clone(), Fault::Err(libc::EIO));
        }
    }

    /// Some of it can be read again.
    fn mend(&mut self, rng: &mut Rng) {
        self.bad.retain(|_| rng.below(3) > 0);
        self.set_rules();
    }

    fn spec(&self, words: &str) -> String {
        let (from, to) = (self.from.path(), self.to.path());
        let (first, count) = (FROM.start / 512, (FROM.end - FROM.start) / 512);
        format!("from={},{first},{count} to={},{} {words}", from.display(), to.display(), TO / 512)
    }

    fn save(&self, map: &str) -> PathBuf {
        let path = self.folder.path().join("map");
        std::fs::write(&path, map).unwrap();
        path
    }

    /// What is said to be there is there; what is bad is as it was, or zeros; nothing else has changed.
    fn check(&self, map: &str, zeros: bool, what: &str) {
        let (found, old, new) = (self.to.contents(), image(SIZE, OLD), image(SIZE, NEW));
        let mut want = old.clone();
        let shifted = |range: &Range<u64>| range.start - FROM.start + TO..range.end - FROM.start + TO;
        for range in mapped(map, '+') {
            want[span(&shifted(&range))].copy_from_slice(&new[span(&range)]);
        }
        for range in mapped(map, '-').iter().filter(|_| zeros) {
            want[span(&shifted(range))].fill(0);
        }
        crate::assert_same(&found, &want, what);
    }
}

/// The command that a map prints, for that file.
fn command(map: &str, file: &Path) -> String {
    let line = map.lines().find_map(|line| line.strip_prefix("# To finish by hand: ")).expect("a command");
    line.replace("MAPFILE", &file.display().to_string())
}

fn shell(command: &str) {
    let done = Command::new("sh").args(["-c", command]).output().expect("a shell");
    assert!(done.status.success(), "{command}\n{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_rescue_goes_to_ddrescue_and_back_and_loses_nothing() {
    if !need::fault_disk() || !need::program("ddrescue", "gddrescue") {
        return;
    }
    let mut rng = Rng::from_env_or(61);
    let daemon = start(&["state=none", "subjob_kb=64"]);
    for round in 0..rounds(4, 50) {
        let images = round % 2 == 1;
        let mut disks = Disks::new(images, &mut rng);
        let zeros = rng.below(2) == 0;
        let policy = if zeros { "on_read_error=zero" } else { "on_read_error=skip" };
        // ours
        let id = daemon.job(&disks.spec(policy)).unwrap();
        end(&daemon, id, "degraded");
        let ours = map(&daemon, id, 0);
        assert_eq!(mapped(&ours, '-'), disks.bad);
        disks.check(&ours, zeros, "after the first leg");
        // ddrescue
        disks.mend(&mut rng);
        let file = disks.save(&ours);
        shell(&command(&ours, &file));
        let theirs = std::fs::read_to_string(&file).unwrap();
        assert_eq!(mapped(&theirs, '-'), disks.bad, "{theirs}");
        disks.check(&theirs, zeros, "after ddrescue");
        // and back
        disks.mend(&mut rng);
        let retries = rng.below(2);
        let before = disks.to.written().len();
        let id = daemon.job(&disks.spec(&format!("{policy} retries={retries} map={}", file.display()))).unwrap();
        let known = mapped(&theirs, '-');
        let left = if retries > 0 { disks.bad.clone() } else { known.clone() };
        let status = end(&daemon, id, if left.is_empty() { "done" } else { "degraded" });
        let back = map(&daemon, id, 0);
        disks.check(&back, zeros, "after the way back");
        assert_eq!((mapped(&back, '-'), listed(&daemon.errors(id), None)), (left.clone(), left.clone()), "\n{status}");
        let total = FROM.end - FROM.start;
        assert_eq!((status.copied(), status.bad_bytes()), (total - len(&left), len(&left)), "\n{status}");
        // What was there was not touched.
        let there: Vec<_> = mapped(&theirs, '+')
            .iter()
            .map(|range| range.start - FROM.start + TO..range.end - FROM.start + TO)
            .collect();
        for write in &disks.to.written()[before..] {
            let write = write.offset..write.offset + write.len;
            assert!(there.iter().all(|range| range.end <= write.start || write.end <= range.start), "{write:?}");
        }
    }
}

#[test]
fn a_map_is_read_once_and_outlives_its_file() {
    if !need::fault_disk() {
        return;
    }
    let (from, to) =
        (crate::disk(SIZE, 512, NEW), crate::stamped(FaultDisk::builder(SIZE).log(true).merging(false), OLD));
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = folder.path().join("a map");
    // What it says is there is not the source's: so it is seen that nobody touches it.
    let text = format!("# Mapfile\n0x0 ? 1\n0 {} +\n{} 1000 -\n", SIZE / 2 + 100, SIZE / 2 + 1500);
    std::fs::write(&file, text).unwrap();
    let mut daemon = Daemon::builder(crate::PROGRAM).option("subjob_kb=64").start();
    let line = format!("from={} to={} paused map='{}'", from.path().display(), to.path().display(), file.display());
    let id = daemon.job(&line).unwrap();
    let status = daemon.status(id);
    assert_eq!((status.copied(), status.durable(), status.bad_bytes()), (SIZE / 2, SIZE / 2, 512), "\n{status}");
    std::fs::remove_file(&file).unwrap();
    daemon.kill9();
    daemon.restart();
    daemon.control(id, "resume").unwrap();
    let status = end(&daemon, id, "degraded");
    let (found, mut want) = (to.contents(), image(SIZE, NEW));
    let bad = SIZE / 2 + 1536..SIZE / 2 + 2048;
    assert_eq!(mapped(&map(&daemon, id, 0), '-'), std::slice::from_ref(&bad));
    for range in [0..SIZE / 2, bad] {
        want[span(&range)].copy_from_slice(&image(SIZE, OLD)[span(&range)]);
    }
    crate::assert_same(&found, &want, &format!("\n{status}"));
    // Another one needs the file.
    let refused = daemon.job(&line).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENOENT));
}

#[test]
fn a_map_that_does_not_fit_is_refused_with_its_line() {
    if !need::fault_disk() {
        return;
    }
    let (from, to) = (crate::disk(SIZE, 512, NEW), crate::disk(SIZE, 512, OLD));
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let file = folder.path().join("map");
    let daemon = start(&["state=none"]);
    let mut many = String::new();
    (0..200_000).for_each(|place| writeln!(many, "{} 1 +", place * 2).unwrap());
    let cases: [(&str, &str, i32); 6] = [
        ("", "line 1: ", libc::EINVAL),
        ("hello world\n", "line 1: ", libc::EINVAL),
        ("0 ? 1\n\n0 512 x\n", "line 3: ", libc::EINVAL),
        ("0 ? 1\n0 1024 +\n512 512 -\n", "line 3: ", libc::EINVAL),
        ("0 ? 1\n4193792 1024 +\n", "beyond the job's region", libc::EINVAL),
        ("0 ? 1\n", "", 0),
    ];
    let line = format!("from={} to={} map={}", from.path().display(), to.path().display(), file.display());
    for (text, why, errno) in cases {
        std::fs::write(&file, text).unwrap();
        match daemon.job(&line) {
            Ok(id) => {
                assert_eq!(errno, 0, "{text:?}");
                end(&daemon, id, "done");
            }
            Err(refused) => {
                assert_eq!(refused.raw_os_error(), Some(errno), "{text:?}");
                let log = daemon.read("error_log").unwrap();
                assert!(log.lines().any(|line| line.contains(why) && line.contains("map=")), "{text:?}\n{log}");
            }
        }
    }
    // A sector is the least that can be there: all of these are none, and few enough.
    std::fs::write(&file, format!("0 ? 1\n{many}")).unwrap();
    let id = daemon.job(&line).unwrap();
    end(&daemon, id, "done");
    assert!(to.check(NEW).is_ok());
    std::fs::create_dir(folder.path().join("d")).unwrap();
    let line = format!("from={} to={} map={}/d", from.path().display(), to.path().display(), folder.path().display());
    let refused = daemon.job(&line).unwrap_err();
    assert!(matches!(refused.raw_os_error(), Some(libc::EINVAL | libc::EISDIR)), "{refused}");
    for line in
        ["zero to=/x,0,8 map=/m", "verify from=/x to=/y map=/m", "from=/x to=/y map=m", "from=/x to=/y map=/m after=1"]
    {
        assert_eq!(daemon.job(line).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{line}");
    }
}
