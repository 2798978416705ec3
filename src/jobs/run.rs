//! From a job's first step to its end.
//!
//! # Protocol of a run
//! 1. A step is asked for: by the plan, from the figures. The engine does it; each piece that ends is entered into the
//!    figures and the plan. When the step has ended the plan says the next.
//! 2. When the plan has none, every destination that takes part is flushed; then, if asked for, compared.
//! 3. What destinations lack that fell behind is done by the same rules, see [`behind`](super::behind).
//! 4. The end is recorded, with the last checkpoint; the devices are closed, the state changes.
//!
//! # Protocol of a checkpoint, a destination
//! 1. What it has taken is marked: completed writes only. One flush of a destination is under way at a time.
//! 2. It is flushed. What fails is that destination's error. One that hangs keeps back only itself.
//! 3. The record, with what was marked, is written durably.
//! 4. `durable` and the map move.
//!
//! [`Job::go_on`] is called whenever something of a job has changed, and looks at the state alone: what is to be done
//! follows from it, so that no order of events is special.

use std::ops::Range;
use std::sync::Arc;

use super::behind::late_dests;
use super::effect::{Effect, Start};
use super::event::{EndedPiece, Reply};
use super::job::{Claim, Devices, Job, Until};
use super::state::Life;
use super::turn::Turn;
use super::verbs::{End, verdict};
use super::view::State;
use super::work::{Flush, Pace, StepRun};
use crate::dm_io::ErrorBits;
use crate::error::{Error, Result};
use crate::figures::{Hashing, RangeSet, sums_text};
use crate::salvage::{Phase, Step, request};

impl Job {
    /// Does what its state asks for now.
    pub(super) fn go_on(&mut self, turn: &mut Turn<'_>) {
        self.let_go_of_dropped(turn);
        match self.life() {
            Life::Starting(_) => self.start(turn),
            Life::Running | Life::Verifying if turn.stopping => _ = self.is_flushed_when_quiet(turn),
            Life::Running | Life::Verifying => self.advance(turn),
            Life::Flushing => {
                if self.is_flushed(turn) {
                    self.after_flush(turn);
                }
            }
            Life::Paused(_) => _ = self.is_flushed_when_quiet(turn),
            Life::Cancelling(_) => {
                let is_at_work = self.work.as_ref().is_some_and(|work| work.step.is_some());
                if !is_at_work && !self.awaits_answers() && self.is_flushed(turn) {
                    self.conclude(State::Cancelled, turn);
                }
            }
            Life::Ending(end, _) => {
                let end = *end;
                if self.recording.is_idle() {
                    self.close(end, turn);
                }
            }
            Life::Queued(_) | Life::Held(_) | Life::Ended(_) => {}
        }
    }

    /// The next step, or the end of the phase.
    fn advance(&mut self, turn: &mut Turn<'_>) {
        let work = self.work();
        match &mut work.step {
            Some(step) => {
                if matches!(step.pace, Pace::Pausing | Pace::Quiet) {
                    step.pace = Pace::Going;
                    turn.push(Effect::Resume(self.id()));
                }
                return;
            }
            None if work.drained.is_none() => {
                if !self.is_anybodys_turn() {
                    return;
                }
                if let Some(step) = self.next_step() {
                    return self.start_step(step, turn);
                }
                self.drain(turn);
            }
            None => {}
        }
        if *self.life() == Life::Flushing {
            self.go_on(turn);
        } else if self.is_flushed(turn) {
            self.after_flush(turn);
        }
    }

    fn next_step(&mut self) -> Option<Step> {
        let phase = self.phase;
        self.work();
        let Self { work: Some(work), progress, spec, .. } = self else { return None };
        let hashed = work.hashing.as_deref().map(Hashing::at);
        work.salvage.next(spec, phase, progress, hashed)
    }

