//! Who has the state directory, in words that say what helps: another daemon can be stopped, but one that was killed while a
//! device hangs cannot be ended by anybody until that device answers.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

/// Devices that are named at most.
const MAX_NAMED: usize = 3;

/// A sentence about the process `pid` that holds the lock, as `proc`, which is /proc, knows it.
pub(super) fn describe(pid: Option<u32>, proc: &Path) -> String {
    let Some(pid) = pid else { return "by another kcopyfs: stop that one".to_owned() };
    let folder = proc.join(pid.to_string());
    if !fs::read_to_string(folder.join("status")).is_ok_and(|status| is_killed(&status)) {
        return format!("by another kcopyfs, process {pid}: stop that one");
    }
    let devices = awaited(&folder);
    let mut named: Vec<String> = devices.iter().take(MAX_NAMED).map(|path| path.display().to_string()).collect();
    if devices.len() > MAX_NAMED {
        named.push(format!("{} more", devices.len() - MAX_NAMED));
    }
    let named = if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) };
    format!(
        "by a kcopyfs that was killed, process {pid}, which waits in the kernel for a device that does not answer{named}. \
         Nothing ends it until the device answers or is removed: wait for that"
    )
}

/// Whether the kernel holds a SIGKILL for the process, by its `status` file. No code of its own runs any more.
fn is_killed(status: &str) -> bool {
    let pending = |line: &str| {
        let mask = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    status.lines().filter_map(pending).any(|mask| mask & (1 << (libc::SIGKILL - 1)) != 0)
}

/// What the process's threads wait for: the files that their system calls were given. Only root is told; nothing here waits.
fn awaited(folder: &Path) -> BTreeSet<PathBuf> {
    let tasks = fs::read_dir(folder.join("task")).into_iter().flatten().filter_map(Result::ok);
    let device = |task: PathBuf| {
        let call = fs::read_to_string(task.join("syscall")).ok()?;
        fs::read_link(task.join("fd").join(first_argument(&call)?.to_string())).ok()
    };
    tasks.filter_map(|task| device(task.path())).filter(|path| path.is_absolute()).collect()
}

/// The first argument of the system call that a thread is in, by its `syscall` file: `296 0xb 0x7f49e8003140 ...`.
fn first_argument(call: &str) -> Option<RawFd> {
    let mut words = call.split_whitespace();
    words.next()?.parse::<u32>().ok()?;
    RawFd::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The folder of process 7, whose threads are in the given system calls with the given files open.
    fn proc(status: &str, threads: &[(&str, &[(i32, &str)])]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        for (number, (call, files)) in threads.iter().enumerate() {
            let task = proc.path().join(format!("7/task/{}", 7 + number));
            fs::create_dir_all(task.join("fd")).unwrap();
            fs::write(task.join("syscall"), call).unwrap();
            for (fd, path) in *files {
                symlink(path, task.join("fd").join(fd.to_string())).unwrap();
            }
        }
        fs::create_dir_all(proc.path().join("7")).unwrap();
        fs::write(proc.path().join("7/status"), status).unwrap();
        proc
    }

    const KILLED: &str = "Name:\tkcopyfs\nState:\tZ (zombie)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n";
    const RUNS: &str = "Name:\tkcopyfs\nState:\tS (sleeping)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000004000\n";

    #[test]
    fn a_daemon_that_runs_is_to_be_stopped() {
        let text = describe(Some(7), proc(RUNS, &[("17 0x3 0x0 0x0", &[(3, "/dev/sda")])]).path());
        assert_eq!(text, "by another kcopyfs, process 7: stop that one");
        assert_eq!(describe(None, Path::new("/proc")), "by another kcopyfs: stop that one");
        assert_eq!(describe(Some(7), Path::new("/none")), "by another kcopyfs, process 7: stop that one");
    }

    #[test]
    fn one_that_was_killed_waits_for_its_devices_by_name() {
        let files: &[(i32, &str)] = &[(11, "/dev/mapper/slow"), (12, "/dev/sdb"), (6, "anon_inode:[eventfd]")];
        let calls = [("-1 0x0 0x0", files), ("296 0xb 0x7f00 0x1", files), ("296 0xb 0x8f00 0x1", files)];
        let text = describe(Some(7), proc(KILLED, &calls).path());
        assert!(text.contains("killed, process 7,") && text.contains("answer: /dev/mapper/slow. Nothing"), "{text}");

        let several = [("18 0xb 0x0", files), ("75 0xc 0x0", files), ("0 0x6 0x0", files), ("running", files)];
        let text = describe(Some(7), proc(KILLED, &several).path());
        assert!(text.contains("answer: /dev/mapper/slow, /dev/sdb. Nothing"), "{text}");
        // An ordinary user is not told the calls.
        assert!(describe(Some(7), proc(KILLED, &[]).path()).contains("does not answer. Nothing"));
    }
}
