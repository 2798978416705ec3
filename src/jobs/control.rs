//! The verbs, and the stop of all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::{Ending, Job};
use super::life::{Action, act};
use super::run::{Held, Jobs, Shared};
use super::scribe::Entry;
use super::view::{JobId, State, Verb};
use crate::error::{Error, ErrorKind, Result};
use crate::salvage::Phase;
use crate::spec;

/// How long `cancel` waits for the end, and every other verb for its record.
const SOON: Duration = Duration::from_millis(500);

impl Jobs {
    /// Does what a verb says. It is on disk when this returns, unless the state directory fails or takes its time.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` or `Busy` where the job's state does not allow it.
    pub fn control(&self, id: JobId, verb: Verb) -> Result<()> {
        let job = self.job(id).ok_or_else(|| Error::no_job(id))?;
        self.shared.control(&job, verb)?;
        // A script that looks next finds it cancelled, unless a device keeps it; a crash finds it paused.
        self.shared.wait_until(Instant::now() + SOON, || match verb {
            Verb::Cancel => job.lock().state.is_ended(),
            _ => job.lock().unrecorded == 0,
        });
        Ok(())
    }

    /// Ends all I/O within `limit`, whatever the devices do: no new I/O, then a checkpoint. Jobs that are not quiet by
    /// then are left to their devices; the process can exit.
    pub fn stop(&self, limit: Duration) {
        self.shared.stop(Instant::now() + limit);
    }
}

impl Shared {
    fn control(self: &Arc<Self>, job: &Arc<Job>, verb: Verb) -> Result<()> {
        let mut life = job.lock();
        match (life.ending, verb) {
            (Ending::No, _) => {}
            (_, Verb::Cancel) => return Ok(()),
            _ => {
                let what = format!("{}: job {} is about to end", verb.as_str(), job.id);
                return Err(Error::new(ErrorKind::Busy, what));
            }
        }
        match act(life.state, verb)? {
            Action::Nothing => {
                // Paused by the daemon, and now by the administrator too: it stays paused.
                life.held_up &= verb != Verb::Pause;
                return Ok(());
            }
            Action::Pause => self.pause(job, life),
            Action::Resume => self.requeue(job, life),
            Action::Cancel => self.cancel(job, life),
            Action::Retry => {
                life.progress.begin_anew();
                self.revive(job, life, Phase::first_of(&job.spec));
            }
            Action::Verify if job.spec.from.is_none() => {
                let what = format!("verify: job {} has no source to compare with", job.id);
                return Err(Error::new(ErrorKind::Invalid, what));
            }
            Action::Verify => {
                if job.spec.action == spec::Action::Verify {
                    life.progress.begin_anew();
                } else {
                    life.progress.begin_comparison();
                }
                self.revive(job, life, Phase::Verify);
            }
        }
        self.news.deliver();
        self.run_next();
        self.news.deliver();
        Ok(())
    }

    fn pause(self: &Arc<Self>, job: &Arc<Job>, mut life: Held<'_>) {
        if let Some(running) = &mut life.running {
            running.pause();
        }
        job.change(&mut life, State::Paused, None, &self.news);
        drop(life);
        self.registry.lock().set_aside(job.id);
        self.returning.has_asked(job.id);
        // The checkpoint comes when nothing is in flight any more, which may be never.
        self.record(job);
    }

    /// Records what a job was told.
    fn record(&self, job: &Arc<Job>) {
        job.lock().unrecorded += 1;
        self.scribe.record(job, Entry::default(), |shared, job| {
            job.lock().unrecorded -= 1;
            shared.tell_moved();
        });
    }

    fn requeue(self: &Arc<Self>, job: &Arc<Job>, mut life: Held<'_>) {
        // Who resumes a held job has looked at its devices.
        if life.state == State::Held {
            life.restored = false;
        }
        life.waits = None;
        life.held_up = false;
        job.change(&mut life, State::Queued, None, &self.news);
        drop(life);
        self.enqueue(job, false);
        self.record(job);
    }

    /// An ended job lives again: its devices are opened anew.
    fn revive(self: &Arc<Self>, job: &Arc<Job>, mut life: Held<'_>, phase: Phase) {
        life.phase = phase;
        life.hashing =
            job.spec.digest.filter(|_| phase == Phase::first_of(&job.spec)).map(crate::figures::Hashing::new);
        if phase == Phase::Copy {
            life.digest = None;
        }
        life.restored = true;
        life.released = true;
        self.registry.lock().revive(job.id);
        job.change(&mut life, State::Queued, None, &self.news);
        drop(life);
        self.registry.lock().enqueue(job.id);
        self.record(job);
    }

    fn cancel(self: &Arc<Self>, job: &Arc<Job>, mut life: Held<'_>) {
        match &life.running {
            Some(running) => {
                running.handle.cancel();
                life.ending = Ending::Cancelled;
            }
            // A flush is under way, and what follows it sees the end.
            None if life.flushes > 0 => life.ending = Ending::Cancelled,
            None => self.conclude(job, life, State::Cancelled),
        }
    }

    fn stop(self: &Arc<Self>, deadline: Instant) {
        *self.stopping.lock() = true;
        self.tell_moved();
        let jobs = self.registry.lock().running();
        for job in &jobs {
            if let Some(running) = &mut job.lock().running {
                running.pause();
            }
        }
        let pause = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        let quiet = self.wait_until(pause, || jobs.iter().all(|job| job.lock().is_quiet()));
        for job in &jobs {
            let life = job.lock();
            if life.running.is_some() && life.is_quiet() {
                self.checkpoint(job, life, |_, _| {});
            }
        }
        let durable = self.wait_until(deadline, || jobs.iter().all(|job| job.lock().flushes == 0));
        if !(quiet && durable) {
            log::warn!("devices did not end their I/O in time; what they still do is theirs");
        }
    }

    /// Waits for something to become true of the jobs; `false` when it is late.
    fn wait_until(&self, deadline: Instant, is_so: impl Fn() -> bool) -> bool {
        let mut stopping = self.stopping.lock();
        loop {
            if is_so() {
                return true;
            }
            if self.moved.wait_until(&mut stopping, deadline).timed_out() {
                return is_so();
            }
        }
    }
}
