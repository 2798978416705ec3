//! What is mounted where, as /proc/self/mountinfo tells it.
//!
//! The table is text: reading it asks no file system and cannot block. It shows this mount namespace only. The kernel tells by poll(2)
//! when it has changed, so it is read anew only then.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;

/// The type of our own mounts.
pub(crate) const KCOPYFS: &str = "fuse.kcopyfs";

/// Types of file systems that ask a process or another machine for a file's attributes, and so may never answer. A type
/// counts with all that begin so: `fuse.sshfs`, `nfs4`.
const REMOTE: &[&str] =
    &["fuse", "nfs", "cifs", "smb", "9p", "ceph", "afs", "lustre", "gfs2", "ocfs2", "virtiofs", "orangefs", "beegfs"];

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Number of the file system's device; major 0 where it has none of its own.
    pub(crate) dev: u64,
    /// The directory of that file system which is seen at `point`.
    pub(crate) root: PathBuf,
    pub(crate) point: PathBuf,
    pub(crate) fs: String,
    pub(crate) source: PathBuf,
}

impl Mount {
    /// Whether asking this file system for a file's attributes may block for ever.
    pub(crate) fn is_remote(&self) -> bool {
        REMOTE.iter().any(|kind| self.fs.starts_with(kind))
    }

    /// Where in the file system itself `path` lies, whatever it is mounted at.
    pub(crate) fn inside(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.point) {
            Ok(rest) => self.root.join(rest),
            Err(_) => path.to_owned(),
        }
    }
}

/// All mounts, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounts(Arc<[Mount]>);

/// As they were read: the same are those that have not changed since.
impl PartialEq for Mounts {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Mounts {}

/// What was read last, and the file that tells whether it has changed since that was opened. It tells it once: whoever asks it is
/// alone, and reads.
static KNOWN: Mutex<Option<(File, Mounts)>> = Mutex::new(None);

impl Mounts {
    /// Those of this process's mount namespace, now.
    pub(crate) fn read() -> io::Result<Self> {
        let mut known = KNOWN.lock();
        if let Some((file, mounts)) = &*known {
            let mut events = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
            if poll(&mut events, PollTimeout::ZERO)? == 0 {
                return Ok(mounts.clone());
            }
        }
        // What changes from here on is told, also what changes while it is read.
        let mut file = File::open("/proc/self/mountinfo")?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        let mounts = Self::parse(&text);
        *known = Some((file, mounts.clone()));
        Ok(mounts)
    }

    /// Reads the text of mountinfo; a line that is none is passed over.
    pub(crate) fn parse(text: &[u8]) -> Self {
        Self(text.split(|&byte| byte == b'\n').filter_map(parse_line).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// The mount that is seen at `point`: the last one made there.
    pub(crate) fn top_at(&self, point: &Path) -> Option<&Mount> {
        self.0.iter().rfind(|mount| mount.point == point)
    }

    /// A mount of the file system with that device number, wherever it is.
    pub(crate) fn of_device(&self, dev: u64) -> Option<&Mount> {
        self.0.iter().find(|mount| mount.dev == dev)
    }

    /// The mount on which `path` lies: the deepest, and of several at one place the last.
    pub(crate) fn holding(&self, path: &Path) -> Option<&Mount> {
        let over = self.0.iter().filter(|mount| path.starts_with(&mount.point));
        over.max_by_key(|mount| mount.point.as_os_str().len())
    }

    /// Whether walking to `path` passes a file system that may never answer.
    pub(crate) fn may_block(&self, path: &Path) -> bool {
        self.0.iter().any(|mount| mount.is_remote() && path.starts_with(&mount.point))
    }
}

/// `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAG]... - TYPE SOURCE OPTIONS`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|&byte| byte == b' ');
    let dev = parse_dev(std::str::from_utf8(words.nth(2)?).ok()?)?;
    let root = unescape(words.next()?);
    let point = unescape(words.next()?);
    words.find(|word| *word == b"-")?;
    let fs = String::from_utf8_lossy(words.next()?).into_owned();
    let source = unescape(words.next()?);
    Some(Mount { dev, root, point, fs, source })
}

/// `MAJOR:MINOR`, as sysfs and mountinfo write a device's number.
pub(crate) fn parse_dev(text: &str) -> Option<u64> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// Bytes as one printable word, as /proc writes a path: blanks, control characters and backslashes as `\\` and three octal digits.
pub(crate) fn escape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        if byte == b'\\' || byte == b' ' || byte.is_ascii_control() {
            out.extend_from_slice(format!("\\{byte:03o}").as_bytes());
        } else {
            out.push(byte);
        }
    }
    out
}

/// A path in which /proc wrote blanks and backslashes as `\` and three octal digits.
pub(crate) fn unescape(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, tail) = match (first, octal(tail)) {
            (b'\\', Some(byte)) => (byte, &tail[3..]),
            _ => (first, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    PathBuf::from(OsString::from_vec(bytes))
}

fn octal(text: &[u8]) -> Option<u8> {
    let digits = text.get(..3)?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"21 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw\n\
        40 21 0:44 / /srv/far rw - fuse.sshfs box:/ rw,user_id=0\n\
        41 21 8:2 /images /mnt/two\\040words rw shared:3 master:1 - ext4 /dev/sda2 rw\n\
        nonsense\n\
        42 40 8:17 / /srv/far/near rw - xfs /dev/sdb1 rw\n";

    #[test]
    fn lines_are_read_with_tags_and_blanks() {
        let mounts = Mounts::parse(TEXT);
        assert_eq!(mounts.iter().count(), 4);
        let mount = mounts.holding(Path::new("/mnt/two words/a.img")).unwrap();
        assert_eq!((mount.dev, mount.fs.as_str()), (libc::makedev(8, 2), "ext4"));
        assert_eq!(mount.inside(Path::new("/mnt/two words/a.img")), Path::new("/images/a.img"));
    }

    #[test]
    fn paths_lose_their_escapes() {
        assert_eq!(unescape(br"/mnt/a\040b\134c"), Path::new(r"/mnt/a b\c"));
        assert_eq!(unescape(br"\1x\\040\04"), Path::new(r"\1x\ \04"));
    }

    #[test]
    fn of_two_mounts_at_one_place_the_last_is_seen() {
        let text = b"36 35 0:52 / /m rw - fuse.kcopyfs none rw\n37 36 98:0 /mnt1 /m rw master:1 shared:2 - ext3 /dev/root rw\n";
        let mounts = Mounts::parse(text);
        assert_eq!(mounts.top_at(Path::new("/m")).map(|mount| mount.fs.as_str()), Some("ext3"));
        assert_eq!(mounts.top_at(Path::new("/")), None);
        assert_eq!(Mounts::parse(b"36 35 98:0 /mnt1\n").iter().count(), 0);
    }

    #[test]
    fn this_process_has_mounts() {
        assert!(Mounts::read().unwrap().top_at(Path::new("/")).is_some());
    }

    #[test]
    fn a_far_file_system_on_the_way_may_block() {
        let mounts = Mounts::parse(TEXT);
        assert!(!mounts.may_block(Path::new("/srv/farther")));
        assert!(mounts.may_block(Path::new("/srv/far/a.img")));
        assert!(mounts.may_block(Path::new("/srv/far/near/a.img")));
        assert!(!mounts.holding(Path::new("/srv/far/near/a.img")).unwrap().is_remote());
    }
}
