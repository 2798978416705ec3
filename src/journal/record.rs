//! What of a job outlives the daemon: plain data, nothing is decided here.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use super::state::{JobId, State};
use crate::figures::{BadRange, Speeds};
use crate::sector::{SECTOR_SIZE, Sector};

/// Ranges in a record at most, those of `bad` aside, which have a limit of their own: a record of any job is a file that the
/// next start reads.
pub(super) const RANGES_MAX: usize = 1 << 20;

/// A job as it is kept.
// Independent questions: none rules another out.
#[allow(clippy::struct_excessive_bools)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The job's number, from 1.
    pub(crate) id: JobId,
    /// When it was made. A time before 1970 is kept as 1970.
    pub(crate) created: SystemTime,
    /// The last progress, or when it was made.
    pub(crate) progressed: SystemTime,
    /// When it ran first, and when it ended.
    pub(crate) started: Option<SystemTime>,
    pub(crate) ended: Option<SystemTime>,
    /// The job as a canonical line, any bytes.
    pub(crate) spec: Vec<u8>,
    /// Where it was in its life.
    pub(crate) state: State,
    /// Why it failed, is held, or waits.
    pub(crate) error: Option<String>,
    /// Whether a read failed for good.
    pub(crate) read_err: bool,
    /// Bit i: destination i failed.
    pub(crate) write_err: u64,
    /// The job that it was to start after is done, and may have been dismissed since.
    pub(crate) followed: bool,
    /// The job that it is to start after, by number. Older records say it in their spec alone.
    pub(crate) leader: Option<JobId>,
    /// It has its bytes: no other job writes what it reads, or touches what it writes.
    pub(crate) claimed: bool,
    /// Bytes to copy.
    pub(crate) total: u64,
    /// Sectors from..to of the job that every destination has taken that was alive last.
    pub(crate) common: Vec<(u64, u64)>,
    /// Bytes of that which survive a power cut.
    pub(crate) durable: u64,
    /// Source bytes that could not be read.
    pub(crate) bad_bytes: u64,
    /// Reads that failed, also those that succeeded when they were tried again. 0 in records that do not know.
    pub(crate) read_errors: u64,
    /// Bytes that were compared. 0 in records that do not know.
    pub(crate) verified_bytes: u64,
    /// Sectors from..to of the job that `changed` found equal. Empty in records that do not know.
    pub(crate) same: Vec<(u64, u64)>,
    /// Of a test: what its pattern is made from.
    pub(crate) seed: Option<u64>,
    /// Running time, pauses not counted.
    pub(crate) elapsed: Duration,
    /// Bytes per second at the end.
    pub(crate) final_speed: u64,
    /// Its speed over all the running time. Empty in records that do not know.
    pub(crate) speeds: Speeds,
    /// `sha256:HEX` when done.
    pub(crate) digest: Option<String>,
    /// Whether the destinations were read back and compared.
    pub(crate) verified: bool,
    /// The source, where there is one.
    pub(crate) source: Option<Side>,
    /// The destinations, in order.
    pub(crate) dests: Vec<Side>,
    /// Ranges that could not be read or written, in sectors of their device.
    pub(crate) bad: Vec<BadRange>,
    /// Sectors from..to of the job, counted from its start, that could not be read.
    pub(crate) unreadable: Vec<(u64, u64)>,
}

/// One device of a job as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Side {
    /// What [`identity`](crate::blkdev::identity) said of it; empty where it knew nothing.
    pub(crate) identity: String,
    /// What people call it, as [`DeviceCard::line`](crate::blkdev::DeviceCard::line) prints it; empty where it was not looked at.
    pub(crate) card: String,
    /// The bytes of its region by names that last, as [`claims`](crate::claims) prints them; empty where it was not looked at.
    pub(crate) bytes: String,
    /// Sectors from..to of the job that another one has written since.
    pub(crate) overwritten: Vec<(u64, u64)>,
    /// Sectors from..to of the job, counted from its start, that survive a power cut there.
    pub(crate) durable: Vec<(u64, u64)>,
    /// Failed pieces.
    pub(crate) errors: u64,
    /// The first failure's errno and the sector on the device.
    pub(crate) first_error: Option<(i32, Sector)>,
    /// Whether it was given up.
    pub(crate) failed: bool,
    /// Whether an administrator gave it up.
    pub(crate) dropped: bool,
    /// Whether a flush of it has failed once.
    pub(crate) doubted: bool,
    /// Bytes written.
    pub(crate) copied: u64,
    /// Sectors from..to of the job that it has taken: more than what is durable only where the job has ended.
    pub(crate) taken: Vec<(u64, u64)>,
    /// Sectors from..to of the job where it durably holds zeros for what could not be read. Empty in records that do not know.
    pub(crate) zeroed: Vec<(u64, u64)>,
}

impl Record {
    /// Keeps no more than [`RANGES_MAX`] ranges: the longest. What a job does not know any more after a restart it reads, or
    /// copies, again; of what others have written there it takes too much for changed rather than too little.
    pub(crate) fn bound(&mut self) {
        let ranges: usize = self.sets().iter().map(|set| set.len()).sum();
        let overwritten: usize = self.dests.iter().map(|dest| dest.overwritten.len()).sum();
        if ranges + overwritten <= RANGES_MAX {
            return;
        }
        let whole = |set: &[(u64, u64)]| Some((set.first()?.0, set.last()?.1));
        self.dests.iter_mut().for_each(|dest| dest.overwritten = whole(&dest.overwritten).into_iter().collect());
        let unreadable = sectors(&self.unreadable);
        self.keep_longest(ranges.saturating_sub(RANGES_MAX));
        if !self.state.is_ended() {
            // They are counted again when they are read again.
            let forgotten = unreadable - sectors(&self.unreadable);
            self.bad_bytes = self.bad_bytes.saturating_sub(forgotten * SECTOR_SIZE);
        }
    }

    /// Leaves out so many ranges at least: the shortest, of these the last. What is left out of one set is left out of all.
    fn keep_longest(&mut self, too_many: usize) {
        let rank = |range: &(u64, u64)| (length(range), Reverse(range.0));
        let mut ranks: Vec<_> = self.sets().iter().flat_map(|set| set.iter().map(rank)).collect();
        let Some(last) = too_many.checked_sub(1) else { return };
        let limit = *ranks.select_nth_unstable(last).1;
        self.sets().into_iter().for_each(|set| set.retain(|range| rank(range) > limit));
    }

    /// Its ranges of which each may be left out.
    fn sets(&mut self) -> Vec<&mut Vec<(u64, u64)>> {
        let dests = self.dests.iter_mut().flat_map(|dest| [&mut dest.durable, &mut dest.taken, &mut dest.zeroed]);
        dests.chain([&mut self.common, &mut self.unreadable, &mut self.same]).collect()
    }
}

fn length((start, end): &(u64, u64)) -> u64 {
    end - start
}

fn sectors(set: &[(u64, u64)]) -> u64 {
    set.iter().map(length).sum()
}
