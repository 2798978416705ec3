//! What outlives the daemon: each job in its state, with its figures, and everything that can be done with it.

use std::{fs, os::unix::fs::MetadataExt as _};

use kcopyfs_support::{Daemon, Fault, FaultDisk, LoopDevice, Op, Rng, daemon::Status, need};

use crate::kit::{assert_nothing_torn, checkpoint, daemon, figures, rounds, until, until_reason, until_state};

const SIZE: u64 = 1 << 20;
const SEED: u64 = 7;

fn disk() -> FaultDisk {
    FaultDisk::builder(SIZE).start()
}

fn spec(from: &LoopDevice, to: &[&FaultDisk], words: &str) -> String {
    let to: Vec<_> = to.iter().map(|disk| format!("to={}", disk.path().display())).collect();
    format!("from={} {} {words}", from.path().display(), to.join(" "))
}

/// Ended jobs of every kind, each with a reason where there should be one.
fn end_some(daemon: &Daemon, source: &LoopDevice, good: &FaultDisk, bad: &FaultDisk) -> Vec<(u64, &'static str)> {
    let run = |spec: String, state: &'static str| {
        let id = daemon.job(&spec).unwrap();
        assert_eq!(daemon.wait(id).state(), state, "{spec}");
        (id, state)
    };
    let mut ends = vec![run(spec(source, &[good], "name=good digest=sha256 verify"), "done")];
    bad.rule(Op::Write, 300 << 10..301 << 10, Fault::Err(libc::EIO));
    ends.push(run(spec(source, &[good, bad], ""), "degraded"));
    ends.push(run(spec(source, &[bad], ""), "failed"));
    bad.clear();
    bad.rule(Op::Flush, .., Fault::Err(libc::EIO));
    ends.push(run(spec(source, &[bad], ""), "failed"));
    ends.push(run(spec(source, &[good, bad], ""), "degraded"));
    bad.clear();
    good.rule(Op::Read, 300 << 10..301 << 10, Fault::Err(libc::EIO));
    let from_good = |words: &str| format!("from={} to={} {words}", good.path().display(), bad.path().display());
    ends.push(run(from_good(""), "failed"));
    ends.push(run(from_good("on_read_error=zero"), "degraded"));
    ends.push(run(from_good("ignore_error"), "degraded"));
    good.clear();
    bad.rule(Op::Write, 300 << 10..301 << 10, Fault::Hang);
    let id = daemon.job(&spec(source, &[bad], "")).unwrap();
    bad.wait_parked(1);
    daemon.control(id, "cancel").unwrap();
    bad.release();
    assert_eq!(daemon.wait(id).state(), "cancelled");
    ends.push((id, "cancelled"));
    ends
}

#[test]
fn ended_jobs_keep_all_figures() {
    if !need::fault_disk() {
        return;
    }
    let source = LoopDevice::new(SIZE, 512);
    source.fill(SEED);
    let (good, bad) = (disk(), disk());
    let mut daemon = daemon().start();
    let ends = end_some(&daemon, &source, &good, &bad);
    let all = |daemon: &Daemon| {
        ends.iter()
            .map(|(id, _)| {
                let copied = daemon.status(*id).copied();
                // the kernel keeps attributes for a second
                let listed = until("its size", || {
                    fs::metadata(daemon.path(format!("jobs/{id}"))).ok().filter(|listed| listed.size() == copied)
                });
                let listed = format!("{} bytes, {}.{:09}", listed.size(), listed.mtime(), listed.mtime_nsec());
                let mut files = figures(daemon, *id);
                files.push((String::new(), listed));
                files
            })
            .collect::<Vec<_>>()
    };
    let before = all(&daemon);
    for kill in [true, false] {
        if kill {
            daemon.kill9();
        } else {
            daemon.stop();
        }
        daemon.restart();
        for ((id, state), (now, before)) in ends.iter().zip(all(&daemon).iter().zip(&before)) {
            for ((file, now), (_, before)) in now.iter().zip(before) {
                assert_eq!(now, before, "jobs/{id}/{file}, {state}");
            }
            let waited = daemon.wait_to_end(*id);
            assert_eq!(waited.status, Status::parse(&before[0].1));
            assert!(fs::symlink_metadata(daemon.path(format!("state/{state}/{id}"))).is_ok());
        }
        assert_eq!(fs::read_link(daemon.path("names/good")).unwrap().file_name().unwrap(), "1");
    }
    // and can be taken up again
    for (id, state) in &ends {
        match *state {
            "done" => daemon.control(*id, "verify").unwrap(),
            _ => daemon.control(*id, "retry").unwrap(),
        }
        let status = daemon.wait(*id);
        assert_eq!((status.state(), status.copied(), status.durable()), ("done", SIZE, SIZE), "job {id}\n{status}");
    }
    assert_eq!(bad.check(SEED), Ok(()));
    assert_nothing_torn(&daemon);
}

