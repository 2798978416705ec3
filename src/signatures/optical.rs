//! ISO 9660 and UDF.

use super::window::{Bytes, Window};
use super::{Found, Usage, hex, text, wide_text};

/// Bytes of a sector of a disc, and where the descriptors begin.
const SECTOR: u64 = 2048;
const BEGIN: u64 = 16 * SECTOR;
/// Descriptors that are looked at.
const DESCRIPTORS_MAX: u64 = 64;

pub(super) fn find(window: &mut Window<'_, '_>) -> Vec<Found> {
    [iso(window), udf(window)].into_iter().flatten().collect()
}

fn iso(window: &mut Window<'_, '_>) -> Option<Found> {
    const PRIMARY: u8 = 1;
    const SUPPLEMENTARY: u8 = 2;
    const LAST: u8 = 255;
    if !window.has(BEGIN + 1, b"CD001") {
        return None;
    }
    let mut found = Found::new("iso9660", Usage::FileSystem, BEGIN);
    let mut joliet = None;
    for index in 0..DESCRIPTORS_MAX {
        let at = BEGIN + index * SECTOR;
        let Some(one) = window.get(at, 1024).filter(|one| one.slice(1, 5) == b"CD001") else { break };
        match one.byte(0) {
            PRIMARY => {
                found.label = text(one.slice(40, 32));
                // When it was changed, else when it was made.
                found.uuid = time(one.slice(830, 17)).or_else(|| time(one.slice(813, 17)));
            }
            SUPPLEMENTARY if matches!(one.slice(88, 3), b"%/@" | b"%/C" | b"%/E") => {
                joliet = wide_text(one.slice(40, 32), u16::from_be_bytes);
            }
            LAST => break,
            _ => {}
        }
    }
    found.label = longer(found.label, joliet);
    Some(found)
}

/// The longer name has more of it: one is cut at 16 letters, the other has no small ones.
fn longer(name: Option<String>, joliet: Option<String>) -> Option<String> {
    match (name, joliet) {
        (Some(name), Some(joliet)) => {
            let same = name.chars().zip(joliet.chars()).all(|(a, b)| a.eq_ignore_ascii_case(&b) || a == '_');
            let rest: String = name.chars().skip(joliet.chars().count()).collect();
            Some(if same { joliet + &rest } else { joliet })
        }
        (name, joliet) => joliet.or(name),
    }
}

/// `2026-01-31-23-59-59-00`, of sixteen digits and a zone.
fn time(digits: &[u8]) -> Option<String> {
    let digits = digits.get(..16).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    if digits.iter().all(|digit| *digit == b'0') {
        return None;
    }
    let text = String::from_utf8_lossy(digits);
    let cuts = [0, 4, 6, 8, 10, 12, 14, 16];
    Some(cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect::<Vec<_>>().join("-"))
}

/// The sequence of descriptors says that it is UDF; the anchor leads to its names.
fn udf(window: &mut Window<'_, '_>) -> Option<Found> {
    let is_it = |window: &mut Window<'_, '_>, unit: u64| {
        (0..DESCRIPTORS_MAX)
            .map(|index| BEGIN + index * unit)
            .any(|at| window.has(at + 1, b"NSR02") || window.has(at + 1, b"NSR03"))
    };
    // Sectors of a disk of 4096 bytes are as long as that.
    if !is_it(window, SECTOR) && !is_it(window, 4096) {
        return None;
    }
    let mut found = Found::new("udf", Usage::FileSystem, BEGIN);
    for unit in [512, 1024, 2048, 4096] {
        let anchor = window.get(256 * unit, 512);
        let Some(anchor) = anchor.filter(|anchor| anchor.le16(0) == 2 && anchor.le32(12) == 256) else { continue };
        let (length, at) = (u64::from(anchor.le32(16)), u64::from(anchor.le32(20)));
        for index in 0..(length / unit).min(DESCRIPTORS_MAX) {
            let Some(one) = window.get((at + index) * unit, 512) else { break };
            match one.le16(0) {
                1 => found.uuid = identifier(&one),
                6 => found.label = compressed(one.slice(84, 128)),
                8 => break,
                _ => {}
            }
        }
        break;
    }
    Some(found)
}

/// A text with a byte that says how it is written before it, and its length at the end.
fn compressed(field: &[u8]) -> Option<String> {
    let length = usize::from(*field.last()?);
    let bytes = field.get(1..length)?;
    match field[0] {
        8 => Some(bytes.iter().map(|byte| char::from(*byte)).collect::<String>()).filter(|text| !text.is_empty()),
        16 => wide_text(bytes, u16::from_be_bytes),
        _ => None,
    }
}

/// Of the identifier of a set of volumes as much as makes one volume unique: sixteen hexadecimal digits.
fn identifier(volume: &Bytes) -> Option<String> {
    let name = compressed(volume.slice(72, 128))?.into_bytes();
    if name.len() < 8 {
        return None;
    }
    let digits = name.iter().take(16).take_while(|byte| byte.is_ascii_hexdigit()).count();
    let plain = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_ascii_lowercase();
    Some(match digits {
        0..8 => hex(&name[..8]),
        8..16 => plain(&name[..8]) + &hex(name.get(8..12)?),
        _ => plain(&name[..16]),
    })
}
