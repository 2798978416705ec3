//! The table of jobs: numbers, the queue, who runs, who waits for whom, what is kept. No I/O, no job's lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::job::Job;
use super::view::{JobId, State};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::NUMBERS;

/// All jobs of a daemon.
///
/// # Invariants
/// Numbers ascend and none is used twice. `queued`, `blocked`, `running`, `ended` and the followers share no job and are
/// all in `jobs`; a job in none of them is paused or held, or has not been sorted in yet.
#[derive(Debug)]
pub(super) struct Registry {
    jobs: BTreeMap<JobId, Arc<Job>>,
    queued: BTreeSet<JobId>,
    /// Wait for a device; they are queued again when a job ends, and every second.
    blocked: BTreeSet<JobId>,
    running: BTreeSet<JobId>,
    /// Wait for the end of a job.
    followers: BTreeMap<JobId, Vec<JobId>>,
    ended: BTreeMap<JobId, State>,
    /// The same, the oldest end first.
    ends: VecDeque<JobId>,
    names: BTreeMap<String, BTreeSet<JobId>>,
    next: JobId,
    limits: Limits,
}

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) active: usize,
    pub(super) keep: usize,
    pub(super) max_jobs: usize,
}

/// What becomes of a job that is to wait for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// It waits.
    Waits,
    /// The other has ended.
    Ended(State),
    /// The other is not there.
    Gone,
}

/// What follows from a job's end.
#[derive(Debug)]
pub(super) struct AfterEnd {
    /// Jobs beyond those that are kept.
    pub(super) forgotten: Vec<JobId>,
    /// Jobs that waited for it.
    pub(super) followers: Vec<Arc<Job>>,
}

impl Registry {
    pub(super) fn new(limits: Limits, next: JobId) -> Self {
        Self {
            jobs: BTreeMap::new(),
            queued: BTreeSet::new(),
            blocked: BTreeSet::new(),
            running: BTreeSet::new(),
            followers: BTreeMap::new(),
            ended: BTreeMap::new(),
            ends: VecDeque::new(),
            names: BTreeMap::new(),
            next,
            limits,
        }
    }

    /// The number that the next of `count` new jobs gets, if there is room for all.
    pub(super) fn room_for(&self, count: usize) -> Result<JobId> {
        if self.jobs.len() + count > self.limits.max_jobs {
            let what = format!("{} jobs are the most (max_jobs=): dismiss some with rmdir", self.limits.max_jobs);
            return Err(Error::new(ErrorKind::Exhausted, what));
        }
        if self.next.saturating_add(count as JobId) > NUMBERS {
            return Err(Error::new(ErrorKind::Exhausted, "no number is left for a job: begin a new state directory"));
        }
        Ok(self.next)
    }

    /// Takes jobs in, ascending.
    pub(super) fn add(&mut self, jobs: &[Arc<Job>]) {
        for job in jobs {
            self.next = self.next.max(job.id + 1);
            self.jobs.insert(job.id, Arc::clone(job));
            if let Some(name) = &job.spec.name {
                self.names.entry(name.clone()).or_default().insert(job.id);
            }
        }
    }

    pub(super) fn get(&self, id: JobId) -> Option<Arc<Job>> {
        self.jobs.get(&id).cloned()
    }

