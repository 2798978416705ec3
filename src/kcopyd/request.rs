//! What a client is asked to do.

use super::pace::Direction;
use super::{Flags, Observer, Pattern, SpeedLimit};
use crate::dm_io::{ErrorBits, IoRegion, MAX_REGIONS};
use crate::error::{Error, ErrorKind, Result};

/// What a job does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Copies a region to every destination.
    Copy(IoRegion),
    /// Writes zeros to every destination.
    Zero,
    /// Reads a region and every destination, and compares. Destinations that are left out are not read; with none it
    /// reads the region and shows it ([`Observer::data`]).
    Compare(IoRegion),
    /// Writes a pattern to every destination.
    Pattern(Pattern),
    /// Reads every destination and looks for the pattern.
    ComparePattern(Pattern),
}

impl Work {
    /// The region that is read.
    pub fn source(&self) -> Option<&IoRegion> {
        match self {
            Self::Copy(from) | Self::Compare(from) => Some(from),
            Self::Zero | Self::Pattern(_) | Self::ComparePattern(_) => None,
        }
    }

    /// What is made instead of being read.
    pub(super) fn pattern(&self) -> Option<Pattern> {
        match self {
            Self::Pattern(pattern) | Self::ComparePattern(pattern) => Some(*pattern),
            Self::Copy(_) | Self::Zero | Self::Compare(_) => None,
        }
    }

    /// Whether its writes go by the pace of each device. Zeros do not: they are no measure of it.
    pub(super) fn has_lanes(&self) -> bool {
        !matches!(self, Self::Zero)
    }

    /// Whether destinations are read and not written.
    pub(super) fn compares(&self) -> bool {
        self.direction() == Direction::Read
    }

    /// What its destinations are asked for.
    pub(super) fn direction(&self) -> Direction {
        match self {
            Self::Copy(_) | Self::Zero | Self::Pattern(_) => Direction::Write,
            Self::Compare(_) | Self::ComparePattern(_) => Direction::Read,
        }
    }
}

/// What a job is to do, in full; [`Client::copy`](super::Client::copy) and [`Client::zero`](super::Client::zero) are shorter.
// Each is a choice of its own.
#[allow(clippy::struct_excessive_bools)]
pub struct Request {
    /// What it does.
    pub work: Work,
    /// 1 to [`MAX_REGIONS`] destinations, with the source's count of sectors.
    pub dests: Vec<IoRegion>,
    /// Destinations that are left alone: bit i is destination i.
    pub without: ErrorBits,
    /// How it deals with errors and order.
    pub flags: Flags,
    /// Bytes per second that it reads.
    pub speed_max: SpeedLimit,
    /// Starts paused.
    pub paused: bool,
    /// Blocks of zeros become holes, where a destination can have them. One that promises zeros for discards gives space back by
    /// them. It, and one without write-zeroes, is read there, and zeros are written only where it holds something else, so that a thin
    /// one stays thin.
    pub sparse: bool,
    /// The observer is shown the data, in order. A read error then ends the job.
    pub in_order: bool,
    /// Is told of every piece.
    pub observer: Option<Box<dyn Observer>>,
    /// It stays out of the way of others: idle I/O priority, and no more in flight than leaves the latency of its devices nearly as it is
    /// without it, down to one piece and rests between. With a fixed number of sub-jobs the priority is all.
    pub background: bool,
    /// A destination that stalls while others answer, or is so slow that pages run out, takes no part any more: the others go on at
    /// their own pace. Not once a piece could not be read: then nothing should have to be read twice.
    pub leaves_behind: bool,
    /// Called, on the client's thread, when a destination that was left behind has answered all that it was asked; also after the job's
    /// end.
    pub answered: Option<Box<dyn FnMut(usize) + Send>>,
}

impl Request {
    /// Whether it is written in order: by [`Flags::WRITE_SEQ`], or because a destination that takes part is zoned
    /// ([`Device::is_sequential`](crate::blkdev::Device::is_sequential)). Then it ends at the first piece that cannot be read, whatever the other flags say, and whoever
    /// salvages must deal with that piece before it goes on behind it.
    pub fn is_sequential(&self) -> bool {
        let mut dests = self.dests.iter().enumerate().filter(|(index, _)| !self.without.contains(*index));
        let writes = !self.work.compares();
        writes && (self.flags.contains(Flags::WRITE_SEQ) || dests.any(|(_, dest)| dest.device.is_sequential()))
    }

    /// A plain one.
    pub(super) fn new(work: Work, dests: &[IoRegion], flags: Flags) -> Self {
        Self {
            work,
            dests: dests.to_vec(),
            without: ErrorBits::NONE,
            flags,
            speed_max: SpeedLimit::default(),
            paused: false,
            sparse: false,
            in_order: false,
            observer: None,
            background: false,
            leaves_behind: false,
            answered: None,
        }
    }

    /// Refuses what cannot be done.
    pub(super) fn check(&self) -> Result<()> {
        let Self { work, dests, .. } = self;
        let from = work.source();
        let is_read = matches!(work, Work::Compare(_)) && dests.is_empty();
        let first = if is_read { from } else { dests.first().filter(|_| dests.len() <= MAX_REGIONS) };
        let Some(first) = first else {
            let what = format!("a job takes 1 to {MAX_REGIONS} destinations, not {}", dests.len());
            return Err(Error::new(ErrorKind::Invalid, what));
        };
        let count = from.unwrap_or(first).count;
        for (index, dest) in dests.iter().enumerate() {
            if dest.count != count {
                let what = format!("destination {index} has {} sectors, the job {count}", dest.count);
                return Err(Error::new(ErrorKind::Invalid, what));
            }
            dest.device.check_region(dest.sector, dest.count, true)?;
            if dests[..index].iter().chain(from).any(|other| other.overlaps(dest)) {
                let shown = dest.device.path().display();
                let what = format!("{shown}: destination {index} overlaps the source or another destination");
                return Err(Error::new(ErrorKind::Overlap, what));
            }
        }
        from.map_or(Ok(()), |from| from.device.check_region(from.sector, from.count, false))
    }
}
