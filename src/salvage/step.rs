//! The next I/O of a job, and the request to the engine that it is.

use std::ops::Range;
use std::sync::Arc;

use crate::blkdev::Device;
use crate::dm_io::{ErrorBits, IoRegion};
use crate::error::Result;
use crate::kcopyd::{Flags, Pattern, Piece, Request, SpeedLimit, Work};
use crate::sector::Sector;
use crate::spec::{Action, Spec};

/// The next I/O of a job: a job of the engine over a part of its region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Copy to those destinations.
    Copy { range: Range<u64>, dests: ErrorBits, flags: Flags },
    /// Write zeros to them.
    Zero { range: Range<u64>, dests: ErrorBits, flags: Flags },
    /// Compare with them.
    Compare { range: Range<u64>, dests: ErrorBits },
    /// Make holes on them, where the source has one.
    Hole { range: Range<u64>, dests: ErrorBits, flags: Flags },
    /// No I/O of the engine's: the source is to be looked at for holes, as far as a look goes. Then the next step is asked for.
    FindHoles { range: Range<u64> },
    /// Read, out of turn, to learn whether it can be read.
    Probe { range: Range<u64> },
    /// Read a part of a destination's block into the scratch block; if that fails nothing is changed there, or it becomes zeros.
    Gather { range: Range<u64>, scratch: Scratch, zeros: bool },
    /// Read a destination's block into the scratch block.
    Fetch { range: Range<u64>, dest: usize, scratch: Scratch },
    /// Write the scratch block to those destinations.
    Put { range: Range<u64>, dests: ErrorBits, scratch: Scratch },
    /// Compare the scratch block with a destination's.
    Check { range: Range<u64>, dest: usize, scratch: Scratch },
    /// Read once more, for the digest alone; beside the scratch block where it is a part of a coarser block.
    Show { range: Range<u64>, scratch: Option<Scratch> },
    /// No I/O: the digest is to see zeros for what cannot be read. Then the next step is asked for.
    HashZeros { range: Range<u64> },
}

/// A block in memory, as large as the coarsest logical block of a job, in which a destination's block is put together where
/// only a part of it can be read from the source.
#[derive(Clone, Debug)]
pub(crate) struct Scratch(Arc<Device>);

impl Scratch {
    /// One of `block` sectors.
    pub(super) fn new(block: u64) -> Result<Self> {
        Ok(Self(Device::in_memory(sectors(block), 512)?))
    }

    /// Where a range of the job lies in it.
    fn part(&self, range: &Range<u64>) -> IoRegion {
        let within = range.start % self.0.size().get();
        IoRegion::new(&self.0, sectors(within), sectors(range.end - range.start))
    }
}

impl PartialEq for Scratch {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Scratch {}

impl Step {
    pub(crate) fn range(&self) -> &Range<u64> {
        match self {
            Self::Copy { range, .. }
            | Self::Zero { range, .. }
            | Self::Hole { range, .. }
            | Self::FindHoles { range }
            | Self::Compare { range, .. }
            | Self::Probe { range }
            | Self::Gather { range, .. }
            | Self::Fetch { range, .. }
            | Self::Put { range, .. }
            | Self::Check { range, .. }
            | Self::Show { range, .. }
            | Self::HashZeros { range } => range,
        }
    }

    /// Whether the engine knows the job's destinations by their own numbers in it.
    pub(crate) fn is_with_dests(&self) -> bool {
        matches!(
            self,
            Self::Copy { .. } | Self::Zero { .. } | Self::Compare { .. } | Self::Put { .. } | Self::Check { .. }
        )
    }

