//! From a queued job to an ended one.
//!
//! # Protocol of a run
//! 1. A job is taken from the queue when fewer than `active` run, and given to the engine.
//! 2. Each piece that ends is entered into the job's figures, on the engine's thread.
//! 3. When the last has ended, every destination that is not given up is flushed.
//! 4. When the flushes have ended, the devices are closed, then the state changes, then listeners are told, then the next
//!    job is taken.

use std::sync::{Arc, Weak};
use std::time::{Instant, SystemTime};

use parking_lot::{Condvar, Mutex};

use super::clients::{Clients, check_rate};
use super::config::Config;
use super::counters::Counters;
use super::job::{Ending, Job, Life};
use super::keeper;
use super::life::{End, verdict};
use super::news::{Listener, News};
use super::open::{Opened, open};
use super::registry::{Limits, Registry};
use super::view::{BadRange, Brief, Change, EngineView, JobId, Refusal, State, Totals, View};
use crate::blkdev::{Device, Devices};
use crate::dm_io::{ErrorBits, IoRegion};
use crate::error::{Error, ErrorKind, Result};
use crate::io::PAGE_SIZE;
use crate::kcopyd::{Flags, Observer, Outcome, Piece, Request, Work};
use crate::spec::{Place, Spec};

/// All jobs of a daemon, and the engine that runs them.
pub struct Jobs {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) clients: Clients,
    counters: Counters,
    devices: Devices,
    pub(super) registry: Mutex<Registry>,
    pub(super) news: News,
    /// Woken when a job starts to run, when one falls quiet, and at the end.
    pub(super) moved: Condvar,
    /// Set when the daemon stops: nothing is launched any more.
    pub(super) stopping: Mutex<bool>,
}

impl Jobs {
    /// An engine without jobs.
    ///
    /// # Errors
    /// Sizes out of their bounds, memory or a backend that is not to be had.
    pub fn new(config: Config) -> Result<Self> {
        let clients = Clients::new(&config)?;
        let limits = Limits { active: config.active, keep: config.keep, max_jobs: config.max_jobs };
        let shared = Arc::new(Shared {
            config,
            clients,
            counters: Counters::default(),
            devices: Devices::default(),
            registry: Mutex::new(Registry::new(limits)),
            news: News::default(),
            moved: Condvar::new(),
            stopping: Mutex::new(false),
        });
        keeper::spawn(&shared)?;
        Ok(Self { shared })
    }

    /// Makes a job of each spec, all or none. Opens their devices, so it may take as long as a sick device likes.
    ///
    /// # Errors
    /// Which spec, which part of it and why. No device was written to, and no file is left that `create` made.
    ///
    /// # Panics
    /// Never: the registry asks for as many jobs as there are specs.
    pub fn submit(&self, specs: Vec<Spec>) -> std::result::Result<Vec<JobId>, Refusal> {
        let mut ready: Vec<(Spec, Opened)> = Vec::with_capacity(specs.len());
        let undo = |ready: Vec<(Spec, Opened)>| ready.into_iter().for_each(|(_, opened)| opened.undo());
        for (index, mut spec) in specs.into_iter().enumerate() {
            match open(&spec, &self.shared.clients, &self.shared.devices) {
                Ok(opened) => {
                    canonical(&mut spec, &opened);
                    ready.push((spec, opened));
                }
                Err((place, error)) => {
                    undo(ready);
                    return Err(Refusal { index, place, error });
                }
            }
        }
        let mut left = ready.into_iter();
        let count = left.len();
        let made = self.shared.registry.lock().add(count, |id| {
            let (spec, opened) = left.next().expect("as many as were counted");
            Job::new(id, spec, opened)
        });
        let jobs = made.map_err(|error| {
            undo(left.collect());
            Refusal { index: 0, place: Place::Line, error }
        })?;
        self.shared.counters.made(jobs.len());
        Ok(jobs.iter().map(|job| self.shared.admit(job)).collect())
    }

    /// A job's figures.
    pub fn view(&self, id: JobId) -> Option<View> {
        Some(self.job(id)?.view())
    }

