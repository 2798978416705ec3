//! What the owner has others do: everything that may block, that moves data, or that somebody waits for.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::card::Card;
use super::event::Reply;
use super::open::Opened;
use super::submit::{Made, NotMade, Ready};
use super::view::{Change, JobId, Refusal};
use crate::blkdev::Device;
use crate::dm_io::{ErrorBits, IoRegion};
use crate::error::Result;
use crate::figures::Hashing;
use crate::journal::Record;
use crate::kcopyd::{Client, Request};

/// Something to be done, in the order in which the owner says it.
pub(super) enum Effect {
    /// Open a job's devices, but for some destinations; by other paths than its own where some are given. Answer: `Opened`.
    Open { card: Arc<Card>, attempt: u64, without: ErrorBits, paths: Option<Arc<[PathBuf]>> },
    /// Lock the bytes of a job's destination files, make them long enough, and ask zoned destinations what they hold. Answer:
    /// `Locked`.
    Lock { id: JobId, attempt: u64, dests: Vec<IoRegion>, sparse: bool },
    /// Lock those of the new jobs of one write. Answer: `BatchLocked`.
    LockBatch { batch: u64, jobs: Vec<Vec<IoRegion>> },
    /// Close a job's devices. Answer: `Closed`, unless nobody waits for it.
    Close { id: JobId, devices: Box<Opened>, answer: bool },
    /// Write a job's record. Answer: `Recorded`.
    Record(Box<Record>),
    /// Write the records of new jobs. Answer: `BatchRecorded`.
    RecordBatch { batch: u64, records: Vec<Record> },
    /// Remove a job's record.
    Forget(JobId),
    /// Start a step. Answers: `Piece`s, then `StepEnded`; or `StepRefused`.
    Start(Box<Start>),
    /// Look for holes of a source; `range` counts from the job's beginning. Answer: `HolesFound`.
    FindHoles { id: JobId, source: IoRegion, range: Range<u64> },
    /// Enter zeros into a digest, for what cannot be read. Answer: `StepEnded`.
    HashZeros { id: JobId, hashing: Box<Hashing>, range: Range<u64> },
    /// The engine takes no new pieces of a job. Answer: `Quiet`.
    Pause(JobId),
    /// The engine goes on with a job.
    Resume(JobId),
    /// The engine ends a job's step.
    Cancel(JobId),
    /// Destinations take no part in a job's step any more.
    GiveUp(JobId, ErrorBits),
    /// The same, and what is in flight there is not waited for.
    LeaveBehind(JobId, ErrorBits),
    /// The engine looks again at a job's limit of speed.
    Wake(JobId),
    /// Flush a destination. Answer: `Flushed`.
    Flush { id: JobId, run: u32, dest: usize, client: Arc<Client>, device: Arc<Device> },
    /// Make sure that a job of an earlier daemon has its client.
    EnsureClient(Arc<Card>),
    /// Tell a change of state.
    Post(Change),
    /// Answer somebody.
    Answer(Answer),
}

/// A step for the engine.
pub(super) struct Start {
    pub(super) card: Arc<Card>,
    pub(super) client: Arc<Client>,
    pub(super) request: Request,
    /// Sees the data, if there is one.
    pub(super) hashing: Option<Box<Hashing>>,
    /// Sectors before the step, for the digest.
    pub(super) first: u64,
    /// Destinations that are files, and may be taken away.
    pub(super) files: Vec<(usize, Arc<Device>)>,
}

/// An answer, and who waits for it.
pub(super) enum Answer {
    Submit(Reply<std::result::Result<Made, NotMade>>, std::result::Result<Made, NotMade>),
    Check(Reply<std::result::Result<Vec<Ready>, Refusal>>, std::result::Result<Vec<Ready>, Refusal>),
    Done(Reply<Result<()>>, Result<()>),
    Over(Reply<()>),
    WhoWrites(Reply<Option<JobId>>, Option<JobId>),
}

impl Answer {
    pub(super) fn send(self) {
        match self {
            Self::Submit(reply, answer) => reply.send(answer),
            Self::Check(reply, answer) => reply.send(answer),
            Self::Done(reply, answer) => reply.send(answer),
            Self::Over(reply) => reply.send(()),
            Self::WhoWrites(reply, answer) => reply.send(answer),
        }
    }
}
