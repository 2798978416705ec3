//! Who runs, who is next, who waits for whom: sets of numbers, derived from the jobs.
//!
//! # Invariants
//! Each job is in the sets that [`Place::of`] it says, and in no other.

use std::collections::{BTreeMap, BTreeSet};

use super::job::{Follows, Job};
use super::state::{Life, Wait};
use super::view::JobId;

/// Where a job belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    kind: Kind,
    /// The job whose end it waits for, also while it is paused.
    leader: Option<JobId>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// It neither runs nor waits for its turn.
    #[default]
    Aside,
    /// It waits for its turn.
    Ready,
    /// It waits for a device.
    Blocked,
    /// It counts among the active ones.
    Active,
    /// It has ended, as the how-manieth.
    Ended(u64),
}

impl Place {
    pub(super) fn of(job: &Job) -> Self {
        let kind = match job.life() {
            Life::Queued(Wait::Turn) => Kind::Ready,
            Life::Queued(Wait::Device(_)) => Kind::Blocked,
            Life::Ended(_) => Kind::Ended(job.ended),
            life if life.is_active() => Kind::Active,
            _ => Kind::Aside,
        };
        let leader = match job.follows {
            Follows::Job(leader) if !job.life().is_over() => Some(leader),
            _ => None,
        };
        Self { kind, leader }
    }

    pub(super) fn is_ended(&self) -> bool {
        matches!(self.kind, Kind::Ended(_))
    }
}

/// The sets.
#[derive(Debug, Default)]
pub(super) struct Index {
    ready: BTreeSet<JobId>,
    /// Become ready when a job ends, and every second.
    blocked: BTreeSet<JobId>,
    active: BTreeSet<JobId>,
    /// By the order of their ends.
    ended: BTreeMap<u64, JobId>,
    /// By leader.
    followers: BTreeMap<JobId, BTreeSet<JobId>>,
}

impl Index {
    /// A job goes from one place to another.
    pub(super) fn move_job(&mut self, id: JobId, from: &Place, to: &Place) {
        if from == to && from.kind != Kind::Blocked {
            return;
        }
        match from.kind {
            Kind::Aside => {}
            Kind::Ready => _ = self.ready.remove(&id),
            // It may be ready to be tried again.
            Kind::Blocked => _ = self.blocked.remove(&id) || self.ready.remove(&id),
            Kind::Active => _ = self.active.remove(&id),
            Kind::Ended(end) => _ = self.ended.remove(&end),
        }
        match to.kind {
            Kind::Aside => {}
            Kind::Ready => _ = self.ready.insert(id),
            Kind::Blocked => _ = self.blocked.insert(id),
            Kind::Active => _ = self.active.insert(id),
            Kind::Ended(end) => _ = self.ended.insert(end, id),
        }
        if from.leader != to.leader {
            if let Some(leader) = from.leader
                && let Some(followers) = self.followers.get_mut(&leader)
            {
                followers.remove(&id);
                if followers.is_empty() {
                    self.followers.remove(&leader);
                }
            }
            if let Some(leader) = to.leader {
                self.followers.entry(leader).or_default().insert(id);
            }
        }
    }

    /// The job whose turn it is.
    pub(super) fn next(&self) -> Option<JobId> {
        self.ready.first().copied()
    }

    /// All that wait for a device are tried again.
    pub(super) fn unblock(&mut self) {
        self.ready.append(&mut self.blocked);
    }

    pub(super) fn has_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// How many are active.
    pub(super) fn active(&self) -> usize {
        self.active.len()
    }

    pub(super) fn all_active(&self) -> Vec<JobId> {
        self.active.iter().copied().collect()
    }

    /// Those that wait for the end of a job.
    pub(super) fn followers(&self, leader: JobId) -> Vec<JobId> {
        self.followers.get(&leader).into_iter().flatten().copied().collect()
    }

    /// The first job that is not exactly where it should be.
    #[cfg(test)]
    pub(super) fn misplaced<'a>(&self, jobs: impl Iterator<Item = &'a Job>) -> Option<JobId> {
        let mut count = [0_usize; 4];
        for job in jobs {
            let (id, place) = (job.id(), Place::of(job));
            let is = (self.ready.contains(&id), self.blocked.contains(&id), self.active.contains(&id));
            let (at, want) = match place.kind {
                Kind::Aside => (None, is == (false, false, false)),
                Kind::Ready => (Some(0), is == (true, false, false)),
                // It may be ready to be tried again.
                Kind::Blocked => (Some(usize::from(is.1)), is == (true, false, false) || is == (false, true, false)),
                Kind::Active => (Some(2), is == (false, false, true)),
                Kind::Ended(end) => (Some(3), is == (false, false, false) && self.ended.get(&end) == Some(&id)),
            };
            let leads = self.followers.iter().filter(|(_, followers)| followers.contains(&id));
            if !want || !leads.map(|(leader, _)| *leader).eq(place.leader) {
                return Some(id);
            }
            if let Some(at) = at {
                count[at] += 1;
            }
        }
        let sizes = [self.ready.len(), self.blocked.len(), self.active.len(), self.ended.len()];
        (sizes != count).then_some(0)
    }

    /// The oldest end, where more than so many are kept.
    pub(super) fn ended_beyond(&self, keep: usize) -> Option<JobId> {
        (self.ended.len() > keep).then(|| self.ended.first_key_value().map(|(_, id)| *id)).flatten()
    }
}
