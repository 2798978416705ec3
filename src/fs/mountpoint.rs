//! What is at a mount point.
//!
//! Makes nothing and undoes nothing. A mount is known by its device number, not by its path: a path may have got another
//! mount in the meantime.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::os::mounts::{KCOPYFS as FS_TYPE, Mounts};
use crate::os::process;

/// How long what is mounted may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What is found at a mount point.
#[derive(Debug)]
pub(super) enum Found {
    /// A directory to mount on.
    Free,
    /// A kcopyfs whose daemon is gone.
    Dead,
}

/// Has `ask` look at a path, on a thread of its own: there may be the mount of a daemon that lives and does not answer, for
/// which a look waits for ever.
pub(super) fn answered<T: Send + 'static>(
    path: &Path,
    ask: impl FnOnce(&Path) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (tell, told) = mpsc::channel();
    let asked = path.to_owned();
    let asking = thread::Builder::new().name("look".to_owned()).spawn(move || _ = tell.send(ask(&asked)));
    asking.map_err(|error| Error::os("a thread to look at the mount point", error))?;
    told.recv_timeout(ANSWER_MAX).unwrap_or_else(|_| {
        let shown = path.display();
        let why = format!(
            "{shown}: already mounted, and the daemon there does not answer: stop it, or give its mount up with \
             `umount -l {shown}`"
        );
        Err(Error::new(ErrorKind::Busy, why))
    })
}

/// Whether a kcopyfs is mounted there whose daemon was killed, and is not gone only because a device keeps threads of it:
/// it never answers again, and what is asked of it waits.
pub(super) fn is_abandoned(point: &Path) -> bool {
    let Ok(mounts) = mounts() else { return false };
    let Some(top) = mounts.top_at(point).filter(|top| top.fs == FS_TYPE) else { return false };
    let servers = process::servers(libc::minor(top.dev), crate::cli::NAME);
    !servers.is_empty() && servers.iter().all(|pid| process::is_dying(*pid))
}

/// The absolute path of a mount point that does not answer: what is mounted there is not asked.
pub(super) fn resolve_beside(path: &Path) -> Result<PathBuf> {
    let describe = |error: io::Error| Error::os(format!("mount point {}", path.display()), error);
    let path = std::path::absolute(path).map_err(describe)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(fs::canonicalize(parent).map_err(describe)?.join(name)),
        _ => Ok(path),
    }
}

/// The absolute path of a mount point. Works on a dead mount too.
pub(super) fn resolve(path: &Path) -> Result<PathBuf> {
    let describe = |error: io::Error| {
        let hint = if error.kind() == io::ErrorKind::NotFound { " (make it first: mkdir -p)" } else { "" };
        Error::os(format!("mount point {}{hint}", path.display()), error)
    };
    match fs::canonicalize(path) {
        Err(error) if is_dead(&error) => {
            // Only the last part is dead.
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = path.file_name().ok_or_else(|| describe(error))?;
            Ok(fs::canonicalize(parent).map_err(describe)?.join(name))
        }
        result => result.map_err(describe),
    }
}

/// Looks at an absolute mount point: whether it can be mounted on, or has a dead kcopyfs to clear first.
pub(super) fn look(point: &Path) -> Result<Found> {
    let mounts = mounts()?;
    let top = mounts.top_at(point);
    let ours = top.is_some_and(|mount| mount.fs == FS_TYPE);
    let shown = point.display();
    // Opening asks the daemon; stat(2) would be answered from what the kernel remembers of a dead one for a second.
    let dead = fs::read_dir(point).err().filter(is_dead);
    match dead.map_or_else(|| fs::metadata(point), Err) {
        Err(error) if is_dead(&error) && ours => Ok(Found::Dead),
        Err(error) if is_dead(&error) => {
            let fs_type = top.map_or("mount", |mount| mount.fs.as_str());
            let why = format!("mount point {shown} has a dead {fs_type} (clear it: umount -l {shown})");
            Err(Error::os(why, error))
        }
        _ if ours => Err(Error::new(ErrorKind::Busy, format!("{shown}: already mounted (umount it first)"))),
        Err(error) => Err(Error::os(format!("mount point {shown}"), error)),
        Ok(metadata) if !metadata.is_dir() => {
            Err(Error::new(ErrorKind::Os(libc::ENOTDIR), format!("mount point {shown} is not a directory")))
        }
        Ok(_) => Ok(Found::Free),
    }
}

/// All mounts this process sees, those on top last.
pub(super) fn mounts() -> Result<Mounts> {
    Mounts::read().map_err(|error| Error::os("read /proc/self/mountinfo", error))
}

/// ENOTCONN: a FUSE mount whose daemon is gone. ECONNABORTED: one that was cut off.
fn is_dead(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

/// A text as an option of fusermount3: commas would end it.
pub(super) fn option_value(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,")
}

/// The name shown as the mount's source, which must not be empty.
pub(super) fn source_name(source: &str) -> &str {
    if source.is_empty() { "none" } else { source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_mounted_on_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = look(file.path()).unwrap_err();
        assert!(error.errno() == libc::ENOTDIR && error.to_string().contains("not a directory"), "{error}");
        let error = resolve(&file.path().with_extension("missing")).unwrap_err();
        assert!(error.errno() == libc::ENOENT && error.to_string().contains("mkdir"), "{error}");
        assert!(matches!(look(&std::env::temp_dir()), Ok(Found::Free)));
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let (_never, forever) = mpsc::channel::<()>();
        let ask = move |_: &Path| Ok(forever.recv().is_ok());
        let error = answered(Path::new("/m"), ask).unwrap_err();
        assert!(error.errno() == libc::EBUSY && error.to_string().contains("/m: already mounted"), "{error}");
        assert_eq!(answered(Path::new("/m"), |path| Ok(path.to_owned())).unwrap(), Path::new("/m"));
    }

    #[test]
    fn options_are_protected() {
        assert_eq!(option_value(r"a,b\c"), r"a\,b\\c");
    }
}