#[test]
fn a_job_that_was_taken_up_again_is_alive_after_a_kill() {
    if !need::fault_disk() {
        return;
    }
    let source = LoopDevice::new(SIZE, 512);
    source.fill(SEED);
    let dest = disk();
    let mut daemon = daemon().start();
    let id = daemon.job(&spec(&source, &[&dest], "paused")).unwrap();
    daemon.control(id, "cancel").unwrap();
    daemon.wait(id);
    dest.rule(Op::Write, .., Fault::Hang);
    daemon.control(id, "retry").unwrap();
    dest.wait_parked(1);
    daemon.kill9();
    daemon.restart();
    assert!(!daemon.status(id).is_ended(), "{}", daemon.status(id));
    dest.release();
    assert_eq!(daemon.wait(id).state(), "done");
    assert_eq!(dest.check(SEED), Ok(()));
}

#[test]
fn live_jobs_go_on_in_their_states_and_their_order() {
    if !need::fault_disk() {
        return;
    }
    let source = LoopDevice::new(SIZE, 512);
    source.fill(SEED);
    let (dest, other) = (disk(), disk());
    let mut daemon = daemon().start();
    let paused = daemon.job(&spec(&source, &[&other], "")).unwrap();
    daemon.wait(paused);
    other.rule(Op::Write, 512 << 10..513 << 10, Fault::Hang);
    let paused = daemon.job(&spec(&source, &[&other], "name=later speed_max=100M")).unwrap();
    other.wait_parked(1);
    daemon.control(paused, "pause").unwrap();
    other.release();
    let before = until("a pause", || {
        let status = daemon.status(paused);
        (status.state() == "paused" && status.durable() > 0 && status.durable() == status.copied()).then_some(status)
    });
    let paused_before = figures(&daemon, paused);

    dest.rule(Op::Write, 512 << 10..513 << 10, Fault::Hang);
    let running = daemon.job(&spec(&source, &[&dest], "")).unwrap();
    dest.wait_parked(1);
    let queued = daemon.job(&spec(&source, &[&dest], "queue name=second")).unwrap();
    let follower = daemon.job(&spec(&source, &[&dest], &format!("after={queued} name=third"))).unwrap();
    let orphan = daemon.job(&spec(&source, &[&dest], &format!("after={paused}"))).unwrap();
    until_reason(&daemon, queued, "waits");
    daemon.kill9();
    daemon.restart();

    assert_eq!(figures(&daemon, paused), paused_before, "paused stays paused");
    until_reason(&daemon, running, "waits");
    until_reason(&daemon, queued, "waits");
    assert_eq!(daemon.status(follower).error(), Some(format!("waits for job {queued}").as_str()));
    assert_eq!(daemon.status(orphan).error(), Some(format!("waits for job {paused}").as_str()));
    for id in [running, queued, follower, orphan] {
        assert_eq!(daemon.status(id).state(), "queued");
    }
    dest.release();
    for id in [running, queued, follower] {
        let status = daemon.wait(id);
        assert_eq!((status.state(), status.durable()), ("done", SIZE), "job {id}\n{status}");
    }
    assert_eq!(dest.check(SEED), Ok(()));
    let events = daemon.read("events").unwrap();
    let ends: Vec<u64> = events
        .lines()
        .filter(|line| line.contains(" done"))
        .map(|line| line.split(' ').nth(1).unwrap().parse().unwrap())
        .collect();
    let place = |id| ends.iter().position(|end| *end == id);
    assert!(place(queued) < place(follower), "\n{events}");

    daemon.control(paused, "resume").unwrap();
    let status = daemon.wait(paused);
    assert_eq!((status.state(), status.durable()), ("done", SIZE), "\n{status}");
    assert!(status.elapsed_usec() >= before.elapsed_usec());
    assert_eq!(daemon.wait(orphan).state(), "done");
    assert_nothing_torn(&daemon);
}

