//! A block device whose faults are set while it is in use.
//!
//! ```text
//! the program under test ──> /dev/loopN ──> a FUSE file, `disk` ──> rules ──> write cache ──> medium, in memory
//!                                            served by this process     └── FaultDisk: rule, release, powercut ...
//! ```
//!
//! ```no_run
//! use kcopyfs_support::{Fault, FaultDisk, Op};
//!
//! let disk = FaultDisk::builder(64 << 20).block(4096).start();
//! disk.rule(Op::Read, 8192..12288, Fault::Err(libc::EIO)).times(2);
//! let device = disk.path(); // /dev/loopN
//! ```
//!
//! - [`rule`](Rule): which requests meet which [`Fault`]. Rules hold from when they are set.
//! - `state`: what becomes of a request. `medium`: what the disk holds. [`log`]: what it did, in order.
//! - `session`: the mount and the thread that serves it.
//!
//! # Never wait for a hung disk in a scope that outlives it
//! Dropping the disk lets everything go. A thread that waits for the disk must therefore be a plain one, not one of
//! `thread::scope`: after a failed assertion the scope would wait for the thread, and the disk for the scope.

pub mod log;

mod medium;
mod rule;
mod session;
mod state;

use std::{
    fmt,
    fs::{File, OpenOptions},
    ops::{Bound, Range, RangeBounds},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::MutexGuard;

use self::{
    log::{Event, Log, Logged},
    medium::Medium,
    session::Session,
    state::{Shared, State},
};
pub use self::{
    medium::{Cut, PowerCut},
    rule::{Fault, Op},
    state::Stat,
};
use crate::{
    looping::{Attached, Shape},
    stamp, sweep,
};

/// How long [`FaultDisk::wait_until`] waits before it fails the test.
pub const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// Bytes that [`FaultDisk::fill`] stamps at once.
const CHUNK: usize = 1 << 20;

/// How a disk is to be.
// One flag a property.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug)]
pub struct Builder {
    size: u64,
    block: u32,
    volatile: bool,
    log: bool,
    log_file: Option<File>,
    file_only: bool,
    merging: bool,
}

impl Builder {
    /// Logical blocks of `bytes` bytes: 512, the default, or 4096.
    #[must_use]
    pub const fn block(mut self, bytes: u32) -> Self {
        self.block = bytes;
        self
    }

    /// Whether it has a write cache that a power cut empties; not by default.
    #[must_use]
    pub const fn volatile(mut self, volatile: bool) -> Self {
        self.volatile = volatile;
        self
    }

    /// Whether it keeps a log of what it did; not by default.
    #[must_use]
    pub const fn log(mut self, log: bool) -> Self {
        self.log = log;
        self
    }

    /// Keeps the log in `file`, empty and open for reading and writing, for a replay by another process.
    #[must_use]
    pub fn log_file(mut self, file: File) -> Self {
        self.log_file = Some(file);
        self
    }

    /// No loop device, only the file.
    #[must_use]
    pub const fn file_only(mut self) -> Self {
        self.file_only = true;
        self
    }

    /// Whether the kernel may make one request of neighbours, which it does by default: then a bad block fails them all.
    #[must_use]
    pub const fn merging(mut self, merging: bool) -> Self {
        self.merging = merging;
        self
    }

    /// Makes it, full of zeros.
    ///
    /// # Panics
    /// If the system refuses: ask [`crate::need::fault_disk`] first. If the size is not whole blocks.
    pub fn start(self) -> FaultDisk {
        assert!(self.size.is_multiple_of(u64::from(self.block)), "{} is not whole blocks", self.size);
        sweep::sweep_once();
        let medium = Medium::new(self.size, self.volatile).expect("a medium");
        let log = match self.log_file {
            Some(file) => Some(Log::empty(file)),
            None => self.log.then(|| Log::in_memory().expect("a log")),
        };
        let shared = Shared::new(State::new(medium, self.block, log));
        let session = Session::start(Arc::clone(&shared)).expect("mount the disk's file");
        let mut disk = FaultDisk { shared, attached: None, session };
        if !self.file_only {
            let shape = Shape { block: self.block, must_be_direct: true, read_only: false, offset: 0 };
            let attached = Attached::new(&disk.open_image(), shape).expect("attach a loop device");
            attached.set_merging(self.merging).expect("set the queue of the loop device");
            disk.attached = Some(attached);
            // attaching flushes the file, which is not the test's doing
            disk.shared.state.lock().forget();
        }
        disk
    }
}

/// A disk with faults; dropping it ends every request and takes everything away.
pub struct FaultDisk {
    shared: Arc<Shared>,
    attached: Option<Attached>,
    session: Session,
}

/// The time in which a disk does not answer; dropping it ends that.
#[must_use = "dropped at once, the disk answers"]
pub struct Silence<'a> {
    /// Whoever answers takes this lock.
    _lock: MutexGuard<'a, State>,
}

