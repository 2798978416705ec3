//! What a job does next: the copy in bulk, then salvage of what failed, then zeros for what is lost. Pure.
//!
//! A plan holds no list of what is to be done. That follows from the figures: whatever a live destination lacks, and is
//! neither unreadable nor suspect, is copied in bulk. So a job that was paused, killed or retried goes on by the same rule.
//!
//! # Salvage, and how it stays bounded
//! A piece that cannot be read is *suspect*. With `on_read_error=zero|skip` it is bisected down to the logical block: the
//! hole is never larger than the device forces. One bad block in a piece of 1024 costs about 20 requests. Bisecting a dead
//! area would cost one request a block and more; so after [`DEAD`] sectors have failed without a good block between them,
//! each further suspect piece is first probed at [`PROBES`] places: only if one of them can be read is it bisected, else
//! it is given up whole. A dead gigabyte so costs some 50,000 requests and not two million.
//!
//! The system makes one request of neighbours, and lets all of it fail: a piece alone may be good. With `ignore_error` a piece
//! that cannot be read is read once more by itself; then it is zeros. One that a destination does not take is written there
//! again by halves, so that only the bad blocks are missing, but for no more than [`NARROWED`] of them.
//!
//! A block that failed is tried `retries` times more. A piece that one destination could not take is read again and
//! written to that destination alone, as often; a destination with more than [`REWRITES`] such pieces is given up.
//!
//! # Stop
//! With `on_read_error=stop` the first piece that cannot be read ends the copy. Its first bad block is looked for then, by
//! some ten reads, so that `errors` and the map name it. Of other pieces that failed with it nothing is said: they may be
//! good, see above, and nobody has looked.
//!
//! # Order
//! What reads well is copied first, the suspects after it: a dying disk gives the most that way. A job that must go in
//! order (`write_seq`, `digest=`) stops at each suspect, and does what comes first on the source before it goes on.

use std::ops::Range;

use self::locate::Locate;
use self::suspect::Suspect;
pub(crate) use self::suspect::halves;
use super::step::Step;
use crate::dm_io::ErrorBits;
use crate::figures::{Progress, RangeSet};
use crate::kcopyd::{Flags, Piece};
use crate::spec::{Action, OnReadError, OnWriteError, Spec};

/// Sectors that fail one after the other before an area counts as dead: 4 MiB.
const DEAD: u64 = 8192;
/// Places at which a piece in a dead area is probed.
const PROBES: u64 = 8;
/// Pieces that a destination may have failed to take before it is given up.
const REWRITES: usize = 64;
/// Different ranges that are narrowed down, a destination; beyond them whole pieces are told.
const NARROWED: u64 = 1000;

/// What becomes of what cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnRead {
    Stop,
    Zero,
    Skip,
    /// kcopyd's `IGNORE_ERROR`: zeros, by the piece.
    Ignore,
}

/// A job's plan.
// One flag a policy.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug)]
pub(crate) struct Plan {
    action: Action,
    on_read: OnRead,
    stops_on_write: bool,
    retries: u32,
    ordered: bool,
    in_order: bool,
    /// Sectors in the coarsest logical block of the job's devices.
    block: u64,
    /// Last in, first out; halves ascend.
    suspects: Vec<Suspect>,
    current: Option<Suspect>,
    /// Pieces for which the job is about to stop, the first on the source first.
    locating: Vec<Locate>,
    zeroed: RangeSet,
    /// Sectors that failed one after the other.
    dead: u64,
    narrowed: u64,
    /// The job ends for what happened.
    pub(crate) fatal: bool,
}

impl Plan {
    pub(crate) fn new(spec: &Spec, block: u64) -> Self {
        let ignores = spec.ignore_error && !spec.write_seq;
        let on_read = match spec.on_read_error {
            _ if ignores => OnRead::Ignore,
            OnReadError::Stop => OnRead::Stop,
            OnReadError::Zero => OnRead::Zero,
            OnReadError::Skip => OnRead::Skip,
        };
        Self {
            action: spec.action,
            on_read,
            stops_on_write: spec.on_write_error == OnWriteError::Stop,
            retries: spec.retries,
            ordered: spec.write_seq || spec.digest.is_some(),
            in_order: spec.write_seq,
            block,
            suspects: Vec::new(),
            current: None,
            locating: Vec::new(),
            zeroed: RangeSet::new(),
            dead: 0,
            narrowed: 0,
            fatal: false,
        }
    }

