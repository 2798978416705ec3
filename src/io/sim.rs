//! The simulation: a backend in virtual time, with seeded order and faults.
//!
//! Its devices are those of [`Device::in_memory`]. A transfer takes a virtual time that the seed decides, so completions
//! come in another order than submissions; a fault is a range of a device and what happens there. Nothing waits: when the
//! engine has nothing to do, the clock jumps to the next completion. The same seed gives the same run.
//!
//! It is public so that programs on this library can test what they do when a disk fails.
//!
//! # Examples
//! ```
//! use kcopyfs::io::sim::{Fault, Sim};
//! use kcopyfs::{Sector, blkdev::Device, io::Op};
//!
//! let disk = Device::in_memory(Sector::new(2048).unwrap(), 512)?;
//! let sim = Sim::new(1);
//! sim.fault(&disk, Op::Read, 100..101, Fault::Error(5), None); // sector 100 cannot be read
//! # Ok::<(), kcopyfs::Error>(())
//! ```

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Backend, Completion, Op, Transfer, Wait, Waker, sys};
use crate::blkdev::{Device, Target};
use crate::sector::SECTOR_SIZE;

/// What happens to a transfer that touches a faulty range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails whole, with this errno.
    Error(i32),
    /// It moves this many bytes at most.
    Short(u64),
    /// It takes this much longer.
    Delay(Duration),
    /// It never ends.
    Hang,
}

#[derive(Debug)]
struct Rule {
    target: Target,
    op: Op,
    bytes: Range<u64>,
    fault: Fault,
    left: Option<u32>,
}

/// A simulation: its seed, its faults. Clones share them.
#[derive(Clone, Debug)]
pub struct Sim(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Debug)]
struct State {
    random: u64,
    rules: Vec<Rule>,
    woken: bool,
    log: Vec<(Op, Target, u64)>,
    clock: Duration,
}

/// The longest that a healthy transfer takes, in virtual microseconds.
const LATENCY_USEC: u64 = 1000;

impl Sim {
    /// A simulation without faults.
    pub fn new(seed: u64) -> Self {
        let state = State { random: seed, rules: Vec::new(), woken: false, log: Vec::new(), clock: Duration::ZERO };
        Self(Arc::new(Shared { state: Mutex::new(state), woken: Condvar::new() }))
    }

    /// Lets transfers of that kind fail when they touch one of these sectors; a flush touches all. `times`: how often.
    pub fn fault(&self, device: &Device, op: Op, sectors: Range<u64>, fault: Fault, times: Option<u32>) {
        let bytes = sectors.start * SECTOR_SIZE..sectors.end * SECTOR_SIZE;
        let rule = Rule { target: device.target(), op, bytes, fault, left: times };
        self.0.state.lock().rules.push(rule);
    }

    /// Mends every device.
    pub fn clear(&self) {
        self.0.state.lock().rules.clear();
    }

    /// What was submitted so far: kind, device, first byte; in order.
    pub fn log(&self) -> Vec<(Op, Target, u64)> {
        self.0.state.lock().log.clone()
    }

    /// Virtual time: of the backend that is furthest.
    pub fn clock(&self) -> Duration {
        self.0.state.lock().clock
    }

    pub(super) fn backend(&self) -> SimBackend {
        SimBackend {
            shared: Arc::clone(&self.0),
            clock: Duration::ZERO,
            due: BTreeMap::new(),
            hung: Vec::new(),
            turn: 0,
        }
    }
}

impl State {
    /// The next pseudo-random number (splitmix64).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn strike(&mut self, transfer: &Transfer) -> Option<Fault> {
        let end = transfer.position + transfer.length;
        let rule = self.rules.iter_mut().find(|rule| {
            let touches = transfer.op == Op::Flush || (rule.bytes.start < end && transfer.position < rule.bytes.end);
            rule.target == transfer.device.target() && rule.op == transfer.op && touches && rule.left != Some(0)
        })?;
        rule.left = rule.left.map(|left| left - 1);
        Some(rule.fault)
    }
}

pub(super) struct SimBackend {
    shared: Arc<Shared>,
    clock: Duration,
    /// In flight, by the time of completion and then by turn.
    due: BTreeMap<(Duration, u64), (Transfer, Option<Fault>)>,
    hung: Vec<Transfer>,
    turn: u64,
}

impl SimBackend {
    /// Does at its completion what a device does some time before.
    #[allow(unsafe_code)]
    fn perform(transfer: &Transfer, fault: Option<Fault>) -> Completion {
        let &Transfer { token, op, ref device, position, mut length, ref memory } = transfer;
        let size = if device.can_grow() { u64::MAX } else { device.size().bytes() };
        let mut room = size.saturating_sub(position);
        match fault {
            Some(Fault::Error(errno)) => return Completion { token, result: Err(errno) },
            Some(Fault::Short(bytes)) => room = room.min(bytes),
            Some(Fault::Delay(_) | Fault::Hang) | None => {}
        }
        length = length.min(room);
        let result = match op {
            Op::Flush => Ok(0),
            Op::Write if length == 0 => Err(libc::ENOSPC),
            Op::Zero | Op::Punch => Err(libc::EOPNOTSUPP),
            Op::Read | Op::Write => {
                let pieces = memory.slice(0, usize::try_from(length).unwrap_or(usize::MAX));
                // SAFETY: `Backend::submit` made the memory ours until the completion is reaped.
                unsafe { sys::transfer(device.raw_fd(), op, position, length, pieces.as_slice()) }
            }
        };
        Completion { token, result }
    }
}

impl Backend for SimBackend {
    fn name(&self) -> &'static str {
        "sim"
    }

    #[allow(unsafe_code)]
    unsafe fn submit(&mut self, transfer: Transfer) {
        let mut state = self.shared.state.lock();
        state.log.push((transfer.op, transfer.device.target(), transfer.position));
        let fault = state.strike(&transfer);
        let mut latency = Duration::from_micros(state.random() % LATENCY_USEC);
        match fault {
            Some(Fault::Hang) => return self.hung.push(transfer),
            Some(Fault::Delay(more)) => latency += more,
            _ => {}
        }
        self.turn += 1;
        self.due.insert((self.clock + latency, self.turn), (transfer, fault));
    }

    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>) {
        let mut state = self.shared.state.lock();
        let next = self.due.first_key_value().map(|((time, _), _)| *time);
        let wake = match (wait, next) {
            _ if state.woken => self.clock,
            (Wait::No, _) => self.clock,
            (Wait::Until(deadline), Some(next)) => next.min(deadline),
            (Wait::Until(deadline), None) => deadline,
            (Wait::Forever, Some(next)) => next,
            (Wait::Forever, None) => {
                while !state.woken {
                    self.shared.woken.wait(&mut state);
                }
                self.clock
            }
        };
        state.woken = false;
        self.clock = self.clock.max(wake);
        state.clock = state.clock.max(self.clock);
        drop(state);
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= self.clock
        {
            let (transfer, fault) = entry.remove();
            done.push(Self::perform(&transfer, fault));
        }
    }

    fn waker(&self) -> Waker {
        let shared = Arc::clone(&self.shared);
        Waker::new(move || {
            shared.state.lock().woken = true;
            shared.woken.notify_one();
        })
    }

    fn now(&self) -> Duration {
        self.clock
    }
}
