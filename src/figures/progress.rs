//! A job's figures: what every destination has, what could not be read, what went wrong. Pure.
//!
//! # Invariants
//! * What a destination has only grows, but for ranges that were found different and for [`Progress::begin_anew`].
//! * `durable` of a destination is part of what it has taken.
//! * A destination that failed counts nothing any more, unless the job goes on after errors.

use std::ops::Range;

use super::ranges::RangeSet;
use crate::blkdev::{CUT, DELETED, GONE};
use crate::dm_io::ErrorBits;
use crate::error::errno_name;
use crate::sector::{SECTOR_SIZE, Sector};
use crate::spec::{RegionSpec, Spec};

/// Where a destination is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestState {
    /// Takes part.
    Active,
    /// Has everything, flushed.
    Done,
    /// Was given up, or lacks pieces.
    Failed,
    /// Read back differently.
    Mismatch,
}

impl DestState {
    /// The word for it in `dests`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Mismatch => "mismatch",
        }
    }
}

/// A range that could not be read, or not be written to one destination. Sectors of the device it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRange {
    /// `None` for the source, else the destination's number.
    pub dest: Option<usize>,
    /// First bad sector on that device.
    pub sector: Sector,
    /// How many.
    pub count: Sector,
    /// Why.
    pub errno: i32,
}

/// One destination's figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dest {
    pub(crate) taken: RangeSet,
    pub(crate) durable: RangeSet,
    /// `None` while nothing has gone wrong with it, as with most.
    trouble: Option<Box<Trouble>>,
}

/// What has gone wrong with a destination.
#[derive(Clone, Debug, Default)]
struct Trouble {
    /// What it could not take, while the job goes on writing to it.
    lost: RangeSet,
    errors: u64,
    first_error: Option<(i32, Sector)>,
    mismatch: bool,
    /// A flush failed. What the device lost by that nobody knows, and a later flush does not tell.
    flush_failed: bool,
}

static NOTHING: RangeSet = RangeSet::new();

impl Dest {
    /// What is kept of one in a record.
    pub(crate) fn recorded(
        taken: RangeSet,
        durable: RangeSet,
        errors: u64,
        first_error: Option<(i32, Sector)>,
    ) -> Self {
        let trouble = (errors > 0).then(|| Box::new(Trouble { errors, first_error, ..Trouble::default() }));
        Self { taken, durable, trouble }
    }

    /// What it could not take, while the job goes on writing to it.
    pub(crate) fn lost(&self) -> &RangeSet {
        self.trouble.as_ref().map_or(&NOTHING, |trouble| &trouble.lost)
    }

    /// Its errors.
    pub(crate) fn errors(&self) -> u64 {
        self.trouble.as_ref().map_or(0, |trouble| trouble.errors)
    }

    /// The first of them, and where.
    pub(crate) fn first_error(&self) -> Option<(i32, Sector)> {
        self.trouble.as_ref()?.first_error
    }

    /// It was found different.
    pub(crate) fn differs(&mut self) {
        self.trouble().mismatch = true;
    }

    fn is_different(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.mismatch)
    }

    /// What was written to it and is not durable may be lost.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.flush_failed)
    }

    fn note(&mut self, errno: i32, sector: Sector) {
        let trouble = self.trouble();
        trouble.errors += 1;
        trouble.first_error.get_or_insert((errno, sector));
    }

    fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }
}

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
    /// Destinations that failed only when they were read back.
    differ: ErrorBits,
    pub(crate) bad: Vec<BadRange>,
    /// The first thing that went wrong, in a line that names path, sector and errno.
    pub(crate) error: Option<String>,
    /// Go on writing to a destination that failed.
    keeps_failed: bool,
}

