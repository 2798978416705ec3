//! A job and its sub-jobs: what they are, and what an error means for them. Decisions only, no I/O.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::speed::SpeedLimit;
use super::split::{Span, Splitter};
use super::{Flags, Observer, Outcome, Work};
use crate::dm_io::{ErrorBits, IoRegion};
use crate::io::PageList;
use crate::sector::Sector;

pub(super) type Notify = Box<dyn FnOnce(Outcome) + Send>;

/// A job as it is asked for. Regions are checked.
pub(super) struct NewJob {
    pub(super) serial: u64,
    pub(super) work: Work,
    pub(super) dests: Vec<IoRegion>,
    /// Destinations that take part.
    pub(super) live: ErrorBits,
    pub(super) flags: Flags,
    pub(super) piece: Sector,
    /// The smallest piece that all its devices take.
    pub(super) block: Sector,
    pub(super) speed: SpeedLimit,
    pub(super) paused: bool,
    pub(super) sparse: bool,
    pub(super) in_order: bool,
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
    /// Up to where the observer has seen the data of an `in_order` job.
    pub(super) shown_to: Sector,
    pub(super) outcome: Outcome,
}

/// A piece of a job on its way.
pub(super) struct SubJob {
    pub(super) job: usize,
    pub(super) span: Span,
    pub(super) phase: Phase,
    pub(super) read_error: Option<i32>,
    /// Destinations that it is being written to, or compared with.
    pub(super) to: ErrorBits,
    /// Whether the observer has seen its data.
    pub(super) shown: bool,
    /// I/Os of it in flight.
    pub(super) ios: u32,
    /// Destinations that failed, and why.
    pub(super) failed: Vec<(usize, i32)>,
    /// Destinations that are different.
    pub(super) different: ErrorBits,
}

impl SubJob {
    pub(super) fn new(job: usize, span: Span) -> Self {
        Self {
            job,
            span,
            phase: Phase::Waiting,
            read_error: None,
            to: ErrorBits::NONE,
            shown: false,
            ios: 0,
            failed: Vec::new(),
            different: ErrorBits::NONE,
        }
    }

    /// Destinations that failed.
    pub(super) fn failed_bits(&self) -> ErrorBits {
        let mut bits = ErrorBits::NONE;
        for (index, _) in &self.failed {
            bits.set(*index);
        }
        bits
    }
}

/// Where a sub-job's pages are.
#[derive(Debug)]
pub(super) enum Phase {
    /// It has none yet.
    Waiting,
    /// With the read of the source.
    Reading,
    /// Here, full, waiting to be written or compared.
    Read(PageList),
    /// With the writes.
    Writing,
    /// With the read of that destination, which is being compared.
    Comparing(usize),
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
            // A comparison with nobody is a read.
            stopping: new.live.is_empty() && !matches!(new.work, Work::Compare(_)),
            written_to: Sector::ZERO,
            shown_to: Sector::ZERO,
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
        let skips = self.new.flags.contains(Flags::SKIP_UNREADABLE) && !self.new.in_order;
        self.stopping |= !(self.ignores_errors() || skips);
        self.ignores_errors()
    }

    /// A piece could not be written to those destinations.
    pub(super) fn write_failed(&mut self, failed: ErrorBits) {
        self.outcome.write_err = self.outcome.write_err.union(failed);
        if self.ignores_errors() || self.new.flags.contains(Flags::KEEP_FAILED) {
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

    /// Whether a piece that was read may go on: a cancelled job does no new I/O, and an ordered one does nothing behind a
    /// hole.
    pub(super) fn may_go_on(&self) -> bool {
        let ordered = self.is_sequential() || self.new.in_order;
        let nobody = self.new.live.is_empty() && !self.is_comparison();
        !(self.outcome.cancelled || nobody || self.stopping && ordered)
    }

    pub(super) fn is_comparison(&self) -> bool {
        matches!(self.new.work, Work::Compare(_))
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