    /// The little of them that a listing shows.
    pub fn brief(&self, id: JobId) -> Option<Brief> {
        Some(self.job(id)?.brief())
    }

    /// The job in canonical form, as a line without its newline.
    pub fn spec_line(&self, id: JobId) -> Option<Vec<u8>> {
        Some(self.job(id)?.spec.to_line())
    }

    /// What could not be read or written.
    pub fn bad_ranges(&self, id: JobId) -> Option<Vec<BadRange>> {
        Some(self.job(id)?.lock().progress.bad.clone())
    }

    /// The path of its source.
    pub fn source_path(&self, id: JobId) -> Option<std::ffi::OsString> {
        Some(self.job(id)?.spec.from.as_ref()?.path.clone())
    }

    /// The path of its destination `index`.
    pub fn dest_path(&self, id: JobId, index: usize) -> Option<std::ffi::OsString> {
        Some(self.job(id)?.spec.to.get(index)?.path.clone())
    }

    /// The numbers of all jobs, ascending.
    pub fn ids(&self) -> Vec<JobId> {
        self.shared.registry.lock().ids()
    }

    /// Forgets an ended job.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while it lives.
    pub fn dismiss(&self, id: JobId) -> Result<()> {
        self.shared.registry.lock().dismiss(id)
    }

    /// Lets a function know of every change of state. It must be quick and must not change a job.
    pub fn subscribe(&self, listener: Box<dyn Fn(&Change) + Send + Sync>) {
        let listener: Listener = listener;
        self.shared.news.listen(listener);
    }

    /// The jobs in a state, ascending.
    pub fn in_state(&self, state: State) -> Vec<JobId> {
        let jobs = self.shared.registry.lock().all();
        jobs.iter().filter(|job| job.lock().state == state).map(|job| job.id).collect()
    }

    /// The newest job of each name, by name.
    pub fn names(&self) -> Vec<(String, JobId)> {
        self.shared.registry.lock().names()
    }

    /// The newest job of that name.
    pub fn named(&self, name: &str) -> Option<JobId> {
        self.shared.registry.lock().named(name)
    }

    /// A job's limit in bytes per second; the inner `None`: no limit.
    pub fn job_speed_max(&self, id: JobId) -> Option<Option<u64>> {
        Some(self.job(id)?.speed_max.get())
    }

    /// Sets it; it holds within a second.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for 0.
    pub fn set_job_speed_max(&self, id: JobId, rate: Option<u64>) -> Result<()> {
        check_rate(rate)?;
        let job = self.job(id).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no job {id}")))?;
        job.speed_max.set(rate);
        if let Some(handle) = &job.lock().handle {
            handle.wake();
        }
        Ok(())
    }

    /// What was done since the daemon began.
    pub fn totals(&self) -> Totals {
        self.shared.counters.totals()
    }

    /// The engine's figures.
    pub fn engine(&self) -> EngineView {
        let shared = &self.shared;
        let pool = shared.clients.pool.figures();
        let clients: Vec<_> = shared.clients.all().iter().map(|client| client.figures()).collect();
        let default = shared.clients.default();
        let (live, ended) = shared.registry.lock().counts();
        let (direct, buffered) = shared.open_devices();
        EngineView {
            backend: default.backend(),
            fallback: default.fallback().map(str::to_owned),
            page_size: PAGE_SIZE as u64,
            pages: u64::from(pool.pages),
            pages_free: u64::from(pool.free),
            pages_waiting: clients.iter().map(|client| client.pages_waiting).sum(),
            subjobs_in_flight: clients.iter().map(|client| client.subjobs_in_flight).sum(),
            subjob_bytes: u64::from(shared.config.subjob_bytes),
            subjobs_max: shared.config.subjobs as u64,
            fixed_buffers: default.has_fixed_buffers(),
            huge_pages: pool.huge,
            locked: pool.locked,
            direct,
            buffered,
            jobs_live: live as u64,
            jobs_ended: ended as u64,
        }
    }

    pub(super) fn job(&self, id: JobId) -> Option<Arc<Job>> {
        self.shared.registry.lock().get(id)
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        *self.shared.stopping.lock() = true;
        self.shared.tell_moved();
    }
}

