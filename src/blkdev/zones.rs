//! Zones of a host-managed device: where each takes its next write, and what it holds already.
//!
//! A zone takes writes at its write pointer only. A copy that was killed finds the pointer ahead of its last checkpoint: what lies
//! before the pointer can be read and compared, and is not written again unless the zone is reset.
//!
//! # Protocol
//! 1. Whoever is about to write a region asks for its zones with [`Device::look_at_zones`]. The device remembers what they hold.
//! 2. The engine compares where a zone holds something, and writes elsewhere: [`Written::parts`].

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use parking_lot::Mutex;

use super::device::{Device, Target};
use super::sys;
use crate::error::{Error, ErrorKind, Result};
use crate::sector::Sector;

/// A zone, in sectors of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its first sector.
    pub start: Sector,
    /// The sector behind its last.
    pub end: Sector,
    /// How it takes writes.
    pub kind: ZoneKind,
}

/// How a zone takes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneKind {
    /// Anywhere.
    Conventional,
    /// At its write pointer. What lies before that is written.
    Sequential {
        /// The write pointer.
        pointer: Sector,
    },
    /// Not at all: it is read-only or offline.
    Closed,
}

/// What the zones of a device held when somebody asked last.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// Of each zone that holds something, where it begins, and its write pointer; in bytes.
    pointers: Mutex<BTreeMap<u64, u64>>,
}

impl Written {
    /// Replaces what was known of some zones, in their order on the device.
    fn note(&self, zones: &[Zone]) {
        let (Some(first), Some(last)) = (zones.first(), zones.last()) else { return };
        let all = first.start.bytes()..last.end.bytes();
        let mut pointers = self.pointers.lock();
        pointers.retain(|start, _| !all.contains(start));
        for zone in zones {
            if let ZoneKind::Sequential { pointer } = zone.kind
                && pointer > zone.start
            {
                pointers.insert(zone.start.bytes(), pointer.bytes());
            }
        }
    }

    /// The parts of a range of bytes, in order, and whether each is written.
    fn parts(&self, bytes: &Range<u64>) -> Vec<(Range<u64>, bool)> {
        let pointers = self.pointers.lock();
        let (mut parts, mut at) = (Vec::new(), bytes.start);
        while at < bytes.end {
            let before = pointers.range(..=at).next_back().map(|(_, pointer)| *pointer).filter(|pointer| *pointer > at);
            let next = || pointers.range(at..).next().map(|(start, _)| *start);
            let end = before.or_else(next).map_or(bytes.end, |end| end.min(bytes.end));
            parts.push((at..end, before.is_some()));
            at = end;
        }
        parts
    }
}

impl Device {
    /// Asks a zoned device for the zones that a region touches, in order, and remembers what they hold. A device that is not
    /// zoned, or does not tell, has none. It waits for the device, which may never answer.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn look_at_zones(&self, sector: Sector, count: Sector) -> Result<Vec<Zone>> {
        if !self.is_sequential() || count.is_zero() || !matches!(self.target, Target::Block { .. }) {
            return Ok(Vec::new());
        }
        let end = sector.get() + count.get();
        let (mut zones, mut at) = (Vec::new(), sector.get());
        while at < end {
            let answer = match sys::report_zones(&self.file, at) {
                // A map, or a partition, that does not hand the question on.
                Err(error) if is_unknown(&error) => return Ok(Vec::new()),
                answer => answer.map_err(|error| Error::os(format!("the zones of {}", self.path.display()), error))?,
            };
            let more = parse(&answer);
            let Some(last) = more.last().filter(|last| last.end.get() > at) else { break };
            at = last.end.get();
            zones.extend(more.into_iter().filter(|zone| zone.start.get() < end));
        }
        self.note_zones(&zones);
        Ok(zones)
    }

    /// Remembers what zones hold: of a device in memory, whose zones are [simulated](crate::io::Sim::zones).
    pub fn note_zones(&self, zones: &[Zone]) {
        if let Some(written) = &self.zones {
            written.note(zones);
        }
    }

    /// The parts of a range of bytes, in order, and whether a zone holds each already, so that it cannot be written.
    pub(crate) fn parts(&self, bytes: Range<u64>) -> Vec<(Range<u64>, bool)> {
        match &self.zones {
            Some(written) => written.parts(&bytes),
            None => vec![(bytes, false)],
        }
    }
}

fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP | libc::EINVAL))
}

