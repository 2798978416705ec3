//! The fan-out: one request becomes one transfer a region, and their ends become error bits.
//!
//! Has no thread and no callback of its own: the thread that owns it starts requests and reaps [`Finished`] values.
//!
//! # Invariants
//! * A request's memory is owned by its slot in `requests` from [`Core::start`] until all its transfers have completed.
//! * A transfer of a region is submitted again until it is finished, moves nothing, or fails; so each region ends once.
//! * Positions and lengths submitted are multiples of the device's logical block.
//! * What a zone holds already is not written: it is read, and compared with what was to be written.
//! * The memory of a [`Op::Punch`] is scratch space: of its regions one at a time is read into it.
//! * What was discarded is read back; zeros are written where it is something else.
//! * A core that goes while transfers are in flight leaks its requests: a device may still reach for their memory.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use super::ErrorBits;
use super::memory::{self, Bounce, Memory};
use crate::blkdev::{CUT, Device, HELD};
use crate::io::{Backend, Completion, Op, PagePool, Segments, Transfer, Wait, Waker};
use crate::sector::Sector;

/// A request that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// As given to [`Core::start`].
    pub(crate) token: u64,
    /// Bit i: region i failed.
    pub(crate) errors: ErrorBits,
    /// Why, for each bit.
    pub(crate) errnos: Vec<(usize, i32)>,
    /// The memory, back again.
    pub(crate) memory: Option<Memory>,
    /// Bytes of its largest region.
    pub(crate) bytes: u64,
    /// When it was started.
    pub(crate) started: Duration,
    /// A zero or a punch that a device could not do as it was asked: zeros were written to it, or it was read.
    pub(crate) fell_back: bool,
}

/// Requests in flight over one backend.
pub(crate) struct Core {
    backend: Box<dyn Backend>,
    pool: Arc<PagePool>,
    requests: Slab<Request>,
    transfers: Slab<Region>,
    done: Vec<Completion>,
    is_background: bool,
}

struct Request {
    token: u64,
    bytes: u64,
    started: Duration,
    /// It has idle priority.
    is_background: bool,
    op: Op,
    /// Regions that have not ended.
    left: usize,
    errors: ErrorBits,
    errnos: Vec<(usize, i32)>,
    memory: Option<Memory>,
    /// Where data goes from and to: `memory`, or `bounce` where the device cannot take that.
    segments: Segments,
    bounce: Option<Bounce>,
    fell_back: bool,
    /// A region of a punch is being read.
    checking: bool,
    /// Regions of a punch that are to be read, too.
    to_check: VecDeque<Region>,
}

/// A region in flight.
struct Region {
    request: usize,
    index: usize,
    op: Op,
    device: Arc<Device>,
    /// All of it, in bytes of the device; the request's memory begins with it.
    whole: Range<u64>,
    position: u64,
    length: u64,
    moved: u64,
    /// Times in a row that it moved less than a block.
    stuck: u32,
    /// What a zone holds is being read into it.
    held: Option<Bounce>,
    /// What of it is yet to be done after this.
    runs: VecDeque<Run>,
    /// The granules in it were discarded, and are to be read back.
    was_discarded: bool,
}

/// A part of a region, in bytes of the device, and what is to be done there.
struct Run {
    op: Op,
    bytes: Range<u64>,
    /// A zone holds it: it is compared.
    is_held: bool,
}

impl Core {
    pub(crate) fn new(backend: Box<dyn Backend>, pool: &Arc<PagePool>) -> Self {
        Self {
            backend,
            pool: Arc::clone(pool),
            requests: Slab::new(),
            transfers: Slab::new(),
            done: Vec::new(),
            is_background: false,
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.backend.now()
    }

    pub(crate) fn waker(&self) -> Waker {
        self.backend.waker()
    }

    /// The process is gone: in the simulation what is in flight stays with the devices, and nobody needs its memory any more.
    #[cfg(test)]
    pub(crate) fn abandon(&mut self) {
        self.backend.abandon();
        self.transfers.clear();
        self.requests.clear();
        self.done.clear();
    }

    /// When the next transfer ends, where that is known beforehand: in the simulation.
    #[cfg(test)]
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.backend.next_due()
    }

    /// Whether nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    /// Requests that are started from here on give way to others, or do not.
    pub(crate) fn set_background(&mut self, is_background: bool) {
        self.is_background = is_background;
    }

