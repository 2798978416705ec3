//! Destinations that lie: they say that they took what they did not take, or took otherwise, or elsewhere.

use std::{fmt::Write as _, ops::Range, process::Command};

use kcopyfs_support::{Daemon, Fault, FaultDisk, LoopDevice, Op, Rng, direct::Direct, need, stamp};

use crate::{NEW, OLD, disk, end, join, listed, map, mapped, rounds, start};

const SIZE: u64 = 4 << 20;
const PIECE: u64 = 64 << 10;
/// The region, in bytes; it begins elsewhere on the source.
const FROM: u64 = 512 << 10;
const TO: Range<u64> = 1 << 20..3 << 20;
const PIECES: u64 = (TO.end - TO.start) / PIECE;

/// The word by which `errors` says that a range is different.
const DIFFERENT: &str = "differs";

struct Disks {
    from: FaultDisk,
    to: Vec<FaultDisk>,
    block: u64,
}

impl Disks {
    fn new(block: u32, dests: u64) -> Self {
        let to: Vec<_> = (0..dests).map(|index| disk(SIZE, block, OLD + index)).collect();
        Self { from: disk(SIZE, block, NEW), to, block: u64::from(block) }
    }

    fn refill(&self) {
        self.from.clear();
        for (seed, disk) in (OLD..).zip(&self.to) {
            disk.clear();
            disk.fill(seed);
        }
    }

    fn spec(&self, words: &str) -> String {
        let (first, count) = (FROM / 512, (TO.end - TO.start) / 512);
        let mut spec = format!("{words} from={},{first},{count}", self.from.path().display());
        for disk in &self.to {
            let _ = write!(spec, " to={},{}", disk.path().display(), TO.start / 512);
        }
        spec
    }

    /// The blocks of a destination that are not the source's.
    fn different(&self, index: usize) -> Vec<Range<u64>> {
        let data = self.to[index].contents_of(TO);
        let blocks = (TO.start..).step_by(usize::try_from(self.block).unwrap());
        let blocks = blocks.zip(data.chunks(usize::try_from(self.block).unwrap()));
        let wrong = blocks.filter(|(byte, data)| stamp::check(data, NEW, (byte - TO.start + FROM) / 512).is_err());
        join(wrong.map(|(byte, _)| byte..byte + self.block).collect())
    }

    /// What a comparison that has ended says, against what the disks hold.
    fn assert_told(&self, daemon: &Daemon, id: u64) {
        let different: Vec<_> = (0..self.to.len()).map(|index| self.different(index)).collect();
        let bad = different.iter().filter(|ranges| !ranges.is_empty()).count();
        let state = match bad {
            0 => "done",
            _ if bad == self.to.len() => "failed",
            _ => "degraded",
        };
        let status = end(daemon, id, state);
        let (dests, errors) = (daemon.dests(id), daemon.errors(id));
        assert!(errors.iter().all(|range| range.errno == DIFFERENT && range.dest.is_some()), "{errors:?}");
        for (index, different) in different.iter().enumerate() {
            assert_eq!(listed(&errors, Some(index)), *different, "errors of destination {index}");
            let state = if different.is_empty() { "done" } else { "mismatch" };
            assert_eq!(dests[index].state, state, "{:?}", dests[index]);
            assert_eq!(status.write_err() & (1 << index) != 0, !different.is_empty(), "\n{status}");
            let open: Vec<_> =
                different.iter().map(|range| range.start - TO.start + FROM..range.end - TO.start + FROM).collect();
            assert_eq!(mapped(&map(daemon, id, index), '?'), open, "map.{index}");
        }
    }
}

