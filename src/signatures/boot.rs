//! File systems that begin with a boot sector: FAT, exFAT, NTFS, `ReFS`.

use super::window::{Bytes, Window};
use super::{Found, Usage, text, wide_text};

/// What has a boot sector where a partition table would be.
pub(super) const KINDS: &[&str] = &["vfat", "exfat", "ntfs", "BitLocker", "ReFS"];

/// Clusters of a root directory that are looked at for a label.
const CLUSTERS_MAX: usize = 16;
/// Bytes of a directory that are looked at at once.
const DIRECTORY_MAX: usize = 64 << 10;

pub(super) fn find(window: &mut Window<'_, '_>) -> Vec<Found> {
    let Some(sector) = window.get(0, 512) else { return Vec::new() };
    let found = match sector.slice(3, 8) {
        b"NTFS    " => ntfs(window, &sector),
        b"EXFAT   " => exfat(window, &sector),
        b"ReFS\0\0\0\0" => Some(Found::new("ReFS", Usage::FileSystem, 0)),
        _ => fat(window, &sector),
    };
    found.into_iter().collect()
}

/// A volume's number as it is printed.
fn serial(number: u32) -> Option<String> {
    (number != 0).then(|| format!("{:04X}-{:04X}", number >> 16, number & 0xffff))
}

