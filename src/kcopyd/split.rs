//! How a job is cut into pieces. Pure.

use crate::sector::Sector;

/// A part of a job: first sector, counted from the job's beginning, and count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) offset: Sector,
    pub(super) count: Sector,
}

/// What of a job has not been cut yet.
///
/// # Invariants
/// The spans it gives are ascending, without gaps, none empty, none larger than the size of a piece; but for what was put back,
/// which is given again before all others.
#[derive(Clone, Debug)]
pub(super) struct Splitter {
    next: Sector,
    end: Sector,
    piece: Sector,
    limit: Sector,
    /// Put back: first sector and end.
    again: Vec<(Sector, Sector)>,
}

impl Splitter {
    pub(super) fn new(total: Sector, piece: Sector) -> Self {
        assert!(!piece.is_zero(), "a piece has at least one sector");
        Self { next: Sector::ZERO, end: total, piece, limit: piece, again: Vec::new() }
    }

    /// Cuts pieces of at most `limit` from now on, where that is less than the size of a piece.
    pub(super) fn limit(&mut self, limit: Sector) {
        assert!(!limit.is_zero(), "a piece has at least one sector");
        self.limit = limit.min(self.piece);
    }

    /// What will be cut next.
    pub(super) fn peek(&self) -> Option<Span> {
        self.clone().next()
    }

    /// Pieces that are left, if all are as large as they may be; `most` is as many as the caller wants to know of.
    pub(super) fn left(&self, most: usize) -> usize {
        let parts = self.again.iter().copied().chain([(self.next, self.end)]);
        let left: u64 = parts.map(|(from, end)| (end.get() - from.get()).div_ceil(self.limit.get())).sum();
        usize::try_from(left).map_or(most, |left| left.min(most))
    }

    /// Whether nothing is left to cut.
    pub(super) fn is_empty(&self) -> bool {
        self.next == self.end && self.again.is_empty()
    }

    /// A span is to be cut again, into smaller ones.
    pub(super) fn put_back(&mut self, span: Span) {
        if let Some(end) = span.offset.checked_add(span.count) {
            self.again.push((span.offset, end));
        }
    }
}

impl Iterator for Splitter {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let (next, end) = self.again.last().copied().unwrap_or((self.next, self.end));
        let count = end.checked_sub(next)?.min(self.limit);
        let span = Span { offset: next, count };
        let rest = next.checked_add(count)?;
        match self.again.last_mut() {
            Some(_) if rest == end => _ = self.again.pop(),
            Some(again) => again.0 = rest,
            None => self.next = rest,
        }
        (!count.is_zero()).then_some(span)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn spans_cover_a_job_once(total in 0_u64..10_000, piece in 1_u64..3000) {
            let sectors = |number| Sector::new(number).unwrap();
            let mut at = 0;
            for span in Splitter::new(sectors(total), sectors(piece)) {
                prop_assert_eq!(span.offset.get(), at);
                prop_assert!((1..=piece).contains(&span.count.get()));
                at += span.count.get();
                prop_assert!(span.count.get() == piece || at == total);
            }
            prop_assert_eq!(at, total);
        }

        #[test]
        fn what_is_put_back_is_cut_again(total in 1_u64..2000, piece in 1_u64..300, small in 1_u64..300, every in 1_usize..5) {
            let sectors = |number| Sector::new(number).unwrap();
            let mut splitter = Splitter::new(sectors(total), sectors(piece));
            let mut times = vec![0; usize::try_from(total).unwrap()];
            let mut backs = 0;
            for turn in 0.. {
                let most = splitter.left(usize::MAX);
                prop_assert_eq!(splitter.clone().count(), most);
                prop_assert_eq!(splitter.is_empty(), most == 0);
                let Some(span) = splitter.next() else { break };
                if turn % every == 0 && backs < 50 {
                    backs += 1;
                    splitter.put_back(span);
                    splitter.limit(sectors(small));
                    continue;
                }
                splitter.limit(sectors(piece));
                let start = usize::try_from(span.offset.get()).unwrap();
                times[start..start + usize::try_from(span.count.get()).unwrap()].iter_mut().for_each(|times| *times += 1);
            }
            prop_assert!(times.iter().all(|times| *times == 1));
        }

        #[test]
        fn a_limit_holds_from_the_next_piece_on(total in 1_u64..10_000, piece in 1_u64..3000, limit in 1_u64..3000) {
            let sectors = |number| Sector::new(number).unwrap();
            let mut splitter = Splitter::new(sectors(total), sectors(piece));
            let mut at = splitter.next().unwrap().count.get();
            splitter.limit(sectors(limit));
            let most = splitter.left(usize::MAX);
            prop_assert_eq!(splitter.clone().count(), most);
            while let Some(span) = splitter.peek() {
                prop_assert_eq!(splitter.next(), Some(span));
                prop_assert_eq!(span.offset.get(), at);
                prop_assert!((1..=piece.min(limit)).contains(&span.count.get()));
                at += span.count.get();
            }
            prop_assert_eq!(at, total);
        }
    }
}
