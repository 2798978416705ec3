//! What a comparison of a job that has ended does to its figures.

use std::ops::Range;

use super::{Dest, Progress};
use crate::dm_io::ErrorBits;

impl Dest {
    /// It took all that was written to it, and flushed it.
    fn is_plain(&self) -> bool {
        self.trouble.as_ref().is_none_or(|trouble| trouble.lost.bytes() == 0 && !trouble.flush_failed)
    }
}

impl Progress {
    /// A copy that has ended is compared: what was found by reading back is forgotten. What could not be read has nothing to
    /// be compared with, and a destination that was given up before stays so.
    pub(crate) fn begin_comparison(&mut self) {
        let mut again = ErrorBits::NONE;
        for (index, dest) in self.dests.iter().enumerate() {
            if dest.is_plain() && (dest.is_different() || self.differ.contains(index)) {
                again.set(index);
            }
        }
        self.bad.retain(|range| range.dest.is_none_or(|index| !again.contains(index)));
        for index in again.iter() {
            let dest = &mut self.dests[index];
            *dest = Dest { taken: dest.durable.clone(), durable: std::mem::take(&mut dest.durable), ..Dest::default() };
        }
        self.write_err = self.write_err.without(again);
        self.differ = ErrorBits::NONE;
        if !self.read_err && self.write_err.is_empty() {
            self.error = None;
        }
        self.look_again();
    }

    /// Those destinations have a range after all that an earlier comparison took from them. Durable it is once they have
    /// been flushed; where a flush had failed, reading it back proves nothing.
    pub(crate) fn regained(&mut self, range: &Range<u64>, dests: ErrorBits) {
        let mut any = false;
        for index in dests.iter() {
            let dest = &mut self.dests[index];
            if dest.is_plain() && !dest.taken.contains(range) {
                dest.taken.insert(range.clone());
                any = true;
            }
        }
        if any {
            self.look_again();
        }
    }
}