    /// Starts a request. `regions` are those that take part: index, device, first sector, count. `most` is the largest
    /// count, and `memory` has as many bytes; a zero and a flush take none. A punch may have some as scratch space: a device that
    /// answers discards with zeros then gives space back by them; and it, or one without write-zeroes, is written only where it does
    /// not read as zeros, so that a thin one stays thin.
    pub(crate) fn start<'a>(
        &mut self,
        token: u64,
        op: Op,
        regions: impl IntoIterator<Item = (usize, &'a Arc<Device>, Sector, Sector)>,
        most: Sector,
        memory: Option<Memory>,
    ) {
        let request = Request {
            token,
            bytes: most.bytes(),
            started: self.backend.now(),
            is_background: self.is_background,
            op,
            left: 1,
            errors: ErrorBits::NONE,
            errnos: Vec::new(),
            memory,
            segments: Segments::None,
            bounce: None,
            fell_back: false,
            checking: false,
            to_check: VecDeque::new(),
        };
        let key = self.requests.insert(request);
        self.requests[key].take_segments(most.bytes());
        for (index, device, sector, count) in regions {
            let (position, device) = (sector.bytes(), Arc::clone(device));
            let length = if op == Op::Flush { 0 } else { count.bytes() };
            if op != Op::Punch {
                self.requests[key].fit(&device);
            }
            self.requests[key].left += 1;
            // A zone has no holes: its write pointer moves only by what is written.
            let op = if op == Op::Punch && device.is_sequential() { Op::Zero } else { op };
            let mut region = Region::new(key, index, op, device, position, length);
            if matches!(op, Op::Write | Op::Zero) && region.device.is_sequential() {
                let parts = region.device.parts(region.bytes()).into_iter();
                region.runs = parts.map(|(bytes, is_held)| Run { op, bytes, is_held }).collect();
                region.begin_next();
            }
            if op == Op::Punch && self.requests[key].memory.is_some() {
                region.discard();
                self.requests[key].fell_back |= region.op == Op::Discard;
            }
            self.submit(region);
        }
        // The one that was counted for this function itself.
        if self.requests[key].left == 1 {
            self.done.push(Completion { token: NOTHING | key as u64, result: Ok(0) });
        } else {
            self.requests[key].left -= 1;
        }
    }

    fn submit(&mut self, mut region: Region) {
        let request = &self.requests[region.request];
        let is_background = request.is_background;
        let mut left = region.length - region.moved;
        let memory = match region.op {
            Op::Write if matches!(request.op, Op::Zero | Op::Punch) => {
                left = left.min(ZEROS_AT_ONCE);
                self.pool.zeroes(left)
            }
            Op::Read | Op::Write => region.memory(request, left),
            Op::Zero | Op::Punch | Op::Discard | Op::Flush => Segments::None,
        };
        let position = region.position + region.moved;
        let (op, device) = (region.op, Arc::clone(&region.device));
        let token = self.transfers.insert(region) as u64;
        // A write to a file that was cut would make it long again, and hide that.
        if op == Op::Write && device.loss() == Some(CUT) {
            return self.done.push(Completion { token, result: Err(CUT) });
        }
        self.backend.set_background(is_background);
        // SAFETY: the memory belongs to the slot in `requests`, or to the pool that `self` keeps, and neither goes before
        // the completion with this token was reaped; see the invariants.
        unsafe { self.backend.submit(Transfer { token, op, device, position, length: left, memory }) };
    }

    /// Waits as told and hands out what has ended.
    pub(crate) fn reap(&mut self, wait: Wait, finished: &mut Vec<Finished>) {
        let wait = if self.done.is_empty() { wait } else { Wait::No };
        let mut done = std::mem::take(&mut self.done);
        self.backend.reap(wait, &mut done);
        for completion in done.drain(..) {
            if let Some(key) = completion.token.checked_sub(NOTHING) {
                finished.push(self.requests.remove(bytes(key)).finish());
            } else {
                let region = self.transfers.remove(bytes(completion.token));
                finished.extend(self.complete(region, completion.result));
            }
        }
        // Kept for its room; a request without regions may have come in between.
        done.append(&mut self.done);
        self.done = done;
    }

