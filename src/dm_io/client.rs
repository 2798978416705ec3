//! A dm-io client for callers without a thread of their own.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use slab::Slab;

use super::core::{Core, Finished};
use super::{ErrorBits, IoRegion, MAX_REGIONS, Memory};
use crate::error::{Error, ErrorKind, Result};
use crate::io::{self, BackendKind, Op, PAGE_SIZE, PageList, PagePool, Reservation, Wait};
use crate::mailbox::Mailbox;
use crate::sector::Sector;

/// The direction of an I/O (`rw` of dm-io.txt).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rw {
    /// From one region to memory.
    Read,
    /// From memory to 1 to [`MAX_REGIONS`] regions.
    Write,
}

/// What an I/O hands back.
#[derive(Debug)]
pub struct Done {
    /// Bit i: region i failed.
    pub errors: ErrorBits,
    /// The memory. After a failed read it holds zeros where no data came.
    pub memory: Memory,
}

/// Transfers of one kind to one device that are worth threads of their own.
const DEPTH: usize = 8;

type Notify = Box<dyn FnOnce(Done) + Send>;

enum Message {
    Start { rw: Rw, regions: Vec<IoRegion>, memory: Memory, notify: Notify },
    Stop,
}

/// A dm-io client: pages, a thread, and the three kinds of I/O.
///
/// Dropping it waits for all I/O.
///
/// # Examples
/// ```
/// use kcopyfs::blkdev::Device;
/// use kcopyfs::dm_io::{DmIo, IoRegion, Memory, Rw};
/// use kcopyfs::io::{BackendKind, PagePool};
/// use kcopyfs::Sector;
///
/// let sectors = |n| Sector::new(n).unwrap();
/// let (a, b) = (Device::in_memory(sectors(64), 512)?, Device::in_memory(sectors(64), 512)?);
/// let io = DmIo::new(&PagePool::new(128)?, 16, &BackendKind::Auto)?;
/// let to = [IoRegion::new(&a, sectors(8), sectors(2)), IoRegion::new(&b, sectors(0), sectors(2))];
/// let written = io.sync(&to, Rw::Write, Memory::Vm(vec![7; 1024]))?;
/// assert!(written.errors.is_empty());
/// let read = io.sync(&to[..1], Rw::Read, Memory::Vm(vec![0; 1024]))?;
/// assert!(matches!(read.memory, Memory::Vm(bytes) if bytes == [7; 1024]));
/// # Ok::<(), kcopyfs::Error>(())
/// ```
pub struct DmIo {
    pages: Reservation,
    mailbox: Mailbox<Message>,
    thread: Option<JoinHandle<()>>,
}

impl DmIo {
    /// A client with `pages` pages set aside in the pool (`dm_io_get`).
    pub fn new(pool: &Arc<PagePool>, pages: u32, backend: &BackendKind) -> Result<Self> {
        let mailbox = Mailbox::new();
        let pages = pool.reserve(pages, None)?;
        let (box_, pool, kind) = (mailbox.clone(), Arc::clone(pool), backend.clone());
        let (answer, ready) = std::sync::mpsc::sync_channel(1);
        let run = move || match io::open(&kind, &pool, DEPTH) {
            Ok(opened) => {
                let core = Core::new(opened.backend, &pool);
                box_.attach(core.waker());
                // Nobody listens only if the creator is gone, and then there is no work.
                let _ = answer.send(Ok(()));
                serve(core, &box_);
            }
            Err(error) => _ = answer.send(Err(error)),
        };
        let thread = std::thread::Builder::new()
            .name("dm-io".into())
            .spawn(run)
            .map_err(|error| Error::os("a thread for dm-io", error))?;
        ready.recv().map_err(|_| Error::new(ErrorKind::Os(libc::EIO), "the dm-io thread ended at its start"))??;
        Ok(Self { pages, mailbox, thread: Some(thread) })
    }

    /// Sets `pages` more pages aside (`dm_io_get`).
    pub fn get(&self, pages: u32) -> Result<()> {
        self.pages.resize(self.pages.reserved().saturating_add(pages))
    }

