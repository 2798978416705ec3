//! Signals: who is told to stop, and how the main thread waits for that without ever waking up idle.
//!
//! SIGTERM and SIGINT are blocked in every thread and read from a signalfd by the main thread alone. SIGHUP is ignored
//! (a daemon outlives its terminal), and so are SIGPIPE and SIGXFSZ: a write says EPIPE or EFBIG where it happens.
//!
//! # Invariants
//! [`Signals::block`] comes before the first thread: a thread that lacks the mask would be killed in the others' stead.
#![allow(unsafe_code)] // nix has no safe form to ignore a signal

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Error, Result};

/// What ends the daemon.
const STOPPING: [Signal; 2] = [Signal::SIGTERM, Signal::SIGINT];

/// What must not end it.
const IGNORED: [Signal; 3] = [Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGXFSZ];

/// Why the wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// By that signal.
    Signal(i32),
    /// By the other descriptor, which can be read or is at its end.
    Other,
}

/// The blocked signals, to be waited for.
#[derive(Debug)]
pub struct Signals {
    signals: SignalFd,
}

/// Ends [`Signals::wait`] from another thread, which is given its descriptor.
#[derive(Clone, Debug)]
pub struct Waker {
    woken: Arc<EventFd>,
}

impl Signals {
    /// Blocks and ignores the signals for this thread and all that it starts.
    pub fn block() -> Result<Self> {
        for ignored in IGNORED {
            // SAFETY: SIG_IGN runs no code of ours.
            let before = unsafe { signal(ignored, SigHandler::SigIgn) };
            before.map_err(|errno| failed("ignore a signal", errno))?;
        }
        let set = SigSet::from_iter(STOPPING);
        set.thread_block().map_err(|errno| failed("block signals", errno))?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC);
        Ok(Self { signals: signals.map_err(|errno| failed("make a signalfd", errno))? })
    }

    /// Sleeps until a signal comes or `other` can be read, but not beyond `limit`. Does not wake up in between. A signal is told
    /// before the other; `None` says that the time was over.
    pub fn wait(&self, other: Option<BorrowedFd<'_>>, limit: Option<Duration>) -> Result<Option<Event>> {
        let late = limit.map(|limit| Instant::now() + limit);
        loop {
            let left = late.map(|late| late.saturating_duration_since(Instant::now()));
            let [signalled, ready] = poll(self.signals.as_fd(), other, left)?;
            if signalled {
                return self.read().map(|signal| Some(Event::Signal(signal)));
            }
            if ready {
                return Ok(Some(Event::Other));
            }
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    /// The signal that is there.
    fn read(&self) -> Result<i32> {
        let info = self.signals.read_signal().map_err(|errno| failed("read a signal", errno))?;
        let info = info.ok_or_else(|| failed("read a signal", Errno::EAGAIN))?;
        Ok(info.ssi_signo.cast_signed())
    }
}

impl Waker {
    /// One that nobody has woken by yet.
    pub fn new() -> Result<Self> {
        let woken = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Ok(Self { woken: Arc::new(woken.map_err(|errno| failed("make an eventfd", errno))?) })
    }

    /// Ends the wait, now or as soon as it begins.
    pub fn wake(&self) {
        // Fails only where it is full of wake-ups, so that the wait ends anyway.
        let _ = self.woken.write(1);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}

/// Which of the descriptors can be read; sleeps until one can, the time is over, or a signal handler ran.
fn poll(signals: BorrowedFd<'_>, other: Option<BorrowedFd<'_>>, limit: Option<Duration>) -> Result<[bool; 2]> {
    // Rounded up, so that the last round does not spin.
    let limit = limit.map_or(PollTimeout::NONE, |limit| {
        i32::try_from(limit.as_micros().div_ceil(1000))
            .ok()
            .and_then(|time| time.try_into().ok())
            .unwrap_or(PollTimeout::MAX)
    });
    let fds = [Some(signals), other].into_iter().flatten();
    let mut polled: Vec<PollFd> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    match nix::poll::poll(&mut polled, limit) {
        Err(Errno::EINTR) => Ok([false, false]),
        Err(errno) => Err(failed("wait for signals", errno)),
        Ok(_) => Ok([0, 1].map(|index| polled.get(index).is_some_and(|fd| fd.any() != Some(false)))),
    }
}

fn failed(what: &str, errno: Errno) -> Error {
    Error::os(what, errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    /// Sends a signal to the calling thread alone: the test's process has others.
    fn raise(signal: Signal) {
        nix::sys::signal::raise(signal).unwrap();
    }

    #[test]
    fn a_signal_ends_the_wait() {
        let (signals, waker) = (Signals::block().unwrap(), Waker::new().unwrap());
        for signal in STOPPING {
            raise(signal);
            assert_eq!(signals.wait(Some(waker.as_fd()), None).unwrap(), Some(Event::Signal(signal as i32)));
        }
    }

    #[test]
    fn a_waker_ends_the_wait_whenever_it_comes() {
        let (signals, waker) = (Signals::block().unwrap(), Waker::new().unwrap());
        let theirs = waker.clone();
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            theirs.wake();
        });
        assert_eq!(signals.wait(Some(waker.as_fd()), None).unwrap(), Some(Event::Other));
        other.join().unwrap();
        assert_eq!(signals.wait(Some(waker.as_fd()), None).unwrap(), Some(Event::Other));
    }

    #[test]
    fn time_ends_the_wait() {
        let (signals, waker) = (Signals::block().unwrap(), Waker::new().unwrap());
        assert_eq!(signals.wait(Some(waker.as_fd()), Some(Duration::from_millis(2))).unwrap(), None);
    }

    #[test]
    fn a_terminal_that_goes_ends_nothing() {
        let (signals, waker) = (Signals::block().unwrap(), Waker::new().unwrap());
        for signal in IGNORED {
            raise(signal);
        }
        waker.wake();
        assert_eq!(signals.wait(Some(waker.as_fd()), None).unwrap(), Some(Event::Other));
    }
}
