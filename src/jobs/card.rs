//! What others see of a job: published by the owner at each change, read by anybody without asking the owner.
//!
//! # Invariants
//! Only the owner writes. A card's lock is held for a few copies of numbers, by whoever has it, and no other lock is taken
//! under it. The figures of a card agree with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, RwLock};

use super::clients::DEFAULT;
use super::glance::{Outline, SILENT_MIN};
use super::view::{Brief, Course, DestView, DeviceView, JobId, State, View};
use crate::blkdev::DeviceCard;
use crate::dm_io::ErrorBits;
use crate::figures::{DestState, Meter, Rate, Speeds, Stopwatch};
use crate::kcopyd::{JobHandle, Limit, STALLED, SpeedLimit};
use crate::sector::Sector;
use crate::spec::{Action, Spec};

/// A job, as others see it.
#[derive(Debug)]
pub(super) struct Card {
    pub(super) id: JobId,
    /// Its own limit of speed.
    pub(super) speed_max: SpeedLimit,
    pub(super) created: SystemTime,
    shown: Mutex<Shown>,
}

/// The figures of a card.
#[derive(Debug)]
pub(super) struct Shown {
    /// In canonical form: every count is said. Of it only what `retry` takes may change.
    pub(super) spec: Arc<Spec>,
    pub(super) state: State,
    pub(super) read_err: bool,
    pub(super) write_err: ErrorBits,
    pub(super) total: u64,
    pub(super) copied: u64,
    /// Bytes that some destination has taken, for the meter.
    pub(super) moved: u64,
    pub(super) durable: u64,
    pub(super) bad_bytes: u64,
    /// Why it failed, is held, or waits.
    pub(super) error: Option<String>,
    pub(super) digest: Option<String>,
    pub(super) dests: Box<[ShownDest]>,
    /// Its speed, while it moves.
    pub(super) meter: Option<Box<Meter>>,
    pub(super) watch: Stopwatch,
    /// What it moved over the time that `watch` says.
    pub(super) speeds: Speeds,
    /// Bytes per second of the last five seconds in which something moved.
    pub(super) final_speed: u64,
    /// The last progress, or the job's making where there was none.
    pub(super) progressed: SystemTime,
    pub(super) course: Course,
    /// The engine's handle of the step that it had last.
    pub(super) handle: Option<JobHandle>,
    /// The engine has nothing of the job in flight.
    pub(super) is_quiet: bool,
    /// Since when a flush is awaited.
    pub(super) flushing: Option<Instant>,
    /// Open devices with direct I/O, and without.
    pub(super) devices: (u32, u32),
    /// Nothing more will move: it ends.
    pub(super) is_over: bool,
    /// What people call its devices, the source's first, where there is one; empty where they were never open.
    pub(super) cards: Box<[Arc<DeviceCard>]>,
}

/// One destination of a card.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShownDest {
    pub(super) state: DestState,
    pub(super) copied: u64,
    pub(super) durable: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<(i32, Sector)>,
    /// Since when it owes an answer to what nobody waits for, or to a flush.
    pub(super) unanswered: Option<Instant>,
}

impl Card {
    /// The card of a job of so many bytes.
    pub(super) fn new(id: JobId, spec: &Arc<Spec>, created: SystemTime, total: u64, state: State) -> Self {
        let dest = ShownDest {
            state: DestState::Active,
            copied: 0,
            durable: 0,
            errors: 0,
            first_error: None,
            unanswered: None,
        };
        let shown = Shown {
            spec: Arc::clone(spec),
            state,
            read_err: false,
            write_err: ErrorBits::NONE,
            total,
            copied: 0,
            moved: 0,
            durable: 0,
            bad_bytes: 0,
            error: None,
            digest: None,
            dests: vec![dest; spec.to.len()].into_boxed_slice(),
            meter: None,
            watch: Stopwatch::default(),
            speeds: Speeds::default(),
            final_speed: 0,
            progressed: created,
            course: Course::default(),
            handle: None,
            is_quiet: true,
            flushing: None,
            devices: (0, 0),
            is_over: false,
            cards: Box::default(),
        };
        let speed_max = SpeedLimit::new(spec.speed_max);
        Self { id, speed_max, created, shown: Mutex::new(shown) }
    }

    /// Changes what is shown. For the owner.
    pub(super) fn show<T>(&self, change: impl FnOnce(&mut Shown) -> T) -> T {
        change(&mut self.shown.lock())
    }

    /// In canonical form, as it is now.
    pub(super) fn spec(&self) -> Arc<Spec> {
        Arc::clone(&self.shown.lock().spec)
    }

    /// The same as a line, with the limit of speed that it has now.
    pub(super) fn line(&self) -> Vec<u8> {
        Spec { speed_max: self.speed_max.get(), ..(*self.spec()).clone() }.to_line()
    }

    /// Whether it uses the pages of that client.
    pub(super) fn is_of_client(&self, name: &str) -> bool {
        client_name(&self.shown.lock().spec) == name
    }