/// Sets up to `most` lies, each in a piece of its own, runs a copy with `verify`, and returns how many were found.
fn lies(disks: &Disks, daemon: &Daemon, most: u64, words: &str, rng: &mut Rng) -> u64 {
    disks.refill();
    let mut pieces: Vec<u64> = (0..PIECES).collect();
    let mut injected = Vec::new();
    for _ in 0..rng.within(1..6).min(most) {
        let piece = pieces.swap_remove(usize::try_from(rng.below(pieces.len() as u64)).unwrap());
        let offset = piece * PIECE + rng.below(PIECE / disks.block) * disks.block;
        let (index, at) = (usize::try_from(rng.below(disks.to.len() as u64)).unwrap(), TO.start + offset);
        let (disk, byte) = (&disks.to[index], rng.below(disks.block));
        let rule = match rng.below(4) {
            0 => disk.rule(Op::Write, at + byte..=at + byte, Fault::Corrupt),
            1 => disk.rule(Op::Write, at..at + disks.block, Fault::Drop),
            // anywhere on the disk, a piece's place or not
            2 => {
                let start = TO.start + piece * PIECE;
                let place = loop {
                    let place = rng.below((SIZE - PIECE) / disks.block) * disks.block;
                    if place.abs_diff(start) >= disks.block {
                        break place;
                    }
                };
                disk.rule(Op::Write, start..start + PIECE, Fault::Misdirect(place))
            }
            _ => disks.from.rule(Op::Read, FROM + offset + byte..=FROM + offset + byte, Fault::Corrupt),
        };
        injected.push((rule.times(1), index, at));
    }
    let id = daemon.job(&disks.spec(&format!("copy verify {words}"))).unwrap();
    daemon.wait(id);
    disks.assert_told(daemon, id);
    for (rule, index, at) in &injected {
        assert_eq!(rule.hits(), 1, "a lie that was not told");
        let found = listed(&daemon.errors(id), Some(*index));
        assert!(found.iter().any(|range| range.contains(at)), "byte {at} of destination {index}: {found:?}");
    }
    assert_eq!(disks.from.check(NEW), Ok(()));
    injected.len() as u64
}

#[test]
fn verify_finds_every_lie() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(6);
    let wanted = rounds(24, 500);
    let mut found = 0;
    for (way, (io, block, dests)) in (1..).zip([("io=uring", 512, 3), ("io=threads", 4096, 1)]) {
        let disks = Disks::new(block, dests);
        let daemon = start(&["state=none", "subjob_kb=64", io]);
        while found < wanted * way / 2 {
            let words = *rng.pick(&["", "", "write_seq", "digest=sha256", "retries=1", "on_read_error=zero"]);
            found += lies(&disks, &daemon, wanted - found, words, &mut rng);
        }
    }
    eprintln!("{found} of {wanted} found");
}

#[test]
fn verify_raises_no_false_alarm() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(7);
    for (io, block) in [("io=uring", 4096), ("io=threads", 512)] {
        let disks = Disks::new(block, 2);
        for _ in 0..rounds(2, 50) {
            let subjob = format!("subjob_kb={}", rng.pick(&[4, 16, 64, 512, 1024]));
            let daemon = start(&["state=none", io, &subjob]);
            disks.refill();
            // errors that pass are none
            disks.to[0].rule(Op::Write, TO, Fault::Err(libc::EIO)).times(rng.below(3));
            let words = *rng.pick(&["", "sparse", "write_seq", "digest=blake3", "on_read_error=skip"]);
            let id = daemon.job(&disks.spec(&format!("copy verify retries=2 {words}"))).unwrap();
            let status = end(&daemon, id, "done");
            assert_eq!((status.durable(), daemon.errors(id).len()), (TO.end - TO.start, 0), "{words}\n{status}");
            disks.assert_told(&daemon, id);
        }
    }
}

/// Flips a bit of a random byte in each of so many random blocks of a destination's medium.
fn rot(disks: &Disks, index: usize, count: u64, rng: &mut Rng) {
    for _ in 0..count {
        let byte = rng.within(TO);
        let data = disks.to[index].contents_of(byte..=byte);
        disks.to[index].load(byte, &[data[0] ^ (1 << rng.below(8))]);
    }
}

