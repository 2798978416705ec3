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
use super::open::{OpenDest, judge, open_dest};
use super::sysfs::{self, disk_of};
use crate::error::{Error, ErrorKind, Result};

/// A close that another thread has begun takes microseconds; these bound how long an open waits for it.
const CLOSING_LOOKS: u32 = 20;
const CLOSING_PAUSE: Duration = Duration::from_millis(5);

/// Cards beyond which those that nobody has any more are looked for.
const CARDS_SWEPT: usize = 64;
/// How long a card is taken for true where the disk is the same: udev may learn more of a new one.
const CARD_FRESH: Duration = Duration::from_secs(5);

/// A card that was read.
#[derive(Clone, Debug)]
struct KnownCard {
    /// The number that the kernel gave to the disk when it appeared.
    disk: Option<u64>,
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
}

impl Devices {
    /// Opens a destination, or shares the descriptor that another job has of the same block device.
    pub fn open_dest(&self, path: &Path, how: OpenDest) -> Result<Arc<Device>> {
        if let Some(device) = self.shared(path) {
            return Ok(device);
        }
        for _ in 0..CLOSING_LOOKS {
            match open_dest(path, how) {
                Ok(device) if how.force => return Ok(device),
                Ok(device) => return Ok(self.enter(device)),
                Err(error) if error.kind() != ErrorKind::Busy => return Err(error),
                Err(error) => match self.shared(path) {
                    // Another job opened it between the look and the open.
                    Some(device) => return Ok(device),
                    None if !self.is_closing(path) => return Err(error),
                    None => std::thread::sleep(CLOSING_PAUSE),
                },
            }
        }
        open_dest(path, how)
    }

    /// Whether the last job that wrote to it has let go, and its close is under way.
    fn is_closing(&self, path: &Path) -> bool {
        let Ok(place) = judge(path, libc::O_PATH) else { return false };
        self.exclusive.lock().get(&place.target).is_some_and(|device| device.strong_count() == 0)
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
            Target::Block { rdev } => sysfs::number(&sysfs::node(disk_of(rdev)).join("diskseq")),
            Target::File { .. } | Target::Memory { .. } => None,
        };
        let known = self.cards.lock().get(&device.target()).and_then(|known| known.card.upgrade().zip(Some(known.clone())));
        if let Some((card, known)) = &known
            && known.read_at.elapsed() < CARD_FRESH
            && (known.disk, card.size) == (disk, device.size().bytes())
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
