//! How a path becomes a [`Device`].
//!
//! The protocol, in the order that cannot be raced:
//! 1. open the path with `O_PATH`, which touches no driver, and judge what it is by fstat on that descriptor;
//! 2. open the very same inode for I/O through `/proc/self/fd`, exclusively where it is a destination and a block device;
//! 3. measure it on that descriptor. The path is never looked at again.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, fcntl};
use nix::sys::stat::fstat;
use nix::sys::statfs;
use nix::unistd::{self, AccessFlags};

use super::device::{Device, Target};
use super::discards::Discards;
use super::zones::Written;
use super::{sys, sysfs};
use crate::error::{Error, ErrorKind, Result};
use crate::os::mounts::{self, Mounts};
use crate::sector::{SECTOR_SIZE, Sector};

/// Alignment that every disk sold and every file system takes, where the system does not say.
const SAFE_ALIGN: u32 = 4096;

/// How a destination is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenDest {
    /// Make a missing regular file (mode 0600).
    pub create: bool,
    /// Write although the device is mounted or held by another (`force=mounted`).
    pub force: bool,
    /// Its region is aligned to this many bytes: a regular file that wants more is written without direct I/O.
    pub aligned_to: u64,
    /// Nothing will be written: what is there is judged as for writing, and opened for reading, without a trace. A file that
    /// `create` would make is not made.
    pub look: bool,
}

/// Opens a source. `aligned_to` as in [`OpenDest`].
pub fn open_source(path: &Path, aligned_to: u64) -> Result<Arc<Device>> {
    let place = judge(path, libc::O_PATH)?;
    let file = reopen(&place, OpenOptions::new().read(true), 0)?;
    Ok(Arc::new(measure(place, file, aligned_to)?))
}

/// As [`open_source`], and reading it does not change when it was read last, where the system lets us choose.
pub fn look_at(path: &Path, aligned_to: u64) -> Result<Arc<Device>> {
    let place = judge(path, libc::O_PATH)?;
    let file = reopen_to_look(&place)?;
    Ok(Arc::new(measure(place, file, aligned_to)?))
}

fn reopen_to_look(place: &Place) -> Result<File> {
    // Only the owner of a file may ask for that.
    let quiet = reopen(place, OpenOptions::new().read(true), libc::O_NOATIME);
    quiet.or_else(|_| reopen(place, OpenOptions::new().read(true), 0))
}

/// Opens a destination: a block device exclusively, so that whoever holds it (mount, swap, md, another opener) keeps it. A file
/// that `create` made goes again where it then cannot be used; else [`Device::was_made`] tells.
pub fn open_dest(path: &Path, how: OpenDest) -> Result<Arc<Device>> {
    let made = how.create && create(path, how.look)?;
    if made && how.look {
        return Ok(Arc::new(Device::to_be_made(path, &real_name(path))?));
    }
    let device = open_existing(path, how, made);
    if made && device.is_err() {
        let _ = std::fs::remove_file(path);
    }
    device
}

fn open_existing(path: &Path, how: OpenDest, made: bool) -> Result<Arc<Device>> {
    let place = judge(path, libc::O_PATH)?;
    let exclusive = if place.is_block() && !how.force { libc::O_EXCL } else { 0 };
    let file = if how.look {
        look_as_writer(&place, exclusive)?
    } else {
        reopen(&place, OpenOptions::new().read(true).write(true), exclusive)?
    };
    if place.is_block() && sys::is_read_only(&file).unwrap_or(false) {
        return Err(read_only(path));
    }
    let mut device = measure(place, file, how.aligned_to)?;
    device.made = made;
    if let Target::Block { rdev } = device.target {
        device.discards = Discards::of(rdev);
    }
    Ok(Arc::new(device))
}

/// Judges whether a place could be opened for writing, and opens it for reading. Whether somebody holds a block device is known
/// only to the kernel: it is held for a moment, without being written.
fn look_as_writer(place: &Place, exclusive: libc::c_int) -> Result<File> {
    let refuse = |errno| Err(explain(place, io::Error::from_raw_os_error(errno)));
    if let Err(errno) = unistd::faccessat(AT_FDCWD, &through(&place.handle), AccessFlags::W_OK, AtFlags::AT_EACCESS) {
        return refuse(errno as i32);
    }
    if !place.is_block() && is_running(place) {
        return refuse(libc::ETXTBSY);
    }
    if exclusive != 0 {
        reopen(place, OpenOptions::new().read(true), exclusive)?;
    }
    reopen_to_look(place)
}

/// Whether a file is the program of a process: nobody may write it then. By its name, for its file system is not to be asked.
fn is_running(place: &Place) -> bool {
    let Ok(name) = std::fs::read_link(through(&place.handle)) else { return false };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut programs = processes.filter_map(|entry| std::fs::read_link(entry.path().join("exe")).ok());
    programs.any(|program| program == name)
}

