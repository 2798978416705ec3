//! What each job waits for, looked at now and then.

use std::time::Duration;

use super::super::job::{Activity, Phase, Place};
use super::super::limits::Limit;
use super::{Worker, lanes};
use crate::dm_io::ErrorBits;

/// Between two looks, while the client is awake.
const LOOK: Duration = Duration::from_millis(20);

impl Worker {
    /// The client has slept: enters what every job has waited for meanwhile. Nothing that came has been looked at yet.
    pub(super) fn look_at_limits_after_sleep(&mut self) {
        if self.core.now() >= self.limits_looked_at + LOOK {
            self.enter_limits(Activity::waited);
        }
    }

    /// Enters what every job waits for, before the client sleeps until then or for no known time.
    pub(super) fn look_at_limits(&mut self, until: Option<Duration>) {
        let now = self.core.now();
        if now >= self.limits_looked_at + LOOK || until.is_some_and(|until| until >= now + LOOK) {
            self.enter_limits(Activity::waits);
        }
    }

    fn enter_limits(&mut self, enter: impl Fn(&Activity, Option<Limit>)) {
        self.limits_looked_at = self.core.now();
        for (key, job) in self.jobs.iter().filter(|(_, job)| !job.is_over) {
            enter(&job.new.activity, self.limit_of(key));
        }
    }

    fn limit_of(&self, key: usize) -> Option<Limit> {
        let job = &self.jobs[key];
        match job.place {
            Place::Delayed(_) => Some(Limit::SpeedMax),
            Place::Lane => Some(Limit::Source),
            Place::Line => match self.line_waits_for {
                Some(Limit::Pages) => {
                    self.slowest_side(key).filter(|limit| self.is_full(key, *limit)).or(Some(Limit::Pages))
                }
                Some(limit) => Some(limit),
                None => self.slowest_side(key),
            },
            Place::None => self.slowest_side(key),
        }
    }

    /// The device for which most of a job's pieces wait.
    fn slowest_side(&self, key: usize) -> Option<Limit> {
        let job = &self.jobs[key];
        let mut reading = 0_usize;
        let mut owing = vec![0_usize; job.new.dests.len()];
        for piece in &job.pieces {
            let sub = &self.subs[*piece];
            match &sub.phase {
                Phase::Reading => reading += 1,
                Phase::Comparing(dest) => owing[*dest] += 1,
                Phase::Writing => sub.owing().iter().for_each(|dest| owing[dest] += 1),
                Phase::Ready(_) | Phase::Seen => {}
            }
        }
        let slowest = owing.iter().enumerate().max_by_key(|(index, count)| (**count, usize::MAX - *index));
        match slowest {
            Some((dest, count)) if *count > 0 && *count >= reading => Some(Limit::Dest(dest)),
            _ => (reading > 0).then_some(Limit::Source),
        }
    }

    /// Whether a destination is given all that it takes: what waits for pages waits for it.
    fn is_full(&self, key: usize, limit: Limit) -> bool {
        let (Limit::Dest(dest), job) = (limit, &self.jobs[key]) else { return false };
        let Some(region) = job.new.dests.get(dest) else { return false };
        let lane = lanes::key(&region.device, job.new.work.direction());
        if self.settings.subjobs.is_none() {
            return !self.lanes.has_room(lane, key, self.core.now(), job.new.piece.bytes());
        }
        let waits = |piece: &&usize| self.subs[**piece].waits_only_for(ErrorBits::only(dest));
        job.pieces.iter().filter(waits).count() * 4 >= job.pieces.len() * 3
    }
}
