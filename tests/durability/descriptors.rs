//! Live jobs that use up all descriptors of the daemon.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use kcopyfs_support::{Daemon, need, stamp};

use crate::kit::{PROGRAM, assert_nothing_torn, checkpoint, scratch, until};

const SECTORS: u64 = 1024;
const SEED: u64 = 91;

/// A program that starts the daemon with so many descriptors as `limit` says.
fn limited(folder: &Path) -> PathBuf {
    let (program, limit) = (folder.join("limited"), folder.join("limit"));
    let text = format!("#!/bin/sh\nulimit -n \"$(cat {})\"\nexec {PROGRAM} \"$@\"\n", limit.display());
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    program
}

/// Whether its reason is that there are no descriptors, with what to do about it.
fn is_out(reason: &str) -> bool {
    ["EMFILE", "LimitNOFILE", "ulimit -n"].iter().all(|word| reason.contains(word))
}

fn lift(daemon: &Daemon, ids: &[u64]) {
    for id in ids {
        daemon.write(format!("jobs/{id}/speed_max"), "max\n").unwrap();
    }
}

#[test]
fn jobs_that_use_up_all_descriptors_have_checkpoints_and_ends() {
    if !need::fuse() {
        return;
    }
    let folder = scratch();
    let (program, image) = (limited(folder.path()), |index: usize| folder.path().join(format!("to{index}")));
    fs::write(folder.path().join("limit"), "220").unwrap();
    let from = folder.path().join("from");
    fs::write(&from, stamp::stamped(SEED, 0, usize::try_from(SECTORS).unwrap())).unwrap();
    let mut daemon = Daemon::builder(program).option("pages=1024").option("subjob_kb=64").option("active=200").start();
    // as many as there can be, none of which ends
    let spec = |index: usize| {
        let to = [0, 1, 2].map(|dest| format!("to={}", image(4 * index + dest).display())).join(" ");
        format!("from={} {to} create speed_max=1", from.display())
    };
    let mut ids = Vec::new();
    let refused = loop {
        match daemon.job(&spec(ids.len())) {
            Ok(id) => ids.push(id),
            Err(_) => break daemon.refused(&spec(ids.len())),
        }
        assert!(ids.len() < 100, "there is no limit");
    };
    assert!(refused.errno == libc::EMFILE && is_out(&refused.reason), "{refused:?}");
    assert!(ids.len() > 9, "only {}", ids.len());
    // with one destination each, until nothing at all is left
    let several = ids.len();
    let single =
        |index: usize| format!("from={} to={} create speed_max=1", from.display(), image(1000 + index).display());
    ids.extend((0..).map_while(|index| daemon.job(&single(index)).ok()));

    // checkpoints come by themselves, and with a pause
    checkpoint(&daemon, ids[0]);
    for id in &ids {
        until("a checkpoint", || {
            let status = daemon.status(*id);
            (status.durable() > 0 && status.durable() == status.copied()).then_some(())
        });
    }
    daemon.control(ids[1], "cancel").unwrap();
    assert_eq!(daemon.wait(ids[1]).state(), "cancelled");
    lift(&daemon, &ids[2..4]);
    for id in &ids[2..4] {
        assert_eq!(daemon.wait(*id).state(), "done");
    }

    // the next start has fewer: those that find none wait for others to end
    fs::write(folder.path().join("limit"), "140").unwrap();
    daemon.kill9();
    daemon.restart();
    assert_nothing_torn(&daemon);
    ids.drain(1..4);
    let waits = |daemon: &Daemon, id: u64| {
        let status = daemon.status(id);
        status.state() == "queued" && status.error().is_some_and(is_out)
    };
    until("some wait", || ids.iter().any(|id| waits(&daemon, *id)).then_some(()));
    let runs = ids.iter().filter(|id| daemon.status(**id).state() == "running").count();
    assert!(runs > 0 && runs < ids.len(), "{runs} of {} run", ids.len());
    lift(&daemon, &ids);
    for id in &ids {
        let status = daemon.wait(*id);
        assert_eq!(status.state(), "done", "\n{status}");
    }
    let whole = fs::read(&from).unwrap();
    for index in (0..several).filter(|index| *index != 1) {
        for dest in 0..3 {
            assert!(fs::read(image(4 * index + dest)).unwrap() == whole, "job {}, destination {dest}", index + 1);
        }
    }
}
