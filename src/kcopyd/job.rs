//! A job and its sub-jobs: what they are, and what an error means for them. Decisions only, no I/O.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use slab::Slab;

use super::content::Part;
use super::limits::{Limit, Waits};
use super::race::Race;
use super::speed::SpeedLimit;
use super::split::{Span, Splitter};
use super::views::Viewing;
use super::worker::Key;
use super::zeros::{self, ZeroPiece};
use super::{Flags, Observer, Outcome, Work};
use crate::dm_io::{ErrorBits, IoRegion};
use crate::io::PageList;
use crate::sector::Sector;

pub(super) type Notify = Box<dyn FnOnce(Outcome) + Send>;
/// Told of a destination that was left behind, when it has answered all that it was asked.
pub(super) type Answered = Box<dyn FnMut(usize) + Send>;

/// A job as it is asked for. Regions are checked.
// As in `Request`.
#[allow(clippy::struct_excessive_bools)]
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
    /// It stays out of the way of others.
    pub(super) background: bool,
    /// A destination that does not keep up may fall behind.
    pub(super) leaves_behind: bool,
    pub(super) observer: Option<Box<dyn Observer>>,
    pub(super) answered: Option<Answered>,
    pub(super) notify: Option<Notify>,
    pub(super) activity: Arc<Activity>,
}

/// A job under way.
///
/// # Invariants
/// `pieces` are its sub-jobs under way, in the order of the job: a piece is cut when it begins, so that nothing but the `splitter`
/// decides what comes next. It stands in the client's line, or waits for its limit of speed, if and only if it
/// [wants a piece](Job::wants_piece). It has ended when it has no pieces and nothing more will be cut. What destinations that were left
/// behind have not answered then is no piece of it any more: it stays only to be told of the answers.
pub(super) struct Job {
    pub(super) new: NewJob,
    pub(super) splitter: Splitter,
    /// What its pieces are shown to, where that is not the observer.
    pub(super) viewing: Option<Arc<Viewing>>,
    /// The size of pieces without data, where they may be large.
    pub(super) zeros: Option<ZeroPiece>,
    pub(super) pieces: VecDeque<usize>,
    pub(super) place: Place,
    pub(super) paused: bool,
    /// No piece is started any more.
    pub(super) stopping: bool,
    /// An ordered job goes on up to here and not behind it.
    hole: Option<Sector>,
    pub(super) outcome: Outcome,
    /// Pieces that it may have under way, and for how many more that need not be asked again.
    pub(super) most: Cell<(usize, u32)>,
    /// How its destinations keep up with each other.
    pub(super) race: Race,
    /// I/Os that destinations which were left behind have not answered, each by its destination.
    pub(super) late: Vec<(usize, u32)>,
    /// Its end was told; it waits for answers.
    pub(super) is_over: bool,
}

/// Where a job waits for its next piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: it wants none now.
    None,
    /// In the client's line, for pages, the throttle, or the limit of all jobs.
    Line,
    /// For its own limit of speed, until then.
    Delayed(Duration),
    /// For room in its source's window.
    Lane,
}

/// What a piece that was read may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Be shown to the observer.
    Show,
    /// Be compared with what the destinations have, before it is written.
    Compare,
    /// Be written or compared.
    Write,
    /// Be let go: the job does nothing with it any more.
    Drop,
}

/// A piece of a job on its way.
pub(super) struct SubJob {
    pub(super) job: usize,
    pub(super) span: Span,
    pub(super) phase: Phase,
    pub(super) read_took: Duration,
    pub(super) read_error: Option<i32>,
    /// Destinations that it is being written to, or compared with.
    pub(super) to: ErrorBits,
    /// Parts of it that are yet to be written, one after the other.
    pub(super) parts: VecDeque<Part>,
    /// Its pages, once it is written.
    pub(super) list: Option<Arc<PageList>>,
    /// Whether the observer has seen its data.
    pub(super) shown: bool,
    /// I/Os of it in flight, or that wait for room at a device.
    pub(super) ios: u32,
    /// Destinations that owe it the end of a write, and once more each one that owes it another.
    owing: ErrorBits,
    owing_more: Vec<usize>,
    /// I/Os that nobody waits for any more: their destination was left behind. By destination, with the lane.
    pub(super) late: Vec<(usize, Option<Key>)>,
    /// Destinations that do not have it because they were left behind.
    pub(super) behind: ErrorBits,
    /// It has ended, but for what is late.
    pub(super) is_over: bool,
    /// Destinations that failed, each once, and why.
    pub(super) failed: Vec<(usize, i32)>,
    /// Destinations that are different.
    pub(super) different: ErrorBits,
    /// A destination that has another sector's pattern in it, and that sector's number.
    pub(super) displaced: Option<(usize, u64)>,
    /// It is written only where it differs, and that is not known yet.
    pub(super) is_unknown: bool,
    /// Destinations that were found to have it.
    pub(super) same: ErrorBits,
}