/// Bytes of a `struct blk_zone_report` before its zones, and of a `struct blk_zone`.
pub(super) const REPORT_HEADER: usize = 16;
pub(super) const REPORT_ZONE: usize = 64;
/// `BLK_ZONE_TYPE_SEQWRITE_REQ`, and the conditions read-only, full and offline.
const SEQUENTIAL: u8 = 2;
const READ_ONLY: u8 = 0xd;
const FULL: u8 = 0xe;
const OFFLINE: u8 = 0xf;
/// `BLK_ZONE_REP_CAPACITY`.
const HAS_CAPACITY: u32 = 1;

/// The zones of an answer to `BLKREPORTZONE` (linux/blkzoned.h).
fn parse(answer: &[u8]) -> Vec<Zone> {
    let Some((header, zones)) = answer.split_at_checked(REPORT_HEADER) else { return Vec::new() };
    let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes"));
    let (count, has_capacity) = (word(8), word(12) & HAS_CAPACITY != 0);
    let zones = zones.chunks_exact(REPORT_ZONE).take(usize::try_from(count).unwrap_or(0));
    zones.map_while(|zone| parse_zone(zone, has_capacity)).collect()
}

fn parse_zone(zone: &[u8], has_capacity: bool) -> Option<Zone> {
    let wide = |at: usize| u64::from_ne_bytes(zone[at..at + 8].try_into().expect("eight bytes"));
    let (start, length, pointer) = (wide(0), wide(8), wide(16));
    let (kind, condition) = (zone[24], zone[25]);
    let capacity = if has_capacity { wide(32).min(length) } else { length };
    let kind = match condition {
        READ_ONLY | OFFLINE => ZoneKind::Closed,
        _ if kind != SEQUENTIAL => ZoneKind::Conventional,
        FULL => ZoneKind::Sequential { pointer: Sector::new(start.checked_add(capacity)?)? },
        _ => ZoneKind::Sequential { pointer: Sector::new(pointer)? },
    };
    Some(Zone { start: Sector::new(start)?, end: Sector::new(start.checked_add(length)?)?, kind })
}

/// Why a region cannot be written from its beginning to its end, whatever its zones hold.
pub fn refuse_zones(device: &Device, sector: Sector, zones: &[Zone]) -> Result<()> {
    let path = device.path().display();
    let refused = |what| Err(Error::new(ErrorKind::Invalid, what));
    if let Some(zone) = zones.iter().find(|zone| zone.kind == ZoneKind::Closed) {
        return refused(format!("{path}: the zone at sector {} is read-only or offline", zone.start));
    }
    match zones.first() {
        Some(Zone { start, kind: ZoneKind::Sequential { pointer }, .. }) if *pointer < sector => refused(format!(
            "{path}: the zone at sector {start} takes its next write at sector {pointer}, and the region begins behind it, at \
             {sector}: begin it there"
        )),
        _ => Ok(()),
    }
}

/// Why a new job cannot write a region: zones of it hold data.
pub fn refuse_used_zones(device: &Device, sector: Sector, zones: &[Zone]) -> Result<()> {
    refuse_zones(device, sector, zones)?;
    let is_used = |zone: &&Zone| match zone.kind {
        ZoneKind::Sequential { pointer } => pointer > zone.start.max(sector),
        ZoneKind::Conventional | ZoneKind::Closed => false,
    };
    let used = || zones.iter().filter(is_used);
    let (Some(first), Some(last)) = (used().next(), used().next_back()) else { return Ok(()) };
    let ZoneKind::Sequential { pointer } = first.kind else { return Ok(()) };
    let others = match used().count() - 1 {
        0 => String::new(),
        1 => ", and another zone does".to_owned(),
        count => format!(", and {count} other zones do"),
    };
    let what = format!(
        "{path}: the zone at sector {start} holds data up to sector {pointer}{others}, and a zone is written from its beginning: \
         erase with `{reset}`, or copy to another place",
        path = device.path().display(),
        start = first.start,
        reset = reset(first.start.get(), last.end.get() - first.start.get(), &device.path().to_string_lossy()),
    );
    Err(Error::new(ErrorKind::Invalid, what))
}

/// The command that erases zones.
pub(crate) fn reset(start: u64, count: u64, path: &str) -> String {
    format!("blkzone reset -o {start} -c {count} {path}")
}

