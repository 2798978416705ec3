//! How a directory is read when the daemon starts. See "Opening" in the room's documentation.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::PathBuf;

use parking_lot::Mutex;

use super::disk::Disk;
use super::marks::{self, MARKS};
use super::seal::{Flaw, Reading, unseal};
use super::settings::{self, SETTINGS, Settings};
use super::{DAMAGED, JobId, LOCK, Opened, Record, Shelf, Store, VERSION, format, id_in, job_file};
use crate::error::{Error, Result};
use crate::os::parallel;

/// Files of one name that are set aside in one second.
const ASIDE_NAMES: u32 = 1000;

/// All but the lock, on a directory that is locked.
pub(super) fn open<D: Disk>(disk: D, time: u64) -> Result<Opened<D>> {
    let names = disk.names().map_err(|error| Error::os(format!("list {}", disk.path().display()), error))?;
    let shelf = Shelf {
        disk,
        kept: HashSet::new(),
        highest: 0,
        mark: 0,
        versioned: false,
        foreign: false,
        doubtful: BTreeSet::new(),
        time,
    };
    let mut opening = Opening { shelf, records: Vec::new(), settings: Settings::default(), set_aside: Vec::new() };
    opening.settle();
    opening.count(&names);
    opening.version();
    if !opening.shelf.foreign {
        opening.sweep(&names);
        opening.marks();
        opening.records(&names);
        opening.settings();
    }
    let Opening { shelf, mut records, settings, set_aside } = opening;
    records.sort_unstable_by_key(|record| record.id);
    let next_id = shelf.highest.saturating_add(1);
    Ok(Opened { store: Store { shelf: Mutex::new(shelf) }, records, next_id, settings, set_aside })
}

/// What a file turned out to be.
enum Found<T> {
    Whole(T),
    Missing,
    Flawed(Flaw),
    /// The system would not let us look.
    Closed(io::Error),
}

struct Opening<D> {
    shelf: Shelf<D>,
    records: Vec<Record>,
    settings: Settings,
    set_aside: Vec<(PathBuf, String)>,
}

impl<D: Disk> Opening<D> {
    /// Step 1: a daemon that was killed may have left names that a power cut would take back.
    fn settle(&mut self) {
        if let Err(error) = self.shelf.sync() {
            self.tell("", format!("may be older after a power cut: {error}"));
        }
    }

    /// Step 2: the highest number that anything here tells of.
    fn count(&mut self, names: &[String]) {
        let told = MARKS.map(|name| match self.shelf.look(name, marks::parse) {
            Found::Whole(next) => next,
            _ => 0,
        });
        self.shelf.mark = told.into_iter().min().unwrap_or(0);
        let removed = told.into_iter().max().unwrap_or(0).saturating_sub(1);
        self.shelf.highest = ids(names).max().unwrap_or(0).max(removed);
    }

    /// Step 3.
    fn version(&mut self) {
        match self.shelf.look(VERSION, |bytes| unseal("state", bytes).map(drop)) {
            Found::Whole(()) => self.shelf.versioned = true,
            Found::Missing => {}
            Found::Flawed(Flaw::Version(version)) => self.other_version(version),
            // Each record says its own version, so that a damaged file costs nothing.
            Found::Flawed(flaw) => self.put_aside(VERSION, &flaw.to_string()),
            Found::Closed(error) => self.tell(VERSION, format!("cannot be read: {error}")),
        }
    }

    fn other_version(&mut self, version: u32) {
        let why = Flaw::Version(version);
        match self.shelf.evacuate() {
            Ok(folder) => self.set_aside.push((folder, why.to_string())),
            Err(error) => {
                self.shelf.foreign = true;
                let path = self.shelf.disk.path().to_owned();
                self.set_aside.push((path, format!("{why}; left where it is: {error}")));
            }
        }
    }

    /// Step 4. What cannot be removed now is in nobody's way.
    fn sweep(&self, names: &[String]) {
        let fixed = [VERSION, SETTINGS, MARKS[0], MARKS[1]].map(|name| format!("{name}.tmp"));
        for name in names.iter().filter(|name| id_in(name, ".tmp").is_some() || fixed.contains(name)) {
            let _ = self.shelf.disk.remove(name);
        }
    }

    /// A damaged mark is told; both are written again before the next record goes.
    fn marks(&mut self) {
        for name in MARKS {
            match self.shelf.look(name, marks::parse) {
                Found::Whole(_) | Found::Missing => {}
                Found::Flawed(flaw) => self.put_aside(name, &flaw.to_string()),
                Found::Closed(error) => self.tell(name, format!("cannot be read: {error}")),
            }
        }
    }

