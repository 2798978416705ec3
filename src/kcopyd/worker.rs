//! The work loop of a client: owns its jobs, its lists and its backend, without locks.
//!
//! Each time it wakes it does, in this order:
//! 1. messages, so that a cancelled job takes nothing below;
//! 2. I/O that has ended: a sub-job that was written gives its pages back and takes its job's next piece;
//! 3. sub-jobs that wait for pages, in order, as far as pages and throttle allow: they are read;
//! 4. sub-jobs that were read and wait to be written;
//! 5. callbacks of jobs that have ended, when their pages are back and their devices let go.
//!
//! Pages go back before pages are taken, and what is read is written in the same turn: so a client holds no page longer
//! than its I/O takes, and memory stays what was set aside.

mod pieces;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use slab::Slab;

use super::client::Settings;
use super::content::are_equal;
use super::job::{Job, NewJob, Notify, Phase, SubJob};
use super::throttle::Start;
use super::{Outcome, Piece};
use crate::blkdev::Device;
use crate::dm_io::{Core, ErrorBits, Finished, Memory};
use crate::io::{Op, PAGE_SIZE, Reservation, Wait};
use crate::mailbox::Mailbox;
use crate::sector::Sector;

/// Called with the bits of the devices whose flush failed, and why.
pub(super) type FlushNotify = Box<dyn FnOnce(ErrorBits, &[(usize, i32)]) + Send>;

/// What a client's thread is asked for.
pub(super) enum Message {
    Start(Box<NewJob>),
    Pause(u64),
    Resume(u64),
    Cancel(u64),
    GiveUp(u64, ErrorBits),
    Callback(Notify, Outcome),
    Flush(Vec<(usize, Arc<Device>)>, FlushNotify),
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
    Flush(usize),
}

const FLUSH: u64 = 1 << 62;

impl Owner {
    fn token(&self) -> u64 {
        match self {
            Self::SubJob(key) => *key as u64,
            Self::Flush(key) => FLUSH | *key as u64,
        }
    }

    fn of(token: u64) -> Self {
        let key = |number| usize::try_from(number).expect("a slot's number");
        if token & FLUSH == 0 { Self::SubJob(key(token)) } else { Self::Flush(key(token & !FLUSH)) }
    }
}

