//! What a verb does to a job.

use std::sync::Arc;

use super::effect::Effect;
use super::event::Reply;
use super::job::{Claim, Devices, Follows, Job, Until};
use super::state::{Life, PausedBy, Wait};
use super::turn::Turn;
use super::verbs::{Action, act};
use super::view::{State, Verb};
use super::work::{Flush, Pace};
use crate::dm_io::ErrorBits;
use crate::error::{Error, ErrorKind, Result};
use crate::salvage::Phase;

impl Job {
    /// Does what a verb says. `reply` is answered when that is on disk; for `cancel`, when the job has ended.
    pub(super) fn control(&mut self, verb: Verb, reply: Reply<Result<()>>, turn: &mut Turn<'_>) {
        match self.act_on(verb, turn) {
            Ok(()) if verb == Verb::Cancel => self.tell_end(reply, turn),
            Ok(()) => self.record_and_tell(reply, turn),
            Err(error) => turn.done(reply, Err(error)),
        }
    }

    fn act_on(&mut self, verb: Verb, turn: &mut Turn<'_>) -> Result<()> {
        if matches!(self.life(), Life::Cancelling(_) | Life::Ending(..)) {
            return match verb {
                // Who says it again does not wait for a flush.
                Verb::Cancel if self.waits_only_for_a_flush() => {
                    self.conclude(State::Cancelled, turn);
                    Ok(())
                }
                Verb::Cancel => Ok(()),
                _ => {
                    let what = format!("{}: job {} is about to end", verb.as_str(), self.id());
                    Err(Error::new(ErrorKind::Busy, what))
                }
            };
        }
        match act(self.state(), verb)? {
            Action::Nothing => {
                // Paused by the daemon, and now by an administrator too: it stays paused.
                if verb == Verb::Pause && matches!(self.life(), Life::Paused(_)) {
                    self.change(Life::Paused(PausedBy::Administrator), None, turn);
                }
            }
            Action::Pause => self.pause(PausedBy::Administrator, turn),
            Action::Resume => self.resume(turn),
            Action::Cancel => self.cancel(turn),
            Action::Retry => {
                if let Verb::Retry(policy) = verb {
                    self.set_spec(policy.applied_to(self.spec())?);
                }
                self.progress.begin_anew();
                self.live_again(Phase::first_of(self.spec()), turn);
            }
            Action::Verify if self.spec().from.is_none() && !self.spec().compares_after() => {
                let what = format!("verify: job {} has no source to compare with", self.id());
                return Err(Error::new(ErrorKind::Invalid, what));
            }
            Action::Verify => {
                if self.writes() {
                    self.progress.begin_comparison();
                } else {
                    self.progress.begin_anew();
                }
                self.live_again(Phase::Verify, turn);
            }
            Action::Drop => {
                if let Verb::Drop(index) = verb {
                    self.drop_dest(index, turn)?;
                }
            }
        }
        Ok(())
    }

