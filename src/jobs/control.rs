//! The verbs: pause, resume, cancel; and the stop of all.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use super::job::{Ending, Job, Life};
use super::life::{Action, act};
use super::run::{Jobs, Shared};
use super::view::{JobId, State, Verb};
use crate::error::{Error, ErrorKind, Result};

impl Jobs {
    /// Does what a verb says.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` or `Busy` where the job's state does not allow it; `Unsupported`.
    pub fn control(&self, id: JobId, verb: Verb) -> Result<()> {
        let job = self.job(id).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no job {id}")))?;
        self.shared.control(&job, verb)
    }

    /// Ends all I/O within `limit`, whatever the devices do: no new I/O, then a flush of what was written. Jobs that are
    /// not quiet by then are left to their devices; the process can exit.
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
            Action::Nothing => return Ok(()),
            Action::Pause => {
                if let Some(handle) = &life.handle {
                    handle.pause();
                }
                job.change(&mut life, State::Paused, None, &self.news);
                drop(life);
                self.registry.lock().set_aside(job.id);
            }
            Action::Resume => {
                job.change(&mut life, State::Queued, None, &self.news);
                drop(life);
                self.registry.lock().enqueue(job.id);
            }
            Action::Cancel => self.cancel(job, life),
        }
        self.news.deliver();
        self.run_next();
        Ok(())
    }

    fn cancel(&self, job: &Job, mut life: MutexGuard<'_, Life>) {
        match (&life.handle, life.state) {
            // The copy is over; the flush is the end, and it is near.
            (_, State::Flushing) => {}
            (Some(handle), _) => {
                handle.cancel();
                life.ending = Ending::Cancelled;
            }
            (None, _) => self.conclude(job, life, State::Cancelled),
        }
    }

    fn stop(self: &Arc<Self>, deadline: Instant) {
        *self.stopping.lock() = true;
        self.tell_moved();
        let jobs = self.registry.lock().running();
        for job in &jobs {
            let mut life = job.lock();
            if let Some(handle) =
                life.handle.as_ref().filter(|_| life.state == State::Running && life.ending == Ending::No)
            {
                handle.pause();
                job.change(&mut life, State::Paused, Some("the daemon stops".to_owned()), &self.news);
            }
        }
        self.news.deliver();
        // Quiet jobs flush what they wrote; `moved` is notified after each.
        let mut stopping = self.stopping.lock();
        while jobs.iter().any(|job| is_busy(job)) {
            if self.moved.wait_until(&mut stopping, deadline).timed_out() {
                log::warn!("devices did not end their I/O in time; what they still do is theirs");
                return;
            }
        }
    }
}

fn is_busy(job: &Job) -> bool {
    let life = job.lock();
    !life.state.is_ended() && life.handle.is_some() && (!life.quiet || life.flushes > 0)
}
