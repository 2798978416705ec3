//! A client: the way into its thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::job::{Activity, NewJob, Notify};
use super::worker::{Gauges, Message, Worker};
use super::{Flags, Limit, Outcome, Paces, Request, SpeedLimit, ThrottleShare, Work};
use crate::blkdev::Device;
use crate::dm_io::{Core, ErrorBits, IoRegion};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{self, BackendKind, PAGE_SIZE, PagePool, Reservation, Waker};
use crate::mailbox::Mailbox;
use crate::sector::Sector;

/// The size of a sub-job, in bytes, unless set otherwise.
pub const SUBJOB_BYTES: u32 = 512 << 10;
/// Bounds of it.
const SUBJOB_RANGE: std::ops::RangeInclusive<u32> = 4 << 10..=1 << 20;
/// Sub-jobs of one job in flight at most.
const MOST_SUBJOBS: usize = 64;
/// The smallest piece, where a limit of speed asks for small ones.
const MIN_BLOCK: u32 = 4 << 10;

/// [`PAGE_SIZE`] in the type of a sub-job's size.
#[allow(clippy::cast_possible_truncation)]
const PAGE_BYTES: u32 = PAGE_SIZE as u32;

/// How a client works.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of a sub-job: a power of two from 4 KiB to 1 MiB.
    pub subjob_bytes: u32,
    /// Sub-jobs of one job in flight, 1 to 64; `None`: as many as its devices are fastest with.
    pub subjobs: Option<usize>,
    /// What is known of the devices' pace, where `subjobs` is `None`.
    pub paces: Paces,
    /// The share of time in which it does I/O.
    pub throttle: ThrottleShare,
    /// Bytes per second that all clients with this limit read, together.
    pub speed_max: SpeedLimit,
    /// How it reaches devices.
    pub backend: BackendKind,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            subjob_bytes: SUBJOB_BYTES,
            subjobs: None,
            paces: Paces::default(),
            throttle: ThrottleShare::default(),
            speed_max: SpeedLimit::default(),
            backend: BackendKind::Auto,
        }
    }
}

impl Settings {
    fn check(&self) -> Result<()> {
        let size = self.subjob_bytes;
        if !size.is_power_of_two() || !SUBJOB_RANGE.contains(&size) {
            let what = format!("a sub-job of {size} bytes: give a power of two from 4096 to 1048576");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        if let Some(subjobs) = self.subjobs.filter(|subjobs| !(1..=64).contains(subjobs)) {
            let what = format!("{subjobs} sub-jobs in flight: give 1 to 64");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        Ok(())
    }

    /// The least pages that a client must have: those of one sub-job, or of two blocks that are compared.
    pub fn least_pages(&self) -> u32 {
        self.subjob_bytes.div_ceil(PAGE_BYTES).max(2)
    }
}

/// How a client stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Pages set aside for it.
    pub pages: u32,
    /// Pages that its sub-jobs hold.
    pub pages_used: u32,
    /// Sub-jobs that wait for pages.
    pub pages_waiting: u64,
    /// Sub-jobs under way.
    pub subjobs_in_flight: u64,
}

/// Whoever has pages set aside for copy jobs (`struct kcopyd_client`), and the thread that does them.
///
/// Dropping it is [`Client::destroy`].
///
/// # Examples
/// ```
/// use std::sync::mpsc;
/// use kcopyfs::blkdev::Device;
/// use kcopyfs::dm_io::IoRegion;
/// use kcopyfs::io::PagePool;
/// use kcopyfs::kcopyd::{Client, Flags, Settings};
/// use kcopyfs::Sector;
///
/// let size = Sector::new(4096).unwrap();
/// let (disk, copy) = (Device::in_memory(size, 512)?, Device::in_memory(size, 512)?);
/// let client = Client::create(&PagePool::new(1024)?, 256, Settings::default())?;
/// let (sender, ended) = mpsc::channel();
/// let (from, to) = (IoRegion::new(&disk, Sector::ZERO, size), [IoRegion::new(&copy, Sector::ZERO, size)]);
/// client.copy(&from, &to, Flags::NONE, sender, |outcome, sender| sender.send(outcome).unwrap())?;
/// let outcome = ended.recv().unwrap();
/// assert!(!outcome.read_err && outcome.write_err.is_empty());
/// client.destroy();
/// # Ok::<(), kcopyfs::Error>(())
/// ```
#[derive(Debug)]
pub struct Client {
    pages: Arc<Reservation>,
    mailbox: Mailbox<Message>,
    settings: Settings,
    gauges: Arc<Gauges>,
    backend: Chosen,
    serials: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

/// The backend that a client's thread opened.
#[derive(Clone, Debug)]
struct Chosen {
    name: &'static str,
    fallback: Option<String>,
    fixed_buffers: bool,
}

/// What a client and its worker share.
#[derive(Clone)]
struct Parts {
    pages: Arc<Reservation>,
    mailbox: Mailbox<Message>,
    settings: Settings,
    gauges: Arc<Gauges>,
}

impl Parts {
    fn new(pool: &Arc<PagePool>, pages: u32, settings: Settings) -> Result<Self> {
        settings.check()?;
        let mailbox: Mailbox<Message> = Mailbox::new();
        let for_waker = mailbox.clone();
        let waker = Waker::new(move || for_waker.wake());
        let pages = Arc::new(pool.reserve(pages.max(settings.least_pages()), Some(waker))?);
        Ok(Self { pages, mailbox, settings, gauges: Arc::new(Gauges::default()) })
    }

