//! Enters each piece into the job's figures and plan, on the engine's thread.

use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use super::job::{Job, Life};
use super::run::Shared;
use super::view::State;
use crate::kcopyd::{Bytes, Observer, Piece};
use crate::salvage::Step;
use crate::sector::Sector;

pub(super) struct Watcher {
    pub(super) shared: Weak<Shared>,
    pub(super) job: Arc<Job>,
}

impl Observer for Watcher {
    fn piece(&mut self, piece: &Piece<'_>) {
        let mut life = self.job.lock();
        let life = &mut *life;
        let before = life.progress.copied();
        self.enter(life, piece);
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
    fn enter(&self, life: &mut Life, piece: &Piece<'_>) {
        let Life { running, work, progress, hashing, opened, phase, .. } = life;
        let (Some(running), Some(work), Some(opened)) = (running, work, opened) else { return };
        let gone: Vec<_> = opened.lost(piece.written).collect();
        let reaction = work.salvage.piece(&self.job.spec, *phase, &running.step, piece, &gone, progress);
        if !reaction.give_up.is_empty() {
            running.handle.give_up(reaction.give_up);
        }
        if reaction.cancel {
            running.handle.cancel();
        }
        if reaction.digest_lost {
            *hashing = None;
        }
    }
}
