//! The destinations in use: one exclusive descriptor for each block device, shared by all jobs that write to it.
//!
//! A second exclusive open of a block device fails, also from the same process, so jobs find the first one's descriptor
//! here. Regular files take no exclusive open and each job has its own descriptor.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::card::DeviceCard;
use super::device::{Device, Target};
use super::disk_lock::{Attempt, DiskLock};
use super::holders::Holders;
use super::open::{OpenDest, judge, open_dest};
use super::shared_look::{Moment, SharedLook};
use super::sysfs::{self, disk_of};
use crate::error::{Error, ErrorKind, Result};

/// A close that another thread has begun takes microseconds; these bound how long an open waits for it.
const CLOSING_LOOKS: u32 = 20;
const CLOSING_PAUSE: Duration = Duration::from_millis(5);
/// udev looks at a disk for some milliseconds, more on a slow one; these bound how long an open waits for a prober.
const LOCK_TRIES: u32 = 60;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Cards beyond which those that nobody has any more are looked for.
const CARDS_SWEPT: usize = 64;
/// How long a card is taken for true where the disk is the same: udev may learn more of a new one.
const CARD_FRESH: Duration = Duration::from_secs(5);

/// A card that was read.
#[derive(Clone, Debug)]
struct KnownCard {
    /// The number that the kernel gave to the disk when it appeared.
    disk: Option<String>,
    read_at: Instant,
    card: Weak<DeviceCard>,
}

/// The table of destinations in use.
///
/// # Invariants
/// It owns nothing: a device closes when the last job lets go of it, and its entry is then dead.
#[derive(Debug, Default)]
pub struct Devices {
    exclusive: Mutex<HashMap<Target, Weak<Device>>>,
    /// What was read last of each device that a job has: many jobs of one device share it.
    cards: Mutex<HashMap<Target, KnownCard>>,
    /// The disks of these destinations, by number.
    locks: Mutex<HashMap<u64, Weak<DiskLock>>>,
    /// Disks of which something is held for a moment by those who only look, and how many those are.
    looks: Mutex<HashMap<u64, usize>>,
    holders: SharedLook,
}

impl Devices {
    /// Everything on this system that is in use from here on: those who ask share a look.
    ///
    /// # Errors
    /// As [`Holders::read`].
    pub fn holders(&self) -> Result<Arc<Holders>> {
        self.holders.holders(Moment::now, Holders::read)
    }

    /// Opens a destination, or shares the descriptor that another job has of the same block device.
    pub fn open_dest(&self, path: &Path, how: OpenDest) -> Result<Arc<Device>> {
        if let Some(device) = self.shared(path) {
            return Ok(device);
        }
        let disk = disk_at(path);
        let lock = disk.map(|disk| self.lock_disk(path, disk, how.look)).transpose()?.flatten();
        for _ in 0..CLOSING_LOOKS {
            match self.open_now(path, disk, how) {
                Ok(mut device) => {
                    if let Some(device) = Arc::get_mut(&mut device) {
                        device.disk_lock = lock;
                    }
                    return Ok(if how.force || how.look { device } else { self.enter(device) });
                }
                Err(error) if error.kind() != ErrorKind::Busy => return Err(error),
                Err(error) => match self.shared(path) {
                    // Another job opened it between the look and the open.
                    Some(device) => return Ok(device),
                    None if !self.is_closing(path) => return Err(error),
                    None => std::thread::sleep(CLOSING_PAUSE),
                },
            }
        }
        self.open_now(path, disk, how)
    }

    /// Opens it. Others know of a look, which holds the device for a moment.
    fn open_now(&self, path: &Path, disk: Option<u64>, how: OpenDest) -> Result<Arc<Device>> {
        let looked_at = disk.filter(|_| how.look);
        let count = |by: isize| {
            let Some(disk) = looked_at else { return };
            let mut looks = self.looks.lock();
            let now = looks.get(&disk).copied().unwrap_or(0).saturating_add_signed(by);
            _ = if now == 0 { looks.remove(&disk) } else { looks.insert(disk, now) };
        };
        count(1);
        let device = open_dest(path, how);
        count(-1);
        device
    }

    /// Locks a disk, or shares the lock that another destination has on it; `None` where it cannot be locked. With `look` it only
    /// says who has it.
    ///
    /// # Errors
    /// `Busy`, with who has it locked.
    fn lock_disk(&self, path: &Path, disk: u64, look: bool) -> Result<Option<Arc<DiskLock>>> {
        let mut tries = 0..LOCK_TRIES;
        loop {
            if let Some(lock) = self.locks.lock().get(&disk).and_then(Weak::upgrade) {
                return Ok(Some(lock).filter(|_| !look));
            }
            let attempt = if look {
                DiskLock::holder(disk).map_or(Attempt::NoNode, Attempt::Held)
            } else {
                DiskLock::attempt(disk)
            };
            match attempt {
                Attempt::NoNode => return Ok(None),
                Attempt::Failed(error) => return Err(Error::os(format!("open {}", path.display()), error)),
                Attempt::Locked(new) => {
                    let new = Arc::new(new);
                    let mut all = self.locks.lock();
                    all.retain(|_, lock| lock.strong_count() > 0);
                    all.insert(disk, Arc::downgrade(&new));
                    return Ok(Some(new));
                }
                // Another destination of ours takes it, or lets go of it, just now.
                Attempt::Held(holder) if holder.is_us() || holder.is_brief() => {
                    if tries.next().is_none() {
                        return Err(holder.error(path));
                    }
                    std::thread::sleep(LOCK_PAUSE);
                }
                Attempt::Held(holder) => return Err(holder.error(path)),
            }
        }
    }