impl FaultDisk {
    /// A disk of `size` bytes, to be shaped and started.
    pub const fn builder(size: u64) -> Builder {
        Builder { size, block: 512, volatile: false, log: false, log_file: None, file_only: false, merging: true }
    }

    /// The device, `/dev/loopN`; of a disk without one, the file.
    pub fn path(&self) -> PathBuf {
        self.attached.as_ref().map_or_else(|| self.image(), |attached| attached.path().to_path_buf())
    }

    /// The file beneath the device.
    pub fn image(&self) -> PathBuf {
        self.session.image()
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.shared.state.lock().medium.size()
    }

    /// From now on, requests `op` that touch `range` (in bytes) meet `fault`. Of several rules that match, the oldest
    /// fires.
    ///
    /// # Panics
    /// If no such request can meet such a fault, or the range is empty.
    pub fn rule(&self, op: Op, range: impl RangeBounds<u64>, fault: Fault) -> Rule<'_> {
        let id = self.shared.state.lock().rules.add(op, bytes(&range), fault);
        Rule { disk: self, id }
    }

    /// Removes every rule. Hung requests hang on until [`FaultDisk::release`].
    pub fn clear(&self) {
        self.shared.state.lock().rules.retain(|_, _| false);
    }

    /// Removes every rule that makes requests wait, and lets those that do go on; returns how many hung.
    pub fn release(&self) -> usize {
        self.shared.let_go(|state| state.rules.retain(|_, fault| !fault.is_wait()))
    }

    /// From now on everything fails with `errno`, hung requests too.
    pub fn dead(&self, errno: i32) {
        self.shared.let_go(|state| state.dead = Some(errno));
    }

    /// Ends [`FaultDisk::dead`], also that of a power cut.
    pub fn revive(&self) {
        self.shared.state.lock().dead = None;
    }

    /// Until what it returns is dropped, nobody answers for the disk, not even for its file's attributes: as if the server had
    /// been stopped with SIGSTOP. Whoever holds it asks the disk nothing.
    pub fn stop_answering(&self) -> Silence<'_> {
        Silence { _lock: self.shared.state.lock() }
    }

    /// Cuts the power: what was not flushed is lost, but for what `mode` keeps; everything fails with EIO until
    /// [`FaultDisk::revive`].
    pub fn powercut(&self, mode: PowerCut) -> Cut {
        let mut cut = Cut::default();
        self.shared.let_go(|state| {
            cut = state.medium.power_cut(mode).expect("write the medium");
            state.dead = Some(libc::EIO);
        });
        cut
    }

    /// Makes the disk, and its device, `size` bytes long.
    pub fn resize(&self, size: u64) {
        self.shared.state.lock().medium.resize(size).expect("resize the medium");
        // the loop device takes the size that the kernel last saw
        std::fs::metadata(self.image()).expect("the file's size");
        if let Some(attached) = &self.attached {
            attached.update_size().expect("resize the loop device");
        }
    }

    /// Its figures.
    pub fn stat(&self) -> Stat {
        self.shared.state.lock().stat()
    }

    /// Waits until `n` requests hang.
    ///
    /// # Panics
    /// If that does not come true in [`WAIT_LIMIT`].
    pub fn wait_parked(&self, n: usize) {
        self.wait_until(|stat| stat.parked >= n);
    }

    /// Waits until `is_so` of the figures.
    ///
    /// # Panics
    /// If that does not come true in [`WAIT_LIMIT`].
    pub fn wait_until(&self, is_so: impl Fn(&Stat) -> bool) {
        let until = Instant::now() + WAIT_LIMIT;
        let mut state = self.shared.state.lock();
        while !is_so(&state.stat()) {
            let late = self.shared.changed.wait_until(&mut state, until).timed_out();
            assert!(!late || is_so(&state.stat()), "waited {WAIT_LIMIT:?} in vain: {:?}", state.stat());
        }
    }

    /// All bytes of the medium: what a power cut would leave.
    pub fn contents(&self) -> Vec<u8> {
        self.contents_of(..)
    }

    /// The medium's bytes of `range`, as far as there are.
    pub fn contents_of(&self, range: impl RangeBounds<u64>) -> Vec<u8> {
        let state = self.shared.state.lock();
        let range = bytes(&range);
        let len = usize::try_from(range.end.min(state.medium.size()).saturating_sub(range.start)).expect("a length");
        state.medium.read_durable(range.start, len).expect("read the medium")
    }

    /// Compares the whole medium with `seed`'s stamps.
    ///
    /// # Errors
    /// The first sector that differs.
    pub fn check(&self, seed: u64) -> Result<(), stamp::Mismatch> {
        stamp::check(&self.contents(), seed, 0)
    }

    /// Puts `data` on the medium past rules and cache, as if it had always been there. What the host has cached of the
    /// device it does not see change.
    pub fn load(&self, offset: u64, data: &[u8]) {
        let mut state = self.shared.state.lock();
        assert!(offset + data.len() as u64 <= state.medium.size(), "beyond the end of the disk");
        state.medium.load(offset, data).expect("write the medium");
        if let Some(log) = &mut state.log {
            log.load(offset, data).expect("write the log");
        }
    }

    /// Stamps the whole medium with `seed`, as [`FaultDisk::load`] does.
    pub fn fill(&self, seed: u64) {
        let size = self.size();
        let mut buf = vec![0; CHUNK];
        for offset in (0..size).step_by(CHUNK) {
            let len = usize::try_from(size - offset).map_or(CHUNK, |left| left.min(CHUNK));
            stamp::fill(&mut buf[..len], seed, offset / stamp::SECTOR as u64);
            self.load(offset, &buf[..len]);
        }
    }

    /// Notes `text` in the log.
    pub fn mark(&self, text: &str) {
        self.with_log(|log| log.mark(text).expect("write the log"));
    }

    /// The log: writes, flushes and marks, in order.
    ///
    /// # Panics
    /// If the disk keeps none.
    pub fn logged(&self) -> Vec<Logged> {
        self.with_log(|log| log.entries())
    }

    /// The writes of the log, in order.
    ///
    /// # Panics
    /// If the disk keeps none.
    pub fn written(&self) -> Vec<Logged> {
        self.logged().into_iter().filter(|entry| entry.event == Event::Write).collect()
    }

    /// What an ordered disk would hold after the first `prefix` entries of the log.
    ///
    /// # Panics
    /// If the disk keeps none.
    pub fn replay(&self, prefix: usize) -> Vec<u8> {
        let mut image = vec![0; usize::try_from(self.size()).expect("an image that fits in memory")];
        self.with_log(|log| {
            let write = |offset: u64, data: &[u8]| {
                // a disk that has shrunk since holds only what fits
                let start = usize::try_from(offset).map_or(image.len(), |start| start.min(image.len()));
                let len = data.len().min(image.len() - start);
                image[start..start + len].copy_from_slice(&data[..len]);
                Ok(())
            };
            log.replay(prefix, write).expect("read the log");
        });
        image
    }

    fn with_log<T>(&self, use_it: impl FnOnce(&mut Log) -> T) -> T {
        use_it(self.shared.state.lock().log.as_mut().expect("a disk started with .log(true)"))
    }

    fn open_image(&self) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_DIRECT);
        options.open(self.image()).expect("open the disk's file")
    }
}

