//! How one transfer reaches a device.
//!
//! A [`Backend`] takes [`Transfer`]s and gives back [`Completion`]s, in whatever order the devices end them. Three keep
//! one contract, which one suite of tests holds them to: [`uring`](self) on the kernel's ring, threads on pread and
//! pwrite, and [`Sim`] in virtual time with seeded faults. A backend belongs to one thread; only its [`Waker`] is shared.
//!
//! # Invariants
//! * Each submitted transfer has exactly one completion, except that a device may never answer.
//! * A completion says what the device said: bytes moved, which may be fewer than asked, or an errno. Nothing is retried
//!   here; that is the work of the room above.
//! * The memory of a transfer belongs to the backend from [`Backend::submit`] until its completion is reaped.

mod open;
mod pages;
mod segment;
pub mod sim;
mod sys;
mod threads;
mod uring;

#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use open::{BackendKind, Opened, open};
pub use pages::{MIN_PAGES, PAGE_SIZE, PageList, PagePool, PoolFigures, Reservation};
pub use segment::{Segment, Segments};
pub use sim::Sim;

use crate::blkdev::Device;

/// What a transfer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// From the device to memory.
    Read,
    /// From memory to the device.
    Write,
    /// Zeros to the device, without memory (write-zeroes). A device that cannot answers `EOPNOTSUPP`.
    Zero,
    /// As [`Op::Zero`], and the device or file system may let go of the space.
    Punch,
    /// A device lets go of the space. What it then reads as is for the caller to know. A device that cannot answers an errno.
    Discard,
    /// All completed writes become durable.
    Flush,
}

/// One request to one device.
#[derive(Debug)]
pub struct Transfer {
    /// Comes back in the completion.
    pub token: u64,
    /// What to do.
    pub op: Op,
    /// Where.
    pub device: Arc<Device>,
    /// First byte on the device.
    pub position: u64,
    /// Bytes; for reads and writes the sum of the segments.
    pub length: u64,
    /// The memory of a read or a write.
    pub memory: Segments,
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The transfer's.
    pub token: u64,
    /// Bytes moved (0 for a flush, all for a zero or a discard), or the errno.
    pub result: Result<u64, i32>,
}

/// How long [`Backend::reap`] may wait for the first completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until that time on the backend's clock.
    Until(Duration),
    /// Until there is one, or a wake.
    Forever,
}

/// Ends the wait of a backend from another thread.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Ends the wait under way, or the next one.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

/// The clock of the backends in real time: since its first look. One for all, so that clients can share limits of speed.
fn uptime() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// The way to devices.
pub trait Backend {
    /// Its name in the tree: `uring`, `threads`, `sim`.
    fn name(&self) -> &'static str;

    /// Queues a transfer. It may start now or at the next [`Backend::reap`].
    ///
    /// # Safety
    /// The transfer's memory must stay valid, and for reads be touched by nobody else, until its completion was reaped;
    /// if that never comes, for ever.
    #[allow(unsafe_code)]
    unsafe fn submit(&mut self, transfer: Transfer);

    /// Starts what is queued, waits for a first completion or a wake as `wait` says, and adds all completions to `done`.
    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>);

    /// Ends a wait of this backend from another thread.
    fn waker(&self) -> Waker;

    /// Time since some fixed moment; virtual in the simulation.
    fn now(&self) -> Duration;

    /// When the next completion comes, where that is known beforehand: in the simulation.
    fn next_due(&self) -> Option<Duration> {
        None
    }

    /// The process is gone: what is in flight stays with the devices. In the simulation alone.
    #[cfg(test)]
    fn abandon(&mut self) {
        unimplemented!("only a simulated process can be gone while its backend is there");
    }

    /// Transfers that are queued from here on have idle I/O priority, or that of the process.
    fn set_background(&mut self, _is_background: bool) {}

    /// Whether the page pool is registered with it as fixed buffers.
    fn has_fixed_buffers(&self) -> bool {
        false
    }
}