    /// One transfer is back: go on with its region, or end it.
    fn complete(&mut self, mut region: Region, result: Result<u64, i32>) -> Option<Finished> {
        let left = region.length - region.moved;
        let end = match result {
            Err(libc::EINTR) => return self.again(region),
            _ if region.op == Op::Discard => {
                region.discarded(result.is_ok());
                return if result.is_ok() { self.check(region) } else { self.again(region) };
            }
            // The device cannot make a hole, so it is asked for zeros; it cannot do that, so zeros are written to it.
            Err(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOTTY) if matches!(region.op, Op::Zero | Op::Punch) => {
                let request = &mut self.requests[region.request];
                request.fell_back = true;
                if region.op == Op::Punch && request.memory.is_some() {
                    return self.check(region);
                }
                region.op = if region.op == Op::Punch { Op::Zero } else { Op::Write };
                return self.again(region);
            }
            Err(errno) => Err(errno),
            Ok(moved) if moved >= left => Ok(()),
            Ok(moved) => {
                // What is left must begin where the device can address it.
                let whole = moved - moved % u64::from(region.device.logical_block());
                region.moved += whole;
                region.stuck = if whole == 0 { region.stuck + 1 } else { 0 };
                match (moved, region.op) {
                    (0, Op::Write) => Err(libc::ENOSPC),
                    (0, _) => Err(libc::EIO),
                    // It moved something, but no whole block: asked again it may do better.
                    _ if region.stuck > STUCK => Err(libc::EIO),
                    _ => return self.again(region),
                }
            }
        };
        let end = end.and_then(|()| self.compare_held(&mut region));
        let checked = region.op == Op::Read && region.held.is_none() && self.requests[region.request].op == Op::Punch;
        if checked {
            self.checked(&mut region, end);
        }
        if (checked || end.is_ok()) && region.begin_next() {
            return self.again(region);
        }
        let request = &mut self.requests[region.request];
        if let Err(errno) = end
            && !checked
        {
            let errno = region.device.explain(errno, region.position + region.length);
            request.errors.set(region.index);
            request.errnos.push((region.index, errno));
            if request.op == Op::Read {
                let missing = region.memory(request, region.length - region.moved);
                // SAFETY: the request owns the memory, and its one read into it has ended.
                unsafe { memory::zero_fill(&missing) };
            }
        }
        request.left -= 1;
        let last = request.left == 0;
        let key = region.request;
        drop(region);
        last.then(|| self.requests.remove(key).finish())
    }

    /// What a zone holds was read: it must be what was to be written there.
    fn compare_held(&self, region: &mut Region) -> Result<(), i32> {
        let Some(held) = &mut region.held else { return Ok(()) };
        let request = &self.requests[region.request];
        let is_equal = match request.op {
            Op::Write => {
                let skip = bytes(region.position - region.whole.start);
                // SAFETY: the request owns the memory, which is only written from.
                unsafe { held.equals(&request.segments.slice(skip, bytes(region.length))) }
            }
            _ => held.is_zero(),
        };
        if is_equal { Ok(()) } else { Err(HELD) }
    }

    /// Reads what a region of a punch holds, when the scratch space is free.
    fn check(&mut self, mut region: Region) -> Option<Finished> {
        let request = &mut self.requests[region.request];
        if std::mem::replace(&mut request.checking, true) {
            request.to_check.push_back(region);
            return None;
        }
        region.op = Op::Read;
        self.again(region)
    }

    /// A region of a punch was read: notes what of it is not zeros, which is all of it where it cannot be read.
    fn checked(&mut self, region: &mut Region, end: Result<(), i32>) {
        let request = &mut self.requests[region.request];
        // SAFETY: the request owns the memory, its one read into it has ended, and other requests that share the pages use other
        // bytes of them.
        let judge = |part: Range<u64>| unsafe {
            let (skip, length) = (part.start - region.whole.start, part.end - part.start);
            memory::not_zero(&request.segments.slice(bytes(skip), bytes(length)), part.start)
        };
        let all = region.bytes();
        // Zeros that must be written there, or are so already as far as it reads as zeros.
        let edge = |part: Range<u64>| if region.device.is_zeroed_late() { VecDeque::from([part]) } else { judge(part) };
        let runs = match (end, region.device.granules(&all)) {
            (Ok(()), Some(part)) => {
                let inside = judge(part.clone());
                if std::mem::take(&mut region.was_discarded) && !inside.is_empty() {
                    region.device.distrust_discards();
                }
                let edges = [all.start..part.start, part.end..all.end].into_iter().filter(|edge| !edge.is_empty());
                edges.flat_map(edge).chain(inside).collect()
            }
            (Ok(()), None) => edge(all),
            (Err(_), _) => VecDeque::from([all]),
        };
        region.runs = runs.into_iter().map(|bytes| Run { op: Op::Zero, bytes, is_held: false }).collect();
        request.checking = false;
        if let Some(next) = request.to_check.pop_front() {
            self.check(next);
        }
    }

