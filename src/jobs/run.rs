//! From a job's first step to its end.
//!
//! # Protocol of a run
//! 1. A job that was [launched](super::launch) is asked for its next step: by its plan, from its figures.
//! 2. A step is a job of the engine. Each piece that ends is entered into the figures and the plan, on the engine's
//!    thread. When a step has ended the plan says the next.
//! 3. When the plan has none, every destination that takes part is flushed; then, if asked for, compared.
//! 4. The end is recorded, the devices are closed, the state changes, listeners are told, the next job is taken.
//!
//! # Protocol of a checkpoint
//! 1. The figures are marked: completed writes only.
//! 2. The destinations are flushed. What fails is that destination's error.
//! 3. The record, with what was marked, is written durably: see [`scribe`](super::scribe).
//! 4. `durable` and the maps move.

use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::clients::Clients;
use super::config::Config;
use super::counters::Counters;
use super::job::{Ending, Job, Life, Phase, Running};
use super::keeper;
use super::life::{End, verdict};
use super::news::News;
use super::open::{Opened, Opener};
use super::plan::Step;
use super::progress::Mark;
use super::registry::{Limits, Registry};
use super::returning::Returning;
use super::scribe::{Entry, Scribe};
use super::store::Record;
use super::view::{JobId, State};
use super::watch::Watcher;
use crate::blkdev::{Claims, Device, Devices};
use crate::dm_io::{ErrorBits, IoRegion};
use crate::error::{Error, ErrorKind, Result};
use crate::kcopyd::{Client, Flags, Outcome, Request, Work};
use crate::sector::Sector;
use crate::spec::Action;

/// All jobs of a daemon, and the engine that runs them.
pub struct Jobs {
    pub(super) shared: Arc<Shared>,
    /// Of an earlier daemon, until they are taken in.
    records: Mutex<Vec<Record>>,
}

pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) clients: Clients,
    pub(super) counters: Counters,
    pub(super) devices: Devices,
    pub(super) claims: Claims,
    pub(super) returning: Returning,
    pub(super) registry: Mutex<Registry>,
    /// Held while specs become jobs, so that their numbers and records come in order.
    pub(super) submitting: Mutex<()>,
    pub(super) scribe: Scribe,
    pub(super) news: News,
    /// Woken when a job starts to run, when one falls quiet, and at the end.
    pub(super) moved: Condvar,
    /// Set when the daemon stops: nothing is launched any more.
    pub(super) stopping: Mutex<bool>,
}

/// A job's lock, held.
pub(super) type Held<'a> = MutexGuard<'a, Life>;

impl Jobs {
    /// An engine. The jobs that its state directory holds go on by [`Jobs::restore`].
    ///
    /// # Errors
    /// Sizes out of their bounds, memory or a backend that is not to be had, a state directory in use by another daemon.
    pub fn new(config: Config) -> Result<Self> {
        let clients = Clients::new(&config)?;
        let (scribe, found) = Scribe::open(config.state.as_deref())?;
        let limits = Limits { active: config.active, keep: config.keep, max_jobs: config.max_jobs };
        let shared = Arc::new(Shared {
            config,
            clients,
            counters: Counters::default(),
            devices: Devices::default(),
            claims: Claims::default(),
            returning: Returning::default(),
            registry: Mutex::new(Registry::new(limits, found.next_id)),
            submitting: Mutex::new(()),
            scribe,
            news: News::default(),
            moved: Condvar::new(),
            stopping: Mutex::new(false),
        });
        Scribe::start(&shared)?;
        keeper::spawn(&shared)?;
        Ok(Self { shared, records: Mutex::new(found.records) })
    }

    /// Takes the jobs of an earlier daemon in, and lets those go on that were alive. Those who listen hear of it. To be
    /// called before anybody makes a job: it waits a moment for the devices of jobs that had begun.
    pub fn restore(&self) {
        self.shared.restore(std::mem::take(&mut self.records.lock()));
    }

    pub(super) fn job(&self, id: JobId) -> Option<Arc<Job>> {
        self.shared.registry.lock().get(id)
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        *self.shared.stopping.lock() = true;
        self.shared.tell_moved();
        self.shared.scribe.close();
    }
}

impl Shared {
    /// Step 2: the next step, or the end of the phase. No step is under way.
    pub(super) fn advance(self: &Arc<Self>, job: &Arc<Job>, mut life: Held<'_>) {
        if life.ending == Ending::Cancelled {
            return self.phase_over(job, life);
        }
        if matches!(life.state, State::Paused) {
            // What was copied before a pause survives it.
            return self.checkpoint(job, life, |_, _| {});
        }
        match life.next_step(&job.spec) {
            Some(step) => self.start(job, life, step),
            None => self.phase_over(job, life),
        }
    }

