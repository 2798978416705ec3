//! Who writes records and closes jobs: a thread of its own, so that no other waits for the state directory's disk.
//!
//! # Protocol
//! 1. Whoever needs a record asks for it with what is to follow.
//! 2. The thread writes all that was asked for in one go, durably; then, for each, what is to follow is called.
//! 3. If the directory is full or failing, the jobs in question pause and say why, and it is tried again every second.
//!    When it has worked they go on by themselves.
//!
//! New jobs are the exception: they are written by whoever makes them, before anyone is told their numbers.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::job::Job;
use super::run::Shared;
use super::view::{JobId, State};
use crate::dm_io::ErrorBits;
use crate::error::{Error, Result};
use crate::figures::Mark;
use crate::journal::{Record, Store};

/// Between two tries at a directory that fails.
const PATIENCE: Duration = Duration::from_secs(1);
/// Records written in one go.
const BATCH: usize = 256;

pub(super) struct Scribe {
    store: Option<Store>,
    desk: Mutex<Desk>,
    came: Condvar,
}

#[derive(Default)]
struct Desk {
    tasks: VecDeque<Task>,
    closing: bool,
}

/// What a record says beside the job's own figures.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    /// The state in which it ends.
    pub(super) end: Option<State>,
    /// What has become durable, on which destinations.
    pub(super) durable: Option<(Mark, ErrorBits)>,
}

impl Entry {
    pub(super) fn end(state: State) -> Self {
        Self { end: Some(state), durable: None }
    }

    pub(super) fn checkpoint(mark: Mark, dests: ErrorBits) -> Self {
        Self { end: None, durable: Some((mark, dests)) }
    }
}

type Then = Box<dyn FnOnce(&Arc<Shared>, &Arc<Job>) + Send>;

enum Task {
    Save(Arc<Job>, Entry, Then),
    Forget(JobId),
}

/// What a state directory held.
pub(super) struct Found {
    pub(super) records: Vec<Record>,
    pub(super) next_id: JobId,
}

impl Scribe {
    /// Opens the state directory, if there is to be one.
    pub(super) fn open(directory: Option<&Path>) -> Result<(Self, Found)> {
        let (store, found) = match directory {
            None => (None, Found { records: Vec::new(), next_id: 1 }),
            Some(directory) => {
                let opened = Store::open(directory)?;
                for (path, why) in &opened.set_aside {
                    log::warn!("{}: set aside: {why}", path.display());
                }
                (Some(opened.store), Found { records: opened.records, next_id: opened.next_id })
            }
        };
        Ok((Self { store, desk: Mutex::default(), came: Condvar::new() }, found))
    }

    /// Starts the thread. Without a state directory it writes nothing, and what is to follow follows all the same: so
    /// the end of a job takes one way, and a chain of jobs that end each other no stack.
    pub(super) fn start(shared: &Arc<Shared>) -> Result<()> {
        let shared = Arc::downgrade(shared);
        std::thread::Builder::new()
            .name("scribe".into())
            .spawn(move || write_on(&shared))
            .map(drop)
            .map_err(|error| Error::os("a thread for records", error))
    }

    /// Ends the thread when all is written, or at the next failure.
    pub(super) fn close(&self) {
        self.desk.lock().closing = true;
        self.came.notify_all();
    }

    /// Writes new jobs, before this returns.
    pub(super) fn record_new(&self, jobs: &[Arc<Job>]) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let records: Vec<Record> = jobs.iter().map(|job| job.record(&Entry::default())).collect();
        store.save(&records)
    }

    /// Writes a job's record, then calls `then`.
    pub(super) fn record(
        &self,
        job: &Arc<Job>,
        entry: Entry,
        then: impl FnOnce(&Arc<Shared>, &Arc<Job>) + Send + 'static,
    ) {
        self.put(Task::Save(Arc::clone(job), entry, Box::new(then)));
    }

    /// Removes the record of a job that was dismissed.
    pub(super) fn forget(&self, id: JobId) {
        if self.store.is_some() {
            self.put(Task::Forget(id));
        }
    }

    fn put(&self, task: Task) {
        self.desk.lock().tasks.push_back(task);
        self.came.notify_all();
    }

    /// The next tasks, each job once; waits for them. `None` at the end.
    fn take(&self) -> Option<Vec<Task>> {
        let mut desk = self.desk.lock();
        while desk.tasks.is_empty() {
            if desk.closing {
                return None;
            }
            self.came.wait(&mut desk);
        }
        let mut seen = BTreeSet::new();
        let fresh = desk.tasks.iter().take(BATCH).take_while(|task| {
            seen.insert(match task {
                Task::Save(job, ..) => job.id,
                Task::Forget(id) => *id,
            })
        });
        let count = fresh.count();
        Some(desk.tasks.drain(..count).collect())
    }

    fn write(&self, tasks: &[Task]) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let records = tasks.iter().filter_map(|task| match task {
            Task::Save(job, entry, _) => Some(job.record(entry)),
            Task::Forget(_) => None,
        });
        store.save(&records.collect::<Vec<_>>())?;
        for task in tasks {
            if let Task::Forget(id) = task {
                store.remove(*id)?;
            }
        }
        Ok(())
    }

    /// Waits a while, or for the end; `false` at the end.
    fn be_patient(&self) -> bool {
        let mut desk = self.desk.lock();
        if !desk.closing {
            self.came.wait_for(&mut desk, PATIENCE);
        }
        !desk.closing
    }
}

/// The thread's life.
fn write_on(shared: &Weak<Shared>) {
    loop {
        // The thread holds the jobs while it waits; they close the desk before they go.
        let Some(shared) = Weak::upgrade(shared) else { return };
        let Some(tasks) = shared.scribe.take() else { return };
        while let Err(error) = shared.scribe.write(&tasks) {
            log::warn!("state directory: {error}");
            jobs_of(&tasks).for_each(|job| shared.hold_up(job, &error.to_string()));
            shared.news.deliver();
            if !shared.scribe.be_patient() {
                return;
            }
        }
        jobs_of(&tasks).for_each(|job| shared.let_go_on(job));
        for task in tasks {
            if let Task::Save(job, _, then) = task {
                then(&shared, &job);
            }
        }
        shared.run_next();
        shared.news.deliver();
    }
}

fn jobs_of(tasks: &[Task]) -> impl Iterator<Item = &Arc<Job>> {
    tasks.iter().filter_map(|task| match task {
        Task::Save(job, ..) => Some(job),
        Task::Forget(_) => None,
    })
}

impl Shared {
    /// A job cannot be made durable: it pauses.
    fn hold_up(&self, job: &Job, why: &str) {
        let mut life = job.lock();
        life.waits = Some(format!("waits for the state directory: {why}"));
        if life.state != State::Running || life.held_up {
            return;
        }
        life.held_up = true;
        if let Some(running) = &mut life.running {
            running.pause();
        }
        let reason = life.waits.clone();
        job.change(&mut life, State::Paused, reason, &self.news);
        drop(life);
        self.registry.lock().set_aside(job.id);
    }

    /// It can be again.
    fn let_go_on(&self, job: &Job) {
        let mut life = job.lock();
        if life.held_up || life.waits.as_ref().is_some_and(|why| why.starts_with("waits for the state directory")) {
            life.waits = None;
        }
        if std::mem::take(&mut life.held_up) && life.state == State::Paused {
            job.change(&mut life, State::Queued, None, &self.news);
            drop(life);
            self.registry.lock().enqueue(job.id);
        }
    }
}
