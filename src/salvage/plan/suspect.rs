//! What a plan still has to clear up.

use std::ops::Range;

use super::block::Block;

/// Something that failed and is not given up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Suspect {
    /// To be read again, by itself; it was tried so often.
    Read { range: Range<u64>, tries: u32 },
    /// Its first bad block is looked for: it is read from its beginning up to `end`; that block was tried so often. With
    /// `ignore_error`.
    First { range: Range<u64>, end: u64, tries: u32 },
    /// A piece in a dead area, being probed at that place.
    Probe { range: Range<u64>, place: u64, errno: i32 },
    /// A block of a destination, of which only a part can be read.
    Block(Box<Block>),
    /// To be written again to one destination: what was read, or zeros.
    Write { range: Range<u64>, dest: usize, zeros: bool, tries: u32, errno: i32 },
}

impl Suspect {
    /// The sectors that it is about.
    pub(super) fn range(&self) -> &Range<u64> {
        match self {
            Self::Read { range, .. }
            | Self::First { range, .. }
            | Self::Probe { range, .. }
            | Self::Write { range, .. } => range,
            Self::Block(block) => block.range(),
        }
    }

    /// What tells it apart, in the order in which suspects are looked at: as they lie on the source.
    pub(super) fn key(&self) -> (u64, usize) {
        let rank = match self {
            Self::Write { dest, .. } => dest + 1,
            _ => 0,
        };
        (self.range().start, rank)
    }
}