    /// The next step of the copy; `None` when all is copied, given up, or the job ends.
    pub(crate) fn next(&mut self, spec: &Spec, progress: &mut Progress) -> Option<Step> {
        self.current = None;
        if self.fatal || progress.live().is_empty() {
            return None;
        }
        if !self.locating.is_empty() {
            return self.next_locate(spec, progress);
        }
        if self.ordered {
            return self.next_in_order(spec, progress);
        }
        let step = self.next_bulk(progress).or_else(|| self.next_suspect(spec, progress));
        step.or_else(|| self.next_zero(progress))
    }

    /// The next read that narrows down why the job stops, or its end.
    fn next_locate(&mut self, spec: &Spec, progress: &mut Progress) -> Option<Step> {
        while let Some(locate) = self.locating.first() {
            if let Some(range) = locate.next(self.block) {
                return Some(Step::Probe { range });
            }
            // One that can be read by itself had a bad neighbour, unless there is none.
            if locate.has_failed_again() || self.locating.len() == 1 {
                break;
            }
            self.locating.remove(0);
        }
        for locate in self.locating.drain(..).take(1) {
            let (range, errno) = locate.seen();
            if locate.has_failed_again() && range.end - range.start <= self.block {
                progress.unreadable(spec, range, errno);
            } else {
                progress.read_failed(spec, range, errno);
            }
        }
        self.fatal = true;
        None
    }

    /// Whatever comes first on the source. A piece that failed may leave others undone on both sides of it.
    fn next_in_order(&mut self, spec: &Spec, progress: &mut Progress) -> Option<Step> {
        loop {
            let bulk = self.next_bulk(progress);
            let zero = self.first_unzeroed(progress);
            let suspects = self.suspects.iter().enumerate();
            let suspect = suspects.map(|(place, suspect)| (suspect.range().start, place)).min();
            let starts = [zero.map(|range| range.start), bulk.as_ref().map(|step| step.range().start)];
            match suspect {
                Some((start, place)) if starts.iter().flatten().all(|other| start < *other) => {
                    let suspect = self.suspects.remove(place);
                    if let Some(step) = self.look_at(suspect, spec, progress) {
                        return Some(step);
                    }
                }
                _ if starts[0].is_some_and(|zero| starts[1].is_none_or(|bulk| zero < bulk)) => {
                    return self.next_zero(progress);
                }
                _ => return bulk,
            }
        }
    }

    /// The first range that a live destination lacks and nobody has given up, and all that lack it.
    fn next_bulk(&self, progress: &Progress) -> Option<Step> {
        let mut apart: RangeSet = self.suspects.iter().map(|suspect| suspect.range().clone()).collect();
        apart = apart.union(&progress.unreadable);
        let lack = |index: usize| {
            let dest = &progress.dests[index];
            dest.taken.union(dest.lost()).union(&apart).gaps(0..progress.total)
        };
        let lacks: Vec<(usize, RangeSet)> = progress.live().iter().map(|index| (index, lack(index))).collect();
        let start = lacks.iter().filter_map(|(_, lack)| Some(lack.iter().next()?.start)).min()?;
        let (mut dests, mut end) = (ErrorBits::NONE, progress.total);
        for (index, lack) in &lacks {
            match lack.iter().next() {
                Some(range) if range.start == start => {
                    dests.set(*index);
                    end = end.min(range.end);
                }
                Some(range) => end = end.min(range.start),
                None => {}
            }
        }
        let range = start..end;
        Some(match self.action {
            Action::Copy | Action::Verify => Step::Copy { range, dests, flags: self.flags() },
            Action::Zero => Step::Zero { range, dests, flags: self.flags() },
        })
    }

    fn flags(&self) -> Flags {
        let order = if self.in_order { Flags::WRITE_SEQ } else { Flags::NONE };
        let read = match self.on_read {
            OnRead::Stop if self.retries == 0 => Flags::NONE,
            _ if self.ordered => Flags::NONE,
            _ => Flags::SKIP_UNREADABLE,
        };
        let write = match (self.retries, self.stops_on_write) {
            (0, false) if self.on_read == OnRead::Ignore => Flags::KEEP_FAILED,
            (0, false) => Flags::DROP_FAILED,
            (0, true) => Flags::NONE,
            _ if self.ordered => Flags::NONE,
            _ => Flags::KEEP_FAILED,
        };
        order | read | write
    }

    fn next_suspect(&mut self, spec: &Spec, progress: &mut Progress) -> Option<Step> {
        while let Some(suspect) = self.suspects.pop() {
            let step = self.look_at(suspect, spec, progress);
            if step.is_some() {
                return step;
            }
        }
        None
    }

