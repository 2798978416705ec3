//! The work loop of a client: owns its jobs, its lists and its backend, without locks.
//!
//! Each time it wakes it does, in this order:
//! 1. messages, so that a cancelled job takes nothing below;
//! 2. I/O that has ended: a sub-job that was written gives its pages back and takes its job's next piece;
//! 3. jobs that want a piece, in turn, as far as their source's window, pages, limits and throttle allow: it is cut and read;
//! 4. sub-jobs that were read and wait to be shown, written or compared; what a destination has no room for waits in its lane (`lanes`);
//! 5. callbacks of jobs that have ended, when their pages are back and their devices let go.
//!
//! Steps 3 and 4 are done again where step 4 gave pages back that somebody waits for: nobody else will wake the client for them.
//! A piece is cut when it begins, never before. So a job's pieces begin in order whatever holds them back, and the first that has
//! begun can always go on: it has its pages.
//!
//! Pages go back before pages are taken, and what is read is written in the same turn: so a client holds no page longer
//! than its I/O takes, and memory stays what was set aside.

mod changed;
mod laggards;
mod lanes;
mod limits;
mod line;
mod pieces;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slab::Slab;

use super::client::Settings;
use super::content::are_equal;
use super::job::{Job, NewJob, Notify, Phase, SubJob};
use super::views::Viewing;
use super::{Lag, Limit, Outcome, Piece};
use crate::blkdev::Device;
use crate::dm_io::{Core, ErrorBits, Finished, Memory};
use crate::io::{BackendKind, Op, PageList, Reservation, Wait};
use crate::mailbox::Mailbox;
use crate::sector::Sector;
pub(super) use lanes::Key;
use lanes::Lanes;

/// Called with the end of a flush: its errno, if it failed.
pub(super) type FlushNotify = Box<dyn FnOnce(Result<(), i32>) + Send>;

/// What a client's thread is asked for.
pub(super) enum Message {
    Start(Box<NewJob>),
    Pause(u64),
    Resume(u64),
    Cancel(u64),
    GiveUp(u64, ErrorBits),
    LeaveBehind(u64, ErrorBits),
    Callback(Notify, Outcome),
    Flush(Arc<Device>, FlushNotify),
    /// The data of a sub-job was looked at; its pages.
    Seen(usize, PageList),
    Destroy,
}

/// Figures that others may read at any time.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) pages_waiting: AtomicU64,
    pub(super) subjobs_in_flight: AtomicU64,
}

fn bytes(count: Sector) -> usize {
    usize::try_from(count.bytes()).expect("a piece in memory")
}

/// What an I/O in flight belongs to; packed into its token.
enum Owner {
    SubJob(usize),
    /// The write of a sub-job to one destination.
    Write(usize, usize),
    Flush(usize),
}

const FLUSH: u64 = 1 << 62;
/// From here on the destination's number and one.
const DEST: u32 = 40;

impl Owner {
    fn token(&self) -> u64 {
        match self {
            Self::SubJob(key) => *key as u64,
            Self::Write(key, dest) => (*dest as u64 + 1) << DEST | *key as u64,
            Self::Flush(key) => FLUSH | *key as u64,
        }
    }

    fn of(token: u64) -> Self {
        let small = |number| usize::try_from(number).expect("a slot's number");
        let key = small(token & ((1 << DEST) - 1));
        match small((token & !FLUSH) >> DEST).checked_sub(1) {
            _ if token & FLUSH != 0 => Self::Flush(key),
            None => Self::SubJob(key),
            Some(dest) => Self::Write(key, dest),
        }
    }
}

pub(super) struct Worker {
    core: Core,
    pages: Arc<Reservation>,
    mailbox: Mailbox<Message>,
    settings: Settings,
    gauges: Arc<Gauges>,
    lanes: Lanes,
    jobs: Slab<Job>,
    by_serial: HashMap<u64, usize>,
    subs: Slab<SubJob>,
    flushes: Slab<FlushNotify>,
    /// Jobs that want a piece, each once.
    line: VecDeque<usize>,
    /// Jobs that may not go faster, by when they may go on.
    delayed: BTreeSet<(Duration, usize)>,
    /// Jobs of which a piece may have something to do in step 4.
    moved: VecDeque<usize>,
    /// Jobs that have ended and whose callers do not know.
    ended: VecDeque<(Notify, Outcome)>,
    finished: Vec<Finished>,
    /// The client stands in the pool's line, for the first of its own.
    in_line: bool,
    /// Sub-jobs that have ended but for what is late.
    over: usize,
    /// What the first in the line waits for, and all behind it.
    line_waits_for: Option<Limit>,
    limits_looked_at: Duration,
    /// When to look next at who does not keep up; `None` where nobody can fall behind.
    look: Option<Duration>,
    /// A sub-job has ended since step 3 began.
    freed: bool,
    destroying: bool,
}

