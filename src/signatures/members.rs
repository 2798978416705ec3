//! Members of something larger, and ciphertext: LVM, md, LUKS, ZFS, DRBD, RAID of firmware.

use super::window::{Bytes, Window};
use super::{Found, Usage, text, uuid};

pub(super) fn find(window: &mut Window<'_, '_>) -> Vec<Found> {
    let one = [lvm(window), luks(window), zfs(window), drbd(window), firmware_raid(window)];
    one.into_iter().flatten().chain(md(window)).collect()
}

/// A physical volume has its label in one of the first four sectors.
fn lvm(window: &mut Window<'_, '_>) -> Option<Found> {
    let at = (0..4).map(|sector| sector * 512).find(|at| window.has(*at, b"LABELONE"))?;
    let label = window.get(at, 512)?;
    if label.slice(24, 8) != b"LVM2 001" {
        return None;
    }
    let mut found = Found::new("LVM2_member", Usage::Member, at);
    let header = usize::try_from(label.le32(20)).ok()?;
    let id =
        text(label.slice(header, 32)).filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_graphic()));
    found.uuid = id.map(|id| {
        let cuts = [0, 6, 10, 14, 18, 22, 26, 32];
        cuts.windows(2).map(|cut| &id[cut[0]..cut[1]]).collect::<Vec<_>>().join("-")
    });
    Some(found)
}

fn luks(window: &mut Window<'_, '_>) -> Option<Found> {
    if !window.has(0, b"LUKS\xba\xbe") {
        return None;
    }
    let header = window.get(0, 512)?;
    let mut found = Found::new("crypto_LUKS", Usage::Crypto, 0);
    found.uuid = text(header.slice(168, 40));
    if header.be16(6) == 2 {
        found.label = text(header.slice(24, 48));
    }
    Some(found)
}

/// A superblock of version 1 is at the beginning, 4 KiB behind it, or near the end; one of version 0.90 near the end.
fn md(window: &mut Window<'_, '_>) -> Vec<Found> {
    const MAGIC: [u8; 4] = 0xa92b_4efc_u32.to_le_bytes();
    let size = window.size();
    let near_end = (size / 512).checked_sub(16).map(|sector| (sector & !7) * 512);
    let mut all = Vec::new();
    for at in [Some(0), Some(4096), near_end].into_iter().flatten() {
        let Some(block) = window.get(at, 256).filter(|block| block.slice(0, 4) == MAGIC) else { continue };
        if block.le32(4) != 1 || block.le64(144).checked_mul(512) != Some(at) {
            continue;
        }
        let mut found = Found::new("linux_raid_member", Usage::Member, at);
        (found.uuid, found.label) = (uuid(block.slice(16, 16)), text(block.slice(32, 32)));
        all.push(found);
    }
    let old = (size & !0xffff).checked_sub(0x1_0000);
    let old = old.and_then(|at| Some((at, window.get(at, 256)?)));
    if let Some((at, block)) = old {
        let order: Option<fn(&Bytes, usize) -> u32> = match block.slice(0, 4) {
            magic if magic == MAGIC => Some(Bytes::le32),
            magic if magic.iter().rev().eq(&MAGIC) => Some(Bytes::be32),
            _ => None,
        };
        if let Some(number) = order.filter(|number| number(&block, 4) == 0) {
            let words = [20, 52, 56, 60].map(|word| number(&block, word).to_be_bytes());
            let mut found = Found::new("linux_raid_member", Usage::Member, at);
            found.uuid = uuid(&words.concat());
            all.push(found);
        }
    }
    all
}

/// Each of the four labels of a pool's member has uberblocks, and a list of names and values.
fn zfs(window: &mut Window<'_, '_>) -> Option<Found> {
    const LABEL: u64 = 256 << 10;
    const MAGIC: u64 = 0x00ba_b10c;
    /// blkid(8) wants as many.
    const UBERBLOCKS: usize = 4;
    let size = window.size();
    let end = size / LABEL * LABEL;
    let labels = [Some(0), Some(LABEL), end.checked_sub(2 * LABEL), end.checked_sub(LABEL)];
    let has_uberblock = |window: &mut Window<'_, '_>, at: u64| {
        let bytes = window.get(at, 8).unwrap_or_default();
        bytes.le64(0) == MAGIC || bytes.be64(0) == MAGIC
    };
    let mut blocks: Vec<u64> = Vec::new();
    let mut named = None;
    for label in labels.into_iter().flatten() {
        let here = (128..256).map(|kib| label + (kib << 10));
        let here: Vec<_> = here.filter(|at| has_uberblock(window, *at)).collect();
        if !here.is_empty() && named.is_none() {
            named = window.get(label + (16 << 10), 112 << 10);
        }
        blocks.extend(here);
    }
    if blocks.len() < UBERBLOCKS {
        return None;
    }
    let mut found = Found::new("zfs_member", Usage::Member, *blocks.first()?);
    (found.label, found.uuid) = named.map(|list| pool(&list)).unwrap_or_default();
    Some(found)
}

/// A pool's name and guid, of a list in XDR.
fn pool(list: &Bytes) -> (Option<String>, Option<String>) {
    const UINT64: u32 = 8;
    const STRING: u32 = 9;
    /// Names in the list that are looked at.
    const PAIRS_MAX: usize = 64;
    let (mut name, mut guid) = (None, None);
    let mut at = 12_usize;
    for _ in 0..PAIRS_MAX {
        let size = list.be32(at) as usize;
        let length = list.be32(at + 8) as usize;
        if size < 20 || size > list.0.len() || length > size {
            break;
        }
        let value = at + 12 + length.next_multiple_of(4);
        match (list.slice(at + 12, length), list.be32(value)) {
            (b"name", STRING) => name = text(list.slice(value + 12, (list.be32(value + 8) as usize).min(256))),
            (b"pool_guid", UINT64) => guid = Some(list.be64(value + 8)).filter(|guid| *guid != 0),
            _ => {}
        }
        at += size;
        if at >= list.0.len() {
            break;
        }
    }
    (name, guid.map(|guid| guid.to_string()))
}

fn drbd(window: &mut Window<'_, '_>) -> Option<Found> {
    let at = (window.size() & !0xfff).checked_sub(4096)?;
    let block = window.get(at, 512)?;
    let is_it = matches!(block.be32(60), 0x8374_026b..=0x8374_026d);
    is_it.then(|| Found::new("drbd", Usage::Member, at))
}

/// What the firmware of a controller keeps in the last sectors.
fn firmware_raid(window: &mut Window<'_, '_>) -> Option<Found> {
    let sectors = window.size() / 512;
    let at = |from_end: u64| sectors.checked_sub(from_end).map(|sector| sector * 512);
    if let Some(at) = at(1).filter(|at| window.has(*at, b"\xde\x11\xde\x11")) {
        return Some(Found::new("ddf_raid_member", Usage::Member, at));
    }
    let at = at(2).filter(|at| window.has(*at, b"Intel Raid ISM Cfg Sig. "))?;
    Some(Found::new("isw_raid_member", Usage::Member, at))
}
