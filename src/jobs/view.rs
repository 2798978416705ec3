//! What a job looks like from outside: a consistent snapshot of its figures, without text.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::blkdev::DeviceCard;
use crate::error::Error;
pub use crate::figures::{BadKind, BadRange, CELLS_MAX, Cell, Cells, DestState, Rate};
pub use crate::journal::{JobId, State};
pub use crate::kcopyd::Limit;
use crate::kcopyd::PaceFigures;
use crate::sector::Sector;
use crate::spec::Place;
pub use crate::spec::Policy;

/// What `control` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Take no new piece until `resume`.
    Pause,
    /// Go on.
    Resume,
    /// End it.
    Cancel,
    /// Try again what is not yet durable, from now on with that policy.
    Retry(Policy),
    /// Read the destinations back and compare.
    Verify,
    /// Give that destination up.
    Drop(usize),
}

impl Verb {
    /// One of each, in the order of the documentation.
    pub const ALL: [Self; 6] =
        [Self::Pause, Self::Resume, Self::Cancel, Self::Retry(Policy::SAME), Self::Verify, Self::Drop(0)];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Retry(_) => "retry",
            Self::Verify => "verify",
            Self::Drop(_) => "drop",
        }
    }
}

/// One destination's figures.
#[derive(Clone, Debug)]
pub struct DestView {
    /// Where it is in its life.
    pub state: DestState,
    /// Bytes written.
    pub copied: u64,
    /// Bytes that survive a power cut now.
    pub durable: u64,
    /// Failed pieces.
    pub errors: u64,
    /// The first failure's errno and the sector on the destination's device.
    pub first_error: Option<(i32, Sector)>,
    /// The path as the spec says it.
    pub path: OsString,
}

/// The device of one region.
#[derive(Clone, Debug)]
pub struct DeviceView {
    /// Which destination's; `None`: the source's.
    pub dest: Option<usize>,
    /// What people call it; `None` where it was not open yet.
    pub card: Option<Arc<DeviceCard>>,
    /// The path as the spec says it.
    pub path: OsString,
}

/// A job's figures at one moment; they agree with each other.
#[derive(Clone, Debug)]
pub struct View {
    /// The job's number.
    pub id: JobId,
    /// Where it is in its life.
    pub state: State,
    /// Whether a read failed for good.
    pub read_err: bool,
    /// Bit i: destination i failed.
    pub write_err: u64,
    /// Bytes to copy.
    pub total: u64,
    /// Bytes that every live destination has taken.
    pub copied: u64,
    /// Bytes that survive a power cut now.
    pub durable: u64,
    /// Bytes per second over the last 5 s.
    pub speed: u64,
    /// Time left, where an honest figure exists.
    pub eta: Option<Duration>,
    /// Running time, pauses not counted.
    pub elapsed: Duration,
    /// Since the last completed I/O while some is in flight.
    pub stalled: Duration,
    /// Source bytes that could not be read.
    pub bad_bytes: u64,
    /// The client whose pages it uses.
    pub client: String,
    /// The label, where one was given.
    pub name: Option<String>,
    /// `sha256:HEX` when done.
    pub digest: Option<String>,
    /// Why it failed, is held, or waits.
    pub error: Option<String>,
    /// The source's path, where there is a source.
    pub source: Option<OsString>,
    /// The destinations, in order.
    pub dests: Vec<DestView>,
    /// The last progress, or the job's making where there was none.
    pub progressed: SystemTime,
    /// How its work goes on.
    pub course: Course,
    /// What it has waited for most in the last five seconds.
    pub limited_by: Option<Limit>,
}

/// How a job's work goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Course {
    /// What it does now, in a word; `None` where it does nothing.
    pub phase: Option<&'static str>,
    /// Bytes compared so far.
    pub verified: u64,
    /// Reads that failed so far.
    pub read_errors: u64,
    /// Bytes of pieces that failed and have not been looked at again.
    pub suspect_bytes: u64,
    /// Bytes that needed no writing, because the destinations held them already.
    pub same: u64,
    /// When it began to run first.
    pub started: Option<SystemTime>,
    /// When it ended.
    pub ended: Option<SystemTime>,
}

