//! A job's figures: what every destination has, what could not be read, what went wrong. Pure.
//!
//! # Invariants
//! * What a destination has only grows, but for ranges that were found different and for [`Progress::begin_anew`].
//! * `durable` of a destination is part of what it has taken.
//! * A destination that failed counts nothing any more, unless the job goes on after errors.

use std::borrow::Cow;
use std::ops::Range;

use super::bad::{self, BadKind, BadRange};
use super::dest::{Dest, DestMark, DestState};
use super::ranges::RangeSet;
use super::wrong::{Verb, displaced as displaced_text, sentence};
use crate::dm_io::ErrorBits;
use crate::error::errno_name;
use crate::sector::{SECTOR_SIZE, Sector};
use crate::spec::{Action, RegionSpec, Spec};

/// The figures of a job. Ranges count sectors from the job's beginning.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Sectors of the job.
    pub(crate) total: u64,
    pub(crate) dests: Box<[Dest]>,
    /// What every live destination has taken.
    common: RangeSet,
    /// What of that survives a power cut.
    pub(crate) durable: u64,
    /// What could not be read, and was given up.
    pub(crate) unreadable: RangeSet,
    /// Bytes of pieces that could not be read, and for which the job ended.
    stopped_bytes: u64,
    pub(crate) read_err: bool,
    pub(crate) write_err: ErrorBits,
    /// Destinations that an administrator gave up: none of them failed for that.
    pub(crate) dropped: ErrorBits,
    /// Destinations that do not keep up with the others: they are caught up later.
    behind: ErrorBits,
    /// Destinations that have been compared to the end, before those that were behind.
    compared_before: ErrorBits,
    /// Destinations that failed only when they were read back.
    differ: ErrorBits,
    /// Ascending, by side; see [`bad`] for its bound.
    pub(crate) bad: Vec<BadRange>,
    /// Ranges that found no room in `bad`.
    pub(crate) unlisted: u64,
    /// The first thing that went wrong, in a line that names path, sector and errno.
    pub(crate) error: Option<String>,
    /// Where `error` was found, if by comparing: one that lies before it takes its place.
    compared_at: Option<u64>,
    /// Reads that failed so far, also those that succeeded when they were tried again.
    pub(crate) read_errors: u64,
    /// Bytes of pieces that failed and have not been looked at again.
    pub(crate) suspect_bytes: u64,
    /// Bytes that were compared, whatever was found.
    pub(crate) verified: u64,
    /// What `changed` found equal on every destination that took part.
    same: RangeSet,
    /// Bytes that some destination has taken, each as often as it was written; tells how fast the job is.
    pub(crate) moved: u64,
    /// It tests its destinations.
    tests: bool,
    /// Go on writing to a destination that failed.
    keeps_failed: bool,
}

impl Progress {
    pub(crate) fn new(spec: &Spec, count: Sector) -> Self {
        Self {
            total: count.get(),
            dests: vec![Dest::default(); spec.to.len()].into_boxed_slice(),
            common: RangeSet::new(),
            durable: 0,
            unreadable: RangeSet::new(),
            stopped_bytes: 0,
            read_err: false,
            write_err: ErrorBits::NONE,
            dropped: ErrorBits::NONE,
            behind: ErrorBits::NONE,
            compared_before: ErrorBits::NONE,
            differ: ErrorBits::NONE,
            bad: Vec::new(),
            unlisted: 0,
            error: None,
            compared_at: None,
            read_errors: 0,
            suspect_bytes: 0,
            verified: 0,
            same: RangeSet::new(),
            moved: 0,
            tests: spec.action == Action::Test,
            keeps_failed: (spec.ignore_error || spec.action == Action::Test) && !spec.write_seq,
        }
    }

    /// Bytes that every live destination has taken.
    pub(crate) fn copied(&self) -> u64 {
        self.common.bytes()
    }

    /// What every live destination has taken.
    pub(crate) fn common(&self) -> &RangeSet {
        &self.common
    }

    /// Source bytes that could not be read.
    pub(crate) fn bad_bytes(&self) -> u64 {
        self.unreadable.bytes() + self.stopped_bytes
    }

    /// Whether a destination has anything.
    pub(crate) fn has_any(&self) -> bool {
        self.dests.iter().any(|dest| dest.taken.bytes() > 0)
    }

