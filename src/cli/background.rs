//! Into the background, but not before the tree answers: `kcopyfs M && echo ... > M/jobs/new` cannot race.
//!
//! # The protocol
//! 1. [`Background::start`] forks. The caller's process waits at a pipe; the other is the daemon, in a session of its
//!    own and at `/`, so that it holds no terminal and no file system. Its standard error is still the caller's.
//! 2. The daemon writes one byte into the pipe: 0 by [`Background::ready`], or by [`Background::fail`] the exit code
//!    and then the text. An end without a byte is a daemon that died.
//! 3. After 0 its standard streams are `/dev/null`: a shell's pipe to us ends when the caller does.
//!
//! In the foreground there is no caller that waits; the service manager is told instead, where there is one.
#![allow(unsafe_code)] // fork, setsid, dup2 and waitpid have no safe form in std

use std::fs::OpenOptions;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

use super::{EXIT_MOUNT, Exit, notify};
use crate::error::{Error, Result};

/// Who this process is after the fork.
#[derive(Debug)]
pub enum Role {
    /// The one that was called: it is to end like this.
    Caller(Exit),
    /// The daemon.
    Daemon(Background),
}

/// The daemon's line to whoever waits for it to be ready.
#[derive(Debug)]
pub struct Background {
    /// `None` in the foreground, and once the caller was told.
    caller: Option<PipeWriter>,
    foreground: bool,
}

impl Background {
    /// Forks. The caller's process gets back here when the daemon is ready, or failed.
    ///
    /// To be called first of all: the process has one thread, and no descriptors but those that it was given. Of these
    /// the daemon keeps the standard streams; a lock or pipe of the calling script is not held for ever.
    ///
    /// # Errors
    /// Where the system has no process or pipe to give.
    pub fn start() -> Result<Role> {
        let (reader, writer) = io::pipe().map_err(|error| Error::os("make a pipe to the daemon", error))?;
        // SAFETY: there is one thread yet, so the child finds no lock held by a thread that it does not have.
        match unsafe { libc::fork() } {
            -1 => Err(Error::os("fork into the background (-f stays in the foreground)", io::Error::last_os_error())),
            0 => {
                drop(reader);
                close_all_but(writer.as_raw_fd());
                let background = Self { caller: Some(writer), foreground: false };
                match leave() {
                    Ok(()) => Ok(Role::Daemon(background)),
                    Err(error) => {
                        Ok(Role::Caller(Exit { code: background.fail(&Exit::mount(&error)), text: String::new() }))
                    }
                }
            }
            child => {
                drop(writer);
                Ok(Role::Caller(outcome(reader).unwrap_or_else(|| died(child))))
            }
        }
    }

    /// Stays with the caller.
    pub fn foreground() -> Self {
        Self { caller: None, foreground: true }
    }

    /// The tree answers: lets the caller go, or tells the service manager.
    ///
    /// # Errors
    /// Where `/dev/null` cannot be opened: the caller would wait for the end of our output.
    pub fn ready(&mut self) -> Result<()> {
        if self.foreground {
            notify::notify("READY=1");
        } else if let Some(mut caller) = self.caller.take() {
            if let Err(error) = quiet() {
                self.caller = Some(caller);
                return Err(error);
            }
            // A caller that was killed meanwhile is not there to be told; the mount is what it asked for.
            let _ = caller.write_all(&[0]);
        }
        Ok(())
    }

    /// The end begins.
    pub fn stopping(&self) {
        if self.foreground {
            notify::notify("STOPPING=1");
        }
    }

    /// Tells whoever still listens, and gives the code to exit with: the caller before [`Background::ready`], the log
    /// after it, standard error in the foreground.
    pub fn fail(mut self, exit: &Exit) -> u8 {
        match self.caller.take() {
            Some(mut caller) => {
                let message = [&[exit.code], exit.text.as_bytes()].concat();
                if caller.write_all(&message).is_err() {
                    log::error!("{}", exit.text);
                }
            }
            None if self.foreground => exit.say(),
            None => log::error!("{}", exit.text),
        }
        exit.code
    }
}

/// What the daemon says, or `None` where it died without a word.
fn outcome(mut pipe: impl Read) -> Option<Exit> {
    let mut code = [0];
    pipe.read_exact(&mut code).ok()?;
    let [code] = code;
    let mut text = Vec::new();
    if code != 0 {
        // What came before an error of reading is still worth to be said.
        let _ = pipe.read_to_end(&mut text);
    }
    Some(Exit { code, text: String::from_utf8_lossy(&text).into_owned() })
}

/// The end of a daemon that died without a word.
fn died(child: libc::pid_t) -> Exit {
    let mut status = 0;
    // SAFETY: the pointer is to a local; the child is ours and was not waited for.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    let how = if waited == child && libc::WIFSIGNALED(status) {
        format!("was killed by signal {}", libc::WTERMSIG(status))
    } else if waited == child && libc::WIFEXITED(status) {
        format!("ended with code {}", libc::WEXITSTATUS(status))
    } else {
        "ended".into()
    };
    Exit { code: EXIT_MOUNT, text: format!("the daemon {how} before it was ready; try -f to see what it says") }
}

/// Closes what a script may have left open for its children, but for the standard streams and `kept`.
fn close_all_but(kept: RawFd) {
    let kept = kept.cast_unsigned();
    for (first, last) in [(3, kept - 1), (kept + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: nothing in this process owns one of them yet, see `start`.
            unsafe { libc::close_range(first, last, 0) };
        }
    }
}

/// Out of the caller's session and directory.
fn leave() -> Result<()> {
    // SAFETY: takes nothing; a process that was just forked leads no group, so it may.
    if unsafe { libc::setsid() } < 0 {
        return Err(Error::os("leave the caller's session", io::Error::last_os_error()));
    }
    std::env::set_current_dir("/").map_err(|error| Error::os("change to the directory /", error))
}

/// Standard input, output and error become `/dev/null`.
fn quiet() -> Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| Error::os("open /dev/null", error))?;
    for stream in [libc::STDIN_FILENO, libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: both are open descriptors; std's handles of the streams hold numbers alone.
        if unsafe { libc::dup2(null.as_raw_fd(), stream) } < 0 {
            return Err(Error::os("redirect the standard streams to /dev/null", io::Error::last_os_error()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the caller hears when the daemon does `says`. Both ends in one process: no fork in a test of many threads.
    fn heard(says: impl FnOnce(Background)) -> Option<Exit> {
        let (reader, writer) = io::pipe().unwrap();
        says(Background { caller: Some(writer), foreground: false });
        outcome(reader)
    }

    #[test]
    fn a_failure_reaches_the_caller_with_code_and_text() {
        let exit = Exit { code: EXIT_MOUNT, text: "mount point /x: not a directory; make it".into() };
        let told = exit.clone();
        assert_eq!(heard(move |daemon| assert_eq!(daemon.fail(&told), EXIT_MOUNT)), Some(exit));
    }

    #[test]
    fn readiness_is_one_byte() {
        let heard = heard(|mut daemon| daemon.caller.take().unwrap().write_all(&[0]).unwrap());
        assert_eq!(heard, Some(Exit { code: 0, text: String::new() }));
    }

    #[test]
    fn a_daemon_that_dies_is_not_ready() {
        assert_eq!(heard(drop), None);
    }
}
