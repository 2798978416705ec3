//! Where jobs outlive the daemon: a directory with a file per job.
//!
//! ```text
//! lock           held by the daemon, with its process number
//! version        the format of the directory
//! 7.job          a record
//! next           no number at or above the one in here was ever given to a job that was removed since
//! next.copy      the same again
//! settings       limits and clients, as administrators set them
//! events         what was told of jobs, a line each; nothing depends on it
//! damaged/       what could not be read as ours: NAME.TIME, and state.TIME/ for a directory of another version
//! ID.tmp ...     what a killed daemon was writing; removed at the next start
//! ```
//!
//! # Saving
//! 1. A directory without `version` gets one, durably, before the first record.
//! 2. Every record of the batch is written to a new file `ID.tmp`. The system is told to begin writing them out.
//! 3. Every one of these files is synced. Up to here no record has changed.
//! 4. Each `ID.tmp` is renamed to `ID.job`: the record is the new one, whole.
//! 5. The directory is synced, once. Now it is durable and the caller may answer.
//!
//! Where a step fails, the temporary files are removed, each old record is its old or its new self, and those that are new
//! are removed again: a job that was refused must not run after the next start. Where that fails too they are
//! doubtful; every later call removes them first, and fails while it cannot.
//!
//! A file system's `syncfs` would be quicker for large batches; it would wait for everything that others wrote there too,
//! copies of whole disks among them, and fail for their errors.
//!
//! # Removing
//! 1. If the number is not below `next`: write one more than the highest number known to `next.tmp`, sync it, rename it;
//!    the same for the copy; sync the directory. So a number stays known by its record until `next` knows it, and
//!    numbers need no write of their own while jobs are made.
//! 2. Unlink the record, sync the directory.
//!
//! # Opening
//! 1. Lock, list the names, and sync the directory: what is read now is there after a power cut, too.
//! 2. Read `next` and its copy. The highest number in them, or in a name, is the last that was given.
//! 3. A whole `version` of another kcopyfs: all is set aside, `next` first and `version` last, so that a start that is
//!    killed does it again.
//! 4. Remove temporary files.
//! 5. Read every record. One that is not whole, or of a later version, is set aside once `next` is above its number.
//!
//! What cannot be read or moved at all stays where it is and is told, like what was set aside. A start needs to write
//! nothing, so that one on a full disk succeeds.
//!
//! # Invariants
//! * What was acknowledged is found by the next start, whole, whatever was killed or lost its power when.
//! * A number that a job had is never given again.
//! * One call at a time is at work in a directory.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind, Result};

mod dir;
mod disk;
mod events;
mod format;
mod marks;
mod opening;
mod record;
mod seal;
mod settings;
mod state;
mod sys;

#[cfg(test)]
pub(crate) mod double;
#[cfg(test)]
mod tests;

use dir::Dir;
use disk::Disk;
pub(crate) use events::{EventFile, Told};
pub(crate) use record::{Record, Side};
pub(crate) use settings::{Chosen, Settings};
pub use state::{JobId, State};

/// A record is a few kilobytes; one with [`record::RANGES_MAX`] ranges is 40 MB at most. Larger files are no records.
const MAX_FILE: usize = 64 << 20;

/// Files of a batch that are open at once: far below the 1024 that a process may have.
const BATCH: usize = 64;

/// No job has a number from here on; a name with such a one is not the store's, and uses up none.
pub(crate) const NUMBERS: JobId = 1 << 48;

const LOCK: &str = "lock";
const VERSION: &str = "version";
const DAMAGED: &str = "damaged";

/// Jobs on disk.
#[derive(Debug)]
pub(crate) struct Store<D: Disk = Dir> {
    shelf: Mutex<Shelf<D>>,
}

/// A store that was opened, and what was found.
#[derive(Debug)]
pub(crate) struct Opened<D: Disk = Dir> {
    /// The store.
    pub(crate) store: Store<D>,
    /// Every job that is kept, by ascending number.
    pub(crate) records: Vec<Record>,
    /// The first number that no job ever had.
    pub(crate) next_id: JobId,
    /// What administrators had set.
    pub(crate) settings: Settings,
    /// What is not among the records: where it is now, and why.
    pub(crate) set_aside: Vec<(PathBuf, String)>,
}

impl Store {
    /// Opens the state directory, which is made where it is missing.
    ///
    /// # Errors
    /// Busy where another daemon has it. Access where somebody else could make jobs in it. What the system says where it
    /// cannot be made, opened, locked or listed. Nothing that is in it makes this fail.
    pub(crate) fn open(path: &Path) -> Result<Opened> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        opening::open(Dir::open(path)?, now.as_secs())
    }

    /// The file of what was told of jobs. It is written beside records, by a thread of its own.
    ///
    /// # Errors
    /// No descriptor is left.
    pub(crate) fn event_file(&self) -> Result<EventFile> {
        self.shelf.lock().disk.event_file()
    }
}

impl<D: Disk> Store<D> {
    /// Keeps these records, in place of those of the same numbers. They are durable when it returns.
    ///
    /// # Errors
    /// What the system says, with the path; `TooBig` for a record beyond [`MAX_FILE`]. Each record that was kept before is
    /// then its old or its new self; the others are not kept.
    pub(crate) fn save(&self, records: &[Record]) -> Result<()> {
        if records.is_empty() { Ok(()) } else { self.shelf.lock().save(records) }
    }

    /// Forgets a job, durably. One that is not kept is forgotten already.
    pub(crate) fn remove(&self, id: JobId) -> Result<()> {
        self.shelf.lock().remove(id)
    }
}

