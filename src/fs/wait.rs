//! `wait/ID` and `jobs/ID/wait`: progress until a job ends, its status, and an error unless it is done.
//!
//! A read that has to wait is parked here with its reply; one thread, the ticker, answers it. FUSE readers cannot be
//! interrupted, so every read is answered within [`INTERVAL`], and a killed reader dies then. Who has opened the file learns
//! the end even of a job that is dismissed with it.
//!
//! # Protocol: waiting
//! 1. A read finds nothing to say and is parked with the time it is due. 2. After that the job is looked at once more: it
//!    may have ended in between, when nobody was parked to be told. 3. The ticker is woken. 4. When the read is due, or its
//!    job has ended, the ticker takes it out, looks at the job and answers. 5. With nobody parked the ticker sleeps
//!    without a timeout.
//!
//! # Invariants
//! A parked read is answered exactly once. The lock of the room and that of a cursor are never held together, and neither
//! while a reply is sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{keys, progress};
use crate::error::ErrorKind;
use crate::jobs::{Followed, JobId, State, View};

/// Longest time a read waits: a second, less what answering may take on a busy machine.
const INTERVAL: Duration = Duration::from_millis(900);

/// Answers one read(2).
pub(super) type Reply = Box<dyn FnOnce(Result<Vec<u8>, ErrorKind>) + Send>;
/// Told once that a read would not wait.
pub(super) type Notify = Box<dyn FnOnce() + Send>;

/// An open file.
pub(super) struct File {
    job: Followed,
    cursor: Mutex<Cursor>,
}

impl File {
    pub(super) fn new(job: Followed) -> Self {
        Self { job, cursor: Mutex::default() }
    }

    /// The job is looked at before the cursor is locked.
    fn step(&self, now: Instant, size: usize, due: bool) -> Step {
        let view = self.job.view();
        self.cursor.lock().step(&view, now, size, due)
    }
}

/// How far an open file is in its job's story.
#[derive(Debug, Default)]
struct Cursor {
    /// What the last reads were too short for.
    rest: Vec<u8>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default)]
enum Phase {
    /// Nothing was said.
    #[default]
    Begin,
    /// A line of progress was said then.
    Since(Instant),
    /// The status was said; after it reads fail, or find the end.
    Over(Option<ErrorKind>),
}

/// What a read comes to.
#[derive(Debug)]
enum Step {
    Now(Result<Vec<u8>, ErrorKind>),
    Wait(Instant),
}

impl Cursor {
    /// What to answer to a read of `size` bytes. `due`: it has waited long enough.
    fn step(&mut self, view: &View, now: Instant, size: usize, due: bool) -> Step {
        if self.rest.is_empty() {
            match self.phase {
                Phase::Over(None) => return Step::Now(Ok(Vec::new())),
                Phase::Over(Some(kind)) => return Step::Now(Err(kind)),
                _ if view.state.is_ended() => {
                    self.rest = keys::status(view);
                    self.phase = Phase::Over(outcome(view.state));
                }
                Phase::Since(said) if !due && now < said + INTERVAL => return Step::Wait(said + INTERVAL),
                Phase::Begin | Phase::Since(_) => {
                    self.rest = progress::line(view);
                    self.phase = Phase::Since(now);
                }
            }
        }
        let later = self.rest.split_off(size.min(self.rest.len()));
        Step::Now(Ok(std::mem::replace(&mut self.rest, later)))
    }

    /// Since when a read would not wait, or `None` where it would not already.
    fn waits_until(&self, now: Instant) -> Option<Instant> {
        match self.phase {
            Phase::Since(said) if self.rest.is_empty() && now < said + INTERVAL => Some(said + INTERVAL),
            _ => None,
        }
    }
}

/// What reads fail with once the status was said.
fn outcome(state: State) -> Option<ErrorKind> {
    match state {
        State::Done => None,
        State::Cancelled => Some(ErrorKind::Cancelled),
        _ => Some(ErrorKind::Os(libc::EIO)),
    }
}

/// Where reads wait.
#[derive(Default)]
pub(super) struct WaitRoom {
    parked: Mutex<Parked>,
    ticker: Condvar,
}

#[derive(Default)]
struct Parked {
    waiters: Vec<Waiter>,
    closed: bool,
}

struct Waiter {
    number: u64,
    file: Arc<File>,
    due: Instant,
    then: Then,
}

enum Then {
    Read { size: usize, reply: Reply },
    Poll(Notify),
}

impl WaitRoom {
    /// Answers a read of `wait/ID`, open as `number`, now or when there is something to say. `block`: whether it may wait.
    pub(super) fn read(
        &self,
        (number, file): (u64, &Arc<File>),
        size: usize,
        block: bool,
        reply: impl FnOnce(Result<Vec<u8>, ErrorKind>) + Send + 'static,
    ) {
        match file.step(Instant::now(), size, false) {
            Step::Now(answer) => reply(answer),
            Step::Wait(_) if !block => reply(Err(ErrorKind::Os(libc::EAGAIN))),
            Step::Wait(due) => {
                let then = Then::Read { size, reply: Box::new(reply) };
                self.park(Waiter { number, file: Arc::clone(file), due, then });
            }
        }
    }

