//! How a plan goes about it: what the spec asks for and the devices allow. It does not change. Pure.

use super::super::Geometry;
use crate::dm_io::ErrorBits;
use crate::figures::Progress;
use crate::kcopyd::Flags;
use crate::spec::{Action, OnReadError, OnWriteError, Spec};

/// What becomes of what cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnRead {
    Stop,
    Zero,
    Skip,
    /// kcopyd's `IGNORE_ERROR`: zeros, by the piece.
    Ignore,
}

impl OnRead {
    /// What cannot be read is bisected down to the logical block.
    pub(super) const fn bisects(self) -> bool {
        matches!(self, Self::Zero | Self::Skip)
    }

    /// What cannot be read gets zeros.
    pub(super) const fn fills(self) -> bool {
        matches!(self, Self::Zero | Self::Ignore)
    }
}

// One flag a word of the spec.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) action: Action,
    pub(super) on_read: OnRead,
    pub(super) stops_on_write: bool,
    pub(super) retries: u32,
    /// What comes first on the source is done first, also what failed.
    pub(super) ordered: bool,
    /// Each piece is written in order.
    in_order: bool,
    /// Pieces are written only where they differ.
    only_changed: bool,
    /// Sectors in the source's logical block.
    pub(super) source_block: u64,
    /// Sectors in the coarsest logical block of the job's devices.
    pub(super) block: u64,
}

impl Policy {
    pub(super) fn new(spec: &Spec, geometry: Geometry) -> Self {
        let in_order = spec.write_seq || geometry.sequential;
        let on_read = match spec.on_read_error {
            // A test is to find all that is bad.
            _ if (spec.ignore_error || spec.action == Action::Test) && !in_order => OnRead::Ignore,
            OnReadError::Zero => OnRead::Zero,
            // A zone has no place for a hole.
            OnReadError::Skip if !geometry.sequential => OnRead::Skip,
            OnReadError::Stop | OnReadError::Skip => OnRead::Stop,
        };
        Self {
            action: spec.action,
            on_read,
            stops_on_write: spec.on_write_error == OnWriteError::Stop,
            retries: spec.retries,
            ordered: in_order || !spec.digests.is_empty(),
            in_order,
            only_changed: spec.changed,
            source_block: geometry.source_block,
            block: geometry.coarsest(),
        }
    }

    /// Where the source is slow is put last, as what cannot be read is.
    pub(super) fn puts_slow_last(&self) -> bool {
        self.action == Action::Copy && self.on_read.bisects() && !self.ordered
    }

    /// The flags of a step of the bulk that copies, to those destinations.
    pub(super) fn bulk_copy(&self, progress: &Progress, dests: ErrorBits) -> Flags {
        self.bulk() | self.changed(progress, dests)
    }

    /// The flags of a step of the bulk.
    pub(super) fn bulk(&self) -> Flags {
        let read = match self.on_read {
            OnRead::Stop if self.retries == 0 => Flags::NONE,
            _ if self.ordered => Flags::NONE,
            _ => Flags::SKIP_UNREADABLE,
        };
        read | self.zeros()
    }

    /// The flags of a step that writes zeros over many pieces.
    pub(super) fn zeros(&self) -> Flags {
        let write = match (self.retries, self.stops_on_write) {
            (0, false) if self.on_read == OnRead::Ignore => Flags::KEEP_FAILED,
            (0, false) => Flags::DROP_FAILED,
            (0, true) => Flags::NONE,
            _ if self.ordered => Flags::NONE,
            _ => Flags::KEEP_FAILED,
        };
        self.order() | write
    }

    /// The flags of a step of one piece or few: what fails of it comes back to the plan.
    pub(super) fn few(&self) -> Flags {
        self.order() | Flags::KEEP_FAILED
    }

    /// The flags of such a step that reads what was not read. So it was not compared.
    pub(super) fn few_copied(&self, progress: &Progress, dests: ErrorBits) -> Flags {
        self.few() | self.changed(progress, dests)
    }

    fn order(&self) -> Flags {
        if self.in_order { Flags::WRITE_SEQ } else { Flags::NONE }
    }

    /// What a destination gives back whose flush has failed may be of a cache: it is written to, and not asked.
    fn changed(&self, progress: &Progress, dests: ErrorBits) -> Flags {
        let looks = self.only_changed && !dests.iter().any(|index| progress.dests[index].is_doubted());
        if looks { Flags::ONLY_CHANGED } else { Flags::NONE }
    }
}
