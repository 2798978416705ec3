//! `test`: what a burn-in finds of disks that are bad, lie, or are smaller than they say.

use std::{fmt::Write as _, ops::Range};

use kcopyfs_support::{Daemon, Fault, FaultDisk, Op, Rng, daemon::Status, need};

use crate::{OLD, at, disk, end, image, join, listed, map, mapped, rounds, start, until};

const SIZE: u64 = 4 << 20;
const PIECE: u64 = 64 << 10;

fn spec(to: &[FaultDisk], words: &str) -> String {
    let mut spec = format!("test {words}");
    for disk in to {
        let _ = write!(spec, " to={}", disk.path().display());
    }
    spec
}

/// The seed and the number that each sector has, which it should have by its place.
fn sectors(disk: &FaultDisk) -> Vec<(u64, u64)> {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap());
    disk.contents().chunks(512).map(|sector| (word(sector), word(&sector[8..]))).collect()
}

/// Where a disk does not hold what it should, as bytes.
fn wrong(disk: &FaultDisk, seed: u64) -> Vec<Range<u64>> {
    let sectors = sectors(disk);
    let wrong = (0_u64..).zip(&sectors).filter(|(place, sector)| **sector != (seed, *place));
    join(wrong.map(|(place, _)| place * 512..(place + 1) * 512).collect())
}

fn run(daemon: &Daemon, to: &[FaultDisk], words: &str, state: &str) -> (u64, Status) {
    let id = daemon.job(&spec(to, words)).unwrap();
    (id, end(daemon, id, state))
}

/// What is told of a destination, in all words, and by its map.
fn assert_told(daemon: &Daemon, id: u64, dest: usize, bad: &[Range<u64>]) {
    assert_eq!(listed(&daemon.errors(id), Some(dest)), bad, "errors of destination {dest}");
    let map = map(daemon, id, dest);
    assert_eq!(mapped(&map, '-'), bad, "map.{dest}");
    assert!(!map.contains("ddrescue"), "there is nothing to finish by hand");
}

#[test]
fn a_good_disk_holds_a_pattern_that_names_its_sectors() {
    if !need::fault_disk() {
        return;
    }
    let mut seeds = Vec::new();
    for io in ["io=uring", "io=threads"] {
        let to = [disk(SIZE, 512, OLD), disk(SIZE, 4096, OLD + 1)];
        let daemon = start(&["state=none", "subjob_kb=64", io]);
        let (id, status) = run(&daemon, &to, "", "done");
        assert_eq!((status.copied(), status.durable()), (SIZE, SIZE), "\n{status}");
        assert_eq!((status.get("verified"), status.get("percent")), (&*SIZE.to_string(), "100.00"), "\n{status}");
        for (index, disk) in to.iter().enumerate() {
            let seed = sectors(disk)[0].0;
            assert_eq!(wrong(disk, seed), []);
            assert_told(&daemon, id, index, &[]);
            assert_eq!(mapped(&map(&daemon, id, index), '+'), std::slice::from_ref(&(0..SIZE)));
            seeds.push(seed);
        }
        // Its spec can be run again, and makes another pattern.
        let again = daemon.job(daemon.read(format!("jobs/{id}/spec")).unwrap().trim_end()).unwrap();
        end(&daemon, again, "done");
        seeds.push(sectors(&to[0])[0].0);
    }
    assert!(seeds[0] == seeds[1] && seeds[3] == seeds[4], "one pattern a job: {seeds:?}");
    seeds.dedup();
    assert_eq!(seeds.len(), 4, "none is used twice: {seeds:?}");
}

#[test]
fn nothing_beyond_its_region_is_touched() {
    if !need::fault_disk() {
        return;
    }
    let to = disk(SIZE, 512, OLD);
    let daemon = start(&["state=none", "subjob_kb=64"]);
    let region = SIZE / 4 + 512..SIZE / 2;
    let (first, count) = (region.start / 512, (region.end - region.start) / 512);
    let id = daemon.job(&format!("test to={},{first},{count}", to.path().display())).unwrap();
    end(&daemon, id, "done");
    let (found, old) = (to.contents(), image(SIZE, OLD));
    let (start, stop) = (at(region.start), at(region.end));
    assert!(found[..start] == old[..start] && found[stop..] == old[stop..]);
    assert!(found[start..stop].chunks(512).zip(old[start..stop].chunks(512)).all(|(new, old)| new != old));
    assert_eq!(mapped(&map(&daemon, id, 0), '+'), [region]);
}