    /// Opens the backend, on the thread that will use it.
    fn open(self, pool: &Arc<PagePool>) -> Result<(Worker, Chosen)> {
        let io::Opened { backend, fallback } =
            io::open(&self.settings.backend, pool, self.settings.subjobs.unwrap_or(MOST_SUBJOBS))?;
        let chosen = Chosen { name: backend.name(), fallback, fixed_buffers: backend.has_fixed_buffers() };
        let core = Core::new(backend, pool);
        self.mailbox.attach(core.waker());
        Ok((Worker::new(core, self.pages, self.mailbox, self.settings, self.gauges), chosen))
    }

    fn client(self, backend: Chosen, thread: Option<JoinHandle<()>>) -> Client {
        let Self { pages, mailbox, settings, gauges } = self;
        Client { pages, mailbox, settings, gauges, backend, serials: AtomicU64::new(1), thread }
    }
}

impl Client {
    /// A client without a thread, and the worker that does its jobs turn by turn, when `waker` is called.
    #[cfg(test)]
    pub(super) fn stepped(
        pool: &Arc<PagePool>,
        pages: u32,
        settings: Settings,
        waker: Waker,
    ) -> Result<(Self, Worker)> {
        let parts = Parts::new(pool, pages, settings)?;
        let (worker, chosen) = parts.clone().open(pool)?;
        parts.mailbox.attach(waker);
        Ok((parts.client(chosen, None), worker))
    }

    /// A client with `pages` pages set aside, one sub-job's at least (`kcopyd_client_create`).
    ///
    /// # Errors
    /// Pages that are not to be had, settings out of their bounds, a backend that the kernel refuses.
    pub fn create(pool: &Arc<PagePool>, pages: u32, settings: Settings) -> Result<Self> {
        let parts = Parts::new(pool, pages, settings)?;
        let (answer, ready) = std::sync::mpsc::sync_channel(1);
        let run = {
            let (pool, parts) = (Arc::clone(pool), parts.clone());
            move || match parts.open(&pool) {
                Ok((worker, chosen)) => {
                    // Nobody listens only if the creator is gone, and then there is no work.
                    let _ = answer.send(Ok(chosen));
                    worker.run();
                }
                Err(error) => _ = answer.send(Err(error)),
            }
        };
        let thread = std::thread::Builder::new()
            .name("kcopyd".into())
            .spawn(run)
            .map_err(|error| Error::os("a thread for kcopyd", error))?;
        let ended = |_| Error::new(ErrorKind::Os(libc::EIO), "the kcopyd thread ended at its start");
        let backend = ready.recv().map_err(ended)??;
        Ok(parts.client(backend, Some(thread)))
    }

