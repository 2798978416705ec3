//! What a verb does in which state, and how a job has ended. Pure.

use super::view::{State, Verb};
use crate::error::{Error, ErrorKind, Result};

/// What a verb makes happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing: it is so already.
    Nothing,
    /// It stops taking pieces.
    Pause,
    /// It goes back into the queue.
    Resume,
    /// It ends.
    Cancel,
    /// It lives again, and does what is not yet durable.
    Retry,
    /// It lives again, and its destinations are compared.
    Verify,
    /// A destination is given up.
    Drop,
}

/// The table of states and verbs.
pub(super) fn act(state: State, verb: Verb) -> Result<Action> {
    let word = verb.as_str();
    let refuse = |kind, why: &str| Err(Error::new(kind, format!("{word}: the job {why}")));
    match (verb, state) {
        (Verb::Retry(_), State::Degraded | State::Failed | State::Cancelled) => Ok(Action::Retry),
        (Verb::Retry(_), State::Done) => refuse(ErrorKind::Invalid, "is done: nothing is missing"),
        (Verb::Verify, State::Degraded | State::Done) => Ok(Action::Verify),
        (Verb::Verify, State::Failed | State::Cancelled) => {
            refuse(ErrorKind::Invalid, "did not go to its end: `retry` it first")
        }
        (Verb::Retry(_) | Verb::Verify, _) => refuse(ErrorKind::Busy, "has not ended"),
        (_, state) if state.is_ended() => {
            let remedy = match (verb, state) {
                (Verb::Resume, State::Done) => "; its spec can be run again",
                (Verb::Resume, _) => "; write `retry`, and it copies what is missing",
                _ => "",
            };
            refuse(ErrorKind::Invalid, &format!("has ended ({}){remedy}", state.as_str()))
        }
        (Verb::Pause, State::Flushing) => refuse(ErrorKind::Busy, "is flushing, which cannot be paused"),
        (Verb::Pause, State::Held) => refuse(ErrorKind::Invalid, "is held and does not run; resume or cancel it"),
        (Verb::Pause, State::Paused) => Ok(Action::Nothing),
        (Verb::Pause, _) => Ok(Action::Pause),
        (Verb::Resume, State::Paused | State::Held) => Ok(Action::Resume),
        (Verb::Resume, _) => Ok(Action::Nothing),
        (Verb::Cancel, _) => Ok(Action::Cancel),
        (Verb::Drop(_), _) => Ok(Action::Drop),
    }
}

/// What is known when a job's last I/O has ended.
#[derive(Clone, Copy, Debug)]
// One flag a question.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct End {
    /// Whether it was cancelled before its end.
    pub(super) cancelled: bool,
    /// Whether every piece was tried.
    pub(super) complete: bool,
    /// Whether the source has another sum than was expected.
    pub(super) differs: bool,
    /// Whether bytes are missing because they could not be read.
    pub(super) read_err: bool,
    /// Destinations: none where a source is compared with its sums alone.
    pub(super) dests: usize,
    /// How many of them failed.
    pub(super) failed: usize,
}

/// How it has ended. `Done`: nothing is missing anywhere. `Degraded`: it went to the end, and at least one destination
/// has all but the unreadable bytes. `Failed`: anything else.
pub(super) fn verdict(end: End) -> State {
    match end {
        End { cancelled: true, .. } => State::Cancelled,
        End { complete: false, .. } | End { differs: true, .. } | End { dests: 0, read_err: true, .. } => State::Failed,
        End { dests, failed, .. } if failed == dests && dests > 0 => State::Failed,
        End { read_err: false, failed: 0, .. } => State::Done,
        End { .. } => State::Degraded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_an_answer_in_every_state() {
        use State::{Cancelled, Degraded, Done, Failed, Flushing, Held, Paused, Queued, Running, Verifying};
        const BUSY: std::result::Result<Action, i32> = Err(libc::EBUSY);
        const INVALID: std::result::Result<Action, i32> = Err(libc::EINVAL);
        let rows: [(State, [std::result::Result<Action, i32>; 6]); 10] = [
            (Queued, [Ok(Action::Pause), Ok(Action::Nothing), Ok(Action::Cancel), BUSY, BUSY, Ok(Action::Drop)]),
            (Running, [Ok(Action::Pause), Ok(Action::Nothing), Ok(Action::Cancel), BUSY, BUSY, Ok(Action::Drop)]),
            (Paused, [Ok(Action::Nothing), Ok(Action::Resume), Ok(Action::Cancel), BUSY, BUSY, Ok(Action::Drop)]),
            (Flushing, [Err(libc::EBUSY), Ok(Action::Nothing), Ok(Action::Cancel), BUSY, BUSY, Ok(Action::Drop)]),
            (Verifying, [Ok(Action::Pause), Ok(Action::Nothing), Ok(Action::Cancel), BUSY, BUSY, Ok(Action::Drop)]),
            (Done, [INVALID, INVALID, INVALID, INVALID, Ok(Action::Verify), INVALID]),
            (Degraded, [INVALID, INVALID, INVALID, Ok(Action::Retry), Ok(Action::Verify), INVALID]),
            (Failed, [INVALID, INVALID, INVALID, Ok(Action::Retry), INVALID, INVALID]),
            (Cancelled, [INVALID, INVALID, INVALID, Ok(Action::Retry), INVALID, INVALID]),
            (Held, [Err(libc::EINVAL), Ok(Action::Resume), Ok(Action::Cancel), BUSY, BUSY, Ok(Action::Drop)]),
        ];
        for (state, want) in rows {
            let got = Verb::ALL.map(|verb| act(state, verb).map_err(|error| error.errno()));
            assert_eq!(got, want, "{state:?}");
        }
    }

    #[test]
    fn an_end_is_judged_by_what_is_missing() {
        let good = End { cancelled: false, complete: true, differs: false, read_err: false, dests: 3, failed: 0 };
        assert_eq!(verdict(good), State::Done);
        assert_eq!(verdict(End { failed: 1, ..good }), State::Degraded);
        assert_eq!(verdict(End { failed: 3, ..good }), State::Failed);
        assert_eq!(verdict(End { read_err: true, ..good }), State::Degraded);
        assert_eq!(verdict(End { complete: false, ..good }), State::Failed);
        assert_eq!(verdict(End { cancelled: true, ..good }), State::Cancelled);
        assert_eq!(verdict(End { differs: true, ..good }), State::Failed);
        let alone = End { dests: 0, ..good };
        assert_eq!([alone, End { read_err: true, ..alone }].map(verdict), [State::Done, State::Failed]);
    }
}
