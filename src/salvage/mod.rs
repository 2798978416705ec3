//! What a job does next, from its figures, and what a piece that has ended means for it. Pure.
//!
//! ```text
//! Salvage::next ─> Step ─> request() ─> kcopyd
//!      ^                                  │
//!      └── figures <── Salvage::piece <───┘  a piece has ended
//! ```

mod plan;
mod recheck;
mod step;

use std::ops::Range;

use self::plan::Plan;
use self::recheck::{Recheck, Whose};
pub(crate) use self::step::{Step, request};
use crate::dm_io::ErrorBits;
use crate::figures::{DIFFERENT, Hashing, Progress, RangeSet};
use crate::kcopyd::Piece;
use crate::spec::{Action, Spec};

/// What a job is doing of its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Copies, or writes zeros.
    Copy,
    /// Reads back and compares.
    Verify,
}

impl Phase {
    /// The phase in which a job begins.
    pub(crate) fn first_of(spec: &Spec) -> Self {
        if spec.action == Action::Verify { Self::Verify } else { Self::Copy }
    }
}

/// What the engine is told because of a piece that has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reaction {
    /// Destinations that take no part any more.
    pub(crate) give_up: ErrorBits,
    /// The step ends.
    pub(crate) cancel: bool,
    /// The source's digest cannot be made any more.
    pub(crate) digest_lost: bool,
}

/// What a job works with from its first step to its end. What it holds follows from the figures.
#[derive(Debug)]
pub(crate) struct Salvage {
    plan: Plan,
    /// What has been compared.
    compared: RangeSet,
    /// Pieces that were different or could not be read, to be narrowed down.
    recheck: Recheck,
}

impl Salvage {
    /// For a job on devices whose coarsest logical block has `block` sectors.
    pub(crate) fn new(spec: &Spec, block: u64) -> Self {
        Self { plan: Plan::new(spec, block), compared: RangeSet::new(), recheck: Recheck::default() }
    }

    /// Whether the job ends for what happened.
    pub(crate) fn is_fatal(&self) -> bool {
        self.plan.fatal
    }

    /// The next step of the work; `None` when this phase is over.
    pub(crate) fn next(
        &mut self,
        spec: &Spec,
        phase: Phase,
        progress: &mut Progress,
        hashing: Option<&mut Hashing>,
    ) -> Option<Step> {
        if phase == Phase::Verify {
            if let Some(range) = self.recheck.next() {
                return Some(Step::Compare { range, dests: progress.compared() });
            }
            return self.plan.next_compare(progress, &self.compared);
        }
        let step = self.plan.next(spec, progress);
        let Some(hashing) = hashing.filter(|_| !matches!(step, Some(Step::Probe { .. }))) else {
            return step;
        };
        // What lies before the step was copied by an earlier run of the daemon, or could not be read.
        let due = step.as_ref().map_or(progress.total, |step| step.range().start);
        while hashing.at() < due && !self.plan.fatal {
            let gap = progress.unreadable.gaps(hashing.at()..due).iter().next();
            match gap {
                Some(range) if range.start == hashing.at() => {
                    self.plan.put_back();
                    return Some(Step::Compare { range, dests: ErrorBits::NONE });
                }
                gap => hashing.see_zeros(&(hashing.at()..gap.map_or(due, |range| range.start))),
            }
        }
        step
    }

    /// A piece of a step has ended. `gone` are destinations that are files and were taken away, and why.
    pub(crate) fn piece(
        &mut self,
        spec: &Spec,
        phase: Phase,
        step: &Step,
        piece: &Piece<'_>,
        gone: &[(usize, i32)],
        progress: &mut Progress,
    ) -> Reaction {
        let start = step.range().start + piece.offset.get();
        let range = start..start + piece.count.get();
        match (phase, step) {
            (Phase::Verify, _) => self.compared(spec, step, range, piece, progress),
            // Read once more for the digest alone.
            (Phase::Copy, Step::Compare { .. }) => {
                let digest_lost = piece.read_error.is_some();
                if digest_lost {
                    let what = || "no digest: what was copied before cannot be read again".to_owned();
                    progress.error.get_or_insert_with(what);
                }
                Reaction { digest_lost, ..Reaction::default() }
            }
            (Phase::Copy, _) => self.copied(spec, step, &range, piece, gone, progress),
        }
    }

    fn copied(
        &mut self,
        spec: &Spec,
        step: &Step,
        range: &Range<u64>,
        piece: &Piece<'_>,
        gone: &[(usize, i32)],
        progress: &mut Progress,
    ) -> Reaction {
        let (was_fatal, before) = (self.plan.fatal, progress.live());
        self.plan.piece(spec, step, piece, progress);
        for (index, errno) in gone {
            self.plan.lost(spec, progress, *index, range, *errno);
        }
        let cancel = self.plan.fatal && !was_fatal && !step.ends_for(piece);
        Reaction { give_up: before.without(progress.live()), cancel, digest_lost: false }
    }

    fn compared(
        &mut self,
        spec: &Spec,
        step: &Step,
        range: Range<u64>,
        piece: &Piece<'_>,
        progress: &mut Progress,
    ) -> Reaction {
        let Self { plan, compared, recheck } = self;
        compared.insert(range.clone());
        let whose = match (piece.read_error, piece.write_errors) {
            (Some(_), _) => Some(Whose::Source),
            (None, []) => None,
            (None, _) => Some(Whose::Dest),
        };
        match whose {
            None => recheck.was_read(Whose::Dest),
            Some(whose) => {
                let alone = *step.range() == range;
                if recheck.failed(&range, whose, alone, plan.block(), spec.retries) {
                    return Reaction::default();
                }
            }
        }
        if let Some(errno) = piece.read_error {
            progress.unreadable(spec, &range, errno);
            return Reaction::default();
        }
        recheck.was_read(Whose::Source);
        if spec.action == Action::Verify {
            progress.found_equal(&range, piece.written);
        } else {
            progress.regained(&range, piece.written);
        }
        for (index, errno) in piece.write_errors {
            progress.verify_failed(spec, *index, &range, *errno);
        }
        if plan.compared(&range, piece.different) {
            recheck.halve(&range, plan.block());
            return Reaction::default();
        }
        for index in piece.different.iter() {
            progress.verify_failed(spec, index, &range, DIFFERENT);
        }
        Reaction::default()
    }

    /// Destinations that are files were taken away: all that they had is lost.
    pub(crate) fn vanished(&mut self, spec: &Spec, gone: &[(usize, i32)], progress: &mut Progress) {
        let all = 0..progress.total;
        for (index, errno) in gone {
            self.plan.lost(spec, progress, *index, &all, *errno);
        }
    }

    /// Those flushes failed. Returns the destinations that are given up for it.
    pub(crate) fn flush_failed(&mut self, spec: &Spec, failed: &[(usize, i32)], progress: &mut Progress) -> ErrorBits {
        let lost = progress.flush_failed(spec, failed);
        self.plan.flush_failed(lost);
        lost
    }
}
