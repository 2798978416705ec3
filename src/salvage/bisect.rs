//! How a range that failed is narrowed down: whatever looks for its bad blocks looks at its halves. Pure.

use std::ops::Range;

/// The two halves of a range, in whole blocks of that many sectors.
pub(super) fn halves(range: &Range<u64>, block: u64) -> [Range<u64>; 2] {
    let middle = range.start + (range.end - range.start) / block / 2 * block;
    [range.start..middle, middle..range.end]
}

/// Where the first half of a range ends, in whole blocks of that many sectors, and not before one.
pub(super) fn first_half(range: &Range<u64>, block: u64) -> u64 {
    halves(range, block)[0].end.max(range.start + block)
}