    fn start_step(&mut self, step: Step, turn: &mut Turn<'_>) {
        let Self { work: Some(work), devices: Devices::Open(opened), card, spec, progress, seed, .. } = self else {
            unreachable!("a job that runs is open")
        };
        if let (Step::HashZeros { range }, Some(hashing)) =
            (&step, work.hashing.take_if(|_| matches!(step, Step::HashZeros { .. })))
        {
            let range = range.clone();
            work.step = Some(StepRun { step, pace: Pace::Going });
            return turn.push(Effect::HashZeros { id: card.id, hashing, range });
        }
        if let (Step::FindHoles { range }, Some(source)) = (&step, &opened.from) {
            let (source, range) = (source.clone(), range.clone());
            work.step = Some(StepRun { step, pace: Pace::Going });
            return turn.push(Effect::FindHoles { id: card.id, source, range });
        }
        let is_sick = progress.read_errors > 0;
        let request = request(spec, opened.from.as_ref(), &opened.dests, &card.speed_max, *seed, &step, is_sick);
        let hashing = if matches!(step, Step::Probe { .. }) { None } else { work.hashing.take() };
        let start = Start {
            card: Arc::clone(card),
            client: Arc::clone(&opened.client),
            request,
            hashing,
            first: step.range().start,
            files: opened.files(),
        };
        work.step = Some(StepRun { step, pace: Pace::Going });
        turn.push(Effect::Start(Box::new(start)));
    }

    /// There is no step left in this phase.
    fn drain(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Copy || !self.writes() {
            self.keep_speed(turn);
        }
        let goes_on = self.goes_on();
        self.work().drained = Some(goes_on);
        if self.phase == Phase::Copy && goes_on {
            self.change(Life::Flushing, None, turn);
        }
    }

    /// Whether the copy that was just flushed is compared next.
    fn is_compared_next(&self) -> bool {
        self.phase == Phase::Copy && self.spec().compares_after() && !self.progress.compared().is_empty()
    }

    /// Whether all that it has written is on stable storage, and nothing is left to do: the record of its end says both.
    fn is_over_when_recorded(&self) -> bool {
        let Some(work) = self.work.as_ref().filter(|_| *self.life() == Life::Flushing) else { return false };
        let is_flushed = |index: usize| {
            let (flush, dest) = (&work.flushes[index], &self.progress.dests[index]);
            match &flush.flushed {
                Some(mark) => flush.asked.is_none() && (*mark == dest.mark() || dest.is_doubtful()),
                None => flush.is_idle() && (!dest.needs_flush() || dest.is_doubtful()),
            }
        };
        self.awaited(true).iter().all(is_flushed) && !self.is_compared_next() && self.progress.behind().is_empty()
    }

    /// All that was to be flushed is, and is recorded, or will be with its end.
    fn after_flush(&mut self, turn: &mut Turn<'_>) {
        let complete = self.work().drained == Some(true) && self.goes_on();
        if complete && self.is_compared_next() {
            self.phase = Phase::Verify;
            self.work().drained = None;
            self.change(Life::Verifying, None, turn);
            return self.go_on(turn);
        }
        if complete {
            self.take_sums();
        }
        if complete && !self.progress.behind().is_empty() {
            return self.await_those_behind(turn);
        }
        let progress = &self.progress;
        let end = End {
            cancelled: false,
            complete,
            differs: self.work.as_ref().is_some_and(|work| work.differs),
            read_err: progress.read_err,
            dests: progress.dests.len(),
            failed: progress.given_up().count() as usize,
        };
        self.conclude(verdict(end), turn);
    }

    /// Makes the digests, once: whoever is behind is given the same again. What cannot be read has no sum.
    fn take_sums(&mut self) {
        let Self { work: Some(work), progress, spec, digest, .. } = self else { return };
        if progress.read_err && spec.digests.expects() {
            let why = "what cannot be read has no sum, so that nothing is known of the one in the spec";
            return progress.sums_differ(spec, why);
        }
        let Some(hashing) = work.hashing.take() else { return };
        let sums = hashing.sums();
        *digest = Some(sums_text(&sums));
        if let Some(why) = spec.digests.objection(&sums) {
            progress.sums_differ(spec, &why);
            work.differs = true;
        }
    }

