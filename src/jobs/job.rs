//! A job: its spec, and under one lock everything that changes.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};

use super::clients::DEFAULT;
use super::news::News;
use super::open::Opened;
use super::view::{Brief, Change, DestView, JobId, State, View};
use crate::figures::{Hashing, Map, Meter, Progress, Stopwatch};
use crate::kcopyd::{JobHandle, SpeedLimit};
use crate::salvage::{Geometry, Phase, Salvage, Step};
use crate::sector::Sector;
use crate::spec::{Action, Spec};

/// A job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    /// In canonical form: every count is said.
    pub(super) spec: Spec,
    /// Its own limit of speed.
    pub(super) speed_max: SpeedLimit,
    pub(super) created: SystemTime,
    life: Mutex<Life>,
}

/// Whether the end has begun, from which no verb brings the job back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// No.
    No,
    /// It was cancelled and waits for the I/O in flight.
    Cancelled,
    /// Its end is being recorded, and its devices are being closed.
    Closing,
}

/// A step under way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) step: Step,
    pub(super) handle: JobHandle,
    /// It was asked to pause, and has not been asked to go on since.
    pub(super) pausing: bool,
    /// It is paused and nothing of it is in flight.
    pub(super) quiet: bool,
}

impl Running {
    pub(super) fn new(step: Step, handle: JobHandle) -> Self {
        Self { step, handle, pausing: false, quiet: false }
    }

    /// Takes no more pieces; the watcher is told when it is quiet, also if it is so already.
    pub(super) fn pause(&mut self) {
        (self.pausing, self.quiet) = (true, false);
        self.handle.pause();
    }

    pub(super) fn resume(&mut self) {
        (self.pausing, self.quiet) = (false, false);
        self.handle.resume();
    }
}

/// What a job works with while it is neither new nor ended. Jobs that wait are many, and so are those that have ended.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) salvage: Salvage,
    pub(super) meter: Meter,
}

impl Work {
    pub(super) fn new(spec: &Spec, geometry: Geometry) -> Box<Self> {
        Box::new(Self { salvage: Salvage::new(spec, geometry), meter: Meter::default() })
    }
}

/// What changes in a job's life.
///
/// # Invariants
/// `opened` is there while the job runs, and goes before a change to an ended state is posted. `running` is there while
/// the engine has a step of the job. `work` is there from its first step to its end.
// Independent questions: none rules another out.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug)]
pub(super) struct Life {
    pub(super) state: State,
    pub(super) phase: Phase,
    pub(super) progress: Progress,
    pub(super) work: Option<Box<Work>>,
    pub(super) block: Geometry,
    pub(super) opened: Option<Box<Opened>>,
    /// It has its bytes, or had them when it was recorded: a restart gives them back before all others.
    pub(super) claimed: bool,
    pub(super) running: Option<Box<Running>>,
    /// A thread is opening its devices.
    pub(super) opening: bool,
    pub(super) ending: Ending,
    /// Flushes and records under way.
    pub(super) flushes: u32,
    /// Records under way of what it was told.
    pub(super) unrecorded: u32,
    /// When the devices were asked to flush, while they do.
    pub(super) flushing: Option<Instant>,
    pub(super) hashing: Option<Hashing>,
    pub(super) digest: Option<String>,
    /// Of the source, where there is one, and of the destinations: what each was recognised by. Empty: not looked at.
    pub(super) identities: Vec<Option<String>>,
    /// It comes from a record, and its devices must be recognised before it goes on.
    pub(super) restored: bool,
    /// It waits for no other job any more: that is done, or an administrator said so.
    pub(super) released: bool,
    /// Why it waits, where nothing has gone wrong with it.
    pub(super) waits: Option<String>,
    /// The daemon paused it by itself, and will have it go on.
    pub(super) held_up: bool,
    pub(super) watch: Stopwatch,
    pub(super) final_speed: u64,
    pub(super) progressed: SystemTime,
}

