//! The state directory on a real disk: made, judged, locked, and reached by its descriptor alone.
//!
//! Every path here is a name in the open directory, or below `/proc/self/fd/N`, N being that: whatever is renamed or replaced by a
//! symbolic link outside it, the store stays in the directory that it opened. Files are opened with `O_NOFOLLOW` and new
//! ones with `O_EXCL`, so that a link within it leads nowhere either. Only the path that the administrator gave is
//! followed where it is a link, as systemd's `StateDirectory=` may make it.
//!
//! # Invariants
//! While a [`Dir`] lives, no other process has one of the same directory.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::disk::Disk;
use super::events::EventFile;
use super::{DAMAGED, LOCK, MAX_FILE, sys};
use crate::error::{Error, ErrorKind, Result};
use crate::os::process;

/// The lock file may be replaced while it is being locked; nobody does that more than once by accident.
const LOCK_LOOKS: u32 = 8;

/// For how long the lock may be held by a daemon that was just killed, and how often that is looked at.
const DYING: Duration = Duration::from_millis(500);
const DYING_LOOK: Duration = Duration::from_millis(10);

/// The open and locked state directory.
#[derive(Debug)]
pub(crate) struct Dir {
    handle: File,
    path: PathBuf,
    lock: File,
}

impl Dir {
    /// Makes the directory where it is missing, opens it and locks it.
    ///
    /// # Errors
    /// Busy where another daemon has it; Access where others than its owner could make jobs in it.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let fail = |what| {
            let what =
                format!("{what} the state directory {} (name another with state=DIR, or state=none)", path.display());
            move |error| Error::os(what, error)
        };
        make(path).map_err(fail("make"))?;
        let handle = open_folder(path, 0).map_err(fail("open"))?;
        trust(&handle, path)?;
        sync_parents(path);
        let lock = lock(&handle, path)?;
        Ok(Self { handle, path: path.to_owned(), lock })
    }

    /// The file of what was told of jobs.
    pub(super) fn event_file(&self) -> Result<EventFile> {
        let folder = self.handle.try_clone().map_err(|error| Error::os(self.path.display().to_string(), error))?;
        Ok(EventFile::new(folder, &self.path))
    }

    fn at(&self, name: &str) -> PathBuf {
        below(&self.handle, name)
    }

    fn open_name(&self, name: &str, how: OFlag) -> io::Result<File> {
        let flags = how | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&self.handle, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?.into())
    }
}

impl Drop for Dir {
    /// Lets the next daemon in at once: a child that was forked and has not called exec yet has the lock open, too.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

/// A name in an open directory, whatever became of its path.
pub(super) fn below(folder: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

fn open_folder(path: &Path, flags: libc::c_int) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | flags).open(path)
}

/// Makes the directory and its parents, each durable in its own parent.
fn make(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    make(parent)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => open_folder(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }, 0)?.sync_all(),
    }
}

/// A daemon that was killed in [`make`] may have left names that are not durable yet. Parents that may not be opened, or
/// that are read-only, are an administrator's and were there before.
fn sync_parents(path: &Path) {
    for parent in path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        let _ = open_folder(parent, 0).and_then(|folder| folder.sync_all());
    }
}

/// Whoever may write here may make the daemon write any disk.
fn trust(handle: &File, path: &Path) -> Result<()> {
    let shown = path.display();
    let meta = handle.metadata().map_err(|error| Error::os(format!("stat {shown}"), error))?;
    let refuse = |why: String| {
        let what = format!("the state directory {shown} {why}, who could make jobs there: chown or chmod it");
        Err(Error::new(ErrorKind::Access, what))
    };
    if !is_trusted(&meta) {
        return refuse(format!("belongs to user {}", meta.uid()));
    }
    if meta.mode() & 0o002 != 0 {
        return refuse("may be written by everybody".to_owned());
    }
    Ok(())
}

pub(super) fn is_trusted(meta: &Metadata) -> bool {
    meta.uid() == 0 || meta.uid() == sys::user()
}

