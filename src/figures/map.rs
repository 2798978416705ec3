//! `map.K`: how far destination K is, as a mapfile of GNU ddrescue. Pure.
//!
//! Origin: the section "Mapfile structure" of ddrescue's manual. Positions are bytes of the source; `+` is durable on the
//! destination, `-` could not be read, `?` is everything else. Its comment is the ddrescue command that would finish the
//! job by hand; a job that only compares has none, for it would overwrite what was compared. Of a test, positions are those of the
//! destination, and `-` is what failed.

use std::fmt::Write as _;

use super::ranges::RangeSet;
use crate::sector::SECTOR_SIZE;
use crate::spec::RegionSpec;

/// A destination's map.
pub(crate) struct Map<'a> {
    pub(crate) from: &'a RegionSpec,
    pub(crate) to: &'a RegionSpec,
    pub(crate) total: u64,
    pub(crate) durable: &'a RangeSet,
    pub(crate) unreadable: &'a RangeSet,
    /// There is nothing that ddrescue could finish: the job only compares, or tests.
    pub(crate) compares: bool,
}

impl Map<'_> {
    pub(crate) fn text(&self) -> String {
        let (input, output) = (self.from.sector.bytes(), self.to.sector.bytes());
        let quote = |path: &std::ffi::OsStr| format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"));
        let (from, to) = (quote(&self.from.path), quote(&self.to.path));
        let mut text = format!("# Mapfile. Created by kcopyfs {}\n", env!("CARGO_PKG_VERSION"));
        let size = self.total * SECTOR_SIZE;
        if !self.compares {
            // -f: the output is there, or is a device. -d: blocks of the device, not pages of the cache. Without -r it would
            // leave alone what could not be read.
            let command = format!("ddrescue -f -d -r 1 -i {input} -o {output} -s {size} {from} {to} MAPFILE");
            // A name with a newline must not end the comment.
            _ = writeln!(text, "# To finish by hand: {}", command.replace('\n', "?"));
        }
        text.push_str("# current_pos  current_status  current_pass\n");
        let blocks = self.blocks();
        let open = blocks.iter().find(|(_, status)| *status == '?');
        let (position, status) = open.map_or((input, '+'), |(range, _)| (input + range.start * SECTOR_SIZE, '?'));
        _ = writeln!(text, "0x{position:08X}     {status}               1\n#      pos        size  status");
        for (range, status) in blocks {
            let (pos, size) = (input + range.start * SECTOR_SIZE, (range.end - range.start) * SECTOR_SIZE);
            _ = writeln!(text, "0x{pos:08X}  0x{size:08X}  {status}");
        }
        text
    }

    fn blocks(&self) -> Vec<(std::ops::Range<u64>, char)> {
        let bad = self.unreadable.without(self.durable);
        let open = self.durable.union(&bad).gaps(0..self.total);
        let mark = |set: &RangeSet, status| set.iter().map(move |range| (range, status)).collect::<Vec<_>>();
        let mut blocks = [mark(self.durable, '+'), mark(&bad, '-'), mark(&open, '?')].concat();
        blocks.sort_by_key(|(range, _)| range.start);
        blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sector::Sector;

    #[test]
    fn blocks_follow_each_other_without_gaps() {
        let region =
            |path: &str, sector| RegionSpec { path: path.into(), sector: Sector::new(sector).unwrap(), count: None };
        let (durable, unreadable) = ([0..10, 20..30].into_iter().collect(), std::iter::once(10..12).collect());
        let (from, to) = (region("/dev/a b", 8), region("/x", 16));
        let map = Map { from: &from, to: &to, total: 40, durable: &durable, unreadable: &unreadable, compares: false };
        let text = map.text();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("0x")).collect();
        let want = [
            "0x00002800     ?               1",
            "0x00001000  0x00001400  +",
            "0x00002400  0x00000400  -",
            "0x00002800  0x00001000  ?",
            "0x00003800  0x00001400  +",
            "0x00004C00  0x00001400  ?",
        ];
        assert_eq!(lines, want);
        assert!(text.contains("ddrescue -f -d -r 1 -i 4096 -o 8192 -s 20480 '/dev/a b' '/x' MAPFILE"));
        let compared = Map { compares: true, ..map }.text();
        assert!(!compared.contains("ddrescue") && compared.lines().any(|line| line == want[1]));
    }
}