    /// Damaged settings are told, and those of the options count.
    fn settings(&mut self) {
        match self.shelf.look(SETTINGS, settings::parse) {
            Found::Whole(settings) => self.settings = settings,
            Found::Missing => {}
            Found::Flawed(flaw) => self.put_aside(SETTINGS, &flaw.to_string()),
            Found::Closed(error) => self.tell(SETTINGS, format!("cannot be read: {error}")),
        }
    }

    /// Step 5.
    fn records(&mut self, names: &[String]) {
        let there = &self.shelf;
        let look = |id| (id, there.look(&job_file(id), |bytes| check(id, format::parse(bytes)?)));
        for (id, found) in parallel::map(ids(names).collect(), look) {
            match found {
                Found::Whole(record) => {
                    self.shelf.kept.insert(id);
                    self.records.push(record);
                }
                // Somebody removed it between the list and the look.
                Found::Missing => {}
                Found::Flawed(flaw) => self.put_record_aside(id, &flaw.to_string()),
                Found::Closed(error) => self.tell(&job_file(id), format!("cannot be read: {error}")),
            }
        }
    }

    fn put_record_aside(&mut self, id: JobId, why: &str) {
        if id >= self.shelf.mark
            && let Err(error) = self.shelf.raise_mark()
        {
            return self.tell(&job_file(id), format!("{why}; left where it is: {error}"));
        }
        self.put_aside(&job_file(id), why);
    }

    fn put_aside(&mut self, name: &str, why: &str) {
        match self.shelf.put_aside(name, "").and_then(|path| self.shelf.sync().map(|()| path)) {
            Ok(path) => self.set_aside.push((path, why.to_owned())),
            Err(error) => self.tell(name, format!("{why}; left where it is: {error}")),
        }
    }

    fn tell(&mut self, name: &str, why: String) {
        let path = self.shelf.disk.path();
        self.set_aside.push((if name.is_empty() { path.to_owned() } else { path.join(name) }, why));
    }
}

/// A record under another's name would run a job twice.
fn check(id: JobId, record: Record) -> Reading<Record> {
    if record.id == id { Ok(record) } else { Err(Flaw::Damaged(format!("it is the record of job {}", record.id))) }
}

/// Every number in a name.
fn ids(names: &[String]) -> impl Iterator<Item = JobId> {
    names.iter().filter_map(|name| id_in(name, ".job"))
}

impl<D: Disk> Shelf<D> {
    fn look<T>(&self, name: &str, read: impl FnOnce(&[u8]) -> Reading<T>) -> Found<T> {
        match self.disk.read(name) {
            Ok(bytes) => read(&bytes).map_or_else(Found::Flawed, Found::Whole),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Missing,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Found::Flawed(Flaw::Damaged(error.to_string())),
            Err(error) => Found::Closed(error),
        }
    }

    /// Moves a file to `damaged`, or to a folder in it that is given with its slash. Says where it is now.
    fn put_aside(&self, name: &str, folder: &str) -> Result<PathBuf> {
        let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
        for again in 0..ASIDE_NAMES {
            let to = match (folder, again) {
                ("", 0) => format!("{name}.{}", self.time),
                ("", again) => format!("{name}.{}.{again}", self.time),
                (folder, 0) => format!("{folder}{name}"),
                (folder, again) => format!("{folder}{name}.{again}"),
            };
            match self.disk.set_aside(name, &to) {
                Ok(()) => return Ok(self.disk.path().join(DAMAGED).join(to)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
                Err(error) => return Err(self.fail("set aside", name, error)),
            }
        }
        Err(self.fail("set aside", name, taken))
    }

    /// Sets everything aside that a kcopyfs of another version left, and says where it is now.
    ///
    /// Each `next` is replaced before any record goes, one at a time, so that there is no moment in which a number is
    /// known nowhere; `version` goes last, so that whoever is killed here begins again.
    pub(super) fn evacuate(&mut self) -> Result<PathBuf> {
        let names = self.disk.names().map_err(|error| self.fail("list", "", error))?;
        let folder = format!("state.{}/", self.time);
        for name in MARKS {
            if names.iter().any(|there| there == name) {
                self.put_aside(name, &folder)?;
            }
            self.put_mark(name)?;
        }
        let stays = [LOCK, DAMAGED, VERSION, MARKS[0], MARKS[1], "lost+found"];
        for name in names.iter().filter(|name| !stays.contains(&name.as_str())) {
            self.put_aside(name, &folder)?;
        }
        self.sync()?;
        self.put_aside(VERSION, &folder)?;
        self.sync()?;
        self.foreign = false;
        Ok(self.disk.path().join(DAMAGED).join(folder.trim_end_matches('/')))
    }
}
