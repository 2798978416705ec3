//! A disk's temperature, as hwmon has it.
//!
//! Reading it makes the driver ask the disk, which may never answer. So it is read by a thread of its own, of which a disk has
//! one at most, and whoever wants to know gets what was read last and never waits.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A reading that is older is taken anew when somebody asks.
const FRESH: Duration = Duration::from_secs(10);
/// Older than this it says nothing any more: the disk does not answer.
const STALE: Duration = Duration::from_secs(600);

/// Where a disk's temperature is read, and what was read last.
#[derive(Debug)]
pub struct Thermometer {
    path: PathBuf,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    celsius: Option<i64>,
    read_at: Option<Instant>,
    is_reading: bool,
}

impl Thermometer {
    /// That of a disk, by its directory in sysfs, with a first reading under way; `None` where it has none.
    pub(super) fn of(disk: &Path) -> Option<Arc<Self>> {
        let path = sensor(disk)?;
        let thermometer = Arc::new(Self { path, last: Mutex::default() });
        Self::celsius(&thermometer);
        Some(thermometer)
    }

    /// Degrees Celsius at the last reading; has it read anew where that is some seconds ago.
    pub fn celsius(this: &Arc<Self>) -> Option<i64> {
        let mut last = this.last.lock();
        let age = last.read_at.map(|read_at| read_at.elapsed());
        if !last.is_reading && age.is_none_or(|age| age > FRESH) {
            let reader = Arc::clone(this);
            let started = thread::Builder::new().name("thermometer".into()).spawn(move || reader.read());
            last.is_reading = started.is_ok();
        }
        last.celsius.filter(|_| age.is_some_and(|age| age < STALE))
    }

    fn read(&self) {
        let text = fs::read_to_string(&self.path).ok();
        let celsius = text.and_then(|text| text.trim().parse::<i64>().ok()).map(|milli| (milli + 500).div_euclid(1000));
        *self.last.lock() = Last { celsius, read_at: Some(Instant::now()), is_reading: false };
    }
}

/// The first sensor of a disk: of the SCSI device (drivetemp), or of the controller of an NVM disk, or of one of several.
fn sensor(disk: &Path) -> Option<PathBuf> {
    let device = disk.join("device");
    let controllers = entries(&device, "nvme");
    let places = [device.clone(), device.join("hwmon"), device.join("device")];
    let places = places.into_iter().chain(controllers);
    places.flat_map(|place| entries(&place, "hwmon")).map(|place| place.join("temp1_input")).find(|path| path.exists())
}

/// What a directory has whose name begins so, in order.
fn entries(directory: &Path, begin: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(begin))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}
