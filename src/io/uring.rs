//! The kernel's ring (`io_uring(7)`).
//!
//! The page pool is registered as fixed buffers where the memory limits allow, which saves the kernel from pinning each
//! page of each transfer. Files are not registered: at half a mebibyte a transfer it gains nothing that can be measured,
//! and a registered file would hold a device's `O_EXCL` after its job has ended.
//!
//! # Invariants
//! * What a request points to (descriptor, vectors, memory) is owned by its slot in `flying` until its completion came.
//! * One read of the wake counter is in flight at all times.
//! * A ring that goes with requests in flight leaves their slots to the kernel: they are leaked, not freed.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode, squeue};
use slab::Slab;

use super::threads::Threads;
use super::{Backend, Completion, Op, PagePool, Transfer, Wait, Waker, sys};

/// Requests handed to the kernel in one call at most.
const SUBMIT_SIZE: u32 = 256;
/// Completions the kernel holds for us; more wait in its overflow list.
const COMPLETE_SIZE: u32 = 4096;
/// The wake counter's request; transfers have the numbers of their slots.
const WAKE: u64 = u64::MAX;

pub(super) struct Uring {
    ring: IoUring,
    wakeups: Arc<File>,
    /// Where the wake counter is read to; its address does not change.
    wake_value: Box<u64>,
    wake_armed: bool,
    fixed: bool,
    flying: Slab<Flying>,
    /// Requests that found the ring full.
    waiting: std::collections::VecDeque<squeue::Entry>,
    /// Does the discards, which no ring before Linux 6.12 knows; made for the first of them.
    beside: Option<Threads>,
    /// What is queued now has idle priority.
    is_background: bool,
    /// Its memory is registered: it goes after the ring.
    _pool: Arc<PagePool>,
}

struct Flying {
    transfer: Transfer,
    /// The kernel's description of a scattered transfer.
    vectors: Vec<libc::iovec>,
    is_background: bool,
}

impl Uring {
    pub(super) fn new(pool: &Arc<PagePool>) -> io::Result<Self> {
        let build = |tuned: bool| {
            let mut builder = IoUring::builder();
            builder.setup_cqsize(COMPLETE_SIZE).setup_clamp();
            if tuned {
                builder.setup_single_issuer().setup_defer_taskrun();
            }
            builder.build(SUBMIT_SIZE)
        };
        // Before Linux 6.1 the kernel knows neither of the two hints.
        let ring = build(true).or_else(|_| build(false))?;
        if !ring.params().is_feature_ext_arg() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel's ring has no timed wait (before 5.11)",
            ));
        }
        let vectors = sys::io_vectors(&pool.chunks());
        // SAFETY: the vectors describe the pool's mapping, which the ring's `_pool` keeps for longer than the ring.
        let registered = unsafe { ring.submitter().register_buffers(&vectors) };
        let fixed = registered.inspect_err(|error| log::info!("pages are not registered: {error}")).is_ok();
        let mut this = Self {
            ring,
            wakeups: Arc::new(sys::event_counter()?),
            wake_value: Box::new(0),
            wake_armed: false,
            fixed,
            flying: Slab::new(),
            waiting: std::collections::VecDeque::new(),
            beside: None,
            is_background: false,
            _pool: Arc::clone(pool),
        };
        this.arm_wake();
        Ok(this)
    }

    fn arm_wake(&mut self) {
        let buffer: *mut u64 = &raw mut *self.wake_value;
        let read = opcode::Read::new(Fd(self.wakeups.as_raw_fd()), buffer.cast(), 8).build().user_data(WAKE);
        self.wake_armed = true;
        self.push(read);
    }

    fn push(&mut self, entry: squeue::Entry) {
        self.waiting.push_back(entry);
        self.fill();
    }

    /// Moves waiting requests into the ring as far as there is room.
    fn fill(&mut self) {
        let mut queue = self.ring.submission();
        while let Some(entry) = self.waiting.front() {
            // SAFETY: what the entry points to is owned by its slot in `flying`, or by `self` for the wake counter,
            // and stays until its completion came.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.waiting.pop_front();
        }
    }

    /// What the kernel is asked for. It takes a priority with reads and writes alone.
    fn entry(key: usize, flying: &Flying, fixed: bool) -> squeue::Entry {
        let Flying { transfer, vectors, is_background } = flying;
        let priority = if *is_background { sys::IDLE_PRIORITY } else { 0 };
        let fd = Fd(transfer.device.raw_fd());
        let position = transfer.position;
        let entry = match (transfer.op, transfer.memory.as_slice()) {
            (op @ (Op::Zero | Op::Punch), _) => {
                opcode::Fallocate::new(fd, transfer.length).offset(position).mode(sys::zero_mode(op)).build()
            }
            (Op::Flush, _) => opcode::Fsync::new(fd).build(),
            (op, [piece]) => {
                let start = piece.start.as_ptr();
                let length = u32::try_from(piece.length).unwrap_or(u32::MAX);
                match (op, piece.fixed.filter(|_| fixed)) {
                    (Op::Read, Some(index)) => {
                        opcode::ReadFixed::new(fd, start, length, index).offset(position).ioprio(priority).build()
                    }
                    (Op::Read, None) => opcode::Read::new(fd, start, length).offset(position).ioprio(priority).build(),
                    (_, Some(index)) => {
                        opcode::WriteFixed::new(fd, start, length, index).offset(position).ioprio(priority).build()
                    }
                    (_, None) => opcode::Write::new(fd, start, length).offset(position).ioprio(priority).build(),
                }
            }
            (op, _) => {
                let count = u32::try_from(vectors.len()).unwrap_or(u32::MAX);
                match op {
                    Op::Read => {
                        opcode::Readv::new(fd, vectors.as_ptr(), count).offset(position).ioprio(priority).build()
                    }
                    _ => opcode::Writev::new(fd, vectors.as_ptr(), count).offset(position).ioprio(priority).build(),
                }
            }
        };
        entry.user_data(key as u64)
    }

    /// Hands the queue to the kernel and waits as told.
    fn enter(&mut self, wait: Wait) {
        let now = self.now();
        let submitter = self.ring.submitter();
        let result = match wait {
            Wait::No => submitter.submit(),
            Wait::Forever => submitter.submit_and_wait(1),
            Wait::Until(deadline) => {
                let left = Timespec::from(deadline.saturating_sub(now));
                submitter.submit_with_args(1, &SubmitArgs::new().timespec(&left))
            }
        };
        match result.map_err(|error| (error.raw_os_error(), error)) {
            // Time is up, a signal came, or completions must be reaped first: the caller's loop deals with all three.
            Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {}
            // The ring is ours and was set up rightly, so the kernel has no other reason to refuse it.
            Err((_, error)) => panic!("io_uring_enter: {error}"),
        }
    }

    fn collect(&mut self, done: &mut Vec<Completion>) {
        if let Some(beside) = &mut self.beside {
            beside.reap(Wait::No, done);
        }
        let Self { ring, flying, wake_armed, .. } = self;
        for entry in ring.completion() {
            if entry.user_data() == WAKE {
                *wake_armed = false;
                continue;
            }
            let key = usize::try_from(entry.user_data()).expect("a slot's number");
            let Flying { transfer, .. } = flying.remove(key);
            let result = match u64::try_from(entry.result()) {
                Ok(_) if matches!(transfer.op, Op::Zero | Op::Punch) => Ok(transfer.length),
                Ok(moved) => Ok(moved),
                Err(_) => Err(-entry.result()),
            };
            done.push(Completion { token: transfer.token, result });
        }
    }
}