    pub(super) fn state(&self) -> State {
        self.shown.lock().state
    }

    /// Whether `copied` grows in a state: a job that only compares counts what it has found equal.
    pub(super) fn moves_in(&self, state: State) -> bool {
        self.shown.lock().moves_in(state)
    }

    pub(super) fn brief(&self) -> Brief {
        let shown = self.shown.lock();
        Brief {
            state: shown.state,
            copied: shown.copied,
            progressed: shown.progressed,
            dests: shown.spec.to.len(),
            has_source: shown.spec.from.is_some(),
            has_map: shown.spec.from.is_some() || shown.spec.action == Action::Test,
        }
    }

    pub(super) fn view(&self, now: Instant) -> View {
        let shown = self.shown.lock();
        let moves = shown.moves_in(shown.state);
        let speed = if moves { shown.measured(now) } else { shown.last_speed() };
        let stalled = shown.stalled(now);
        let (done, left) = shown.work_left();
        let is_timed = (moves || shown.state == State::Verifying) && !shown.is_over;
        // Of those that are behind nobody knows when they are done.
        let waits_for_some = shown.dests.iter().any(|dest| dest.state == DestState::Behind);
        let meter = shown.meter.as_ref().filter(|_| is_timed && !waits_for_some);
        let eta = meter.and_then(|meter| meter.time_left(now, done, left, stalled));
        let dests = shown.spec.to.iter().zip(&shown.dests).enumerate().map(|(index, (to, dest))| DestView {
            state: shown.dest_state(index, now),
            copied: dest.copied,
            durable: dest.durable,
            errors: dest.errors,
            first_error: dest.first_error,
            path: to.path.clone(),
        });
        View {
            id: self.id,
            state: shown.state,
            read_err: shown.read_err,
            write_err: shown.write_err.bits(),
            total: shown.total,
            copied: shown.copied,
            durable: shown.durable,
            speed,
            eta,
            elapsed: shown.watch.elapsed(now),
            stalled,
            bad_bytes: shown.bad_bytes,
            client: client_name(&shown.spec).to_owned(),
            name: shown.spec.name.clone(),
            digest: shown.digest.clone(),
            error: shown.error.clone(),
            source: shown.spec.from.as_ref().map(|from| from.path.clone()),
            dests: dests.collect(),
            progressed: shown.progressed,
            // Its end may be on its way to disk yet.
            course: Course { ended: shown.course.ended.filter(|_| shown.state.is_ended()), ..shown.course },
            limited_by: shown.limited_by(),
        }
    }

    /// Its speed over all the time that it has run.
    pub(super) fn rates(&self, now: Instant) -> Vec<Rate> {
        let shown = self.shown.lock();
        let (speeds, running) = (shown.speeds.clone(), shown.watch.elapsed(now));
        drop(shown);
        speeds.rates(running)
    }

    /// The little that a look at all jobs asks for.
    pub(super) fn outline(&self, now: Instant) -> Outline {
        let shown = self.shown.lock();
        let state = shown.state;
        let is_stopped = state == State::Held || state == State::Paused && shown.error.is_some();
        let is_hurt = shown.read_err || !shown.write_err.is_empty() || shown.course.read_errors > 0;
        let is_silent = state.moves() && shown.stalled(now) >= SILENT_MIN;
        Outline {
            state,
            total: shown.total,
            copied: shown.copied,
            durable: shown.durable,
            speed: if shown.moves_in(state) { shown.measured(now) } else { 0 },
            is_troubled: is_stopped || is_hurt || is_silent,
            ended: shown.course.ended,
        }
    }

    /// Its regions' devices: the source's first, where there is one.
    pub(super) fn device_views(&self) -> Vec<DeviceView> {
        let shown = self.shown.lock();
        let spec = &shown.spec;
        let regions = spec
            .from
            .iter()
            .map(|from| (None, from))
            .chain(spec.to.iter().enumerate().map(|(index, to)| (Some(index), to)));
        let view = |(at, (dest, region)): (usize, (Option<usize>, &crate::spec::RegionSpec))| DeviceView {
            dest,
            card: shown.cards.get(at).map(Arc::clone),
            path: region.path.clone(),
        };
        regions.enumerate().map(view).collect()
    }

    /// Open devices with direct I/O, and without.
    pub(super) fn devices(&self) -> (u32, u32) {
        self.shown.lock().devices
    }
}

/// The client whose pages a job uses.
pub(super) fn client_name(spec: &Spec) -> &str {
    spec.client.as_deref().unwrap_or(DEFAULT)
}

impl Shown {
    fn moves_in(&self, state: State) -> bool {
        state == State::Running || (state == State::Verifying && self.spec.action == Action::Verify)
    }

    /// What the meter follows, and how much of that is left to the end of all: a copy that is compared has as much again to do.
    fn work_left(&self) -> (u64, u64) {
        let Self { state, total, copied, moved, bad_bytes, course, .. } = self;
        let readable = total.saturating_sub(*bad_bytes);
        match state {
            State::Verifying if self.spec.compares_after() => {
                (course.verified, readable.saturating_sub(course.verified))
            }
            State::Running if self.spec.compares_after() => (*moved, total.saturating_sub(*copied) + readable),
            _ => (*moved, total.saturating_sub(*copied)),
        }
    }

