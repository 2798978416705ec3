//! Copies of a region to one or many others, with an asynchronous end: the kernel's kcopyd in user space.
//!
//! | kcopyd.txt | here | what differs, and why |
//! |---|---|---|
//! | `kcopyd_client_create(num_pages, &result)` | [`Client::create`] | the pages come from a pool that clients share; what is set aside is guaranteed, the rest goes round |
//! | `struct io_region` | [`IoRegion`](crate::dm_io::IoRegion) | |
//! | `kcopyd_copy(kc, from, num_dests, dests, flags, fn, context)` | [`Client::copy`] | gives a [`JobHandle`], by which the job can be paused and cancelled |
//! | `kcopyd_notify_fn(read_err, write_err, context)` | a closure of [`Outcome`] and the context | the outcome also says whether the job was cancelled |
//! | `kcopyd_client_destroy(kc)` | [`Client::destroy`], or the drop | waits for every job, then asserts that every page is back |
//!
//! The kernel has more than its document says, and so has this: [`Client::zero`] (`dm_kcopyd_zero`), the flags
//! ([`Flags`]), [`Client::prepare_callback`] and [`Prepared::do_callback`], and the [throttle](ThrottleShare).
//! Beyond the kernel: [comparison](Work::Compare), [patterns](Pattern) to test devices with, [limits of speed](SpeedLimit), pause, resume, cancel, a call per finished piece ([`Observer`]), [`Flags::DROP_FAILED`], and
//! [`Client::flush`].
//!
//! # What it promises
//! * A job is cut into sub-jobs of at most [`Settings::subjob_bytes`], of which [`Settings::subjobs`] are in flight; when
//!   one ends it takes the next piece. Without that number each device is given what it is fastest with, and what waits for one device
//!   keeps nothing from the others. A job of one piece is not cut; a job of 0 sectors only has its callback run.
//! * A sub-job is one read, then a write to every destination from the same pages, to each as soon as that one has room.
//! * After an error, by flag:
//!   | | read error | write error |
//!   |---|---|---|
//!   | none | the piece is written nowhere, no piece is started | no piece is started |
//!   | [`Flags::IGNORE_ERROR`] | the piece is written as zeros, the job goes on | the job goes on, to every destination |
//!   | [`Flags::WRITE_SEQ`] | what lies before it is written, and nothing behind it | nothing more is written |
//!   | [`Flags::DROP_FAILED`] | as none | the destination is given up, the job goes on to the others |
//!   | [`Flags::SKIP_UNREADABLE`] | the piece is written nowhere, the job goes on | as none |
//!   | [`Flags::KEEP_FAILED`] | as none | the job goes on, to every destination |
//!
//!   Pieces in flight finish. `WRITE_SEQ` cancels `IGNORE_ERROR` and `SKIP_UNREADABLE`, and a destination that fails under
//!   `KEEP_FAILED` is given up: what is written in order has no holes. A zoned destination sets it. (In the kernel a read error in a cut `WRITE_SEQ` job
//!   hangs for ever; here it ends the job.)
//! * A destination that does not keep up is [left behind](Request::leaves_behind), where its caller wants that: the others go on at their
//!   own pace, the caller is [told](Observer::fell_behind), and copies to it later what it lacks. What is in flight there keeps its pages
//!   until it ends, and nothing waits for it.
//! * All callbacks of a client come from its one thread, one after the other.
//! * However small the pool and however many the jobs, each client goes on.

mod client;
mod content;
mod courtesy;
mod job;
mod limits;
mod pace;
mod pattern;
mod race;
mod request;
mod speed;
mod split;
#[cfg(test)]
mod stepped;
mod throttle;
mod views;
mod window;
mod worker;
mod zeros;

#[cfg(test)]
mod tests;

pub use client::{Client, Figures, JobHandle, Prepared, SUBJOB_BYTES, Settings};
pub use limits::Limit;
pub use pace::{Direction, PaceFigures, Paces};
pub use pattern::Pattern;
pub use race::{Lag, STALLED};
pub use request::{Request, Work};
pub use speed::SpeedLimit;
#[cfg(test)]
pub(crate) use stepped::{Stepped, Turn};
pub use throttle::ThrottleShare;
pub use views::View;

use std::time::Duration;

