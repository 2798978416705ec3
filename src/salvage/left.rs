//! What a comparison has still to do. Pure.

use std::ops::Range;

use super::plan::{Block, Plan};
use crate::figures::{Progress, RangeSet};

/// What is left to compare.
#[derive(Debug)]
pub(super) enum Left {
    /// Blocks that can be read, as far as is known.
    Whole(Range<u64>),
    /// A block of which a part cannot be read.
    Part(Block),
}

impl Left {
    /// What comes first on the source of what is not `done`.
    pub(super) fn first(plan: &Plan, progress: &Progress, done: &RangeSet) -> Option<Self> {
        let block = plan.block();
        let mut at = 0;
        while let Some(end) = done.end_at(at).max(progress.unreadable.end_at(at)) {
            at = end;
        }
        if at >= progress.total {
            return None;
        }
        let start = at / block * block;
        let first = start..start + block;
        let bad: RangeSet = progress.unreadable.within(&first).collect();
        if !bad.is_empty() {
            return Some(Self::Part(Block::compared(first, plan.source_block(), bad, progress.compared())));
        }
        let behind = |set: &RangeSet| set.first_from(at).map_or(progress.total, |range| range.start);
        let end = behind(done).min(behind(&progress.unreadable) / block * block);
        Some(Self::Whole(start..end))
    }

    /// Where it begins.
    pub(super) fn start(&self) -> u64 {
        match self {
            Self::Whole(range) => range.start,
            Self::Part(block) => block.range().start,
        }
    }
}