    /// The step that clears a suspect up, unless it is known what becomes of it.
    fn look_at(&mut self, suspect: Suspect, spec: &Spec, progress: &mut Progress) -> Option<Step> {
        let live = progress.live();
        let (range, dests) = match &suspect {
            Suspect::Split { range, errno } => {
                self.split(range, *errno);
                return None;
            }
            Suspect::Read { range, .. } => (range.clone(), live),
            Suspect::Probe { range, place, errno } => {
                if *place == PROBES {
                    Self::give_up(spec, progress, range, *errno);
                    return None;
                }
                (self.probe_block(range, *place), live)
            }
            Suspect::Write { dest, .. } if !live.contains(*dest) => return None,
            Suspect::Write { range, dest, .. } => {
                let mut one = ErrorBits::NONE;
                one.set(*dest);
                (range.clone(), one)
            }
        };
        let probes = matches!(suspect, Suspect::Probe { .. });
        self.current = Some(suspect);
        if probes && self.ordered {
            return Some(Step::Probe { range });
        }
        // One piece or few: what fails of it comes back here.
        let flags = if self.in_order { Flags::WRITE_SEQ } else { Flags::NONE } | Flags::KEEP_FAILED;
        Some(match self.action {
            Action::Zero => Step::Zero { range, dests, flags },
            _ => Step::Copy { range, dests, flags },
        })
    }

    /// Bisects a range, or has it probed first where its neighbourhood is dead.
    fn split(&mut self, range: &Range<u64>, errno: i32) {
        let blocks = (range.end - range.start) / self.block;
        if self.dead >= DEAD && blocks > PROBES {
            self.suspects.push(Suspect::Probe { range: range.clone(), place: 0, errno });
            return;
        }
        // The last one is taken first.
        let [first, second] = halves(range, self.block);
        self.suspects.extend([second, first].map(|range| Suspect::Read { range, tries: 0 }));
    }

    /// The block at a place of a range: the first, the last, and between them evenly.
    fn probe_block(&self, range: &Range<u64>, place: u64) -> Range<u64> {
        let last = (range.end - range.start) / self.block - 1;
        let start = range.start + place * last / (PROBES - 1) * self.block;
        start..start + self.block
    }

    fn give_up(spec: &Spec, progress: &mut Progress, range: &Range<u64>, errno: i32) {
        for range in Self::left_of(progress, range) {
            progress.unreadable(spec, &range, errno);
        }
    }

    /// What of a range no live destination has got meanwhile.
    fn left_of(progress: &Progress, range: &Range<u64>) -> Vec<Range<u64>> {
        let live = progress.live();
        let taken = live.iter().next().map_or(RangeSet::new(), |index| progress.dests[index].taken.clone());
        taken.gaps(range.clone()).iter().collect()
    }

    /// The first lost range that the destinations have no zeros for yet.
    fn first_unzeroed(&self, progress: &Progress) -> Option<Range<u64>> {
        let fills = matches!(self.on_read, OnRead::Zero | OnRead::Ignore);
        if fills { progress.unreadable.without(&self.zeroed).iter().next() } else { None }
    }

    fn next_zero(&mut self, progress: &Progress) -> Option<Step> {
        let range = self.first_unzeroed(progress)?;
        self.zeroed.insert(range.clone());
        let flags = if self.stops_on_write { Flags::NONE } else { Flags::DROP_FAILED };
        Some(Step::Zero { range, dests: progress.live(), flags })
    }

    /// A piece of a copy has ended.
    pub(crate) fn piece(&mut self, spec: &Spec, step: &Step, piece: &Piece<'_>, progress: &mut Progress) {
        let start = step.range().start + piece.offset.get();
        let range = start..start + piece.count.get();
        let fills = matches!(step, Step::Zero { .. }) && self.action != Action::Zero;
        if let (Step::Probe { .. }, Some(locate)) = (step, self.locating.first_mut()) {
            match piece.read_error {
                Some(errno) => locate.failed(&range, errno),
                None => locate.was_read(&range),
            }
            return;
        }
        if let Some(errno) = piece.read_error {
            self.read_failed(spec, progress, &range, errno);
        } else {
            if !fills {
                self.dead = 0;
            }
            if !fills && !matches!(step, Step::Probe { .. }) {
                progress.taken(&range, piece.written);
            }
            if let Some(Suspect::Probe { range, errno, .. }) =
                self.current.take_if(|now| matches!(now, Suspect::Probe { .. }))
            {
                self.suspects.push(Suspect::Split { range, errno });
            }
        }
        for (index, errno) in piece.write_errors {
            if fills {
                // There is nothing to read again: it could not be read in the first place.
                self.lost(spec, progress, *index, &range, *errno);
            } else {
                self.write_failed(spec, progress, *index, &range, *errno);
            }
        }
    }