    fn start(self: &Arc<Self>, job: &Arc<Job>, mut life: Held<'_>, step: Step) {
        let opened = life.opened.as_ref().expect("a job that runs is open");
        let observer = Watcher { shared: Arc::downgrade(self), job: Arc::clone(job) };
        let request = Request { observer: Some(Box::new(observer)), ..request(job, opened, &step) };
        let (shared, theirs) = (Arc::downgrade(self), Arc::clone(job));
        let submitted = opened.client.submit(request, (), move |outcome, ()| {
            if let Some(shared) = Weak::upgrade(&shared) {
                shared.step_ended(&theirs, outcome);
            }
        });
        match submitted {
            Ok(handle) => life.running = Some(Box::new(Running::new(step, handle))),
            Err(error) => {
                life.progress.error = Some(error.to_string());
                self.conclude(job, life, State::Failed);
            }
        }
    }

    fn step_ended(self: &Arc<Self>, job: &Arc<Job>, _outcome: Outcome) {
        let mut life = job.lock();
        life.running = None;
        self.advance(job, life);
        self.news.deliver();
        self.tell_moved();
    }

    /// Step 3.
    fn phase_over(self: &Arc<Self>, job: &Arc<Job>, mut life: Held<'_>) {
        if life.phase == Phase::Copy || job.spec.action == Action::Verify {
            life.keep_speed();
        }
        life.lose_files(&job.spec);
        let goes_on = life.goes_on();
        if life.phase == Phase::Verify {
            if !life.progress.is_behind() {
                return self.all_over(job, life, goes_on);
            }
            // It has what an earlier comparison had taken from it.
            return self.checkpoint(job, life, move |shared, job| {
                let life = job.lock();
                let goes_on = goes_on && life.goes_on();
                shared.all_over(job, life, goes_on);
                shared.news.deliver();
            });
        }
        if goes_on {
            job.change(&mut life, State::Flushing, None, &self.news);
        }
        self.checkpoint(job, life, move |shared, job| {
            let mut life = job.lock();
            let goes_on = goes_on && life.goes_on();
            if job.spec.verify && goes_on {
                life.phase = Phase::Verify;
                job.change(&mut life, State::Verifying, None, &shared.news);
                shared.advance(job, life);
            } else {
                shared.all_over(job, life, goes_on);
            }
            shared.news.deliver();
        });
    }

    /// Step 4.
    fn all_over(self: &Arc<Self>, job: &Arc<Job>, mut life: Held<'_>, complete: bool) {
        if complete && let Some(hashing) = &life.hashing {
            life.digest = Some(hashing.finish());
        }
        let progress = &life.progress;
        let end = End {
            cancelled: life.ending == Ending::Cancelled,
            complete,
            read_err: progress.read_err,
            dests: progress.dests.len(),
            failed: progress.write_err.count() as usize,
        };
        life.ending = Ending::Closing;
        self.conclude(job, life, verdict(end));
    }

    /// A checkpoint; `then` is called after it.
    pub(super) fn checkpoint(
        self: &Arc<Self>,
        job: &Arc<Job>,
        mut life: Held<'_>,
        then: impl FnOnce(&Arc<Self>, &Arc<Job>) + Send + 'static,
    ) {
        // Who only compares has written nothing.
        let writes = job.spec.action != Action::Verify;
        let asked = if writes { life.progress.live() } else { ErrorBits::NONE };
        let mark = life.progress.mark();
        life.flushes += 1;
        life.flushing.get_or_insert_with(Instant::now);
        let opened = life.opened.as_ref().expect("a job that runs is open");
        let (client, devices) = (Arc::clone(&opened.client), flushable(&opened.dests, asked));
        drop(life);
        let (shared, theirs) = (Arc::downgrade(self), Arc::clone(job));
        flush_all(&client, devices, move |bits, failed| {
            let Some(shared) = Weak::upgrade(&shared) else { return };
            let mut life = theirs.lock();
            life.flushing = None;
            let lost = life.progress.flush_failed(&theirs.spec, failed);
            let plan = &mut life.work(&theirs.spec).plan;
            plan.flush_failed(lost);
            let fatal = plan.fatal;
            if let Some(running) = life.running.as_ref().filter(|_| !lost.is_empty()) {
                if fatal { running.handle.cancel() } else { running.handle.give_up(lost) }
            }
            drop(life);
            let good = asked.without(bits);
            // The mark goes twice: into the record, and, once that is written, into the figures.
            let told = mark.clone();
            let end = move |shared: &Arc<Self>, job: &Arc<Job>| shared.recorded(job, &told, good, then);
            shared.scribe.record(&theirs, Entry::checkpoint(mark, good), end);
        });
    }

    fn recorded(
        self: &Arc<Self>,
        job: &Arc<Job>,
        mark: &Mark,
        good: ErrorBits,
        then: impl FnOnce(&Arc<Self>, &Arc<Job>),
    ) {
        let mut life = job.lock();
        life.progress.made_durable(mark, good);
        life.flushes -= 1;
        drop(life);
        then(self, job);
        let life = job.lock();
        // Cancelled while it was paused: nobody else ends it.
        if life.ending == Ending::Cancelled
            && life.state == State::Paused
            && life.running.is_none()
            && life.flushes == 0
        {
            self.phase_over(job, life);
        } else {
            drop(life);
        }
        self.tell_moved();
    }