fn fat(window: &mut Window<'_, '_>, sector: &Bytes) -> Option<Found> {
    let (bytes, cluster, reserved) = (sector.le16(11), sector.byte(13), sector.le16(14));
    let (fats, entries, media) = (sector.byte(16), sector.le16(17), sector.byte(21));
    let is_sane = matches!(bytes, 512 | 1024 | 2048 | 4096)
        && cluster.is_power_of_two()
        && reserved > 0
        && (1..=4).contains(&fats)
        && (media == 0xf0 || media >= 0xf8);
    let named = sector.slice(0x52, 8).starts_with(b"FAT32") || sector.slice(0x36, 8).starts_with(b"FAT");
    let signed = sector.le16(0x1fe) == 0xaa55 && matches!(sector.byte(0), 0xeb | 0xe9);
    if !is_sane || !(named || signed) {
        return None;
    }
    let per_fat = match sector.le16(22) {
        0 => u64::from(sector.le32(36)),
        sectors => u64::from(sectors),
    };
    let sectors = match sector.le16(19) {
        0 => u64::from(sector.le32(32)),
        sectors => u64::from(sectors),
    };
    let unit = u64::from(bytes);
    let root = u64::from(reserved) + u64::from(fats) * per_fat;
    let root_sectors = (u64::from(entries) * 32).div_ceil(unit);
    if per_fat == 0 || sectors <= root + root_sectors {
        return None;
    }
    let mut found = Found::new("vfat", Usage::FileSystem, 0);
    let is_32 = sector.le16(22) == 0;
    let boot_label = if is_32 {
        found.uuid = serial(sector.le32(0x43));
        let chain = Chain {
            first: u64::from(sector.le32(44)),
            heap: (root + root_sectors) * unit,
            cluster: u64::from(cluster) * unit,
            fat: u64::from(reserved) * unit,
            mask: 0x0fff_ffff,
        };
        found.label = chain.find(window, label_entry);
        sector.slice(0x47, 11)
    } else {
        found.uuid = serial(sector.le32(0x27));
        let length = usize::from(entries) * 32;
        found.label = window.get(root * unit, length.min(DIRECTORY_MAX)).and_then(|entries| label_entry(&entries.0));
        sector.slice(0x2b, 11)
    };
    if found.label.is_none() && boot_label != b"NO NAME    " {
        found.label =
            text(boot_label).filter(|label| label.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
    }
    Some(found)
}

/// The label among the entries of a directory of FAT.
fn label_entry(entries: &[u8]) -> Option<String> {
    const IS_LABEL: u8 = 0x08;
    const IS_DIRECTORY: u8 = 0x10;
    const IS_LONG_NAME: u8 = 0x0f;
    let entry = entries.chunks_exact(32).take_while(|entry| entry[0] != 0).find(|entry| {
        let attributes = entry[11];
        entry[0] != 0xe5 && attributes & 0x3f != IS_LONG_NAME && attributes & (IS_LABEL | IS_DIRECTORY) == IS_LABEL
    })?;
    let mut name: Vec<u8> = entry[..11].to_vec();
    // A name that begins with the mark of a free entry is written so.
    if name[0] == 0x05 {
        name[0] = 0xe5;
    }
    text(&name)
}

/// A directory that goes on from cluster to cluster.
struct Chain {
    first: u64,
    /// Where cluster 2 begins, and how long each is.
    heap: u64,
    cluster: u64,
    fat: u64,
    mask: u32,
}

impl Chain {
    fn find(&self, window: &mut Window<'_, '_>, find: impl Fn(&[u8]) -> Option<String>) -> Option<String> {
        let mut number = self.first;
        for _ in 0..CLUSTERS_MAX {
            let at = number.checked_sub(2)?.checked_mul(self.cluster)?.checked_add(self.heap)?;
            let count = usize::try_from(self.cluster).ok()?.min(DIRECTORY_MAX);
            if let Some(found) = find(&window.get(at, count)?.0) {
                return Some(found);
            }
            let next = window.get(self.fat.checked_add(number.checked_mul(4)?)?, 4)?.le32(0) & self.mask;
            if next >= self.mask & 0xffff_fff8 {
                return None;
            }
            number = u64::from(next);
        }
        None
    }
}

fn exfat(window: &mut Window<'_, '_>, sector: &Bytes) -> Option<Found> {
    let (unit, cluster) = (sector.byte(0x6c), sector.byte(0x6d));
    if !(9..=12).contains(&unit) || cluster > 25 - unit {
        return None;
    }
    let mut found = Found::new("exfat", Usage::FileSystem, 0);
    found.uuid = serial(sector.le32(0x64));
    let chain = Chain {
        first: u64::from(sector.le32(0x60)),
        heap: u64::from(sector.le32(0x58)) << unit,
        cluster: 1 << (unit + cluster),
        fat: u64::from(sector.le32(0x50)) << unit,
        mask: 0xffff_ffff,
    };
    found.label = chain.find(window, |entries| {
        const IS_LABEL: u8 = 0x83;
        let entry = entries.chunks_exact(32).take_while(|entry| entry[0] != 0).find(|entry| entry[0] == IS_LABEL)?;
        wide_text(entry.get(2..2 + 2 * usize::from(entry[1].min(15)))?, u16::from_le_bytes)
    });
    Some(found)
}

fn ntfs(window: &mut Window<'_, '_>, sector: &Bytes) -> Option<Found> {
    let unit = u64::from(sector.le16(11));
    let per_cluster = match sector.byte(13) {
        count @ 0..=128 => u64::from(count),
        shift => 1 << (256 - u32::from(shift)).min(31),
    };
    if !(256..=4096).contains(&unit) || !unit.is_power_of_two() || per_cluster == 0 || sector.le16(14) != 0 {
        return None;
    }
    let mut found = Found::new("ntfs", Usage::FileSystem, 0);
    let number = sector.le64(0x48);
    found.uuid = (number != 0).then(|| format!("{number:016X}"));
    found.label = ntfs_label(window, sector, unit * per_cluster);
    Some(found)
}

/// The name in the file `$Volume`, the fourth of the table.
fn ntfs_label(window: &mut Window<'_, '_>, sector: &Bytes, cluster: u64) -> Option<String> {
    const NAME: u32 = 0x60;
    const END: u32 = 0xffff_ffff;
    let record = match i8::from_le_bytes([sector.byte(0x40)]) {
        clusters @ 1.. => u64::from(clusters.unsigned_abs()) * cluster,
        shift => 1 << shift.unsigned_abs().min(16),
    };
    let count = usize::try_from(record).ok().filter(|count| (512..=DIRECTORY_MAX).contains(count))?;
    let at = sector.le64(0x30).checked_mul(cluster)?.checked_add(3 * record)?;
    let file = window.get(at, count).filter(|file| file.slice(0, 4) == b"FILE")?;
    let mut at = usize::from(file.le16(0x14));
    while at + 24 <= count && file.le32(at) != END {
        let length = file.le32(at + 4) as usize;
        if file.le32(at) == NAME {
            let (size, value) = (file.le32(at + 16) as usize, usize::from(file.le16(at + 20)));
            return wide_text(file.slice(at.checked_add(value)?, size), u16::from_le_bytes);
        }
        at = at.checked_add(length.max(8))?;
    }
    None
}
