//! Block-copy jobs as files: the kernel's kcopyd and dm-io in user space, and a mounted control tree that drives them.
//!
//! ```text
//! echo SPEC ──> fs ──> spec ──> jobs ──> kcopyd ──> dm_io ──> io ──> device
//!                                 │                                     │
//! cat status <── fs <── jobs <────┴── kcopyd <── dm_io <── io <─────────┘   completions go up as values
//! ```
//!
//! | room | what it does |
//! |---|---|
//! | [`fs`] | the mounted tree: names, modes, text, handles |
//! | [`jobs`] | the life of an administrator's job: opening, running, figures, verdict |
//! | `salvage` | what a job does next, from its figures |
//! | `journal` | the records of jobs on disk |
//! | `claims` | whose bytes: who reads and writes what, who goes first, who has lost what |
//! | `figures` | what is known of a job's bytes |
//! | [`spec`] | the text language of jobs |
//! | [`kcopyd`] | clients and jobs, cut into sub-jobs, with errors and order as the kernel's kcopyd has them |
//! | [`dm_io`] | one I/O to one or many regions, with a bit an error |
//! | [`io`] | how a transfer reaches a device: ring, threads, simulation; the page pool |
//! | [`blkdev`] | how a device is opened, measured and shared |
//! | `os` | what the system tells: mounts |
//! | [`sector`], [`error`] | the units, and what can go wrong |
//! | [`cli`] | arguments, options, signals, the background |
//!
//! Imports go down this table only. The engine, from `kcopyd` down, is a library without FUSE and without root.
//!
//! # Examples
//! A copy to two destinations:
//! ```
//! use kcopyfs::blkdev::Device;
//! use kcopyfs::dm_io::IoRegion;
//! use kcopyfs::io::PagePool;
//! use kcopyfs::kcopyd::{Client, Flags, Settings};
//! use kcopyfs::{Result, Sector};
//!
//! fn main() -> Result<()> {
//!     let size = Sector::from_bytes(1 << 20).expect("whole sectors");
//!     // Disks in memory; `blkdev::open_source` and `blkdev::open_dest` open real ones.
//!     let disk = Device::in_memory(size, 512)?;
//!     let copies = [Device::in_memory(size, 512)?, Device::in_memory(size, 512)?];
//!     let whole = |device| IoRegion::new(device, Sector::ZERO, size);
//!
//!     let pool = PagePool::new(1024)?;
//!     let client = Client::create(&pool, 256, Settings::default())?;
//!     let (told, ended) = std::sync::mpsc::channel();
//!     let dests = copies.each_ref().map(whole);
//!     client.copy(&whole(&disk), &dests, Flags::NONE, "my context", move |outcome, context| {
//!         told.send((outcome, context)).expect("somebody listens");
//!     })?;
//!     let (outcome, context) = ended.recv().expect("a job always ends");
//!     assert!(!outcome.read_err && outcome.write_err.is_empty() && context == "my context");
//!     client.destroy();
//!     Ok(())
//! }
//! ```
//! What such a program does when a disk fails can be tried on [`io::sim`].

// Tests number their disks and bytes with whatever integer is at hand.
#![cfg_attr(test, allow(clippy::cast_possible_truncation, clippy::similar_names))]

pub mod blkdev;
mod claims;
pub mod cli;
pub mod dm_io;
pub mod error;
mod figures;
pub mod fs;
pub mod io;
pub mod jobs;
mod journal;
pub mod kcopyd;
mod mailbox;
pub(crate) mod os;
mod salvage;
pub mod sector;
pub mod signatures;
pub mod spec;

pub use error::{Error, ErrorKind, Result};
pub use sector::{SECTOR_SIZE, Sector};
