//! I/O that never ends: it is seen, nothing else waits for it, its memory is not used again, and the daemon can go.

use std::{
    fs,
    time::{Duration, Instant},
};

use kcopyfs_support::{Daemon, Fault, FaultDisk, LoopDevice, MountPoint, Op, mounted::make_ext4, need, stamp};

use crate::kit::{daemon, until, until_reason, until_state};

const SIZE: u64 = 1 << 20;
const PIECE: u64 = 64 << 10;
const SEED: u64 = 11;

/// The piece that hangs.
const HUNG: std::ops::Range<u64> = 4 * PIECE..5 * PIECE;

fn disk(seed: u64) -> FaultDisk {
    let disk = FaultDisk::builder(SIZE).start();
    disk.fill(seed);
    disk
}

fn spec(from: &FaultDisk, to: &FaultDisk) -> String {
    format!("from={} to={}", from.path().display(), to.path().display())
}

/// It is seen that the job stalls, and how long.
fn assert_stalls(daemon: &Daemon, id: u64) {
    let first = until("a stall", || Some(daemon.status(id).stalled_usec()).filter(|usec| *usec > 50_000));
    let status = until("it grows", || Some(daemon.status(id)).filter(|status| status.stalled_usec() > first + 50_000));
    assert!(matches!(status.state(), "running" | "flushing"), "\n{status}");
}

#[test]
fn a_request_that_hangs_is_seen_and_holds_up_nobody_else() {
    if !need::fault_disk() {
        return;
    }
    for io in ["io=uring", "io=threads"] {
        for op in [Op::Read, Op::Write, Op::Flush] {
            let (from, to) = (disk(SEED), disk(0));
            // 32 pages: two pieces, so that any reuse of the hung one's memory shows
            let mut daemon = daemon().option("client_pages=32").option(io).option("state=none").start();
            let sick = if op == Op::Read { &from } else { &to };
            sick.rule(op, HUNG, Fault::Hang);
            let id = daemon.job(&spec(&from, &to)).unwrap();
            sick.wait_parked(1);
            assert_stalls(&daemon, id);

            let (other_from, other_to) = (disk(SEED + 1), disk(0));
            for _ in 0..3 {
                let other = daemon.job(&spec(&other_from, &other_to)).unwrap();
                assert_eq!(daemon.wait(other).state(), "done", "{op:?}");
            }
            daemon.control(id, "cancel").unwrap();
            let reason = until_reason(&daemon, id, "waits");
            assert!(reason.contains("in flight"), "{reason}");
            assert!(!daemon.status(id).is_ended(), "{}", daemon.status(id));
            let other = daemon.job(&spec(&other_from, &other_to)).unwrap();
            assert_eq!(daemon.wait(other).state(), "done", "{op:?}");
            assert_eq!(other_to.check(SEED + 1), Ok(()));
            sick.release();
            assert_eq!(daemon.wait(id).state(), "cancelled", "{op:?}");
            // what hung carried its own data, not what passed through those pages since
            let at = HUNG.start / 512;
            let data = to.contents_of(HUNG);
            if op != Op::Read {
                stamp::check(&data, SEED, at).unwrap();
            }
            let engine = daemon.read("engine").unwrap();
            let figure = |key: &str| {
                let line = engine.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
                line.unwrap_or_else(|| panic!("no {key}:\n{engine}")).to_owned()
            };
            assert_eq!(figure("subjobs_in_flight"), "0");
            daemon.stop();
        }
    }
}

#[test]
fn a_daemon_with_a_request_that_hangs_is_gone_in_five_seconds() {
    if !need::fault_disk() {
        return;
    }
    for op in [Op::Read, Op::Write, Op::Flush] {
        let (from, to) = (disk(SEED), disk(0));
        let mut daemon = daemon().option("io=uring").start();
        let sick = if op == Op::Read { &from } else { &to };
        sick.rule(op, HUNG, Fault::Hang);
        let id = daemon.job(&spec(&from, &to)).unwrap();
        sick.wait_parked(1);
        let begin = Instant::now();
        if op == Op::Flush {
            // a thread that is in a flush cannot be killed before the device answers; the tree is gone all the same
            let mount = daemon.mount().to_path_buf();
            daemon.terminate();
            until("no tree", || fs::metadata(mount.join("version")).is_err().then_some(()));
            assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
            sick.release();
        }
        daemon.stop();
        eprintln!("{op:?}: gone after {:?}", begin.elapsed());
        sick.clear();
        daemon.restart();
        if op == Op::Write {
            // what hangs is still under way there, and the next daemon waits for it
            until_reason(&daemon, id, "in use");
            assert_eq!(daemon.status(id).state(), "queued");
        }
        sick.release();
        assert_eq!(daemon.wait(id).state(), "done");
        assert_eq!(to.check(SEED), Ok(()));
    }
}

#[test]
fn a_late_write_of_a_killed_daemon_does_not_land_on_what_came_after() {
    if !need::fault_disk() {
        return;
    }
    let source = LoopDevice::new(SIZE, 512);
    source.fill(SEED);
    let to = disk(0);
    let mut daemon = daemon().option("io=uring").start();
    to.rule(Op::Write, HUNG, Fault::Hang);
    let id = daemon.job(&format!("from={} to={}", source.path().display(), to.path().display())).unwrap();
    to.wait_parked(1);
    daemon.kill9();
    to.clear();
    // what the late write carries is old now
    source.fill(SEED + 1);
    let before = to.stat();
    daemon.restart();
    until_reason(&daemon, id, "in use");
    let again = daemon.refused(&format!("zero to={},0,8", to.path().display()));
    assert_eq!(again.errno, libc::EBUSY, "{}", again.reason);
    assert_eq!(to.stat().writes, before.writes, "it writes although the device is not free");
    to.release();
    let status = daemon.wait(id);
    assert_eq!((status.state(), status.durable()), ("done", SIZE), "\n{status}");
    stamp::check(&to.contents_of(HUNG), SEED + 1, HUNG.start / 512).unwrap();
}

