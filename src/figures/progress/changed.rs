//! What a job need not write: what `changed` found equal, and what `map=` says is there.

use std::ops::Range;

use super::{Progress, RangeSet};
use crate::dm_io::ErrorBits;
use crate::figures::Given;
use crate::spec::Spec;

impl Progress {
    /// A new job is given a map. What it says is bad is tried again only where the spec says how often.
    pub(crate) fn begin_with(&mut self, spec: &Spec, given: &Given) {
        for dest in &mut self.dests {
            (dest.taken, dest.durable) = (given.there.clone(), given.there.clone());
        }
        if spec.retries == 0 {
            given.bad.iter().for_each(|range| self.unreadable(spec, &range, libc::EIO));
        }
        self.look_again();
    }

    /// Bytes of the job that were found equal, and so were not written, on every destination that takes part.
    pub(crate) fn same_bytes(&self) -> u64 {
        self.same.bytes()
    }

    /// Where that is.
    pub(crate) fn same(&self) -> &RangeSet {
        &self.same
    }

    /// What a record says of it: of that, what the destinations still have.
    pub(crate) fn restore_same(&mut self, same: &RangeSet) {
        self.same = same.intersection(&self.common);
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
