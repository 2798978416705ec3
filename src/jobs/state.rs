//! Where a job is in its life, each state with what belongs to it, and the table of legal changes.
//!
//! [`State`] is what others see; [`Life`] is what the owner knows. Who changes a job's life asks [`may_become`], and a change
//! that is not in the table is a defect of ours: it ends the process.

use crate::journal::{JobId, State};

/// Where a job is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It waits.
    Queued(Wait),
    /// It has a place among the active jobs; its devices are being opened, claimed, locked. Why it waited before.
    Starting(Option<String>),
    /// It copies.
    Running,
    /// Everything is written; the destinations flush.
    Flushing,
    /// The destinations are read back.
    Verifying,
    /// It does not take new pieces.
    Paused(PausedBy),
    /// After a restart its devices are not surely the same; the reason.
    Held(String),
    /// It was cancelled and waits for the I/O in flight; the state that is shown meanwhile.
    Cancelling(State),
    /// Its end is being recorded, then its devices are closed; how it ends, and the state that is shown meanwhile.
    Ending(State, State),
    /// It has ended.
    Ended(State),
}

/// What a queued job waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// A place among the active jobs.
    Turn,
    /// The end of another job.
    Job(JobId),
    /// A device that is busy, or another job's; why.
    Device(String),
}

/// Who paused a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PausedBy {
    /// An administrator: it stays so until `resume`, after a restart too.
    Administrator,
    /// The daemon, because the state directory fails: it goes on by itself.
    Daemon(String),
}

impl Life {
    /// What others see.
    pub(super) fn state(&self) -> State {
        match self {
            Self::Queued(_) | Self::Starting(_) => State::Queued,
            Self::Running => State::Running,
            Self::Flushing => State::Flushing,
            Self::Verifying => State::Verifying,
            Self::Paused(_) => State::Paused,
            Self::Held(_) => State::Held,
            Self::Cancelling(shown) | Self::Ending(_, shown) => *shown,
            Self::Ended(end) => *end,
        }
    }

    /// Whether it counts among the jobs that run at once.
    pub(super) fn is_active(&self) -> bool {
        match self {
            Self::Starting(_) | Self::Running | Self::Flushing | Self::Verifying => true,
            Self::Cancelling(shown) | Self::Ending(_, shown) => {
                matches!(shown, State::Running | State::Flushing | State::Verifying)
            }
            Self::Queued(_) | Self::Paused(_) | Self::Held(_) | Self::Ended(_) => false,
        }
    }

    /// Whether nothing brings it back: it ends, or has ended.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Cancelling(_) | Self::Ending(..) | Self::Ended(_))
    }
}

/// The states, in the order of the rows and columns of [`CHANGES`].
const ORDER: [State; 10] = State::ALL;

/// Row: from; column: to. Order: queued running paused flushing verifying done degraded failed cancelled held.
#[rustfmt::skip]
const CHANGES: [[u8; 10]; 10] = [
    // qu ru pa fl ve do de fa ca he
    [0, 1, 1, 0, 1, 0, 0, 1, 1, 1], // queued
    [0, 0, 1, 1, 0, 0, 0, 1, 1, 0], // running
    [1, 0, 0, 0, 0, 0, 0, 0, 1, 0], // paused
    [0, 1, 0, 0, 1, 1, 1, 1, 1, 0], // flushing: those who were behind are caught up
    [0, 1, 1, 0, 0, 1, 1, 1, 1, 0], // verifying: the same
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0], // done: it is compared again
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0], // degraded
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0], // failed
    [1, 0, 0, 0, 0, 0, 0, 0, 0, 0], // cancelled
    [1, 0, 0, 0, 0, 0, 0, 0, 1, 0], // held
];

/// Whether a job in `old` may be seen in `new` next.
pub(super) fn may_become(old: State, new: State) -> bool {
    let place = |state| ORDER.iter().position(|other| *other == state).expect("every state is in the order");
    CHANGES[place(old)][place(new)] == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_reached_and_left() {
        for state in ORDER {
            let reached = ORDER.iter().any(|old| may_become(*old, state));
            let left = ORDER.iter().any(|new| may_become(state, *new));
            assert!(reached && left && !may_become(state, state), "{state:?}");
        }
    }

    #[test]
    fn a_job_that_has_ended_only_lives_again() {
        for (old, new) in ORDER.iter().flat_map(|old| ORDER.iter().map(move |new| (*old, *new))) {
            if old.is_ended() && may_become(old, new) {
                assert_eq!(new, State::Queued, "{old:?}");
            }
        }
    }
}