/// The directory and what is known of it.
#[derive(Debug)]
struct Shelf<D> {
    disk: D,
    /// Jobs whose records are there.
    kept: HashSet<JobId>,
    /// The highest number that is or was a job's.
    highest: JobId,
    /// What both `next` files say at least.
    mark: JobId,
    /// `version` is there.
    versioned: bool,
    /// The directory is of another version, and could not be set aside.
    foreign: bool,
    /// Refused jobs whose records may be there.
    doubtful: BTreeSet<JobId>,
    /// The time of opening, for names in `damaged`.
    time: u64,
}

impl<D: Disk> Shelf<D> {
    fn save(&mut self, records: &[Record]) -> Result<()> {
        let ids: BTreeSet<JobId> = records.iter().map(|record| record.id).collect();
        debug_assert!(ids.len() == records.len() && !ids.contains(&0), "each job once, and numbers from 1");
        self.settle(&ids)?;
        self.prepare()?;
        self.highest = self.highest.max(ids.last().copied().unwrap_or(0));
        let written = self.write_all(records);
        let result = written.and_then(|()| self.publish(records));
        if result.is_ok() {
            self.doubtful.retain(|id| !ids.contains(id));
            self.kept.extend(ids);
        } else {
            self.take_back(ids);
        }
        result
    }

    /// Steps 2 and 3.
    fn write_all(&self, records: &[Record]) -> Result<()> {
        for batch in records.chunks(BATCH) {
            let mut files = Vec::with_capacity(batch.len());
            for record in batch {
                let (name, text) = (temporary(record.id), format::print(record));
                if text.len() > MAX_FILE {
                    let what = format!("the record of job {} is {} bytes, {MAX_FILE} are kept", record.id, text.len());
                    return Err(Error::new(ErrorKind::TooBig, what));
                }
                let file = self.disk.create(&name, &text).map_err(|error| self.fail("write", &name, error))?;
                files.push((name, file));
            }
            for (name, file) in &files {
                self.disk.sync_file(file).map_err(|error| self.fail("sync", name, error))?;
            }
        }
        Ok(())
    }

    /// Steps 4 and 5.
    fn publish(&self, records: &[Record]) -> Result<()> {
        for record in records {
            let (from, to) = (temporary(record.id), job_file(record.id));
            self.disk.rename(&from, &to).map_err(|error| self.fail("rename to", &to, error))?;
        }
        self.sync()
    }

    /// A save failed: what it left is removed, as far as that is possible now.
    fn take_back(&mut self, ids: BTreeSet<JobId>) {
        for id in &ids {
            // What stays is removed at the next start, or by the next save of that job.
            let _ = self.disk.remove(&temporary(*id));
        }
        let new: BTreeSet<JobId> = ids.into_iter().filter(|id| !self.kept.contains(id)).collect();
        if !new.is_empty() && self.unlink(&new).is_err() {
            self.doubtful.extend(new);
        }
    }

    /// Removes what a failed save of new jobs may have left, those aside that are saved now.
    fn settle(&mut self, but: &BTreeSet<JobId>) -> Result<()> {
        let left: BTreeSet<JobId> = self.doubtful.difference(but).copied().collect();
        if !left.is_empty() {
            self.unlink(&left)?;
            self.doubtful.retain(|id| but.contains(id));
        }
        Ok(())
    }

    fn remove(&mut self, id: JobId) -> Result<()> {
        let one = BTreeSet::from([id]);
        self.settle(&one)?;
        if self.kept.contains(&id) && id >= self.mark {
            self.raise_mark()?;
        }
        self.unlink(&one)?;
        self.kept.remove(&id);
        self.doubtful.remove(&id);
        Ok(())
    }

    /// Removes records, durably. Those that are not there may still be there after a power cut.
    fn unlink(&self, ids: &BTreeSet<JobId>) -> Result<()> {
        for id in ids {
            let name = job_file(*id);
            match self.disk.remove(&name) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(self.fail("remove", &name, error));
                }
                _ => {}
            }
        }
        self.sync()
    }

    /// Makes the directory fit to take records.
    fn prepare(&mut self) -> Result<()> {
        if self.foreign {
            self.evacuate()?;
        }
        if !self.versioned {
            self.put(VERSION, &seal::seal("state", ""))?;
            self.sync()?;
            self.versioned = true;
        }
        Ok(())
    }

    /// Writes a file of the directory whole, in place of the one of that name. Its name is durable after [`Shelf::sync`].
    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = format!("{name}.tmp");
        let written = self.disk.create(&temporary, bytes).and_then(|file| self.disk.sync_file(&file));
        written.and_then(|()| self.disk.rename(&temporary, name)).map_err(|error| {
            let _ = self.disk.remove(&temporary);
            self.fail("write", name, error)
        })
    }

    fn sync(&self) -> Result<()> {
        self.disk.sync().map_err(|error| self.fail("sync", "", error))
    }

    fn fail(&self, verb: &str, name: &str, error: std::io::Error) -> Error {
        let path = if name.is_empty() { self.disk.path().to_owned() } else { self.disk.path().join(name) };
        Error::os(format!("{verb} {}", path.display()), error)
    }
}

fn job_file(id: JobId) -> String {
    format!("{id}.job")
}

fn temporary(id: JobId) -> String {
    format!("{id}.tmp")
}

/// The number of a job in a file's name with this ending.
fn id_in(name: &str, ending: &str) -> Option<JobId> {
    let digits = name.strip_suffix(ending)?;
    let id: JobId = digits.parse().ok().filter(|id| (1..NUMBERS).contains(id))?;
    // `7`, and neither `007` nor `+7`.
    (id.to_string() == digits).then_some(id)
}
