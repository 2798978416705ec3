//! Enters each piece into the job's figures and plan, on the engine's thread.

use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use super::job::{Job, Life, Phase, Work};
use super::plan::Step;
use super::progress::DIFFERENT;
use super::recheck::Whose;
use super::run::Shared;
use super::view::State;
use crate::kcopyd::{Bytes, Observer, Piece};
use crate::sector::Sector;
use crate::spec::Action;

pub(super) struct Watcher {
    pub(super) shared: Weak<Shared>,
    pub(super) job: Arc<Job>,
}

impl Observer for Watcher {
    fn piece(&mut self, piece: &Piece<'_>) {
        let mut life = self.job.lock();
        let life = &mut *life;
        let before = life.progress.copied();
        match life.phase {
            Phase::Verify => self.compared(life, piece),
            Phase::Copy => self.copied(life, piece),
        }
        let copied = life.progress.copied();
        if copied > before {
            if let Some(work) = &mut life.work {
                work.meter.sample(Instant::now(), copied);
            }
            life.progressed = SystemTime::now();
        }
        if let Some(shared) = Weak::upgrade(&self.shared) {
            shared.counters.piece(piece, copied.saturating_sub(before));
        }
    }

    fn data(&mut self, offset: Sector, bytes: &Bytes<'_>) {
        let mut life = self.job.lock();
        let Life { running, hashing, .. } = &mut *life;
        if let (Some(running), Some(hashing)) = (running, hashing)
            && !matches!(running.step, Step::Probe { .. })
        {
            hashing.see(running.step.range().start + offset.get(), bytes);
        }
    }

    fn quiesced(&mut self) {
        let Some(shared) = Weak::upgrade(&self.shared) else { return };
        let mut life = self.job.lock();
        let paused = life.state == State::Paused;
        let behind = life.progress.dests.iter().any(|dest| dest.taken != dest.durable);
        // Of a pause that was taken back meanwhile nobody wants to hear.
        let Some(running) = life.running.as_mut().filter(|running| running.pausing) else { return };
        // One that was taken back and asked for again is told twice, and pieces may have ended between.
        let again = std::mem::replace(&mut running.quiet, true);
        if paused && (behind || !again) {
            // What was copied before a pause survives it.
            shared.checkpoint(&self.job, life, |_, _| {});
        } else {
            drop(life);
            shared.tell_moved();
        }
    }
}

impl Watcher {
    fn copied(&self, life: &mut Life, piece: &Piece<'_>) {
        let Life { running, work, progress, hashing, opened, .. } = life;
        let (Some(running), Some(work), Some(opened)) = (running, work, opened) else { return };
        let plan = &mut work.plan;
        if let Step::Compare { .. } = running.step {
            // Read once more for the digest alone.
            if piece.read_error.is_some() {
                *hashing = None;
                progress
                    .error
                    .get_or_insert_with(|| "no digest: what was copied before cannot be read again".to_owned());
            }
            return;
        }
        let was_fatal = plan.fatal;
        let before = progress.live();
        plan.piece(&self.job.spec, &running.step, piece, progress);
        let start = running.step.range().start + piece.offset.get();
        for (index, errno) in opened.lost(piece.written) {
            plan.lost(&self.job.spec, progress, index, &(start..start + piece.count.get()), errno);
        }
        let lost = before.without(progress.live());
        if !lost.is_empty() {
            running.handle.give_up(lost);
        }
        if plan.fatal && !was_fatal && !running.step.ends_for(piece) {
            running.handle.cancel();
        }
    }

    fn compared(&self, life: &mut Life, piece: &Piece<'_>) {
        let Life { running, work, progress, .. } = life;
        let (Some(running), Some(work)) = (running, work) else { return };
        let Work { plan, compared, recheck, .. } = &mut **work;
        let spec = &self.job.spec;
        let start = running.step.range().start + piece.offset.get();
        let range = start..start + piece.count.get();
        compared.insert(range.clone());
        let whose = match (piece.read_error, piece.write_errors) {
            (Some(_), _) => Some(Whose::Source),
            (None, []) => None,
            (None, _) => Some(Whose::Dest),
        };
        match whose {
            None => recheck.was_read(Whose::Dest),
            Some(whose) => {
                let alone = *running.step.range() == range;
                if recheck.failed(&range, whose, alone, plan.block(), spec.retries) {
                    return;
                }
            }
        }
        if let Some(errno) = piece.read_error {
            return progress.unreadable(spec, &range, errno);
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
            return recheck.halve(&range, plan.block());
        }
        for index in piece.different.iter() {
            progress.verify_failed(spec, index, &range, DIFFERENT);
        }
    }
}
