//! What a disk does with a request: count it, let it wait, fail it, bend it, or do it.
//!
//! A request goes through two gates, and rules are looked up at each:
//! 1. on arrival ([`Shared::submit`]): `Hang` and `Delay`;
//! 2. when it is done ([`Request::answer`]), perhaps much later: everything else, and whether the disk is dead by then.
//!
//! # Invariants
//! - Replies are sent without the lock: the kernel may answer a reply with the next request at once.
//! - Every request is answered: parked ones at `release` or when the disk dies.

use std::{
    io,
    ops::Range,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use fuser::{Errno, ReplyData, ReplyEmpty, ReplyWrite};
use parking_lot::{Condvar, Mutex};

use super::{
    log::Log,
    medium::Medium,
    rule::{Fault, Hit, Op, Rules},
};

/// The figures of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Read requests that arrived.
    pub reads: u64,
    /// Write requests that arrived.
    pub writes: u64,
    /// Flush requests that arrived.
    pub flushes: u64,
    /// Requests that hang now.
    pub parked: usize,
    /// Writes that no flush has made durable.
    pub pending: usize,
    /// The most bytes that one request asked for.
    pub max_request: u64,
}

/// A request and where its answer goes.
pub(super) enum Request {
    Read { offset: u64, len: u32, reply: ReplyData },
    Write { offset: u64, data: Vec<u8>, reply: ReplyWrite },
    Flush { reply: ReplyEmpty },
}

impl Request {
    const fn op(&self) -> Op {
        match self {
            Self::Read { .. } => Op::Read,
            Self::Write { .. } => Op::Write,
            Self::Flush { .. } => Op::Flush,
        }
    }

    const fn range(&self) -> Range<u64> {
        match self {
            Self::Read { offset, len, .. } => *offset..*offset + *len as u64,
            Self::Write { offset, data, .. } => *offset..*offset + data.len() as u64,
            Self::Flush { .. } => 0..0,
        }
    }

    /// Does it and replies.
    fn answer(self, shared: &Shared) {
        match self {
            Self::Read { offset, len, reply } => {
                let result = shared.state.lock().read(offset, len);
                match result {
                    Ok(data) => reply.data(&data),
                    Err(errno) => reply.error(Errno::from_i32(errno)),
                }
            }
            Self::Write { offset, data, reply } => {
                let result = shared.state.lock().write(offset, data);
                match result {
                    Ok(len) => reply.written(u32::try_from(len).expect("a request's length")),
                    Err(errno) => reply.error(Errno::from_i32(errno)),
                }
            }
            Self::Flush { reply } => {
                let result = shared.state.lock().flush();
                match result {
                    Ok(()) => reply.ok(),
                    Err(errno) => reply.error(Errno::from_i32(errno)),
                }
            }
        }
        shared.changed.notify_all();
    }
}

/// A disk as its session and its owner share it.
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Notified whenever a figure changes and whenever requests are let go.
    pub(super) changed: Condvar,
}

impl Shared {
    pub(super) fn new(state: State) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Takes a request that just arrived.
    pub(super) fn submit(self: &Arc<Self>, request: Request) {
        let mut state = self.state.lock();
        state.count(&request);
        self.changed.notify_all();
        let hit =
            if state.dead.is_some() { None } else { state.rules.hit(request.op(), &request.range(), Fault::is_wait) };
        match hit.map(|hit| hit.fault) {
            Some(Fault::Hang) => state.parked.push(request),
            Some(Fault::Delay(time)) => {
                let releases = state.releases;
                drop(state);
                self.delay(request, time, releases);
            }
            _ => {
                drop(state);
                request.answer(self);
            }
        }
    }

    /// Answers `request` after `time`, or as soon as there was another release than the last one seen.
    fn delay(self: &Arc<Self>, request: Request, time: Duration, releases: u64) {
        let shared = Arc::clone(self);
        let until = Instant::now() + time;
        thread::spawn(move || {
            let mut state = shared.state.lock();
            while state.releases == releases && !shared.changed.wait_until(&mut state, until).timed_out() {}
            drop(state);
            request.answer(&shared);
        });
    }

    /// Lets everything that waits go on, and returns how many requests hung. `before` is done first, under the lock.
    pub(super) fn let_go(&self, before: impl FnOnce(&mut State)) -> usize {
        let mut state = self.state.lock();
        before(&mut state);
        state.releases += 1;
        let parked = std::mem::take(&mut state.parked);
        self.changed.notify_all();
        drop(state);
        let count = parked.len();
        for request in parked {
            request.answer(self);
        }
        count
    }
}

/// What a disk is, under the lock.
pub(super) struct State {
    pub(super) medium: Medium,
    pub(super) rules: Rules,
    pub(super) log: Option<Log>,
    /// What every request fails with.
    pub(super) dead: Option<i32>,
    /// Logical block in bytes.
    block: u32,
    parked: Vec<Request>,
    /// Counts releases, so that delayed requests notice one.
    releases: u64,
    counts: Stat,
}

impl State {
    pub(super) fn new(medium: Medium, block: u32, log: Option<Log>) -> Self {
        Self {
            medium,
            rules: Rules::default(),
            log,
            dead: None,
            block,
            parked: Vec::new(),
            releases: 0,
            counts: Stat::default(),
        }
    }

