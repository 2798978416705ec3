//! The daemon's line to the process that was called, as `launcher` has it: ready, stopping, ended.
//!
//! # Invariants
//! After [`Line::end`] nothing is open any more but what the kernel itself keeps for I/O that hangs: whoever waits for one
//! of our devices, for the lock of the state directory or for the end of our output waits no longer than that.
#![allow(unsafe_code)] // close_range and _exit have no safe form

use std::fs::OpenOptions;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::Exit;
use crate::error::{Error, Result};

const READY: u8 = b'r';
const STOPPING: u8 = b's';
/// The exit code and the text follow, in the same write.
const ENDED: u8 = b'e';

/// Bytes that a pipe takes at once.
const MESSAGE_MAX: usize = libc::PIPE_BUF;

/// What the daemon says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// The tree answers.
    Ready,
    /// The end begins.
    Stopping,
    /// All is done that can be done: to exit like this.
    Ended(Exit),
    /// No process of the daemon has the line any more.
    Gone,
}

/// The daemon's end.
#[derive(Debug)]
pub struct Line {
    /// `None` once nobody listens.
    pipe: Option<PipeWriter>,
    /// Whether the caller stays to the end.
    attended: bool,
}

/// A line: what was said is heard by the other end. The caller is there to the end if it is `attended`, else until the
/// tree answers.
pub(super) fn pair(attended: bool) -> Result<(Ear, Line)> {
    let (reader, writer) = io::pipe().map_err(|error| Error::os("make a pipe to the daemon", error))?;
    Ok((Ear { pipe: reader, rest: Vec::new() }, Line { pipe: Some(writer), attended }))
}

impl Line {
    /// The tree answers. A caller that does not stay is let go, and the standard streams with it.
    ///
    /// # Errors
    /// Where `/dev/null` cannot be opened: the caller would wait for the end of our output.
    pub fn ready(&mut self) -> Result<()> {
        if !self.attended {
            quiet()?;
        }
        self.say(&[READY]);
        if !self.attended {
            self.pipe = None;
        }
        Ok(())
    }

    /// The end begins.
    pub fn stopping(&mut self) {
        self.say(&[STOPPING]);
    }

    /// The process ends, and says how: to the caller, or in the log where nobody listens. Other threads are not waited for.
    pub fn end(mut self, exit: &Exit) -> ! {
        if self.pipe.is_none() && !exit.text.is_empty() {
            log::error!("{}", exit.text);
        }
        // Without /dev/null the streams are closed with the rest.
        let _ = quiet();
        let text = &exit.text.as_bytes()[..exit.text.len().min(MESSAGE_MAX - 2)];
        self.say(&[&[ENDED, exit.code], text].concat());
        close_all_but(self.pipe.as_ref().map(AsRawFd::as_raw_fd), 0);
        // SAFETY: ends the process without running anything of ours.
        unsafe { libc::_exit(exit.code.into()) }
    }

    /// A caller that was killed meanwhile is not there to be told.
    fn say(&mut self, message: &[u8]) {
        if let Some(pipe) = &mut self.pipe {
            let _ = pipe.write_all(message);
        }
    }

    /// Closes what a script may have left open for its children, but for the standard streams and the line.
    ///
    /// To be called first of all, while nothing of ours is open.
    pub(super) fn keep_nothing_else(&self) {
        close_all_but(self.pipe.as_ref().map(AsRawFd::as_raw_fd), libc::STDERR_FILENO + 1);
    }
}

/// The caller's end.
#[derive(Debug)]
pub(super) struct Ear {
    pipe: PipeReader,
    /// Heard, and not yet told.
    rest: Vec<u8>,
}

impl Ear {
    /// What is said next; waits for it.
    pub(super) fn hear(&mut self) -> Said {
        if self.rest.is_empty() {
            // Room for a text of that size behind all other words.
            let mut message = [0; 2 * MESSAGE_MAX];
            // What cannot be read is as good as not said.
            let len = self.pipe.read(&mut message).unwrap_or(0);
            self.rest = message[..len].to_vec();
        }
        match *self.rest {
            [READY, ..] => {
                self.rest.remove(0);
                Said::Ready
            }
            [STOPPING, ..] => {
                self.rest.remove(0);
                Said::Stopping
            }
            [ENDED, code, ref text @ ..] => {
                let text = String::from_utf8_lossy(text).into_owned();
                self.rest.clear();
                Said::Ended(Exit { code, text })
            }
            _ => Said::Gone,
        }
    }

    /// Whether [`hear`](Self::hear) has to wait.
    pub(super) fn is_silent(&self) -> bool {
        self.rest.is_empty()
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Closes every descriptor from `first` on but `kept`, which is none of the standard streams: std has those open always.
fn close_all_but(kept: Option<RawFd>, first: RawFd) {
    let (kept, first) = (kept.map(RawFd::cast_unsigned), first.cast_unsigned());
    let ranges = match kept {
        Some(kept) => [(first, kept - 1), (kept + 1, u32::MAX)],
        None => [(first, u32::MAX), (1, 0)],
    };
    for (first, last) in ranges.into_iter().filter(|(first, last)| first <= last) {
        // SAFETY: nothing in this process uses one of them again: none is open yet, or the process ends.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// Standard input, output and error become `/dev/null`.
fn quiet() -> Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| Error::os("open /dev/null", error))?;
    let redirected = dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).and_then(|()| dup2_stderr(&null));
    redirected.map_err(|errno| Error::os("redirect the standard streams to /dev/null", errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_said_is_heard_in_order() {
        let (mut ear, mut line) = pair(true).unwrap();
        line.say(&[READY]);
        line.say(&[STOPPING]);
        let exit = Exit { code: 32, text: "mount point /x: not a directory; make it".into() };
        line.say(&[&[ENDED, exit.code], exit.text.as_bytes()].concat());
        assert_eq!(ear.hear(), Said::Ready);
        assert!(!ear.is_silent());
        assert_eq!(ear.hear(), Said::Stopping);
        assert_eq!(ear.hear(), Said::Ended(exit));
        assert!(ear.is_silent());
        drop(line);
        assert_eq!(ear.hear(), Said::Gone);
    }

    #[test]
    fn a_daemon_that_dies_is_gone() {
        let (mut ear, line) = pair(false).unwrap();
        drop(line);
        assert_eq!(ear.hear(), Said::Gone);
    }
}
