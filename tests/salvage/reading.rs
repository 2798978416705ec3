//! Sources that cannot be read everywhere: what is lost is what the disk forces, and what ddrescue finds on it.

use std::{fmt::Write as _, fs, ops::Range, path::Path, process::Command};

use kcopyfs_support::{Daemon, Fault, FaultDisk, Op, Rng, need, stamp};

use crate::{ERRNOS, NEW, OLD, assert_same, at, disk, end, image, len, listed, map, mapped, rounds, runs, span, start};

const SIZE: u64 = 8 << 20;
const DESTS: u64 = 2;

/// Backend, block and piece.
const WAYS: [(&str, u32, &str); 4] = [
    ("io=uring", 512, "subjob_kb=64"),
    ("io=threads", 4096, "subjob_kb=512"),
    ("io=threads", 512, "subjob_kb=1024"),
    ("io=uring", 4096, "subjob_kb=16"),
];

/// What may be said besides: none of it changes what is found.
const WORDS: [&str; 6] = ["", "", "retries=1", "digest=blake3", "write_seq", "verify"];

/// Which of `blocks` blocks cannot be read; one area in a few is larger than what is searched block by block.
fn random_map(rng: &mut Rng, blocks: u64, vast: bool) -> Vec<bool> {
    let mut bad = vec![false; at(blocks)];
    for _ in 0..rng.below(7) {
        let (count, step) = match rng.below(4) {
            0 => (1, 1),
            1 => (rng.within(2..40), 1),
            2 => (rng.within(2..40), 2),
            _ => (rng.within(20..300), 1),
        };
        let first = rng.below(blocks);
        for block in (first..blocks).step_by(step).take(at(count)) {
            bad[at(block)] = true;
        }
    }
    for edge in [0, bad.len() - 1] {
        bad[edge] |= rng.one_in(5);
    }
    if vast {
        let first = rng.below(blocks / 4);
        bad[at(first)..at(first + rng.within(blocks * 9 / 16..blocks * 3 / 4))].fill(true);
    }
    bad
}

/// A job's part of its disks, in bytes.
struct Geometry {
    block: u64,
    from: u64,
    to: u64,
    len: u64,
}

impl Geometry {
    fn random(rng: &mut Rng, block: u32) -> Self {
        let block = u64::from(block);
        if rng.one_in(2) {
            return Self { block, from: 0, to: 0, len: SIZE };
        }
        let blocks = SIZE / block;
        let (from, to) = (rng.below(blocks / 8), rng.below(blocks / 8));
        Self { block, from: from * block, to: to * block, len: rng.within(blocks / 2..blocks * 7 / 8) * block }
    }

    fn source(&self) -> Range<u64> {
        self.from..self.from + self.len
    }
}

struct Disks {
    from: FaultDisk,
    to: Vec<FaultDisk>,
    old: Vec<Vec<u8>>,
    new: Vec<u8>,
}

impl Disks {
    fn new(block: u32) -> Self {
        let to = (0..DESTS).map(|index| disk(SIZE, block, OLD + index)).collect();
        let old = (0..DESTS).map(|index| image(SIZE, OLD + index)).collect();
        Self { from: disk(SIZE, block, NEW), to, old, new: image(SIZE, NEW) }
    }

    fn spec(&self, geometry: &Geometry, words: &str) -> String {
        let sector = |bytes| bytes / 512;
        let (from, count) = (sector(geometry.from), sector(geometry.len));
        let mut spec = format!("from={},{from},{count} {words}", self.from.path().display());
        for disk in &self.to {
            let _ = write!(spec, " to={},{}", disk.path().display(), sector(geometry.to));
        }
        spec
    }

    /// What destination `index` must hold: the source but for `bad`, zeros or its own bytes there.
    fn expected(&self, index: usize, geometry: &Geometry, bad: &[Range<u64>], zeros: bool) -> Vec<u8> {
        let mut expected = self.old[index].clone();
        let region = geometry.to..geometry.to + geometry.len;
        expected[span(&region)].copy_from_slice(&self.new[span(&geometry.source())]);
        for range in bad {
            let there = range.start - geometry.from + geometry.to..range.end - geometry.from + geometry.to;
            if zeros {
                expected[span(&there)].fill(0);
            } else {
                expected[span(&there)].copy_from_slice(&self.old[index][span(&there)]);
            }
        }
        expected
    }
}