use crate::dm_io::ErrorBits;
use crate::sector::Sector;

/// How a job deals with errors and order (`flags` of `kcopyd_copy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// Stop at the first error.
    pub const NONE: Self = Self(0);
    /// Go on after errors, to every destination (`DM_KCOPYD_IGNORE_ERROR`).
    pub const IGNORE_ERROR: Self = Self(1);
    /// Write each destination in ascending order (`DM_KCOPYD_WRITE_SEQ`). A zoned destination sets it.
    pub const WRITE_SEQ: Self = Self(2);
    /// Give a destination up at its first write error and go on to the others, while there are any. Not in the kernel:
    /// there, one dead disk ends the copy to all, or is written to for hours to come.
    pub const DROP_FAILED: Self = Self(4);
    /// Go on after read errors; what cannot be read is written nowhere. Not in the kernel: whoever salvages a failing disk
    /// takes what reads well first, and comes back for the rest with smaller pieces.
    pub const SKIP_UNREADABLE: Self = Self(8);
    /// Go on after write errors, to every destination; read errors are dealt with as the other flags say. Not in the
    /// kernel, which has the two only together.
    pub const KEEP_FAILED: Self = Self(16);
    /// Of a copy: read each destination first, and write a piece only to those that do not have it. One that cannot be read
    /// there is written to. Not in the kernel.
    pub const ONLY_CHANGED: Self = Self(32);

    /// Whether all of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

/// How a job ended (the arguments of `kcopyd_notify_fn`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether a read failed.
    pub read_err: bool,
    /// Bit i: a write to destination i failed.
    pub write_err: ErrorBits,
    /// Whether it was cancelled before its end.
    pub cancelled: bool,
}

/// A piece of a job that has ended: a sub-job's work.
#[derive(Debug)]
pub struct Piece<'a> {
    /// First sector, counted from the beginning of the job's regions.
    pub offset: Sector,
    /// How many.
    pub count: Sector,
    /// How long its read took; zero where nothing was read for it alone.
    pub read_took: Duration,
    /// Why it could not be read.
    pub read_error: Option<i32>,
    /// The destinations that have it now, or, where reading failed under `IGNORE_ERROR`, zeros in its place.
    pub written: ErrorBits,
    /// Which destinations failed, and why.
    pub write_errors: &'a [(usize, i32)],
    /// Of a comparison: the destinations that are different. `written` are then those that are equal, and `write_errors`
    /// those that could not be read.
    pub different: ErrorBits,
    /// Of a comparison with a [`Pattern`]: the last destination that has another sector's data in it, and that sector's number.
    pub displaced: Option<(usize, u64)>,
    /// Of `written`, with [`Flags::ONLY_CHANGED`]: those that were found to have it, and were not written to.
    pub same: ErrorBits,
    /// Destinations that do not have it, or were not compared with it, because one was left behind ([`Observer::fell_behind`]).
    pub behind: ErrorBits,
}

/// The bytes of a piece, in runs: calls what it is given once a run.
pub type Bytes<'a> = dyn Fn(&mut dyn FnMut(&[u8])) + 'a;

/// Told what becomes of a job, on the client's thread. It should be quick: the client's I/O waits meanwhile.
pub trait Observer: Send {
    /// A piece has ended.
    fn piece(&mut self, piece: &Piece<'_>);

    /// The bytes of a piece, as they were read; called in ascending order, and only for jobs that ask for it
    /// ([`Request::in_order`]).
    fn data(&mut self, _offset: Sector, _bytes: &Bytes<'_>) {}

    /// What the data is shown to in place of [`Observer::data`], if anything, on a thread that no I/O waits for: for what takes its
    /// time, as a digest does. Asked once, when the job begins; not in a simulation, where one thread does all.
    fn view(&mut self) -> Option<View> {
        None
    }

    /// The job is paused and nothing of it is in flight any more.
    fn quiesced(&mut self) {}

    /// A destination takes no part any more: it does not keep up ([`Request::leaves_behind`]), or was left behind by hand
    /// ([`JobHandle::leave_behind`]), which is told only where it owes an answer. `owes`: it has I/O in flight, which keeps its pages;
    /// when the last of that has ended, [`Request::answered`] is called.
    fn fell_behind(&mut self, _dest: usize, _why: Lag, _owes: bool) {}
}