    /// Bytes per second where nothing is copied: of the last five seconds in which something was, where it is over.
    fn last_speed(&self) -> u64 {
        let is_over = matches!(self.state, State::Flushing | State::Verifying) || self.state.is_ended();
        if is_over { self.final_speed } else { 0 }
    }

    /// Bytes per second now.
    pub(super) fn measured(&self, now: Instant) -> u64 {
        self.meter.as_ref().map_or(0, |meter| meter.speed(now, self.moved))
    }

    /// Since its devices last answered, while they should: to a piece, or with none under way to a flush, or to what was asked of one
    /// that is behind.
    pub(super) fn stalled(&self, now: Instant) -> Duration {
        match &self.handle {
            Some(handle) if !self.is_quiet => handle.stalled(),
            _ => {
                let late =
                    self.dests.iter().filter_map(|dest| dest.unanswered).max().filter(|_| !self.state.is_ended());
                let since = self.flushing.into_iter().chain(late).max();
                since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
            }
        }
    }

    /// For how long a destination has owed an answer.
    pub(super) fn unanswered(&self, index: usize, now: Instant) -> Duration {
        let late = self.dests[index].unanswered.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        let handle = self.handle.as_ref().filter(|_| !self.is_quiet);
        handle.map_or(Duration::ZERO, |handle| handle.unanswered(index)).max(late)
    }

    /// What it waits for most, while the engine has something of it.
    fn limited_by(&self) -> Option<Limit> {
        let moves = matches!(self.state, State::Running | State::Verifying) && !self.is_quiet && !self.is_over;
        self.handle.as_ref().filter(|_| moves).and_then(JobHandle::limited_by)
    }

    fn dest_state(&self, index: usize, now: Instant) -> DestState {
        match self.dests[index].state {
            DestState::Active | DestState::Behind if self.unanswered(index, now) >= STALLED => DestState::Stalled,
            state => state,
        }
    }
}

/// The cards of all jobs, for readers.
#[derive(Debug, Default)]
pub(super) struct Cards {
    table: RwLock<Table>,
    /// Jobs that count among the active ones, and how many may.
    active: AtomicUsize,
    most_active: AtomicUsize,
}

#[derive(Debug, Default)]
struct Table {
    cards: BTreeMap<JobId, Arc<Card>>,
    names: BTreeMap<String, BTreeSet<JobId>>,
}

impl Cards {
    /// Shows a job. For the owner.
    pub(super) fn insert(&self, card: &Arc<Card>) {
        let mut table = self.table.write();
        table.cards.insert(card.id, Arc::clone(card));
        if let Some(name) = &card.spec().name {
            table.names.entry(name.clone()).or_default().insert(card.id);
        }
    }

    /// Shows a job no longer. For the owner.
    pub(super) fn remove(&self, id: JobId) {
        let mut table = self.table.write();
        let Some(card) = table.cards.remove(&id) else { return };
        if let Some(name) = &card.spec().name
            && let Some(ids) = table.names.get_mut(name)
        {
            ids.remove(&id);
            if ids.is_empty() {
                table.names.remove(name);
            }
        }
    }

    /// How many jobs are active, and how many may be. For the owner.
    pub(super) fn show_active(&self, active: usize, most: usize) {
        self.active.store(active, Ordering::Relaxed);
        self.most_active.store(most, Ordering::Relaxed);
    }

    /// How many jobs may be active.
    pub(super) fn most_active(&self) -> usize {
        self.most_active.load(Ordering::Relaxed)
    }

    /// Why no queued job starts: as many run as may.
    pub(super) fn is_full(&self) -> Option<String> {
        let (active, most) = (self.active.load(Ordering::Relaxed), self.most_active());
        (active >= most).then(|| format!("waits: {active} jobs are running, and no more may at once (active={most})"))
    }

    pub(super) fn get(&self, id: JobId) -> Option<Arc<Card>> {
        self.table.read().cards.get(&id).cloned()
    }

    pub(super) fn ids(&self) -> Vec<JobId> {
        self.table.read().cards.keys().copied().collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Card>> {
        self.table.read().cards.values().cloned().collect()
    }

    /// The newest job of each name.
    pub(super) fn names(&self) -> Vec<(String, JobId)> {
        let newest = |(name, ids): (&String, &BTreeSet<JobId>)| Some((name.clone(), *ids.last()?));
        self.table.read().names.iter().filter_map(newest).collect()
    }

    /// All jobs of that name, ascending.
    pub(super) fn all_named(&self, name: &str) -> Vec<JobId> {
        self.table.read().names.get(name).into_iter().flatten().copied().collect()
    }

    pub(super) fn named(&self, name: &str) -> Option<JobId> {
        self.table.read().names.get(name)?.last().copied()
    }
}