    /// Waits for every job, then gives the pages back (`kcopyd_client_destroy`).
    ///
    /// # Panics
    /// If a page is missing then, or a callback panicked.
    pub fn destroy(mut self) {
        if let Some(thread) = self.stop() {
            thread.join().expect("the client's thread and its callbacks do not panic");
        }
    }

    fn stop(&mut self) -> Option<JoinHandle<()>> {
        self.mailbox.send(Message::Destroy);
        self.thread.take()
    }

    /// Sets another number of pages aside, one sub-job's at least.
    pub fn resize(&self, pages: u32) -> Result<()> {
        self.pages.resize(pages.max(self.settings.least_pages()))?;
        self.mailbox.wake();
        Ok(())
    }

    /// Has it look again at its [`ThrottleShare`] and [`SpeedLimit`]s, which were changed.
    pub fn wake(&self) {
        self.mailbox.wake();
    }

    /// How it stands now.
    pub fn figures(&self) -> Figures {
        Figures {
            pages: self.pages.reserved(),
            pages_used: self.pages.used(),
            pages_waiting: self.gauges.pages_waiting.load(Ordering::Relaxed),
            subjobs_in_flight: self.gauges.subjobs_in_flight.load(Ordering::Relaxed),
        }
    }

    /// The name of its backend.
    pub fn backend(&self) -> &'static str {
        self.backend.name
    }

    /// Why its backend is not the ring, where `Auto` fell back.
    pub fn fallback(&self) -> Option<&str> {
        self.backend.fallback.as_deref()
    }

    /// Whether its ring has the page pool as fixed buffers.
    pub fn has_fixed_buffers(&self) -> bool {
        self.backend.fixed_buffers
    }

    /// Copies `from` to every one of `dests`; `notify` is called with the end and `context` (`kcopyd_copy`).
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub fn copy<C: Send + 'static>(
        &self,
        from: &IoRegion,
        dests: &[IoRegion],
        flags: Flags,
        context: C,
        notify: impl FnOnce(Outcome, C) + Send + 'static,
    ) -> Result<JobHandle> {
        self.submit(Request::new(Work::Copy(from.clone()), dests, flags), context, notify)
    }

    /// Writes zeros to every one of `dests` (`dm_kcopyd_zero`): by write-zeroes where a device can, else zeros.
    ///
    /// # Errors
    /// As [`Client::submit`].
    pub fn zero<C: Send + 'static>(
        &self,
        dests: &[IoRegion],
        flags: Flags,
        context: C,
        notify: impl FnOnce(Outcome, C) + Send + 'static,
    ) -> Result<JobHandle> {
        self.submit(Request::new(Work::Zero, dests, flags), context, notify)
    }

    /// Starts a job.
    ///
    /// # Errors
    /// `Invalid`: no destination, more than [`MAX_REGIONS`](crate::dm_io::MAX_REGIONS), or counts that differ. `Overlap`: a destination shares
    /// sectors with the source or another destination. `Unaligned`, `BeyondEnd`: a region that its device cannot take.
    /// `notify` is then not called.
    pub fn submit<C: Send + 'static>(
        &self,
        request: Request,
        context: C,
        notify: impl FnOnce(Outcome, C) + Send + 'static,
    ) -> Result<JobHandle> {
        request.check()?;
        let is_sequential = request.is_sequential();
        let Request {
            work,
            dests,
            without,
            mut flags,
            speed_max: speed,
            paused,
            sparse,
            in_order,
            observer,
            background,
            leaves_behind,
            answered,
        } = request;
        if is_sequential {
            flags = flags | Flags::WRITE_SEQ;
        }
        let bytes = match work {
            // Two pieces share a sub-job's pages: the source's and a destination's.
            Work::Copy(_) if flags.contains(Flags::ONLY_CHANGED) => self.settings.subjob_bytes / 2,
            Work::Compare(_) | Work::ComparePattern(_) => self.settings.subjob_bytes / 2,
            Work::Copy(_) | Work::Zero | Work::Pattern(_) => self.settings.subjob_bytes,
        };
        let blocks = dests.iter().chain(work.source()).map(|region| region.device.logical_block());
        let block = blocks.fold(MIN_BLOCK, u32::max);
        let (piece, block) = (Sector::whole_in(u64::from(bytes.max(block))), Sector::whole_in(u64::from(block)));
        let serial = self.serials.fetch_add(1, Ordering::Relaxed);
        let activity = Arc::new(Activity::new(dests.len()));
        let handle = JobHandle { serial, mailbox: self.mailbox.clone(), activity: Arc::clone(&activity) };
        let live = ErrorBits::first(dests.len()).without(without);
        let notify: Notify = Box::new(move |outcome| notify(outcome, context));
        let new = NewJob {
            serial,
            work,
            dests,
            live,
            flags,
            piece,
            block,
            speed,
            paused,
            sparse,
            in_order,
            background,
            leaves_behind,
            observer,
            answered,
            notify: Some(notify),
            activity,
        };
        self.mailbox.send(Message::Start(Box::new(new)));
        Ok(handle)
    }

    /// Makes all completed writes to a device durable; `notify` is called on the client's thread with its end, an errno if it failed.
    /// One device a call, so that one that hangs in its flush keeps no other back.
    ///
    /// Writes still in flight are not covered: count completions first, flush after.
    pub fn flush(&self, device: Arc<Device>, notify: impl FnOnce(std::result::Result<(), i32>) + Send + 'static) {
        self.mailbox.send(Message::Flush(device, Box::new(notify)));
    }

    /// A job slot that only has a callback, for work that must be told in order with the copies
    /// (`dm_kcopyd_prepare_callback`).
    pub fn prepare_callback<C: Send + 'static>(
        &self,
        context: C,
        notify: impl FnOnce(Outcome, C) + Send + 'static,
    ) -> Prepared {
        Prepared { mailbox: self.mailbox.clone(), notify: Box::new(move |outcome| notify(outcome, context)) }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let Some(thread) = self.stop() else { return };
        // A callback that lets go of the last reference runs on the thread itself, which then ends behind it.
        if thread.thread().id() != std::thread::current().id() {
            // A callback that panicked has said so already.
            let _ = thread.join();
        }
    }
}

