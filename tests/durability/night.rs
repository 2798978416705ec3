//! What happened in the night: the daemon is killed, and the next morning its tree tells what happened, and when.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use kcopyfs_support::{Daemon, Fault, FaultDisk, LoopDevice, Op, need, until};

use crate::kit::{daemon, figures, hold, rounds, scratch, until_state};

const SIZE: u64 = 1 << 20;

/// A daemon that keeps its jobs in `state`.
fn start(state: &Path) -> Daemon {
    daemon().option(format!("state={}", state.display())).start()
}

fn micros(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).expect("after 1970").as_micros()
}

/// What `ls -l jobs` shows of a job: bytes copied, and the last progress.
fn listed(daemon: &Daemon, id: u64) -> (u64, SystemTime) {
    let meta = fs::metadata(daemon.path(format!("jobs/{id}"))).expect("stat a job");
    (meta.len(), meta.modified().expect("a time"))
}

#[test]
fn a_kill_in_the_night_leaves_what_happened_and_when() {
    if !need::fault_disk() {
        return;
    }
    let (source, good, slow) =
        (LoopDevice::new(SIZE, 512), LoopDevice::new(SIZE, 512), FaultDisk::builder(SIZE).start());
    source.fill(1);
    let state = scratch();
    let mut daemon = start(state.path());
    let evening = micros(SystemTime::now());
    let ended =
        daemon.job(&format!("from={} to={} name=nightly", source.path().display(), good.path().display())).unwrap();
    assert_eq!(daemon.wait(ended).state(), "done");
    slow.rule(Op::Write, SIZE / 2.., Fault::Hang);
    let live = daemon.job(&format!("from={} to={}", source.path().display(), slow.path().display())).unwrap();
    slow.wait_parked(1);
    let before = (daemon.read("events").unwrap(), figures(&daemon, ended), listed(&daemon, ended));
    let started = daemon.status(live).get("started").to_owned();
    let record = state.path().join(format!("{live}.job"));
    until("its record to say when it began", || {
        fs::read_to_string(&record).ok().filter(|text| text.contains("\nstarted "))
    });
    daemon.kill9();
    let night = micros(SystemTime::now());
    slow.clear();
    slow.release();
    daemon.restart();
    assert_eq!(daemon.wait(live).state(), "done");

    let (events, status, list) = (daemon.read("events").unwrap(), figures(&daemon, ended), listed(&daemon, ended));
    assert!(events.starts_with(&before.0) && events.len() > before.0.len(), "{}\n\nthen:\n{events}", before.0);
    assert_eq!((status, list), (before.1, before.2), "what had ended is as it was");
    let told = events.lines().find(|line| line.contains(&format!(" {ended} flushing done"))).expect("its end");
    assert!(told.ends_with(" name=nightly"), "{told}");
    let time: u128 = told.split(' ').next().unwrap().parse().unwrap();
    assert!((evening..=night).contains(&time), "{evening} {told} {night}");
    // what went on began in the evening, and ended after the kill
    let status = daemon.status(live);
    assert_eq!(status.get("started"), started);
    assert!(status.get("ended").parse::<u128>().unwrap() >= night, "{status}");
    assert_eq!(listed(&daemon, live).0, SIZE);
    assert_eq!(fs::metadata(daemon.path("events")).unwrap().len(), events.len() as u64, "its size is true");
    let times: Vec<u128> = events.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(times.is_sorted(), "{events}");
}

#[test]
fn a_line_that_was_read_is_there_after_a_kill() {
    let scratch = scratch();
    let source = scratch.path().join("source");
    fs::write(&source, vec![7; 4096]).unwrap();
    let mut daemon = start(&scratch.path().join("state"));
    for round in 0..rounds(5) {
        let dest = scratch.path().join(format!("dest.{round}"));
        daemon.job(&format!("from={} to={} paused create", source.display(), dest.display())).unwrap();
        let told = daemon.read("events").unwrap();
        daemon.kill9();
        daemon.restart();
        let now = daemon.read("events").unwrap();
        assert!(now.starts_with(&told), "{told}\n\nthen:\n{now}");
    }
}

