//! The jobs by number. There may be a hundred thousand, and a node of a tree is half empty: it holds them by reference.

use std::collections::BTreeMap;
use std::ops::Index;

use crate::jobs::job::Job;
use crate::jobs::view::JobId;

/// All jobs of a daemon.
#[derive(Debug, Default)]
pub(in crate::jobs) struct Table(BTreeMap<JobId, Box<Job>>);

/// As of a map: its numbers are asked for by reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
impl Table {
    pub(in crate::jobs) fn get(&self, id: &JobId) -> Option<&Job> {
        self.0.get(id).map(Box::as_ref)
    }

    pub(in crate::jobs) fn get_mut(&mut self, id: &JobId) -> Option<&mut Job> {
        self.0.get_mut(id).map(Box::as_mut)
    }

    pub(in crate::jobs) fn contains_key(&self, id: &JobId) -> bool {
        self.0.contains_key(id)
    }

    pub(in crate::jobs) fn insert(&mut self, job: Box<Job>) {
        self.0.insert(job.id(), job);
    }

    pub(in crate::jobs) fn remove(&mut self, id: &JobId) -> Option<Job> {
        self.0.remove(id).map(|job| *job)
    }

    pub(in crate::jobs) fn len(&self) -> usize {
        self.0.len()
    }

    pub(in crate::jobs) fn keys(&self) -> impl DoubleEndedIterator<Item = &JobId> {
        self.0.keys()
    }

    #[cfg(test)]
    pub(in crate::jobs) fn values(&self) -> impl Iterator<Item = &Job> {
        self.0.values().map(Box::as_ref)
    }
}

impl Index<&JobId> for Table {
    type Output = Job;

    fn index(&self, id: &JobId) -> &Job {
        &self.0[id]
    }
}
