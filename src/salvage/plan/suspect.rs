//! What a plan still has to clear up.

use std::ops::Range;

/// Something that failed and is not given up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Suspect {
    /// Could not be read, and is to be bisected.
    Split { range: Range<u64>, errno: i32 },
    /// To be read again; it was tried so often.
    Read { range: Range<u64>, tries: u32 },
    /// A piece in a dead area, being probed at that place.
    Probe { range: Range<u64>, place: u64, errno: i32 },
    /// To be written again to one destination.
    Write { range: Range<u64>, dest: usize, tries: u32 },
}

impl Suspect {
    /// The sectors that it is about.
    pub(crate) fn range(&self) -> &Range<u64> {
        match self {
            Self::Split { range, .. }
            | Self::Read { range, .. }
            | Self::Probe { range, .. }
            | Self::Write { range, .. } => range,
        }
    }
}

/// The two halves of a range, in whole blocks of that many sectors.
pub(crate) fn halves(range: &Range<u64>, block: u64) -> [Range<u64>; 2] {
    let middle = range.start + (range.end - range.start) / block / 2 * block;
    [range.start..middle, middle..range.end]
}