    pub(super) fn ids(&self) -> Vec<JobId> {
        self.jobs.keys().copied().collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<Job>> {
        self.jobs.values().cloned().collect()
    }

    pub(super) fn running(&self) -> Vec<Arc<Job>> {
        self.running.iter().filter_map(|id| self.get(*id)).collect()
    }

    pub(super) fn is_running(&self, id: JobId) -> bool {
        self.running.contains(&id)
    }

    pub(super) fn is_any_running(&self) -> bool {
        !self.running.is_empty()
    }

    pub(super) fn is_any_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Jobs live and ended.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.jobs.len() - self.ended.len(), self.ended.len())
    }

    /// Jobs of a client that have not ended.
    pub(super) fn live_of(&self, client: &str) -> usize {
        let live = self.jobs.values().filter(|job| !self.ended.contains_key(&job.id));
        live.filter(|job| job.client_name() == client).count()
    }

    /// The newest job of each name.
    pub(super) fn names(&self) -> Vec<(String, JobId)> {
        let newest = |(name, ids): (&String, &BTreeSet<JobId>)| Some((name.clone(), *ids.last()?));
        self.names.iter().filter_map(newest).collect()
    }

    pub(super) fn named(&self, name: &str) -> Option<JobId> {
        self.names.get(name)?.last().copied()
    }

    /// It waits for its turn.
    pub(super) fn enqueue(&mut self, id: JobId) {
        self.set_aside(id);
        self.queued.insert(id);
    }

    /// It waits for a device.
    pub(super) fn block(&mut self, id: JobId) {
        self.set_aside(id);
        self.blocked.insert(id);
    }

    /// It waits for the end of `after`, unless that has ended.
    pub(super) fn follow(&mut self, id: JobId, after: JobId) -> Follow {
        if let Some(end) = self.ended.get(&after) {
            return Follow::Ended(*end);
        }
        if !self.jobs.contains_key(&after) {
            return Follow::Gone;
        }
        self.set_aside(id);
        self.followers.entry(after).or_default().push(id);
        Follow::Waits
    }

    /// Why a queued job does not run: so many do that no more may.
    pub(super) fn is_full(&self) -> Option<String> {
        let active = self.limits.active;
        let what = || format!("waits: {active} jobs are running, and no more may at once (active={active})");
        (self.running.len() >= active).then(what)
    }

    /// All that wait for a device are tried again.
    pub(super) fn unblock(&mut self) {
        self.queued.append(&mut self.blocked);
    }

    /// It neither runs nor waits.
    pub(super) fn set_aside(&mut self, id: JobId) {
        self.running.remove(&id);
        self.queued.remove(&id);
        self.blocked.remove(&id);
        self.followers.retain(|_, followers| {
            followers.retain(|follower| *follower != id);
            !followers.is_empty()
        });
    }

    /// The next job whose turn it is, if there is room; it counts as running from now on.
    pub(super) fn next_to_run(&mut self) -> Option<Arc<Job>> {
        if self.running.len() >= self.limits.active {
            return None;
        }
        let id = self.queued.pop_first()?;
        self.running.insert(id);
        self.get(id)
    }

    /// It has ended; the oldest ended beyond what is kept are dismissed, and those that wait for a device tried again.
    pub(super) fn end(&mut self, id: JobId, state: State) -> AfterEnd {
        self.set_aside(id);
        self.ended.insert(id, state);
        self.ends.push_back(id);
        self.unblock();
        let followers = self.followers.remove(&id).unwrap_or_default();
        let followers = followers.iter().filter_map(|id| self.get(*id)).collect();
        let mut forgotten = Vec::new();
        while self.ends.len() > self.limits.keep {
            let Some(oldest) = self.ends.pop_front() else { break };
            self.forget(oldest);
            forgotten.push(oldest);
        }
        AfterEnd { forgotten, followers }
    }

    /// An ended job lives again.
    pub(super) fn revive(&mut self, id: JobId) {
        self.ended.remove(&id);
        self.ends.retain(|ended| *ended != id);
    }

    /// Forgets an ended job.
    pub(super) fn dismiss(&mut self, id: JobId) -> Result<()> {
        if !self.jobs.contains_key(&id) {
            return Err(Error::no_job(id));
        }
        if !self.ended.contains_key(&id) {
            return Err(Error::new(ErrorKind::Busy, format!("job {id} has not ended: cancel it first")));
        }
        self.ends.retain(|ended| *ended != id);
        self.forget(id);
        Ok(())
    }

    fn forget(&mut self, id: JobId) {
        self.ended.remove(&id);
        let Some(job) = self.jobs.remove(&id) else { return };
        if let Some(name) = &job.spec.name
            && let Some(ids) = self.names.get_mut(name)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.names.remove(name);
            }
        }
    }
}