/// Says every count, so that the spec means the same when it is run again.
fn canonical(spec: &mut Spec, opened: &Opened) {
    let count = opened.count();
    if let Some(from) = &mut spec.from {
        from.count = Some(count);
        let counts = spec.to.iter_mut().map(|to| &mut to.count);
        counts.for_each(|count: &mut Option<_>| *count = None);
    }
}

/// kcopyd's flags for a job: a destination that fails is given up, unless the job goes on after errors.
fn flags(spec: &Spec) -> Flags {
    let order = if spec.write_seq { Flags::WRITE_SEQ } else { Flags::NONE };
    let errors = if spec.ignore_error && !spec.write_seq { Flags::IGNORE_ERROR } else { Flags::DROP_FAILED };
    order | errors
}

impl Shared {
    /// A new job is told, and waits for its turn or for `resume`.
    fn admit(self: &Arc<Self>, job: &Arc<Job>) -> JobId {
        let state = if job.spec.paused { State::Paused } else { State::Queued };
        job.lock().state = state;
        self.news.post(Change { time: SystemTime::now(), id: job.id, old: None, new: state, reason: None });
        if state == State::Queued {
            self.registry.lock().enqueue(job.id);
        }
        self.news.deliver();
        self.run_next();
        job.id
    }

    /// Step 1, as often as there is room.
    pub(super) fn run_next(self: &Arc<Self>) {
        loop {
            if *self.stopping.lock() {
                return;
            }
            let next = self.registry.lock().next_to_run();
            let Some(job) = next else { return };
            self.launch(&job);
            self.news.deliver();
        }
    }

    fn launch(self: &Arc<Self>, job: &Arc<Job>) {
        let mut life = job.lock();
        if life.state != State::Queued || life.ending != Ending::No {
            drop(life);
            self.registry.lock().set_aside(job.id);
            return;
        }
        job.change(&mut life, State::Running, None, &self.news);
        life.quiet = false;
        if let Some(handle) = &life.handle {
            handle.resume();
        } else if let Some(opened) = &life.opened {
            let request = self.request(job, opened);
            let (shared, theirs) = (Arc::downgrade(self), Arc::clone(job));
            let submitted = opened.client.submit(request, (), move |outcome, ()| {
                if let Some(shared) = Weak::upgrade(&shared) {
                    shared.copied(&theirs, outcome);
                }
            });
            match submitted {
                Ok(handle) => life.handle = Some(handle),
                Err(error) => {
                    life.progress.error = Some(error.to_string());
                    self.conclude(job, life, State::Failed);
                    return;
                }
            }
        }
        drop(life);
        self.tell_moved();
    }

    /// Wakes who waits for a job to start, to fall quiet or to end.
    pub(super) fn tell_moved(&self) {
        // Under the lock of who waits: a change between its look and its wait is not missed.
        let _waiting = self.stopping.lock();
        self.moved.notify_all();
    }

    fn request(self: &Arc<Self>, job: &Arc<Job>, opened: &Opened) -> Request {
        let observer = Watcher { shared: Arc::downgrade(self), job: Arc::clone(job) };
        Request {
            work: opened.from.clone().map_or(Work::Zero, Work::Copy),
            dests: opened.dests.clone(),
            without: ErrorBits::NONE,
            flags: flags(&job.spec),
            speed_max: job.speed_max.clone(),
            paused: false,
            sparse: false,
            in_order: false,
            observer: Some(Box::new(observer)),
        }
    }

    /// Step 3.
    fn copied(self: &Arc<Self>, job: &Arc<Job>, outcome: Outcome) {
        let mut life = job.lock();
        life.quiet = true;
        life.keep_speed();
        let progress = &life.progress;
        let keeps_going = job.spec.ignore_error && !job.spec.write_seq;
        let complete = !outcome.cancelled && (keeps_going || !progress.read_err) && !progress.live().is_empty();
        if complete {
            life.ending = Ending::No;
            job.change(&mut life, State::Flushing, None, &self.news);
        }
        let end = move |shared: &Arc<Self>, job: &Arc<Job>| shared.flushed(job, outcome.cancelled, complete);
        self.flush(job, life, end);
        self.news.deliver();
    }

