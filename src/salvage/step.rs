//! The next I/O of a job, and the request to the engine that it is.

use std::ops::Range;

use crate::dm_io::{ErrorBits, IoRegion};
use crate::kcopyd::{Flags, Piece, Request, SpeedLimit, Work};
use crate::sector::Sector;
use crate::spec::Spec;

/// The next I/O of a job: a job of the engine over a part of its region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Copy to those destinations.
    Copy { range: Range<u64>, dests: ErrorBits, flags: Flags },
    /// Write zeros to them.
    Zero { range: Range<u64>, dests: ErrorBits, flags: Flags },
    /// Compare with them; with none of them only read.
    Compare { range: Range<u64>, dests: ErrorBits },
    /// Read, out of turn, to learn whether it can be read.
    Probe { range: Range<u64> },
}

impl Step {
    pub(crate) fn range(&self) -> &Range<u64> {
        match self {
            Self::Copy { range, .. }
            | Self::Zero { range, .. }
            | Self::Compare { range, .. }
            | Self::Probe { range } => range,
        }
    }

    /// Whether the engine ends the step by itself for a piece that failed: then what is in flight is written.
    pub(crate) fn ends_for(&self, piece: &Piece<'_>) -> bool {
        let (Self::Copy { flags, .. } | Self::Zero { flags, .. }) = self else { return false };
        let goes_on = match piece.read_error {
            Some(_) => &[Flags::IGNORE_ERROR, Flags::SKIP_UNREADABLE][..],
            None => &[Flags::IGNORE_ERROR, Flags::KEEP_FAILED, Flags::DROP_FAILED],
        };
        !goes_on.iter().any(|flag| flags.contains(*flag))
    }
}

/// A step as the engine takes it.
pub(crate) fn request(
    spec: &Spec,
    from: Option<&IoRegion>,
    to: &[IoRegion],
    speed_max: &SpeedLimit,
    step: &Step,
) -> Request {
    let range = step.range();
    let sectors = |number| Sector::new(number).expect("inside a region that was checked");
    let part = |region: &IoRegion| {
        let first = sectors(region.sector.get() + range.start);
        IoRegion::new(&region.device, first, sectors(range.end - range.start))
    };
    let source = || part(from.expect("a copy has a source"));
    let (work, dests, flags) = match step {
        Step::Copy { dests, flags, .. } => (Work::Copy(source()), *dests, *flags),
        Step::Zero { dests, flags, .. } => (Work::Zero, *dests, *flags),
        Step::Compare { dests, .. } => (Work::Compare(source()), *dests, Flags::SKIP_UNREADABLE),
        Step::Probe { .. } => (Work::Compare(source()), ErrorBits::NONE, Flags::NONE),
    };
    let all = ErrorBits::first(to.len());
    // With nobody to write to or to compare with, only the data tells that a piece was read.
    let sees = match step {
        Step::Copy { .. } => spec.digest.is_some(),
        Step::Compare { .. } | Step::Probe { .. } => dests.is_empty(),
        Step::Zero { .. } => false,
    };
    Request {
        work,
        dests: to.iter().map(part).collect(),
        without: all.without(dests),
        flags,
        speed_max: speed_max.clone(),
        paused: false,
        sparse: spec.sparse,
        in_order: sees,
        observer: None,
    }
}