    /// The engine did not take the step.
    pub(super) fn step_refused(&mut self, error: &Error, turn: &mut Turn<'_>) {
        let Some(work) = &mut self.work else { return };
        work.step = None;
        self.fail(error, turn);
    }

    /// Whether nothing of it is in flight: neither I/O nor a flush nor a record.
    pub(super) fn is_at_rest(&self) -> bool {
        let works = self.work.as_ref().is_some_and(|work| !work.is_quiet() || work.flushing_since().is_some());
        !works && self.recording.is_idle()
    }

    /// A piece of the step has ended.
    pub(super) fn piece_ended(&mut self, ended: &EndedPiece, turn: &mut Turn<'_>) {
        let done = self.done();
        let Self { work: Some(work), progress, card, spec, phase, .. } = self else { return };
        let Some(run) = &work.step else { return };
        let (before, compared_before) = (progress.moved, progress.verified);
        let reaction = work.salvage.piece(spec, *phase, &run.step, &ended.piece(), &ended.gone, progress);
        let dropped = reaction.give_up;
        if !dropped.is_empty() {
            turn.push(Effect::GiveUp(card.id, dropped));
        }
        if reaction.cancel {
            turn.push(Effect::Cancel(card.id));
        }
        if reaction.digest_lost {
            work.hashing = None;
        }
        let moved = progress.moved;
        // What a comparison finds equal is copied and compared at once.
        let more = moved.saturating_sub(before).max(progress.verified.saturating_sub(compared_before));
        if more > 0 {
            card.show(|shown| shown.speeds.add(shown.watch.elapsed(turn.now.instant), more));
        }
        let (has_grown, before) = (moved > before, done);
        let done = self.done();
        if has_grown || done > before {
            self.card.show(|shown| {
                if let Some(meter) = &mut shown.meter {
                    meter.sample(turn.now.instant, done);
                }
                shown.progressed = turn.now.wall;
            });
        }
        self.log_drops(dropped);
    }

    /// The engine has ended the step. `gone` are destinations that are files and were taken away.
    pub(super) fn step_ended(&mut self, hashing: Option<Box<Hashing>>, gone: &[(usize, i32)], turn: &mut Turn<'_>) {
        let Self { work: Some(work), progress, spec, .. } = self else { return };
        if work.step.take().is_none() {
            return;
        }
        if hashing.is_some() {
            work.hashing = hashing;
        }
        work.salvage.vanished(spec, gone, progress);
        self.go_on(turn);
    }

    /// Its source was looked at for holes.
    pub(super) fn holes_found(&mut self, known: Range<u64>, holes: &[Range<u64>], turn: &mut Turn<'_>) {
        let Self { work: Some(work), progress, .. } = self else { return };
        if matches!(&work.step, Some(StepRun { step: Step::FindHoles { .. }, .. })) {
            work.step = None;
            work.salvage.holes_found(known, holes, progress);
            self.go_on(turn);
        }
    }

    /// The engine has nothing of a paused step in flight.
    pub(super) fn quiet(&mut self, turn: &mut Turn<'_>) {
        let Some(step) = self.work.as_mut().and_then(|work| work.step.as_mut()) else { return };
        // Of a pause that was taken back meanwhile nothing follows.
        if step.pace == Pace::Pausing {
            step.pace = Pace::Quiet;
        }
        self.go_on(turn);
    }

    /// Has the engine take no new pieces.
    pub(super) fn pause_step(&mut self, turn: &mut Turn<'_>) {
        let id = self.id();
        if let Some(step) = self.work.as_mut().and_then(|work| work.step.as_mut())
            && step.pace == Pace::Going
        {
            step.pace = Pace::Pausing;
            turn.push(Effect::Pause(id));
        }
    }

    fn is_flushed_when_quiet(&mut self, turn: &mut Turn<'_>) -> bool {
        self.work.as_ref().is_none_or(|work| work.is_quiet()) && self.is_flushed(turn)
    }