impl Worker {
    pub(super) fn new(
        core: Core,
        pages: Arc<Reservation>,
        mailbox: Mailbox<Message>,
        settings: Settings,
        gauges: Arc<Gauges>,
    ) -> Self {
        let limited = settings.subjobs.is_none();
        let lanes = Lanes::new(settings.paces.clone(), settings.subjob_bytes.into(), limited);
        Self {
            core,
            pages,
            mailbox,
            settings,
            gauges,
            lanes,
            jobs: Slab::new(),
            by_serial: HashMap::new(),
            subs: Slab::new(),
            flushes: Slab::new(),
            line: VecDeque::new(),
            delayed: BTreeSet::new(),
            moved: VecDeque::new(),
            ended: VecDeque::new(),
            finished: Vec::new(),
            in_line: false,
            over: 0,
            line_waits_for: None,
            limits_looked_at: Duration::ZERO,
            look: None,
            freed: false,
            destroying: false,
        }
    }

    /// The life of a client's thread.
    pub(super) fn run(mut self) {
        let mut wait = Wait::No;
        while !(self.destroying && self.is_idle()) {
            wait = self.turn(wait);
        }
        assert!(self.subs.is_empty() && self.line.is_empty() && self.delayed.is_empty(), "lists are empty");
        assert!(self.lanes.is_empty(), "nothing waits at a device");
        assert_eq!(self.pages.used(), 0, "every page is back");
    }

    /// One turn at the time that the simulation's clock shows.
    #[cfg(test)]
    pub(super) fn step(&mut self) -> super::Turn {
        let wait = self.turn(Wait::No);
        let now = self.core.now();
        let next = match wait {
            _ if !self.mailbox.is_empty() => Some(now),
            Wait::Until(time) => Some(time),
            Wait::No | Wait::Forever => None,
        };
        let next = [next, self.core.next_due()].into_iter().flatten().min();
        super::Turn { has_work: !self.is_idle() || !self.mailbox.is_empty(), next }
    }

    /// The process is gone: nobody is told anything, and what is in flight stays with the simulated devices.
    #[cfg(test)]
    pub(super) fn abandon(mut self) {
        self.core.abandon();
        // Pages go back before the account does.
        self.subs.clear();
        self.lanes.abandon();
    }