/// The map that ddrescue makes of the same part of the same disk.
fn ddrescue(source: &Path, geometry: &Geometry, scratch: &Path) -> String {
    let map = scratch.join("map");
    let _ = fs::remove_file(&map);
    let run = Command::new("ddrescue")
        .args(["-q", "-d", "-r0", "-f"])
        .args(["-b", &geometry.block.to_string(), "-i", &geometry.from.to_string(), "-s", &geometry.len.to_string()])
        .args([source, &scratch.join("copy"), &map])
        .output()
        .expect("run ddrescue");
    assert!(run.status.success(), "ddrescue: {run:?}");
    fs::read_to_string(&map).expect("ddrescue's map")
}

/// `ddrescuelog -p`: whether two maps say the same of that part of the disk.
fn assert_alike(ours: &str, theirs: &str, geometry: &Geometry, scratch: &Path) {
    let files = [scratch.join("ours"), scratch.join("theirs")];
    fs::write(&files[0], ours).expect("write a map");
    fs::write(&files[1], theirs).expect("write a map");
    let run = Command::new("ddrescuelog")
        .args(["-i", &geometry.from.to_string(), "-s", &geometry.len.to_string(), "-p"])
        .args(&files)
        .output()
        .expect("run ddrescuelog");
    assert!(run.status.success(), "ddrescuelog -p: {run:?}\nours:\n{ours}\ntheirs:\n{theirs}");
}

fn one_map(disks: &Disks, daemon: &Daemon, rng: &mut Rng, way: (u32, bool), scratch: &Path) {
    let (block, zeros) = way;
    for (index, disk) in disks.to.iter().enumerate() {
        disk.load(0, &disks.old[index]);
    }
    disks.from.clear();
    let geometry = Geometry::random(rng, block);
    let vast = rng.one_in(if block == 512 { 16 } else { 4 });
    let blocks = random_map(rng, SIZE / geometry.block, vast);
    for range in runs(&blocks, geometry.block, 0) {
        disks.from.rule(Op::Read, range, Fault::Err(rng.pick(&ERRNOS).0));
    }
    let within = &blocks[at(geometry.from / geometry.block)..at((geometry.from + geometry.len) / geometry.block)];
    let bad = runs(within, geometry.block, geometry.from);
    let words = format!("on_read_error={} {}", if zeros { "zero" } else { "skip" }, rng.pick(&WORDS));
    eprintln!("blocks of {block}, {words}, {} bad bytes in {} ranges", len(&bad), bad.len());

    let id = daemon.job(&disks.spec(&geometry, &words)).unwrap();
    let status = end(daemon, id, if bad.is_empty() { "done" } else { "degraded" });
    assert_eq!((status.read_err(), status.write_err()), (!bad.is_empty(), 0), "\n{status}");
    assert_eq!((status.bad_bytes(), status.copied()), (len(&bad), geometry.len - len(&bad)), "\n{status}");
    let errors = daemon.errors(id);
    assert!(errors.iter().all(|range| range.dest.is_none()), "{errors:?}");
    assert_eq!(listed(&errors, None), bad, "errors");

    let theirs = ddrescue(&disks.from.path(), &geometry, scratch);
    assert_eq!(mapped(&theirs, '-'), bad, "what ddrescue finds:\n{theirs}");
    for (index, disk) in disks.to.iter().enumerate() {
        let ours = map(daemon, id, index);
        assert_eq!((mapped(&ours, '-'), mapped(&ours, '?')), (bad.clone(), vec![]), "map.{index}:\n{ours}");
        assert_alike(&ours, &theirs, &geometry, scratch);
        let expected = disks.expected(index, &geometry, &bad, zeros);
        assert_same(&disk.contents(), &expected, &format!("destination {index}"));
    }
    if words.contains("digest") {
        let mut data = disks.new[span(&geometry.source())].to_vec();
        for range in &bad {
            data[span(&(range.start - geometry.from..range.end - geometry.from))].fill(0);
        }
        let expected = format!("blake3:{}", blake3::hash(&data).to_hex());
        assert_eq!(status.digest(), Some(expected.as_str()), "with zeros for what is lost");
    }
    assert_eq!(disks.from.check(NEW), Ok(()));
}

