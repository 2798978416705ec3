//! `changed`: what is equal is left alone, what differs is written, and nothing else of a copy is another.

use std::fmt::Write as _;
use std::ops::Range;

use kcopyfs_support::{Fault, FaultDisk, Op, Rng, need};

use crate::{NEW, OLD, assert_same, at, end, image, join, len, listed, map, mapped, rounds, spec, start, until};

const SIZE: u64 = 8 << 20;
/// Pieces in these tests: half of a sub-job.
const PIECE: u64 = 32 << 10;

/// A disk that keeps a log of what was written to it.
fn logging(seed: u64) -> FaultDisk {
    crate::stamped(FaultDisk::builder(SIZE).merging(false).log(true), seed)
}

/// Makes some random sectors of a disk others than the source's. The pieces that differ.
fn spoil(disk: &FaultDisk, count: u64, rng: &mut Rng) -> Vec<Range<u64>> {
    let mut pieces = Vec::new();
    for _ in 0..count {
        let start = rng.below(SIZE / 512) * 512;
        let sector = disk.contents_of(start..start + 512);
        disk.load(start, &sector.iter().map(|byte| !byte).collect::<Vec<_>>());
        pieces.push(start / PIECE * PIECE..(start / PIECE + 1) * PIECE);
    }
    join(pieces)
}

/// What was written to a disk since the last mark, joined.
fn written(disk: &FaultDisk) -> Vec<Range<u64>> {
    join(disk.written().iter().map(|write| write.offset..write.offset + write.len).collect())
}

#[test]
fn only_what_differs_is_written() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(41);
    for io in ["io=uring", "io=threads"] {
        for round in 0..rounds(4, 40) {
            let from = crate::disk(SIZE, 512, NEW);
            let to: Vec<_> = (0..3).map(|_| logging(NEW)).collect();
            let daemon = start(&["state=none", "subjob_kb=64", io]);
            let counts = [rng.below(4), rng.below(40), 0];
            let differ: Vec<_> = to.iter().zip(counts).map(|(disk, count)| spoil(disk, count, &mut rng)).collect();
            let words =
                ["", "write_seq", "digest=sha256 verify", "sparse retries=1"][usize::try_from(round % 4).unwrap()];
            let id = daemon.job(&spec(&from, &to, &format!("changed {words}"))).unwrap();
            let status = end(&daemon, id, "done");
            for (disk, differ) in to.iter().zip(&differ) {
                assert_same(&disk.contents(), &image(SIZE, NEW), words);
                assert_eq!(written(disk), *differ, "{words}: what the disk has seen\n{status}");
            }
            let all = join(differ.concat());
            assert_eq!(status.get("same"), (SIZE - len(&all)).to_string(), "{words}\n{status}");
            assert_eq!((status.copied(), status.durable()), (SIZE, SIZE), "\n{status}");
            if words.contains("digest") {
                let plain = daemon.job(&spec(&from, &to, "digest=sha256")).unwrap();
                assert_eq!(end(&daemon, plain, "done").get("digest"), status.get("digest"));
            }
        }
    }
}

#[test]
fn what_cannot_be_read_of_a_destination_is_written() {
    if !need::fault_disk() {
        return;
    }
    let (from, to) = (crate::disk(SIZE, 512, NEW), [logging(NEW), logging(NEW)]);
    let daemon = start(&["state=none", "subjob_kb=64"]);
    let bad = 3 * PIECE + 512..3 * PIECE + 1024;
    to[0].rule(Op::Read, bad, Fault::Err(libc::EIO));
    let id = daemon.job(&spec(&from, &to, "changed")).unwrap();
    let status = end(&daemon, id, "done");
    assert_eq!(written(&to[0]), std::slice::from_ref(&(3 * PIECE..4 * PIECE)), "\n{status}");
    assert!(written(&to[1]).is_empty() && daemon.errors(id).is_empty(), "\n{status}");
    assert_eq!(status.get("same"), (SIZE - PIECE).to_string());
}

#[test]
fn a_source_with_errors_is_saved_and_the_rest_is_left_alone() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(42);
    for policy in ["on_read_error=zero", "on_read_error=skip", "on_read_error=zero digest=blake3", "ignore_error"] {
        let (from, to) = (crate::disk(SIZE, 512, NEW), [logging(NEW), logging(OLD)]);
        let daemon = start(&["state=none", "subjob_kb=64"]);
        let first = rng.below(SIZE / 512 - 8) * 512;
        let bad = first..first + 1024;
        from.rule(Op::Read, bad.clone(), Fault::Err(libc::EIO));
        let id = daemon.job(&spec(&from, &to, &format!("changed {policy}"))).unwrap();
        let status = end(&daemon, id, "degraded");
        let told = listed(&daemon.errors(id), None);
        let hole = mapped(&map(&daemon, id, 0), '-');
        assert_eq!(told, hole, "{policy}\n{status}");
        for (disk, seed) in to.iter().zip([NEW, OLD]) {
            let mut want = image(SIZE, NEW);
            let old = image(SIZE, seed);
            for range in &hole {
                let span = at(range.start)..at(range.end);
                if policy.contains("skip") {
                    want[span.clone()].copy_from_slice(&old[span]);
                } else {
                    want[span].fill(0);
                }
            }
            assert_same(&disk.contents(), &want, policy);
        }
        // Of the one that had it all nothing but the hole was written.
        let zeros = if policy.contains("skip") { Vec::new() } else { hole };
        assert_eq!(written(&to[0]), zeros, "{policy}");
    }
}

