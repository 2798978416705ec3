//! The process that was called, and the daemon that it forks.
//!
//! In the background the caller's process goes when the tree answers: `kcopyfs M && echo ... > M/jobs/new` cannot race.
//! In the foreground it stays, hands signals on, and ends when the daemon has done all that it can: a process with a
//! thread that waits for a hung device is there until the device answers, and nobody is to wait for that.
//!
//! # The protocol
//! 1. [`start`] forks: there is one thread yet. In the background the daemon gets a session of its own and the directory
//!    `/`, so that it holds no terminal and no file system, and none of the descriptors that a script left open. In the
//!    foreground it dies with its caller, however that dies.
//! 2. The daemon says by its [`Line`] that it is ready. In the background that is the end of the caller's process, and
//!    the daemon's standard streams are `/dev/null` from before that: a shell's pipe to us ends when the caller does.
//! 3. In the foreground SIGTERM and SIGINT are handed on, and the service manager is told what the daemon says; until it is ready,
//!    that it needs longer.
//! 4. The daemon unmounts, says its end, closes all that it has, and ends. The caller's process waits half a second for that.
//!    One that says nothing for 4.5 s after a signal is killed.
//! 5. A line that is closed without a word is a daemon that died.
#![allow(unsafe_code)] // fork and mallopt have no safe form

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, setsid};

use super::signals::{Event, Signals};
use super::status_pipe::{self, Ear, Said};
use super::{EXIT_MOUNT, Exit, Line, notify};
use crate::error::{Error, Result};

/// For how long a daemon that has said its end may take to be gone. It has nothing left to do but to give back memory.
const GRACE: Duration = Duration::from_millis(500);

/// For how long a daemon that was told to stop may say nothing: of the 5 s that a stop may take, all but the grace. It hangs
/// then where nothing ends it, as in a state directory that does not answer.
const STOP_MAX: Duration = Duration::from_millis(4500);

/// How much longer the service manager is asked to wait for a start that reads a slow state directory, and a third of it: how often.
const EXTENSION: Duration = Duration::from_secs(15);

/// Who this process is after the fork.
#[derive(Debug)]
pub enum Role {
    /// The one that was called: it is to end like this.
    Caller(Exit),
    /// The daemon.
    Daemon(Line),
}

/// Forks. The caller's process gets back here when it is to end.
///
/// To be called first of all: the process has one thread, and no descriptors but those that it was given.
///
/// # Errors
/// Where the system has no process or pipe to give.
pub fn start(foreground: bool) -> Result<Role> {
    let (ear, line) = status_pipe::pair(foreground)?;
    // Before the fork, so that no signal is lost between the two.
    let signals = if foreground { Some(Signals::block()?) } else { None };
    let caller = std::process::id();
    // SAFETY: there is one thread yet, so the child finds no lock held by a thread that it does not have.
    let forked = unsafe { fork() };
    match forked.map_err(|errno| Error::os("start the daemon's process", errno.into()))? {
        ForkResult::Child => {
            drop((ear, signals));
            share_heaps();
            let result = if foreground {
                die_with(caller)
            } else {
                line.keep_nothing_else();
                leave()
            };
            match result {
                Ok(()) => Ok(Role::Daemon(line)),
                Err(error) => line.end(&Exit::mount(&error)),
            }
        }
        ForkResult::Parent { child: daemon } => {
            drop(line);
            Ok(Role::Caller(match signals {
                Some(signals) => attend(daemon, ear, &signals)?,
                None => outcome(daemon, ear),
            }))
        }
    }
}

/// All threads allocate from a few heaps. With one for each, what is kept of thousands of jobs lies among what their opening needed for a
/// moment, in many places, and takes half as much again; with one for all, they wait for each other. What is large has a mapping of its
/// own: the buffer for requests has 16 MiB, of which a page or two are used, and a heap may clear all of it.
fn share_heaps() {
    #[cfg(target_env = "gnu")]
    for (number, value) in
        [(libc::M_ARENA_MAX, 4), (libc::M_MMAP_THRESHOLD, 1 << 20), (libc::M_TRIM_THRESHOLD, 1 << 20)]
    {
        // SAFETY: it sets a number of the allocator, and there is one thread yet.
        unsafe { libc::mallopt(number, value) };
    }
}

/// Waits until the daemon is ready, or was not to be.
fn outcome(daemon: Pid, mut ear: Ear) -> Exit {
    match ear.hear() {
        Said::Ready | Said::Stopping => Exit { code: 0, text: String::new() },
        Said::Ended(exit) => exit,
        Said::Gone => died(daemon, " before it was ready; try -f to see what it says"),
    }
}