/// The name of a file that is not there yet, by a path without links.
pub(super) fn real_name(path: &Path) -> PathBuf {
    let parent = path.parent().and_then(|parent| std::fs::canonicalize(parent).ok());
    parent.zip(path.file_name()).map_or_else(|| path.to_owned(), |(parent, name)| parent.join(name))
}

/// What a path leads to, held by a descriptor that can only be asked.
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) handle: File,
    pub(super) target: Target,
}

impl Place {
    fn is_block(&self) -> bool {
        matches!(self.target, Target::Block { .. })
    }
}

/// Step 1: what is it?
pub(super) fn judge(path: &Path, flags: libc::c_int) -> Result<Place> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(Error::new(ErrorKind::Syntax, format!("{shown}: give an absolute path")));
    }
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(flags | libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| Error::os(format!("{shown}"), error))?;
    let meta = handle.metadata().map_err(|error| Error::os(format!("stat {shown}"), error))?;
    let target = if meta.file_type().is_block_device() {
        Target::Block { rdev: meta.rdev() }
    } else if meta.is_file() {
        refuse_file_in_dev(path, &handle, meta.dev())?;
        refuse_control_file(path, &handle, meta.dev())?;
        Target::File { dev: meta.dev(), ino: meta.ino() }
    } else {
        let what = format!("{shown} is neither a block device nor a regular file");
        return Err(Error::new(ErrorKind::NotBlock, what));
    };
    refuse_standard_stream(path, &meta)?;
    Ok(Place { path: path.to_owned(), handle, target })
}

/// A file of a control tree is driven by what is written to it: a disk's content would become specs and verbs. Decided
/// before the file is opened, which would ask its daemon, and that may be this process.
fn refuse_control_file(path: &Path, handle: &File, dev: u64) -> Result<()> {
    if libc::major(dev) != 0 {
        return Ok(());
    }
    let mounts = Mounts::read().map_err(|error| Error::os("read /proc/self/mountinfo", error))?;
    let shown = path.display();
    let what = match mounts.of_device(dev) {
        Some(mount) if mount.fs == mounts::KCOPYFS => format!("{shown} is a file of a kcopyfs, no disk"),
        None if is_fuse(handle) => {
            format!("{shown} lies on a FUSE file system that is not mounted in the daemon's mount namespace")
        }
        _ => return Ok(()),
    };
    Err(Error::new(ErrorKind::NotBlock, what))
}

fn is_fuse(handle: &File) -> bool {
    statfs::fstatfs(handle).is_ok_and(|stat| stat.filesystem_type() == statfs::FUSE_SUPER_MAGIC)
}

/// The daemon's log, where it was started with its output in a file, or what it was started with as its input.
fn refuse_standard_stream(path: &Path, meta: &Metadata) -> Result<()> {
    let is_same = |stream: BorrowedFd<'_>| {
        let both_block = |mode| meta.file_type().is_block_device() && mode & libc::S_IFMT == libc::S_IFBLK;
        fstat(stream).is_ok_and(|stat| {
            (stat.st_dev, stat.st_ino) == (meta.dev(), meta.ino())
                || both_block(stat.st_mode) && stat.st_rdev == meta.rdev()
        })
    };
    let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
    let streams = [(input.as_fd(), "input"), (output.as_fd(), "output"), (errors.as_fd(), "error")];
    let Some((_, name)) = streams.into_iter().find(|(stream, _)| is_same(*stream)) else { return Ok(()) };
    let what = format!("{} is the standard {name} of this process", path.display());
    Err(Error::new(ErrorKind::NotBlock, what))
}

/// A regular file where devices live is a mistyped name: writing there fills memory and copies nothing to any disk.
fn refuse_file_in_dev(path: &Path, handle: &File, dev: u64) -> Result<()> {
    let real = std::fs::read_link(through(handle)).unwrap_or_else(|_| path.to_owned());
    let devices = std::fs::metadata("/dev").map(|meta| meta.dev()).ok();
    if real.starts_with("/dev") && devices == Some(dev) {
        let what = format!("{} is a regular file among the devices of /dev: is the name mistyped?", path.display());
        return Err(Error::new(ErrorKind::NotBlock, what));
    }
    Ok(())
}

/// `create`: makes a missing regular file, and leaves what exists as it is. Whether it made it, or with `look`, whether it would.
fn create(path: &Path, look: bool) -> Result<bool> {
    let shown = path.display();
    let parent = path.parent().unwrap_or(Path::new("/"));
    let in_dev = std::fs::canonicalize(parent).is_ok_and(|real| real.starts_with("/dev"));
    let devices = std::fs::metadata("/dev").map(|meta| meta.dev()).ok();
    let same = std::fs::metadata(parent).map(|meta| meta.dev()).ok() == devices;
    if in_dev && same && !path.exists() {
        let what = format!("{shown}: `create` makes no file among the devices of /dev: is the name mistyped?");
        return Err(Error::new(ErrorKind::NotBlock, what));
    }
    if look {
        return would_create(path, parent).map_err(|error| Error::os(format!("create {shown}"), error));
    }
    match OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_CLOEXEC).open(path) {
        Ok(_) => match sync_directory(parent) {
            Ok(()) => Ok(true),
            Err(error) => {
                let _ = std::fs::remove_file(path);
                Err(error)
            }
        },
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::os(format!("create {shown}"), error)),
    }
}

