//! kill -9 at random moments of a copy to three destinations.
//!
//! Before each restart the source is stamped anew. A sector that the record has as durable keeps the stamps that it was
//! copied with; every other sector must end with those of the last run. So a write of a killed daemon that lands late, and a
//! sector that is copied although it is durable, are both found at the end.

use std::{fs, ops::Range, path::Path, thread, time::Duration};

use kcopyfs_support::{Daemon, Fault, FaultDisk, LoopDevice, Op, Rng, faultdisk::log::Event, need, stamp};

use crate::kit::{
    assert_nothing_torn, bytes, checkpoint, covers, daemon, durable_map, index, recorded, rounds, scratch, touches,
};

const SIZE: u64 = 4 << 20;
const SECTORS: usize = 8192;
const DESTS: usize = 3;

/// How long a write takes: a copy then lasts about a quarter of a second.
const WRITE: Duration = Duration::from_millis(12);

/// A copy and what every sector of its destinations must hold at the end.
struct Copy {
    id: u64,
    dests: Vec<FaultDisk>,
    expected: [Vec<u64>; DESTS],
}

impl Copy {
    fn start(daemon: &Daemon, source: &LoopDevice, seed: u64) -> Self {
        let dests: Vec<_> = (0..DESTS).map(|_| FaultDisk::builder(SIZE).volatile(true).log(true).start()).collect();
        for dest in &dests {
            dest.rule(Op::Write, .., Fault::Delay(WRITE));
        }
        let to: Vec<_> = dests.iter().map(|dest| format!("to={}", dest.path().display())).collect();
        let id = daemon.job(&format!("from={} {}", source.path().display(), to.join(" "))).unwrap();
        Self { id, dests, expected: [(); DESTS].map(|()| vec![seed; SECTORS]) }
    }

    /// What a map shows as durable is on the medium by then.
    fn look(&self, daemon: &Daemon) -> Vec<Vec<Range<u64>>> {
        let look = |(dest, disk): (usize, &FaultDisk)| {
            let durable = durable_map(daemon, self.id, dest);
            self.assert_holds(dest, disk, &durable);
            durable
        };
        self.dests.iter().enumerate().map(look).collect()
    }

    fn assert_holds(&self, dest: usize, disk: &FaultDisk, durable: &[Range<u64>]) {
        let medium = disk.contents();
        for sector in durable.iter().flat_map(|range| range.start / 512..range.end / 512) {
            let (at, seed) = (index(sector), self.expected[dest][index(sector)]);
            stamp::check(&medium[at * 512..(at + 1) * 512], seed, sector).unwrap_or_else(|mismatch| {
                panic!("destination {dest} is shown to have sector {sector}: {mismatch}");
            });
        }
    }

    /// The daemon was killed: compares the record with what was seen before, and returns what it has.
    fn killed(&mut self, state: &Path, shown: &[Vec<Range<u64>>], next_seed: u64) -> Vec<Vec<Range<u64>>> {
        let durable = recorded(state, self.id, DESTS);
        for (dest, disk) in self.dests.iter().enumerate() {
            assert!(covers(&durable[dest], &shown[dest]), "lost: {:?} of {:?}", durable[dest], shown[dest]);
            self.assert_holds(dest, disk, &durable[dest]);
            disk.mark("killed");
        }
        for (expected, durable) in self.expected.iter_mut().zip(&durable) {
            for (sector, seed) in (0..).zip(expected) {
                if !touches(durable, &(sector * 512..(sector + 1) * 512)) {
                    *seed = next_seed;
                }
            }
        }
        durable
    }

    /// After the last kill nothing was written to what was durable then: it went on and did not begin anew.
    fn assert_went_on(&self, durable: &[Vec<Range<u64>>]) {
        for (disk, durable) in self.dests.iter().zip(durable) {
            let log = disk.logged();
            let since = log.iter().rev().take_while(|entry| entry.event != Event::Mark);
            for write in since.filter(|entry| entry.event == Event::Write) {
                let range = write.offset..write.offset + write.len;
                assert!(!touches(durable, &range), "{range:?} was durable and is written again");
            }
        }
    }

