//! One turn of the owner: the time, what it has others do, and what it needs to know beside a job.

use std::time::{Instant, SystemTime};

use super::effect::{Answer, Effect};
use super::event::Reply;
use super::names::Names;
use crate::claims::{Claims, Overwritten};
use crate::error::Result;

/// The time of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// For what is measured.
    pub(super) instant: Instant,
    /// For what is told.
    pub(super) wall: SystemTime,
}

impl Now {
    /// The system's clocks.
    pub(super) fn read() -> Self {
        Self { instant: Instant::now(), wall: SystemTime::now() }
    }
}

/// What a job needs while it decides.
pub(super) struct Turn<'a> {
    pub(super) now: Now,
    pub(super) effects: &'a mut Vec<Effect>,
    pub(super) claims: &'a mut Claims,
    pub(super) names: &'a Names,
    /// What other jobs have lost by a claim of this turn.
    pub(super) overwritten: &'a mut Vec<Overwritten>,
    /// Numbers for what is asked of workers, so that a late answer is known as one.
    pub(super) attempts: &'a mut u64,
    /// Whether records are kept at all.
    pub(super) keeps: bool,
    /// The daemon stops: no step is started any more.
    pub(super) stopping: bool,
}

impl Turn<'_> {
    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn done(&mut self, reply: Reply<Result<()>>, answer: Result<()>) {
        self.push(Effect::Answer(Answer::Done(reply, answer)));
    }

    pub(super) fn next_attempt(&mut self) -> u64 {
        *self.attempts += 1;
        *self.attempts
    }
}