    /// Gives `pages` pages back (`dm_io_put`), which must have been got before.
    pub fn put(&self, pages: u32) -> Result<()> {
        let reserved = self.pages.reserved();
        let left = reserved.checked_sub(pages).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("{pages} pages are put and only {reserved} were got"))
        })?;
        self.pages.resize(left)
    }

    /// Pages for an I/O of up to `length` bytes, or `None` while others hold them.
    pub fn page_list(&self, length: usize) -> Option<PageList> {
        self.pages.get(u32::try_from(length.div_ceil(PAGE_SIZE)).ok()?)
    }

    /// Reads or writes and waits for it (`dm_io_sync`, `dm_io_sync_bvec`, `dm_io_sync_vm`).
    ///
    /// # Errors
    /// Only what is wrong with the call itself; what devices do is in the error bits. The memory is then dropped.
    pub fn sync(&self, regions: &[IoRegion], rw: Rw, memory: Memory) -> Result<Done> {
        let slot = Arc::new((Mutex::new(None), Condvar::new()));
        let theirs = Arc::clone(&slot);
        self.start(regions, rw, memory, (), move |done, ()| {
            *theirs.0.lock() = Some(done);
            theirs.1.notify_one();
        })?;
        let mut done = slot.0.lock();
        loop {
            match done.take() {
                Some(done) => return Ok(done),
                None => slot.1.wait(&mut done),
            }
        }
    }

    /// Starts a read or write; `notify` is called with its end and `context`, on the client's thread
    /// (`dm_io_async`, `dm_io_async_bvec`, `dm_io_async_vm`).
    ///
    /// # Errors
    /// As [`DmIo::sync`]: reading several regions is `EIO`; no region, more than [`MAX_REGIONS`], memory that is too
    /// short, or a region that its device cannot address is refused, and `notify` is not called.
    pub fn start<C: Send + 'static>(
        &self,
        regions: &[IoRegion],
        rw: Rw,
        memory: Memory,
        context: C,
        notify: impl FnOnce(Done, C) + Send + 'static,
    ) -> Result<()> {
        check(regions, rw, &memory)?;
        let notify: Notify = Box::new(move |done| notify(done, context));
        self.mailbox.send(Message::Start { rw, regions: regions.to_vec(), memory, notify });
        Ok(())
    }
}

impl Drop for DmIo {
    fn drop(&mut self) {
        self.mailbox.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            // A callback that panicked has said so already.
            let _ = thread.join();
        }
    }
}

fn check(regions: &[IoRegion], rw: Rw, memory: &Memory) -> Result<()> {
    let refuse = |kind, what: String| Err(Error::new(kind, what));
    if rw == Rw::Read && regions.len() > 1 {
        return refuse(ErrorKind::Os(libc::EIO), format!("a read takes one region, not {}", regions.len()));
    }
    if regions.is_empty() || regions.len() > MAX_REGIONS {
        return refuse(ErrorKind::Invalid, format!("an I/O takes 1 to {MAX_REGIONS} regions, not {}", regions.len()));
    }
    if rw == Rw::Read && matches!(memory, Memory::Shared { .. }) {
        return refuse(ErrorKind::Invalid, "shared pages can only be written from".to_owned());
    }
    let length = memory.length() as u64;
    for region in regions {
        if region.count.bytes() > length {
            return refuse(ErrorKind::Invalid, format!("{} sectors do not fit {length} bytes of memory", region.count));
        }
        region.device.check_region(region.sector, region.count, rw == Rw::Write)?;
    }
    Ok(())
}

/// The thread: takes messages, reaps, calls back. Ends when told and idle.
fn serve(mut core: Core, mailbox: &Mailbox<Message>) {
    let mut notifies: Slab<Notify> = Slab::new();
    let mut finished: Vec<Finished> = Vec::new();
    let mut stopping = false;
    while !(stopping && core.is_idle()) {
        while let Some(message) = mailbox.take() {
            match message {
                Message::Stop => stopping = true,
                Message::Start { rw, regions, memory, notify } => {
                    let op = if rw == Rw::Read { Op::Read } else { Op::Write };
                    let token = notifies.insert(notify) as u64;
                    let most = regions.iter().map(|region| region.count).max().unwrap_or(Sector::ZERO);
                    let taking_part = regions.iter().enumerate().filter(|(_, region)| !region.count.is_zero());
                    let parts = taking_part.map(|(index, part)| (index, &part.device, part.sector, part.count));
                    core.start(token, op, parts, most, Some(memory));
                }
            }
        }
        if stopping && core.is_idle() {
            return;
        }
        core.reap(Wait::Forever, &mut finished);
        for Finished { token, errors, memory, .. } in finished.drain(..) {
            let notify = notifies.remove(usize::try_from(token).expect("a slot's number"));
            notify(Done { errors, memory: memory.expect("an I/O has memory") });
        }
    }
}
