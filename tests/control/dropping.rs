//! `drop K`: a destination is given up by hand, in every state of a job.

use kcopyfs_support::{Daemon, Fault, FaultDisk, Op, need, until};

use crate::bench::{Bench, IMAGE};

fn states(daemon: &Daemon, id: u64) -> Vec<String> {
    daemon.dests(id).into_iter().map(|dest| dest.state).collect()
}

/// The spec of a copy of `a` to two fresh images.
fn two(bench: &Bench, words: &str) -> String {
    format!("{} to={}", bench.copy("b", words), bench.image("c").display())
}

/// Another job may write to that image by now, and nobody else has it locked.
fn is_free(bench: &Bench, name: &str) {
    let spec = format!("zero to={},0,{} paused", bench.path(name).display(), IMAGE / 512);
    let id = until("the destination is free", || bench.daemon.job(&spec).ok());
    bench.daemon.control(id, "cancel").unwrap();
}

#[test]
fn a_job_goes_on_with_the_others_needs_fuse() {
    let Some(mut bench) = Bench::new(&[]) else { return };
    let errno = |bench: &Bench, id: u64, verb: &str| bench.verb(id, verb);
    for state in ["running", "paused"] {
        let id = bench.daemon.job(&two(&bench, "speed_max=4K")).unwrap();
        bench.daemon.events().until_state(id, "running");
        if state == "paused" {
            bench.daemon.control(id, "pause").unwrap();
        }
        for wrong in ["drop", "drop 2", "drop x", "drop -1", "drop 1 2"] {
            assert_eq!(errno(&bench, id, wrong), libc::EINVAL, "{wrong}");
        }
        bench.daemon.control(id, "drop 1").unwrap();
        assert_eq!(
            (bench.daemon.status(id).state(), states(&bench.daemon, id)),
            (state, vec!["active".to_owned(), "dropped".to_owned()])
        );
        is_free(&bench, "c");
        // It is kept over a restart, and said twice it is what it was.
        bench.daemon.kill9();
        std::fs::rename(bench.path("c"), bench.path("gone")).unwrap();
        bench.daemon.restart();
        bench.daemon.control(id, "drop 1").unwrap();
        if state == "paused" {
            assert_eq!(bench.daemon.status(id).state(), "paused");
            bench.daemon.control(id, "resume").unwrap();
        }
        bench.daemon.write(format!("jobs/{id}/speed_max"), "max").unwrap();
        let status = bench.daemon.wait(id);
        assert_eq!((status.state(), status.write_err(), status.copied()), ("degraded", 0, IMAGE as u64), "\n{status}");
        let why = format!("{} was dropped by hand", bench.path("c").display());
        assert_eq!(
            (status.error(), states(&bench.daemon, id)),
            (Some(why.as_str()), vec!["done".to_owned(), "dropped".to_owned()])
        );
        assert!(bench.is_whole("b") && bench.daemon.errors(id).is_empty());
        assert_eq!(errno(&bench, id, "drop 0"), libc::EINVAL, "it has ended");
        // `retry` takes it back, from its beginning.
        std::fs::rename(bench.path("gone"), bench.path("c")).unwrap();
        bench.daemon.control(id, "retry").unwrap();
        assert_eq!(bench.daemon.wait(id).state(), "done");
        assert!(bench.is_whole("c"));
        assert_eq!(bench.rmdir(&format!("jobs/{id}")), 0);
    }
}