    fn again(&mut self, region: Region) -> Option<Finished> {
        self.submit(region);
        None
    }
}

impl Region {
    fn new(request: usize, index: usize, op: Op, device: Arc<Device>, position: u64, length: u64) -> Self {
        let (whole, runs) = (position..position + length, VecDeque::new());
        let (moved, stuck, held, was_discarded) = (0, 0, None, false);
        Self { request, index, op, device, whole, position, length, moved, stuck, held, runs, was_discarded }
    }

    /// Where it is on the device.
    fn bytes(&self) -> Range<u64> {
        self.position..self.position + self.length
    }

    /// Discards what the device gives back by that, and answers with zeros; a punch.
    fn discard(&mut self) {
        if let Some(part) = self.device.discardable(&self.whole) {
            (self.op, self.position, self.length) = (Op::Discard, part.start, part.end - part.start);
        }
    }

    /// A discard has ended: it is a punch again, of the whole.
    fn discarded(&mut self, succeeded: bool) {
        (self.op, self.position, self.length) = (Op::Punch, self.whole.start, self.whole.end - self.whole.start);
        self.was_discarded = succeeded;
        if !succeeded {
            self.device.distrust_discards();
        }
    }

    /// Goes on with its next part; false if there is none.
    fn begin_next(&mut self) -> bool {
        let Some(Run { op, bytes: run, is_held }) = self.runs.pop_front() else { return false };
        (self.position, self.length) = (run.start, run.end - run.start);
        (self.moved, self.stuck) = (0, 0);
        self.op = if is_held { Op::Read } else { op };
        self.held = is_held.then(|| Bounce::new(bytes(self.length)));
        true
    }

    /// The memory of the next `length` bytes to be moved.
    fn memory(&mut self, request: &Request, length: u64) -> Segments {
        match &mut self.held {
            Some(held) => held.segments().slice(bytes(self.moved), bytes(length)),
            None => request.segments.slice(bytes(self.position - self.whole.start + self.moved), bytes(length)),
        }
    }
}

/// Zeros that are written at once where a device knows no better way: few pieces of memory, and no request for long.
const ZEROS_AT_ONCE: u64 = 16 << 20;

/// Transfers of less than a block that a device may make in a row.
const STUCK: u32 = 16;

/// Tokens from here on are requests that had nothing to do.
const NOTHING: u64 = 1 << 63;

fn bytes(number: u64) -> usize {
    usize::try_from(number).expect("a length in memory")
}

impl Request {
    fn take_segments(&mut self, length: u64) {
        if let Some(memory) = &mut self.memory {
            self.segments = memory.segments(bytes(length));
        }
    }

    /// Goes through a bounce buffer if the device cannot take the memory as it lies.
    fn fit(&mut self, device: &Device) {
        if self.bounce.is_none() && !memory::is_aligned(&self.segments, device.memory_align()) {
            let mut bounce = Bounce::new(self.segments.length());
            if self.op == Op::Write {
                // SAFETY: the request owns the memory, which is only written from.
                unsafe { bounce.fill_from(&self.segments) };
            }
            // Transfers that are in flight already go on from the memory itself.
            self.segments = bounce.segments();
            self.bounce = Some(bounce);
        }
    }

    fn finish(mut self) -> Finished {
        if let (Op::Read, Some(mut bounce), Some(memory)) = (self.op, self.bounce.take(), &mut self.memory) {
            // SAFETY: the request owns the memory, and its transfers have all ended.
            unsafe { bounce.drain_to(&memory.segments(self.segments.length())) };
        }
        let Self { token, errors, errnos, memory, bytes, started, fell_back, .. } = self;
        Finished { token, errors, errnos, memory, bytes, started, fell_back }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        if !self.transfers.is_empty() {
            std::mem::forget(std::mem::take(&mut self.requests));
            std::mem::forget(Arc::clone(&self.pool));
        }
    }
}