#[test]
fn what_rots_later_is_found_by_the_verb_and_the_action_and_mended_by_retry() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(8);
    for (io, block) in [("io=uring", 512), ("io=threads", 4096)] {
        let disks = Disks::new(block, 2);
        let daemon = start(&["state=none", "subjob_kb=64", io]);
        let id = daemon.job(&disks.spec("")).unwrap();
        end(&daemon, id, "done");
        // sound: the verb and the action say so
        daemon.control(id, "verify").unwrap();
        daemon.wait(id);
        disks.assert_told(&daemon, id);
        let action = daemon.job(&disks.spec("verify")).unwrap();
        let status = end(&daemon, action, "done");
        assert_eq!(status.copied(), status.total(), "\n{status}");

        rot(&disks, 1, 9, &mut rng);
        daemon.control(id, "verify").unwrap();
        daemon.wait(id);
        assert!(!disks.different(1).is_empty());
        disks.assert_told(&daemon, id);
        let action = daemon.job(&disks.spec("verify")).unwrap();
        daemon.wait(action);
        disks.assert_told(&daemon, action);

        daemon.control(id, "retry").unwrap();
        end(&daemon, id, "done");
        assert_eq!([disks.different(0), disks.different(1)], [[], []]);
        daemon.control(action, "retry").unwrap();
        daemon.wait(action);
        disks.assert_told(&daemon, action);
        assert_eq!(disks.from.check(NEW), Ok(()));
    }
}

/// A loop device of `bytes` bytes over a tmpfs with room for `room`, which loses the rest and may not say so.
fn over_full_tmpfs(bytes: u64, room: u64) -> LoopDevice {
    let point = tempfile::tempdir().expect("a mount point");
    let run = |program: &str, arguments: &[&str]| {
        let status = Command::new(program).args(arguments).arg(point.path()).status().expect("run it");
        assert!(status.success(), "{program} {arguments:?}: {status}");
    };
    run("mount", &["-t", "tmpfs", "-o", &format!("size={room}"), "none"]);
    let image = point.path().join("image");
    let made = std::fs::File::create(&image).and_then(|file| file.set_len(bytes));
    let device = made.map(|()| LoopDevice::over(&image, 512));
    // the device keeps it alive, and it goes with the device
    run("umount", &["-l"]);
    device.expect("an image")
}

#[test]
fn a_loop_over_a_full_tmpfs_is_never_done() {
    if !need::loops() || !need::fuse() {
        return;
    }
    for io in ["io=uring", "io=threads"] {
        let from = LoopDevice::new(SIZE, 512);
        from.fill(NEW);
        let (full, good) = (over_full_tmpfs(SIZE, SIZE / 4), LoopDevice::new(SIZE, 512));
        let daemon = start(&["state=none", io]);
        let paths = [from.path(), full.path(), good.path()].map(|path| path.display().to_string());
        let [source, first, second] = &paths;
        let id = daemon.job(&format!("from={source} to={first} to={second} verify")).unwrap();
        let status = end(&daemon, id, "degraded");
        assert_eq!(status.write_err(), 1, "\n{status}");
        assert_eq!(good.check(NEW), Ok(()));
        let dests = daemon.dests(id);
        assert_eq!(dests[1].state, "done");
        let device = Direct::open_read_only(full.path()).expect("open the device");
        let lost: Vec<_> = (0..SIZE / 4096)
            .filter(|page| {
                let data = device.read(page * 4096, 4096);
                data.is_ok_and(|data| stamp::check(&data, NEW, page * 8).is_err())
            })
            .map(|page| page * 4096..(page + 1) * 4096)
            .collect();
        eprintln!("{io}: {} of {SIZE} bytes were lost, {:?}", lost.len() * 4096, dests[0]);
        // some kernels let the error through, and then it is found without a comparison
        if dests[0].state == "mismatch" {
            assert!(!lost.is_empty());
            assert_eq!(listed(&daemon.errors(id), Some(0)), join(lost));
        } else {
            assert_eq!(dests[0].state, "failed", "{dests:?}");
        }
    }
}
