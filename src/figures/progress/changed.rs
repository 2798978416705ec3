//! What a copy with `changed` found equal.

use std::ops::Range;

use super::{Progress, RangeSet};
use crate::dm_io::ErrorBits;

impl Progress {
    /// Bytes of the job that were found equal, and so were not written, on every destination that takes part.
    pub(crate) fn same_bytes(&self) -> u64 {
        self.same.bytes()
    }

    /// Where that is.
    pub(crate) fn same(&self) -> &RangeSet {
        &self.same
    }

    /// What a record says of it.
    pub(crate) fn restore_same(&mut self, same: RangeSet) {
        self.same = same;
    }

    /// A range was compared with those destinations, and was found equal on some of them. What others were found to have
    /// before they still have.
    pub(crate) fn found_same(&mut self, range: &Range<u64>, asked: ErrorBits, same: ErrorBits) {
        let live = self.live();
        let asked_live = live.without(live.without(asked));
        if asked_live.is_empty() {
            return;
        }
        if !asked_live.without(same).is_empty() {
            self.same.remove(range);
        } else if live.without(asked).is_empty() {
            self.same.insert(range.clone());
        }
    }
}
