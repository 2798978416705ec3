//! What is saved from disks that fail, lie or go away, and what is said of the rest. Needs FUSE and root.
//!
//! Every test is random by `KCOPYFS_SEED`. As part of `cargo test` each makes a few rounds; `KCOPYFS_TORTURE=200` makes the
//! long form of them (contrib/torture), any other number a part of it.

mod changed;
mod coarse;
mod comparing;
mod digest;
mod holes;
mod mending;
mod merging;
mod reading;
mod relay;
mod sparse;
mod sums;
mod testing;
mod transient;
mod vanishing;
mod verifying;
mod writing;

use std::{fmt::Write as _, ops::Range};

use kcopyfs_support::{
    Daemon, FaultDisk,
    daemon::{BadRange, Status},
    stamp, until,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kcopyfs");

/// The stamps of the source; those of destination i are `OLD + i`.
const NEW: u64 = 1;
const OLD: u64 = 10;

/// Errors that a loop device hands on as they are.
const ERRNOS: [(i32, &str); 5] = [
    (libc::EIO, "EIO"),
    (libc::ENODATA, "ENODATA"),
    (libc::EREMOTEIO, "EREMOTEIO"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
    (libc::EILSEQ, "EILSEQ"),
];

/// How many rounds: `short`, or that part of `long` which `KCOPYFS_TORTURE` is of 200.
fn rounds(short: u64, long: u64) -> u64 {
    match std::env::var("KCOPYFS_TORTURE") {
        Ok(text) => {
            let count: u64 = text.parse().unwrap_or_else(|_| panic!("KCOPYFS_TORTURE={text} is not a number"));
            (count * long).div_ceil(200)
        }
        Err(_) => short,
    }
}

/// With a fixed number of sub-jobs in flight: tests count on where a job stands when one of its requests hangs.
fn start(options: &[&str]) -> Daemon {
    let builder = Daemon::builder(PROGRAM).option("pages=1024").option("subjobs=8");
    options.iter().fold(builder, |builder, option| builder.option(*option)).start()
}

/// A disk full of `seed`'s stamps, of which every request is one of the job's: the kernel makes none of two.
fn disk(size: u64, block: u32, seed: u64) -> FaultDisk {
    stamped(FaultDisk::builder(size).block(block).merging(false), seed)
}

fn stamped(builder: kcopyfs_support::faultdisk::Builder, seed: u64) -> FaultDisk {
    let disk = builder.start();
    disk.fill(seed);
    disk
}

/// A job over whole disks.
fn spec(from: &FaultDisk, to: &[FaultDisk], words: &str) -> String {
    let mut spec = format!("from={} {words}", from.path().display());
    for disk in to {
        let _ = write!(spec, " to={}", disk.path().display());
    }
    spec
}

/// Waits for the end of a job, which must be `state`.
fn end(daemon: &Daemon, id: u64, state: &str) -> Status {
    let status = daemon.wait(id);
    let file = |name: &str| daemon.read(format!("jobs/{id}/{name}")).unwrap();
    assert_eq!(status.state(), state, "\n{status}{}{}", file("dests"), file("errors"));
    status
}

/// The bytes that `errors` lists of the source (`None`) or a destination, neighbours joined.
fn listed(errors: &[BadRange], dest: Option<usize>) -> Vec<Range<u64>> {
    let of_it = errors.iter().filter(|range| range.dest == dest);
    join(of_it.map(|range| range.sector * 512..(range.sector + range.count) * 512).collect())
}

/// Ascending ranges that neither overlap nor touch.
fn join(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// The blocks that are set, as bytes from `start` on.
fn runs(blocks: &[bool], block: u64, start: u64) -> Vec<Range<u64>> {
    let set = (0..).zip(blocks).filter(|(_, is_set)| **is_set);
    join(set.map(|(index, _)| start + index * block..start + (index + 1) * block).collect())
}

/// What `map.K` says is in `status`, as bytes of the source.
fn mapped(map: &str, status: char) -> Vec<Range<u64>> {
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x").expect("hexadecimal"), 16).expect("a number");
    // the first line that is no comment says where the copy is
    let blocks = map.lines().filter(|line| !line.starts_with('#')).skip(1);
    let of_it = blocks.filter_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [position, size, word] if word.starts_with(status) => Some(number(position)..number(position) + number(size)),
        [_, _, _] => None,
        _ => panic!("not a block of a map: {line:?}"),
    });
    join(of_it.collect())
}

fn map(daemon: &Daemon, id: u64, dest: usize) -> String {
    daemon.read(format!("jobs/{id}/map.{dest}")).unwrap()
}

/// All bytes of a stamped disk.
fn image(size: u64, seed: u64) -> Vec<u8> {
    stamp::stamped(seed, 0, at(size / 512))
}

fn at(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a position in memory")
}

fn span(range: &Range<u64>) -> Range<usize> {
    at(range.start)..at(range.end)
}

/// # Panics
/// If they differ, with the sector where.
fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: the size");
    let differ = found.chunks(512).zip(expected.chunks(512)).position(|(found, expected)| found != expected);
    assert_eq!(differ, None, "{what}: the first sector that is not as it should be");
}

fn len(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}
