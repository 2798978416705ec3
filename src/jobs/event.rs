//! What happens to jobs: everything that the owner is told, and what it is asked.

use std::ops::Range;
use std::sync::mpsc;
use std::time::Duration;

use super::job::Job;
use super::open::{OpenError, Opened, Zoned};
use super::submit::{Made, NotMade, Ready};
use super::view::{JobId, Refusal, Verb};
use crate::dm_io::ErrorBits;
use crate::error::{Error, Result};
use crate::figures::Hashing;
use crate::kcopyd::{Lag, Piece};
use crate::sector::Sector;

/// Something that happened, or is asked for.
pub(super) enum Event {
    /// Specs, with their open devices, are to become jobs: all or none.
    Submit { ready: Vec<Ready>, reply: Reply<std::result::Result<Made, NotMade>> },
    /// Whether those would be made. They come back; nothing of it is kept.
    Check { ready: Vec<Ready>, reply: Reply<std::result::Result<Vec<Ready>, Refusal>> },
    /// Whether a spec with that name and `once` would be refused for a job that is there.
    CheckOnce { name: String, reply: Reply<Result<()>> },
    /// The jobs of an earlier daemon. `shown` is answered when all can see them, `settled` when the devices of those that had
    /// begun were looked at.
    Restore { jobs: Vec<(JobId, std::result::Result<Box<Job>, String>)>, shown: Reply<()>, settled: Reply<()> },
    /// A verb of `control`.
    Control { id: JobId, verb: Verb, reply: Reply<Result<()>> },
    /// A job's limit of speed.
    SpeedMax { id: JobId, rate: Option<u64>, reply: Reply<Result<()>> },
    /// So many jobs may run at once from now on.
    Active { most: usize, reply: Reply<()> },
    /// An ended job is to be forgotten.
    Dismiss { id: JobId, reply: Reply<Result<()>> },
    /// Somebody wants to know something of a job that its card does not show.
    Ask { id: JobId, question: Question },
    /// Somebody wants to know who writes those bytes.
    WhoWrites { extents: Vec<crate::blkdev::Extent>, reply: Reply<Option<JobId>> },
    /// A job's devices were opened, or not.
    Opened { id: JobId, attempt: u64, result: std::result::Result<Box<Opened>, OpenError> },
    /// A job's destination files were locked and made long enough, or not; and what its zoned destinations hold.
    Locked { id: JobId, attempt: u64, result: Result<Vec<Zoned>> },
    /// The files of the new jobs of one write were locked, or not; which of them failed, and at which destination.
    BatchLocked { batch: u64, result: std::result::Result<(), (usize, usize, Error)> },
    /// A job's devices are closed.
    Closed { id: JobId },
    /// Those records are on disk.
    Recorded { ids: Vec<JobId> },
    /// Records cannot be written; it is tried again.
    RecordsFail { why: String },
    /// The records of new jobs are on disk, or none of them is.
    BatchRecorded { batch: u64, result: Result<()> },
    /// A piece of a job has ended.
    Piece { id: JobId, piece: EndedPiece },
    /// The step that the engine had of a job has ended.
    StepEnded { id: JobId, hashing: Option<Box<Hashing>>, gone: Vec<(usize, i32)> },
    /// A job's source was looked at for holes: the range that was looked at, and the holes in it, counted from the job's beginning.
    HolesFound { id: JobId, known: Range<u64>, holes: Vec<Range<u64>> },
    /// The engine did not take a step.
    StepRefused { id: JobId, error: Error },
    /// A job is paused, and the engine has nothing of it in flight.
    Quiet { id: JobId },
    /// A destination was flushed, or not.
    Flushed { id: JobId, run: u32, dest: usize, result: std::result::Result<(), i32> },
    /// A destination does not keep up with the others of its step, and takes no part in it any more. `owes`: it has I/O in flight.
    Behind { id: JobId, dest: usize, why: Lag, owes: bool },
    /// A destination that was left behind has answered all that it was asked.
    Answered { id: JobId, dest: usize },
    /// Nothing but time has passed.
    Tick,
    /// No new I/O, then a checkpoint. The answer comes when all that runs is quiet and durable.
    Stop { reply: Reply<()> },
}

/// What is asked of a job, where it is there.
pub(super) type Question = Box<dyn FnOnce(Option<&Job>) + Send>;

/// Where an answer goes. Whoever asked may have gone.
#[derive(Debug)]
pub(super) struct Reply<T>(mpsc::Sender<T>);

impl<T> Reply<T> {
    /// A reply, and the place where it arrives.
    pub(super) fn new() -> (Self, mpsc::Receiver<T>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }

    pub(super) fn send(self, answer: T) {
        // Nobody waits any more: nothing is lost.
        let _ = self.0.send(answer);
    }
}

/// A [`Piece`] that has ended, on its way to the owner.
#[derive(Clone, Debug)]
pub(super) struct EndedPiece {
    pub(super) offset: Sector,
    pub(super) count: Sector,
    pub(super) read_took: Duration,
    pub(super) read_error: Option<i32>,
    pub(super) written: ErrorBits,
    pub(super) write_errors: Vec<(usize, i32)>,
    pub(super) different: ErrorBits,
    pub(super) displaced: Option<(usize, u64)>,
    pub(super) same: ErrorBits,
    pub(super) behind: ErrorBits,
    /// Destinations that are files and were taken away, and why.
    pub(super) gone: Vec<(usize, i32)>,
}

impl EndedPiece {
    pub(super) fn new(piece: &Piece<'_>, gone: Vec<(usize, i32)>) -> Self {
        Self {
            offset: piece.offset,
            count: piece.count,
            read_took: piece.read_took,
            read_error: piece.read_error,
            written: piece.written,
            write_errors: piece.write_errors.to_vec(),
            different: piece.different,
            displaced: piece.displaced,
            same: piece.same,
            behind: piece.behind,
            gone,
        }
    }

    pub(super) fn piece(&self) -> Piece<'_> {
        Piece {
            offset: self.offset,
            count: self.count,
            read_took: self.read_took,
            read_error: self.read_error,
            written: self.written,
            write_errors: &self.write_errors,
            different: self.different,
            displaced: self.displaced,
            same: self.same,
            behind: self.behind,
        }
    }

    /// Whether nothing went wrong: nobody has to react at once.
    pub(super) fn is_clean(&self) -> bool {
        self.read_error.is_none() && self.write_errors.is_empty() && self.different.is_empty() && self.gone.is_empty()
    }
}
