//! Ranges in chunks, so that one in the middle of a million others moves only its chunk.
//!
//! # Invariants
//! Ranges ascend, are not empty, and neither overlap nor touch. They lie in chunks of at most [`CHUNK`], none of them empty. The numbers
//! of sectors and of ranges are kept.

use std::ops::Range;

/// Ranges in a chunk: an insertion moves at most so many, and a million ranges are some ten thousand chunks.
pub(super) const CHUNK: usize = 128;

#[derive(Clone, Debug, Default)]
pub(super) struct Chunks {
    all: Vec<Vec<Range<u64>>>,
    ranges: usize,
    sectors: u64,
}

impl Chunks {
    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// How many ranges.
    pub(super) fn len(&self) -> usize {
        self.ranges
    }

    /// The only range, an empty one where there is none; `None` where there are more.
    pub(super) fn only(&self) -> Option<Range<u64>> {
        match self.ranges {
            0 => Some(0..0),
            1 => Some(self.all[0][0].clone()),
            _ => None,
        }
    }

    /// Where the first range is for which `before` is false; it is true for all ranges ahead of that.
    fn place(&self, before: impl Fn(&Range<u64>) -> bool) -> (usize, usize) {
        let chunk = self.all.partition_point(|chunk| chunk.last().is_some_and(&before));
        (chunk, self.all.get(chunk).map_or(0, |ranges| ranges.partition_point(&before)))
    }

    /// Takes out the ranges from a place on that begin at or before `last`. Returns the range from the first to the last of
    /// them. The chunk of the place may be empty then.
    fn take_out(&mut self, (chunk, index): (usize, usize), last: u64) -> Option<Range<u64>> {
        let mut hull: Option<Range<u64>> = None;
        let (mut at, mut first) = (chunk, index);
        while let Some(ranges) = self.all.get_mut(at) {
            let end = ranges.partition_point(|old| old.start <= last).max(first);
            let is_all = end == ranges.len();
            for old in ranges.drain(first..end) {
                self.sectors -= old.end - old.start;
                self.ranges -= 1;
                hull = Some(hull.map_or(old.start, |hull| hull.start)..old.end);
            }
            if !is_all {
                break;
            }
            (at, first) = (at + 1, 0);
        }
        let behind = chunk + 1..at.min(self.all.len());
        if !behind.is_empty() {
            self.all.drain(behind);
        }
        hull
    }

    /// Adds a range.
    pub(super) fn insert(&mut self, mut new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        // Those that overlap or touch it become part of it.
        let (mut chunk, mut index) = self.place(|old| old.end < new.start);
        if let Some(hull) = self.take_out((chunk, index), new.end) {
            new = new.start.min(hull.start)..new.end.max(hull.end);
        }
        self.sectors += new.end - new.start;
        self.ranges += 1;
        if chunk == self.all.len() {
            match chunk.checked_sub(1) {
                Some(last) => (chunk, index) = (last, self.all[last].len()),
                None => self.all.push(Vec::new()),
            }
        }
        let is_last = chunk + 1 == self.all.len();
        let ranges = &mut self.all[chunk];
        ranges.insert(index, new);
        if ranges.len() > CHUNK {
            // Sets mostly grow at their end: there chunks stay full.
            let half = if is_last && index == CHUNK { CHUNK } else { CHUNK / 2 };
            let rest = ranges.split_off(half);
            self.all.insert(chunk + 1, rest);
        }
    }

    /// Takes a range out.
    pub(super) fn remove(&mut self, gone: &Range<u64>) {
        if gone.is_empty() {
            return;
        }
        let place = self.place(|old| old.end <= gone.start);
        let hull = self.take_out(place, gone.end - 1);
        if self.all.get(place.0).is_some_and(Vec::is_empty) {
            self.all.remove(place.0);
        }
        if let Some(hull) = hull {
            self.insert(hull.start..gone.start);
            self.insert(gone.end..hull.end);
        }
    }

    /// Adds a range that does not begin before the last one.
    pub(super) fn push(&mut self, new: Range<u64>) {
        if new.is_empty() {
            return;
        }
        if let Some(last) = self.all.last_mut().and_then(|ranges| ranges.last_mut())
            && new.start <= last.end
        {
            let end = new.end.max(last.end);
            self.sectors += end - last.end;
            last.end = end;
            return;
        }
        self.sectors += new.end - new.start;
        self.ranges += 1;
        match self.all.last_mut().filter(|ranges| ranges.len() < CHUNK) {
            Some(ranges) => ranges.push(new),
            None => self.all.push(vec![new]),
        }
    }

    /// The ranges that end behind a sector.
    pub(super) fn iter_from(&self, sector: u64) -> impl Iterator<Item = Range<u64>> {
        let (chunk, index) = self.place(|old| old.end <= sector);
        let (first, rest) = match self.all.get(chunk) {
            Some(ranges) => (&ranges[index..], &self.all[chunk + 1..]),
            None => (&[][..], &[][..]),
        };
        first.iter().chain(rest.iter().flatten()).cloned()
    }

    /// Takes no more memory than it must.
    pub(super) fn shrink(&mut self) {
        self.all.iter_mut().for_each(Vec::shrink_to_fit);
        self.all.shrink_to_fit();
    }

    #[cfg(test)]
    pub(super) fn each(&self) -> &[Vec<Range<u64>>] {
        &self.all
    }
}