/// A job that was started.
#[derive(Clone, Debug)]
pub struct JobHandle {
    serial: u64,
    mailbox: Mailbox<Message>,
    activity: Arc<Activity>,
}

impl JobHandle {
    /// Starts no more pieces until [`JobHandle::resume`]; those in flight finish, and then the observer is told.
    pub fn pause(&self) {
        self.mailbox.send(Message::Pause(self.serial));
    }

    /// Goes on.
    pub fn resume(&self) {
        self.mailbox.send(Message::Resume(self.serial));
    }

    /// Starts no I/O any more; the job ends when what is in flight has.
    pub fn cancel(&self) {
        self.mailbox.send(Message::Cancel(self.serial));
    }

    /// Has the client look again at the job's [`SpeedLimit`], which was changed.
    pub fn wake(&self) {
        self.mailbox.wake();
    }

    /// Gives destinations up: they take no part in pieces that are yet to be written. With none left the job ends.
    pub fn give_up(&self, dests: ErrorBits) {
        self.mailbox.send(Message::GiveUp(self.serial, dests));
    }

    /// Gives destinations up without waiting for what is in flight there: that keeps its pages until it ends. The others go on.
    pub fn leave_behind(&self, dests: ErrorBits) {
        self.mailbox.send(Message::LeaveBehind(self.serial, dests));
    }

    /// What it has waited for most in the last five seconds.
    pub fn limited_by(&self) -> Option<Limit> {
        self.activity.limited_by()
    }

    /// Since the last completed I/O, while some is in flight.
    pub fn stalled(&self) -> Duration {
        self.activity.stalled()
    }

    /// For how long a destination has answered nothing, while it is asked for something.
    pub fn unanswered(&self, dest: usize) -> Duration {
        self.activity.unanswered(dest)
    }
}

/// A callback that waits to be queued.
pub struct Prepared {
    mailbox: Mailbox<Message>,
    notify: Notify,
}

impl Prepared {
    /// Queues it behind the ends that the client's thread has to tell (`dm_kcopyd_do_callback`).
    pub fn do_callback(self, read_err: bool, write_err: ErrorBits) {
        let outcome = Outcome { read_err, write_err, cancelled: false };
        self.mailbox.send(Message::Callback(self.notify, outcome));
    }
}