/// Stays with the daemon to its end.
fn attend(daemon: Pid, mut ear: Ear, signals: &Signals) -> Result<Exit> {
    let mut late: Option<Instant> = None;
    let mut starting = notify::is_heard();
    loop {
        let left = late.map(|late| late.saturating_duration_since(Instant::now()));
        let left = left.or(starting.then_some(EXTENSION / 3));
        let event = if ear.is_silent() { signals.wait(Some(ear.as_fd()), left)? } else { Some(Event::Other) };
        match event {
            Some(Event::Other) => {}
            Some(Event::Signal(signal)) => {
                tell(daemon, signal);
                late.get_or_insert_with(|| Instant::now() + STOP_MAX);
                continue;
            }
            None if late.is_none() => {
                notify::notify(&format!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()));
                continue;
            }
            None => {
                tell(daemon, libc::SIGKILL);
                see_off(daemon, &mut ear, signals)?;
                let text =
                    "the daemon did not stop in time, and was killed; what it had copied is in its records".into();
                return Ok(Exit { code: EXIT_MOUNT, text });
            }
        }
        match ear.hear() {
            Said::Ready => {
                starting = false;
                notify::notify("READY=1");
            }
            Said::Stopping => notify::notify("STOPPING=1"),
            Said::Ended(exit) => {
                see_off(daemon, &mut ear, signals)?;
                return Ok(exit);
            }
            Said::Gone => return Ok(died(daemon, "")),
        }
    }
}

/// Sends a signal to a child that was not waited for.
fn tell(daemon: Pid, signal: i32) {
    // It may have ended, which is all that was wanted.
    let _ = Signal::try_from(signal).and_then(|signal| kill(daemon, signal));
}

/// Waits for the end of a daemon that has said it, but not for a device.
fn see_off(daemon: Pid, ear: &mut Ear, signals: &Signals) -> Result<()> {
    let late = Instant::now() + GRACE;
    loop {
        match signals.wait(Some(ear.as_fd()), Some(late.saturating_duration_since(Instant::now())))? {
            // It is ending.
            Some(Event::Signal(_)) => {}
            Some(Event::Other) => {
                let _ = waitpid(daemon, None);
                return Ok(());
            }
            None => {
                log::warn!("process {daemon} stays until a device answers that it has asked to read, write or flush");
                return Ok(());
            }
        }
    }
}

/// The end of a daemon that died without a word.
fn died(daemon: Pid, when: &str) -> Exit {
    let how = match waitpid(daemon, None) {
        Ok(WaitStatus::Signaled(_, signal, _)) => format!("was killed by signal {}", signal as i32),
        Ok(WaitStatus::Exited(_, code)) => format!("ended with code {code}"),
        _ => "ended".into(),
    };
    Exit { code: EXIT_MOUNT, text: format!("the daemon {how}{when}") }
}

/// Out of the caller's session and directory.
fn leave() -> Result<()> {
    // A process that was just forked leads no group, so it may.
    setsid().map_err(|errno| Error::os("leave the caller's session", errno.into()))?;
    std::env::set_current_dir("/").map_err(|error| Error::os("change to the directory /", error))
}

/// Has this process killed when its parent, which was `caller` before the fork, ends.
fn die_with(caller: u32) -> Result<()> {
    let tied = prctl::set_pdeathsig(Signal::SIGKILL);
    tied.map_err(|errno| Error::os("tie the daemon to its caller", errno.into()))?;
    if std::os::unix::process::parent_id() == caller {
        Ok(())
    } else {
        // It ended before it could be asked for.
        std::process::exit(EXIT_MOUNT.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the caller of a background daemon hears. Both ends in one process: no fork in a test of many threads.
    fn heard(says: impl FnOnce(Line)) -> Exit {
        let (ear, line) = status_pipe::pair(false).unwrap();
        says(line);
        outcome(Pid::from_raw(libc::pid_t::MAX), ear)
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_is_large_has_a_mapping_of_its_own() {
        share_heaps();
        // the first one that is let go of teaches the allocator to take the next from a heap
        for _ in 0..2 {
            let large = vec![0_u8; 16 << 20];
            // a mapping begins with the allocator's two words
            assert_eq!(std::hint::black_box(&large).as_ptr().addr() % 4096, 2 * size_of::<usize>());
        }
    }

    #[test]
    fn a_daemon_that_dies_is_not_ready() {
        let exit = heard(drop);
        assert_eq!(exit.code, EXIT_MOUNT);
        assert!(exit.text.contains("the daemon ended before it was ready"), "{}", exit.text);
    }
}