#[test]
fn a_torn_line_is_dropped_and_the_next_begins_a_line() {
    let scratch = scratch();
    let state = scratch.path().join("state");
    let files = ["one", "two"].map(|name| scratch.path().join(name));
    let mut daemon = start(&state);
    daemon.job(&format!("zero to={},0,8 paused create", files[0].display())).unwrap();
    let told = daemon.read("events").unwrap();
    daemon.kill9();
    OpenOptions::new().append(true).open(state.join("events")).unwrap().write_all(b"1763980000000000 9 run").unwrap();
    daemon.restart();
    let id = daemon.job(&format!("zero to={},0,8 create", files[1].display())).unwrap();
    assert_eq!(daemon.wait(id).state(), "done");
    let now = daemon.read("events").unwrap();
    assert!(now.starts_with(&told) && !now.contains(" 9 run"), "{now}");
    daemon.stop();
    assert_eq!(fs::read_to_string(state.join("events")).unwrap(), now, "the file is mended");
}

#[test]
fn events_that_cannot_be_kept_stop_no_job_and_are_told_once() {
    let scratch = scratch();
    let (state, file) = (scratch.path().join("state"), scratch.path().join("file"));
    fs::create_dir_all(state.join("events")).unwrap();
    fs::write(&file, vec![1; 4096]).unwrap();
    let mut daemon = start(&state);
    let run = |daemon: &Daemon| {
        let id = daemon.job(&format!("zero to={},0,8", file.display())).unwrap();
        assert_eq!(daemon.wait(id).state(), "done");
    };
    let told = |daemon: &Daemon| daemon.log().matches("events are not kept").count();
    run(&daemon);
    until("a line in the log", || (told(&daemon) == 1).then_some(()));
    run(&daemon);
    let events = daemon.read("events").unwrap();
    assert_eq!(events.matches("flushing done").count(), 2, "they are told all the same:\n{events}");
    fs::remove_dir(state.join("events")).unwrap();
    until("the file", || fs::read_to_string(state.join("events")).is_ok_and(|kept| kept == events).then_some(()));
    assert_eq!(told(&daemon), 1, "{}", daemon.log());
    daemon.kill9();
    daemon.restart();
    assert_eq!(daemon.read("events").unwrap(), events);
}

#[test]
fn without_a_state_directory_events_begin_anew() {
    let scratch = scratch();
    let file = scratch.path().join("file");
    fs::write(&file, vec![1; 4096]).unwrap();
    let mut daemon = daemon().option("state=none").start();
    let id = daemon.job(&format!("zero to={},0,8", file.display())).unwrap();
    assert_eq!(daemon.wait(id).state(), "done");
    daemon.kill9();
    daemon.restart();
    assert_eq!(daemon.read("events").unwrap(), "");
}

#[test]
fn running_time_counts_over_kills_also_where_nothing_is_durable() {
    if !need::fault_disk() {
        return;
    }
    let (source, dest) = (LoopDevice::new(SIZE, 512), FaultDisk::builder(SIZE).start());
    source.fill(1);
    let state = scratch();
    let mut daemon = start(state.path());
    // not one byte becomes durable
    let hang = || _ = dest.rule(Op::Write, .., Fault::Hang);
    hang();
    let id = daemon.job(&format!("from={} to={}", source.path().display(), dest.path().display())).unwrap();
    let elapsed = |daemon: &Daemon| daemon.status(id).elapsed_usec();
    until_state(&daemon, id, "running");
    let started = daemon.status(id).get("started").to_owned();
    let mut least = 6_000_000;
    for _ in 0..2 {
        until("a few seconds of work", || (elapsed(&daemon) > least).then_some(()));
        let before = elapsed(&daemon);
        daemon.kill9();
        // what the killed one had in flight ends, and what the next one writes hangs again
        dest.clear();
        dest.release();
        drop(hold(&dest.path()));
        hang();
        daemon.restart();
        until_state(&daemon, id, "running");
        let now = elapsed(&daemon);
        // a record is at most 5 s old, and the machine is loaded
        assert!(now > 0 && now + 8_000_000 > before, "{before} before the kill, {now} after it");
        let status = daemon.status(id);
        assert_eq!((status.get("started"), status.durable()), (&*started, 0), "{status}");
        least = now + 6_000_000;
    }
    dest.clear();
    dest.release();
    assert_eq!(daemon.wait(id).state(), "done");
}