    pub(super) const fn stat(&self) -> Stat {
        Stat { parked: self.parked.len(), pending: self.medium.pending(), ..self.counts }
    }

    /// Begins anew with figures and log.
    pub(super) fn forget(&mut self) {
        self.counts = Stat::default();
        if let Some(log) = &mut self.log {
            log.clear();
        }
    }

    fn count(&mut self, request: &Request) {
        match request.op() {
            Op::Read => self.counts.reads += 1,
            Op::Write => self.counts.writes += 1,
            Op::Flush => self.counts.flushes += 1,
        }
        let range = request.range();
        self.counts.max_request = self.counts.max_request.max(range.end - range.start);
    }

    fn read(&mut self, offset: u64, len: u32) -> Result<Vec<u8>, i32> {
        self.alive()?;
        let end = (offset + u64::from(len)).min(self.medium.size());
        let range = offset..end.max(offset);
        self.fail(Op::Read, &range)?;
        let from = match self.rules.hit(Op::Read, &range, |fault| matches!(fault, Fault::Misdirect(_))) {
            Some(hit) => moved(offset, &hit)?,
            None => offset,
        };
        let len = usize::try_from(range.end - range.start).expect("a request's length");
        let mut data = self.medium.read(from, len).map_err(|error| errno(&error))?;
        self.corrupt(Op::Read, &range, &mut data);
        if let Some(Hit { fault: Fault::Short(count), .. }) = self.rules.hit(Op::Read, &range, is_short) {
            data.truncate(count);
        }
        Ok(data)
    }

    fn write(&mut self, offset: u64, mut data: Vec<u8>) -> Result<usize, i32> {
        self.alive()?;
        let (len, range) = (data.len(), offset..offset + data.len() as u64);
        if range.end > self.medium.size() {
            return Err(libc::ENOSPC);
        }
        if let Some(Hit { fault: Fault::Err(errno), start }) = self.rules.hit(Op::Write, &range, is_err) {
            let good = start.saturating_sub(offset) / u64::from(self.block) * u64::from(self.block);
            let good = usize::try_from(good).expect("less than the request");
            self.put(offset, &data[..good])?;
            return Err(errno);
        }
        if let Some(Hit { fault: Fault::Short(count), .. }) = self.rules.hit(Op::Write, &range, is_short) {
            let count = count.min(len);
            self.put(offset, &data[..count])?;
            return Ok(count);
        }
        self.corrupt(Op::Write, &range, &mut data);
        if self.rules.hit(Op::Write, &range, |fault| *fault == Fault::Drop).is_some() {
            return Ok(len);
        }
        let to = match self.rules.hit(Op::Write, &range, |fault| matches!(fault, Fault::Misdirect(_))) {
            Some(hit) => moved(offset, &hit)?,
            None => offset,
        };
        self.put(to, &data)?;
        Ok(len)
    }

    fn flush(&mut self) -> Result<(), i32> {
        self.alive()?;
        self.fail(Op::Flush, &(0..0))?;
        if self.rules.hit(Op::Flush, &(0..0), |fault| *fault == Fault::Drop).is_some() {
            return Ok(());
        }
        if let Some(log) = &mut self.log {
            log.flush().map_err(|error| errno(&error))?;
        }
        self.medium.flush().map_err(|error| errno(&error))
    }

    /// Takes `data` at `offset` and logs it.
    fn put(&mut self, offset: u64, data: &[u8]) -> Result<(), i32> {
        if data.is_empty() {
            return Ok(());
        }
        if offset + data.len() as u64 > self.medium.size() {
            return Err(libc::EIO);
        }
        if let Some(log) = &mut self.log {
            log.write(offset, data).map_err(|error| errno(&error))?;
        }
        self.medium.write(offset, data).map_err(|error| errno(&error))
    }

    fn alive(&self) -> Result<(), i32> {
        self.dead.map_or(Ok(()), Err)
    }

    fn fail(&mut self, op: Op, range: &Range<u64>) -> Result<(), i32> {
        match self.rules.hit(op, range, is_err).map(|hit| hit.fault) {
            Some(Fault::Err(errno)) => Err(errno),
            _ => Ok(()),
        }
    }

    fn corrupt(&mut self, op: Op, range: &Range<u64>, data: &mut [u8]) {
        if let Some(hit) = self.rules.hit(op, range, |fault| *fault == Fault::Corrupt) {
            let first = usize::try_from(hit.start.saturating_sub(range.start)).expect("within the request");
            if let Some(byte) = data.get_mut(first) {
                *byte ^= 1;
            }
        }
    }
}

const fn is_err(fault: &Fault) -> bool {
    matches!(fault, Fault::Err(_))
}

const fn is_short(fault: &Fault) -> bool {
    matches!(fault, Fault::Short(_))
}

/// Where a misdirected request at `offset` goes.
fn moved(offset: u64, hit: &Hit) -> Result<u64, i32> {
    let Fault::Misdirect(to) = hit.fault else { unreachable!("only asked for misdirected requests") };
    (offset + to).checked_sub(hit.start).ok_or(libc::EIO)
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
