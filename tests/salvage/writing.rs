//! Destinations that cannot be written: each is judged by itself.

use std::{fmt::Write as _, ops::Range};

use kcopyfs_support::{Daemon, Fault, FaultDisk, Op, Rng, need, stamp};

use crate::{ERRNOS, NEW, OLD, disk, end, listed, rounds, span, start};

const SIZE: u64 = 1 << 20;
/// The region, in bytes; it begins elsewhere on the source.
const FROM: u64 = 64 << 10;
const TO: Range<u64> = 256 << 10..768 << 10;
const DESTS: u64 = 64;

fn spec(from: &FaultDisk, to: &[FaultDisk], words: &str) -> String {
    let (first, count) = (FROM / 512, (TO.end - TO.start) / 512);
    let mut spec = format!("from={},{first},{count} {words}", from.path().display());
    for disk in to {
        let _ = write!(spec, " to={},{}", disk.path().display(), TO.start / 512);
    }
    spec
}

/// Whether a sector of a destination is new; else it is old.
fn is_new(data: &[u8], old: u64, sector: u64) -> bool {
    let new = stamp::check(data, NEW, sector - TO.start / 512 + FROM / 512).is_ok();
    assert!(new || stamp::check(data, old, sector).is_ok(), "sector {sector} is neither old nor new");
    new
}

/// A destination that failed at `bad`: whole sectors of old or new, old at the bad block and outside.
fn assert_torn(contents: &[u8], old: u64, bad: &Range<u64>) {
    for (sector, data) in (0..).zip(contents.chunks(512)) {
        let byte = sector * 512;
        if !TO.contains(&byte) || bad.contains(&byte) {
            assert_eq!(stamp::check(data, old, sector), Ok(()), "outside of what may be written");
        } else {
            is_new(data, old, sector);
        }
    }
}

fn assert_whole(contents: &[u8], old: u64) {
    assert_eq!(stamp::check(&contents[span(&TO)], NEW, FROM / 512), Ok(()));
    assert_eq!(stamp::check(&contents[span(&(0..TO.start))], old, 0), Ok(()));
    assert_eq!(stamp::check(&contents[span(&(TO.end..SIZE))], old, TO.end / 512), Ok(()));
}

fn one_subset(from: &FaultDisk, to: &[FaultDisk], daemon: &Daemon, bits: u64, words: &str, rng: &mut Rng) {
    let mut faults = Vec::new();
    for (seed, disk) in (OLD..).zip(to) {
        disk.clear();
        disk.fill(seed);
        let first = TO.start + rng.below((TO.end - TO.start) / 4096) * 4096;
        let (errno, name) = *rng.pick(&ERRNOS);
        if bits & (1 << (seed - OLD)) != 0 {
            disk.rule(Op::Write, first..first + 4096, Fault::Err(errno));
        }
        faults.push((first..first + 4096, name));
    }
    eprintln!("{bits:#018x} {words}");
    let id = daemon.job(&spec(from, to, words)).unwrap();
    let stops = words.contains("stop") && bits != 0;
    let state = match bits {
        0 => "done",
        u64::MAX => "failed",
        _ if stops => "failed",
        _ => "degraded",
    };
    let status = end(daemon, id, state);
    assert!(!status.read_err() && status.bad_bytes() == 0, "\n{status}");
    if stops {
        let found = status.write_err();
        assert!(found != 0 && found & !bits == 0, "{found:#x} of {bits:#x}");
    } else {
        assert_eq!(status.write_err(), bits, "\n{status}");
    }
    let (dests, errors) = (daemon.dests(id), daemon.errors(id));
    for (index, disk) in to.iter().enumerate() {
        let (dest, (bad, errno)) = (&dests[index], &faults[index]);
        let (contents, old) = (disk.contents(), OLD + index as u64);
        if bits & (1 << index) != 0 {
            assert_torn(&contents, old, bad);
            let failed = status.write_err() & (1 << index) != 0;
            assert_eq!(dest.state, if failed { "failed" } else { "dropped" }, "{dest:?}");
            if status.write_err() & (1 << index) != 0 {
                assert_eq!(dest.errno.as_deref(), Some(*errno), "{dest:?}");
                let ranges = listed(&errors, Some(index));
                let is_listed = ranges.iter().any(|range| range.start <= bad.start && bad.end <= range.end);
                assert!(is_listed, "destination {index} is bad at {bad:?}: {ranges:?}");
            }
        } else if stops {
            assert_torn(&contents, old, &(0..0));
        } else {
            assert_whole(&contents, old);
            let total = status.total();
            assert_eq!((dest.state.as_str(), dest.copied, dest.durable), ("done", total, total), "{dest:?}");
            assert_eq!((dest.errors, listed(&errors, Some(index))), (0, vec![]));
        }
    }
}

/// The subset of a round: the first alone, one of the middle, the last, all, and then chance.
fn subset(round: u64, rng: &mut Rng) -> u64 {
    let chance = *rng.pick(&[2, 3, 8, 32]);
    match round {
        0 => 1,
        1 => 1 << rng.within(1..DESTS - 1),
        2 => 1 << (DESTS - 1),
        3 => u64::MAX,
        _ => (0..DESTS).filter(|_| rng.one_in(chance)).map(|bit| 1 << bit).sum(),
    }
}

#[test]
fn any_subset_of_64_destinations_may_fail_and_the_others_are_done() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(64);
    let from = disk(SIZE, 512, NEW);
    let to: Vec<_> = (0..DESTS).map(|index| disk(SIZE, if index % 2 == 0 { 512 } else { 4096 }, OLD + index)).collect();
    let rounds = rounds(7, 200);
    for (way, io) in ["io=uring", "io=threads"].iter().enumerate() {
        let daemon = start(&["state=none", "subjob_kb=32", io]);
        for round in (way as u64..rounds).step_by(2) {
            let bits = subset(round, &mut rng);
            let words = match round {
                0..5 => "",
                _ => *rng.pick(&["", "ignore_error", "retries=2", "write_seq", "on_write_error=stop"]),
            };
            one_subset(&from, &to, &daemon, bits, words, &mut rng);
        }
        let bits = rng.within(1..u64::MAX);
        one_subset(&from, &to, &daemon, bits, "on_write_error=stop", &mut rng);
    }
    assert_eq!(from.check(NEW), Ok(()));
}

#[test]
fn zeros_that_one_block_refuses_miss_that_block() {
    if !need::fault_disk() {
        return;
    }
    let piece = 64 << 10;
    let lost = piece * 5 + 512..piece * 5 + 1024;
    let to = disk(SIZE, 512, OLD);
    for io in ["io=uring", "io=threads"] {
        let daemon = start(&["state=none", "subjob_kb=64", io]);
        to.fill(OLD);
        to.rule(Op::Write, lost.clone(), Fault::Err(libc::EIO));
        let id = daemon.job(&format!("zero to={},0,{} ignore_error", to.path().display(), SIZE / 512)).unwrap();
        let status = end(&daemon, id, "failed");
        assert_eq!(listed(&daemon.errors(id), Some(0)), std::slice::from_ref(&lost), "\n{status}");
        assert_eq!(status.copied(), SIZE - 512, "\n{status}");
        let zero = |range: Range<u64>| to.contents_of(range).iter().all(|byte| *byte == 0);
        assert!(zero(0..lost.start) && zero(lost.end..SIZE));
        to.clear();
    }
}
