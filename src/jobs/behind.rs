//! Destinations that do not keep up with the others of their job.
//!
//! # Protocol
//! 1. The engine says who falls behind, and leaves it out of the step ([`Request::leaves_behind`](crate::kcopyd::Request)). One that
//!    hangs in the last flush of a phase, when all others are done, falls behind, too. A run that goes on after a restart leaves behind who
//!    has far less than another.
//! 2. The others go on as if they were alone: to the end of the copy, flushed, recorded and compared.
//! 3. Then it is the turn of those who were left behind and owe no answer; what each lacks is in the figures. While none has
//!    answered, the job waits, and says for whom. One that answers while others catch up joins them.
//! 4. The job ends when all are through, have failed, or were dropped by hand.
//!
//! # Invariants
//! Nothing is written to a destination, by this job or by another, while a write from before it was left behind is under way there: it
//! keeps its place in the claims until it has answered, also where the job has ended (`late`).

use std::time::Instant;

use super::effect::Effect;
use super::job::Job;
use super::state::Life;
use super::turn::Turn;
use super::work::{Behind, Pace, Stalled};
use crate::dm_io::ErrorBits;
use crate::kcopyd::{Lag, STALLED};
use crate::salvage::Phase;

/// The destinations of such a list.
pub(super) fn late_dests(late: &[(usize, Instant)]) -> ErrorBits {
    let mut dests = ErrorBits::NONE;
    for (index, _) in late {
        dests.set(*index);
    }
    dests
}

impl Job {
    /// The engine has left a destination behind.
    pub(super) fn fell_behind(&mut self, dest: usize, why: Lag, owes: bool, turn: &Turn<'_>) {
        if owes && !late_dests(&self.late).contains(dest) {
            let silent = if why == Lag::Stalled { STALLED } else { std::time::Duration::ZERO };
            self.late.push((dest, turn.now.instant.checked_sub(silent).unwrap_or(turn.now.instant)));
        }
        if why != Lag::GivenUp && !self.progress.dropped.contains(dest) {
            self.leave_behind(dest, why);
        }
    }

    fn leave_behind(&mut self, dest: usize, why: Lag) {
        let phase = self.phase;
        let Some(work) = &mut self.work else { return };
        work.copies_behind |= phase == Phase::Copy;
        self.progress.falls_behind(dest);
        let path = self.spec().to[dest].path.display();
        let how = match why {
            Lag::Stalled | Lag::GivenUp => format!("has answered nothing for {} s", STALLED.as_secs()),
            Lag::Slow => "is far slower than the others".to_owned(),
        };
        log::warn!("{self}: destination {dest}, {path}, {how}: the others go on without it, and it is caught up later");
    }

    /// A destination that was left behind has answered all that it was asked.
    pub(super) fn answered(&mut self, dest: usize, turn: &mut Turn<'_>) {
        self.late.retain(|(other, _)| *other != dest);
        let id = self.id();
        let returns = self.progress.behind().contains(dest);
        // A step that has begun since it was dropped has its device, and leaves it alone.
        let is_let_go = self.progress.dropped.contains(dest);
        if let Some(work) = &mut self.work
            && let Some(step) = work.step.as_mut().filter(|step| step.step.is_with_dests())
        {
            let is_for_it = returns && work.behind == Behind::CatchingUp && step.pace == Pace::Going;
            if is_for_it || is_let_go && step.pace != Pace::Cancelled {
                // The next step is for it, too, or has its device no more.
                step.pace = Pace::Cancelled;
                turn.push(Effect::Cancel(id));
            }
            if is_for_it {
                self.bring_back(ErrorBits::only(dest));
            }
        }
        self.go_on(turn);
    }

    fn bring_back(&mut self, dests: ErrorBits) {
        self.progress.catches_up(dests);
        if let Some(work) = &mut self.work {
            work.behind = Behind::CatchingUp;
            work.salvage.begin_again();
        }
    }

    /// At its beginning a run leaves behind who fell behind in an earlier one, unless nothing is to be read twice.
    pub(super) fn leave_far_ones_behind(&mut self) {
        if self.phase == Phase::Copy && self.progress.read_errors == 0 {
            self.progress.leave_far_ones_behind();
            if let Some(work) = &mut self.work {
                work.copies_behind = !self.progress.behind().is_empty();
            }
        }
    }

    /// Those who keep up have all, for good.
    pub(super) fn await_those_behind(&mut self, turn: &mut Turn<'_>) {
        if self.phase == Phase::Verify {
            self.progress.compared_to_the_end();
        }
        let work = self.work();
        work.behind = Behind::Awaited;
        work.drained = None;
        if std::mem::take(&mut work.copies_behind) {
            self.phase = Phase::Copy;
        }
        let life = if self.phase == Phase::Verify { Life::Verifying } else { Life::Running };
        self.change(life, None, turn);
        self.go_on(turn);
    }

    /// Whether there is somebody for whom the job may go on now: those who keep up, or one of the others.
    pub(super) fn is_anybodys_turn(&mut self) -> bool {
        let behind = self.progress.behind();
        let work = self.work();
        if work.behind != Behind::Awaited {
            return true;
        }
        let mut owing = late_dests(&self.late);
        let flushes = &self.work().flushes;
        for index in behind.iter().filter(|index| flushes[*index].asked.is_some()) {
            owing.set(index);
        }
        let ready = behind.without(owing);
        if ready.is_empty() && !behind.is_empty() {
            return false;
        }
        self.bring_back(ready);
        true
    }

