//! Who goes first after a restart: what had begun, before what waited for it, and these in their order. Else the rest of
//! one copy would be written over another one, and both would be done.

use kcopyfs_support::{Daemon, LoopDevice, need};

use crate::kit::{daemon, hold, rounds, until, until_reason, until_state};

const SIZE: u64 = 1 << 20;

/// Two sources, one destination, a job that has copied half of the first one, and the daemon down.
struct Half {
    daemon: Daemon,
    sources: [LoopDevice; 2],
    dest: LoopDevice,
}

impl Half {
    /// `more` are jobs that come after it, from the second source to the same destination.
    fn new(more: &[&str], paused: bool) -> Self {
        let [first, second, dest] = [1, 2, 3].map(|seed| {
            let device = LoopDevice::new(SIZE, 512);
            device.fill(seed);
            device
        });
        let mut daemon = daemon().start();
        let to = dest.path().display();
        let id = daemon.job(&format!("from={} to={to} speed_max=1", first.path().display())).unwrap();
        for words in more {
            daemon.job(&format!("from={} to={to} {words}", second.path().display())).unwrap();
        }
        until("progress", || (daemon.status(id).copied() > 0).then_some(()));
        daemon.control(id, "pause").unwrap();
        until("a checkpoint", || (daemon.status(id).durable() > 0).then_some(()));
        daemon.write(format!("jobs/{id}/speed_max"), if paused { "max\n" } else { "512\n" }).unwrap();
        if !paused {
            daemon.control(id, "resume").unwrap();
            until_state(&daemon, id, "running");
        }
        daemon.kill9();
        Self { daemon, sources: [first, second], dest }
    }

    fn spec(&self, words: &str) -> String {
        format!("from={} to={} {words}", self.sources[1].path().display(), self.dest.path().display())
    }
}

#[test]
fn what_waited_for_a_half_done_job_waits_again() {
    if !need::fault_disk() {
        return;
    }
    for round in 0..rounds(4) {
        let mut half = Half::new(&["queue", "queue name=last"], false);
        let daemon = &mut half.daemon;
        // In every second round the destination is busy at first, as with a late write, and all wait for that.
        let busy = (round % 2 == 1).then(|| hold(half.dest.path()));
        daemon.restart();
        if let Some(busy) = busy {
            (1..=3).for_each(|id| drop(until_reason(daemon, id, "waits")));
            drop(busy);
        }
        until_state(daemon, 1, "running");
        for id in [2, 3] {
            until_reason(daemon, id, "job 1");
            assert_eq!(daemon.status(id).copied(), 0);
        }
        // A new job is refused, and one that waits goes to the end.
        let new =
            daemon.job(&format!("from={} to={} queue", half.sources[0].path().display(), half.dest.path().display()));
        daemon.write("jobs/1/speed_max", "max\n").unwrap();
        let ids = [1, 2, 3, new.unwrap()];
        for id in ids {
            assert_eq!(daemon.wait(id).state(), "done", "{id}");
        }
        let mut events = daemon.events();
        let events = events.now();
        let starts = events.iter().filter(|event| event.change() == "queued running");
        let begun: Vec<u64> = starts.map(|event| event.job).collect();
        assert_eq!(begun, ids, "{events:#?}");
        half.dest.check(1).unwrap();
    }
}

#[test]
fn a_paused_job_keeps_what_it_had() {
    if !need::fault_disk() {
        return;
    }
    let mut half = Half::new(&[], true);
    half.daemon.restart();
    let daemon = &half.daemon;
    assert_eq!(daemon.status(1).state(), "paused");
    // by its own name and by another one
    let alias = half.dest.alias(0);
    for to in [half.dest.path(), alias.path()] {
        let spec = format!("from={} to={}", half.sources[1].path().display(), to.display());
        let refused = daemon.refused(&spec);
        assert!(refused.errno == libc::EBUSY && refused.reason.contains("job 1"), "{refused:?}");
        // nor is its source written
        let spec = format!("from={} to={}", to.display(), half.sources[0].path().display());
        let refused = daemon.refused(&spec);
        assert!(refused.errno == libc::EBUSY && refused.reason.contains("job 1"), "{refused:?}");
    }
    drop(alias);
    let second = daemon.job(&half.spec("queue")).unwrap();
    until_reason(daemon, second, "job 1");
    daemon.write("jobs/1/speed_max", "max\n").unwrap();
    daemon.control(1, "resume").unwrap();
    assert_eq!((daemon.wait(1).state(), daemon.wait(second).state()), ("done", "done"));
    half.dest.check(2).unwrap();
}

#[test]
fn a_paused_job_whose_device_is_busy_is_not_overtaken() {
    if !need::fault_disk() {
        return;
    }
    let mut half = Half::new(&[], true);
    let busy = hold(half.dest.path());
    half.daemon.restart();
    drop(busy);
    let daemon = &half.daemon;
    let refused = daemon.refused(&half.spec(""));
    assert!(refused.errno == libc::EBUSY && refused.reason.contains("job 1"), "{refused:?}");
    daemon.control(1, "cancel").unwrap();
    let id = daemon.job(&half.spec("")).unwrap();
    assert_eq!(daemon.wait(id).state(), "done");
    half.dest.check(2).unwrap();
}