    /// What a destination was given is lost, and trying again does not help.
    pub(crate) fn lost(&mut self, spec: &Spec, progress: &mut Progress, dest: usize, range: &Range<u64>, errno: i32) {
        progress.write_failed(spec, dest, range, errno);
        self.fatal |= self.stops_on_write;
    }

    fn read_failed(&mut self, spec: &Spec, progress: &mut Progress, range: &Range<u64>, errno: i32) {
        let tries = match &self.current {
            // The system makes one request of neighbours, and that fails whole: only what is read alone is lost.
            None if self.on_read == OnRead::Ignore => {
                self.suspects.push(Suspect::Read { range: range.clone(), tries: 0 });
                return;
            }
            Some(Suspect::Probe { range, place, errno }) => {
                let (range, place, errno) = (range.clone(), place + 1, *errno);
                self.suspects.push(Suspect::Probe { range, place, errno });
                return;
            }
            Some(Suspect::Read { tries, .. }) => *tries,
            _ => 0,
        };
        let bisects = matches!(self.on_read, OnRead::Zero | OnRead::Skip);
        if bisects && range.end - range.start > self.block {
            self.suspects.push(Suspect::Split { range: range.clone(), errno });
        } else if tries < self.retries {
            self.suspects.push(Suspect::Read { range: range.clone(), tries: tries + 1 });
        } else if self.on_read == OnRead::Stop {
            progress.read_err = true;
            let place = self.locating.partition_point(|other| other.seen().0.start < range.start);
            self.locating.insert(place, Locate::new(range.clone(), errno));
        } else {
            self.dead += range.end - range.start;
            progress.unreadable(spec, range, errno);
        }
    }

    fn write_failed(&mut self, spec: &Spec, progress: &mut Progress, dest: usize, range: &Range<u64>, errno: i32) {
        let (tries, alone) = match &self.current {
            Some(Suspect::Write { tries, .. }) => (*tries, true),
            _ => (0, false),
        };
        let is_rewrite = |suspect: &&Suspect| matches!(suspect, Suspect::Write { dest: other, .. } if *other == dest);
        let rewrites = self.suspects.iter().filter(is_rewrite).count() < REWRITES;
        let write = |range, tries| Suspect::Write { range, dest, tries };
        if self.on_read == OnRead::Ignore && rewrites && self.narrowed < NARROWED {
            if !alone {
                return self.suspects.push(write(range.clone(), 0));
            }
            if range.end - range.start > self.block {
                let [first, second] = halves(range, self.block);
                return self.suspects.extend([write(second, 0), write(first, 0)]);
            }
            self.narrowed += u64::from(tries == self.retries);
        }
        if tries < self.retries && rewrites {
            return self.suspects.push(write(range.clone(), tries + 1));
        }
        self.lost(spec, progress, dest, range, errno);
    }

    /// Destinations were given up for a flush.
    pub(crate) fn flush_failed(&mut self, lost: ErrorBits) {
        self.fatal |= self.stops_on_write && !lost.is_empty();
    }

    /// The step that was given last is not done now: something comes before it.
    pub(crate) fn put_back(&mut self) {
        self.suspects.extend(self.current.take());
        // Writing zeros once more than needed does no harm.
        self.zeroed = RangeSet::new();
    }

    /// The comparison of what is left to compare, from `done` on.
    pub(crate) fn next_compare(&self, progress: &Progress, done: &RangeSet) -> Option<Step> {
        if self.fatal || progress.compared().is_empty() {
            return None;
        }
        let apart = done.union(&progress.unreadable);
        let range = apart.gaps(0..progress.total).iter().next()?;
        Some(Step::Compare { range, dests: progress.compared() })
    }

    /// A piece of a comparison has ended; `true` if it should be looked at again in halves.
    pub(crate) fn compared(&mut self, range: &Range<u64>, different: ErrorBits) -> bool {
        let narrows = !different.is_empty() && range.end - range.start > self.block && self.narrowed < NARROWED;
        self.narrowed += u64::from(!different.is_empty() && !narrows);
        narrows
    }

    /// Sectors in the coarsest logical block.
    pub(crate) fn block(&self) -> u64 {
        self.block
    }
}

mod locate;
mod suspect;
#[cfg(test)]
mod tests;
