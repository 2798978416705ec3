//! The simulation: a backend in virtual time, with seeded order and faults.
//!
//! Its devices are those of [`Device::in_memory`]. A transfer takes a virtual time that the seed decides, so completions
//! come in another order than submissions; a fault is a range of a device and what happens there. Nothing waits: when the
//! engine has nothing to do, the clock jumps to the next completion. The same seed gives the same run.
//!
//! A device can be made slow, zoned, thin, or given a volatile cache that a [power cut](Sim::power_cut) loses: [`Behaviour`].
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

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Op, Transfer};
use crate::blkdev::{Device, Target, Zone};
use crate::sector::SECTOR_SIZE;

mod backend;
mod medium;
mod service;

pub(super) use backend::SimBackend;
use medium::Medium;
pub use medium::{Behaviour, Discard};
#[cfg(test)]
pub(crate) use service::Servers;
pub use service::Service;

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

/// A simulation: its seed, its faults, how its devices behave. Clones share them.
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
    media: HashMap<Target, Medium>,
    /// Writes of backends that are gone, which the devices still have.
    orphans: Vec<Orphan>,
    woken: bool,
    log: Vec<(Op, Target, u64)>,
    /// What was written to devices that behave in some way, in bytes, until somebody asks.
    written: Vec<(Target, Range<u64>)>,
    clock: Duration,
    /// The clock moves only when [`Sim::advance`] is called, and nothing waits.
    stepped: bool,
}

/// A write in flight when its backend went.
#[derive(Debug)]
struct Orphan {
    device: Arc<Device>,
    position: u64,
    bytes: Vec<u8>,
}

/// The longest that a healthy transfer takes, in virtual microseconds.
const LATENCY_USEC: u64 = 1000;