    /// Whether the engine ends the step by itself for a piece that failed: then what is in flight is written.
    pub(crate) fn ends_for(&self, piece: &Piece<'_>) -> bool {
        let (Self::Copy { flags, .. } | Self::Zero { flags, .. } | Self::Hole { flags, .. }) = self else {
            return false;
        };
        let goes_on = match piece.read_error {
            Some(_) => &[Flags::IGNORE_ERROR, Flags::SKIP_UNREADABLE][..],
            None => &[Flags::IGNORE_ERROR, Flags::KEEP_FAILED, Flags::DROP_FAILED],
        };
        !goes_on.iter().any(|flag| flags.contains(*flag))
    }
}

fn sectors(number: u64) -> Sector {
    Sector::new(number).expect("inside a region that was checked")
}

/// A step as the engine takes it. A test writes and looks for the pattern of `pattern_seed`. `source_is_sick`: it has shown read
/// errors, so nothing is to be read twice.
///
/// # Panics
/// For [`Step::HashZeros`] and [`Step::FindHoles`], which are none of the engine's.
pub(crate) fn request(
    spec: &Spec,
    from: Option<&IoRegion>,
    to: &[IoRegion],
    speed_max: &SpeedLimit,
    pattern_seed: u64,
    step: &Step,
    source_is_sick: bool,
) -> Request {
    let range = step.range();
    let part = |region: &IoRegion| {
        let first = sectors(region.sector.get() + range.start);
        IoRegion::new(&region.device, first, sectors(range.end - range.start))
    };
    let source = || part(from.expect("a copy has a source"));
    let all = || to.iter().map(part).collect();
    let is_test = spec.action == Action::Test;
    let pattern = Pattern { seed: pattern_seed, first: range.start };
    let (work, regions, dests, flags) = match step {
        Step::Copy { dests, flags, .. } if is_test => (Work::Pattern(pattern), all(), *dests, *flags),
        Step::Compare { dests, .. } if is_test => {
            (Work::ComparePattern(pattern), all(), *dests, Flags::SKIP_UNREADABLE)
        }
        Step::Copy { dests, flags, .. } => (Work::Copy(source()), all(), *dests, *flags),
        Step::Zero { dests, flags, .. } | Step::Hole { dests, flags, .. } => (Work::Zero, all(), *dests, *flags),
        Step::Compare { dests, .. } => (Work::Compare(source()), all(), *dests, Flags::SKIP_UNREADABLE),
        Step::Probe { .. } => (Work::Compare(source()), all(), ErrorBits::NONE, Flags::NONE),
        Step::Gather { scratch, zeros, .. } => {
            let flags = if *zeros { Flags::IGNORE_ERROR } else { Flags::NONE };
            (Work::Copy(source()), vec![scratch.part(range)], ErrorBits::first(1), flags)
        }
        Step::Fetch { dest, scratch, .. } => {
            (Work::Copy(part(&to[*dest])), vec![scratch.part(range)], ErrorBits::first(1), Flags::NONE)
        }
        Step::Put { dests, scratch, .. } => (Work::Copy(scratch.part(range)), all(), *dests, Flags::KEEP_FAILED),
        Step::Check { dest, scratch, .. } => {
            (Work::Compare(scratch.part(range)), all(), ErrorBits::from_bits(1 << dest), Flags::NONE)
        }
        Step::Show { scratch, .. } => {
            let beside = scratch.as_ref().map_or_else(all, |scratch| vec![scratch.part(range)]);
            (Work::Compare(source()), beside, ErrorBits::NONE, Flags::NONE)
        }
        Step::HashZeros { .. } | Step::FindHoles { .. } => unreachable!("a step without I/O"),
    };
    let without = ErrorBits::first(regions.len()).without(dests);
    // With nobody to write to or to compare with, only the data tells that a piece was read.
    let sees = match step {
        Step::Copy { .. } => !spec.digests.is_empty(),
        Step::Compare { .. } => !spec.digests.is_empty() && spec.action == Action::Verify,
        Step::Probe { .. } | Step::Show { .. } => true,
        _ => false,
    };
    // One piece of salvage is soon done, and nothing is to be read twice then.
    let leaves_behind = match step {
        Step::Copy { .. } | Step::Zero { .. } => !source_is_sick,
        Step::Compare { .. } => true,
        _ => false,
    };
    let sparse = spec.sparse && !matches!(step, Step::Gather { .. } | Step::Fetch { .. });
    Request {
        work,
        dests: regions,
        without,
        flags,
        speed_max: speed_max.clone(),
        paused: false,
        sparse,
        in_order: sees,
        observer: None,
        background: spec.background,
        leaves_behind,
        answered: None,
    }
}
