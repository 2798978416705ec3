//! What went wrong, in a line. Pure.

use std::ops::Range;

use super::progress::DIFFERENT;
use crate::blkdev::{CUT, DELETED, GONE, HELD, reset};
use crate::error::errno_name;
use crate::sector::Sector;

/// What was being done where something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Read,
    Write,
    ReadBack,
    Verify,
}

impl Verb {
    /// Whether a comparison found it.
    pub(super) const fn compares(self) -> bool {
        matches!(self, Self::ReadBack | Self::Verify)
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ReadBack => "read back",
            Self::Verify => "verify",
        }
    }
}

/// The line that names path, sector and errno. `zone` is one of a zoned destination's zones.
pub(super) fn sentence(
    verb: Verb,
    path: &str,
    (sector, count): (Sector, Sector),
    errno: i32,
    zone: Option<&Range<u64>>,
) -> String {
    let (verb, place) = (verb.as_str(), span(sector, count));
    match errno {
        DIFFERENT => format!("{verb} {path}: different in {place}"),
        DELETED => format!("{verb} {path}: ENOENT, the file was deleted meanwhile"),
        CUT => format!("{verb} {path}: ENXIO, it was cut shorter meanwhile; seen in {place}"),
        GONE => format!("{verb} {path}: ENODEV, the device is gone; seen in {place}"),
        HELD => format!(
            "write {path}: ENOTEMPTY, its zone holds other data than the source in {place}: {}",
            make_room(path, sector, zone)
        ),
        errno => format!("{verb} {path}: {} in {place}", errno_name(errno)),
    }
}

/// What is added to that line where `sector` has the data of another one.
pub(super) fn displaced(sector: Sector, other: Sector) -> String {
    // What is written later is written over what was there.
    let why = if other > sector { "; the device may be smaller than it says" } else { "" };
    format!(": what was written to sector {other} is there{why}")
}

fn span(sector: Sector, count: Sector) -> String {
    if count.get() == 1 { format!("sector {sector}") } else { format!("the {count} sectors from {sector}") }
}

/// What to do where a zone holds other data than what is to be written there.
fn make_room(path: &str, sector: Sector, zone: Option<&Range<u64>>) -> String {
    let Some(zone) = zone else { return "reset the zone, then `retry`".to_owned() };
    let length = zone.end - zone.start;
    let start = zone.start + (sector.get() - zone.start) / length * length;
    format!("`{}`, then `retry`", reset(start, length, path))
}
