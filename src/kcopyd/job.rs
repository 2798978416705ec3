//! A job and its sub-jobs: what they are, and what an error means for them. Decisions only, no I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::speed::SpeedLimit;
use super::split::{Span, Splitter};
use super::{Flags, Observer, Outcome};
use crate::dm_io::{ErrorBits, IoRegion};
use crate::io::PageList;
use crate::sector::Sector;

pub(super) type Notify = Box<dyn FnOnce(Outcome) + Send>;

/// A job as it is asked for. Regions are checked.
pub(super) struct NewJob {
    pub(super) serial: u64,
    /// `None`: zeros are written.
    pub(super) from: Option<IoRegion>,
    pub(super) dests: Vec<IoRegion>,
    /// Destinations that take part.
    pub(super) live: ErrorBits,
    pub(super) flags: Flags,
    pub(super) piece: Sector,
    /// The smallest piece that all its devices take.
    pub(super) block: Sector,
    pub(super) speed: SpeedLimit,
    pub(super) paused: bool,
    pub(super) observer: Option<Box<dyn Observer>>,
    pub(super) notify: Notify,
    pub(super) activity: Arc<Activity>,
}

/// A job under way.
///
/// # Invariants
/// `subs` counts its sub-jobs; `busy` those of them that hold pages or have I/O in flight; `parked` are those that a pause or a
/// limit of speed holds back, in order. It has ended when `subs` is 0 and nothing more will be cut.
pub(super) struct Job {
    pub(super) new: NewJob,
    pub(super) splitter: Splitter,
    pub(super) subs: usize,
    pub(super) busy: usize,
    pub(super) parked: Vec<usize>,
    pub(super) paused: bool,
    /// No piece is started any more.
    pub(super) stopping: bool,
    /// Up to where a `WRITE_SEQ` job has been written.
    pub(super) written_to: Sector,
    pub(super) outcome: Outcome,
}

/// A piece of a job on its way.
pub(super) struct SubJob {
    pub(super) job: usize,
    pub(super) span: Span,
    pub(super) phase: Phase,
    pub(super) read_error: Option<i32>,
    /// Destinations that it is being written to.
    pub(super) to: ErrorBits,
}

/// Where a sub-job's pages are.
#[derive(Debug)]
pub(super) enum Phase {
    /// It has none yet.
    Waiting,
    /// With the I/O in flight.
    InFlight,
    /// Here, full, waiting to be written.
    Read(PageList),
}

impl Job {
    pub(super) fn new(new: NewJob) -> Self {
        let total = new.dests.first().map_or(Sector::ZERO, |dest| dest.count);
        Self {
            splitter: Splitter::new(total, new.piece),
            subs: 0,
            busy: 0,
            parked: Vec::new(),
            paused: new.paused,
            stopping: new.live.is_empty(),
            written_to: Sector::ZERO,
            outcome: Outcome::default(),
            new,
        }
    }

    pub(super) fn is_sequential(&self) -> bool {
        self.new.flags.contains(Flags::WRITE_SEQ)
    }

    fn ignores_errors(&self) -> bool {
        self.new.flags.contains(Flags::IGNORE_ERROR) && !self.is_sequential()
    }

    /// A piece could not be read. Whether it is written all the same, as zeros.
    pub(super) fn read_failed(&mut self) -> bool {
        self.outcome.read_err = true;
        self.stopping |= !self.ignores_errors();
        self.ignores_errors()
    }

    /// A piece could not be written to those destinations.
    pub(super) fn write_failed(&mut self, failed: ErrorBits) {
        self.outcome.write_err = self.outcome.write_err.union(failed);
        if self.ignores_errors() {
            return;
        }
        if self.new.flags.contains(Flags::DROP_FAILED) {
            self.give_up(failed);
        } else {
            self.stopping = true;
        }
    }

    /// Those destinations take no part any more.
    pub(super) fn give_up(&mut self, dests: ErrorBits) {
        self.new.live = self.new.live.without(dests);
        self.stopping |= self.new.live.is_empty();
    }

    pub(super) fn cancel(&mut self) {
        self.outcome.cancelled = true;
        self.stopping = true;
    }

    /// Whether a piece that was read may still be written: a cancelled job does no new I/O, and an ordered one writes
    /// nothing behind a hole.
    pub(super) fn may_write(&self) -> bool {
        !(self.outcome.cancelled || self.new.live.is_empty() || self.stopping && self.is_sequential())
    }

    /// Whether that piece's turn to be written has come.
    pub(super) fn is_turn_of(&self, span: Span) -> bool {
        !self.is_sequential() || span.offset == self.written_to
    }
}

/// When a job's devices last answered; read by others while the job runs.
#[derive(Debug)]
pub(super) struct Activity {
    epoch: Instant,
    in_flight: AtomicU32,
    /// Microseconds since `epoch`.
    last: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self { epoch: Instant::now(), in_flight: AtomicU32::new(0), last: AtomicU64::new(0) }
    }

    pub(super) fn start(&self) {
        if self.in_flight.fetch_add(1, Ordering::Relaxed) == 0 {
            self.stamp();
        }
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.stamp();
    }

    fn stamp(&self) {
        let now = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Since the last completed I/O, while some is in flight.
    pub(super) fn stalled(&self) -> Duration {
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            return Duration::ZERO;
        }
        self.epoch.elapsed().saturating_sub(Duration::from_micros(self.last.load(Ordering::Relaxed)))
    }
}