/// What of a region its zones do not hold: the ranges behind the write pointers, merged, in sectors from the region's beginning.
pub fn unwritten(sector: Sector, count: Sector, zones: &[Zone]) -> Vec<Range<u64>> {
    let (begin, end) = (sector.get(), sector.get() + count.get());
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for zone in zones {
        let ZoneKind::Sequential { pointer } = zone.kind else { continue };
        let range = pointer.get().max(begin) - begin..zone.end.get().clamp(begin, end) - begin;
        match ranges.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sector::SECTOR_SIZE;

    fn sectors(number: u64) -> Sector {
        Sector::new(number).unwrap()
    }

    fn zone(start: u64, pointer: u64) -> Zone {
        Zone {
            start: sectors(start),
            end: sectors(start + 100),
            kind: ZoneKind::Sequential { pointer: sectors(pointer) },
        }
    }

    fn raw(start: u64, pointer: u64, kind: u8, condition: u8, capacity: u64) -> Vec<u8> {
        let mut bytes = [start, 100, pointer].map(u64::to_ne_bytes).concat();
        bytes.extend([kind, condition, 0, 0, 0, 0, 0, 0]);
        bytes.extend(capacity.to_ne_bytes());
        bytes.resize(REPORT_ZONE, 0);
        bytes
    }

    #[test]
    fn a_report_is_read() {
        let mut answer =
            [0_u64.to_ne_bytes().to_vec(), 5_u32.to_ne_bytes().to_vec(), 1_u32.to_ne_bytes().to_vec()].concat();
        answer.extend(raw(0, u64::MAX, 1, 0, 100));
        answer.extend(raw(100, 142, 2, 4, 100));
        answer.extend(raw(200, u64::MAX, 2, FULL, 80));
        answer.extend(raw(300, 300, 2, READ_ONLY, 100));
        let zones = parse(&answer);
        assert_eq!(zones[0].kind, ZoneKind::Conventional);
        assert_eq!(zones[1], zone(100, 142));
        assert_eq!(zones[2], zone(200, 280));
        assert_eq!(zones[3].kind, ZoneKind::Closed);
        assert_eq!(zones.len(), 4, "what it does not hold is not there");
        assert!(parse(&answer[..9]).is_empty());
    }

    #[test]
    fn what_zones_hold_is_told_by_parts() {
        let device = Device::zoned_in_memory(sectors(400), 512).unwrap();
        device.note_zones(&[zone(0, 100), zone(100, 150), zone(200, 200), zone(300, 310)]);
        let parts = |from: u64, to: u64| {
            let parts = device.parts(from * SECTOR_SIZE..to * SECTOR_SIZE).into_iter();
            parts.map(|(part, held)| (part.start / SECTOR_SIZE..part.end / SECTOR_SIZE, held)).collect::<Vec<_>>()
        };
        assert_eq!(
            parts(0, 400),
            [(0..100, true), (100..150, true), (150..300, false), (300..310, true), (310..400, false)]
        );
        assert_eq!(parts(120, 130), [(120..130, true)]);
        assert_eq!(parts(150, 160), [(150..160, false)]);
        // Of other zones nothing is forgotten.
        device.note_zones(&[zone(100, 100), zone(200, 220)]);
        assert_eq!(parts(90, 230), [(90..100, true), (100..200, false), (200..220, true), (220..230, false)]);
    }

    #[test]
    fn what_is_not_written_is_merged() {
        let zones = [zone(0, 100), zone(100, 150), zone(200, 200), zone(300, 310)];
        assert_eq!(unwritten(sectors(0), sectors(400), &zones), [150..300, 310..400]);
        assert_eq!(unwritten(sectors(160), sectors(155), &zones[1..]), [0..140, 150..155]);
    }

    #[test]
    fn a_region_that_cannot_be_written_is_refused_with_the_remedy() {
        let device = Device::zoned_in_memory(sectors(400), 512).unwrap();
        let say = |sector: u64, zones: &[Zone]| {
            let refused = refuse_used_zones(&device, sectors(sector), zones);
            refused.err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(say(0, &[zone(0, 0), zone(100, 100)]), "");
        assert_eq!(say(50, &[zone(0, 50), zone(100, 100)]), "", "it goes on where others have ended");
        let used = say(0, &[zone(0, 0), zone(100, 142), zone(200, 200), zone(300, 310)]);
        assert!(used.contains("sector 100 holds data up to sector 142, and another zone does"), "{used}");
        assert!(used.contains("`blkzone reset -o 100 -c 300 memory:"), "{used}");
        let behind = say(60, &[zone(0, 50)]);
        assert!(behind.contains("next write at sector 50"), "{behind}");
        assert!(refuse_zones(&device, sectors(0), &[zone(0, 42)]).is_ok());
    }
}