    /// Bytes of the job.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total * SECTOR_SIZE
    }

    /// Whether anybody has a use for what is read: a destination that takes part, or the digest of a source that is compared
    /// with its sums alone.
    pub(crate) fn is_wanted(&self) -> bool {
        self.dests.is_empty() || !self.live().is_empty()
    }

    /// Destinations that take part.
    pub(crate) fn live(&self) -> ErrorBits {
        let all = ErrorBits::first(self.dests.len()).without(self.dropped);
        if self.keeps_failed { all } else { all.without(self.write_err) }
    }

    /// Destinations that take part and keep up with each other.
    pub(crate) fn present(&self) -> ErrorBits {
        self.live().without(self.behind)
    }

    /// Destinations that take part, or were found different, and do not keep up with the others.
    pub(crate) fn behind(&self) -> ErrorBits {
        let all = self.live().union(self.differ).without(self.dropped);
        all.without(all.without(self.behind))
    }

    /// A destination does not keep up with the others.
    pub(crate) fn falls_behind(&mut self, index: usize) {
        self.behind.set(index);
    }

    /// Those who kept up have all; of those who did not, these have their turn. `compared`: also what was compared.
    pub(crate) fn catches_up(&mut self, dests: ErrorBits) {
        self.behind = self.behind.without(dests);
    }

    /// Those who are compared now have been, to the end.
    pub(crate) fn compared_to_the_end(&mut self) {
        self.compared_before = self.compared_before.union(self.compared());
    }

    /// At its beginning a run leaves behind who has far less than another: it fell behind in an earlier one.
    pub(crate) fn leave_far_ones_behind(&mut self) {
        let most = self.live().iter().map(|index| self.dests[index].taken.bytes()).max().unwrap_or(0);
        for index in self.live().iter().filter(|index| self.dests[*index].taken.bytes() + FAR < most) {
            self.behind.set(index);
        }
    }

    /// Destinations that lack something, or that nobody looks after.
    pub(crate) fn given_up(&self) -> ErrorBits {
        self.write_err.union(self.dropped)
    }

    /// An administrator gives a destination up.
    pub(crate) fn drop_dest(&mut self, spec: &Spec, index: usize) {
        self.dropped.set(index);
        let path = spec.to[index].path.to_string_lossy();
        self.error.get_or_insert_with(|| format!("{path} was dropped by hand"));
        self.look_again();
    }

    /// Destinations that are compared: to its end, however different one is.
    pub(crate) fn compared(&self) -> ErrorBits {
        let all = self.live().union(self.differ).without(self.dropped);
        all.without(self.behind).without(self.compared_before)
    }

    /// Those destinations have a range now.
    pub(crate) fn taken(&mut self, range: &Range<u64>, dests: ErrorBits) {
        let live = self.live();
        let dests = live.without(live.without(dests));
        self.moved += if dests.is_empty() { 0 } else { (range.end - range.start) * SECTOR_SIZE };
        if !live.is_empty() && live.without(dests).is_empty() {
            dests.iter().for_each(|index| self.dests[index].taken.insert(range.clone()));
            self.common.insert(range.clone());
        } else {
            self.change(range, |progress| {
                dests.iter().for_each(|index| progress.dests[index].taken.insert(range.clone()));
            });
        }
    }

    /// Those destinations hold zeros for a range that could not be read.
    pub(crate) fn zeroed(&mut self, range: &Range<u64>, dests: ErrorBits) {
        for index in dests.iter() {
            self.dests[index].zeros.get_or_insert_default().written.insert(range.clone());
        }
    }

    /// Those destinations were found to have a range: read from the device itself, so it is durable too.
    pub(crate) fn found_equal(&mut self, range: &Range<u64>, dests: ErrorBits) {
        let bytes = (range.end - range.start) * SECTOR_SIZE;
        self.moved += if dests.is_empty() && !self.dests.is_empty() { 0 } else { bytes };
        if self.dests.is_empty() {
            // Of a source alone it counts what was read.
            self.common.insert(range.clone());
            self.durable = self.common.bytes();
            return;
        }
        self.change(range, |progress| {
            for index in dests.iter() {
                progress.dests[index].taken.insert(range.clone());
                progress.dests[index].durable.insert(range.clone());
            }
        });
    }

    /// Changes what destinations have in a range, and with it what all live ones have. Costs nothing for the rest of the job.
    fn change(&mut self, range: &Range<u64>, change: impl FnOnce(&mut Self)) {
        let durable = |progress: &Self| progress.of_live_in(range, |dest| &dest.durable).map_or(0, |set| set.bytes());
        let before = durable(self);
        change(self);
        self.durable = (self.durable + durable(self)).saturating_sub(before);
        if let Some(common) = self.of_live_in(range, |dest| &dest.taken) {
            self.common.remove(range);
            common.iter().for_each(|part| self.common.insert(part));
        }
    }

    /// What all live destinations have in a range.
    fn of_live_in(&self, range: &Range<u64>, set: impl Fn(&Dest) -> &RangeSet) -> Option<RangeSet> {
        let live = self.live();
        let mut sets = live.iter().map(|index| set(&self.dests[index]).within(range).collect::<RangeSet>());
        let first = sets.next()?;
        Some(sets.fold(first, |all, set| all.intersection(&set)))
    }

    /// What all live destinations have, after they have become others.
    fn look_again(&mut self) {
        // With nobody left the figures stay as they were.
        if let Some(common) = self.of_live(|dest| &dest.taken) {
            self.common = common;
        }
        if let Some(durable) = self.of_live(|dest| &dest.durable) {
            self.durable = durable.bytes();
        }
    }

    fn of_live(&self, set: impl Fn(&Dest) -> &RangeSet) -> Option<RangeSet> {
        let live = self.live();
        let mut sets = live.iter().map(|index| set(&self.dests[index]));
        let first = sets.next()?.clone();
        Some(sets.fold(first, |all, set| all.intersection(set)))
    }

    /// A range could not be read, for good.
    pub(crate) fn unreadable(&mut self, spec: &Spec, range: &Range<u64>, errno: i32) {
        // After a restart a part of it may be known.
        for new in self.unreadable.gaps(range.clone()).iter() {
            self.unreadable.insert(new.clone());
            self.note_unreadable(spec, &new, errno);
        }
    }

    /// Destinations take writes in order only, whatever the spec says: that cancels `ignore_error`.
    pub(crate) fn set_in_order(&mut self) {
        if std::mem::take(&mut self.keeps_failed) {
            self.look_again();
        }
    }

    /// A range could not be read, and the job ends for it. Which blocks of it are bad nobody knows: a map says `?`.
    pub(crate) fn read_failed(&mut self, spec: &Spec, range: &Range<u64>, errno: i32) {
        self.stopped_bytes += (range.end - range.start) * SECTOR_SIZE;
        self.note_unreadable(spec, range, errno);
    }

    fn note_unreadable(&mut self, spec: &Spec, range: &Range<u64>, errno: i32) {
        self.read_err = true;
        if let Some(from) = &spec.from {
            self.note(Verb::Read, from, None, range, errno);
        }
    }

    /// A destination could not be written, and is given up unless the job goes on after errors.
    pub(crate) fn write_failed(&mut self, spec: &Spec, index: usize, range: &Range<u64>, errno: i32) {
        if self.live().contains(index) {
            self.note(Verb::Write, &spec.to[index], Some(index), range, errno);
            self.dests[index].lose(range);
            self.lose(index);
        }
    }

    /// A range of a destination could not be read back.
    pub(crate) fn verify_failed(&mut self, spec: &Spec, index: usize, range: &Range<u64>, errno: i32) {
        self.refuted(spec, index, range, errno, None);
    }

    /// A range of a destination is different from the source; in a test, because data of another sector is there.
    pub(crate) fn differs(&mut self, spec: &Spec, index: usize, range: &Range<u64>, displaced: Option<u64>) {
        self.refuted(spec, index, range, DIFFERENT, displaced);
    }

    /// With no destination left nothing is copied: it has just been refuted.
    fn refuted(&mut self, spec: &Spec, index: usize, range: &Range<u64>, errno: i32, displaced: Option<u64>) {
        if self.dropped.contains(index) {
            return;
        }
        for part in self.not_lost(index, range).iter() {
            self.comparison_failed(spec, index, &part, errno, displaced);
        }
    }

    fn comparison_failed(&mut self, spec: &Spec, index: usize, range: &Range<u64>, errno: i32, displaced: Option<u64>) {
        let different = errno == DIFFERENT;
        let verb = if different { Verb::Verify } else { Verb::ReadBack };
        let region = &spec.to[index];
        if self.note(verb, region, Some(index), range, errno) {
            let place = |sector: u64| Sector::new(region.sector.get().saturating_add(sector)).unwrap_or(Sector::MAX);
            let text = displaced.map(|other| displaced_text(place(range.start), place(other)));
            self.error.as_mut().into_iter().for_each(|error| error.extend(text.as_deref()));
        }
        if different {
            self.dests[index].differs();
        }
        self.forget(index, range);
        if self.live().contains(index) {
            self.differ.set(index);
        }
        self.lose(index);
        if self.live().is_empty() {
            (self.common, self.durable) = (RangeSet::new(), 0);
        }
    }

    fn lose(&mut self, index: usize) {
        let live = self.live();
        self.write_err.set(index);
        if self.live() != live {
            self.look_again();
        }
    }

    /// True if it is what the job tells first.
    fn note(&mut self, verb: Verb, region: &RegionSpec, dest: Option<usize>, range: &Range<u64>, errno: i32) -> bool {
        let sector = Sector::new(region.sector.get() + range.start).unwrap_or(Sector::MAX);
        let count = Sector::new(range.end - range.start).unwrap_or(Sector::ZERO);
        let kind = if verb == Verb::Verify { BadKind::Differs } else { BadKind::Failed };
        let compares = verb.compares();
        if !bad::enter(&mut self.bad, BadRange { dest, kind, sector, count, errno }) {
            self.unlisted += 1;
        }
        if let Some(index) = dest {
            self.dests[index].note(errno, sector, compares);
        }
        // A comparison bisects what it meets in any order: what is told is the first on the disk.
        let is_first = self.error.is_none() || compares && self.compared_at.is_some_and(|first| range.start < first);
        if is_first {
            let zone = dest.and_then(|index| self.dests[index].zone.as_ref());
            self.compared_at = compares.then_some(range.start);
            self.error = Some(sentence(verb, &region.path.to_string_lossy(), (sector, count), errno, zone));
        }
        is_first
    }

    /// Those flushes failed. Returns the destinations that are given up for it.
    pub(crate) fn flush_failed(&mut self, spec: &Spec, failed: &[(usize, i32)]) -> ErrorBits {
        let (before, dropped) = (self.live(), self.dropped);
        for (index, errno) in failed.iter().filter(|(index, _)| !dropped.contains(*index)) {
            let region = &spec.to[*index];
            self.dests[*index].flush_failed(*errno, region.sector);
            let path = region.path.to_string_lossy();
            self.error.get_or_insert_with(|| format!("flush {path}: {}", errno_name(*errno)));
            self.lose(*index);
        }
        before.without(self.live())
    }

    /// What a destination had taken when a flush of it began is durable, and recorded.
    pub(crate) fn dest_made_durable(&mut self, index: usize, flushed: &DestMark) {
        let (durable, zeros) = (self.durable_after(index, flushed), self.zeros_after(index, flushed));
        self.dests[index].durable = durable;
        if let Some(known) = &mut self.dests[index].zeros {
            known.durable = zeros;
        }
        self.look_again();
    }

    /// What is durable on a destination once that is recorded. What it had lost meanwhile is not.
    pub(crate) fn durable_after(&self, index: usize, flushed: &DestMark) -> RangeSet {
        let dest = &self.dests[index];
        // Where another flush has failed since, nobody knows what the device has lost.
        if dest.is_doubtful() {
            return dest.durable.clone();
        }
        dest.durable.union(&flushed.taken.intersection(&dest.taken))
    }

    /// How many bytes are durable on all destinations that take part, where `durable` is what is on each.
    pub(crate) fn durable_on_all(&self, durable: &[RangeSet]) -> u64 {
        let live = self.live();
        let mut sets = live.iter().map(|index| Cow::Borrowed(&durable[index]));
        let Some(first) = sets.next() else { return self.durable };
        sets.fold(first, |all, set| Cow::Owned(all.intersection(&set))).bytes()
    }

    /// Where zeros for what could not be read are durable on a destination once that is recorded.
    pub(crate) fn zeros_after(&self, index: usize, flushed: &DestMark) -> RangeSet {
        self.zeros(index).union(&flushed.zeros)
    }

    /// Where zeros for what could not be read are durable on a destination.
    pub(crate) fn zeros(&self, index: usize) -> RangeSet {
        self.dests[index].zeros.as_ref().map(|zeros| zeros.durable.clone()).unwrap_or_default()
    }

    /// Errors are forgotten, what is durable is kept, and the rest is to be done again. Nobody knows what has become of a
    /// destination that was dropped: it takes part again, from its beginning.
    pub(crate) fn begin_anew(&mut self) {
        for index in std::mem::take(&mut self.dropped).iter() {
            self.dests[index] = Dest::default();
        }
        self.dests.iter_mut().for_each(Dest::again);
        self.unreadable = RangeSet::new();
        self.stopped_bytes = 0;
        self.read_err = false;
        self.write_err = ErrorBits::NONE;
        self.differ = ErrorBits::NONE;
        (self.behind, self.compared_before) = (ErrorBits::NONE, ErrorBits::NONE);
        self.bad.clear();
        self.unlisted = 0;
        (self.error, self.compared_at) = (None, None);
        (self.read_errors, self.suspect_bytes, self.verified) = (0, 0, 0);
        (self.common, self.durable) = (RangeSet::new(), 0);
        self.look_again();
        self.same = self.same.intersection(&self.common);
    }

    /// The source has other sums than were expected of it, or nobody can know.
    pub(crate) fn sums_differ(&mut self, spec: &Spec, why: &str) {
        let path = spec.from.as_ref().map_or("the source".into(), |from| from.path.to_string_lossy());
        let text = format!("{path}: {why}");
        self.error = Some(self.error.take().map_or(text.clone(), |error| format!("{error}; {text}")));
    }

    /// A destination does not have a range any more.
    pub(crate) fn forget(&mut self, index: usize, range: &Range<u64>) {
        self.same.remove(range);
        self.change(range, |progress| {
            progress.dests[index].taken.remove(range);
            progress.dests[index].durable.remove(range);
        });
    }

    /// A destination does not have a range, nor zeros there, whatever it had.
    pub(crate) fn never_written(&mut self, index: usize, range: &Range<u64>) {
        self.forget(index, range);
        if let Some(zeros) = &mut self.dests[index].zeros {
            zeros.written.remove(range);
            zeros.durable.remove(range);
        }
    }

    /// Takes no more memory than it must.
    pub(crate) fn shrink(&mut self) {
        for dest in &mut self.dests {
            dest.taken.shrink();
            dest.durable.shrink();
            if let Some(zeros) = &mut dest.zeros {
                zeros.written.shrink();
                zeros.durable.shrink();
            }
        }
        self.common.shrink();
        self.same.shrink();
        self.unreadable.shrink();
        self.bad.shrink_to_fit();
    }

    /// What was read from a record is put in place.
    pub(crate) fn restored(&mut self, bad_bytes: u64, common: RangeSet, durable: u64) {
        (self.common, self.durable) = (common, durable);
        self.stopped_bytes = bad_bytes.saturating_sub(self.unreadable.bytes());
        self.look_again();
    }

    /// How a destination stands. When the job has ended it has everything that could be read, or something failed on it, or
    /// the job ended before.
    pub(crate) fn dest_state(&self, index: usize, ended: bool) -> DestState {
        let dest = &self.dests[index];
        let failed = self.write_err.contains(index);
        let whole = || dest.durable.union(&self.unreadable).contains(&(0..self.total));
        match (ended, failed) {
            _ if self.dropped.contains(index) => DestState::Dropped,
            (_, true) if dest.is_different() => DestState::Mismatch,
            (false, true) if self.keeps_failed => DestState::Active,
            (_, true) => DestState::Failed,
            (false, false) if self.behind.contains(index) => DestState::Behind,
            (false, false) => DestState::Active,
            (true, false) if whole() => DestState::Done,
            _ => DestState::Dropped,
        }
    }
}

/// Bytes that a destination may have less than another and not be far behind: more than can be in flight.
const FAR: u64 = 128 << 20;

/// The errno that a range has which is different.
pub(crate) const DIFFERENT: i32 = libc::EBADMSG;

mod changed;
mod comparing;
mod testing;

#[cfg(test)]
mod tests;
