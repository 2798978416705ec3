//! How a device is opened, measured and judged.
//!
//! A [`Device`] is a block device or regular file that was opened once, by path, and is judged by that descriptor alone
//! from then on. [`Devices`] is the daemon's table of destinations in use: all jobs that write to one block device
//! share its one exclusive descriptor.
//!
//! What keeps jobs from destroying data, in the order in which a job asks:
//! 1. [`Devices::open_dest`] locks the whole disk (`disk_lock`), so that udev leaves it alone, and opens a block device with `O_EXCL`: the
//!    kernel refuses what is mounted, swap or held under that number;
//! 2. [`Holders`] refuses what the kernel does not see: bytes that are in use under another name, or through a loop
//!    device;
//! 3. [`resolve()`] follows a region down to the disks and files it really reaches, as [`Extent`]s;
//!    [`lasting()`] names them by what outlives a restart;
//! 4. `claims`, the room above, compares a job with itself and with all other jobs.
//!
//! Who owns what: a `Device` owns its descriptor and closes it when the last `Arc` goes; with it go the lock and the `O_EXCL`
//! hold. A look ([`OpenDest::look`]) goes the same way, and judges the same, with descriptors that can only be read.

mod card;
mod device;
mod discards;
mod disk_lock;
mod dm;
mod extent;
mod holders;
mod holes;
mod identity;
mod lasting;
mod open;
mod resolve;
mod settled;
mod shared_look;
mod sys;
mod sysfs;
mod table;
mod topology;
mod zones;

pub use card::{DeviceCard, Thermometer, word};
pub(crate) use device::MadeFile;
pub use device::{CUT, DELETED, Device, GONE, HELD, Target, fence_all};
pub use extent::{Extent, Place};
pub use holders::{Holder, HolderKind, Holders, in_use};
pub use identity::identity;
pub use lasting::{LastingExtent, lasting};
pub use open::{OpenDest, look_at, open_dest, open_source};
pub use resolve::resolve;
pub use table::{Devices, clash_within};
pub(crate) use zones::reset;
pub use zones::{Zone, ZoneKind, refuse_used_zones, refuse_zones, unwritten};
