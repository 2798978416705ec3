//! Jobs to records and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::{Job, Life};
use super::run::Shared;
use super::scribe::Entry;
use super::view::State;
use crate::dm_io::ErrorBits;
use crate::figures::{Dest, RangeSet};
use crate::journal::{Record, Side};
use crate::salvage::{Geometry, Phase};
use crate::sector::{SECTOR_SIZE, Sector};
use crate::spec;

impl Job {
    /// The job as a record, with what `entry` adds.
    pub(super) fn record(&self, entry: &Entry) -> Record {
        let life = self.lock();
        let progress = &life.progress;
        let sources = usize::from(self.spec.from.is_some());
        let identity = |index: usize| life.identities.get(index).cloned().flatten().unwrap_or_default();
        // What a record can say of a job that is alive: it goes on after a restart, or it is paused.
        let paused = life.state == State::Paused && !life.held_up;
        let alive = if paused { State::Paused } else { State::Queued };
        let state = entry.end.unwrap_or(if life.state.is_ended() { life.state } else { alive });
        let dests = (0..progress.dests.len()).map(|index| {
            let dest = &progress.dests[index];
            let durable = match &entry.durable {
                Some((mark, dests)) => progress.durable_with(mark, *dests, index),
                None => dest.durable.clone(),
            };
            // What is not durable counts for nothing after a restart, unless the job has ended and only its figures remain.
            let taken = if state.is_ended() { &dest.taken } else { &durable };
            Side {
                identity: identity(index + sources),
                copied: taken.bytes(),
                taken: pairs(taken),
                durable: pairs(&durable),
                errors: dest.errors(),
                first_error: dest.first_error(),
                failed: progress.write_err.contains(index),
                zeroed: pairs(&match &entry.durable {
                    Some((mark, dests)) => progress.zeros_with(mark, *dests, index),
                    None => progress.zeros(index),
                }),
            }
        });
        Record {
            id: self.id,
            created: self.created,
            progressed: life.progressed,
            spec: self.line(),
            state,
            error: progress.error.clone(),
            read_err: progress.read_err,
            write_err: progress.write_err.bits(),
            followed: life.released,
            claimed: life.claimed,
            total: progress.total_bytes(),
            common: pairs(progress.common()),
            durable: progress.durable,
            bad_bytes: progress.bad_bytes(),
            read_errors: progress.read_errors,
            verified_bytes: progress.verified,
            elapsed: life.watch.elapsed(Instant::now()),
            final_speed: life.final_speed,
            digest: life.digest.clone(),
            verified: life.phase == Phase::Verify,
            source: self.spec.from.as_ref().map(|_| Side { identity: identity(0), ..Side::default() }),
            dests: dests.collect(),
            bad: progress.bad.clone(),
            unreadable: pairs(&progress.unreadable),
        }
    }
}

fn pairs(set: &RangeSet) -> Vec<(u64, u64)> {
    set.iter().map(|range| (range.start, range.end)).collect()
}

fn ranges(pairs: &[(u64, u64)]) -> RangeSet {
    pairs.iter().map(|(start, end)| *start..*end).collect()
}

impl Shared {
    /// Takes the jobs of an earlier daemon in, and lets those go on that were alive.
    pub(super) fn restore(self: &Arc<Self>, records: Vec<Record>) {
        let jobs: Vec<(Arc<Job>, State)> = records.into_iter().filter_map(job).collect();
        let mut registry = self.registry.lock();
        for (job, state) in &jobs {
            registry.add(std::slice::from_ref(job));
            if state.is_ended() {
                for id in registry.end(job.id, *state).forgotten {
                    self.scribe.forget(id);
                }
            }
        }
        drop(registry);
        let mut begun = Vec::new();
        for (job, _) in jobs.iter().filter(|(_, state)| !state.is_ended()) {
            self.clients.ensure(job.client_name());
            if self.returning.expect(job) {
                begun.push(Arc::clone(job));
            }
            self.admit(job);
        }
        self.bring_back(begun);
        self.run_next();
    }
}

fn job(record: Record) -> Option<(Arc<Job>, State)> {
    let id = record.id;
    let spec = match spec::parse(&record.spec) {
        Ok(parsed) => parsed.spec,
        Err(error) => {
            log::warn!("job {id} is left out: its spec is not understood: {}", error.error);
            return None;
        }
    };
    let count = Sector::new(record.total / SECTOR_SIZE)?;
    if record.dests.len() != spec.to.len() {
        log::warn!("job {id} is left out: its record does not fit its spec");
        return None;
    }
    let state = record.state;
    let job = Job::new(id, spec, count, Geometry::default()).made_at(record.created);
    fill(&mut job.lock(), &job.spec, record);
    Some((Arc::new(job), state))
}

fn fill(life: &mut Life, spec: &spec::Spec, record: Record) {
    life.state = match record.state {
        state if state.is_ended() || state == State::Paused => state,
        _ => State::Queued,
    };
    life.restored = true;
    life.claimed = record.claimed && !record.state.is_ended();
    life.progressed = record.progressed;
    life.released |= record.followed;
    // A comparison begins anew, unless there is a digest still to be made of what was copied.
    if record.verified && (spec.digest.is_none() || record.digest.is_some()) {
        life.phase = Phase::Verify;
        life.hashing = None;
    }
    life.final_speed = record.final_speed;
    life.digest = record.digest;
    life.watch = crate::figures::Stopwatch::at(record.elapsed.max(Duration::ZERO));
    let identity = |side: &Side| (!side.identity.is_empty()).then(|| side.identity.clone());
    life.identities = record.source.iter().chain(&record.dests).map(identity).collect();
    let progress = &mut life.progress;
    for (dest, side) in progress.dests.iter_mut().zip(record.dests) {
        *dest = Dest::recorded(ranges(&side.taken), ranges(&side.durable), side.errors, side.first_error)
            .with_zeros(ranges(&side.zeroed));
    }
    progress.unreadable = ranges(&record.unreadable);
    progress.read_err = record.read_err;
    progress.write_err = ErrorBits::from_bits(record.write_err);
    progress.bad = record.bad;
    progress.error = record.error;
    for range in &progress.bad {
        if let (Some(dest), crate::figures::BadKind::Differs) = (range.dest, range.kind)
            && let Some(dest) = progress.dests.get_mut(dest)
        {
            dest.differs();
        }
    }
    (progress.read_errors, progress.verified) = (record.read_errors, record.verified_bytes);
    progress.restored(record.bad_bytes, ranges(&record.common), record.durable);
}
