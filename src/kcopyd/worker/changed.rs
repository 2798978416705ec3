//! Pieces that are written only where they differ ([`Flags::ONLY_CHANGED`](super::super::Flags::ONLY_CHANGED)).
//!
//! A piece is read from the source, then from one destination after the other beside it, then written from the same pages to
//! those that do not have it. So the source is read once, and nothing else of a copy is another: order, digest, errors.

use super::super::job::Phase;
use super::Worker;
use crate::io::PageList;

impl Worker {
    /// A destination was read, or could not be: then it is written to.
    pub(super) fn looked(&mut self, key: usize, list: PageList, dest: usize, is_same: bool) {
        if is_same {
            self.subs[key].same.set(dest);
        }
        self.compare(key, list, dest + 1);
    }

    /// All destinations were read: it waits for its turn to be written.
    pub(super) fn looked_at_all(&mut self, key: usize, list: PageList) {
        let sub = &mut self.subs[key];
        sub.is_unknown = false;
        sub.phase = Phase::Ready(Some(list));
        let owner = sub.job;
        self.look_at(owner);
    }
}
