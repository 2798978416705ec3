//! From a new job to its first step: its turn, its devices, its claim.
//!
//! # Protocol of a start
//! 1. A job waits for the job that it follows, then for its turn: fewer than `active` run.
//! 2. Its devices are opened if they are not yet, on a thread of their own. A job that comes from a record goes on only with
//!    the devices that it began with; else it is held.
//! 3. It claims what it reads and writes, after those that go first: see [`returning`](super::returning). If a device or a claim is busy it gives its place up, and is tried again when
//!    another job ends, or in a second.
//!
//! After a restart the devices of all jobs that had begun are opened and claimed first, paused ones too, as they were before.

use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::job::{Ending, Job, Life};
use super::names::Wish;
use super::open::{Opened, open};
use super::registry::Follow;
use super::run::{Held, Shared};
use super::scribe::Entry;
use super::view::{Change, JobId, State};
use crate::error::{ErrorKind, Result};
use crate::salvage::Phase;

impl Shared {
    /// A job that is new here is told, and waits for its turn, for another job, or for `resume`.
    pub(super) fn admit(self: &Arc<Self>, job: &Arc<Job>) {
        let life = job.lock();
        let (state, reason) = (life.state, life.waits.clone());
        let blocked = life.opened.is_none() && reason.is_some();
        drop(life);
        self.news.post(Change { time: SystemTime::now(), id: job.id, old: None, new: state, reason });
        if state == State::Queued {
            self.enqueue(job, blocked);
        }
        self.news.deliver();
    }

    /// Sorts a queued job in: behind the job that it waits for, among the blocked, or for its turn.
    pub(super) fn enqueue(self: &Arc<Self>, job: &Arc<Job>, blocked: bool) {
        let mut life = job.lock();
        if let Some(after) = job.spec.after.filter(|_| !life.released) {
            // Said before it waits: what it waits for may end at once.
            let waits = life.waits.replace(format!("waits for job {after}"));
            drop(life);
            let follows = self.registry.lock().follow(job.id, after);
            match follows {
                Follow::Waits => return,
                Follow::Ended(State::Done) => {}
                Follow::Ended(end) => return self.cannot_follow(job, after, end.as_str()),
                Follow::Gone => return self.cannot_follow(job, after, "was dismissed"),
            }
            self.release(job, waits);
        } else {
            drop(life);
        }
        let mut registry = self.registry.lock();
        if blocked {
            registry.block(job.id);
            drop(registry);
            // Somebody has to look at the device.
            self.tell_moved();
        } else {
            registry.enqueue(job.id);
        }
    }

    /// The job that it waited for has ended.
    pub(super) fn follow(self: &Arc<Self>, job: &Arc<Job>, after: JobId, end: State) {
        if end != State::Done {
            return self.cannot_follow(job, after, end.as_str());
        }
        self.release(job, None);
        self.enqueue(job, false);
    }

    /// It waits for no other job any more: not after a pause or a restart either, when that one may be dismissed.
    fn release(&self, job: &Arc<Job>, waits: Option<String>) {
        let mut life = job.lock();
        life.released = true;
        life.waits = waits;
        drop(life);
        self.scribe.record(job, Entry::default(), |_, _| {});
    }

    /// The job that it waited for has ended otherwise than well.
    fn cannot_follow(self: &Arc<Self>, job: &Arc<Job>, after: JobId, how: &str) {
        let mut life = job.lock();
        if life.state != State::Queued || life.ending != Ending::No {
            return;
        }
        life.waits = None;
        life.progress.error = Some(format!("not started: job {after}, which it waited for, {how}"));
        self.conclude(job, life, State::Cancelled);
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
        // Paused or ended meanwhile: whoever did that has set it aside.
        if life.state != State::Queued || life.ending != Ending::No {
            return;
        }
        let Life { opened: Some(opened), identities, .. } = &mut *life else {
            // After a pause and a resume the opener may still be under way, and comes here again.
            if std::mem::replace(&mut life.opening, true) {
                return;
            }
            drop(life);
            let (shared, theirs) = (Arc::clone(self), Arc::clone(job));
            let opener = std::thread::Builder::new().name("opener".into()).spawn(move || shared.reopen(&theirs));
            if let Err(error) = opener {
                job.lock().opening = false;
                self.wait_for(job, &format!("no thread to open its devices: {error}"));
            }
            return;
        };
        if let Err(error) = self.claim(job, opened, identities) {
            drop(life);
            return self.wait_for(job, &error.to_string());
        }
        if job.spec.sparse
            && let Err(error) = opened.stretch()
        {
            life.progress.error = Some(error.to_string());
            return self.conclude(job, life, State::Failed);
        }
        if !life.claimed && life.phase == Phase::Copy && life.progress.has_any() {
            drop(life);
            self.forget_overwritten(job);
            life = job.lock();
            if life.state != State::Queued || life.ending != Ending::No {
                return;
            }
        }
        life.waits = None;
        if !std::mem::replace(&mut life.claimed, true) {
            // A restart must know that it came before those that still wait.
            self.scribe.record(job, Entry::default(), |_, _| {});
        }
        let state = if life.phase == Phase::Verify { State::Verifying } else { State::Running };
        job.change(&mut life, state, None, &self.news);
        match &mut life.running {
            Some(running) => {
                running.resume();
                drop(life);
            }
            None => self.advance(job, life),
        }
        self.tell_moved();
    }

