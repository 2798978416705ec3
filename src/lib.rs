//! Block-copy jobs as files: the kernel's kcopyd and dm-io in user space, and a mounted control tree that drives them.
// Tests number their disks and bytes with whatever integer is at hand.
#![cfg_attr(test, allow(clippy::cast_possible_truncation, clippy::similar_names))]

pub mod blkdev;
pub mod cli;
pub mod dm_io;
pub mod error;
pub mod io;
pub mod jobs;
pub mod kcopyd;
mod mailbox;
pub mod sector;
pub mod spec;

pub use error::{Error, ErrorKind, Result};
pub use sector::{SECTOR_SIZE, Sector};
