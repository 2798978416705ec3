//! Kinds that are a magic at a fixed place, and a label and a UUID at others.

use super::window::{Bytes, Window};
use super::{Found, Usage, text, uuid, wide_text};

/// A row: what it is, where its superblock begins, and what is where from there.
struct Row {
    kind: &'static str,
    usage: Usage,
    /// Where the superblock begins.
    block: u64,
    /// Where the magic is in it, and what it is.
    magic: (usize, &'static [u8]),
    /// Where 16 bytes of UUID are in it.
    uuid: Option<usize>,
    /// Where the label is in it, and how long it is.
    label: Option<(usize, usize)>,
    /// What must be true besides, of the first 1024 bytes of the superblock.
    check: fn(&Bytes) -> bool,
}

const PLAIN: Row =
    Row { kind: "", usage: Usage::FileSystem, block: 0, magic: (0, b""), uuid: None, label: None, check: |_| true };

const REISERFS: Row = Row { kind: "reiserfs", block: 0x1_0000, uuid: Some(84), label: Some((100, 16)), ..PLAIN };

const MINIX: Row = Row { kind: "minix", block: 1024, check: is_minix, ..PLAIN };

/// Bytes of a superblock that are looked at.
const BLOCK: usize = 1024;

static ROWS: &[Row] = &[
    Row {
        kind: "xfs",
        magic: (0, b"XFSB"),
        uuid: Some(32),
        label: Some((108, 12)),
        check: |block| block.be32(4).is_power_of_two() && block.be32(4) >= 512,
        ..PLAIN
    },
    Row {
        kind: "btrfs",
        block: 0x1_0000,
        magic: (0x40, b"_BHRfS_M"),
        uuid: Some(0x20),
        label: Some((0x12b, 256)),
        ..PLAIN
    },
    Row { kind: "f2fs", block: 1024, magic: (0, b"\x10\x20\xf5\xf2"), uuid: Some(0x6c), ..PLAIN },
    Row { kind: "squashfs", magic: (0, b"hsqs"), check: |block| block.le16(28) >= 4, ..PLAIN },
    Row { kind: "squashfs3", magic: (0, b"hsqs"), check: |block| block.le16(28) < 4, ..PLAIN },
    Row { kind: "erofs", block: 1024, magic: (0, b"\xe2\xe1\xf5\xe0"), uuid: Some(48), label: Some((64, 16)), ..PLAIN },
    Row { kind: "jfs", block: 0x8000, magic: (0, b"JFS1"), uuid: Some(136), label: Some((152, 16)), ..PLAIN },
    Row { magic: (52, b"ReIsErFs"), ..REISERFS },
    Row { magic: (52, b"ReIsEr2Fs"), ..REISERFS },
    Row { magic: (52, b"ReIsEr3Fs"), ..REISERFS },
    Row { kind: "reiser4", block: 0x1_0000, magic: (0, b"ReIsEr4"), uuid: Some(20), label: Some((36, 16)), ..PLAIN },
    Row {
        kind: "nilfs2",
        block: 1024,
        magic: (6, b"\x34\x34"),
        uuid: Some(152),
        label: Some((168, 80)),
        check: |block| (64..=1024).contains(&block.le16(8)) && block.le32(0) == 2 && block.le32(20) <= 6,
        ..PLAIN
    },
    Row {
        kind: "gfs2",
        block: 0x1_0000,
        magic: (0, b"\x01\x16\x19\x70"),
        uuid: Some(240),
        label: Some((144, 64)),
        ..PLAIN
    },
    Row { kind: "cramfs", magic: (0, b"\x45\x3d\xcd\x28"), label: Some((48, 16)), ..PLAIN },
    Row { kind: "romfs", magic: (0, b"-rom1fs-"), label: Some((16, 16)), ..PLAIN },
    Row { kind: "bfs", magic: (0, b"\xce\xfa\xad\x1b"), check: |block| block.le32(8) > block.le32(4), ..PLAIN },
    Row { kind: "apfs", magic: (32, b"NXSB"), uuid: Some(72), ..PLAIN },
    Row { kind: "hfsplus", block: 1024, magic: (0, b"H+\x00\x04"), ..PLAIN },
    Row { kind: "hfsplus", block: 1024, magic: (0, b"HX\x00\x05"), ..PLAIN },
    Row { magic: (16, b"\x7f\x13"), ..MINIX },
    Row { magic: (16, b"\x8f\x13"), ..MINIX },
    Row { magic: (16, b"\x68\x24"), ..MINIX },
    Row { magic: (16, b"\x78\x24"), ..MINIX },
    Row {
        kind: "minix",
        block: 1024,
        magic: (24, b"\x5a\x4d"),
        check: |block| block.le32(0) > 0 && block.le32(20) > 0 && block.le16(28).is_power_of_two(),
        ..PLAIN
    },
    Row {
        kind: "bcache",
        usage: Usage::Member,
        block: 4096,
        magic: (24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
        uuid: Some(40),
        ..PLAIN
    },
    Row {
        kind: "bcachefs",
        block: 4096,
        magic: (24, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef"),
        uuid: Some(56),
        label: Some((72, 32)),
        ..PLAIN
    },
    Row {
        kind: "DM_snapshot_cow",
        usage: Usage::Member,
        magic: (0, b"SnAp"),
        check: |block| block.le32(4) <= 1,
        ..PLAIN
    },
    Row { kind: "stratis", usage: Usage::Member, block: 512, magic: (4, b"!Stra0tis\x86\xff\x02^\x41rh"), ..PLAIN },
    Row { kind: "ceph_bluestore", usage: Usage::Member, magic: (0, b"bluestore block device"), ..PLAIN },
    Row { kind: "vdo", usage: Usage::Member, magic: (0, b"dmvdo001"), ..PLAIN },
    Row {
        kind: "VMFS_volume_member",
        usage: Usage::Member,
        block: 0x10_0000,
        magic: (0, b"\x0d\xd0\x01\xc0"),
        ..PLAIN
    },
    Row { kind: "BitLocker", usage: Usage::Crypto, magic: (3, b"-FVE-FS-"), ..PLAIN },
];

/// A magic of two bytes is little: the maps must have room for what they are maps of.
fn is_minix(block: &Bytes) -> bool {
    let (inodes, inode_map) = (u32::from(block.le16(0)), u32::from(block.le16(4)));
    let version2 = matches!(block.le16(16), 0x2468 | 0x2478);
    let zones = if version2 { block.le32(20) } else { u32::from(block.le16(2)) };
    let (zone_map, first, log) = (u32::from(block.le16(6)), u32::from(block.le16(8)), block.le16(10));
    let has_room = |map: u32, count: u32| u64::from(map) * 8192 > u64::from(count);
    inodes > 0 && has_room(inode_map, inodes) && first < zones && has_room(zone_map, zones - first) && log == 0
}

/// Everything in the table, and ext and swap, whose kinds are told by more than a magic.
pub(super) fn find(window: &mut Window<'_, '_>) -> Vec<Found> {
    let mut found: Vec<Found> = ext(window).into_iter().collect();
    found.extend(swap(window));
    for row in ROWS {
        let (at, magic) = row.magic;
        if !window.has(row.block + at as u64, magic) || row.kind == "minix" && !found.is_empty() {
            continue;
        }
        let whole = window.get(row.block, BLOCK);
        let Some(block) = whole.or_else(|| window.get(row.block, 512)) else { continue };
        if !(row.check)(&block) {
            continue;
        }
        let mut one = Found::new(row.kind, row.usage, row.block);
        one.uuid = row.uuid.and_then(|at| uuid(block.slice(at, 16)));
        one.label = row.label.and_then(|(at, count)| text(block.slice(at, count)));
        if row.kind == "f2fs" {
            one.label = window.get(row.block + 0x7c, 1024).and_then(|name| wide_text(&name.0, u16::from_le_bytes));
        }
        found.push(one);
    }
    found
}

/// ext2, ext3 and ext4 have one magic, and differ in what they need.
fn ext(window: &mut Window<'_, '_>) -> Option<Found> {
    const HAS_JOURNAL: u32 = 0x4;
    const IS_JOURNAL: u32 = 0x8;
    const NEEDS_RECOVERY: u32 = 0x4;
    /// File types in directories, and groups of metadata.
    const OLD_INCOMPATIBLE: u32 = 0x2 | 0x10;
    /// Sparse superblocks, large files, sorted directories.
    const OLD_READ_ONLY: u32 = 0x7;
    if !window.has(1024 + 0x38, b"\x53\xef") {
        return None;
    }
    let block = window.get(1024, 1024)?;
    let (compatible, incompatible, read_only) = (block.le32(0x5c), block.le32(0x60), block.le32(0x64));
    let is_old = read_only & !OLD_READ_ONLY == 0;
    let kind = if incompatible & IS_JOURNAL != 0 {
        "jbd"
    } else if compatible & HAS_JOURNAL == 0 && is_old && incompatible & !OLD_INCOMPATIBLE == 0 {
        "ext2"
    } else if compatible & HAS_JOURNAL != 0 && is_old && incompatible & !(OLD_INCOMPATIBLE | NEEDS_RECOVERY) == 0 {
        "ext3"
    } else {
        "ext4"
    };
    let mut found = Found::new(kind, Usage::FileSystem, 1024);
    found.uuid = uuid(block.slice(0x68, 16));
    found.label = text(block.slice(0x78, 16));
    Some(found)
}

/// Swap has its magic at the end of the first page, however large pages are there.
fn swap(window: &mut Window<'_, '_>) -> Option<Found> {
    let is = |window: &mut Window<'_, '_>, magics: &[&[u8]]| {
        let pages = (12..=16).map(|bits| 1_u64 << bits);
        pages
            .flat_map(|page| magics.iter().map(move |magic| (page - 10, *magic)))
            .any(|(at, magic)| window.has(at, magic))
    };
    let sleeps: [&[u8]; 5] = [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"TuxOnIce", b"LINHIB0001"];
    let kind = if is(window, &[b"SWAPSPACE2", b"SWAP-SPACE"]) {
        "swap"
    } else if is(window, &sleeps) {
        "swsuspend"
    } else {
        return None;
    };
    let block = window.get(1024, 512)?;
    let mut found = Found::new(kind, Usage::Swap, 0);
    // Version 1 has them; version 0 has a map of bad pages there.
    if block.le32(0) == 1 {
        found.uuid = uuid(block.slice(12, 16));
        found.label = text(block.slice(28, 16));
    }
    Some(found)
}
