//! How a device is opened, measured and judged.
//!
//! A [`Device`] is a block device or regular file that was opened once, by path, and is judged by that descriptor alone
//! from then on. [`Devices`] is the daemon's table of destinations in use: all jobs that write to one block device share
//! its one exclusive descriptor.
//!
//! Who owns what: a `Device` owns its descriptor and closes it when the last `Arc` goes; with it goes the `O_EXCL` hold.

mod device;
mod open;
mod sys;
mod table;

pub use device::{Device, Target};
pub use open::{OpenDest, open_dest, open_source};
pub use table::Devices;