impl Job {
    /// A job of `count` sectors.
    pub(super) fn new(id: JobId, mut spec: Spec, count: Sector, block: Geometry) -> Self {
        // It is kept for long.
        spec.to.shrink_to_fit();
        let life = Life {
            state: State::Queued,
            phase: Phase::first_of(&spec),
            progress: Progress::new(&spec, count),
            work: None,
            block,
            opened: None,
            claimed: false,
            running: None,
            opening: false,
            ending: Ending::No,
            flushes: 0,
            unrecorded: 0,
            flushing: None,
            hashing: spec.digest.map(Hashing::new),
            digest: None,
            identities: Vec::new(),
            restored: false,
            released: spec.after.is_none(),
            waits: None,
            held_up: false,
            watch: Stopwatch::default(),
            final_speed: 0,
            progressed: SystemTime::now(),
        };
        let speed_max = SpeedLimit::new(spec.speed_max);
        Self { id, spec, speed_max, created: SystemTime::now(), life: Mutex::new(life) }
    }

    /// The same, made at another time.
    pub(super) fn made_at(self, created: SystemTime) -> Self {
        self.lock().progressed = created;
        Self { created, ..self }
    }

    /// In canonical form, with the limit of speed that it has now.
    pub(super) fn line(&self) -> Vec<u8> {
        Spec { speed_max: self.speed_max.get(), ..self.spec.clone() }.to_line()
    }

    pub(super) fn client_name(&self) -> &str {
        self.spec.client.as_deref().unwrap_or(DEFAULT)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock()
    }

    /// Whether `copied` grows in a state: a job that only compares counts what it has found equal.
    fn is_moving(&self, state: State) -> bool {
        state == State::Running || (state == State::Verifying && self.spec.action == Action::Verify)
    }

    /// Changes the state and posts it; the caller delivers when it has let go of the lock.
    pub(super) fn change(&self, life: &mut Life, new: State, reason: Option<String>, news: &News) {
        let old = std::mem::replace(&mut life.state, new);
        let now = Instant::now();
        match new {
            new if self.is_moving(new) => {
                life.watch.start(now);
                let copied = life.progress.copied();
                life.work(&self.spec).meter.start(now, copied);
            }
            State::Flushing | State::Verifying => life.watch.start(now),
            _ => life.watch.stop(now),
        }
        news.post(Change { time: SystemTime::now(), id: self.id, old: Some(old), new, reason });
    }

    pub(super) fn brief(&self) -> Brief {
        let life = self.lock();
        Brief {
            state: life.state,
            copied: life.progress.copied(),
            progressed: life.progressed,
            dests: self.spec.to.len(),
            has_source: self.spec.from.is_some(),
        }
    }

    /// The map of a destination; jobs without a source have none.
    pub(super) fn map(&self, index: usize) -> Option<String> {
        let (from, to) = (self.spec.from.as_ref()?, self.spec.to.get(index)?);
        let life = self.lock();
        let progress = &life.progress;
        let (durable, unreadable) = (&progress.dests[index].durable, &progress.unreadable);
        Some(
            Map { from, to, total: progress.total, durable, unreadable, compares: self.spec.action == Action::Verify }
                .text(),
        )
    }

