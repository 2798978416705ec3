//! Whether the bad blocks of a range are found in less time by halves or one by one. Pure.
//!
//! With one bad block in it, halves cost a failure for each halving, and single reads one failure and a good read for each
//! block. With more bad blocks single reads win sooner.

use std::time::Duration;

/// How much the last read counts in an average.
const LAST: u32 = 4;

/// What one read of the salvage takes, on the average of the last ones: nothing else of the job is in flight then.
#[derive(Debug, Default)]
pub(super) struct Cost {
    good: Option<Duration>,
    failed: Option<Duration>,
}

impl Cost {
    pub(super) fn note(&mut self, failed: bool, took: Duration) {
        let average = if failed { &mut self.failed } else { &mut self.good };
        *average = Some(average.map_or(took, |average| (average * (LAST - 1) + took) / LAST));
    }

    /// Whether that many blocks, at least one of them bad, are read one by one. `usual` is what a read of the bulk takes.
    pub(super) fn is_less_one_by_one(&self, blocks: u64, usual: Option<Duration>) -> bool {
        let good = self.good.into_iter().chain(usual).min();
        let nanos = |each: Duration, times: u64| each.as_nanos().saturating_mul(times.into());
        let halvings = blocks.checked_ilog2().unwrap_or(0);
        good.zip(self.failed).is_some_and(|(good, failed)| nanos(good, blocks) < nanos(failed, halvings.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_reads_are_for_failures_that_take_long() {
        let is_less = |good: u64, failed: u64| {
            let mut cost = Cost::default();
            cost.note(false, Duration::from_micros(good));
            assert!(!cost.is_less_one_by_one(1024, None));
            cost.note(true, Duration::from_micros(failed));
            cost.is_less_one_by_one(1024, None)
        };
        // A kibi of good reads, or ten failures.
        assert!(is_less(100, 50_000) && is_less(100, 10_300) && !is_less(100, 10_200) && !is_less(0, 0));
    }

    #[test]
    fn what_a_good_read_takes_is_known_from_the_bulk_at_first() {
        let mut cost = Cost::default();
        cost.note(true, Duration::from_secs(1));
        let usual = Some(Duration::from_millis(1));
        assert!(!cost.is_less_one_by_one(64, None) && cost.is_less_one_by_one(64, usual));
        // One that took long changes it by a quarter.
        cost.note(false, Duration::from_millis(1));
        cost.note(false, Duration::from_millis(401));
        assert!(cost.is_less_one_by_one(40, None) && !cost.is_less_one_by_one(64, None));
        assert!(!cost.is_less_one_by_one(1, usual));
    }
}
