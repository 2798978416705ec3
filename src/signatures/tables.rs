//! Partition tables: GPT and MBR with their partitions, and that there is one of another kind.

use super::window::{Bytes, Window};
use super::{Found, Partition, Usage, uuid, wide_text};

/// Entries of a table that are looked at.
const ENTRIES_MAX: u32 = 256;
/// Bytes of an entry at most.
const ENTRY_MAX: u32 = 4096;
/// Partitions within an extended one that are looked at.
const LOGICAL_MAX: u32 = 60;

/// All tables. Where a file system begins with a boot sector, that is no MBR.
pub(super) fn find(window: &mut Window<'_, '_>, has_boot_sector: bool) -> Vec<Found> {
    let mut found = gpt(window);
    if found.is_empty() && !has_boot_sector {
        found.extend(mbr(window));
    }
    found.extend(others(window));
    found
}

/// Whether it only holds other partitions.
pub(super) fn is_container(partition: &Partition) -> bool {
    matches!(partition.kind.as_str(), "05" | "0f" | "85")
}

/// The header at its place, and its copy in the last sector.
fn gpt(window: &mut Window<'_, '_>) -> Vec<Found> {
    for unit in [512, 4096_u64] {
        let Some(last) = (window.size() / unit).checked_sub(1).filter(|last| *last > 1) else { continue };
        let mut found: Vec<Found> = [1, last].into_iter().filter_map(|at| gpt_at(window, unit, at)).collect();
        // A header that was there before the disk was larger says itself where its copy is.
        if let Some(elsewhere) = found.first().and_then(|_| copy_of(window, unit)).filter(|at| *at != last && *at > 1) {
            found.extend(gpt_at(window, unit, elsewhere));
        }
        for copy in found.iter_mut().skip(1) {
            copy.is_backup = true;
            copy.partitions = Vec::new();
        }
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn copy_of(window: &mut Window<'_, '_>, unit: u64) -> Option<u64> {
    Some(window.get(unit, 92)?.le64(32))
}

fn gpt_at(window: &mut Window<'_, '_>, unit: u64, place: u64) -> Option<Found> {
    let at = place.checked_mul(unit)?;
    let header = window.get(at, 512).filter(|header| header.slice(0, 8) == b"EFI PART")?;
    let length = usize::try_from(header.le32(12)).ok().filter(|length| (92..=512).contains(length))?;
    let mut sealed = header.slice(0, length).to_vec();
    sealed[16..20].fill(0);
    let (count, size) = (header.le32(80), header.le32(84));
    if crc32fast::hash(&sealed) != header.le32(16) || header.le64(24) != place || !(128..=ENTRY_MAX).contains(&size) {
        return None;
    }
    let begin = header.le64(72).checked_mul(unit)?;
    let mut found = Found::new("gpt", Usage::Table, at);
    found.uuid = guid(header.slice(56, 16));
    for index in 0..count.min(ENTRIES_MAX) {
        let Some(entry) = window.get(begin.checked_add(u64::from(index) * u64::from(size))?, 128) else { break };
        let Some(kind) = guid(entry.slice(0, 16)) else { continue };
        let first = entry.le64(32).checked_mul(unit);
        let end = entry.le64(40).checked_add(1).and_then(|end| end.checked_mul(unit));
        let (Some(first), Some(end)) = (first, end) else { continue };
        if first < end {
            found.partitions.push(Partition {
                number: index + 1,
                bytes: first..end,
                kind,
                name: wide_text(entry.slice(56, 72), u16::from_le_bytes),
                uuid: guid(entry.slice(16, 16)),
                content: Vec::new(),
            });
        }
    }
    Some(found)
}

/// A GUID: a UUID whose first three numbers have their bytes the other way round.
fn guid(bytes: &[u8]) -> Option<String> {
    let mut bytes = <[u8; 16]>::try_from(bytes).ok()?;
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    uuid(&bytes)
}

/// An entry of an MBR.
struct Entry {
    kind: u8,
    start: u64,
    sectors: u64,
}

impl Entry {
    /// The four of a sector; `None` where that is no MBR.
    fn all(sector: &Bytes) -> Option<[Self; 4]> {
        let places = [446, 462, 478, 494];
        let is_table = sector.le16(510) == 0xaa55 && places.iter().all(|at| matches!(sector.byte(*at), 0 | 0x80));
        is_table.then(|| {
            places.map(|at| Self {
                kind: sector.byte(at + 4),
                start: u64::from(sector.le32(at + 8)),
                sectors: u64::from(sector.le32(at + 12)),
            })
        })
    }

    fn is_empty(&self) -> bool {
        self.kind == 0 || self.sectors == 0
    }

    fn holds_others(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }

    fn partition(&self, number: u32, base: u64, disk: u32) -> Partition {
        let start = (base + self.start) * 512;
        Partition {
            number,
            bytes: start..start + self.sectors * 512,
            kind: format!("{:02x}", self.kind),
            name: None,
            uuid: (disk != 0).then(|| format!("{disk:08x}-{number:02x}")),
            content: Vec::new(),
        }
    }
}

fn mbr(window: &mut Window<'_, '_>) -> Option<Found> {
    const PROTECTS_GPT: u8 = 0xee;
    const AIX: &[u8] = b"\xc9\xc2\xd4\xc1";
    let sector = window.get(0, 512)?;
    let entries = Entry::all(&sector).filter(|_| sector.slice(0, 4) != AIX)?;
    let disk = sector.le32(440);
    if entries.iter().any(|entry| entry.kind == PROTECTS_GPT) {
        return Some(Found::new("PMBR", Usage::Table, 0));
    }
    if entries.iter().all(Entry::is_empty) && disk == 0 {
        return None;
    }
    let mut found = Found::new("dos", Usage::Table, 0);
    found.uuid = (disk != 0).then(|| format!("{disk:08x}"));
    for (entry, number) in entries.iter().zip(1..).filter(|(entry, _)| !entry.is_empty()) {
        found.partitions.push(entry.partition(number, 0, disk));
    }
    if let Some(extended) = entries.iter().find(|entry| !entry.is_empty() && entry.holds_others()) {
        found.partitions.extend(logical(window, extended.start, disk));
    }
    Some(found)
}

/// The partitions within an extended one: each has a table with itself and, perhaps, the place of the next.
fn logical(window: &mut Window<'_, '_>, base: u64, disk: u32) -> Vec<Partition> {
    let (mut found, mut at, mut number) = (Vec::new(), base, 5);
    for _ in 0..LOGICAL_MAX {
        let entries = window.get(at * 512, 512).and_then(|sector| Entry::all(&sector));
        let Some(entries) = entries else { break };
        if let Some(entry) = entries.iter().find(|entry| !entry.is_empty() && !entry.holds_others()) {
            found.push(entry.partition(number, at, disk));
            number += 1;
        }
        match entries.iter().find(|entry| !entry.is_empty() && entry.holds_others()) {
            Some(next) if next.start > 0 => at = base + next.start,
            _ => break,
        }
    }
    found
}

/// Tables whose partitions are not read.
fn others(window: &mut Window<'_, '_>) -> Vec<Found> {
    let rows: [(&str, u64, &[u8]); 3] =
        [("sgi", 0, b"\x0b\xe5\xa9\x41"), ("sun", 508, b"\xda\xbe"), ("mac", 512, b"PM\0\0")];
    let there = rows.into_iter().filter(|(_, at, magic)| window.has(*at, magic));
    there.map(|(kind, at, _)| Found::new(kind, Usage::Table, at)).collect()
}
