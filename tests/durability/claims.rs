//! What a job had claimed is its own through a restart: nobody writes there before it has gone on.

use kcopyfs_support::{Daemon, LoopDevice, need};

use crate::kit::{bytes, checkpoint, daemon, durable_map, rounds, until, until_reason};

const SIZE: u64 = 1 << 20;
const SEED: u64 = 61;
const LATER: u64 = 62;

/// A job that has a part of its destination, and is slow with the rest.
struct Begun {
    daemon: Daemon,
    source: LoopDevice,
    other: LoopDevice,
    dest: LoopDevice,
    id: u64,
}

impl Begun {
    fn new() -> Self {
        let [source, other, dest] = [SEED, LATER, 63].map(|seed| {
            let device = LoopDevice::new(SIZE, 512);
            device.fill(seed);
            device
        });
        let daemon = daemon().start();
        let spec = format!("from={} to={} speed_max=1", source.path().display(), dest.path().display());
        let id = daemon.job(&spec).unwrap();
        until("progress", || (daemon.status(id).copied() > 0).then_some(()));
        checkpoint(&daemon, id);
        assert!(bytes(&durable_map(&daemon, id, 0)) > 0);
        Self { daemon, source, other, dest, id }
    }

    /// The names of `source`, `other` and `dest`.
    fn names(&self) -> [String; 3] {
        [&self.source, &self.other, &self.dest].map(|device| device.path().display().to_string())
    }

    fn hurry(&self) {
        // it may have ended
        let _ = self.daemon.write(format!("jobs/{}/speed_max", self.id), "max\n");
    }

    fn assert_refused(&self) {
        let [source, other, dest] = self.names();
        for spec in [
            format!("from={other},0,8 to={dest}"),
            format!("from={dest},0,8 to={other}"),
            format!("zero to={source},0,8"),
        ] {
            let refused = self.daemon.refused(&spec);
            let why = format!("job {}", self.id);
            assert!(refused.errno == libc::EBUSY && refused.reason.contains(&why), "{spec}: {}", refused.reason);
        }
    }
}

#[test]
fn nobody_writes_where_a_paused_job_will_go_on() {
    if !need::fault_disk() {
        return;
    }
    let mut begun = Begun::new();
    begun.daemon.control(begun.id, "pause").unwrap();
    begun.daemon.kill9();
    begun.daemon.restart();
    assert_eq!(begun.daemon.status(begun.id).state(), "paused");
    begun.assert_refused();
    begun.daemon.stop();
    begun.daemon.restart();
    begun.assert_refused();
    begun.hurry();
    begun.daemon.control(begun.id, "resume").unwrap();
    assert_eq!(begun.daemon.wait(begun.id).state(), "done");
    begun.dest.check(SEED).unwrap();
    let [_, other, dest] = begun.names();
    let after = begun.daemon.job(&format!("from={other} to={dest}")).unwrap();
    assert_eq!(begun.daemon.wait(after).state(), "done");
}

#[test]
fn a_job_that_was_retried_and_waits_does_not_overtake_the_one_that_writes() {
    if !need::fault_disk() {
        return;
    }
    for _ in 0..rounds(4) {
        let mut begun = Begun::new();
        let [_, other, dest] = begun.names();
        begun.daemon.control(begun.id, "cancel").unwrap();
        begun.daemon.wait(begun.id);
        // what it has from the first is gone when the second is done
        let second = begun.daemon.job(&format!("from={other} to={dest} speed_max=1")).unwrap();
        until("progress", || (begun.daemon.status(second).copied() > 0).then_some(()));
        checkpoint(&begun.daemon, second);
        begun.daemon.control(begun.id, "retry").unwrap();
        until_reason(&begun.daemon, begun.id, "job");
        begun.daemon.kill9();
        begun.daemon.restart();
        begun.daemon.control(begun.id, "cancel").unwrap();
        assert_eq!(begun.daemon.wait(begun.id).state(), "cancelled");
        begun.daemon.write(format!("jobs/{second}/speed_max"), "max\n").unwrap();
        assert_eq!(begun.daemon.wait(second).state(), "done");
        begun.dest.check(LATER).unwrap();
    }
}