    /// Whether somebody who was left behind, and was not dropped, owes an answer.
    pub(super) fn awaits_answers(&self) -> bool {
        !late_dests(&self.late).without(self.progress.dropped).is_empty()
    }

    /// Whether some of its destinations come later.
    fn waits_for_some(&self) -> bool {
        self.work.is_some() && !self.progress.behind().is_empty()
    }

    /// Whether some of them are yet to be copied to.
    pub(super) fn waits_to_copy(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.copies_behind) && self.waits_for_some()
    }

    /// Of those that take part, who is waited for until it has on stable storage what it has taken: all that answer, and at the end of
    /// a phase those that keep up.
    pub(super) fn awaited_of_live(&self, is_end_of_phase: bool) -> ErrorBits {
        if is_end_of_phase { self.progress.present() } else { self.progress.live().without(late_dests(&self.late)) }
    }

    /// Since when a destination has owed an answer to what nobody waits for, or to a flush.
    pub(super) fn unanswered(&self, index: usize) -> Option<Instant> {
        let late = self.late.iter().find(|(other, _)| *other == index).map(|(_, since)| *since);
        let flush = self.work.as_ref().and_then(|work| Some(work.flushes[index].asked.as_ref()?.0));
        late.into_iter().chain(flush).min()
    }

    /// Why a job whose devices are to be opened has to wait: one of them still writes for the run before.
    pub(super) fn late_of_an_earlier_run(&self) -> Option<String> {
        let (index, _) = self.late.first()?;
        let path = self.spec().to.get(*index)?.path.display();
        Some(format!("{path}: a write of this job from before has not ended yet"))
    }

    /// For whom it waits, and what can be done about it.
    pub(super) fn why_it_waits(&self) -> Option<String> {
        let work = self.work.as_ref()?;
        let remedy = |index: usize| format!("`drop {index}`, written to control, gives it up");
        let path = |index: usize| self.spec().to[index].path.display();
        if work.behind == Behind::Awaited {
            let index = self.progress.behind().iter().next()?;
            return Some(format!("waits for {}, which does not answer; {}", path(index), remedy(index)));
        }
        match work.stalled? {
            Stalled::Dest(index) if self.progress.read_errors > 0 && self.progress.live().count() > 1 => Some(format!(
                "waits for {}, which does not answer: the source has shown errors, and is not to be read twice; {}",
                path(index),
                remedy(index)
            )),
            Stalled::Pages(index) => {
                let owes = "which does not answer, keeps those of its client: set more aside in clients/";
                let client = self.spec().client.as_deref().unwrap_or(super::clients::DEFAULT);
                Some(format!(
                    "waits for pages: {}, {owes}{client}/pages, or start again with a larger `pages=`",
                    path(index)
                ))
            }
            Stalled::Dest(_) | Stalled::Source => None,
        }
    }

    /// Who keeps the pages without which its client can begin nothing at all.
    fn is_without_pages(&self) -> Option<usize> {
        let (index, _) = self.late.first()?;
        let figures = self.opened()?.client.figures();
        (figures.pages_waiting > 0 && figures.subjobs_in_flight == 0).then_some(*index)
    }

    /// Looks at who has answered nothing for a while.
    pub(super) fn look_for_stalls(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.instant;
        let has_stalled = |since: Instant| now.saturating_duration_since(since) >= STALLED;
        if *self.life() == Life::Flushing && self.work().drained == Some(true) {
            let awaited = self.awaited(true);
            let flushes = &self.work().flushes;
            let hangs = |index: &usize| flushes[*index].asked.as_ref().is_some_and(|(since, _)| has_stalled(*since));
            let hung: Vec<usize> = awaited.iter().filter(hangs).collect();
            let busy = awaited.iter().filter(|index| !flushes[*index].is_idle()).count();
            if !hung.is_empty() && busy == hung.len() && hung.len() < awaited.count() as usize {
                for index in hung {
                    self.leave_behind(index, Lag::Stalled);
                }
                self.go_on(turn);
            }
        }
        let present = self.progress.present();
        let stalled = self.card.show(|shown| {
            let moves = !matches!(self.life(), Life::Paused(_)) && shown.stalled(now) >= STALLED;
            let dest = present.iter().find(|index| shown.unanswered(*index, now) >= STALLED);
            dest.map(Stalled::Dest).or_else(|| moves.then_some(Stalled::Source))
        });
        let stalled = self.is_without_pages().map(Stalled::Pages).or(stalled);
        let spec = std::sync::Arc::clone(&self.spec);
        let (source, behind) = (spec.from.as_ref(), self.progress.behind());
        let stalled = stalled.filter(|stalled| *stalled != Stalled::Source || source.is_some() && behind.is_empty());
        let before = self.work.as_mut().and_then(|work| std::mem::replace(&mut work.stalled, stalled));
        let is_new = stalled.is_some() && stalled != before;
        if let Some(stalled) = stalled.filter(|_| is_new && self.work.is_some()) {
            let path = match stalled {
                Stalled::Source => source.map(|from| &from.path),
                Stalled::Dest(index) | Stalled::Pages(index) => spec.to.get(index).map(|to| &to.path),
            };
            if let Some(path) = path {
                log::warn!("{self} stalls: {} has answered nothing for {} s", path.display(), STALLED.as_secs());
            }
        }
    }
}