    /// Flushes every destination that takes part and enters what is durable then; calls `then` after it.
    pub(super) fn flush(
        self: &Arc<Self>,
        job: &Arc<Job>,
        mut life: parking_lot::MutexGuard<'_, Life>,
        then: impl FnOnce(&Arc<Self>, &Arc<Job>) + Send + 'static,
    ) {
        let (asked, mark) = (life.progress.live(), life.progress.mark());
        life.flushes += 1;
        let opened = life.opened.as_ref().expect("open until it has ended");
        let (client, devices) = (Arc::clone(&opened.client), flushable(&opened.dests, asked));
        drop(life);
        let (shared, theirs) = (Arc::downgrade(self), Arc::clone(job));
        client.flush(devices, move |_, failed| {
            let Some(shared) = Weak::upgrade(&shared) else { return };
            let mut life = theirs.lock();
            life.flushes -= 1;
            let lost = life.progress.flushed(&theirs.spec, &mark, asked, failed);
            if let Some(handle) = life.handle.as_ref().filter(|_| !lost.is_empty()) {
                handle.give_up(lost);
            }
            drop(life);
            then(&shared, &theirs);
            shared.tell_moved();
        });
    }

    /// Step 4.
    fn flushed(self: &Arc<Self>, job: &Arc<Job>, cancelled: bool, complete: bool) {
        let life = job.lock();
        let progress = &life.progress;
        let end = End {
            cancelled,
            complete,
            read_err: progress.read_err,
            dests: progress.dests.len(),
            failed: progress.write_err.count() as usize,
        };
        self.conclude(job, life, verdict(end));
        self.news.deliver();
        self.run_next();
    }

    /// Ends a job. The caller delivers the news.
    pub(super) fn conclude(&self, job: &Job, mut life: parking_lot::MutexGuard<'_, Life>, state: State) {
        life.ending = Ending::Closing;
        let opened = life.opened.take();
        // Closing a device may take its time.
        parking_lot::MutexGuard::unlocked(&mut life, || drop(opened));
        life.ending = Ending::No;
        let reason = life.progress.error.clone();
        job.change(&mut life, state, reason, &self.news);
        drop(life);
        self.counters.ended(state);
        self.registry.lock().end(job.id);
    }

    fn open_devices(&self) -> (u64, u64) {
        let jobs = {
            let registry = self.registry.lock();
            registry.running()
        };
        let mut counts = (0, 0);
        for job in jobs {
            let life = job.lock();
            let Some(opened) = &life.opened else { continue };
            for region in opened.dests.iter().chain(&opened.from) {
                if region.device.is_direct() { counts.0 += 1 } else { counts.1 += 1 }
            }
        }
        counts
    }
}

fn flushable(dests: &[IoRegion], asked: ErrorBits) -> Vec<(usize, Arc<Device>)> {
    let asked = dests.iter().enumerate().filter(|(index, _)| asked.contains(*index));
    asked.map(|(index, dest)| (index, Arc::clone(&dest.device))).collect()
}

/// Step 2: enters each piece into the job's figures.
struct Watcher {
    shared: Weak<Shared>,
    job: Arc<Job>,
}

impl Observer for Watcher {
    fn piece(&mut self, piece: &Piece<'_>) {
        let mut life = self.job.lock();
        let life = &mut *life;
        let copied = life.progress.copied;
        life.progress.piece(&self.job.spec, piece);
        if let Some(shared) = Weak::upgrade(&self.shared) {
            shared.counters.piece(piece, life.progress.copied - copied);
        }
        if life.progress.copied > copied {
            life.meter.sample(Instant::now(), life.progress.copied);
            life.progressed = SystemTime::now();
        }
    }

    fn quiesced(&mut self) {
        let Some(shared) = Weak::upgrade(&self.shared) else { return };
        let mut life = self.job.lock();
        if life.state != State::Paused || life.quiet {
            return;
        }
        life.quiet = true;
        // What was copied before a pause survives it.
        shared.flush(&self.job, life, |_, _| {});
    }
}