impl Drop for FaultDisk {
    /// 1. End what waits, and fail what comes, so that whoever uses the disk lets go of it.
    /// 2. Detach the device while its file still answers.
    /// 3. Take the mount away (by the session's own drop), whether or not the device went.
    fn drop(&mut self) {
        self.clear();
        self.dead(libc::EIO);
        drop(self.attached.take());
    }
}

impl fmt::Debug for FaultDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultDisk").field("path", &self.path()).field("stat", &self.stat()).finish()
    }
}

/// A rule that was set. It stays when this is dropped.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    disk: &'a FaultDisk,
    id: u64,
}

impl Rule<'_> {
    /// Lets it fire `n` times in all; without this, always. Say it before the disk is in use.
    #[allow(clippy::return_self_not_must_use)]
    pub fn times(self, n: u64) -> Self {
        self.disk.shared.state.lock().rules.limit(self.id, n);
        self
    }

    /// Lets the next `n` requests that meet it pass before it fires.
    #[allow(clippy::return_self_not_must_use)]
    pub fn after(self, n: u64) -> Self {
        self.disk.shared.state.lock().rules.spare(self.id, n);
        self
    }

    /// How often it has fired.
    ///
    /// # Panics
    /// If it was removed.
    pub fn hits(self) -> u64 {
        self.disk.shared.state.lock().rules.hits(self.id).expect("a rule that is set")
    }

    /// Removes it.
    pub fn remove(self) {
        self.disk.shared.state.lock().rules.retain(|id, _| id != self.id);
    }
}

fn bytes(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => *before + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}