/// The engine's figures at one moment.
#[derive(Clone, Debug)]
pub struct EngineView {
    /// Which backend moves the data: `uring`, `threads`.
    pub backend: &'static str,
    /// Why it is not the one first tried, where that is so.
    pub fallback: Option<String>,
    /// Bytes in a page.
    pub page_size: u64,
    /// Pages in the pool.
    pub pages: u64,
    /// Pages that no sub-job holds.
    pub pages_free: u64,
    /// Sub-jobs that wait for pages.
    pub pages_waiting: u64,
    /// Sub-jobs that hold pages.
    pub subjobs_in_flight: u64,
    /// Bytes in a full sub-job.
    pub subjob_bytes: u64,
    /// Sub-jobs of one job in flight at most; `None`: as many as its devices are fastest with.
    pub subjobs_max: Option<usize>,
    /// The pace of the devices in use.
    pub paces: Vec<PaceFigures>,
    /// Whether the pool is registered with the ring as fixed buffers.
    pub fixed_buffers: bool,
    /// Whether the pool lies in huge pages.
    pub huge_pages: bool,
    /// Whether the pool is locked in memory.
    pub locked: bool,
    /// Open devices with direct I/O.
    pub direct: u64,
    /// Open devices without.
    pub buffered: u64,
    /// Jobs not yet ended.
    pub jobs_live: u64,
    /// Jobs ended and not yet dismissed.
    pub jobs_ended: u64,
}

/// The little of a job that a listing shows.
#[derive(Clone, Copy, Debug)]
pub struct Brief {
    /// Where it is in its life.
    pub state: State,
    /// Bytes that every live destination has taken.
    pub copied: u64,
    /// The last progress, or the job's making where there was none.
    pub progressed: SystemTime,
    /// How many destinations it has.
    pub dests: usize,
    /// Whether it has a source.
    pub has_source: bool,
    /// Whether it has maps.
    pub has_map: bool,
}

/// A change of state.
#[derive(Clone, Debug)]
pub struct Change {
    /// When.
    pub time: SystemTime,
    /// Whose.
    pub id: JobId,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// From; `None` for a job that was made just now.
    pub old: Option<State>,
    /// To.
    pub new: State,
    /// Why, where there is more to say.
    pub reason: Option<String>,
}

/// Why none of the specs of one write became a job.
#[derive(Debug)]
pub struct Refusal {
    /// Which spec, from 0.
    pub index: usize,
    /// Which part of it.
    pub place: Place,
    /// What is wrong with it.
    pub error: Error,
}

/// A client's figures at one moment.
#[derive(Clone, Copy, Debug)]
pub struct ClientView {
    /// Pages set aside for it.
    pub pages: u64,
    /// Pages that its sub-jobs hold.
    pub pages_used: u64,
    /// Its sub-jobs that wait for pages.
    pub pages_waiting: u64,
    /// Its sub-jobs under way.
    pub subjobs_in_flight: u64,
    /// Its jobs that have not ended.
    pub jobs_live: u64,
}

/// What was done since the daemon began; these only grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Jobs made.
    pub jobs_made: u64,
    /// Source bytes copied by pieces that every live destination took.
    pub copied: u64,
    /// Bytes written, summed over destinations.
    pub written: u64,
    /// Pieces that could not be read.
    pub read_errors: u64,
    /// Pieces that could not be written, summed over destinations.
    pub write_errors: u64,
    /// Jobs ended, as [`Totals::ENDS`] has them.
    pub ended: [u64; 4],
}

impl Totals {
    /// The states that a job ends in.
    pub const ENDS: [State; 4] = [State::Done, State::Degraded, State::Failed, State::Cancelled];
}