    /// Whether every destination that counts has on stable storage, and recorded, what it has taken; what is missing for
    /// that is asked for.
    fn is_flushed(&mut self, turn: &mut Turn<'_>) -> bool {
        let moves = matches!(self.life(), Life::Running | Life::Verifying | Life::Flushing);
        let awaited = self.awaited(moves && !turn.stopping);
        self.flush(awaited, turn);
        let Some(work) = &self.work else { return true };
        awaited.iter().all(|index| work.flushes[index].is_idle())
    }

    /// Makes durable what destinations have taken, where no flush is under way: a checkpoint. Where none is to be asked for, its
    /// running time and the errors that it met are recorded all the same.
    pub(super) fn checkpoint(&mut self, turn: &mut Turn<'_>) {
        let copies = self.writes() && matches!(self.life(), Life::Running);
        let live = if copies { self.progress.live() } else { ErrorBits::NONE };
        if !self.flush(live.without(late_dests(&self.late)), turn) {
            self.record(turn);
        }
    }

    /// Whether a flush was asked for; a record follows it.
    fn flush(&mut self, dests: ErrorBits, turn: &mut Turn<'_>) -> bool {
        let Self { work: Some(work), devices: Devices::Open(opened), progress, card, run, .. } = self else {
            return false;
        };
        let mut asks = false;
        for index in dests.iter() {
            let (flush, dest) = (&mut work.flushes[index], &progress.dests[index]);
            if !flush.is_idle() || !dest.needs_flush() || dest.is_doubtful() {
                continue;
            }
            asks = true;
            flush.asked = Some((turn.now.instant, dest.mark()));
            turn.push(Effect::Flush {
                id: card.id,
                run: *run,
                dest: index,
                client: Arc::clone(&opened.client),
                device: Arc::clone(&opened.dests[index].device),
            });
        }
        asks
    }

    /// A destination was flushed, or not.
    pub(super) fn flushed(
        &mut self,
        run: u32,
        index: usize,
        result: std::result::Result<(), i32>,
        turn: &mut Turn<'_>,
    ) {
        if run != self.run {
            return;
        }
        let Self { work: Some(work), progress, card, spec, .. } = self else { return };
        let Some((_, mark)) = work.flushes[index].asked.take() else { return };
        match result {
            Ok(()) => {
                work.flushes[index].flushed = Some(mark);
                if self.is_over_when_recorded() {
                    return self.after_flush(turn);
                }
                self.record(turn);
            }
            Err(errno) => {
                let lost = work.salvage.flush_failed(spec, &[(index, errno)], progress);
                if let Some(step) = work.step.as_mut().filter(|_| !lost.is_empty()) {
                    if work.salvage.is_fatal() {
                        step.pace = Pace::Cancelled;
                        turn.push(Effect::Cancel(card.id));
                    } else {
                        turn.push(Effect::GiveUp(card.id, lost));
                    }
                }
                self.go_on(turn);
            }
        }
    }

    /// Has its record written with all that it knows now. What waits for it goes on when that is on disk.
    pub(super) fn record(&mut self, turn: &mut Turn<'_>) {
        if self.recording.is_idle() {
            self.record_now(turn);
        } else {
            self.recording.again = true;
        }
    }

    /// The same; `reply` is answered when it is on disk.
    pub(super) fn record_and_tell(&mut self, reply: Reply<Result<()>>, turn: &mut Turn<'_>) {
        let until = if self.recording.is_idle() { Until::Recorded } else { Until::RecordedAgain };
        self.recording.waiting.push((until, reply));
        self.record(turn);
    }

    /// The same, and not behind a record that is being written: what another job is about to do waits for this.
    pub(super) fn record_now(&mut self, turn: &mut Turn<'_>) {
        if let Some(work) = &mut self.work {
            work.flushes.iter_mut().for_each(Flush::begin_recording);
        }
        self.recording.owes = false;
        if !turn.keeps {
            return self.on_disk(turn);
        }
        self.recording.in_flight += 1;
        let record = self.to_record(turn.now.instant);
        self.claim_is_told |= record.claimed && self.has_claim();
        turn.push(Effect::Record(Box::new(record)));
    }

