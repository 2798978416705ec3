//! The lock that keeps udev from probing a disk that is being written, and LVM and md from assembling what they find there.
//!
//! udev looks at a disk each time that somebody closes it who had it open for writing, unless the node of the whole disk is
//! locked with flock(2): see systemd's `BLOCK_DEVICE_LOCKING`. mkfs, sfdisk and others that write to disks take that lock, too.
//!
//! # Protocol
//! 1. The lock is taken before the disk is opened for writing, and never waited for: who else has it is named.
//! 2. It is on a descriptor of its own, opened for reading: closing it tells udev nothing.
//! 3. It goes with the last destination on the disk, just before that is closed. So udev looks at the disk then, and finds it free.
//!
//! The lock belongs to the inode of the node, so it is always that node which udev knows, by whatever name the destination is
//! opened. Where the disk has no node there nobody else can lock it either, and there is no lock.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::sysfs::device_path;
use crate::error::{Error, ErrorKind};

/// A disk that is locked. Dropping it unlocks.
#[derive(Debug)]
pub(super) struct DiskLock {
    /// The last descriptor of this open file.
    _node: File,
}

/// What came of an attempt.
pub(super) enum Attempt {
    Locked(DiskLock),
    /// The disk has no node that could be locked.
    NoNode,
    /// Somebody else has it.
    Held(Holder),
    /// This process cannot open the node now, and may later.
    Failed(io::Error),
}

/// Who has a disk locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    node: PathBuf,
    /// 0 where it is in another namespace, or has just let go.
    pid: u32,
    is_shared: bool,
}

impl DiskLock {
    /// Locks the whole disk of that number, unless somebody has it locked.
    pub(super) fn attempt(disk: u64) -> Attempt {
        let (path, node) = match open_node(disk, libc::O_RDONLY | libc::O_NONBLOCK) {
            Ok(Some(open)) => open,
            Ok(None) => return Attempt::NoNode,
            Err(error) => return Attempt::Failed(error),
        };
        match node.try_lock() {
            Ok(()) => Attempt::Locked(Self { _node: node }),
            Err(TryLockError::WouldBlock) => {
                let holder = holder_of(&path, &node);
                Attempt::Held(holder.unwrap_or(Holder { node: path, pid: 0, is_shared: false }))
            }
            Err(TryLockError::Error(error)) => {
                log::warn!("{}: not locked: {error}", path.display());
                Attempt::NoNode
            }
        }
    }

    /// Who has that disk locked. Takes no lock, and does not open the disk.
    pub(super) fn holder(disk: u64) -> Option<Holder> {
        let (path, node) = open_node(disk, libc::O_PATH).ok()??;
        holder_of(&path, &node)
    }
}

impl Holder {
    /// Whether it is this process.
    pub(super) fn is_us(&self) -> bool {
        self.pid == std::process::id()
    }

    /// Whether it will soon let go: a prober that looks for a moment, which takes a shared lock, or who has let go already.
    pub(super) fn is_brief(&self) -> bool {
        self.is_shared || self.pid == 0
    }

    /// Why a destination on that disk is refused.
    pub(super) fn error(&self, path: &Path) -> Error {
        let who = match (self.pid, command(self.pid)) {
            (0, _) => "a process that cannot be seen from here".to_owned(),
            (pid, Some(command)) => format!("process {pid} ({command})"),
            (pid, None) => format!("process {pid}, which has ended: a child of it may have the lock"),
        };
        let node = self.node.display();
        let what = format!("{} is in use: the disk {node} is locked (flock) by {who}", path.display());
        Error::new(ErrorKind::Busy, what)
    }
}

/// The node of a disk as udev knows it, open; `None` where there is none for this process.
///
/// # Errors
/// Where that may be otherwise a moment later: no descriptor is left.
fn open_node(disk: u64, flags: libc::c_int) -> io::Result<Option<(PathBuf, File)>> {
    let path = device_path(disk);
    let node = match OpenOptions::new().read(true).custom_flags(flags | libc::O_CLOEXEC).open(&path) {
        Ok(node) => node,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => {
            return Err(error);
        }
        Err(error) => {
            log::debug!("{}: not locked: {error}", path.display());
            return Ok(None);
        }
    };
    let meta = node.metadata()?;
    Ok((meta.file_type().is_block_device() && meta.rdev() == disk).then_some((path, node)))
}

fn holder_of(path: &Path, node: &File) -> Option<Holder> {
    let meta = node.metadata().ok()?;
    let (pid, is_shared) = find(&fs::read_to_string("/proc/locks").ok()?, meta.dev(), meta.ino())?;
    Some(Holder { node: path.to_owned(), pid, is_shared })
}

/// Who has an inode locked by flock, in the text of /proc/locks, and whether with others.
fn find(locks: &str, dev: u64, ino: u64) -> Option<(u32, bool)> {
    let inode = format!("{:02x}:{:02x}:{ino}", libc::major(dev), libc::minor(dev));
    locks.lines().find_map(|line| {
        // Those that wait have an arrow after their number.
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, kind, pid, on, ..] = words[..] else { return None };
        (on == inode).then(|| (pid.parse().unwrap_or(0), kind == "READ"))
    })
}

/// What a process calls itself. Its arguments would have to be asked of its memory, which may wait.
fn command(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_lock_is_found_and_who_waits_is_not() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:06:345 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 00:05:345 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 00:06:3450 0 EOF\n\
                     4: FLOCK  ADVISORY  READ 14 00:06:345 0 EOF\n\
                     4: -> FLOCK  ADVISORY  WRITE 15 00:06:345 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE -1 08:1f:7 0 EOF\n";
        assert_eq!(find(locks, libc::makedev(0, 6), 345), Some((14, true)));
        assert_eq!(find(locks, libc::makedev(0, 5), 345), Some((12, false)));
        assert_eq!(find(locks, libc::makedev(8, 31), 7), Some((0, false)));
        assert_eq!(find(locks, libc::makedev(0, 6), 34), None);
    }

    #[test]
    fn the_reason_names_disk_process_and_command() {
        let holder = Holder { node: "/dev/sdb".into(), pid: std::process::id(), is_shared: false };
        let text = holder.error(Path::new("/dev/disk/by-id/x-part1")).to_string();
        let name = command(std::process::id()).unwrap();
        let expected = format!(
            "/dev/disk/by-id/x-part1 is in use: the disk /dev/sdb is locked (flock) by process {} ({name})",
            std::process::id()
        );
        assert_eq!(text, expected);
        assert!(holder.is_us() && !holder.is_brief());
    }
}