pub(super) struct Worker {
    core: Core,
    pages: Arc<Reservation>,
    mailbox: Mailbox<Message>,
    settings: Settings,
    gauges: Arc<Gauges>,
    jobs: Slab<Job>,
    by_serial: HashMap<u64, usize>,
    subs: Slab<SubJob>,
    flushes: Slab<FlushNotify>,
    /// Sub-jobs that wait for pages.
    for_pages: VecDeque<usize>,
    /// Jobs that may not go faster, by when they may go on; their sub-jobs are parked.
    delayed: BTreeSet<(Duration, usize)>,
    /// Sub-jobs that hold pages or have I/O in flight.
    started: u32,
    /// Sub-jobs that were read and wait to be written.
    for_io: VecDeque<usize>,
    /// Jobs that have ended and whose callers do not know.
    ended: VecDeque<(Notify, Outcome)>,
    finished: Vec<Finished>,
    in_line: bool,
    /// Steps 3 and 4 are done over when step 4 has ended a sub-job without I/O, and new pieces were cut for it.
    fed: bool,
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
        Self {
            core,
            pages,
            mailbox,
            settings,
            gauges,
            jobs: Slab::new(),
            by_serial: HashMap::new(),
            subs: Slab::new(),
            flushes: Slab::new(),
            for_pages: VecDeque::new(),
            delayed: BTreeSet::new(),
            started: 0,
            for_io: VecDeque::new(),
            ended: VecDeque::new(),
            finished: Vec::new(),
            in_line: false,
            fed: false,
            destroying: false,
        }
    }

    /// The life of a client's thread.
    pub(super) fn run(mut self) {
        let mut wait = Wait::No;
        while !(self.destroying && self.is_idle()) {
            wait = self.turn(wait);
        }
        assert!(self.subs.is_empty() && self.for_pages.is_empty() && self.for_io.is_empty(), "lists are empty");
        assert_eq!(self.pages.used(), 0, "every page is back");
    }

    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.ended.is_empty() && self.core.is_idle()
    }

    /// Waits as told, then does all there is to do. Returns how long to wait next.
    pub(super) fn turn(&mut self, wait: Wait) -> Wait {
        let mut finished = std::mem::take(&mut self.finished);
        self.core.reap(wait, &mut finished);
        while let Some(message) = self.mailbox.take() {
            self.receive(message);
        }
        for end in finished.drain(..) {
            self.io_ended(end);
        }
        self.finished = finished;
        let next = loop {
            self.fed = false;
            let next = self.take_pages();
            self.write_out();
            if !self.fed {
                break next;
            }
        };
        self.publish();
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
                this.settle(key);
            }),
            Message::Resume(serial) => self.with_job(serial, |this, key| {
                this.jobs[key].paused = false;
                this.delayed.retain(|(_, job)| *job != key);
                this.unpark(key);
                this.feed(key);
                this.settle(key);
            }),
            Message::Cancel(serial) => self.with_job(serial, |this, key| {
                this.jobs[key].cancel();
                this.settle(key);
            }),
            Message::GiveUp(serial, dests) => self.with_job(serial, |this, key| {
                this.jobs[key].give_up(dests);
                this.settle(key);
            }),
            Message::Callback(notify, outcome) => self.ended.push_back((notify, outcome)),
            Message::Flush(devices, notify) => {
                let owner = Owner::Flush(self.flushes.insert(notify));
                let regions = devices.iter().map(|(index, device)| (*index, device, Sector::ZERO, Sector::ZERO));
                self.core.start(owner.token(), Op::Flush, regions, Sector::ZERO, None);
            }
            Message::Destroy => self.destroying = true,
        }
    }

    fn with_job(&mut self, serial: u64, act: impl FnOnce(&mut Self, usize)) {
        // A job that has ended meanwhile needs nothing.
        if let Some(key) = self.by_serial.get(&serial) {
            act(self, *key);
        }
    }

    fn start(&mut self, new: NewJob) {
        let serial = new.serial;
        let key = self.jobs.insert(Job::new(new));
        self.by_serial.insert(serial, key);
        self.feed(key);
        self.settle(key);
    }

    /// Cuts pieces until enough sub-jobs of the job are on their way.
    fn feed(&mut self, key: usize) {
        let limit = self.piece_max(key);
        let job = &mut self.jobs[key];
        job.splitter.limit(limit);
        while job.subs < self.settings.subjobs && !job.stopping && !job.paused {
            let Some(span) = job.splitter.next() else { break };
            job.subs += 1;
            self.fed = true;
            self.for_pages.push_back(self.subs.insert(SubJob::new(key, span)));
        }
    }

    /// The largest piece that a job may start now.
    fn piece_max(&self, key: usize) -> Sector {
        let new = &self.jobs[key].new;
        let even = new.speed.piece_max().min(self.settings.speed_max.piece_max());
        Sector::whole_in(even).max(new.block).min(new.piece)
    }

    /// Takes back the pieces of a job that have not begun, and cuts smaller ones: a limit fell after they were cut.
    fn cut_anew(&mut self, key: usize) {
        let job = &mut self.jobs[key];
        let mut back = std::mem::take(&mut job.parked);
        back.extend(self.for_pages.iter().filter(|sub| self.subs[**sub].job == key));
        self.for_pages.retain(|sub| self.subs[*sub].job != key);
        job.subs -= back.len();
        // They begin in order, so they are the last that were cut.
        let spans = back.into_iter().map(|sub| self.subs.remove(sub).span.offset);
        job.splitter.rewind(spans.min().expect("the piece that is too large"));
        self.feed(key);
    }

    /// After anything that may have stopped, paused or ended a job: drops what will not run, tells who waits for it.
    fn settle(&mut self, key: usize) {
        let job = &mut self.jobs[key];
        if job.stopping {
            let parked = std::mem::take(&mut job.parked);
            job.subs -= parked.len();
            for sub in parked {
                self.subs.remove(sub);
            }
            let (subs, jobs) = (&mut self.subs, &mut self.jobs);
            self.for_pages.retain(|sub| {
                let dropped = subs[*sub].job == key;
                if dropped {
                    subs.remove(*sub);
                    jobs[key].subs -= 1;
                }
                !dropped
            });
        }
        let job = &mut self.jobs[key];
        if job.busy == 0 && job.paused && !job.stopping {
            let waiting = self.for_pages.iter().copied().filter(|sub| self.subs[*sub].job == key);
            job.parked.extend(waiting);
            self.for_pages.retain(|sub| self.subs[*sub].job != key);
            if let Some(observer) = &mut job.new.observer {
                observer.quiesced();
            }
        }
        let nothing_left = job.stopping || job.splitter.is_empty();
        if job.subs == 0 && nothing_left {
            let Job { new, outcome, .. } = self.jobs.remove(key);
            self.delayed.retain(|(_, job)| *job != key);
            self.by_serial.remove(&new.serial);
            // The regions go here: who is told of the end finds the devices closed.
            self.ended.push_back((new.notify, outcome));
        }
    }

    /// Step 2.
    fn io_ended(&mut self, end: Finished) {
        let key = match Owner::of(end.token) {
            Owner::Flush(key) => return self.flushes.remove(key)(end.errors, &end.errnos),
            Owner::SubJob(key) => key,
        };
        let (sub, job) = self.sub_and_job(key);
        job.new.activity.end();
        sub.ios -= 1;
        match (&sub.phase, end.memory) {
            (Phase::Reading, Some(Memory::Pages { list, .. })) => {
                sub.read_error = end.errnos.first().map(|(_, errno)| *errno);
                if sub.read_error.is_none() || job.read_failed() {
                    sub.phase = Phase::Read(list);
                    self.for_io.push_back(key);
                } else {
                    drop(list);
                    self.sub_ended(key);
                }
            }
            (Phase::Comparing(dest), Some(Memory::Pages { list, .. })) => {
                let (dest, length) = (*dest, bytes(sub.span.count));
                if let Some((_, errno)) = end.errnos.first() {
                    sub.failed.push((dest, *errno));
                } else if !are_equal(&list, 0, length, length) {
                    sub.different.set(dest);
                }
                self.compare(key, list, dest + 1);
            }
            (_, memory) => {
                sub.failed.extend(end.errnos);
                drop(memory);
                if sub.ios == 0 {
                    self.sub_ended(key);
                }
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
        self.started -= 1;
        let sub = self.subs.remove(key);
        let SubJob { job: owner, span, read_error, different, .. } = sub;
        let job = &mut self.jobs[owner];
        job.subs -= 1;
        job.busy -= 1;
        let failed = sub.failed_bits();
        if !failed.is_empty() && !job.is_comparison() {
            job.write_failed(failed);
        }
        if job.is_sequential() && !job.stopping {
            job.written_to = span.offset.checked_add(span.count).expect("inside the job");
        }
        let written = sub.to.without(failed).without(different);
        let tried = read_error.is_some() || !sub.to.is_empty() || sub.shown;
        if let Some(observer) = job.new.observer.as_mut().filter(|_| tried) {
            let (offset, count) = (span.offset, span.count);
            observer.piece(&Piece { offset, count, read_error, written, write_errors: &sub.failed, different });
        }
        self.feed(owner);
        self.settle(owner);
    }

    /// Step 3. Returns when to come back for the throttle or a limit of speed.
    fn take_pages(&mut self) -> Option<Duration> {
        self.undelay();
        while let Some(key) = self.for_pages.front().copied() {
            let now = self.core.now();
            if let Start::At(time) = self.settings.throttle.ask(now, self.started) {
                return Some(self.sooner(time));
            }
            let owner = self.subs[key].job;
            let job = &mut self.jobs[owner];
            let delay = job.new.speed.ask(now);
            // Behind those that are parked, so that a job's pieces start in order.
            if job.paused || delay.is_some() || !job.parked.is_empty() {
                if let (Some(time), true) = (delay, job.parked.is_empty()) {
                    self.delayed.insert((time, owner));
                }
                job.parked.push(key);
                self.for_pages.pop_front();
            } else if let Some(time) = self.settings.speed_max.ask(now) {
                return Some(self.sooner(time));
            } else if self.subs[key].span.count > self.piece_max(owner) {
                self.cut_anew(owner);
            } else if !self.begin(key, now) {
                return self.next_delayed();
            }
        }
        if std::mem::take(&mut self.in_line) {
            self.pages.leave_line();
        }
        self.next_delayed()
    }

    /// Lets those go on whose time has come, or whose limit was lifted; asks anew for the others.
    fn undelay(&mut self) {
        let now = self.core.now();
        for (_, job) in std::mem::take(&mut self.delayed) {
            match self.jobs[job].new.speed.ask(now) {
                Some(time) => _ = self.delayed.insert((time, job)),
                None => self.unpark(job),
            }
        }
    }

    fn unpark(&mut self, key: usize) {
        let job = &mut self.jobs[key];
        if !job.paused {
            self.for_pages.extend(job.parked.drain(..));
        }
    }

    fn next_delayed(&self) -> Option<Duration> {
        self.delayed.first().map(|(time, _)| *time)
    }

    fn sooner(&self, time: Duration) -> Duration {
        self.next_delayed().map_or(time, |delayed| delayed.min(time))
    }

    /// Starts the first sub-job in the list; `false` if it has to wait for pages.
    fn begin(&mut self, key: usize, now: Duration) -> bool {
        let (sub, job) = self.sub_and_job(key);
        let bytes = sub.span.count.bytes();
        let memory = if job.new.work.source().is_none() {
            None
        } else {
            // A comparison reads the source and one destination after the other beside it.
            let sides = if job.is_comparison() { 2 } else { 1 };
            let pages = u32::try_from((sides * bytes).div_ceil(PAGE_SIZE as u64)).expect("a sub-job's pages");
            let Some(list) = self.pages.get(pages) else {
                self.in_line = true;
                return false;
            };
            Some(Memory::Pages { list, offset: 0 })
        };
        self.for_pages.pop_front();
        self.settings.throttle.start(now);
        self.started += 1;
        self.settings.speed_max.charge(now, bytes);
        let (_, job) = self.sub_and_job(key);
        job.busy += 1;
        job.new.speed.charge(now, bytes);
        match memory {
            Some(memory) => self.read(key, memory),
            None => self.write(key, None),
        }
        true
    }

    fn publish(&self) {
        let busy: usize = self.subs.len() - self.for_pages.len();
        self.gauges.pages_waiting.store(if self.in_line { self.for_pages.len() as u64 } else { 0 }, Ordering::Relaxed);
        self.gauges.subjobs_in_flight.store(busy as u64, Ordering::Relaxed);
    }

    /// Step 5.
    fn call_back(&mut self) {
        while let Some((notify, outcome)) = self.ended.pop_front() {
            notify(outcome);
        }
    }
}
