//! What is known of one destination: what it has, what it lost, what went wrong with it. Pure.

use std::ops::Range;

use super::ranges::RangeSet;
use crate::sector::Sector;

/// Where a destination is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestState {
    /// Takes part.
    Active,
    /// Takes part, and has answered nothing for a while.
    Stalled,
    /// Does not keep up with the others, and is caught up later.
    Behind,
    /// Has everything, flushed.
    Done,
    /// Was given up, or lacks pieces.
    Failed,
    /// Read back differently.
    Mismatch,
    /// Nothing has failed on it, but the job ended, or was told to give it up, before it had everything.
    Dropped,
}

impl DestState {
    /// The word for it in `dests`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Stalled => "stalled",
            Self::Behind => "behind",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Mismatch => "mismatch",
            Self::Dropped => "dropped",
        }
    }
}

/// One destination's figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dest {
    pub(crate) taken: RangeSet,
    pub(crate) durable: RangeSet,
    /// Where it was given zeros for what could not be read; `None` where there is no such place, as with most.
    pub(super) zeros: Option<Box<Zeros>>,
    /// `None` while nothing has gone wrong with it, as with most.
    trouble: Option<Box<Trouble>>,
    /// A flush of it has failed once, also before a retry.
    doubted: bool,
    /// Of a zoned device, one of its zones, in sectors of the device.
    pub(crate) zone: Option<Range<u64>>,
}

/// Where a destination holds zeros for what could not be read: nobody writes them a second time. Other than its figures this
/// outlives a retry, so that what was saved there meanwhile by other means stays.
#[derive(Clone, Debug, Default)]
pub(super) struct Zeros {
    pub(super) written: RangeSet,
    pub(super) durable: RangeSet,
}

/// What has gone wrong with a destination.
#[derive(Clone, Debug, Default)]
struct Trouble {
    /// What it could not take, while the job goes on writing to it.
    lost: RangeSet,
    errors: u64,
    first_error: Option<(i32, Sector)>,
    /// The first error was found by comparing: one that lies before it takes its place.
    was_compared: bool,
    mismatch: bool,
    /// A flush failed. What the device lost by that nobody knows, and a later flush does not tell.
    flush_failed: bool,
}

static NOTHING: RangeSet = RangeSet::new();

impl Dest {
    /// What is kept of one in a record. What was not durable when that was written may have been lost since.
    pub(crate) fn recorded(
        taken: RangeSet,
        durable: RangeSet,
        errors: u64,
        first_error: Option<(i32, Sector)>,
    ) -> Self {
        let flush_failed = taken != durable;
        let trouble = (errors > 0 || flush_failed)
            .then(|| Box::new(Trouble { errors, first_error, flush_failed, ..Trouble::default() }));
        Self { taken, durable, trouble, ..Self::default() }
    }

    /// The same, with zeros that a record says it has.
    pub(crate) fn with_zeros(mut self, durable: RangeSet) -> Self {
        if !durable.is_empty() {
            self.zeros = Some(Box::new(Zeros { written: durable.clone(), durable }));
        }
        self
    }

    /// Where it was given zeros for what could not be read.
    pub(crate) fn zeroed(&self) -> &RangeSet {
        self.zeros.as_ref().map_or(&NOTHING, |zeros| &zeros.written)
    }

    /// What is durable of it and of its zeros is kept, its errors are forgotten.
    pub(super) fn again(&mut self) {
        let (durable, zeros) = (std::mem::take(&mut self.durable), self.zeros.take());
        let zeros = zeros.map(|zeros| zeros.durable).unwrap_or_default();
        let (zone, doubted) = (self.zone.take(), self.doubted);
        *self = Self { taken: durable.clone(), durable, zone, doubted, ..Self::default() }.with_zeros(zeros);
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

    pub(super) fn is_different(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.mismatch)
    }

    /// It took all that was written to it, and flushed it.
    pub(super) fn is_plain(&self) -> bool {
        self.trouble.as_ref().is_none_or(|trouble| trouble.lost.bytes() == 0 && !trouble.flush_failed)
    }

    /// What a flush that begins now will cover.
    pub(crate) fn mark(&self) -> DestMark {
        DestMark { taken: self.taken.clone(), zeros: self.zeroed().clone() }
    }

    /// Whether it has got anything, data or zeros, that is not durable.
    pub(crate) fn needs_flush(&self) -> bool {
        let lacks = |zeros: &Zeros| zeros.written.bytes() != zeros.durable.bytes();
        self.taken.bytes() != self.durable.bytes() || self.zeros.as_deref().is_some_and(lacks)
    }

    /// What was written to it and is not durable may be lost.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| trouble.flush_failed)
    }

    /// A flush of it has failed once: what it gives back may be of a cache that lost it.
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubted
    }

    /// That is so.
    pub(crate) fn doubt(&mut self) {
        self.doubted = true;
    }

    /// A flush of it failed.
    pub(super) fn flush_failed(&mut self, errno: i32, sector: Sector) {
        self.trouble().flush_failed = true;
        self.doubt();
        self.note(errno, sector, false);
    }

    /// It could not take that.
    pub(super) fn lose(&mut self, range: &Range<u64>) {
        self.trouble().lost.insert(range.clone());
    }

    pub(super) fn note(&mut self, errno: i32, sector: Sector, was_compared: bool) {
        let trouble = self.trouble();
        trouble.errors += 1;
        let is_first = match trouble.first_error {
            Some((_, first)) => trouble.was_compared && was_compared && sector < first,
            None => true,
        };
        if is_first {
            (trouble.first_error, trouble.was_compared) = (Some((errno, sector)), was_compared);
        }
    }

    fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_default()
    }
}

/// What a destination had taken, and where it was given zeros, when a flush of it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DestMark {
    pub(super) taken: RangeSet,
    pub(super) zeros: RangeSet,
}

impl DestMark {
    /// What one flush or another covers.
    pub(crate) fn union(&self, other: &Self) -> Self {
        Self { taken: self.taken.union(&other.taken), zeros: self.zeros.union(&other.zeros) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_durable_when_it_was_recorded_is_doubtful() {
        let recorded = |durable: u64| {
            let set = |end: u64| std::iter::once(0..end).collect::<RangeSet>();
            Dest::recorded(set(8), set(durable), 0, None)
        };
        assert!(recorded(4).is_doubtful() && !recorded(8).is_doubtful());
        assert_eq!((recorded(4).errors(), recorded(4).taken.bytes()), (0, 8 * 512));
    }
}