    fn assert_whole(&self) {
        for (dest, disk) in self.dests.iter().enumerate() {
            self.assert_holds(dest, disk, std::slice::from_ref(&(0..SIZE)));
        }
    }
}

#[test]
fn killed_at_random_moments_a_copy_is_whole_at_the_end() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(4);
    let scratch = scratch();
    let state = scratch.path().join("state");
    let source = LoopDevice::new(SIZE, 512);
    let mut seed = 1000;
    source.fill(seed);
    let mut daemon = daemon().option(format!("state={}", state.display())).start();
    let mut copy = Copy::start(&daemon, &source, seed);
    let (mut kills, mut went_on, mut copies) = (0, 0, 0);
    let mut durable = vec![Vec::new(); DESTS];
    while kills < rounds(6) {
        // random moments, before, in and after checkpoints
        thread::sleep(Duration::from_micros(rng.below(120_000)));
        if rng.one_in(2) {
            checkpoint(&daemon, copy.id);
        }
        let shown = copy.look(&daemon);
        if rng.one_in(2) {
            // in the middle of a checkpoint
            let _ = daemon.control(copy.id, "pause");
            thread::sleep(Duration::from_micros(rng.below(30_000)));
        }
        daemon.kill9();
        kills += 1;
        copy.assert_went_on(&durable);
        durable = copy.killed(&state, &shown, seed + 1);
        seed += 1;
        source.fill(seed);
        daemon.restart();
        went_on += u64::from(durable.iter().any(|durable| bytes(durable) > 0));
        let status = daemon.status(copy.id);
        let least = durable.iter().map(|durable| bytes(durable)).min().unwrap();
        assert!(status.durable() >= least.min(status.total()), "{least} bytes were durable:\n{status}");
        // the pause may have been recorded or not
        let _ = daemon.control(copy.id, "resume");
        if rng.one_in(3) || status.is_ended() {
            let status = daemon.wait(copy.id);
            assert_eq!((status.state(), status.copied(), status.durable()), ("done", SIZE, SIZE), "\n{status}");
            copy.assert_went_on(&durable);
            copy.assert_whole();
            copies += 1;
            let ended = copy.id;
            if rng.one_in(2) {
                fs::remove_dir(daemon.path(format!("jobs/{ended}"))).unwrap();
            }
            seed += 1;
            source.fill(seed);
            copy = Copy::start(&daemon, &source, seed);
            assert!(copy.id > ended, "number {} was {ended}'s", copy.id);
            durable = vec![Vec::new(); DESTS];
        }
    }
    let status = daemon.wait(copy.id);
    assert_eq!((status.state(), status.durable()), ("done", SIZE), "\n{status}");
    copy.assert_went_on(&durable);
    copy.assert_whole();
    assert_nothing_torn(&daemon);
    eprintln!("{kills} kills, {went_on} of them after a checkpoint; {} copies", copies + 1);
}

#[test]
fn numbers_of_dismissed_jobs_are_not_given_again_after_a_kill() {
    if !need::fault_disk() {
        return;
    }
    let mut daemon = daemon().start();
    let dest = LoopDevice::new(1 << 20, 512);
    let mut highest = 0;
    for _ in 0..rounds(3) {
        let ids: Vec<_> =
            (0..3).map(|_| daemon.job(&format!("zero to={},0,8 queue", dest.path().display())).unwrap()).collect();
        assert!(ids[0] > highest && ids.is_sorted(), "{ids:?} after {highest}");
        highest = ids[2];
        for id in ids {
            daemon.wait(id);
            fs::remove_dir(daemon.path(format!("jobs/{id}"))).unwrap();
        }
        daemon.kill9();
        daemon.restart();
    }
}
