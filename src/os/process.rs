//! Processes, as /proc tells of them: who serves a FUSE mount, and whether a killed one only waits for a device.
//!
//! A thread that waits in the kernel for a device cannot be ended before the device answers. Until then its process is
//! there, killed or not, with everything that it has open.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};

/// How many files this process may have open.
pub(crate) fn descriptors_max() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(limit, _)| limit)
}

/// SIGKILL in the masks of /proc/PID/status.
const KILLED: u64 = 1 << (libc::SIGKILL - 1);

/// `PF_EXITING` in the flags of /proc/PID/stat: it has taken its SIGKILL and is on its way out.
const EXITING: u64 = 0x4;

/// Processes that have the FUSE connection of that number open: those that serve its mount. On a kernel that does not
/// tell the number (before 6.13), every process of the name `program` that has any open.
pub(crate) fn servers(connection: u32, program: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| serves(pid, connection, program)).collect()
}

fn serves(pid: u32, connection: u32, program: &str) -> bool {
    open_files(pid).iter().filter(|(_, leads_to)| leads_to == Path::new("/dev/fuse")).any(|(entry, _)| {
        let info = entry.to_string_lossy().replacen("/fd/", "/fdinfo/", 1);
        match number_of(&fs::read_to_string(info).unwrap_or_default()) {
            Some(number) => number == connection,
            None => fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == program),
        }
    })
}

/// The connection of an open /dev/fuse, from its fdinfo.
fn number_of(info: &str) -> Option<u32> {
    info.lines().find_map(|line| line.strip_prefix("fuse_connection:")?.trim().parse().ok())
}

/// Whether every thread of the process has ended or is to end: nothing of its program runs any more.
pub(crate) fn is_dying(pid: u32) -> bool {
    let threads = threads(pid);
    !threads.is_empty() && threads.iter().all(|thread| thread_is_ending(thread))
}

/// The same of one thread; one that is not there any more has ended.
fn thread_is_ending(thread: &Path) -> bool {
    let shows = |name: &str, is_ending: fn(&str) -> bool| {
        fs::read_to_string(thread.join(name)).map_or_else(|_| !thread.exists(), |text| is_ending(&text))
    };
    shows("status", is_ending) || shows("stat", is_exiting)
}

/// Whether the thread of this stat is on its way out: the flags are the seventh word after its name.
fn is_exiting(stat: &str) -> bool {
    let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse::<u64>().ok());
    flags.is_some_and(|flags| flags & EXITING != 0)
}

/// Whether the thread of this status is a zombie, or it or its process was sent SIGKILL.
fn is_ending(status: &str) -> bool {
    let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let is_gone = value("State:").is_some_and(|state| state.starts_with(['Z', 'X']));
    let is_killed = |key: &str| {
        let mask = value(key).and_then(|mask| u64::from_str_radix(mask, 16).ok());
        mask.is_some_and(|mask| mask & KILLED != 0)
    };
    is_gone || is_killed("SigPnd:") || is_killed("ShdPnd:")
}

/// The devices and files that threads of the process wait for; where that cannot be told, the block devices that it has
/// open.
pub(crate) fn waits_for(pid: u32) -> Vec<PathBuf> {
    let open = open_files(pid);
    let mut waits: Vec<PathBuf> = threads(pid)
        .iter()
        .filter_map(|thread| called_with(&fs::read_to_string(thread.join("syscall")).ok()?))
        .filter_map(|number| open.iter().find(|(entry, _)| entry.ends_with(number.to_string())))
        .map(|(_, leads_to)| leads_to.clone())
        .filter(|leads_to| leads_to.is_absolute())
        .collect();
    if waits.is_empty() {
        let is_block = |entry: &Path| fs::metadata(entry).is_ok_and(|meta| meta.file_type().is_block_device());
        waits = open.into_iter().filter(|(entry, _)| is_block(entry)).map(|(_, leads_to)| leads_to).collect();
    }
    waits.sort();
    waits.dedup();
    waits
}

/// The descriptor in a system call that reads, writes or flushes one, from a thread's `syscall`: `74 0x9 0x0 ...`.
fn called_with(text: &str) -> Option<u64> {
    let calls = [libc::SYS_pread64, libc::SYS_pwrite64, libc::SYS_preadv, libc::SYS_pwritev].into_iter().chain([
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_fallocate,
        libc::SYS_read,
        libc::SYS_write,
    ]);
    let mut words = text.split_whitespace();
    let call: libc::c_long = words.next()?.parse().ok()?;
    let first = words.next()?.strip_prefix("0x")?;
    calls.into_iter().find(|known| *known == call)?;
    u64::from_str_radix(first, 16).ok()
}

fn threads(pid: u32) -> Vec<PathBuf> {
    fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// What a process has open: the entry in /proc, and where it leads. A killed one shows them by a thread that is left.
fn open_files(pid: u32) -> Vec<(PathBuf, PathBuf)> {
    let shown = |thread: PathBuf| -> Vec<(PathBuf, PathBuf)> {
        let entries = fs::read_dir(thread.join("fd")).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some((entry.path(), fs::read_link(entry.path()).ok()?))).collect()
    };
    threads(pid).into_iter().map(shown).find(|files| !files.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_who_is_ending() {
        assert!(is_ending("Name:\tkcopyfs\nState:\tZ (zombie)\nSigPnd:\t0000000000000000\n"));
        assert!(is_ending("State:\tD (disk sleep)\nSigPnd:\t0000000000000100\n"));
        assert!(is_ending("State:\tD (disk sleep)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n"));
        assert!(!is_ending("State:\tD (disk sleep)\nSigPnd:\t0000000000000001\nShdPnd:\t0000000000000000\n"));
        assert!(!is_ending(""));
    }

    #[test]
    fn a_stat_tells_who_is_on_its_way_out() {
        assert!(is_exiting("7 (a) b) R 1 7 7 0 -1 4194372 0 0 0\n"));
        assert!(
            !is_exiting("7 (kcopyfs) D 1 7 7 0 -1 4194368 4 4 4\n")
                && !is_exiting("7 (kcopyfs) D 1\n")
                && !is_exiting("")
        );
        // Not there any more.
        assert!(thread_is_ending(Path::new("/proc/self/task/0")) && !thread_is_ending(Path::new("/proc/thread-self")));
    }

    #[test]
    fn a_call_tells_its_descriptor() {
        let call = |number: libc::c_long| called_with(&format!("{number} 0x1f 0x0 0x0 0x7ffc 0x7f00\n"));
        assert_eq!((call(libc::SYS_fsync), call(libc::SYS_pread64)), (Some(31), Some(31)));
        assert_eq!((call(libc::SYS_futex), called_with("running\n"), called_with("")), (None, None, None));
    }

    #[test]
    fn an_open_connection_tells_its_number() {
        assert_eq!(number_of("pos:\t0\nino:\t90\nfuse_connection:\t39\n"), Some(39));
        assert_eq!(number_of("pos:\t0\nino:\t90\n"), None);
    }

    #[test]
    fn this_process_lives_and_has_files_open() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let pid = std::process::id();
        assert!(!is_dying(pid) && !is_dying(u32::MAX));
        assert!(open_files(pid).iter().any(|(_, leads_to)| leads_to == file.path()));
    }
}
