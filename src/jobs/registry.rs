//! The table of jobs: numbers, the queue, who runs, what is kept. No I/O, no job's lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::job::Job;
use super::view::JobId;
use crate::error::{Error, ErrorKind, Result};

/// All jobs of a daemon.
///
/// # Invariants
/// Numbers ascend and none is used twice. `queued`, `running` and `ended` share no job and are all in `jobs`; a job in
/// none of them is paused, or has not been sorted in yet.
#[derive(Debug)]
pub(super) struct Registry {
    jobs: BTreeMap<JobId, Arc<Job>>,
    queued: BTreeSet<JobId>,
    running: BTreeSet<JobId>,
    ended: VecDeque<JobId>,
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

impl Registry {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            jobs: BTreeMap::new(),
            queued: BTreeSet::new(),
            running: BTreeSet::new(),
            ended: VecDeque::new(),
            names: BTreeMap::new(),
            next: 1,
            limits,
        }
    }

    /// Makes `count` jobs with the next numbers, all or none.
    pub(super) fn add(&mut self, count: usize, mut make: impl FnMut(JobId) -> Job) -> Result<Vec<Arc<Job>>> {
        if self.jobs.len() + count > self.limits.max_jobs {
            let what = format!("{} jobs are the most (max_jobs=): dismiss some with rmdir", self.limits.max_jobs);
            return Err(Error::new(ErrorKind::Exhausted, what));
        }
        let new = std::iter::repeat_with(|| {
            let job = Arc::new(make(self.next));
            self.next += 1;
            self.jobs.insert(job.id, Arc::clone(&job));
            if let Some(name) = &job.spec.name {
                self.names.entry(name.clone()).or_default().insert(job.id);
            }
            job
        });
        Ok(new.take(count).collect())
    }

    pub(super) fn get(&self, id: JobId) -> Option<Arc<Job>> {
        self.jobs.get(&id).cloned()
    }

    pub(super) fn ids(&self) -> Vec<JobId> {
        self.jobs.keys().copied().collect()
    }

    pub(super) fn running(&self) -> Vec<Arc<Job>> {
        self.running.iter().filter_map(|id| self.get(*id)).collect()
    }

    pub(super) fn is_any_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// Jobs live and ended.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.jobs.len() - self.ended.len(), self.ended.len())
    }

    /// It waits for its turn.
    pub(super) fn enqueue(&mut self, id: JobId) {
        self.running.remove(&id);
        self.queued.insert(id);
    }

    /// It neither runs nor waits.
    pub(super) fn set_aside(&mut self, id: JobId) {
        self.running.remove(&id);
        self.queued.remove(&id);
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

    /// It has ended; the oldest ended beyond what is kept are dismissed.
    pub(super) fn end(&mut self, id: JobId) {
        self.set_aside(id);
        self.ended.push_back(id);
        while self.ended.len() > self.limits.keep {
            if let Some(oldest) = self.ended.pop_front() {
                self.forget(oldest);
            }
        }
    }

    fn forget(&mut self, id: JobId) {
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

    /// The newest job of each name.
    pub(super) fn names(&self) -> Vec<(String, JobId)> {
        let newest = |(name, ids): (&String, &BTreeSet<JobId>)| Some((name.clone(), *ids.last()?));
        self.names.iter().filter_map(newest).collect()
    }

    pub(super) fn named(&self, name: &str) -> Option<JobId> {
        self.names.get(name)?.last().copied()
    }

    pub(super) fn all(&self) -> Vec<Arc<Job>> {
        self.jobs.values().cloned().collect()
    }

    /// Jobs of a client that have not ended.
    pub(super) fn live_of(&self, client: &str) -> usize {
        let ended: BTreeSet<JobId> = self.ended.iter().copied().collect();
        let live = self.jobs.values().filter(|job| !ended.contains(&job.id));
        live.filter(|job| job.client_name() == client).count()
    }

    /// Forgets an ended job.
    pub(super) fn dismiss(&mut self, id: JobId) -> Result<()> {
        if !self.jobs.contains_key(&id) {
            return Err(Error::new(ErrorKind::NotFound, format!("no job {id}")));
        }
        let Some(place) = self.ended.iter().position(|ended| *ended == id) else {
            return Err(Error::new(ErrorKind::Busy, format!("job {id} has not ended: cancel it first")));
        };
        self.ended.remove(place);
        self.forget(id);
        Ok(())
    }
}
