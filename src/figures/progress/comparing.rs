//! What a comparison of a job that has ended does to its figures.

use std::ops::Range;

use super::{BadRange, Progress, RangeSet, Verb};
use crate::dm_io::ErrorBits;
use crate::spec::Spec;

impl Progress {
    /// After a restart: where the error that is told was found, if by comparing. One that lies before it takes its place.
    pub(crate) fn restore_compared_at(&mut self, spec: &Spec) {
        let verbs = [Verb::Verify, Verb::ReadBack].map(|verb| format!("{} ", verb.as_str()));
        if !self.error.as_ref().is_some_and(|error| verbs.iter().any(|verb| error.starts_with(verb))) {
            return;
        }
        let place = |range: &BadRange| {
            let region = &spec.to[range.dest?];
            range.sector.get().checked_sub(region.sector.get())
        };
        self.compared_at = self.bad.iter().filter_map(place).min();
    }

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
            self.dests[index].again();
        }
        self.write_err = self.write_err.without(again);
        self.differ = ErrorBits::NONE;
        (self.behind, self.compared_before) = (ErrorBits::NONE, ErrorBits::NONE);
        if !self.read_err && self.given_up().is_empty() {
            self.error = None;
        }
        self.compared_at = None;
        self.verified = 0;
        self.look_again();
    }

    /// As [`Progress::regained`], or where nothing was copied as [`Progress::found_equal`], for what is good of a block.
    pub(crate) fn regained_parts(&mut self, parts: &RangeSet, dests: ErrorBits, only_compares: bool) {
        for range in parts.iter() {
            if only_compares {
                self.found_equal(&range, dests);
            } else {
                self.regained(&range, dests);
            }
        }
    }

    /// Those destinations have a range after all that an earlier comparison took from them. Durable it is once they have
    /// been flushed; where a flush had failed, reading it back proves nothing.
    pub(crate) fn regained(&mut self, range: &Range<u64>, dests: ErrorBits) {
        let lacks = |index: &usize| self.dests[*index].is_plain() && !self.dests[*index].taken.contains(range);
        let lack: Vec<usize> = dests.iter().filter(lacks).collect();
        if !lack.is_empty() {
            self.change(range, |progress| {
                for index in lack {
                    progress.dests[index].taken.insert(range.clone());
                }
            });
        }
    }
}