    pub(super) fn view(&self) -> View {
        let life = self.lock();
        let now = Instant::now();
        let progress = &life.progress;
        let (total, copied) = (progress.total_bytes(), progress.copied());
        let moving = self.is_moving(life.state);
        let speed = if moving { life.measured(now) } else { life.last_speed() };
        let stalled = life.stalled(now);
        let goes_on = moving && life.ending == Ending::No;
        let left = total.saturating_sub(copied);
        let meter = life.work.as_ref().map(|work| &work.meter).filter(|_| goes_on);
        let eta = meter.and_then(|meter| meter.time_left(now, copied, left, stalled));
        let dests = self.spec.to.iter().enumerate().map(|(index, to)| {
            let dest = &progress.dests[index];
            DestView {
                state: progress.dest_state(index, life.state.is_ended()),
                copied: dest.taken.bytes(),
                durable: dest.durable.bytes(),
                errors: dest.errors(),
                first_error: dest.first_error(),
                path: to.path.clone(),
            }
        });
        View {
            id: self.id,
            state: life.state,
            read_err: progress.read_err,
            write_err: progress.write_err.bits(),
            total,
            copied,
            durable: progress.durable,
            speed,
            eta,
            elapsed: life.watch.elapsed(now),
            stalled,
            bad_bytes: progress.bad_bytes(),
            client: self.client_name().to_owned(),
            name: self.spec.name.clone(),
            digest: life.digest.clone(),
            error: life.why(),
            source: self.spec.from.as_ref().map(|from| from.path.clone()),
            dests: dests.collect(),
            progressed: life.progressed,
        }
    }
}

impl Life {
    /// Bytes per second where nothing is copied: of the last five seconds in which something was, where it is over.
    fn last_speed(&self) -> u64 {
        let is_over = matches!(self.state, State::Flushing | State::Verifying) || self.state.is_ended();
        if is_over { self.final_speed } else { 0 }
    }

    /// Since its devices last answered, while they should: to a piece, or with none under way to a flush.
    fn stalled(&self, now: Instant) -> Duration {
        match &self.running {
            Some(running) if !running.quiet => running.handle.stalled(),
            _ => self.flushing.map_or(Duration::ZERO, |since| now.duration_since(since)),
        }
    }

    /// The last piece has ended.
    pub(super) fn keep_speed(&mut self) {
        self.final_speed = self.measured(Instant::now());
    }

    fn measured(&self, now: Instant) -> u64 {
        self.work.as_ref().map_or(0, |work| work.meter.speed(now, self.progress.copied()))
    }

    pub(super) fn work(&mut self, spec: &Spec) -> &mut Work {
        self.work.get_or_insert_with(|| Work::new(spec, self.block))
    }

    fn why(&self) -> Option<String> {
        match self.ending {
            Ending::Cancelled => Some("cancelled; waits for the I/O in flight".to_owned()),
            Ending::No | Ending::Closing => self.waits.clone().or_else(|| self.progress.error.clone()),
        }
    }

    /// Whether it has not ended in one way or another, and a destination is left.
    pub(super) fn goes_on(&self) -> bool {
        let fatal = self.work.as_ref().is_some_and(|work| work.salvage.is_fatal());
        self.ending == Ending::No && !fatal && !self.progress.live().is_empty()
    }

    /// Destinations that are files, and were taken away, are given up.
    pub(super) fn lose_files(&mut self, spec: &Spec) {
        let Self { opened: Some(opened), work: Some(work), progress, .. } = self else { return };
        let gone: Vec<_> = opened.lost(progress.live()).collect();
        work.salvage.vanished(spec, &gone, progress);
    }

    /// It has ended: what it worked with goes.
    pub(super) fn put_away(&mut self) {
        self.work = None;
        self.hashing = None;
        self.progress.shrink();
    }

    /// Whether the engine has nothing of it in flight, and no flush is under way.
    pub(super) fn is_quiet(&self) -> bool {
        self.flushes == 0 && self.running.as_ref().is_none_or(|running| running.quiet)
    }

    /// The next step of the work; `None` when this phase is over.
    pub(super) fn next_step(&mut self, spec: &Spec) -> Option<Step> {
        let Self { work, progress, hashing, block, phase, .. } = self;
        let work = work.get_or_insert_with(|| Work::new(spec, *block));
        loop {
            let step = work.salvage.next(spec, *phase, progress, hashing.as_ref().map(Hashing::at));
            match (&step, hashing.as_mut()) {
                (Some(Step::HashZeros { range }), Some(hashing)) => hashing.see_zeros(range),
                _ => return step,
            }
        }
    }
}
