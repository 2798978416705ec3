//! The thread that writes records, so that no other waits for the state directory's disk.
//!
//! # Protocol
//! 1. Records are written in the order in which they were asked for, many in one go, durably. The owner is told.
//! 2. Where that fails the owner is told why; its jobs pause, and it is tried again every second. New jobs are refused
//!    meanwhile: whoever makes one waits for its record. When it has worked the owner is told, and the jobs go on.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::event::{Event, Reply};
use super::owner::Inbox;
use super::view::JobId;
use crate::error::{Error, Result};
use crate::journal::{EventFile, Opened, Record, Settings, Store};

/// Between two tries at a directory that fails.
const PATIENCE: Duration = Duration::from_secs(1);
/// Records written in one go.
const BATCH: usize = 256;

/// The way to the thread.
pub(super) struct Recorder {
    queue: Mutex<Queue>,
    came: Condvar,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Task>,
    closing: bool,
}

enum Task {
    Save(Box<Record>),
    SaveNew { batch: u64, records: Vec<Record> },
    Forget(JobId),
    Settings(Settings, Reply<Result<()>>),
}

/// What a state directory held.
#[derive(Default)]
pub(super) struct Found {
    pub(super) records: Vec<Record>,
    /// Where what is told of jobs is kept.
    pub(super) events: Option<EventFile>,
    pub(super) next_id: JobId,
    pub(super) settings: Settings,
}

impl Recorder {
    /// Opens the state directory, if there is to be one, and starts the thread.
    pub(super) fn open(directory: Option<&Path>, inbox: &Arc<Inbox>) -> Result<(Arc<Self>, Found)> {
        let recorder = Arc::new(Self { queue: Mutex::default(), came: Condvar::new() });
        let Some(directory) = directory else {
            return Ok((recorder, Found { next_id: 1, ..Found::default() }));
        };
        let Opened { store, records, next_id, settings, set_aside } = Store::open(directory)?;
        for (path, why) in &set_aside {
            log::warn!("{}: set aside: {why}", path.display());
        }
        let events = Some(store.event_file()?);
        let writer = Writer { store, recorder: Arc::clone(&recorder), inbox: Arc::clone(inbox) };
        std::thread::Builder::new()
            .name("recorder".into())
            .spawn(move || writer.run())
            .map_err(|error| Error::os("a thread for records", error))?;
        Ok((recorder, Found { records, events, next_id, settings }))
    }

    /// Writes a job's record.
    pub(super) fn save(&self, record: Box<Record>) {
        self.put(Task::Save(record));
    }

    /// Writes the records of new jobs, or none of them.
    pub(super) fn save_batch(&self, batch: u64, records: Vec<Record>) {
        self.put(Task::SaveNew { batch, records });
    }

    /// Removes the record of a job that was dismissed.
    pub(super) fn forget(&self, id: JobId) {
        self.put(Task::Forget(id));
    }

    /// Writes what administrators have set. The answer comes when that is on disk, or cannot be.
    pub(super) fn save_settings(&self, settings: Settings, reply: Reply<Result<()>>) {
        self.put(Task::Settings(settings, reply));
    }

    /// Ends the thread when all is written, or at the next failure.
    pub(super) fn close(&self) {
        self.queue.lock().closing = true;
        self.came.notify_all();
    }

    fn put(&self, task: Task) {
        self.queue.lock().tasks.push_back(task);
        self.came.notify_all();
    }
}

/// The thread.
struct Writer {
    store: Store,
    recorder: Arc<Recorder>,
    inbox: Arc<Inbox>,
}

impl Writer {
    fn run(self) {
        while let Some(tasks) = self.take() {
            let mut saves = Vec::new();
            let mut forgets = Vec::new();
            for task in tasks {
                match task {
                    Task::Save(record) => saves.push(*record),
                    Task::Forget(id) => forgets.push(id),
                    Task::SaveNew { batch, records } => self.save_new(batch, &records),
                    Task::Settings(settings, reply) => {
                        reply.send(self.store.save_settings(&settings));
                    }
                }
            }
            if !self.insist(&saves, &forgets) {
                return;
            }
        }
    }

    /// The next tasks, each job once, or the new jobs of one write; waits for them. `None` at the end.
    fn take(&self) -> Option<Vec<Task>> {
        let mut queue = self.recorder.queue.lock();
        while queue.tasks.is_empty() {
            if queue.closing {
                return None;
            }
            self.recorder.came.wait(&mut queue);
        }
        let mut seen = BTreeSet::new();
        let fresh = queue.tasks.iter().take(BATCH).take_while(|task| match task {
            Task::Save(record) => seen.insert(record.id),
            Task::Forget(id) => seen.insert(*id),
            Task::SaveNew { .. } | Task::Settings(..) => false,
        });
        let count = fresh.count().max(1);
        Some(queue.tasks.drain(..count).collect())
    }

    fn save_new(&self, batch: u64, records: &[Record]) {
        let result = self.store.save(records);
        self.inbox.send(Event::BatchRecorded { batch, result });
    }

    /// Tries until it has worked; `false` at the end.
    fn insist(&self, saves: &[Record], forgets: &[JobId]) -> bool {
        let write = || {
            self.store.save(saves)?;
            forgets.iter().try_for_each(|id| self.store.remove(*id))
        };
        while let Err(error) = write() {
            log::warn!("state directory: {error}");
            self.inbox.send(Event::RecordsFail { why: error.to_string() });
            if !self.be_patient(&error) {
                return false;
            }
        }
        if !saves.is_empty() || !forgets.is_empty() {
            self.inbox.send(Event::Recorded { ids: saves.iter().map(|record| record.id).collect() });
        }
        true
    }

    /// Waits a while, or for the end; `false` at the end. New jobs are refused at once: the records before theirs are not
    /// written.
    fn be_patient(&self, error: &Error) -> bool {
        let until = std::time::Instant::now() + PATIENCE;
        let mut queue = self.recorder.queue.lock();
        loop {
            let mut kept = VecDeque::with_capacity(queue.tasks.len());
            let why = || Error::new(error.kind(), error.to_string());
            for task in std::mem::take(&mut queue.tasks) {
                match task {
                    Task::SaveNew { batch, .. } => self.inbox.send(Event::BatchRecorded { batch, result: Err(why()) }),
                    Task::Settings(_, reply) => reply.send(Err(why())),
                    task => kept.push_back(task),
                }
            }
            queue.tasks = kept;
            if queue.closing || self.recorder.came.wait_until(&mut queue, until).timed_out() {
                return !queue.closing;
            }
        }
    }
}