    /// Gives a destination up. With none left there is nothing to do any more: the job is cancelled, as nothing has failed.
    /// What is in flight there is not waited for; when it ends, its device is let go.
    fn drop_dest(&mut self, index: usize, turn: &mut Turn<'_>) -> Result<()> {
        let count = self.spec().to.len();
        if index >= count {
            let what = match count.checked_sub(1) {
                Some(last) => format!("drop {index}: job {} has destinations 0 to {last}", self.id()),
                None => format!("drop {index}: job {} has no destinations", self.id()),
            };
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        if self.progress.dropped.contains(index) {
            return Ok(());
        }
        let spec = Arc::clone(&self.spec);
        self.progress.drop_dest(&spec, index);
        self.keep_bytes(turn);
        if let Some(work) = &mut self.work {
            // One that hangs is not waited for.
            work.flushes[index] = Flush::default();
            work.salvage.put_together_anew();
            if let Some(step) = &mut work.step {
                // The rest is done by a step that does not have it.
                step.pace = Pace::Cancelled;
                if step.step.is_with_dests() {
                    turn.push(Effect::LeaveBehind(self.card.id, ErrorBits::only(index)));
                }
                turn.push(Effect::Cancel(self.card.id));
            }
        }
        if self.progress.live().is_empty() {
            self.cancel(turn);
        } else {
            self.open_without_dropped(turn);
            self.go_on(turn);
        }
        Ok(())
    }

    /// Answers when the job has ended.
    fn tell_end(&mut self, reply: Reply<Result<()>>, turn: &mut Turn<'_>) {
        if matches!(self.life(), Life::Ended(_)) {
            turn.done(reply, Ok(()));
        } else {
            self.recording.waiting.push((Until::Ended, reply));
        }
    }

    /// It takes no new pieces. The checkpoint comes when nothing is in flight any more, which may be never.
    pub(super) fn pause(&mut self, by: PausedBy, turn: &mut Turn<'_>) {
        let reason = match &by {
            PausedBy::Administrator => None,
            PausedBy::Daemon(why) => Some(why.clone()),
        };
        turn.claims.has_asked(self.id());
        self.pause_step(turn);
        self.change(Life::Paused(by), reason, turn);
        self.go_on(turn);
    }

    fn resume(&mut self, turn: &mut Turn<'_>) {
        // Who resumes a held job has looked at its devices. They may be others than it had: it asks for them as if it had not begun.
        if matches!(self.life(), Life::Held(_)) {
            self.recognised = true;
            self.returning = false;
            self.give_bytes_back(turn);
            (self.claim, self.claim_is_told) = (Claim::None, false);
        }
        self.change(Life::Queued(self.wait()), None, turn);
    }

    fn cancel(&mut self, turn: &mut Turn<'_>) {
        let (id, shown) = (self.id(), self.state());
        if let Some(step) = self.work.as_mut().and_then(|work| work.step.as_mut()) {
            step.pace = Pace::Cancelled;
            turn.push(Effect::Cancel(id));
        }
        self.change(Life::Cancelling(shown), None, turn);
        self.go_on(turn);
    }

    /// Whether it is cancelled, and the engine has no step of it any more.
    fn waits_only_for_a_flush(&self) -> bool {
        matches!(self.life(), Life::Cancelling(_)) && self.work.as_ref().is_none_or(|work| work.step.is_none())
    }

    /// An ended job lives again: its devices are opened anew.
    fn live_again(&mut self, phase: Phase, turn: &mut Turn<'_>) {
        debug_assert!(matches!(self.devices, Devices::Closed), "a job that has ended has closed its devices");
        self.phase = phase;
        if phase == Phase::first_of(self.spec()) {
            self.digest = None;
        }
        self.recognised = false;
        self.follows = Follows::Nobody;
        self.card.show(|card| card.course.ended = None);
        self.change(Life::Queued(Wait::Turn), None, turn);
    }

    /// The job that it was to start after has ended, or is not there any more.
    pub(super) fn leader_ended(&mut self, how: std::result::Result<(), String>, turn: &mut Turn<'_>) {
        let Follows::Job(after) = self.follows else { return };
        match how {
            Ok(()) => {
                self.follows = Follows::Nobody;
                if matches!(self.life(), Life::Queued(Wait::Job(_))) {
                    self.change(Life::Queued(Wait::Turn), None, turn);
                }
                // It waits for no other job any more: not after a restart either, when that one may be dismissed.
                self.record(turn);
            }
            Err(how) => {
                let why = format!("not started: job {after}, which it was waiting for, {how}");
                self.follows = Follows::Lost(after, why);
                self.give_up_following(turn);
            }
        }
    }

    /// A job that cannot start any more ends when it is its turn to say so: not while it is paused.
    pub(super) fn give_up_following(&mut self, turn: &mut Turn<'_>) {
        if let (Follows::Lost(_, why), Life::Queued(_)) = (&self.follows, self.life()) {
            self.progress.error = Some(why.clone());
            self.conclude(State::Cancelled, turn);
        }
    }
}