impl SubJob {
    pub(super) fn new(job: usize, span: Span, phase: Phase) -> Self {
        Self {
            job,
            span,
            phase,
            read_took: Duration::ZERO,
            read_error: None,
            to: ErrorBits::NONE,
            parts: VecDeque::new(),
            list: None,
            shown: false,
            ios: 0,
            owing: ErrorBits::NONE,
            owing_more: Vec::new(),
            late: Vec::new(),
            behind: ErrorBits::NONE,
            is_over: false,
            failed: Vec::new(),
            different: ErrorBits::NONE,
            displaced: None,
            is_unknown: false,
            same: ErrorBits::NONE,
        }
    }

    /// A write to a destination begins, or waits for room there.
    pub(super) fn owes(&mut self, dest: usize) {
        self.ios += 1;
        if self.owing.contains(dest) {
            self.owing_more.push(dest);
        } else {
            self.owing.set(dest);
        }
    }

    /// It has ended, or will not begin.
    pub(super) fn owes_no_more(&mut self, dest: usize) {
        self.ios -= 1;
        match self.owing_more.iter().position(|other| *other == dest) {
            Some(place) => _ = self.owing_more.swap_remove(place),
            None => self.owing = self.owing.without(ErrorBits::only(dest)),
        }
    }

    /// Destinations that owe it the end of a write.
    pub(super) fn owing(&self) -> ErrorBits {
        self.owing
    }

    /// Whether it waits for nobody but some of those destinations.
    pub(super) fn waits_only_for(&self, dests: ErrorBits) -> bool {
        let owed = self.owing.count() as usize + self.owing_more.len();
        owed > 0 && owed == self.ios as usize && self.owing.without(dests).is_empty()
    }

    /// Nobody waits any more for what a destination owes, which is in flight.
    pub(super) fn leave_behind(&mut self, dest: usize, lane: Option<Key>) -> u32 {
        let mut count = 0;
        while self.owing.contains(dest) {
            self.owes_no_more(dest);
            self.late.push((dest, lane));
            count += 1;
        }
        if count > 0 || !self.parts.is_empty() {
            self.to = self.to.without(ErrorBits::only(dest));
            self.behind.set(dest);
        }
        count
    }