#[test]
fn a_verb_is_on_disk_when_its_write_returns() {
    if !need::fault_disk() {
        return;
    }
    let source = LoopDevice::new(SIZE, 512);
    source.fill(SEED);
    let dest = disk();
    let mut daemon = daemon().start();
    dest.rule(Op::Write, 512 << 10..513 << 10, Fault::Hang);
    let id = daemon.job(&spec(&source, &[&dest], "")).unwrap();
    dest.wait_parked(1);
    for _ in 0..rounds(3) {
        daemon.control(id, "pause").unwrap();
        daemon.kill9();
        daemon.restart();
        assert_eq!(daemon.status(id).state(), "paused");
        daemon.control(id, "resume").unwrap();
        daemon.kill9();
        daemon.restart();
        assert_eq!(daemon.status(id).state(), "queued");
    }
    dest.release();
    assert_eq!(daemon.wait(id).state(), "done");
    assert_eq!(dest.check(SEED), Ok(()));
}

#[test]
fn a_follower_goes_on_though_the_job_before_it_was_dismissed() {
    if !need::fault_disk() {
        return;
    }
    let source = LoopDevice::new(SIZE, 512);
    source.fill(SEED);
    let (dest, first) = (disk(), disk());
    let mut daemon = daemon().start();
    first.rule(Op::Write, 512 << 10..513 << 10, Fault::Hang);
    dest.rule(Op::Write, 512 << 10..513 << 10, Fault::Hang);
    let before = daemon.job(&spec(&source, &[&first], "")).unwrap();
    let id = daemon.job(&spec(&source, &[&dest], &format!("after={before}"))).unwrap();
    first.wait_parked(1);
    first.release();
    dest.wait_parked(1);
    fs::remove_dir(daemon.path(format!("jobs/{before}"))).unwrap();
    // a pause and a kill are both no reason to wait for it again
    checkpoint_hung(&daemon, id);
    daemon.kill9();
    daemon.restart();
    until_reason(&daemon, id, "in use");
    dest.release();
    assert_eq!(daemon.wait(id).state(), "done");
    assert_eq!(dest.check(SEED), Ok(()));
}

/// A pause and a resume of a job that has a write which hangs.
fn checkpoint_hung(daemon: &Daemon, id: u64) {
    daemon.control(id, "pause").unwrap();
    until_state(daemon, id, "paused");
    daemon.control(id, "resume").unwrap();
    until_state(daemon, id, "running");
}

#[test]
fn every_pause_makes_a_checkpoint_however_they_follow_each_other() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(9);
    let source = LoopDevice::new(SIZE, 512);
    source.fill(SEED);
    let dest = disk();
    let daemon = daemon().start();
    for _ in 0..rounds(4) {
        // between its pieces nothing is in flight, so that the news of a pause comes at once, or late
        let id = daemon.job(&spec(&source, &[&dest], "speed_max=1M")).unwrap();
        // a job that ends meanwhile takes no verbs
        while daemon.control(id, "pause").is_ok() {
            let _ = daemon.control(id, "resume");
            if rng.one_in(2) {
                let _ = daemon.control(id, "pause");
                until("a checkpoint", || {
                    let status = daemon.status(id);
                    (status.is_ended() || status.durable() == status.copied()).then_some(())
                });
                let _ = daemon.control(id, "resume");
            }
        }
        assert_eq!(daemon.wait(id).state(), "done");
    }
}

#[test]
fn a_limit_of_speed_outlives_the_daemon() {
    if !need::fault_disk() {
        return;
    }
    let source = LoopDevice::new(SIZE, 512);
    source.fill(SEED);
    let dest = disk();
    let mut daemon = daemon().start();
    let id = daemon.job(&spec(&source, &[&dest], "speed_max=1")).unwrap();
    until("progress", || (daemon.status(id).copied() > 0).then_some(()));
    daemon.write(format!("jobs/{id}/speed_max"), "128K\n").unwrap();
    checkpoint(&daemon, id);
    daemon.kill9();
    daemon.restart();
    assert_eq!(daemon.read(format!("jobs/{id}/speed_max")).unwrap(), "131072\n");
    daemon.write(format!("jobs/{id}/speed_max"), "max\n").unwrap();
    assert_eq!(daemon.wait(id).state(), "done");
    assert_eq!(dest.check(SEED), Ok(()));
}
