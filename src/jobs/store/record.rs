//! What of a job outlives the daemon: plain data, nothing is decided here.

use std::time::{Duration, SystemTime};

use crate::jobs::view::{BadRange, JobId, State};
use crate::sector::Sector;

/// A job as it is kept.
// Independent questions: none rules another out.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::jobs) struct Record {
    /// The job's number, from 1.
    pub(in crate::jobs) id: JobId,
    /// When it was made. A time before 1970 is kept as 1970.
    pub(in crate::jobs) created: SystemTime,
    /// The last progress, or when it was made.
    pub(in crate::jobs) progressed: SystemTime,
    /// The job as a canonical line, any bytes.
    pub(in crate::jobs) spec: Vec<u8>,
    /// Where it was in its life.
    pub(in crate::jobs) state: State,
    /// Why it failed, is held, or waits.
    pub(in crate::jobs) error: Option<String>,
    /// Whether a read failed for good.
    pub(in crate::jobs) read_err: bool,
    /// Bit i: destination i failed.
    pub(in crate::jobs) write_err: u64,
    /// The job that it was to start after is done, and may have been dismissed since.
    pub(in crate::jobs) followed: bool,
    /// It has its bytes: no other job writes what it reads, or touches what it writes.
    pub(in crate::jobs) claimed: bool,
    /// Bytes to copy.
    pub(in crate::jobs) total: u64,
    /// Sectors from..to of the job that every destination has taken that was alive last.
    pub(in crate::jobs) common: Vec<(u64, u64)>,
    /// Bytes of that which survive a power cut.
    pub(in crate::jobs) durable: u64,
    /// Source bytes that could not be read.
    pub(in crate::jobs) bad_bytes: u64,
    /// Running time, pauses not counted.
    pub(in crate::jobs) elapsed: Duration,
    /// Bytes per second at the end.
    pub(in crate::jobs) final_speed: u64,
    /// `sha256:HEX` when done.
    pub(in crate::jobs) digest: Option<String>,
    /// Whether the destinations were read back and compared.
    pub(in crate::jobs) verified: bool,
    /// The source, where there is one.
    pub(in crate::jobs) source: Option<Side>,
    /// The destinations, in order.
    pub(in crate::jobs) dests: Vec<Side>,
    /// Ranges that could not be read or written, in sectors of their device.
    pub(in crate::jobs) bad: Vec<BadRange>,
    /// Sectors from..to of the job, counted from its start, that could not be read.
    pub(in crate::jobs) unreadable: Vec<(u64, u64)>,
}

/// One device of a job as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::jobs) struct Side {
    /// What [`identity`](crate::blkdev::identity) said of it; empty where it knew nothing.
    pub(in crate::jobs) identity: String,
    /// Sectors from..to of the job, counted from its start, that survive a power cut there.
    pub(in crate::jobs) durable: Vec<(u64, u64)>,
    /// Failed pieces.
    pub(in crate::jobs) errors: u64,
    /// The first failure's errno and the sector on the device.
    pub(in crate::jobs) first_error: Option<(i32, Sector)>,
    /// Whether it was given up.
    pub(in crate::jobs) failed: bool,
    /// Bytes written.
    pub(in crate::jobs) copied: u64,
    /// Sectors from..to of the job that it has taken: more than what is durable only where the job has ended.
    pub(in crate::jobs) taken: Vec<(u64, u64)>,
}