fn would_create(path: &Path, parent: &Path) -> io::Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => return Ok(false),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    if !std::fs::metadata(parent)?.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
    }
    unistd::faccessat(AT_FDCWD, parent, AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::AT_EACCESS)?;
    Ok(true)
}

/// A new name is durable only when its directory is.
fn sync_directory(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(|error| Error::os(format!("sync {}", path.display()), error))
}

fn through(handle: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()))
}

/// Step 2: opens the inode itself for I/O, directly where it allows that.
fn reopen(place: &Place, options: &mut OpenOptions, flags: libc::c_int) -> Result<File> {
    let path = through(&place.handle);
    let mut open = |extra| options.custom_flags(flags | extra | libc::O_CLOEXEC).open(&path);
    let result = match open(libc::O_DIRECT) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => open(0),
        result => result,
    };
    result.map_err(|error| explain(place, error))
}

/// The system's errno for a refused open, in words that say what to do.
fn explain(place: &Place, error: io::Error) -> Error {
    let shown = place.path.display();
    match error.raw_os_error() {
        Some(libc::EBUSY) => {
            let what =
                format!("{shown} is in use: mounted, swap, held by md or dm, or opened exclusively by another program");
            Error::new(ErrorKind::Busy, what)
        }
        Some(libc::EACCES | libc::EPERM | libc::EROFS) if place.is_block() && is_read_only_block(place) => {
            read_only(&place.path)
        }
        Some(libc::ETXTBSY) => Error::new(ErrorKind::Busy, format!("{shown} is a program that runs, or swap")),
        _ => Error::os(format!("open {shown}"), error),
    }
}

fn is_read_only_block(place: &Place) -> bool {
    let reader = OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC).open(through(&place.handle));
    reader.and_then(|file| sys::is_read_only(&file)).unwrap_or(false)
}

fn read_only(path: &Path) -> Error {
    Error::new(ErrorKind::ReadOnly, format!("{} is read-only", path.display()))
}

/// Step 3: how large, how fine.
fn measure(place: Place, file: File, aligned_to: u64) -> Result<Device> {
    let Place { path, target, .. } = place;
    let fail = |what: &str, error| Error::os(format!("{what} of {}", path.display()), error);
    let flags = direct_flag(&file).map_err(|error| fail("the flags", error))?;
    let (bytes, logical_block, memory_align, direct) = match target {
        Target::Block { .. } => {
            let bytes = sys::block_size_bytes(&file).map_err(|error| fail("the size", error))?;
            let block = sys::logical_block(&file).map_err(|error| fail("the block size", error))?;
            let memory = sys::direct_alignment(&file).map_or(block, |(memory, _)| memory.max(1));
            (bytes, block, memory, flags)
        }
        Target::File { .. } | Target::Memory { .. } => {
            let bytes = file.metadata().map_err(|error| fail("the size", error))?.len();
            let (memory, offset) = sys::direct_alignment(&file).unwrap_or((SAFE_ALIGN, SAFE_ALIGN));
            let direct =
                flags && aligned_to.is_multiple_of(u64::from(offset)) && bytes.is_multiple_of(u64::from(offset));
            if direct { (bytes, offset.max(512), memory, true) } else { (bytes, 512, 1, false) }
        }
    };
    if flags && !direct {
        clear_direct(&file).map_err(|error| fail("the flags", error))?;
    }
    let sequential = matches!(target, Target::Block { rdev } if is_zoned(rdev));
    let zones = sequential.then(Written::default);
    let (size, had_bytes) = (Sector::whole_in(bytes), bytes.into());
    debug_assert!(u64::from(logical_block) >= SECTOR_SIZE);
    let path = path.into();
    let (made, discards) = (false, None);
    let disk_lock = None;
    Ok(Device {
        disk_lock,
        file,
        path,
        target,
        size,
        had_bytes,
        logical_block,
        memory_align,
        direct,
        zones,
        discards,
        made,
    })
}

fn direct_flag(file: &File) -> io::Result<bool> {
    Ok(status_flags(file)?.contains(OFlag::O_DIRECT))
}

fn clear_direct(file: &File) -> io::Result<()> {
    let flags = status_flags(file)?.difference(OFlag::O_DIRECT);
    fcntl(file, FcntlArg::F_SETFL(flags))?;
    Ok(())
}

fn status_flags(file: &File) -> io::Result<OFlag> {
    Ok(OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?))
}

/// Whether the block device, or the disk of the partition, is host-managed: zones that take writes in order only.
fn is_zoned(rdev: u64) -> bool {
    let node = sysfs::node(rdev);
    ["queue/zoned", "../queue/zoned"]
        .iter()
        .find_map(|name| sysfs::settled_text(&node.join(name)))
        .is_some_and(|model| model == "host-managed")
}
