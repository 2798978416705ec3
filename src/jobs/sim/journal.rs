//! The double of the state directory and of the thread that writes it: records in memory, in the order asked for.
//!
//! What was acknowledged survives a crash; of what was being written each record is its old or its new self.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::view::JobId;
use super::random::Random;
use crate::journal::Record;

/// Something to be written.
pub(super) enum Task {
    /// A record, and the number of the event that asked for it.
    Save(Box<Record>, u64),
    SaveNew {
        batch: u64,
        records: Vec<Record>,
        asked: u64,
    },
    Forget(JobId),
}

#[derive(Default)]
pub(super) struct Journal {
    /// What is on disk, and the number of the event that asked for it.
    pub(super) disk: BTreeMap<JobId, (Record, u64)>,
    /// The highest number that was ever on disk.
    pub(super) highest: JobId,
    pub(super) queue: VecDeque<Task>,
    /// What is being written now.
    pub(super) writing: Vec<Task>,
    /// The disk fails.
    pub(super) fails: bool,
    /// It has failed, and is tried again in a while.
    pub(super) is_patient: bool,
}

impl Journal {
    /// Takes the next tasks, as the recorder does: each job once, or the new jobs of one write.
    pub(super) fn take(&mut self) {
        let mut seen = BTreeSet::new();
        let fresh = self.queue.iter().take_while(|task| match task {
            Task::Save(record, _) => seen.insert(record.id),
            Task::Forget(id) => seen.insert(*id),
            Task::SaveNew { .. } => false,
        });
        let count = fresh.count().max(1).min(self.queue.len());
        self.writing = self.queue.drain(..count).collect();
    }

    pub(super) fn write(&mut self, record: Record, asked: u64) {
        self.highest = self.highest.max(record.id);
        self.disk.insert(record.id, (record, asked));
    }

    /// Writes what is being written; the jobs whose records were saved.
    pub(super) fn finish(&mut self) -> Vec<JobId> {
        let mut saved = Vec::new();
        for task in std::mem::take(&mut self.writing) {
            match task {
                Task::Save(record, asked) => {
                    saved.push(record.id);
                    self.write(*record, asked);
                }
                Task::SaveNew { records, asked, .. } => {
                    for record in records {
                        self.write(record, asked);
                    }
                }
                Task::Forget(id) => _ = self.disk.remove(&id),
            }
        }
        saved
    }

    /// The process ends, or the machine.
    pub(super) fn crash(&mut self, random: &mut Random) {
        for task in std::mem::take(&mut self.writing) {
            match task {
                Task::Save(record, asked) if random.one_in(2) => self.write(*record, asked),
                Task::SaveNew { records, asked, .. } => {
                    for record in records {
                        if random.one_in(2) {
                            self.write(record, asked);
                        }
                    }
                }
                Task::Forget(id) if random.one_in(2) => _ = self.disk.remove(&id),
                Task::Save(..) | Task::Forget(_) => {}
            }
        }
        self.queue.clear();
        (self.fails, self.is_patient) = (false, false);
    }

    pub(super) fn records(&self) -> Vec<Record> {
        self.disk.values().map(|(record, _)| record.clone()).collect()
    }
}
