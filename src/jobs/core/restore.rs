//! How the jobs of an earlier daemon come back.

use std::sync::Arc;

use super::Core;
use crate::claims::Rank;
use crate::jobs::effect::{Answer, Effect};
use crate::jobs::event::Reply;
use crate::jobs::index::Place;
use crate::jobs::job::{Follows, Job};
use crate::jobs::state::Life;
use crate::jobs::turn::Now;
use crate::jobs::view::JobId;

impl Core {
    /// Takes the jobs of an earlier daemon in. Those that had begun get their devices back before all others.
    /// `found` are the jobs of their records, or why there are none.
    pub(super) fn restore(
        &mut self,
        found: Vec<(JobId, Result<Box<Job>, String>)>,
        shown: Reply<()>,
        settled: Reply<()>,
        now: Now,
    ) {
        let mut jobs = Vec::with_capacity(found.len());
        for (id, job) in found {
            match job {
                Ok(mut job) => {
                    job.share_names(&self.names);
                    jobs.push(job);
                }
                Err(why) => log::warn!("job {id} is left out: {why}"),
            }
        }
        // The oldest end first.
        jobs.sort_by_cached_key(|job| (job.card.show(|card| card.course.ended), job.id()));
        let mut alive = Vec::new();
        for mut job in jobs {
            let id = job.id();
            self.next = self.next.max(id + 1);
            if matches!(job.life(), Life::Ended(_)) {
                self.ends += 1;
                job.ended = self.ends;
                if let Some(lasting) = &job.lasting {
                    self.claims.remember(id, lasting);
                }
                job.publish(None);
                self.cards.insert(&job.card);
                self.index.move_job(id, &Place::default(), &Place::of(&job));
                self.jobs.insert(job);
            } else {
                alive.push(job);
            }
        }
        alive.sort_by_key(|job| job.id());
        let mut ids = Vec::with_capacity(alive.len());
        for mut job in alive {
            let id = job.id();
            ids.push(id);
            self.effects.push(Effect::EnsureClient(Arc::clone(&job.card)));
            if let Some(lasting) = job.lasting.as_ref().map(|lasting| lasting.without(job.progress.dropped)) {
                match job.life() {
                    _ if job.returning => self.claims.reserve(id, &lasting, Rank::Begun),
                    Life::Queued(_) if job.follows == Follows::Nobody => {
                        self.claims.reserve(id, &lasting, Rank::Waiting);
                    }
                    _ => {}
                }
            }
            // It waits and has data: others may write over it.
            if let Some(lasting) = job.lasting.as_ref().filter(|_| !job.returning && job.progress.has_any()) {
                self.claims.remember(id, lasting);
            }
            job.sort_in();
            self.take_in(job, now);
        }
        for id in &ids {
            self.find_leader(*id, now);
            if self.jobs.get(id).is_some_and(|job| job.returning && !job.life().is_over()) {
                self.returning.insert(*id);
                self.with(*id, now, Job::open);
            }
        }
        while let Some(oldest) = self.index.ended_beyond(self.limits.keep) {
            self.forget(oldest);
        }
        self.effects.push(Effect::Answer(Answer::Over(shown)));
        if self.returning.is_empty() {
            self.effects.push(Effect::Answer(Answer::Over(settled)));
        } else {
            self.restored.push(settled);
        }
    }
}
