//! Block-copy jobs as files: the kernel's kcopyd and dm-io in user space, and a mounted control tree that drives them.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod blkdev;
pub mod dm_io;
pub mod cli;
pub mod error;
pub mod io;
pub mod jobs;
pub mod kcopyd;
mod mailbox;
pub mod sector;
pub mod spec;

pub use error::{Error, ErrorKind, Result};
pub use sector::{SECTOR_SIZE, Sector};