    /// Claims what a job reads and writes, unless another one that comes from a record goes first.
    fn claim(&self, job: &Job, opened: &mut Opened, identities: &[Option<String>]) -> Result<()> {
        if opened.is_claimed() {
            return Ok(());
        }
        let wish = Wish { spec: &job.spec, sectors: opened.count().get(), identities, by_path: true };
        let before = self.returning.before(job.id, wish);
        self.returning.has_asked(job.id);
        let claim = |()| opened.claim(&self.claims, job.id, |other| format!("job {other}"));
        before.map_or(Ok(()), Err).and_then(claim).map_err(|(_, error)| error)?;
        self.returning.is_back(job.id);
        Ok(())
    }

    /// Opens the devices of jobs that had begun when they were recorded, as they were open before, and waits for that; but
    /// not for long, as a device may hang.
    pub(super) fn bring_back(self: &Arc<Self>, jobs: Vec<Arc<Job>>) {
        /// So many devices may hang before no more is opened ahead of its job's turn.
        const OPENERS: usize = 8;
        const PATIENCE: Duration = Duration::from_secs(2);
        let openers = OPENERS.min(jobs.len());
        let jobs = Arc::new(Mutex::new(jobs.into_iter()));
        // Nobody sends: it ends with the last opener.
        let (open, all_ended) = mpsc::channel::<()>();
        for _ in 0..openers {
            let (shared, jobs, open) = (Arc::clone(self), Arc::clone(&jobs), open.clone());
            let opener = std::thread::Builder::new().name("opener".into()).spawn(move || {
                let _open = open;
                loop {
                    let Some(job) = jobs.lock().next() else { return };
                    let begins = !std::mem::replace(&mut job.lock().opening, true);
                    if begins {
                        shared.reopen(&job);
                    }
                }
            });
            if let Err(error) = opener {
                log::warn!("no thread to open devices: {error}; each job opens its own when its turn comes");
            }
        }
        drop(open);
        let _ = all_ended.recv_timeout(PATIENCE);
    }

    /// It cannot start yet: it gives its place up, and is tried again when another job ends, or in a second.
    fn wait_for(&self, job: &Job, why: &str) {
        job.lock().waits = Some(format!("waits: {why}"));
        self.registry.lock().block(job.id);
        self.tell_moved();
    }

    /// Opens the devices of a job that has none: it waited for them, or comes from a record.
    fn reopen(self: &Arc<Self>, job: &Arc<Job>) {
        let opened = open(&job.spec, &self.opener());
        let mut life = job.lock();
        life.opening = false;
        if life.state == State::Paused && life.ending == Ending::No {
            return self.reopened_paused(job, &mut life, opened.map_err(|(_, error)| error));
        }
        if life.state != State::Queued || life.ending != Ending::No || life.opened.is_some() {
            return;
        }
        let its_turn = || self.registry.lock().is_running(job.id);
        match opened {
            Ok(opened) => match Self::recognise(job, &mut life, opened) {
                Ok(()) => {
                    drop(life);
                    if its_turn() {
                        self.launch(job);
                    } else {
                        self.claim_early(job, &mut job.lock());
                    }
                }
                Err(why) => self.hold(job, life, why),
            },
            Err((_, error)) if error.kind() == ErrorKind::Busy => {
                drop(life);
                if its_turn() {
                    self.wait_for(job, &error.to_string());
                }
            }
            // Also after a `resume` that came too early: a job that has begun does not end for a device that is not there yet.
            Err((_, error)) if life.restored || life.claimed => self.hold(job, life, error.to_string()),
            Err((_, error)) => {
                life.progress.error = Some(error.to_string());
                self.conclude(job, life, State::Failed);
            }
        }
        self.news.deliver();
    }

    /// A paused job has what it had before, if it had begun. What is not as it was is looked at when it is resumed.
    fn reopened_paused(&self, job: &Job, life: &mut Life, opened: Result<Opened>) {
        if !self.returning.had_begun(job.id) || life.opened.is_some() {
            return;
        }
        match opened.map(|opened| Self::recognise(job, life, opened)) {
            Ok(Ok(())) => self.claim_early(job, life),
            // Kept for it: it is its own late write.
            Err(error) if error.kind() == ErrorKind::Busy => {}
            Ok(Err(_)) | Err(_) => self.returning.is_back(job.id),
        }
    }

    /// Claims for a job before its turn, as a new job does. Where that fails it asks again when its turn comes.
    fn claim_early(&self, job: &Job, life: &mut Life) {
        let Life { opened: Some(opened), identities, .. } = life else { return };
        if let Err(error) = self.claim(job, opened, identities) {
            log::info!("job {} has not got its devices back: {error}", job.id);
        }
    }

    /// A job that comes from a record goes on only with the devices that it began with.
    fn recognise(job: &Job, life: &mut Life, opened: Opened) -> std::result::Result<(), String> {
        let identities = opened.identities();
        if opened.count().get() != life.progress.total {
            return Err("the source's size is not what it was".to_owned());
        }
        if life.restored && life.identities.len() == identities.len() {
            let paths = job.spec.from.iter().chain(&job.spec.to).map(|region| region.path.to_string_lossy());
            for ((path, old), new) in paths.zip(&life.identities).zip(&identities) {
                if old.is_none() || old != new {
                    let (old, new) = (old.as_deref().unwrap_or("unknown"), new.as_deref().unwrap_or("unknown"));
                    return Err(format!(
                        "{path} is not surely the device it was ({old}, now {new}): look, then `resume`"
                    ));
                }
            }
        }
        life.identities = identities;
        life.restored = false;
        debug_assert!(life.work.is_none(), "a job without devices does not work");
        life.block = opened.block();
        life.opened = Some(Box::new(opened));
        Ok(())
    }

    fn hold(&self, job: &Job, mut life: Held<'_>, why: String) {
        self.returning.is_held(job.id);
        life.waits = Some(why.clone());
        job.change(&mut life, State::Held, Some(why), &self.news);
        drop(life);
        self.registry.lock().set_aside(job.id);
    }
}
