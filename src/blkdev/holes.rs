//! Where a regular file has holes, by lseek(2): what is in one need not be read. The file system may take its time, or never answer.

use std::ops::Range;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::device::Device;

/// Smaller holes are read as data: that takes no longer than to go around them.
const SMALLEST: u64 = 16 << 20;
/// A look ends when it has found so many,
const MOST: usize = 4096;
/// or has taken so long: then what was found is of use already.
const LONGEST: Duration = Duration::from_millis(200);

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Looked {
    /// What was looked at, in bytes: a first part of what was asked for, or all of it.
    pub(crate) bytes: Range<u64>,
    /// The holes in it, ascending.
    pub(crate) holes: Vec<Range<u64>>,
}

impl Device {
    /// Looks for holes of a regular file in a range of bytes. What it does not know it takes for data: then a read tells.
    pub(crate) fn look_for_holes(&self, bytes: Range<u64>) -> Looked {
        let begun = Instant::now();
        let seek = |at: u64, how| {
            let at = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
            lseek(self.file(), at, how).map(i64::unsigned_abs)
        };
        // Behind the end of a file there is no hole: it was cut, and a read says so.
        let end = self.file().metadata().map_or(bytes.start, |meta| meta.len()).min(bytes.end);
        let mut holes = Vec::new();
        let mut at = bytes.start;
        while at < end {
            if holes.len() == MOST || at > bytes.start && begun.elapsed() > LONGEST {
                return Looked { bytes: bytes.start..at, holes };
            }
            let data = match seek(at, Whence::SeekData) {
                Ok(data) => data.clamp(at, end),
                // No data from there to the end.
                Err(Errno::ENXIO) => end,
                Err(_) => break,
            };
            if data - at >= SMALLEST {
                holes.push(at..data);
            }
            at = match seek(data, Whence::SeekHole) {
                Ok(hole) if data < end && hole > data => hole.min(end),
                _ => break,
            };
        }
        Looked { bytes, holes }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn large_holes_are_found_and_small_ones_are_data() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(300 * MIB).unwrap();
        for at in [20, 21, 30, 100] {
            file.write_all_at(&vec![1; MIB as usize], at * MIB).unwrap();
        }
        let device = Device::buffered(&path).unwrap();
        let found = device.look_for_holes(0..300 * MIB);
        assert_eq!(found.bytes, 0..300 * MIB);
        let holes = [0..20 * MIB, 31 * MIB..100 * MIB, 101 * MIB..300 * MIB];
        assert_eq!(found.holes, holes);
        let part = device.look_for_holes(40 * MIB..101 * MIB);
        assert!(part.holes.len() == 1 && part.holes[0] == (40 * MIB..100 * MIB));
        assert_eq!(device.look_for_holes(90 * MIB..101 * MIB).holes, []);
        // What was cut off is no hole.
        file.set_len(200 * MIB).unwrap();
        let cut = device.look_for_holes(150 * MIB..300 * MIB);
        assert_eq!(cut.bytes, 150 * MIB..300 * MIB);
        assert!(cut.holes.len() == 1 && cut.holes[0] == (150 * MIB..200 * MIB));
        assert_eq!(device.look_for_holes(250 * MIB..300 * MIB).holes, []);
    }
}