#[test]
fn bad_blocks_are_told_to_the_block() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(51);
    for _ in 0..rounds(2, 40) {
        let to = [disk(SIZE, 512, OLD), disk(SIZE, 512, OLD + 1)];
        let daemon = start(&["state=none", "subjob_kb=64"]);
        let mut bad = Vec::new();
        for _ in 0..rng.within(1..5) {
            let first = rng.below(SIZE / 512 - 8);
            let range = first * 512..(first + rng.within(1..8)) * 512;
            to[0].rule(*rng.pick(&[Op::Write, Op::Read]), range.clone(), Fault::Err(libc::EIO));
            bad.push(range);
        }
        let (id, status) = run(&daemon, &to, "", "degraded");
        assert_eq!(status.write_err(), 1, "\n{status}");
        assert_told(&daemon, id, 0, &join(bad));
        assert!(daemon.errors(id).iter().all(|range| range.errno == "EIO"), "{:?}", daemon.errors(id));
        assert_told(&daemon, id, 1, &[]);
        let verdicts: Vec<_> = daemon.dests(id).into_iter().map(|dest| dest.state).collect();
        assert_eq!(verdicts, ["failed", "done"]);
    }
}

#[test]
fn a_stick_that_is_smaller_than_it_says_is_found() {
    if !need::fault_disk() {
        return;
    }
    let to = [disk(SIZE, 512, OLD)];
    for op in [Op::Write, Op::Read] {
        // What is meant for its second half comes to its first.
        to[0].rule(op, SIZE / 2.., Fault::Misdirect(0));
    }
    let daemon = start(&["state=none", "subjob_kb=64"]);
    let (id, status) = run(&daemon, &to, "", "failed");
    let half = 0..SIZE / 2;
    assert_eq!(daemon.read(format!("jobs/{id}/errors")).unwrap(), format!("differs 0 0 {}\n", SIZE / 1024));
    assert_told(&daemon, id, 0, &[half]);
    assert_eq!(daemon.dests(id)[0].state, "mismatch");
    let why = format!(": what was written to sector {} is there; the device may be smaller than it says", SIZE / 1024);
    assert!(status.error().is_some_and(|error| error.contains("different in ") && error.ends_with(&why)), "\n{status}");
    // A test of one that is mended finds nothing.
    to[0].clear();
    run(&daemon, &to, "", "done");
}

#[test]
fn lost_swapped_and_stale_writes_are_found() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(52);
    for io in ["io=uring", "io=threads"] {
        let to = [disk(SIZE, 512, OLD), disk(SIZE, 512, OLD + 1)];
        let daemon = start(&["state=none", "subjob_kb=64", io]);
        // Of the first of these tests the disks keep what a write leaves that is lost later.
        run(&daemon, &to, "", "done");
        for _ in 0..rounds(2, 40) {
            to.iter().for_each(FaultDisk::clear);
            let mut places: Vec<u64> = (0..SIZE / PIECE).collect();
            let mut place = || places.swap_remove(at(rng.below(places.len() as u64))) * PIECE;
            let (lost, corrupt, one, other) = (place(), place(), place(), place());
            to[0].rule(Op::Write, lost..lost + PIECE, Fault::Drop).times(1);
            to[0].rule(Op::Write, corrupt + 700..=corrupt + 700, Fault::Corrupt).times(1);
            to[0].rule(Op::Write, one..one + PIECE, Fault::Misdirect(other)).times(1);
            to[0].rule(Op::Write, other..other + PIECE, Fault::Misdirect(one)).times(1);
            let (id, status) = run(&daemon, &to, "", "degraded");
            let seed = sectors(&to[1])[0].0;
            assert_eq!(wrong(&to[1], seed), []);
            let wanted = [lost, one, other].map(|start| start..start + PIECE);
            let wanted = join(wanted.into_iter().chain(std::iter::once(corrupt + 512..corrupt + 1024)).collect());
            assert_told(&daemon, id, 0, &wanted);
            assert!(daemon.errors(id).iter().all(|range| range.errno == "differs"), "\n{status}");
            let first = wanted[0].start / 512;
            assert!(status.error().is_some_and(|error| error.contains(&format!(" {first}"))), "\n{status}");
            assert_told(&daemon, id, 1, &[]);
        }
    }
}

