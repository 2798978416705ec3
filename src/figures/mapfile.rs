//! A mapfile of GNU ddrescue, as it comes in with `map=`. Pure.
//!
//! Origin: the section "Mapfile structure" of ddrescue's manual. Lines that begin with `#` are comments; the first other line
//! says where ddrescue was; each line behind it is `POSITION SIZE STATUS`, in bytes of the source, ascending. Of the statuses
//! only `+` and `-` say anything here: the rest is to be done.

use std::ops::Range;

use super::ranges::RangeSet;
use crate::error::{Error, ErrorKind, Result};
use crate::sector::SECTOR_SIZE;

/// What a mapfile says of a job's region, in sectors of the job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// It is on every destination.
    pub(crate) there: RangeSet,
    /// It could not be read.
    pub(crate) bad: RangeSet,
}

/// The region that a mapfile is read for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// Its first byte on the source.
    pub(crate) start: u64,
    /// Its bytes.
    pub(crate) length: u64,
    /// Sectors in the coarsest logical block: of `+` only whole ones count.
    pub(crate) block: u64,
    /// Sectors in the source's logical block: of `-` only whole ones count.
    pub(crate) source_block: u64,
    /// Ranges that are taken at most.
    pub(crate) most: usize,
}

/// Reads a mapfile's text.
///
/// # Errors
/// `Invalid` with the line's number where it is none, or tells of what lies beyond the region; `TooBig` for too many ranges.
pub(crate) fn parse(text: &[u8], frame: Frame) -> Result<Given> {
    let mut given = Given::default();
    let mut end = None;
    let mut is_begun = false;
    for (number, line) in (1_u64..).zip(text.split(|byte| *byte == b'\n')) {
        let refuse = |why: &str| Err(Error::new(ErrorKind::Invalid, format!("line {number}: {why}")));
        let Ok(line) = std::str::from_utf8(line) else { return refuse(NO_MAP) };
        let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_ascii_whitespace().collect();
        if words.is_empty() {
            continue;
        }
        if !std::mem::replace(&mut is_begun, true) {
            match words[..] {
                [position, status] | [position, status, _] if parse_number(position).is_some() && status.len() == 1 => {
                    continue;
                }
                _ => return refuse(NO_MAP),
            }
        }
        let [position, size, status] = words[..] else { return refuse(NO_MAP) };
        let (Some(position), Some(size)) = (parse_number(position), parse_number(size)) else { return refuse(NO_MAP) };
        let Some(stop) = position.checked_add(size) else { return refuse("it ends beyond any device") };
        if end.is_some_and(|end| position < end) {
            return refuse("it begins before the line above it ends");
        }
        end = Some(stop);
        let set = match status {
            "+" => &mut given.there,
            "-" => &mut given.bad,
            "?" | "*" | "/" => continue,
            _ => return refuse(NO_MAP),
        };
        let (first, last) = (frame.start, frame.start.saturating_add(frame.length));
        if size > 0 && (position < first || stop > last) {
            return refuse(&format!(
                "bytes {position} to {stop} are beyond the job's region, bytes {first} to {last} of the source: \
                 copy the region that the map was made for"
            ));
        }
        let block = if status == "+" { frame.block } else { frame.source_block };
        set.insert(inward(&(position - first..stop - first), block, frame.length));
        if given.there.len() + given.bad.len() > frame.most {
            let what = format!("line {number}: more than {} ranges of + and -", frame.most);
            return Err(Error::new(ErrorKind::TooBig, what));
        }
    }
    if is_begun { Ok(given) } else { Err(Error::new(ErrorKind::Invalid, format!("line 1: {NO_MAP}"))) }
}

const NO_MAP: &str = "this is no mapfile of ddrescue";

/// The whole blocks in a range of bytes, in sectors; the last block of the region may be a part of one.
fn inward(bytes: &Range<u64>, block: u64, length: u64) -> Range<u64> {
    let size = block * SECTOR_SIZE;
    let start = bytes.start.div_ceil(size) * block;
    let end = if bytes.end == length { length / SECTOR_SIZE } else { bytes.end / size * block };
    start..end.max(start)
}