impl Backend for Uring {
    fn name(&self) -> &'static str {
        "uring"
    }

    unsafe fn submit(&mut self, transfer: Transfer) {
        if transfer.op == Op::Discard {
            let waker = self.waker();
            let beside = self.beside.get_or_insert_with(|| Threads::beside(1, waker));
            // SAFETY: a discard has no memory.
            return unsafe { beside.submit(transfer) };
        }
        let pieces = transfer.memory.as_slice();
        let vectors = if pieces.len() > 1 { sys::io_vectors(pieces) } else { Vec::new() };
        let key = self.flying.insert(Flying { transfer, vectors, is_background: self.is_background });
        let entry = Self::entry(key, &self.flying[key], self.fixed);
        self.push(entry);
    }

    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>) {
        let before = done.len();
        self.collect(done);
        // What completed meanwhile, or found no room, is no reason to sleep.
        let idle = done.len() == before && self.wake_armed && self.waiting.is_empty();
        self.enter(if idle { wait } else { Wait::No });
        self.collect(done);
        while !self.waiting.is_empty() {
            self.fill();
            self.enter(Wait::No);
            self.collect(done);
        }
        if !self.wake_armed {
            self.arm_wake();
        }
    }

    fn waker(&self) -> Waker {
        let wakeups = Arc::clone(&self.wakeups);
        Waker::new(move || sys::signal(&wakeups))
    }

    fn now(&self) -> Duration {
        super::uptime()
    }

    fn has_fixed_buffers(&self) -> bool {
        self.fixed
    }

    fn set_background(&mut self, is_background: bool) {
        self.is_background = is_background;
        if let Some(beside) = &mut self.beside {
            beside.set_background(is_background);
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if !self.flying.is_empty() {
            std::mem::forget(std::mem::take(&mut self.flying));
        }
        if self.wake_armed {
            // Its read ends with the ring, which is later than now.
            std::mem::forget(std::mem::take(&mut self.wake_value));
        }
    }
}
