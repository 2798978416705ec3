//! Jobs to records and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::{Follows, Job};
use super::names::Names;
use super::state::{Life, PausedBy, Wait};
use super::view::State;
use crate::claims::{Lasting, parse_region, print_region};
use crate::dm_io::ErrorBits;
use crate::figures::{BadKind, Dest, RangeSet, Stopwatch};
use crate::journal::{Record, Side};
use crate::salvage::Phase;
use crate::sector::{SECTOR_SIZE, Sector};
use crate::spec::{self, After};

impl Job {
    /// The job as a record: what is true once this is on disk.
    pub(super) fn to_record(&self, now: Instant) -> Record {
        let progress = &self.progress;
        let sources = usize::from(self.spec().from.is_some());
        let identity =
            |index: usize| self.identities.get(index).and_then(Option::as_deref).unwrap_or_default().to_owned();
        let cards = self.card.show(|shown| shown.cards.clone());
        let card = |index: usize| cards.get(index).map(|card| card.lasting_line()).unwrap_or_default();
        // What a record can say of a job that is alive: it goes on after a restart, or it is paused.
        let state = match self.life() {
            Life::Ending(end, _) | Life::Ended(end) => *end,
            Life::Paused(PausedBy::Administrator) => State::Paused,
            _ => State::Queued,
        };
        let (durable, zeroed): (Vec<_>, Vec<_>) =
            (0..progress.dests.len()).map(|index| self.durable_when_recorded(index)).unzip();
        let dests = (0..progress.dests.len()).map(|index| {
            let (dest, durable, zeroed) = (&progress.dests[index], &durable[index], &zeroed[index]);
            // What is not durable counts for nothing after a restart, unless the job has ended and only its figures remain.
            let taken = if state.is_ended() { &dest.taken } else { durable };
            Side {
                identity: identity(index + sources),
                card: card(index + sources),
                bytes: self.lasting.as_ref().map_or(String::new(), |lasting| print_region(&lasting.dests[index])),
                copied: taken.bytes(),
                taken: pairs(taken),
                durable: pairs(durable),
                zeroed: pairs(zeroed),
                overwritten: self.overwritten.as_ref().map_or(Vec::new(), |sets| pairs(&sets[index])),
                errors: dest.errors(),
                first_error: dest.first_error(),
                failed: progress.write_err.contains(index),
                dropped: progress.dropped.contains(index),
                doubted: dest.is_doubted(),
            }
        });
        let (progressed, elapsed, final_speed) =
            self.card.show(|card| (card.progressed, card.watch.elapsed(now), card.final_speed));
        let (started, ended, speeds) =
            self.card.show(|card| (card.course.started, card.course.ended, card.speeds.clone()));
        let mut record = Record {
            id: self.id(),
            created: self.card.created,
            progressed,
            started,
            ended,
            spec: self.card.line(),
            state,
            error: progress.error.clone(),
            read_err: progress.read_err,
            write_err: progress.write_err.bits(),
            followed: self.follows == Follows::Nobody,
            leader: self.follows.leader(),
            claimed: (self.has_claim() || self.returning) && !state.is_ended(),
            total: progress.total_bytes(),
            common: pairs(progress.common()),
            durable: if state.is_ended() { progress.durable_on_all(&durable) } else { progress.durable },
            bad_bytes: progress.bad_bytes(),
            elapsed,
            final_speed,
            speeds,
            digest: self.digest.clone(),
            read_errors: progress.read_errors,
            verified_bytes: progress.verified,
            same: pairs(progress.same()),
            seed: (self.spec().action == spec::Action::Test).then_some(self.seed),
            verified: self.phase == Phase::Verify && !self.waits_to_copy(),
            source: self.spec().from.as_ref().map(|_| Side {
                identity: identity(0),
                card: card(0),
                bytes: self.lasting.as_ref().map_or(String::new(), |lasting| print_region(&lasting.source)),
                ..Side::default()
            }),
            dests: dests.collect(),
            bad: progress.bad.clone(),
            unreadable: pairs(&progress.unreadable),
        };
        record.bound();
        record
    }