/// A number as C writes it: decimal, `0x` hexadecimal, or octal from `0` on.
fn parse_number(text: &str) -> Option<u64> {
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) if digits.starts_with('+') => None,
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(&text[1..], 8).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: Frame = Frame { start: 4096, length: 1 << 20, block: 1, source_block: 1, most: 100 };

    /// First sectors and ends.
    fn ranges(set: &RangeSet) -> Vec<(u64, u64)> {
        set.iter().map(|range| (range.start, range.end)).collect()
    }

    fn refusal(text: &str, frame: Frame) -> String {
        parse(text.as_bytes(), frame).unwrap_err().to_string()
    }

    #[test]
    fn what_is_said_of_the_region_is_taken() {
        let text = "# Mapfile. Created by GNU ddrescue version 1.27\n# Command line: ddrescue a b c\n\
                    # current_pos  current_status  current_pass\n0x00001200     ?               1\n\
                    #      pos        size  status\n0 4096 ?\n0x1000  0x400  +\n0x1400  01000  -\n\
                    5632 512 *\n6144 512 / # a note\n0x1A00  0x200  +\n";
        let given = parse(text.as_bytes(), FRAME).unwrap();
        assert_eq!((ranges(&given.there), ranges(&given.bad)), (vec![(0, 2), (5, 6)], vec![(2, 3)]));
        // An older one has no pass.
        let given = parse(b"0 +\n4096 1048576 +", FRAME).unwrap();
        assert_eq!((ranges(&given.there), given.bad.is_empty()), (vec![(0, 2048)], true));
    }

    #[test]
    fn parts_of_blocks_are_to_be_done() {
        let coarse = Frame { block: 8, source_block: 2, ..FRAME };
        let given = parse(b"0 ? 1\n4096 5000 +\n9096 100 ?\n9196 20000 -\n", coarse).unwrap();
        assert_eq!((ranges(&given.there), ranges(&given.bad)), (vec![(0, 8)], vec![(10, 48)]));
        // The end of the region is a whole block, however short.
        let odd = Frame { length: (1 << 20) - 512, ..coarse };
        let given = parse(b"0 ? 1\n4096 1048064 +\n", odd).unwrap();
        assert_eq!(ranges(&given.there), [(0, 2047)]);
        // Less than a sector is nothing.
        let given = parse(b"0 ? 1\n4100 300 +\n4400 300 -\n", FRAME).unwrap();
        assert!(given.there.is_empty() && given.bad.is_empty());
    }

    #[test]
    fn anything_else_is_refused_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("\n# nothing\n", 1),
            ("hello\n", 1),
            ("0 ? 1\n0 1\n", 2),
            ("0 ? 1\n\n0 512 x\n", 3),
            ("0 ? 1\n0 -512 +\n", 2),
            ("0 ? 1\n0 0x+1 +\n", 2),
            ("0 ? 1\n4096 1024 +\n4608 512 -\n", 3),
            ("0 ? 1\n18446744073709551615 2 ?\n", 2),
            ("0 ? 1\n0 512 +\n", 2),
            ("0 ? 1\n4096 512 ?\n4608 1048576 -\n", 3),
        ] {
            assert!(refusal(text, FRAME).starts_with(&format!("line {line}: ")), "{text:?}: {}", refusal(text, FRAME));
        }
        assert!(parse(b"\xff\xfe\n", FRAME).is_err());
        let told = refusal("0 ? 1\n0 512 +\n", FRAME);
        assert!(told.contains("bytes 0 to 512 are beyond the job's region, bytes 4096 to 1052672"), "{told}");
        let few = Frame { most: 1, ..FRAME };
        let many = parse(b"0 ? 1\n4096 512 +\n8192 512 +\n", few).unwrap_err();
        assert_eq!(many.kind(), ErrorKind::TooBig);
        // What was not tried out there says nothing.
        assert!(parse(b"0 ? 1\n0 4096 ?\n1052672 512 ?\n", FRAME).is_ok());
    }
}