#[test]
fn a_write_that_fails_gives_up_that_destination_alone() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(43);
    let (from, to) = (crate::disk(SIZE, 512, NEW), [logging(NEW), logging(NEW)]);
    let daemon = start(&["state=none", "subjob_kb=64"]);
    let differ: Vec<_> = to.iter().map(|disk| spoil(disk, 5, &mut rng)).collect();
    to[0].rule(Op::Write, .., Fault::Err(libc::ENOSPC));
    let id = daemon.job(&spec(&from, &to, "changed")).unwrap();
    let status = end(&daemon, id, "degraded");
    assert_eq!(status.write_err(), 1, "\n{status}");
    assert_eq!(written(&to[1]), differ[1]);
    assert_same(&to[1].contents(), &image(SIZE, NEW), "the other one");
    // It lacks what was not written; a retry writes that, and again nothing else.
    to[0].clear();
    daemon.control(id, "retry").unwrap();
    let status = end(&daemon, id, "done");
    assert_eq!(written(&to[0]), differ[0], "\n{status}");
    assert_same(&to[0].contents(), &image(SIZE, NEW), "after a retry");
}

#[test]
fn a_killed_daemon_goes_on_from_its_checkpoint() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(44);
    let (from, to) = (crate::disk(SIZE, 512, NEW), [logging(NEW), logging(NEW)]);
    let mut daemon = kcopyfs_support::Daemon::builder(crate::PROGRAM).option("subjob_kb=64").start();
    let differ: Vec<_> = to.iter().map(|disk| spoil(disk, 30, &mut rng)).collect();
    let id = daemon.job(&spec(&from, &to, "changed digest=sha256 speed_max=512K")).unwrap();
    until("half of it", || (daemon.status(id).copied() > SIZE / 8).then_some(()));
    daemon.control(id, "pause").unwrap();
    until("a checkpoint", || (daemon.status(id).durable() > 0).then_some(()));
    let before = daemon.status(id);
    daemon.kill9();
    let reads: Vec<_> = to.iter().map(|disk| disk.stat().reads).collect();
    daemon.restart();
    let after = daemon.status(id);
    let same = |status: &kcopyfs_support::daemon::Status| status.get("same").parse::<u64>().unwrap();
    assert!(after.durable() >= before.durable() && same(&after) > 0, "\n{after}");
    daemon.write(format!("jobs/{id}/speed_max"), "max").unwrap();
    daemon.control(id, "resume").unwrap();
    let status = end(&daemon, id, "done");
    let mut told = String::new();
    for (index, (disk, differ)) in to.iter().zip(&differ).enumerate() {
        let _ = write!(told, "{} ", disk.stat().reads - reads[index]);
        assert_same(&disk.contents(), &image(SIZE, NEW), "after a restart");
        // A limit of speed makes pieces smaller, and those behind it begin elsewhere.
        let holds_one = |start: u64, end: u64| differ.iter().any(|piece| piece.start < end && start < piece.end);
        let writes = disk.written();
        let may = writes.iter().all(|write| write.len <= PIECE && holds_one(write.offset, write.offset + write.len));
        assert!(may, "{writes:?} and not {differ:?}\n{status}");
    }
    // What was written and not yet flushed may be found equal, too.
    assert!(same(&status) >= SIZE - len(&join(differ.concat())), "reads {told}\n{status}");
    assert!(status.get("digest").starts_with("sha256:"));
}

#[test]
fn zeros_that_are_there_are_left_and_new_files_are_filled() {
    if !need::fuse() {
        return;
    }
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let (source, dest) = (folder.path().join("source"), folder.path().join("dest"));
    let mut data = vec![0; at(SIZE)];
    data[at(SIZE / 2)..at(SIZE / 2 + PIECE)].fill(7);
    std::fs::write(&source, &data).unwrap();
    let daemon = start(&["state=none", "subjob_kb=64"]);
    let line = format!("from={} to={} create changed sparse", source.display(), dest.display());
    let id = daemon.job(&line).unwrap();
    let status = end(&daemon, id, "done");
    assert!(std::fs::read(&dest).unwrap() == data, "\n{status}");
    // Another time there is nothing to do.
    let changed = || std::os::unix::fs::MetadataExt::mtime_nsec(&std::fs::metadata(&dest).unwrap());
    let before = changed();
    let id = daemon.job(&line).unwrap();
    let status = end(&daemon, id, "done");
    assert_eq!((status.get("same"), changed()), (&*SIZE.to_string(), before), "\n{status}");
}

#[test]
fn it_is_a_word_of_copies() {
    if !need::fuse() {
        return;
    }
    let daemon = start(&["state=none"]);
    for line in ["zero to=/x,0,8 changed", "verify from=/x to=/y changed"] {
        let refused = daemon.job(line).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL), "{line}");
    }
}
