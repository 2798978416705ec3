//! Many jobs to one destination, paused, resumed and killed at random: each ends, and where nobody came after it the
//! destination has what it copied. Never a mixture.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use kcopyfs_support::{Daemon, LoopDevice, Rng, need};

use crate::kit::{daemon, rounds, until};

const SIZE: u64 = 16 << 20;
/// Regions are of so many bytes, or a multiple.
const UNIT: u64 = 512 << 10;
const SOURCES: u64 = 4;
const JOBS: u64 = 6;

/// A job that was made: from which source, and where.
struct Made {
    source: usize,
    from: u64,
    to: u64,
    len: u64,
}

impl Made {
    fn random(rng: &mut Rng) -> Self {
        let (from, to) = (rng.below(SIZE / UNIT - 10) * UNIT, rng.below(SIZE / UNIT - 10) * UNIT);
        let len = rng.within(2..10) * UNIT;
        Self { source: usize::try_from(rng.below(SOURCES)).expect("an index"), from, to, len }
    }

    fn end(&self) -> u64 {
        self.to + self.len
    }

    /// Whether the destination has all of it, but for what `later` jobs have written over.
    fn is_there(&self, dest: &[u8], source: &[u8], later: &[&Made]) -> bool {
        let sector = |bytes: &[u8], place: u64| bytes[usize::try_from(place).expect("an index")..][..512].to_vec();
        (0..self.len).step_by(512).all(|offset| {
            let place = self.to + offset;
            let over = later.iter().any(|other| (other.to..other.end()).contains(&place));
            over || sector(dest, place) == sector(source, self.from + offset)
        })
    }
}

/// Makes jobs, of which some wait for the others. One that does not wait may be refused.
fn make(daemon: &Daemon, rng: &mut Rng, sources: &[LoopDevice], dest: &LoopDevice) -> BTreeMap<u64, Made> {
    let mut jobs = BTreeMap::new();
    for _ in 0..JOBS {
        let made = Made::random(rng);
        let words = rng.pick(&["queue", "queue", "queue", "queue verify", "queue digest=sha256", "queue sparse", ""]);
        let (from, count, to) = (made.from / 512, made.len / 512, made.to / 512);
        let (source, dest) = (sources[made.source].path().display(), dest.path().display());
        let spec = format!("from={source},{from},{count} to={dest},{to} speed_max=3M {words}");
        match daemon.job(&spec) {
            Ok(id) => _ = jobs.insert(id, made),
            Err(error) => assert!(error.raw_os_error() == Some(libc::EBUSY) && words.is_empty(), "{spec}: {error}"),
        }
    }
    jobs
}

#[test]
fn jobs_to_one_destination_are_never_mixed() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(99);
    let seeds: Vec<u64> = (0..SOURCES).map(|number| 50 + number).collect();
    let sources: Vec<_> = seeds
        .iter()
        .map(|seed| {
            let source = LoopDevice::new(SIZE, 512);
            source.fill(*seed);
            source
        })
        .collect();
    let dest = LoopDevice::new(SIZE, 512);
    for round in 0..rounds(2).min(60) {
        let mut daemon = daemon().start();
        let jobs = make(&daemon, &mut rng, &sources, &dest);
        let ids: Vec<u64> = jobs.keys().copied().collect();
        for _ in 0..rng.within(2..6) {
            for _ in 0..rng.within(2..30) {
                // most verbs are refused in most states
                let verb = *rng.pick(&["pause", "resume", "resume"]);
                let _ = daemon.control(*rng.pick(&ids), verb);
                thread::sleep(Duration::from_micros(rng.below(40_000)));
            }
            daemon.kill9();
            daemon.restart();
        }
        for id in &ids {
            let _ = daemon.write(format!("jobs/{id}/speed_max"), "max\n");
            until(&format!("the end of job {id}"), || {
                for id in &ids {
                    let _ = daemon.control(*id, "resume");
                }
                daemon.status(*id).is_ended().then_some(())
            });
        }
        let last = |id: u64| fs::metadata(daemon.path(format!("jobs/{id}"))).and_then(|meta| meta.modified()).unwrap();
        let data = dest.read(0..SIZE);
        for (id, made) in &jobs {
            let status = daemon.status(*id);
            assert_eq!(status.state(), "done", "round {round}, job {id}:\n{status}");
            let later: Vec<_> =
                jobs.iter().filter(|(other, _)| last(**other) > last(*id)).map(|(_, made)| made).collect();
            let source = sources[made.source].read(0..SIZE);
            assert!(made.is_there(&data, &source, &later), "round {round}: job {id} is done, and is not there");
        }
    }
}