#[test]
fn a_late_write_to_a_file_does_not_land_on_what_came_after() {
    if !need::fault_disk() || !need::program("mkfs.ext4", "e2fsprogs") {
        return;
    }
    let below = FaultDisk::builder(8 << 20).start();
    make_ext4(&below.path(), "^has_journal");
    let point = MountPoint::new().unwrap();
    point.mount("ext4", below.path(), "noatime");
    let path = point.path().join("copy.img");
    let sectors = usize::try_from(SIZE / 512).unwrap();
    fs::write(&path, stamp::stamped(0, 0, sectors)).unwrap();
    // all that the file system has to write: the only write to come is the job's
    nix::unistd::syncfs(fs::File::open(&path).unwrap()).unwrap();
    let source = LoopDevice::new(SIZE, 512);
    source.fill(SEED);
    let mut daemon = daemon().option("io=uring").start();
    below.rule(Op::Write, .., Fault::Hang).times(1);
    let id = daemon.job(&format!("from={} to={}", source.path().display(), path.display())).unwrap();
    below.wait_parked(1);
    until("all but one piece", || (daemon.status(id).copied() == SIZE - PIECE).then_some(()));
    daemon.kill9();
    source.fill(SEED + 1);
    daemon.restart();
    until_reason(&daemon, id, "in use");
    let again = daemon.refused(&format!("zero to={},0,2048", path.display()));
    assert_eq!(again.errno, libc::EBUSY, "{}", again.reason);
    below.release();
    assert_eq!(daemon.wait(id).state(), "done");
    stamp::check(&fs::read(&path).unwrap(), SEED + 1, 0).unwrap();
    // what is written elsewhere in that file is in nobody's way
    let first = daemon.job(&format!("zero to={},0,8 paused", path.display())).unwrap();
    let beside = daemon.job(&format!("zero to={},8,8", path.display())).unwrap();
    assert_eq!(daemon.wait(beside).state(), "done");
    daemon.control(first, "resume").unwrap();
    assert_eq!(daemon.wait(first).state(), "done");
}

#[test]
fn a_paused_job_with_a_request_that_hangs_goes_on_when_it_ends() {
    if !need::fault_disk() {
        return;
    }
    let (from, to) = (disk(SEED), disk(0));
    let daemon = daemon().start();
    to.rule(Op::Write, HUNG, Fault::Hang);
    let id = daemon.job(&spec(&from, &to)).unwrap();
    to.wait_parked(1);
    daemon.control(id, "pause").unwrap();
    until_state(&daemon, id, "paused");
    to.release();
    until("a checkpoint", || (daemon.status(id).durable() > 0).then_some(()));
    daemon.control(id, "resume").unwrap();
    assert_eq!(daemon.wait(id).state(), "done");
    assert_eq!(to.check(SEED), Ok(()));
}

/// Killed while a device hangs, so that its process cannot end: its mount point and all other disks are free at once, and its
/// state directory is refused with the truth.
#[test]
fn the_place_of_a_killed_daemon_that_a_device_keeps_is_taken() {
    if !need::fault_disk() {
        return;
    }
    for (io, op) in
        [("io=uring", Op::Flush), ("io=threads", Op::Flush), ("io=threads", Op::Read), ("io=threads", Op::Write)]
    {
        let state = tempfile::tempdir().unwrap();
        let state = format!("state={}", state.path().display());
        let (from, to, other_from, other_to) = (disk(SEED), disk(0), disk(SEED + 1), disk(0));
        let killed = daemon().option(io).option(&state).start();
        let sick = if op == Op::Read { &from } else { &to };
        sick.rule(op, HUNG, Fault::Hang);
        killed.job(&spec(&from, &to)).unwrap();
        sick.wait_parked(1);
        let worker = killed.worker();
        let kill = std::process::Command::new("kill").args(["-9", &killed.pid().to_string()]).status();
        assert!(kill.unwrap().success());
        // who asks the mount now waits for an answer that never comes
        let asked = killed.mount().join("version");
        let asks = std::thread::spawn(move || {
            // Until the process that answers is dead, too.
            loop {
                if let Err(error) = fs::read(&asked) {
                    return error.raw_os_error();
                }
            }
        });

        let again = || daemon().option(io).mount_at(killed.mount());
        let refused = again().option(&state).try_start().expect_err("its state directory is held");
        let (said, device) = (&refused.stderr, sick.path().display().to_string());
        assert!(said.contains(&format!("process {worker}")) && said.contains(&device), "{io} {op:?}: {said}");
        assert!(said.contains("killed") && said.contains("state=DIR") && !said.contains("stop that one"), "{said}");
        let answer = asks.join().unwrap();
        assert!(matches!(answer, Some(libc::ECONNABORTED | libc::ENOTCONN | libc::ENOENT)), "{answer:?}");

        let mut next = again().start();
        let id = next.job(&spec(&other_from, &other_to)).unwrap();
        assert_eq!(next.wait(id).state(), "done");
        next.stop();
        assert_eq!(other_to.check(SEED + 1), Ok(()));
        sick.release();
        let mut last = again().option(&state).start();
        assert_eq!(last.wait(1).state(), "done", "{io} {op:?}");
        assert_eq!(to.check(SEED), Ok(()));
        last.stop();
    }
}