    /// Its record is on disk.
    pub(super) fn recorded(&mut self, turn: &mut Turn<'_>) {
        let Some(left) = self.recording.in_flight.checked_sub(1) else { return };
        self.recording.in_flight = left;
        if left > 0 {
            return;
        }
        if std::mem::take(&mut self.recording.again) {
            self.settle(turn);
            for (until, _) in self.recording.waiting.iter_mut().filter(|(until, _)| *until == Until::RecordedAgain) {
                *until = Until::Recorded;
            }
            return self.record_now(turn);
        }
        self.on_disk(turn);
    }

    /// What was flushed before the record is durable; who waited for the record is answered.
    fn settle(&mut self, turn: &mut Turn<'_>) {
        if let Some(work) = &mut self.work {
            for (index, flush) in work.flushes.iter_mut().enumerate() {
                if let Some(mark) = flush.recording.take() {
                    self.progress.dest_made_durable(index, &mark);
                }
            }
        }
        for reply in self.recording.take(Until::Recorded) {
            turn.done(reply, Ok(()));
        }
    }

    fn on_disk(&mut self, turn: &mut Turn<'_>) {
        self.settle(turn);
        if self.claim == Claim::Recording {
            self.claim = Claim::Ready;
        }
        self.release_dropped(turn);
        self.go_on(turn);
    }

    /// What of a destination is durable once the record that is made now is on disk, and the zeros of what is unreadable.
    pub(super) fn durable_when_recorded(&self, index: usize) -> (RangeSet, RangeSet) {
        let mark = self.work.as_ref().and_then(|work| work.flushes[index].recording.as_ref());
        match mark {
            Some(mark) => (self.progress.durable_after(index, mark), self.progress.zeros_after(index, mark)),
            None => (self.progress.dests[index].durable.clone(), self.progress.zeros(index)),
        }
    }

    /// Ends the job; the engine has no step of it. The end is recorded, then the devices are closed.
    pub(super) fn conclude(&mut self, end: State, turn: &mut Turn<'_>) {
        let shown = self.state();
        // What a flush that is still under way says is of no interest any more.
        self.run = self.run.wrapping_add(1);
        if let Some(work) = &mut self.work {
            work.flushes.iter_mut().for_each(|flush| flush.asked = None);
        }
        self.card.show(|card| {
            card.watch.stop(turn.now.instant);
            card.course.ended = Some(turn.now.wall);
        });
        self.change(Life::Ending(end, shown), None, turn);
        self.record(turn);
    }

    /// The end is on disk.
    fn close(&mut self, end: State, turn: &mut Turn<'_>) {
        match std::mem::replace(&mut self.devices, Devices::Closing) {
            Devices::Open(devices) => turn.push(Effect::Close { id: self.id(), devices, answer: true }),
            // Something else was recorded meanwhile.
            Devices::Closing => {}
            Devices::Closed | Devices::Opening(_) if self.closes_kept(turn) => {}
            Devices::Closed | Devices::Opening(_) => self.end(end, turn),
        }
    }

    /// Its devices are closed.
    pub(super) fn closed(&mut self, turn: &mut Turn<'_>) {
        if let Life::Ending(end, _) = self.life() {
            let end = *end;
            self.end(end, turn);
        }
    }

    fn end(&mut self, end: State, turn: &mut Turn<'_>) {
        self.devices = Devices::Closed;
        turn.claims.release_but(self.id(), late_dests(&self.late));
        self.put_away();
        if let Some(lasting) = &self.lasting {
            turn.claims.remember(self.id(), lasting);
        }
        let reason = self.why_ended(end);
        self.change(Life::Ended(end), reason, turn);
        for reply in self.recording.take(Until::Ended) {
            turn.done(reply, Ok(()));
        }
    }
}