    /// Whether a read would not wait; where it would, `notify` is told when that is over.
    pub(super) fn poll(&self, (number, file): (u64, &Arc<File>), notify: Option<Notify>) -> bool {
        let Some(due) = file.cursor.lock().waits_until(Instant::now()) else { return true };
        if file.job.has_ended() {
            return true;
        }
        if let Some(notify) = notify {
            self.forget(number);
            self.park(Waiter { number, file: Arc::clone(file), due, then: Then::Poll(notify) });
        }
        false
    }

    /// An open file is polled anew, or closed: who polled it need not be told.
    pub(super) fn forget(&self, number: u64) {
        self.parked.lock().waiters.retain(|waiter| waiter.number != number || matches!(waiter.then, Then::Read { .. }));
    }

    fn park(&self, waiter: Waiter) {
        let file = Arc::clone(&waiter.file);
        self.parked.lock().waiters.push(waiter);
        if file.job.has_ended() {
            self.job_ended(file.job.id());
        }
        self.ticker.notify_one();
    }

    /// A job has ended: who waits for it is answered at once. Quick: called from whatever thread ended it.
    pub(super) fn job_ended(&self, id: JobId) {
        let now = Instant::now();
        let mut parked = self.parked.lock();
        parked.waiters.iter_mut().filter(|waiter| waiter.file.job.id() == id).for_each(|waiter| waiter.due = now);
        drop(parked);
        self.ticker.notify_one();
    }

    /// Answers everybody and ends the ticker.
    pub(super) fn close(&self) {
        self.parked.lock().closed = true;
        self.ticker.notify_one();
    }

    /// The ticker: answers parked reads until the room is closed.
    pub(super) fn run(&self) {
        let mut parked = self.parked.lock();
        loop {
            let (now, closed) = (Instant::now(), parked.closed);
            let due: Vec<Waiter> = parked.waiters.extract_if(.., |waiter| closed || waiter.due <= now).collect();
            if !due.is_empty() {
                drop(parked);
                for waiter in due {
                    waiter.answer(now, closed);
                }
                parked = self.parked.lock();
            } else if closed {
                return;
            } else if let Some(next) = parked.waiters.iter().map(|waiter| waiter.due).min() {
                self.ticker.wait_until(&mut parked, next);
            } else {
                self.ticker.wait(&mut parked);
            }
        }
    }
}

impl Waiter {
    fn answer(self, now: Instant, closed: bool) {
        match self.then {
            Then::Poll(notify) => notify(),
            Then::Read { reply, .. } if closed => reply(Err(ErrorKind::Os(libc::ENOTCONN))),
            Then::Read { size, reply } => match self.file.step(now, size, true) {
                Step::Now(answer) => reply(answer),
                Step::Wait(_) => unreachable!("a read that is due does not wait"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn view(state: State) -> View {
        View {
            id: 7,
            state,
            read_err: false,
            write_err: 0,
            total: 100,
            copied: 50,
            durable: 0,
            speed: 0,
            eta: None,
            elapsed: Duration::ZERO,
            stalled: Duration::ZERO,
            bad_bytes: 0,
            client: "default".to_owned(),
            name: None,
            digest: None,
            error: None,
            source: None,
            dests: Vec::new(),
            progressed: SystemTime::UNIX_EPOCH,
            course: crate::jobs::Course::default(),
            limited_by: None,
        }
    }

    fn said(step: Step) -> String {
        match step {
            Step::Now(Ok(text)) => String::from_utf8(text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_line_at_once_then_one_each_interval() {
        let (mut cursor, start) = (Cursor::default(), Instant::now());
        let running = view(State::Running);
        assert!(said(cursor.step(&running, start, 4096, false)).starts_with("[==========..........]   50.00 %"));
        let step = cursor.step(&running, start, 4096, false);
        assert!(matches!(step, Step::Wait(due) if due == start + INTERVAL));
        assert!(said(cursor.step(&running, start + INTERVAL, 4096, false)).ends_with('\n'));
        assert!(said(cursor.step(&running, start + INTERVAL, 4096, true)).ends_with('\n'), "two read one file");
    }

    #[test]
    fn the_end_is_the_status_and_then_the_outcome() {
        for (state, outcome) in [
            (State::Done, None),
            (State::Degraded, Some(ErrorKind::Os(libc::EIO))),
            (State::Failed, Some(ErrorKind::Os(libc::EIO))),
            (State::Cancelled, Some(ErrorKind::Cancelled)),
        ] {
            let (mut cursor, now) = (Cursor::default(), Instant::now());
            let ended = view(state);
            let mut text = String::new();
            while text.len() < keys::status(&ended).len() {
                text += &said(cursor.step(&ended, now, 10, false));
            }
            assert_eq!(text.as_bytes(), keys::status(&ended));
            for _ in 0..2 {
                match (cursor.step(&ended, now, 4096, false), outcome) {
                    (Step::Now(Ok(rest)), None) => assert_eq!(rest, b""),
                    (Step::Now(Err(kind)), Some(outcome)) => assert_eq!(kind, outcome),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
