//! Other processes: waiting for their end and signalling them, by events and without racing for process ids.
#![allow(unsafe_code)]

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

/// A process of ours, named by a descriptor that no other process can inherit the meaning of.
#[derive(Debug)]
pub(crate) struct Pidfd(OwnedFd);

impl Pidfd {
    /// The process `pid`, which must be there until this returns: a child that nobody has waited for, or a child of that.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let pid = pid_t(pid);
        // SAFETY: takes two numbers and no memory.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = RawFd::try_from(fd).expect("a descriptor");
        // SAFETY: the kernel just made this descriptor for us; nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends `signal`; a process that has ended is no error.
    pub(crate) fn signal(&self, signal: libc::c_int) {
        let no_info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open as long as `self`; no information is passed.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, no_info, 0) };
    }

    /// Waits up to `limit` for the process to end; true once it has (it still has to be reaped).
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        wait_readable(&[self.0.as_fd()], limit)[0]
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The processes whose parent is `parent`.
pub(crate) fn children(parent: u32) -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(move |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // the name, in parentheses, may hold blanks
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().nth(1) == Some(&parent.to_string())
    })
}

/// Waits up to `limit` until one of `fds` is readable or at its end; says which are.
pub(crate) fn wait_readable(fds: &[BorrowedFd<'_>], limit: Duration) -> Vec<bool> {
    let until = Instant::now() + limit;
    let mut polled: Vec<_> =
        fds.iter().map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    loop {
        // rounded up, so that the last round does not spin
        let left = until.saturating_duration_since(Instant::now()).as_millis() + 1;
        let left = libc::c_int::try_from(left).unwrap_or(libc::c_int::MAX);
        let count = libc::nfds_t::try_from(polled.len()).expect("a count");
        // SAFETY: `polled` holds `count` entries and lives through the call, which writes only their `revents`.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), count, left) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), io::ErrorKind::Interrupted, "poll: {error}");
        }
        if ready > 0 || Instant::now() >= until {
            return polled.iter().map(|entry| entry.revents != 0).collect();
        }
    }
}

/// Kills every process of the group that the child `leader`, not yet reaped, leads.
pub(crate) fn kill_group(leader: u32) {
    // SAFETY: takes two numbers and no memory. The leader is not reaped, so its number still names its group.
    unsafe { libc::kill(-pid_t(leader), libc::SIGKILL) };
}

/// Sends this process `signal`.
pub(crate) fn signal_self(signal: libc::c_int) {
    let pid = pid_t(std::process::id());
    // SAFETY: takes two numbers and no memory.
    unsafe { libc::kill(pid, signal) };
}

/// The signals that ask a program to end, blocked in this thread and all that it starts, to be waited for instead.
pub(crate) struct Termination(libc::sigset_t);

impl Termination {
    /// Blocks SIGTERM and SIGINT. Call it before the first thread.
    pub(crate) fn block() -> Self {
        let mut set = std::mem::MaybeUninit::uninit();
        // SAFETY: `set` has room for a set, which the call fills.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: sigemptyset has made it.
        let mut set = unsafe { set.assume_init() };
        for signal in [libc::SIGTERM, libc::SIGINT] {
            // SAFETY: a set made above, and a signal that exists.
            unsafe { libc::sigaddset(&raw mut set, signal) };
        }
        // SAFETY: a set made above; the old one is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        Self(set)
    }

    /// Waits for one of them.
    pub(crate) fn wait(&self) {
        let mut signal = 0;
        // SAFETY: the set was made by `block`; `signal` has room for a number.
        unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
    }
}

fn pid_t(pid: u32) -> libc::pid_t {
    libc::pid_t::try_from(pid).expect("a process id")
}