/// What was taken when a flush began.
#[derive(Clone, Debug)]
pub(crate) struct Mark(Box<[RangeSet]>);

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
            differ: ErrorBits::NONE,
            bad: Vec::new(),
            error: None,
            keeps_failed: spec.ignore_error && !spec.write_seq,
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

    /// Bytes of the job.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.total * SECTOR_SIZE
    }

    /// Whether a live destination has more than what is durable.
    pub(crate) fn is_behind(&self) -> bool {
        self.live().iter().any(|index| self.dests[index].taken != self.dests[index].durable)
    }

    /// Destinations that take part.
    pub(crate) fn live(&self) -> ErrorBits {
        let all = ErrorBits::first(self.dests.len());
        if self.keeps_failed { all } else { all.without(self.write_err) }
    }

    /// Destinations that are compared: to its end, however different one is.
    pub(crate) fn compared(&self) -> ErrorBits {
        self.live().union(self.differ)
    }

    /// Those destinations have a range now.
    pub(crate) fn taken(&mut self, range: &Range<u64>, dests: ErrorBits) {
        let live = self.live();
        for index in dests.iter().filter(|index| live.contains(*index)) {
            self.dests[index].taken.insert(range.clone());
        }
        if !live.is_empty() && live.without(dests).is_empty() {
            self.common.insert(range.clone());
        } else {
            self.look_again();
        }
    }

    /// Those destinations were found to have a range: read from the device itself, so it is durable too.
    pub(crate) fn found_equal(&mut self, range: &Range<u64>, dests: ErrorBits) {
        for index in dests.iter() {
            self.dests[index].taken.insert(range.clone());
            self.dests[index].durable.insert(range.clone());
        }
        self.look_again();
    }

    /// What all live destinations have, after anything but the plain case.
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
        self.unreadable.insert(range.clone());
        self.note_unreadable(spec, range, errno);
    }

    /// A range could not be read, and the job ends for it. Which blocks of it are bad nobody knows: a map says `?`.
    pub(crate) fn read_failed(&mut self, spec: &Spec, range: &Range<u64>, errno: i32) {
        self.stopped_bytes += (range.end - range.start) * SECTOR_SIZE;
        self.note_unreadable(spec, range, errno);
    }

    fn note_unreadable(&mut self, spec: &Spec, range: &Range<u64>, errno: i32) {
        self.read_err = true;
        if let Some(from) = &spec.from {
            self.note("read", from, None, range, errno);
        }
    }

    /// A destination could not be written, and is given up unless the job goes on after errors.
    pub(crate) fn write_failed(&mut self, spec: &Spec, index: usize, range: &Range<u64>, errno: i32) {
        if self.live().contains(index) {
            self.note("write", &spec.to[index], Some(index), range, errno);
            self.dests[index].trouble().lost.insert(range.clone());
            self.lose(index);
        }
    }

    /// A range of a destination is different from the source, or could not be read back.
    pub(crate) fn verify_failed(&mut self, spec: &Spec, index: usize, range: &Range<u64>, errno: i32) {
        let different = errno == DIFFERENT;
        let verb = if different { "verify" } else { "read back" };
        self.note(verb, &spec.to[index], Some(index), range, errno);
        if different {
            self.dests[index].differs();
        }
        self.forget(index, range);
        if self.live().contains(index) {
            self.differ.set(index);
        }
        self.write_err.set(index);
        self.look_again();
    }

    fn lose(&mut self, index: usize) {
        self.write_err.set(index);
        self.look_again();
    }

    fn note(&mut self, verb: &str, region: &RegionSpec, dest: Option<usize>, range: &Range<u64>, errno: i32) {
        let sector = Sector::new(region.sector.get() + range.start).unwrap_or(Sector::MAX);
        let count = Sector::new(range.end - range.start).unwrap_or(Sector::ZERO);
        self.add_bad(BadRange { dest, sector, count, errno });
        if let Some(index) = dest {
            self.dests[index].note(errno, sector);
        }
        let path = region.path.to_string_lossy();
        self.error.get_or_insert_with(|| match errno {
            DIFFERENT => format!("{verb} {path}: different in {}", span(sector, count)),
            DELETED => format!("{verb} {path}: ENOENT, the file was deleted meanwhile"),
            CUT => format!("{verb} {path}: ENXIO, it was cut shorter meanwhile; seen in {}", span(sector, count)),
            GONE => format!("{verb} {path}: ENODEV, the device is gone; seen in {}", span(sector, count)),
            errno => format!("{verb} {path}: {} in {}", errno_name(errno), span(sector, count)),
        });
    }

    /// Enters a range, as part of its neighbours where they are alike.
    fn add_bad(&mut self, mut new: BadRange) {
        let end = |range: &BadRange| range.sector.checked_add(range.count);
        let alike = |a: &BadRange, b: &BadRange| a.dest == b.dest && a.errno == b.errno && end(a) == Some(b.sector);
        let longer = |a: Sector, b: Sector| a.checked_add(b).unwrap_or(a);
        let place = self.bad.partition_point(|old| (old.dest, old.sector) < (new.dest, new.sector));
        if self.bad.get(place).is_some_and(|next| alike(&new, next)) {
            new.count = longer(new.count, self.bad.remove(place).count);
        }
        match place.checked_sub(1).and_then(|before| self.bad.get_mut(before)) {
            Some(before) if alike(before, &new) => before.count = longer(before.count, new.count),
            _ => self.bad.insert(place, new),
        }
    }

    /// A flush begins: what it will cover.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.dests.iter().map(|dest| dest.taken.clone()).collect())
    }

    /// Those flushes failed. Returns the destinations that are given up for it.
    pub(crate) fn flush_failed(&mut self, spec: &Spec, failed: &[(usize, i32)]) -> ErrorBits {
        let before = self.live();
        for (index, errno) in failed {
            let region = &spec.to[*index];
            let dest = &mut self.dests[*index];
            dest.trouble().flush_failed = true;
            dest.note(*errno, region.sector);
            let path = region.path.to_string_lossy();
            self.error.get_or_insert_with(|| format!("flush {path}: {}", errno_name(*errno)));
            self.lose(*index);
        }
        before.without(self.live())
    }

    /// What was taken at the mark is durable on those destinations, and recorded.
    pub(crate) fn made_durable(&mut self, mark: &Mark, dests: ErrorBits) {
        for index in dests.iter() {
            self.dests[index].durable = self.durable_with(mark, dests, index);
        }
        self.look_again();
    }

    /// What a destination had taken when a flush of it began is durable, and recorded.
    pub(crate) fn dest_made_durable(&mut self, index: usize, flushed: &RangeSet) {
        self.dests[index].durable = self.durable_after(index, flushed);
        self.look_again();
    }

    /// What is durable on a destination once that is recorded. What it had lost meanwhile is not.
    pub(crate) fn durable_after(&self, index: usize, flushed: &RangeSet) -> RangeSet {
        let dest = &self.dests[index];
        dest.durable.union(&flushed.intersection(&dest.taken))
    }

    /// What would be durable on a destination, were the mark recorded now.
    pub(crate) fn durable_with(&self, mark: &Mark, dests: ErrorBits, index: usize) -> RangeSet {
        let dest = &self.dests[index];
        // Two flushes may be under way at once: where one failed, that the other did not says nothing.
        let more = if dests.contains(index) && !dest.is_doubtful() {
            mark.0[index].intersection(&dest.taken)
        } else {
            RangeSet::new()
        };
        dest.durable.union(&more)
    }

    /// Errors are forgotten, what is durable is kept, and the rest is to be done again.
    pub(crate) fn begin_anew(&mut self) {
        for dest in &mut self.dests {
            *dest = Dest { taken: dest.durable.clone(), durable: std::mem::take(&mut dest.durable), ..Dest::default() };
        }
        self.unreadable = RangeSet::new();
        self.stopped_bytes = 0;
        self.read_err = false;
        self.write_err = ErrorBits::NONE;
        self.differ = ErrorBits::NONE;
        self.bad.clear();
        self.error = None;
        self.look_again();
    }

    /// Whether a destination has anything.
    pub(crate) fn has_any(&self) -> bool {
        self.dests.iter().any(|dest| dest.taken.bytes() > 0)
    }

    /// A destination does not have a range any more.
    pub(crate) fn forget(&mut self, index: usize, range: &Range<u64>) {
        let gone: RangeSet = [range.clone()].into_iter().collect();
        let dest = &mut self.dests[index];
        dest.taken = dest.taken.without(&gone);
        dest.durable = dest.durable.without(&gone);
        self.look_again();
    }

    /// Takes no more memory than it must.
    pub(crate) fn shrink(&mut self) {
        for dest in &mut self.dests {
            dest.taken.shrink();
            dest.durable.shrink();
        }
        self.common.shrink();
        self.unreadable.shrink();
        self.bad.shrink_to_fit();
    }

    /// What was read from a record is put in place.
    pub(crate) fn restored(&mut self, bad_bytes: u64, common: RangeSet, durable: u64) {
        (self.common, self.durable) = (common, durable);
        self.stopped_bytes = bad_bytes.saturating_sub(self.unreadable.bytes());
        self.look_again();
    }

    /// How a destination stands: when the job has ended, it has everything that could be read, or it failed.
    pub(crate) fn dest_state(&self, index: usize, ended: bool) -> DestState {
        let dest = &self.dests[index];
        let failed = self.write_err.contains(index);
        let whole = dest.durable.union(&self.unreadable).contains(&(0..self.total));
        match (ended, failed) {
            (_, true) if dest.is_different() => DestState::Mismatch,
            (false, true) if self.keeps_failed => DestState::Active,
            (false, false) => DestState::Active,
            (true, false) if whole => DestState::Done,
            _ => DestState::Failed,
        }
    }
}

fn span(sector: Sector, count: Sector) -> String {
    if count.get() == 1 { format!("sector {sector}") } else { format!("the {count} sectors from {sector}") }
}

/// The errno by which `errors` says that a range is different.
pub(crate) const DIFFERENT: i32 = libc::EBADMSG;

mod comparing;

#[cfg(test)]
mod tests;
