//! What the bytes of a piece say: whether two pieces are equal, and where one is zeros. Pure, on pages that are at rest.

use std::ops::Range;

use crate::io::PageList;

/// Holes are made of at least so many bytes of zeros: smaller ones cost more requests than they save space.
const HOLE: usize = 32 << 10;

/// Whether `length` bytes at `a` and at `b` of one list are equal.
pub(super) fn are_equal(list: &PageList, a: usize, b: usize, length: usize) -> bool {
    /// Compared at a time: fits a cache, and the stack.
    const STEP: usize = 4096;
    let mut at = 0;
    let mut equal = true;
    let mut bytes = [0; STEP];
    list.show(a, length, |run| {
        for part in run.chunks(STEP) {
            if equal {
                let other = &mut bytes[..part.len()];
                list.read(b + at, other);
                equal = part == other;
                at += part.len();
            }
        }
    });
    equal
}

/// A part of a piece, in bytes, and whether it is zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) bytes: Range<usize>,
    pub(super) is_zero: bool,
}

/// Cuts the first `length` bytes into parts that are zeros and parts that are not; neighbours differ.
pub(super) fn parts(list: &PageList, length: usize) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for start in (0..length).step_by(HOLE) {
        let end = (start + HOLE).min(length);
        let mut is_zero = true;
        list.show(start, end - start, |run| is_zero = is_zero && is_all_zero(run));
        match parts.last_mut() {
            Some(before) if before.is_zero == is_zero => before.bytes.end = end,
            _ => parts.push(Part { bytes: start..end, is_zero }),
        }
    }
    parts
}

fn is_all_zero(bytes: &[u8]) -> bool {
    // The first byte is zero and each is like the one before: a comparison that the machine does at its full width.
    bytes.first().is_none_or(|first| *first == 0)
        && bytes[..bytes.len().saturating_sub(1)] == bytes[1.min(bytes.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{MIN_PAGES, PagePool};

    #[test]
    fn zeros_are_found_in_whole_holes() {
        let pool = PagePool::new(MIN_PAGES).unwrap();
        let client = pool.reserve(64, None).unwrap();
        let mut list = client.get(40).unwrap();
        list.write(0, &vec![0; list.length()]);
        let length = 4 * HOLE + 512;
        assert_eq!(parts(&list, length), [Part { bytes: 0..length, is_zero: true }]);
        list.write(HOLE + 5000, &[1]);
        list.write(4 * HOLE + 511, &[1]);
        let part = |from, to, is_zero| Part { bytes: from..to, is_zero };
        let want = [
            part(0, HOLE, true),
            part(HOLE, 2 * HOLE, false),
            part(2 * HOLE, 4 * HOLE, true),
            part(4 * HOLE, length, false),
        ];
        assert_eq!(parts(&list, length), want);
    }

    #[test]
    fn one_byte_makes_a_difference() {
        let pool = PagePool::new(MIN_PAGES).unwrap();
        let client = pool.reserve(64, None).unwrap();
        let mut list = client.get(8).unwrap();
        list.write(0, &vec![7; 32768]);
        assert!(are_equal(&list, 0, 16384, 16384));
        for at in [0, 4095, 4096, 16383] {
            list.write(16384 + at, &[8]);
            assert!(!are_equal(&list, 0, 16384, 16384));
            list.write(16384 + at, &[7]);
        }
    }
}