/// The rounds of half of the ways: tests run side by side.
fn maps(ways: Range<usize>, seed: u64) {
    if !need::fault_disk() || !need::program("ddrescue", "gddrescue") || !need::program("ddrescuelog", "gddrescue") {
        return;
    }
    let mut rng = Rng::from_env_or(seed);
    let scratch = tempfile::tempdir().expect("a scratch directory");
    for (io, block, subjob) in WAYS[ways].iter().copied() {
        let disks = Disks::new(block);
        let daemon = start(&["state=none", io, subjob]);
        for round in 0..rounds(2, 50) {
            one_map(&disks, &daemon, &mut rng, (block, round % 2 == 0), scratch.path());
        }
    }
}

#[test]
fn the_holes_are_those_that_ddrescue_finds() {
    maps(0..2, 41);
}

#[test]
fn the_holes_are_those_that_ddrescue_finds_in_other_pieces() {
    maps(2..4, 42);
}

/// Copies a disk whose middle is dead and returns how many requests that took.
fn dead_area(block: u32, dead: u64, words: &str) -> u64 {
    let size = dead + (2 << 20);
    // no block boundary of a piece
    let bad = (1 << 20) + 12288..(1 << 20) + 12288 + dead;
    let (from, to) = (disk(size, block, NEW), disk(size, 512, OLD));
    from.rule(Op::Read, bad.clone(), Fault::Err(libc::EIO));
    let daemon = start(&["state=none"]);
    let spec = format!("from={} to={} {words}", from.path().display(), to.path().display());
    let id = daemon.job(&spec).unwrap();
    let status = end(&daemon, id, "degraded");
    assert_eq!(status.bad_bytes(), dead, "\n{status}");
    assert_eq!(listed(&daemon.errors(id), None), std::slice::from_ref(&bad));
    let contents = to.contents();
    for range in [0..bad.start, bad.end..size] {
        assert_eq!(stamp::check(&contents[span(&range)], NEW, range.start / 512), Ok(()));
    }
    let hole = &contents[span(&bad)];
    if words.contains("zero") {
        assert!(hole.iter().all(|byte| *byte == 0), "zeros in the hole");
    } else {
        assert_eq!(stamp::check(hole, OLD, bad.start / 512), Ok(()));
    }
    from.stat().reads
}

/// A dead area costs a request a block up to 4 MiB, as often again to find them, and from there on 9 a piece.
fn assert_bounded(words: &str) {
    let mib = 1 << 20;
    for dead in [16, 48] {
        let requests = dead_area(4096, dead * mib, words);
        eprintln!("{words:?}: {requests} requests for {dead} MiB dead");
        // A piece is half a MiB.
        assert!(requests < 3 * (4 * mib / 4096) + (2 * dead + 4) * 12, "{requests} requests for {dead} MiB");
    }
}

#[test]
fn a_dead_area_costs_few_requests() {
    if !need::fault_disk() {
        return;
    }
    assert_bounded("on_read_error=zero");
    assert_bounded("on_read_error=skip");
    let fine = dead_area(512, 16 << 20, "on_read_error=skip");
    assert!(fine < 3 * 8192 + 36 * 12, "{fine} requests for a dead area of 32768 blocks");
}

#[test]
fn a_dead_area_costs_few_requests_in_order() {
    if !need::fault_disk() {
        return;
    }
    assert_bounded("on_read_error=zero digest=sha256");
    assert_bounded("on_read_error=zero write_seq");
}

#[test]
fn what_is_slow_is_read_last() {
    if !need::fault_disk() {
        return;
    }
    let (from, to) = (disk(SIZE, 512, NEW), disk(SIZE, 512, OLD));
    let slow = SIZE / 2..SIZE / 2 + (512 << 10);
    from.rule(Op::Read, slow.clone(), Fault::Delay(std::time::Duration::from_secs(3)));
    let daemon =
        Daemon::builder(crate::PROGRAM).option("state=none").option("subjob_kb=64").option("subjobs=1").start();
    let spec = format!("from={} to={} on_read_error=skip", from.path().display(), to.path().display());
    let id = daemon.job(&spec).unwrap();
    let is_new = |at: u64| stamp::check(&to.contents_of(at..at + 512), NEW, at / 512).is_ok();
    kcopyfs_support::until("the end is copied", || is_new(SIZE - 512).then_some(()));
    assert!(is_new(slow.start) && !is_new(slow.end - 512), "what lies behind the first slow piece was not put last");
    from.clear();
    from.release();
    let status = daemon.wait(id);
    assert_eq!((status.state(), status.copied()), ("done", SIZE), "\n{status}");
    assert_eq!(to.check(NEW), Ok(()));
}