#[test]
fn a_killed_daemon_goes_on_with_the_same_pattern() {
    if !need::fault_disk() {
        return;
    }
    let to = [disk(SIZE, 512, OLD), disk(SIZE, 512, OLD + 1)];
    let bad = SIZE - 1024..SIZE - 512;
    to[0].rule(Op::Write, bad.clone(), Fault::Err(libc::EIO));
    let mut daemon = Daemon::builder(crate::PROGRAM).option("subjob_kb=64").start();
    let id = daemon.job(&spec(&to, "speed_max=512K")).unwrap();
    for state in ["running", "verifying"] {
        until(state, || {
            let status = daemon.status(id);
            let moves = if state == "running" { status.copied() > SIZE / 8 } else { status.get("verified") != "0" };
            (status.state() == state && moves).then_some(())
        });
        daemon.control(id, "pause").unwrap();
        until("a checkpoint", || (daemon.status(id).durable() > 0).then_some(()));
        let before = daemon.status(id);
        daemon.kill9();
        daemon.restart();
        assert!(daemon.status(id).durable() >= before.durable());
        let speed = if state == "running" { "2M" } else { "max" };
        daemon.write(format!("jobs/{id}/speed_max"), speed).unwrap();
        daemon.control(id, "resume").unwrap();
    }
    end(&daemon, id, "degraded");
    assert_told(&daemon, id, 0, std::slice::from_ref(&bad));
    let seed = sectors(&to[1])[0].0;
    assert_eq!((wrong(&to[0], seed), wrong(&to[1], seed)), (vec![bad], Vec::new()));
}

#[test]
fn it_is_flushed_before_it_is_read_back() {
    if !need::fault_disk() {
        return;
    }
    let to = [crate::stamped(FaultDisk::builder(SIZE).merging(false).volatile(true), OLD)];
    // The last flush before the comparison does nothing, and the cache forgets.
    let daemon = start(&["state=none", "subjob_kb=64"]);
    to[0].rule(Op::Read, .., Fault::Hang);
    let id = daemon.job(&spec(&to, "")).unwrap();
    to[0].wait_parked(1);
    assert_eq!(to[0].stat().pending, 0, "nothing is read before all is on the medium");
    let seed = sectors(&to[0])[0].0;
    assert_eq!(wrong(&to[0], seed), []);
    to[0].release();
    end(&daemon, id, "done");
}

#[test]
fn what_makes_no_sense_is_refused() {
    if !need::fault_disk() {
        return;
    }
    let to = [disk(SIZE, 512, OLD), disk(SIZE / 2, 512, OLD)];
    let daemon = start(&["state=none"]);
    let path = to[0].path();
    let path = path.display();
    let lines = [
        format!("test from=/dev/null to={path}"),
        format!("test to={path} verify"),
        format!("test to={path} digest=sha256"),
        format!("test to={path} sparse"),
        format!("test to={path} changed"),
        spec(&to, ""),
    ];
    for line in lines {
        let refused = daemon.job(&line).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL), "{line}");
    }
    // As long as the shorter one they can be tested together.
    let count = SIZE / 1024;
    let id = daemon.job(&format!("test to={path},0,{count} to={}", to[1].path().display())).unwrap();
    end(&daemon, id, "done");
    assert!(to.iter().all(|disk| disk.contents()[..512] != image(512, OLD)[..]));
}

#[test]
fn the_time_left_is_to_the_end_of_all_of_it() {
    if !need::fault_disk() {
        return;
    }
    let (from, to) = (disk(SIZE, 512, OLD), [disk(SIZE, 512, OLD + 1)]);
    let daemon = start(&["state=none", "subjob_kb=64"]);
    let speed = SIZE / 4;
    let copy = format!("from={} to={} verify", from.path().display(), to[0].path().display());
    for line in [copy, spec(&to, "")] {
        let id = daemon.job(&format!("{line} speed_max={speed}")).unwrap();
        for state in ["running", "verifying"] {
            until("a time", || {
                let status = daemon.status(id);
                let verified: u64 = status.get("verified").parse().unwrap();
                let left = 2 * SIZE - status.copied() - verified;
                let eta = status.eta_usec().filter(|_| status.state() == state)?;
                let honest = left * 1_000_000 / speed;
                assert!(eta > honest / 2, "{honest} would be honest:\n{status}");
                Some(())
            });
        }
        let status = end(&daemon, id, "done");
        assert_eq!(status.eta_usec(), None, "\n{status}");
    }
}