    /// Those destinations failed; of each the first reason is kept.
    pub(super) fn fail(&mut self, errnos: impl IntoIterator<Item = (usize, i32)>) {
        for (index, errno) in errnos {
            if !self.failed_bits().contains(index) {
                self.failed.push((index, errno));
            }
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

/// Where a sub-job is.
#[derive(Debug)]
pub(super) enum Phase {
    /// With the read of the source.
    Reading,
    /// Waiting to be written or compared; its pages are full. Zeros have none.
    Ready(Option<PageList>),
    /// With a thread that looks at its data.
    Seen,
    /// With the writes.
    Writing,
    /// With the read of that destination, which is being compared.
    Comparing(usize),
}

impl Job {
    pub(super) fn new(new: NewJob) -> Self {
        let total = new.work.source().or(new.dests.first()).map_or(Sector::ZERO, |region| region.count);
        let zeros = ZeroPiece::of(&new);
        let mut splitter = Splitter::new(total, zeros.as_ref().map_or(new.piece, |_| zeros::MOST.max(new.piece)));
        splitter.limit(new.piece);
        Self {
            splitter,
            zeros,
            viewing: None,
            pieces: VecDeque::new(),
            place: Place::None,
            paused: new.paused,
            // A comparison with nobody is a read.
            stopping: new.live.is_empty() && !matches!(new.work, Work::Compare(_)),
            hole: None,
            outcome: Outcome::default(),
            most: Cell::new((0, 0)),
            race: Race::new(new.dests.len()),
            late: Vec::new(),
            is_over: false,
            new,
        }
    }

    /// Whether it may begin a piece, with at most `subjobs` under way.
    pub(super) fn wants_piece(&self, subjobs: usize) -> bool {
        !self.stopping && !self.paused && !self.splitter.is_empty() && self.pieces.len() < subjobs
    }

    /// Whether nothing is left to do.
    pub(super) fn has_ended(&self) -> bool {
        self.pieces.is_empty() && (self.stopping || self.splitter.is_empty())
    }

    /// Whether it writes one piece after the other. A comparison writes nothing.
    pub(super) fn is_sequential(&self) -> bool {
        self.new.flags.contains(Flags::WRITE_SEQ) && !self.is_comparison()
    }

    fn ignores_errors(&self) -> bool {
        self.new.flags.contains(Flags::IGNORE_ERROR) && !self.is_sequential()
    }

    /// A piece could not be read. Whether it is written all the same, as zeros.
    pub(super) fn read_failed(&mut self, span: Span) -> bool {
        self.outcome.read_err = true;
        if self.ignores_errors() {
            return true;
        }
        let ordered = self.is_sequential() || self.new.in_order;
        if ordered {
            self.hole = Some(self.hole.map_or(span.offset, |hole| hole.min(span.offset)));
        }
        self.stopping |= ordered || !self.new.flags.contains(Flags::SKIP_UNREADABLE);
        false
    }

    /// Whether a piece that failed is done again, in smaller ones: then nothing is told of it. In order nothing is done twice.
    pub(super) fn does_again(&mut self, span: Span) -> bool {
        let again = !self.stopping
            && !self.is_sequential()
            && self.zeros.as_mut().is_some_and(|zeros| zeros.failed(span.count));
        if again {
            self.splitter.put_back(span);
        }
        again
    }

    /// A piece could not be written to those destinations.
    pub(super) fn write_failed(&mut self, span: Span, failed: ErrorBits) {
        self.outcome.write_err = self.outcome.write_err.union(failed);
        let keeps = self.new.flags.contains(Flags::KEEP_FAILED);
        if self.ignores_errors() || keeps && !self.is_sequential() {
            return;
        }
        // What is written in order has nothing behind a hole.
        if keeps || self.new.flags.contains(Flags::DROP_FAILED) {
            return self.drop_dests(failed);
        }
        self.stopping = true;
        if self.is_sequential() {
            self.hole = Some(span.offset);
        }
    }

    fn drop_dests(&mut self, dests: ErrorBits) {
        self.new.live = self.new.live.without(dests);
        self.stopping |= self.new.live.is_empty();
    }

    /// Those destinations take no part any more. A job that stops finishes what is in flight, to all of them.
    pub(super) fn give_up(&mut self, dests: ErrorBits) {
        if !self.stopping {
            self.drop_dests(dests);
        }
    }

    /// Those destinations were left behind: nothing more is begun for them, not even of what has been read.
    pub(super) fn leave_behind(&mut self, dests: ErrorBits) {
        let nobody = self.new.live.is_empty();
        self.new.live = self.new.live.without(dests);
        self.stopping |= self.new.live.is_empty() && !nobody;
    }

    pub(super) fn cancel(&mut self) {
        self.outcome.cancelled = true;
        self.stopping = true;
    }

    /// Whether a piece that was read may go on: a cancelled job does no new I/O, and an ordered one does nothing behind a
    /// hole.
    fn may_go_on(&self, span: Span) -> bool {
        let nobody = self.new.live.is_empty() && !self.is_comparison();
        !(self.outcome.cancelled || nobody || self.hole.is_some_and(|hole| span.offset > hole))
    }

    /// The first of its pieces that may go on now, and how.
    pub(super) fn next_move(&self, subs: &Slab<SubJob>) -> Option<(usize, Move)> {
        let mut all_before_shown = true;
        for (place, key) in self.pieces.iter().enumerate() {
            let SubJob { phase, span, shown, is_unknown, .. } = &subs[*key];
            if matches!(phase, Phase::Ready(_)) {
                let turn = place == 0 || !self.is_sequential();
                match () {
                    () if !self.may_go_on(*span) => return Some((*key, Move::Drop)),
                    () if self.new.in_order && !shown && all_before_shown => return Some((*key, Move::Show)),
                    // What is left behind while it is looked at may go without having been shown.
                    () if *is_unknown && (*shown || !self.new.in_order) => return Some((*key, Move::Compare)),
                    () if turn && (*shown || !self.new.in_order) => return Some((*key, Move::Write)),
                    () => {}
                }
            }
            all_before_shown &= shown;
        }
        None
    }

    /// Whether pieces are written only where they differ.
    pub(super) fn looks_first(&self) -> bool {
        self.new.flags.contains(Flags::ONLY_CHANGED) && matches!(self.new.work, Work::Copy(_))
    }

    /// Its end is about to be told: it lets go of its devices and of whoever watches it.
    pub(super) fn put_away(&mut self) {
        self.is_over = true;
        (self.new.work, self.new.dests, self.new.observer) = (Work::Zero, Vec::new(), None);
    }

    pub(super) fn is_comparison(&self) -> bool {
        self.new.work.compares()
    }
}

/// When a job's devices last answered; read by others while the job runs.
#[derive(Debug)]
pub(super) struct Activity {
    epoch: Instant,
    in_flight: AtomicU32,
    /// Microseconds since `epoch`.
    last: AtomicU64,
    /// By destination.
    dests: Box<[DestActivity]>,
    waits: Mutex<Waits>,
}

/// Written by the client's thread alone.
#[derive(Debug, Default)]
struct DestActivity {
    in_flight: AtomicU32,
    /// Since when it owes an answer, or has answered last, in microseconds since the epoch.
    last: AtomicU64,
}

impl Activity {
    pub(super) fn new(dests: usize) -> Self {
        let dests = (0..dests).map(|_| DestActivity::default()).collect();
        Self {
            epoch: Instant::now(),
            in_flight: AtomicU32::new(0),
            last: AtomicU64::new(0),
            dests,
            waits: Mutex::default(),
        }
    }

    /// A destination is asked for something.
    pub(super) fn start_at(&self, dest: usize) {
        self.start();
        let Some(dest) = self.dests.get(dest) else { return };
        let before = dest.in_flight.load(Ordering::Relaxed);
        if before == 0 {
            dest.last.store(self.now(), Ordering::Relaxed);
        }
        dest.in_flight.store(before + 1, Ordering::Relaxed);
    }

    /// It has answered.
    pub(super) fn end_at(&self, dest: usize) {
        self.end();
        let Some(dest) = self.dests.get(dest) else { return };
        dest.in_flight.store(dest.in_flight.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        dest.last.store(self.now(), Ordering::Relaxed);
    }

    /// How long a destination has owed an answer.
    pub(super) fn unanswered(&self, dest: usize) -> Duration {
        match self.dests.get(dest) {
            Some(dest) if dest.in_flight.load(Ordering::Relaxed) > 0 => {
                self.epoch.elapsed().saturating_sub(Duration::from_micros(dest.last.load(Ordering::Relaxed)))
            }
            _ => Duration::ZERO,
        }
    }

    /// From now on the job waits for that.
    pub(super) fn waits(&self, limit: Option<Limit>) {
        self.waits.lock().waits(limit, self.epoch.elapsed());
    }

    /// The job has waited for that until now, since it was last said.
    pub(super) fn waited(&self, limit: Option<Limit>) {
        self.waits.lock().waited(limit, self.epoch.elapsed());
    }

    /// What it has waited for most, of late.
    pub(super) fn limited_by(&self) -> Option<Limit> {
        self.waits.lock().most(self.epoch.elapsed())
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
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
        self.last.store(self.now(), Ordering::Relaxed);
    }

    /// Since the last completed I/O, while some is in flight.
    pub(super) fn stalled(&self) -> Duration {
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            return Duration::ZERO;
        }
        self.epoch.elapsed().saturating_sub(Duration::from_micros(self.last.load(Ordering::Relaxed)))
    }
}