    /// The job of a record, or why there is none.
    pub(super) fn from_record(record: Record, names: &Names) -> Result<Box<Self>, String> {
        let parsed = spec::parse(&record.spec);
        let spec = parsed.map_err(|error| format!("its spec is not understood: {}", error.error))?.spec;
        let count = Sector::new(record.total / SECTOR_SIZE).ok_or("its length is beyond any device")?;
        if record.dests.len() != spec.to.len() {
            return Err("its record does not fit its spec".to_owned());
        }
        if let Some(range) = record.bad.iter().find(|range| range.dest.is_some_and(|dest| dest >= spec.to.len())) {
            return Err(format!("its record tells of destination {}, and it has no such", range.dest.unwrap_or(0)));
        }
        let life = match record.state {
            state if state.is_ended() => Life::Ended(state),
            State::Paused => Life::Paused(PausedBy::Administrator),
            _ => Life::Queued(Wait::Turn),
        };
        let mut job = Box::new(Self::new(record.id, spec, record.created, count, life));
        if job.spec().action == spec::Action::Test {
            job.seed = record.seed.ok_or("its record does not say what its pattern is made from")?;
        }
        job.fill(record, names);
        Ok(job)
    }

    fn fill(&mut self, record: Record, names: &Names) {
        self.recognised = false;
        self.returning = record.claimed && !record.state.is_ended();
        if !record.followed {
            let said = self.spec().after.as_ref().and_then(After::job);
            self.follows = Follows::after(record.leader.or(said));
        }
        // A comparison begins anew, unless there is a digest still to be made of what was copied.
        if record.verified && (self.spec().digests.is_empty() || record.digest.is_some()) {
            self.phase = Phase::Verify;
        }
        self.digest.clone_from(&record.digest);
        self.card.show(|card| {
            card.progressed = record.progressed;
            card.final_speed = record.final_speed;
            card.watch = Stopwatch::at(record.elapsed.max(Duration::ZERO));
            card.speeds.clone_from(&record.speeds);
            (card.course.started, card.course.ended) = (record.started, record.ended);
        });
        let identity = |side: &Side| (!side.identity.is_empty()).then(|| side.identity.as_str().into());
        let sides = || record.source.iter().chain(&record.dests);
        self.identities = sides().map(identity).collect();
        if sides().any(|side| !side.card.is_empty()) {
            let cards: Vec<_> = sides().map(|side| names.card(&side.card)).collect();
            self.show_cards(&cards);
        }
        self.lasting = self.lasting_of(&record);
        // Those that were looked at and have nothing to be recognised by are not surely the same.
        if self.lasting.is_none() && self.identities.iter().all(Option::is_none) {
            self.identities = Vec::new();
        }
        for (index, side) in record.dests.iter().enumerate() {
            for (start, end) in &side.overwritten {
                self.overwrite(std::iter::once(index), &(*start..*end));
            }
        }
        let progress = &mut self.progress;
        for (index, _) in record.dests.iter().enumerate().filter(|(_, side)| side.dropped) {
            progress.dropped.set(index);
        }
        for (dest, side) in progress.dests.iter_mut().zip(record.dests) {
            *dest = Dest::recorded(ranges(&side.taken), ranges(&side.durable), side.errors, side.first_error)
                .with_zeros(ranges(&side.zeroed));
            if side.doubted {
                dest.doubt();
            }
        }
        progress.unreadable = ranges(&record.unreadable);
        progress.read_err = record.read_err;
        progress.write_err = ErrorBits::from_bits(record.write_err);
        progress.bad = record.bad;
        progress.error = record.error;
        for range in &progress.bad {
            if let (Some(dest), BadKind::Differs) = (range.dest, range.kind) {
                progress.dests[dest].differs();
            }
        }
        // A comparison begins anew.
        progress.verified = if record.state.is_ended() { record.verified_bytes } else { 0 };
        progress.read_errors = record.read_errors;
        progress.restore_compared_at(&self.spec);
        progress.restore_lost(&self.spec.to);
        progress.restored(record.bad_bytes, ranges(&record.common), record.durable);
        progress.restore_same(&ranges(&record.same));
    }
}

impl Job {
    /// Its bytes by names that last; `None` where a record does not tell them all.
    fn lasting_of(&self, record: &Record) -> Option<Arc<Lasting>> {
        let region = |side: &Side| parse_region(&side.bytes).filter(|_| !side.bytes.is_empty());
        let source = record.source.as_ref().map_or(Some(Vec::new()), region)?;
        let mut dests = record.dests.iter().map(region).collect::<Option<Vec<_>>>()?;
        dests.shrink_to_fit();
        Some(Arc::new(Lasting { source, dests, writes: self.writes(), sectors: self.progress.total }))
    }
}

fn pairs(set: &RangeSet) -> Vec<(u64, u64)> {
    set.iter().map(|range| (range.start, range.end)).collect()
}

fn ranges(pairs: &[(u64, u64)]) -> RangeSet {
    pairs.iter().map(|(start, end)| *start..*end).collect()
}