impl Sim {
    /// A simulation without faults.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: seed,
            rules: Vec::new(),
            media: HashMap::new(),
            orphans: Vec::new(),
            woken: false,
            log: Vec::new(),
            written: Vec::new(),
            clock: Duration::ZERO,
            stepped: false,
        };
        Self(Arc::new(Shared { state: Mutex::new(state), woken: Condvar::new() }))
    }

    /// A simulation whose clock stands still until it is told to [`advance`](Self::advance); no backend of it ever waits.
    #[cfg(test)]
    pub(crate) fn stepped(seed: u64) -> Self {
        let sim = Self::new(seed);
        sim.0.state.lock().stepped = true;
        sim
    }

    /// Sets the clock of a stepped simulation. It never goes back.
    #[cfg(test)]
    pub(crate) fn advance(&self, now: Duration) {
        let mut state = self.0.state.lock();
        assert!(state.stepped, "the clock of this simulation moves by itself");
        state.clock = state.clock.max(now);
    }

    /// Lets transfers of that kind fail when they touch one of these sectors; a flush touches all. `times`: how often.
    pub fn fault(&self, device: &Device, op: Op, sectors: Range<u64>, fault: Fault, times: Option<u32>) {
        let bytes = sectors.start * SECTOR_SIZE..sectors.end * SECTOR_SIZE;
        let rule = Rule { target: device.target(), op, bytes, fault, left: times };
        self.0.state.lock().rules.push(rule);
    }

    /// Lets a device behave like that from here on: its zones are empty, its cache is clean, nothing of it is allocated.
    pub fn behave(&self, device: &Device, behaviour: Behaviour) {
        let mut state = self.0.state.lock();
        let number = state.media.len();
        state.media.insert(device.target(), Medium::new(behaviour, number));
    }

    /// The zones of a [zoned](Behaviour::zone) device, as it would report them.
    pub fn zones(&self, device: &Device) -> Vec<Zone> {
        self.0.state.lock().media.get(&device.target()).map_or(Vec::new(), |medium| medium.zones(device.size()))
    }

    /// Chunks of a [thin](Behaviour::thin) device that were written, so that they take space.
    pub fn allocated(&self, device: &Device) -> usize {
        self.0.state.lock().media.get(&device.target()).map_or(0, Medium::allocated)
    }

    /// Mends every device: no faults any more. Behaviour stays.
    pub fn clear(&self) {
        self.0.state.lock().rules.clear();
    }

    /// Cuts the power of every device with a [cache](Behaviour::cache): of each sector that was written since the last flush one of
    /// its contents since then stays, as the seed decides. Writes in flight of backends that are gone arrive in part.
    pub fn power_cut(&self) {
        let mut state = self.0.state.lock();
        let state = &mut *state;
        for orphan in std::mem::take(&mut state.orphans) {
            state.land(&orphan, false);
        }
        let mut media: Vec<_> = state.media.iter_mut().collect();
        // The table has no order of its own, and the seed alone decides.
        media.sort_by_key(|(_, medium)| medium.number);
        for (_, medium) in media {
            medium.power_cut(|| random(&mut state.random));
        }
    }

    /// Writes to a device that were in flight when their backend went, and have not arrived.
    pub fn orphans(&self, device: &Device) -> usize {
        let state = self.0.state.lock();
        state.orphans.iter().filter(|orphan| orphan.device.target() == device.target()).count()
    }

    /// What was written since this was asked last, in bytes: to devices whose behaviour was [said](Self::behave).
    #[cfg(test)]
    pub(crate) fn take_written(&self) -> Vec<(Target, Range<u64>)> {
        std::mem::take(&mut self.0.state.lock().written)
    }

    /// The first of some sectors that a power cut now may change.
    #[cfg(test)]
    pub(crate) fn first_volatile(&self, device: &Device, sectors: Range<u64>) -> Option<u64> {
        self.0.state.lock().media.get(&device.target())?.first_volatile(device, sectors)
    }

    /// Lets those writes arrive.
    pub fn land_orphans(&self, device: &Device) {
        let mut state = self.0.state.lock();
        for orphan in std::mem::take(&mut state.orphans) {
            if orphan.device.target() == device.target() {
                state.land(&orphan, true);
            } else {
                state.orphans.push(orphan);
            }
        }
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
        SimBackend::new(Arc::clone(&self.0))
    }
}

/// The next pseudo-random number (splitmix64).
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl State {
    fn random(&mut self) -> u64 {
        random(&mut self.random)
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

    /// How long a transfer takes that is submitted now.
    fn latency(&mut self, transfer: &Transfer, now: Duration) -> Duration {
        let Transfer { device, position, length, .. } = transfer;
        let random = self.random();
        let mut range = None;
        if let Some(medium) = self.media.get_mut(&device.target()) {
            if let Some(service) = &medium.behaviour.service {
                let end = medium.servers.serve(service, now, *position, *length, random);
                return end.saturating_sub(now);
            }
            range.clone_from(&medium.behaviour.latency);
        }
        let range = range.unwrap_or(Duration::ZERO..Duration::from_micros(LATENCY_USEC));
        let spread = u64::try_from((range.end.saturating_sub(range.start)).as_micros()).unwrap_or(u64::MAX).max(1);
        range.start + Duration::from_micros(random % spread)
    }

    /// Writes what a backend that is gone had in flight: all of it, or the sectors that the seed picks.
    fn land(&mut self, orphan: &Orphan, whole: bool) {
        use std::os::unix::fs::FileExt;
        for (at, sector) in (orphan.position..).step_by(512).zip(orphan.bytes.chunks(512)) {
            if (whole || self.random().is_multiple_of(2))
                && (orphan.device.can_grow() || at < orphan.device.size().bytes())
            {
                if let Some(medium) = self.media.get_mut(&orphan.device.target()) {
                    medium.before_write(&orphan.device, at, sector.len() as u64);
                }
                // One that does not arrive was lost on the way.
                let _ = orphan.device.file().write_all_at(sector, at);
            }
        }
    }
}
