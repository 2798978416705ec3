//! Sums since the daemon began, for `metrics`. Atomics, each its own: readers want trends, not a moment.

use std::sync::atomic::{AtomicU64, Ordering};

use super::view::{State, Totals};
use crate::kcopyd::Piece;

#[derive(Debug, Default)]
pub(super) struct Counters {
    jobs_made: AtomicU64,
    copied: AtomicU64,
    written: AtomicU64,
    read_errors: AtomicU64,
    write_errors: AtomicU64,
    ended: [AtomicU64; 4],
}

impl Counters {
    pub(super) fn made(&self, jobs: usize) {
        add(&self.jobs_made, jobs as u64);
    }

    /// A piece has ended; `copied` bytes more are on all live destinations of its job.
    pub(super) fn piece(&self, piece: &Piece<'_>, copied: u64) {
        add(&self.copied, copied);
        add(&self.written, u64::from(piece.written.without(piece.same).count()) * piece.count.bytes());
        add(&self.read_errors, u64::from(piece.read_error.is_some()));
        add(&self.write_errors, piece.write_errors.len() as u64);
    }

    pub(super) fn ended(&self, state: State) {
        if let Some(place) = Totals::ENDS.iter().position(|end| *end == state) {
            add(&self.ended[place], 1);
        }
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            jobs_made: get(&self.jobs_made),
            copied: get(&self.copied),
            written: get(&self.written),
            read_errors: get(&self.read_errors),
            write_errors: get(&self.write_errors),
            ended: self.ended.each_ref().map(get),
        }
    }
}

fn add(sum: &AtomicU64, more: u64) {
    sum.fetch_add(more, Ordering::Relaxed);
}

fn get(sum: &AtomicU64) -> u64 {
    sum.load(Ordering::Relaxed)
}
