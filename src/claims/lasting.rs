//! A job's bytes by names that last, as they are kept in memory and in its record.
//!
//! In a record a region is one line: its extents, separated by blanks, or `-` where it has none.
//! ```text
//! 1048576+4096@0:wwid:naa.5000c500a1b2c3d4      4096 bytes from 1048576 on are the region's first
//! 1048576+4096:md:0c5f...                       the same bytes, but which of the region's they are is not known
//! ~0+18446744073709551615:serial:WD-1           its bytes are somewhere in there
//! ```

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::index::Access;
use crate::blkdev::LastingExtent;
use crate::dm_io::ErrorBits;
use crate::spec::Place;

/// A part of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Region {
    Source,
    /// A destination, counted from 0.
    Dest(usize),
}

/// A [`Region`] in two bytes: the source, then the destinations, which are few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RegionCode(u16);

impl From<Region> for RegionCode {
    fn from(region: Region) -> Self {
        Self(match region {
            Region::Source => 0,
            Region::Dest(index) => u16::try_from(index + 1).expect("a job has 64 destinations at most"),
        })
    }
}

impl From<RegionCode> for Region {
    fn from(RegionCode(code): RegionCode) -> Self {
        code.checked_sub(1).map_or(Self::Source, |index| Self::Dest(index.into()))
    }
}

impl From<Region> for Place {
    fn from(region: Region) -> Self {
        match region {
            Region::Source => Self::From,
            Region::Dest(index) => Self::To(index),
        }
    }
}

/// What a job reads and writes, by names that last.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Lasting {
    /// Empty where there is no source.
    pub(crate) source: Vec<LastingExtent>,
    pub(crate) dests: Vec<Vec<LastingExtent>>,
    /// False for a comparison, which only reads its destinations.
    pub(crate) writes: bool,
    /// The length of each region.
    pub(crate) sectors: u64,
}

impl Lasting {
    /// All its extents that have bytes, the destinations' first.
    pub(super) fn extents(&self) -> impl Iterator<Item = (Region, Access, &LastingExtent)> {
        let access = self.access();
        let dests = self.dests.iter().enumerate();
        let dests = dests.flat_map(move |(index, dest)| dest.iter().map(move |one| (Region::Dest(index), access, one)));
        let source = self.source.iter().map(|one| (Region::Source, Access::Read, one));
        dests.chain(source).filter(|(.., extent)| !extent.bytes.is_empty())
    }

    /// The same without some destinations.
    pub(crate) fn without(&self, dests: ErrorBits) -> Self {
        let mut rest = self.clone();
        dests.iter().for_each(|index| rest.dests[index].clear());
        rest
    }

    pub(crate) fn extents_mut(&mut self) -> impl Iterator<Item = &mut LastingExtent> {
        self.source.iter_mut().chain(self.dests.iter_mut().flatten())
    }

    /// What is done to its destinations.
    pub(super) fn access(&self) -> Access {
        if self.writes { Access::Write } else { Access::Read }
    }
}

/// A region as a line of a record.
pub(crate) fn print(region: &[LastingExtent]) -> String {
    Printed(region).to_string()
}

struct Printed<'a>(&'a [LastingExtent]);

impl fmt::Display for Printed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for (index, LastingExtent { medium, bytes, exact, at }) in self.0.iter().enumerate() {
            let (blank, sign) = (if index == 0 { "" } else { " " }, if *exact { "" } else { "~" });
            write!(f, "{blank}{sign}{}+{}", bytes.start, bytes.end - bytes.start)?;
            if let Some(at) = at {
                write!(f, "@{at}")?;
            }
            write!(f, ":{medium}")?;
        }
        Ok(())
    }
}

/// Reads a line that [`print()`] has made; `None` where it has not.
pub(crate) fn parse(line: &str) -> Option<Vec<LastingExtent>> {
    if line == "-" {
        return Some(Vec::new());
    }
    let mut extents: Vec<_> = line.split(' ').map(extent).collect::<Option<_>>()?;
    // They are kept for long.
    extents.shrink_to_fit();
    Some(extents)
}

fn extent(word: &str) -> Option<LastingExtent> {
    let (place, medium) = word.split_once(':').filter(|(_, medium)| is_name(medium))?;
    let (exact, place) = place.strip_prefix('~').map_or((true, place), |place| (false, place));
    let (place, at) = match place.split_once('@') {
        Some((place, at)) => (place, Some(number(at)?)),
        None => (place, None),
    };
    let (start, length) = place.split_once('+')?;
    let start = number(start)?;
    let bytes: Range<u64> = start..start.checked_add(number(length)?)?;
    Some(LastingExtent { medium: Arc::from(medium), bytes, exact, at })
}

/// Digits only, as they are printed.
fn number(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn is_name(medium: &str) -> bool {
    !medium.is_empty() && medium.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extents() -> impl Strategy<Value = Vec<LastingExtent>> {
        let extent = ("[!-~]{1,40}", any::<(u64, u64)>(), any::<bool>(), any::<Option<u64>>());
        let extent = extent.prop_map(|(medium, (a, b), exact, at)| LastingExtent {
            medium: medium.into(),
            bytes: a.min(b)..a.max(b),
            exact,
            at,
        });
        prop::collection::vec(extent, 0..5)
    }

    #[test]
    fn a_line_says_what_is_meant() {
        let one = |medium: &str, exact, at| LastingExtent { medium: medium.into(), bytes: 512..1024, exact, at };
        let region = [one("dm:LVM-x", true, Some(0)), one("wwid:naa.5", false, None)];
        assert_eq!(print(&region), "512+512@0:dm:LVM-x ~512+512:wwid:naa.5");
        assert_eq!(print(&[]), "-");
    }

    #[test]
    fn what_nobody_printed_is_not_understood() {
        let all = u64::MAX;
        let overflow = format!("1+{all}:x");
        for line in [
            "",
            " ",
            "0+1",
            "0+1:",
            ":x",
            "0:x",
            "+1:x",
            "0+1@:x",
            "0+1@-1:x",
            "00+1:x",
            "+0+1:x",
            &overflow,
            "0+1:x ",
            "0+1:\u{e4}",
        ] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(region in extents()) {
            prop_assert_eq!(parse(&print(&region)), Some(region));
        }

        #[test]
        fn no_line_confuses_it(line in "[ -~]{0,60}") {
            if let Some(region) = parse(&line) {
                prop_assert_eq!(print(&region), line);
            }
        }
    }
}
