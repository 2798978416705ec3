//! Where a source answers slowly. A disk that tries a sector again and again inside itself is likely to do so behind it, too: what
//! lies behind a piece that took far longer than most is put last, more of it each time, as after a piece that failed. Pure.

use std::ops::Range;
use std::time::Duration;

use crate::figures::RangeSet;
use crate::sector::Sector;

/// Reads of which the median is known.
const READS: usize = 32;
/// How many times the median is slow.
const TIMES: u32 = 10;
/// What is quicker than that is no loss.
const LEAST: Duration = Duration::from_millis(20);
/// What is put last behind the first slow piece, 1 MiB, and at most behind one.
const SKIP: std::ops::RangeInclusive<u64> = Sector::whole_in(1 << 20).get()..=Sector::whole_in(64 << 20).get();
/// Ranges that are put last, 1 MiB of memory.
const RANGES: usize = 1 << 16;

/// What the reads of the bulk tell, and what is put last for it.
#[derive(Debug)]
pub(super) struct Slow {
    /// How long the last reads took, the oldest at `next`.
    took: Vec<Duration>,
    next: usize,
    /// Sectors that are put last behind the next slow piece.
    skip: u64,
    put_last: RangeSet,
    /// What was put last is being copied.
    is_over: bool,
}

impl Slow {
    pub(super) fn new() -> Self {
        Self { took: Vec::new(), next: 0, skip: *SKIP.start(), put_last: RangeSet::new(), is_over: false }
    }

    /// A piece of the bulk was read, or could not be. True if something was put last for it.
    pub(super) fn was_read(&mut self, range: &Range<u64>, took: Duration, total: u64) -> bool {
        if self.is_over {
            return false;
        }
        let is_slow = self.is_slow(took);
        self.note(took);
        if !is_slow {
            self.skip = *SKIP.start();
            return false;
        }
        let behind = range.end..(range.end + self.skip).min(total);
        if behind.is_empty() || self.put_last.len() >= RANGES {
            return false;
        }
        self.skip = (self.skip * 2).min(*SKIP.end());
        self.put_last.insert(behind);
        true
    }

    fn is_slow(&self, took: Duration) -> bool {
        took >= LEAST && self.usual().is_some_and(|usual| took >= usual * TIMES)
    }

    /// How long a read takes, once enough are known: the median.
    pub(super) fn usual(&self) -> Option<Duration> {
        let mut sorted = self.took.clone();
        (sorted.len() == READS).then(|| *sorted.select_nth_unstable(READS / 2).1)
    }

    fn note(&mut self, took: Duration) {
        if self.took.len() < READS {
            return self.took.push(took);
        }
        self.took[self.next] = took;
        self.next = (self.next + 1) % READS;
    }

    /// What is put last.
    pub(super) fn put_last(&self) -> &RangeSet {
        &self.put_last
    }

    /// The rest is copied: where what was put last begins, if anything was. Nothing is put last again.
    pub(super) fn take(&mut self) -> Option<u64> {
        let start = std::mem::take(&mut self.put_last).first_from(0)?.start;
        self.is_over = true;
        Some(start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);
    const PIECE: u64 = 1024;

    fn used_to_quick_ones() -> Slow {
        let mut slow = Slow::new();
        for piece in 0..READS as u64 {
            assert!(!slow.was_read(&(piece * PIECE..(piece + 1) * PIECE), QUICK, u64::MAX));
        }
        slow
    }

    #[test]
    fn more_is_put_last_as_long_as_it_is_slow() {
        let mut slow = used_to_quick_ones();
        let first = 100 * PIECE..101 * PIECE;
        assert!(slow.was_read(&first, LEAST, u64::MAX));
        assert!(slow.was_read(&(200 * PIECE..201 * PIECE), LEAST, u64::MAX));
        let behind = |at: u64, pieces: u64| at * PIECE..(at + pieces) * PIECE;
        assert_eq!(slow.put_last().iter().collect::<Vec<_>>(), [behind(101, 2), behind(201, 4)]);
        assert!(!slow.was_read(&(300 * PIECE..301 * PIECE), QUICK, u64::MAX));
        assert!(slow.was_read(&(400 * PIECE..401 * PIECE), LEAST, 402 * PIECE));
        assert!(slow.put_last().contains(&behind(401, 1)) && !slow.put_last().contains(&behind(401, 2)));
        assert_eq!(slow.take(), Some(101 * PIECE));
        assert!(!slow.was_read(&(500 * PIECE..501 * PIECE), LEAST, u64::MAX) && slow.take().is_none());
    }

    #[test]
    fn a_disk_that_is_slow_everywhere_is_not() {
        let mut slow = used_to_quick_ones();
        let is_put_last = |slow: &mut Slow, piece: u64| {
            slow.was_read(&(piece * PIECE..(piece + 1) * PIECE), Duration::from_secs(1), u64::MAX)
        };
        let skips = (0..1000).filter(|piece| is_put_last(&mut slow, 1000 * piece)).count();
        assert!((1..READS).contains(&skips), "{skips}");
        // Ten times of very little is no loss.
        let mut slow = Slow::new();
        for piece in 0..100 {
            let took = if piece % 20 == 19 { LEAST / 2 } else { Duration::from_micros(10) };
            assert!(!slow.was_read(&(piece * PIECE..(piece + 1) * PIECE), took, u64::MAX));
        }
    }
}