    /// Asserts that a worker without work has nothing left.
    #[cfg(test)]
    pub(super) fn assert_clean(&self) {
        assert!(self.is_idle() && self.subs.is_empty() && self.line.is_empty() && self.delayed.is_empty());
        assert!(self.lanes.is_empty());
        assert_eq!(self.pages.used(), 0, "every page is back");
    }

    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.ended.is_empty() && self.core.is_idle()
    }

    /// Waits as told, then does all there is to do. Returns how long to wait next.
    pub(super) fn turn(&mut self, wait: Wait) -> Wait {
        let mut finished = std::mem::take(&mut self.finished);
        self.core.reap(wait, &mut finished);
        self.look_at_limits_after_sleep();
        while let Some(message) = self.mailbox.take() {
            self.receive(message);
        }
        for end in finished.drain(..) {
            self.io_ended(end);
        }
        self.finished = finished;
        for lane in self.lanes.rested(self.core.now()) {
            self.serve(lane);
        }
        let next = loop {
            self.freed = false;
            let next = self.begin_pieces();
            self.move_pieces();
            self.look_at_laggards();
            if self.moved.is_empty() && (!self.freed || self.line.is_empty()) {
                break next;
            }
        };
        let end_of_rest = self.lanes.next_end_of_rest(self.core.now());
        let next = [next, self.look, end_of_rest].into_iter().flatten().min();
        self.publish();
        self.look_at_limits(next);
        self.call_back();
        match next {
            // Callbacks may have asked for more, and what was queued above must reach the devices: both happen there.
            Some(time) => Wait::Until(time),
            None if self.destroying && self.is_idle() => Wait::No,
            None => Wait::Forever,
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Start(new) => self.start(*new),
            Message::Pause(serial) => self.with_job(serial, |this, key| {
                this.jobs[key].paused = true;
                this.stand_back(key);
                this.settle(key);
            }),
            Message::Resume(serial) => self.with_job(serial, |this, key| {
                this.jobs[key].paused = false;
                this.line_up(key);
                this.settle(key);
            }),
            Message::Cancel(serial) => self.with_job(serial, |this, key| {
                this.jobs[key].cancel();
                this.withdraw(key, |_| true);
                this.look_at(key);
                this.settle(key);
            }),
            Message::GiveUp(serial, dests) => self.with_job(serial, |this, key| {
                this.jobs[key].give_up(dests);
                this.withdraw(key, |dest| dests.contains(dest));
                this.look_at(key);
                this.settle(key);
            }),
            Message::LeaveBehind(serial, dests) => self.with_job(serial, |this, key| {
                this.leave_behind(key, dests, Lag::GivenUp);
            }),
            Message::Callback(notify, outcome) => self.ended.push_back((notify, outcome)),
            Message::Flush(device, notify) => {
                let owner = Owner::Flush(self.flushes.insert(notify));
                self.core.set_background(false);
                let region = [(0, &device, Sector::ZERO, Sector::ZERO)];
                self.core.start(owner.token(), Op::Flush, region, Sector::ZERO, None);
            }
            Message::Seen(key, list) => {
                self.subs[key].phase = Phase::Ready(Some(list));
                self.look_at(self.subs[key].job);
            }
            Message::Destroy => self.destroying = true,
        }
    }

    fn with_job(&mut self, serial: u64, act: impl FnOnce(&mut Self, usize)) {
        // A job that has ended meanwhile needs nothing.
        if let Some(key) = self.by_serial.get(&serial).copied() {
            act(self, key);
        }
    }

    fn start(&mut self, mut new: NewJob) {
        let serial = new.serial;
        // A simulation is one thread.
        let is_real = !matches!(self.settings.backend, BackendKind::Sim(_));
        let observer = new.observer.as_mut().filter(|_| is_real && new.in_order);
        let viewing = observer.and_then(|observer| observer.view()).map(Viewing::new);
        let is_background = new.background;
        let mut job = Job::new(new);
        job.viewing = viewing;
        let key = self.jobs.insert(job);
        self.lanes.set_background(key, is_background);
        self.by_serial.insert(serial, key);
        self.line_up(key);
        self.settle(key);
    }

    /// Has step 4 look at a job's pieces.
    fn look_at(&mut self, key: usize) {
        if self.moved.back() != Some(&key) {
            self.moved.push_back(key);
        }
    }

    /// After anything that may have stopped, paused or ended a job: tells who waits for it.
    fn settle(&mut self, key: usize) {
        // What was withdrawn may have been its last.
        if self.jobs.get(key).is_some_and(|job| job.stopping) {
            self.stand_back(key);
        }
        let Some(job) = self.jobs.get_mut(key) else { return };
        if job.pieces.is_empty()
            && job.paused
            && !job.stopping
            && let Some(observer) = &mut job.new.observer
        {
            observer.quiesced();
        }
        if job.has_ended() && !job.is_over {
            self.by_serial.remove(&job.new.serial);
            // The regions go here: who is told of the end finds the devices closed.
            job.put_away();
            self.ended.extend(job.new.notify.take().map(|notify| (notify, job.outcome)));
        }
        if job.is_over && job.late.is_empty() {
            self.jobs.remove(key);
            self.lanes.set_background(key, false);
        }
    }

    /// Step 2.
    fn io_ended(&mut self, end: Finished) {
        let key = match Owner::of(end.token) {
            Owner::Flush(key) => {
                let notify = self.flushes.remove(key);
                return notify(end.errnos.first().map_or(Ok(()), |(_, errno)| Err(*errno)));
            }
            Owner::SubJob(key) | Owner::Write(key, _) => key,
        };
        if self.late_ended(key, &end) {
            return;
        }
        let lane = self.lane_of(key, Owner::of(end.token));
        if let Some(lane) = lane {
            self.lanes.ended(lane, self.subs[key].job, self.core.now(), &end);
        }
        self.sub_io_ended(key, end);
        if let Some(lane) = lane {
            self.serve(lane);
        }
    }

    /// An I/O of a sub-job has ended.
    fn sub_io_ended(&mut self, key: usize, end: Finished) {
        let now = self.core.now();
        let (sub, job) = self.sub_and_job(key);
        match (&sub.phase, Owner::of(end.token)) {
            (_, Owner::Write(_, dest)) => {
                job.new.activity.end_at(dest);
                job.race.ended(dest, end.bytes, now);
                sub.owes_no_more(dest);
            }
            (Phase::Comparing(dest), _) => {
                job.new.activity.end_at(*dest);
                job.race.ended(*dest, end.bytes, now);
                sub.ios -= 1;
            }
            _ => {
                job.new.activity.end();
                sub.ios -= 1;
            }
        }
        match (&sub.phase, end.memory) {
            (Phase::Reading, Some(Memory::Pages { list, .. })) => {
                sub.read_took = now.saturating_sub(end.started);
                sub.read_error = end.errnos.first().map(|(_, errno)| *errno);
                if sub.read_error.is_none() || job.read_failed(sub.span) {
                    sub.phase = Phase::Ready(Some(list));
                    let owner = sub.job;
                    self.look_at(owner);
                } else {
                    drop(list);
                    self.sub_ended(key);
                }
            }
            (Phase::Comparing(dest), Some(Memory::Pages { list, .. })) => {
                let (dest, length) = (*dest, bytes(sub.span.count));
                if sub.is_unknown {
                    let is_same = end.errnos.is_empty() && are_equal(&list, 0, length, length);
                    return self.looked(key, list, dest, is_same);
                }
                if let Some((_, errno)) = end.errnos.first() {
                    sub.fail([(dest, *errno)]);
                } else if !are_equal(&list, 0, length, length) {
                    sub.different.set(dest);
                    let displaced = job.new.work.pattern().and_then(|pattern| pattern.displaced(&list, length));
                    sub.displaced = displaced.map(|number| (dest, number)).or(sub.displaced);
                }
                self.compare(key, list, dest + 1);
            }
            (_, memory) => {
                if let Some(zeros) = &mut job.zeros {
                    zeros.ended(sub.span.count, now.saturating_sub(end.started), end.fell_back);
                }
                sub.fail(end.errnos);
                drop(memory);
                self.written(key);
            }
        }
    }

    fn sub_and_job(&mut self, key: usize) -> (&mut SubJob, &mut Job) {
        let sub = &mut self.subs[key];
        let job = &mut self.jobs[sub.job];
        (sub, job)
    }

    /// A sub-job has gone its way; its pages are back.
    fn sub_ended(&mut self, key: usize) {
        let now = self.core.now();
        self.settings.throttle.end(now);
        let sub = &mut self.subs[key];
        // Its pages go back before anybody asks for more, but for those that something late has.
        (sub.list, sub.phase) = (None, Phase::Writing);
        let SubJob { job: owner, span, read_took, read_error, different, displaced, same, behind, .. } = *sub;
        let (to, shown, failed) = (sub.to, sub.shown, sub.failed_bits());
        let write_errors = std::mem::take(&mut sub.failed);
        sub.is_over = true;
        if sub.late.is_empty() {
            self.subs.remove(key);
        } else {
            self.over += 1;
        }
        let job = &mut self.jobs[owner];
        job.pieces.retain(|piece| *piece != key);
        if !failed.is_empty() && job.does_again(span) {
            self.freed = true;
            self.look_at(owner);
            self.line_up(owner);
            return self.settle(owner);
        }
        if !failed.is_empty() && !job.is_comparison() {
            job.write_failed(span, failed);
        }
        let has = if job.is_comparison() { to.without(different) } else { to.union(same) };
        let written = has.without(failed).without(behind);
        let tried = read_error.is_some() || !to.is_empty() || !same.is_empty() || shown;
        if let Some(observer) = job.new.observer.as_mut().filter(|_| tried) {
            let (offset, count) = (span.offset, span.count);
            let write_errors = &write_errors;
            observer.piece(&Piece {
                offset,
                count,
                read_took,
                read_error,
                written,
                write_errors,
                different,
                displaced,
                same,
                behind,
            });
        }
        self.freed = true;
        self.look_at(owner);
        self.line_up(owner);
        self.settle(owner);
    }

    fn publish(&self) {
        let waiting = |key: &usize| {
            let job = &self.jobs[*key];
            job.splitter.left(self.most_pieces(*key).saturating_sub(job.pieces.len()))
        };
        let waiting: usize = if self.in_line { self.line.iter().map(waiting).sum() } else { 0 };
        self.gauges.pages_waiting.store(waiting as u64, Ordering::Relaxed);
        self.gauges.subjobs_in_flight.store((self.subs.len() - self.over) as u64, Ordering::Relaxed);
    }

    /// Step 5.
    fn call_back(&mut self) {
        while let Some((notify, outcome)) = self.ended.pop_front() {
            notify(outcome);
        }
    }
}