#[test]
fn one_that_answers_late_is_free_then_while_the_others_go_on_needs_root() {
    if !need::fault_disk() {
        return;
    }
    let disk = FaultDisk::builder(IMAGE as u64).start();
    let Some(bench) = Bench::new(&["state=none", "subjob_kb=4"]) else { return };
    for state in ["running", "paused"] {
        disk.rule(Op::Write, .., Fault::Hang);
        let spec = format!("{} to={}", bench.copy("b", "speed_max=4K"), disk.path().display());
        let id = bench.daemon.job(&spec).unwrap();
        disk.wait_parked(1);
        bench.daemon.control(id, "drop 1").unwrap();
        // The next step has begun.
        let copied = bench.daemon.status(id).copied();
        until("it goes on", || Some(()).filter(|()| bench.daemon.status(id).copied() > copied));
        if state == "paused" {
            bench.daemon.control(id, "pause").unwrap();
        }
        assert_eq!(bench.daemon.status(id).state(), state);
        disk.clear();
        disk.release();
        let again = format!("zero to={},0,{} paused", disk.path().display(), IMAGE / 512);
        let other = until("the destination is free", || bench.daemon.job(&again).ok());
        assert_eq!(bench.daemon.status(id).state(), state, "it was free before the end");
        bench.daemon.control(other, "cancel").unwrap();
        bench.daemon.control(id, "cancel").unwrap();
    }
}

#[test]
fn without_the_last_destination_a_job_is_cancelled_needs_fuse() {
    let Some(bench) = Bench::new(&["state=none"]) else { return };
    let id = bench.daemon.job(&two(&bench, "speed_max=4K")).unwrap();
    bench.daemon.events().until_state(id, "running");
    bench.daemon.control(id, "drop 1").unwrap();
    bench.daemon.control(id, "drop 0").unwrap();
    let status = bench.daemon.wait(id);
    assert_eq!((status.state(), status.write_err()), ("cancelled", 0), "\n{status}");
    assert_eq!(states(&bench.daemon, id), ["dropped", "dropped"]);
}

#[test]
fn one_that_waits_needs_no_device_of_what_was_dropped_needs_fuse() {
    let Some(bench) = Bench::new(&["state=none"]) else { return };
    let first = bench.slow("c", "");
    let to = bench.path("c");
    let id = bench.daemon.job(&format!("{} to={} queue", bench.copy("b", ""), to.display())).unwrap();
    assert_eq!(bench.daemon.status(id).state(), "queued");
    bench.daemon.control(id, "drop 1").unwrap();
    let status = bench.daemon.wait(id);
    assert_eq!((status.state(), bench.daemon.status(first).state()), ("degraded", "running"), "\n{status}");
    assert!(bench.is_whole("b"));
}

#[test]
fn a_flush_that_hangs_is_not_waited_for_needs_root() {
    if !need::fault_disk() {
        return;
    }
    let disk = FaultDisk::builder(IMAGE as u64).start();
    let Some(bench) = Bench::new(&["state=none"]) else { return };
    disk.rule(Op::Flush, .., Fault::Hang);
    let id = bench.daemon.job(&format!("{} to={}", bench.copy("b", ""), disk.path().display())).unwrap();
    disk.wait_parked(1);
    bench.daemon.events().until_state(id, "flushing");
    bench.daemon.control(id, "drop 1").unwrap();
    let status = bench.daemon.wait(id);
    assert_eq!((status.state(), status.durable()), ("degraded", IMAGE as u64), "\n{status}");
    assert_eq!(states(&bench.daemon, id), ["done", "dropped"]);
    disk.clear();
    disk.release();
}

#[test]
fn what_is_compared_is_dropped_too_needs_root() {
    if !need::fault_disk() {
        return;
    }
    let (good, sick) = (FaultDisk::builder(IMAGE as u64).start(), FaultDisk::builder(IMAGE as u64).start());
    let Some(bench) = Bench::new(&["state=none", "subjob_kb=4", "subjobs=1"]) else { return };
    let a = bench.path("a");
    let spec = format!("from={} to={} to={} verify", a.display(), good.path().display(), sick.path().display());
    sick.rule(Op::Read, .., Fault::Hang);
    let id = bench.daemon.job(&spec).unwrap();
    bench.daemon.events().until_state(id, "verifying");
    sick.wait_parked(1);
    bench.daemon.control(id, "drop 1").unwrap();
    // What is in flight there is not waited for.
    let status = bench.daemon.wait(id);
    assert_eq!(
        (status.state(), status.write_err(), status.get("verified")),
        ("degraded", 0, IMAGE.to_string().as_str()),
        "\n{status}"
    );
    assert_eq!(states(&bench.daemon, id), ["done", "dropped"]);
    sick.clear();
    sick.release();
}