    /// Whether the last job that wrote to it has let go, and its close is under way; or somebody looks at it.
    fn is_closing(&self, path: &Path) -> bool {
        let Ok(place) = judge(path, libc::O_PATH) else { return false };
        let is_closing = self.exclusive.lock().get(&place.target).is_some_and(|device| device.strong_count() == 0);
        is_closing || disk_at(path).is_some_and(|disk| self.looks.lock().contains_key(&disk))
    }

    /// The destination in use here that keeps `path` from being opened: the disk of a partition, or a partition of a disk.
    pub fn in_the_way(&self, path: &Path) -> Option<Arc<Device>> {
        let Target::Block { rdev } = judge(path, libc::O_PATH).ok()?.target else { return None };
        let held: Vec<_> = self.exclusive.lock().values().filter_map(Weak::upgrade).collect();
        held.into_iter().find(|device| cannot_be_held_with(rdev, device))
    }

    /// What people call an open device. Many small jobs of one device do not read it each for itself.
    pub fn card(&self, device: &Device) -> Arc<DeviceCard> {
        let disk = match device.target() {
            Target::Block { rdev } => sysfs::settled_text(&sysfs::node(disk_of(rdev)).join("diskseq")),
            Target::File { .. } | Target::Memory { .. } => None,
        };
        let known =
            self.cards.lock().get(&device.target()).and_then(|known| known.card.upgrade().zip(Some(known.clone())));
        if let Some((card, known)) = &known
            && known.read_at.elapsed() < CARD_FRESH
            && (&known.disk, card.size) == (&disk, device.size().bytes())
        {
            return Arc::clone(card);
        }
        let mut card = Arc::new(DeviceCard::of(device));
        if let Some((known, _)) = known.filter(|(known, _)| known.is_like(&card)) {
            card = known;
        }
        let mut cards = self.cards.lock();
        if cards.len() >= 2 * CARDS_SWEPT.max(cards.values().filter(|known| known.card.strong_count() > 0).count()) {
            cards.retain(|_, known| known.card.strong_count() > 0);
        }
        cards.insert(device.target(), KnownCard { disk, read_at: Instant::now(), card: Arc::downgrade(&card) });
        card
    }

    /// How many block devices are held now.
    pub fn held(&self) -> usize {
        self.exclusive.lock().values().filter(|device| device.strong_count() > 0).count()
    }

    fn shared(&self, path: &Path) -> Option<Arc<Device>> {
        let target = judge(path, libc::O_PATH).ok()?.target;
        self.exclusive.lock().get(&target)?.upgrade()
    }

    fn enter(&self, device: Arc<Device>) -> Arc<Device> {
        if matches!(device.target(), Target::Block { .. }) {
            let mut table = self.exclusive.lock();
            table.retain(|_, device| device.strong_count() > 0);
            table.insert(device.target(), Arc::downgrade(&device));
        }
        device
    }
}

/// The whole disk of the block device at a path. Whatever is wrong with it, an open will say.
fn disk_at(path: &Path) -> Option<u64> {
    match judge(path, libc::O_PATH).ok()?.target {
        Target::Block { rdev } => Some(disk_of(rdev)),
        Target::File { .. } | Target::Memory { .. } => None,
    }
}

/// Whether the kernel lets nobody hold both exclusively: one is a partition of the other.
fn cannot_be_held_with(rdev: u64, device: &Device) -> bool {
    let Target::Block { rdev: theirs } = device.target() else { return false };
    let disk = disk_of(rdev);
    theirs != rdev && (theirs == disk || rdev == disk) && disk_of(theirs) == disk
}

/// Why a destination that is busy cannot be had beside the job's own earlier ones, `dests`: one is a partition of the other.
/// `None` where they are not what keeps it.
pub fn clash_within(path: &Path, dests: &[Arc<Device>]) -> Option<Error> {
    let Target::Block { rdev } = judge(path, libc::O_PATH).ok()?.target else { return None };
    let index = dests.iter().position(|dest| cannot_be_held_with(rdev, dest))?;
    let (path, own) = (path.display(), dests[index].path().display());
    let what = if disk_of(rdev) == rdev { "is the disk of" } else { "is a partition of" };
    let what = format!(
        "{path} {what} {own}, this job's destination {index}: a disk and its partition cannot be written at once, give \
         both regions by the name of the disk"
    );
    Some(Error::new(ErrorKind::Overlap, what))
}
