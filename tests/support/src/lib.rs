//! Fixtures of the kcopyfs tests, used in the process of the test.
//!
//! - [`faultdisk`]: a block device whose faults are set while it is in use
//! - [`loopdev`]: a plain loop device over a scratch image
//! - [`stamp`]: data that says where it belongs, and the seeded randomness behind every test
//! - [`mounted`]: file systems that a test mounts
//! - [`direct`]: `O_DIRECT` reads and writes of whole blocks
//! - [`daemon`]: the program under test, mounted on a fresh directory
//! - [`poll`]: waiting for what no event tells
//! - [`need`]: what a test needs from the machine, and loud skips
//! - [`control`]: the text commands of the `faultdisk` program, for shell scripts
//!
//! Whatever a fixture makes goes away when it is dropped, also after a panic. What a killed test process left behind is
//! swept when the next one starts: see [`sweep`](fn@sweep::sweep).
//!
//! Functions here panic where the system fails them: that fails the test, with the reason.
#![allow(clippy::missing_panics_doc)]

pub mod control;
pub mod daemon;
pub mod direct;
pub mod faultdisk;
pub mod loopdev;
pub mod mounted;
pub mod need;
pub mod poll;
pub mod stamp;
pub mod sweep;

mod looping;
mod mounts;
mod process;

pub use daemon::Daemon;
pub use faultdisk::{Fault, FaultDisk, Op, PowerCut};
pub use loopdev::LoopDevice;
pub use mounted::MountPoint;
pub use poll::until;
pub use stamp::Rng;
pub use sweep::sweep;
