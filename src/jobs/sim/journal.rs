//! The state directory and the thread that writes it: the real store, on a disk in memory that fails and loses its power.
//!
//! What was acknowledged survives a crash; of what was being written each record is its old or its new self.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::view::JobId;
use super::random::Random;
use crate::error::{Error, Result};
use crate::journal::double::{Fault, Faulty, Mistake, Model};
use crate::journal::{Opened, Record, Store};

/// Something to be written, and the number of the event that asked for it.
pub(super) enum Task {
    Save(Box<Record>, u64),
    SaveNew { batch: u64, records: Vec<Record>, asked: u64 },
    Forget(JobId),
}

/// What is written in one go.
#[derive(Default)]
struct Writing {
    /// They are new.
    batch: Option<u64>,
    saves: Vec<Record>,
    /// By record.
    asked: Vec<u64>,
    forgets: Vec<JobId>,
}

/// How that went.
pub(super) enum Written {
    New(u64, Result<()>),
    Saved(Vec<JobId>),
    /// It is tried again.
    Failed(Error),
}

pub(super) struct Journal {
    medium: Model,
    disk: Faulty<Model>,
    store: Store<Faulty<Model>>,
    mistake: Mistake,
    /// What was acknowledged, and the number of the event that asked for it.
    pub(super) kept: BTreeMap<JobId, (Record, u64)>,
    /// Jobs that were refused because they could not be recorded: while the disk fails their records may stay.
    refused: BTreeSet<JobId>,
    pub(super) queue: VecDeque<Task>,
    writing: Option<Writing>,
    /// The disk fails.
    pub(super) fails: bool,
    /// It has failed, and is tried again in a while.
    pub(super) is_patient: bool,
}

/// What the next daemon finds.
pub(super) struct Found {
    pub(super) records: Vec<Record>,
    pub(super) next: JobId,
}

impl Journal {
    pub(super) fn new(mistake: Mistake) -> Self {
        let medium = Model::default();
        let disk = Faulty::new(medium.clone(), mistake);
        let store = Store::open_on(disk.clone(), 0).expect("an empty directory").store;
        Self {
            medium,
            disk,
            store,
            mistake,
            kept: BTreeMap::new(),
            refused: BTreeSet::new(),
            queue: VecDeque::new(),
            writing: None,
            fails: false,
            is_patient: false,
        }
    }

    /// Takes the next tasks, as the recorder does: each job once, or the new jobs of one write. Whether there are any.
    pub(super) fn take(&mut self) -> bool {
        if self.writing.is_some() || self.queue.is_empty() {
            return false;
        }
        let mut seen = BTreeSet::new();
        let fresh = self.queue.iter().take_while(|task| match task {
            Task::Save(record, _) => seen.insert(record.id),
            Task::Forget(id) => seen.insert(*id),
            Task::SaveNew { .. } => false,
        });
        let count = fresh.count().max(1);
        let mut writing = Writing::default();
        for task in self.queue.drain(..count) {
            match task {
                Task::Save(record, asked) => {
                    writing.saves.push(*record);
                    writing.asked.push(asked);
                }
                Task::SaveNew { batch, records, asked } => {
                    writing.batch = Some(batch);
                    writing.asked = vec![asked; records.len()];
                    writing.saves = records;
                }
                Task::Forget(id) => writing.forgets.push(id),
            }
        }
        self.writing = Some(writing);
        true
    }

    /// Writes what was taken.
    pub(super) fn write(&mut self, random: &mut Random) -> Written {
        let writing = self.writing.take().unwrap_or_default();
        if self.fails {
            let times = random.pick(&[1, 3, 40, 1000]);
            let fault = if random.one_in(3) { Fault::DoneAndFail(times) } else { Fault::Fail(times) };
            self.disk.meet(random.pick(&[0, 0, 1, 2, 3, 5]), fault);
        }
        let result = self.store.save(&writing.saves).and_then(|()| self.remove(&writing.forgets));
        self.disk.mend();
        let ids: Vec<JobId> = writing.saves.iter().map(|record| record.id).collect();
        match (result, writing.batch) {
            (Ok(()), batch) => {
                self.refused.retain(|id| !ids.contains(id));
                self.kept.retain(|id, _| !writing.forgets.contains(id));
                self.kept.extend(ids.iter().copied().zip(writing.saves.into_iter().zip(writing.asked)));
                batch.map_or(Written::Saved(ids), |batch| Written::New(batch, Ok(())))
            }
            (Err(error), Some(batch)) => {
                self.refused.extend(ids);
                Written::New(batch, Err(error))
            }
            (Err(error), None) => {
                self.writing = Some(writing);
                Written::Failed(error)
            }
        }
    }

    fn remove(&self, ids: &[JobId]) -> Result<()> {
        ids.iter().try_for_each(|id| self.store.remove(*id))
    }

    /// The process ends, or the machine, at any step of what is being written; the next daemon opens what is left.
    pub(super) fn crash(&mut self, power: bool, random: &mut Random) -> std::result::Result<Found, String> {
        let writing = self.writing.take().unwrap_or_default();
        self.disk.meet(random.below(4 * (writing.saves.len() + writing.forgets.len()) as u64 + 3), Fault::Die);
        let _ = self.store.save(&writing.saves).and_then(|()| self.remove(&writing.forgets));
        if power {
            self.medium.power_cut(|limit| usize::try_from(random.below(limit as u64)).expect("a small number"));
        }
        self.disk = Faulty::new(self.medium.clone(), self.mistake);
        let opened = Store::open_on(self.disk.clone(), 0).map_err(|error| error.to_string())?;
        let Opened { store, records, next_id, set_aside, .. } = opened;
        self.store = store;
        self.queue.clear();
        (self.fails, self.is_patient) = (false, false);
        if let Some((path, why)) = set_aside.first() {
            return Err(format!("a crash has damaged {}: {why}", path.display()));
        }
        self.recognise(&records, writing)?;
        Ok(Found { records, next: next_id })
    }

    /// Each record is one that was acknowledged, or one that was being written.
    fn recognise(&mut self, records: &[Record], writing: Writing) -> std::result::Result<(), String> {
        let found: BTreeMap<JobId, &Record> = records.iter().map(|record| (record.id, record)).collect();
        let lost = self.kept.keys().find(|id| !found.contains_key(id) && !writing.forgets.contains(id));
        if let Some(id) = lost {
            return Err(format!("a crash has lost the record of job {id}"));
        }
        let written: BTreeMap<JobId, (Record, u64)> =
            writing.saves.into_iter().zip(writing.asked).map(|(record, asked)| (record.id, (record, asked))).collect();
        let before = std::mem::take(&mut self.kept);
        for (id, record) in found {
            let mut may_be = [written.get(&id), before.get(&id)].into_iter().flatten();
            let (record, asked) = match may_be.find(|(known, _)| says_the_same(known, record)) {
                Some(known) => known.clone(),
                None if self.refused.contains(&id) => (record.clone(), 0),
                None => {
                    return Err(format!("after a crash the record of job {id} is neither its old nor its new self"));
                }
            };
            self.kept.insert(id, (record, asked));
        }
        self.refused.clear();
        Ok(())
    }
}

/// In all that a job goes on by.
fn says_the_same(one: &Record, other: &Record) -> bool {
    let key = |record: &Record| (record.state, record.claimed, record.followed, record.verified, record.write_err);
    key(one) == key(other) && one.spec == other.spec && one.dests == other.dests && one.source == other.source
}