/// Takes the lock, and leaves our number in it for the one that comes too late.
fn lock(folder: &File, path: &Path) -> Result<File> {
    let shown = path.join(LOCK);
    let fail = |error| Error::os(format!("lock {}", shown.display()), error);
    for _ in 0..LOCK_LOOKS {
        let file = open_lock(&below(folder, LOCK)).map_err(fail)?;
        match lock_patiently(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(&file, path)),
            Err(TryLockError::Error(error)) => return Err(fail(error)),
        }
        let held = file.metadata().map_err(fail)?;
        let named = fs::symlink_metadata(below(folder, LOCK));
        if named.is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())) {
            // It is for people only; on a full disk it stays as it was.
            let _ = file.set_len(0).and_then(|()| file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0));
            return Ok(file);
        }
    }
    Err(Error::new(ErrorKind::Busy, format!("{} is replaced again and again", shown.display())))
}

/// Tries again for as long as the holder may be dying.
fn lock_patiently(file: &File) -> std::result::Result<(), TryLockError> {
    let late = Instant::now() + DYING;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < late => thread::sleep(DYING_LOOK),
            result => return result,
        }
    }
}

/// A read-only or full disk must not keep a daemon from starting where the file is there already.
fn open_lock(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(flags);
    match options.write(true).create(true).truncate(false).mode(0o600).open(path) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EROFS | libc::ENOSPC | libc::EDQUOT)) => {
            options.write(false).create(false).open(path).map_err(|_| error)
        }
        result => result,
    }
}

fn in_use(lock: &File, path: &Path) -> Error {
    let mut text = [0; 16];
    let length = lock.read_at(&mut text, 0).unwrap_or(0);
    let holder = str::from_utf8(&text[..length]).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let shown = path.display();
    let own = "give this one a directory of its own with `state=DIR`";
    let what = match holder {
        Some(pid) if process::is_dying(pid) => {
            let devices: Vec<_> = process::waits_for(pid).iter().map(|path| path.display().to_string()).collect();
            let devices = if devices.is_empty() { "a device".to_owned() } else { devices.join(" or ") };
            format!(
                "the state directory {shown} is held by kcopyfs process {pid}, which was killed and is kept by {devices}: \
                 it ends when that answers or is removed; wait for that, or {own}"
            )
        }
        Some(pid) => {
            format!("the state directory {shown} is in use by another kcopyfs, process {pid}: stop that one, or {own}")
        }
        None => format!("the state directory {shown} is in use by another kcopyfs: stop that one, or {own}"),
    };
    Error::new(ErrorKind::Busy, what)
}

impl Disk for Dir {
    type File = File;

    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.at("."))? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let never_ours = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        // A fifo must not keep us waiting for its writer.
        let file = match self.open_name(name, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Err(never_ours("it is a symbolic link")),
            result => result?,
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(never_ours("it is no regular file"));
        }
        if !is_trusted(&meta) {
            return Err(never_ours(&format!("it belongs to user {}", meta.uid())));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0).min(MAX_FILE) + 1);
        file.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > MAX_FILE {
            return Err(never_ours("it is too long"));
        }
        Ok(bytes)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<File> {
        let make = || self.open_name(name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL);
        let mut file = match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(name)?;
                make()
            }
            result => result,
        }?;
        file.write_all(bytes)?;
        sys::start_writing(&file);
        Ok(file)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.handle, from, &self.handle, to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn set_aside(&self, name: &str, to: &str) -> io::Result<()> {
        let mut folders = vec![enter(&self.handle, DAMAGED)?];
        let to = match to.split_once('/') {
            Some((folder, to)) => {
                folders.push(enter(&folders[0], folder)?);
                to
            }
            None => to,
        };
        let target = below(&folders[folders.len() - 1], to);
        if fs::symlink_metadata(&target).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(self.at(name), target)?;
        folders.iter().rev().try_for_each(File::sync_all)
    }
}

/// Opens a folder within a folder, made where it is missing.
fn enter(folder: &File, name: &str) -> io::Result<File> {
    let path = below(folder, name);
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    open_folder(&path, libc::O_NOFOLLOW)
}
