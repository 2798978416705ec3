//! Signals: who is told to stop, and how the main thread waits for that without ever waking up idle.
//!
//! SIGTERM and SIGINT are blocked in every thread and read from a signalfd by the main thread alone. SIGHUP is ignored
//! (a daemon outlives its terminal), and so are SIGPIPE and SIGXFSZ: a write says EPIPE or EFBIG where it happens.
//!
//! # Invariants
//! [`Signals::block`] comes before the first thread: a thread that lacks the mask would be killed in the others' stead.
#![allow(unsafe_code)] // signals, signalfd and poll have no safe form in std

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// What ends the daemon.
const STOPPING: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGINT];

/// What must not end it.
const IGNORED: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGPIPE, libc::SIGXFSZ];

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
    signals: File,
}

/// Ends [`Signals::wait`] from another thread, which is given its descriptor.
#[derive(Clone, Debug)]
pub struct Waker {
    woken: Arc<File>,
}

impl Signals {
    /// Blocks and ignores the signals for this thread and all that it starts.
    pub fn block() -> Result<Self> {
        for signal in IGNORED {
            // SAFETY: SIG_IGN runs no code of ours.
            let before = unsafe { libc::signal(signal, libc::SIG_IGN) };
            check(if before == libc::SIG_ERR { -1 } else { 0 }, "ignore a signal")?;
        }
        let set = set_of(&STOPPING);
        // SAFETY: `set` is filled, and the old mask is not asked for.
        let errno = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
        if errno != 0 {
            return Err(Error::os("block signals", io::Error::from_raw_os_error(errno)));
        }
        // SAFETY: `set` is filled; -1 asks for a new descriptor.
        let signals = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC) };
        Ok(Self { signals: owned(signals, "make a signalfd")?.into() })
    }

    /// Sleeps until a signal comes or `other` can be read, but not beyond `limit`. Does not wake up in between. A signal is told
    /// before the other; `None` says that the time was over.
    pub fn wait(&self, other: Option<BorrowedFd<'_>>, limit: Option<Duration>) -> Result<Option<Event>> {
        // poll(2) passes over a negative one.
        let other = other.map_or(-1, |other| other.as_raw_fd());
        let late = limit.map(|limit| Instant::now() + limit);
        loop {
            let left = late.map(|late| late.saturating_duration_since(Instant::now()));
            let [signalled, ready] = poll([self.signals.as_raw_fd(), other], left)?;
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
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        (&self.signals).read_exact(&mut info).map_err(|error| Error::os("read a signal", error))?;
        // Its first field is ssi_signo.
        let [a, b, c, d, ..] = info;
        Ok(i32::from_ne_bytes([a, b, c, d]))
    }
}

impl Waker {
    /// One that nobody has woken by yet.
    pub fn new() -> Result<Self> {
        // SAFETY: takes numbers alone.
        let woken = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        Ok(Self { woken: Arc::new(owned(woken, "make an eventfd")?.into()) })
    }

    /// Ends the wait, now or as soon as it begins.
    pub fn wake(&self) {
        // Fails only where it is full of wake-ups, so that the wait ends anyway.
        let _ = (&*self.woken).write(&1_u64.to_ne_bytes());
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.woken.as_fd()
    }
}

/// Which of the descriptors can be read; sleeps until one can, the time is over, or a signal handler ran.
fn poll(fds: [RawFd; 2], limit: Option<Duration>) -> Result<[bool; 2]> {
    // Rounded up, so that the last round does not spin.
    let limit = limit.map_or(-1, |limit| i32::try_from(limit.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
    let mut polled = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: the pointer is to an array of two, and the call is over before it goes.
    let ready = unsafe { libc::poll(polled.as_mut_ptr(), 2, limit) };
    match check(ready, "wait for signals") {
        Err(error) if error.errno() == libc::EINTR => Ok([false, false]),
        Err(error) => Err(error),
        Ok(_) => Ok(polled.map(|polled| polled.revents != 0)),
    }
}

fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the pointer is to a local; the call fills it and cannot fail.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: filled by the line above.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: the pointer is to a filled local; the number is one of a signal.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    set
}

fn owned(fd: RawFd, what: &str) -> Result<OwnedFd> {
    check(fd, what)?;
    // SAFETY: the system has just made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_int, what: &str) -> Result<libc::c_int> {
    if result < 0 { Err(Error::os(what, io::Error::last_os_error())) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Duration;

    /// Sends a signal to the calling thread alone: the test's process has others.
    fn raise(signal: libc::c_int) {
        // SAFETY: takes a number alone; the signals raised here are blocked or ignored.
        assert_eq!(unsafe { libc::raise(signal) }, 0);
    }

    #[test]
    fn a_signal_ends_the_wait() {
        let (signals, waker) = (Signals::block().unwrap(), Waker::new().unwrap());
        for signal in STOPPING {
            raise(signal);
            assert_eq!(signals.wait(Some(waker.as_fd()), None).unwrap(), Some(Event::Signal(signal)));
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