    /// Ends a job that has no step under way: records the end, closes the devices, tells.
    pub(super) fn conclude(self: &Arc<Self>, job: &Arc<Job>, mut life: Held<'_>, state: State) {
        self.returning.is_back(job.id);
        life.ending = Ending::Closing;
        life.waits = None;
        // Its figures are final: what is recorded is what will be shown.
        life.watch.stop(Instant::now());
        drop(life);
        self.scribe.record(job, Entry::end(state), move |shared, job| {
            let opened = job.lock().opened.take();
            // Closing a device may take its time.
            drop(opened);
            let mut life = job.lock();
            life.claimed = false;
            life.ending = Ending::No;
            life.put_away();
            let reason = life.progress.error.clone();
            job.change(&mut life, state, reason, &shared.news);
            drop(life);
            shared.counters.ended(state);
            let ended = shared.registry.lock().end(job.id, state);
            shared.news.deliver();
            for follower in ended.followers {
                shared.follow(&follower, job.id, state);
            }
            // After those that follow: a restart that finds no record of a job takes it that they were let go on.
            for id in ended.forgotten {
                shared.scribe.forget(id);
            }
            shared.run_next();
            shared.news.deliver();
            shared.tell_moved();
        });
    }

    /// What opening devices takes.
    pub(super) fn opener(&self) -> Opener<'_> {
        Opener::new(&self.clients, &self.devices, &self.claims, self.config.state.as_deref())
    }

    /// Wakes who waits for a job to start, to fall quiet or to end.
    pub(super) fn tell_moved(&self) {
        // Under the lock of who waits: a change between its look and its wait is not missed.
        let _waiting = self.stopping.lock();
        self.moved.notify_all();
    }

    /// Devices of running jobs, with direct I/O and without.
    pub(super) fn open_devices(&self) -> (u64, u64) {
        let jobs = self.registry.lock().running();
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
    let asked = if cfg!(kcopyfs_sabotage = "no_flush") { ErrorBits::NONE } else { asked };
    let asked = dests.iter().enumerate().filter(|(index, _)| asked.contains(*index));
    asked.map(|(index, dest)| (index, Arc::clone(&dest.device))).collect()
}

/// Flushes devices and says at the end of the last which of them failed, and why.
fn flush_all(
    client: &Client,
    devices: Vec<(usize, Arc<Device>)>,
    then: impl FnOnce(ErrorBits, &[(usize, i32)]) + Send + 'static,
) {
    if devices.is_empty() {
        let nothing = client.prepare_callback(then, |_, then| then(ErrorBits::NONE, &[]));
        return nothing.do_callback(false, ErrorBits::NONE);
    }
    let failed = Arc::new(Mutex::new((devices.len(), Vec::new(), Some(then))));
    for (index, device) in devices {
        let failed = Arc::clone(&failed);
        client.flush(device, move |result| {
            let mut failed = failed.lock();
            let (left, errnos, then) = &mut *failed;
            errnos.extend(result.err().map(|errno| (index, errno)));
            *left -= 1;
            if *left > 0 {
                return;
            }
            let (errnos, then) = (std::mem::take(errnos), then.take());
            drop(failed);
            let mut bits = ErrorBits::NONE;
            for (index, _) in &errnos {
                bits.set(*index);
            }
            if let Some(then) = then {
                then(bits, &errnos);
            }
        });
    }
}

/// A step as the engine takes it.
fn request(job: &Job, opened: &Opened, step: &Step) -> Request {
    let range = step.range();
    let sectors = |number| Sector::new(number).expect("inside a region that was checked");
    let part = |region: &IoRegion| {
        let first = sectors(region.sector.get() + range.start);
        IoRegion::new(&region.device, first, sectors(range.end - range.start))
    };
    let from = || part(opened.from.as_ref().expect("a copy has a source"));
    let (work, dests, flags) = match step {
        Step::Copy { dests, flags, .. } => (Work::Copy(from()), *dests, *flags),
        Step::Zero { dests, flags, .. } => (Work::Zero, *dests, *flags),
        Step::Compare { dests, .. } => (Work::Compare(from()), *dests, Flags::SKIP_UNREADABLE),
        Step::Probe { .. } => (Work::Compare(from()), ErrorBits::NONE, Flags::NONE),
    };
    let all = ErrorBits::first(opened.dests.len());
    // With nobody to write to or to compare with, only the data tells that a piece was read.
    let sees = match step {
        Step::Copy { .. } => job.spec.digest.is_some(),
        Step::Compare { .. } | Step::Probe { .. } => dests.is_empty(),
        Step::Zero { .. } => false,
    };
    Request {
        work,
        dests: opened.dests.iter().map(part).collect(),
        without: all.without(dests),
        flags,
        speed_max: job.speed_max.clone(),
        paused: false,
        sparse: job.spec.sparse,
        in_order: sees,
        observer: None,
    }
}

impl Error {
    /// No job of that number.
    pub(super) fn no_job(id: JobId) -> Self {
        Self::new(ErrorKind::NotFound, format!("no job {id}"))
    }
}
