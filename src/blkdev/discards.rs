//! Discards that a device answers with zeros: they give space back, where write-zeroes would keep it or is not there.
//!
//! What a discarded block reads as, most devices leave open: zeros now may be something else later. Two promise zeros, and only
//! they are trusted: a dm-thin volume for blocks of its pool that are discarded whole, and a SCSI disk that says so in its page
//! of logical block provisioning (LBPRZ, `sg_vpd -p lbpv`). Whoever discards reads it back all the same.
//!
//! A block of a thin pool that does not zero new blocks (`skip_block_zeroing`) reads as zeros only until a part of it is written.
//! Then the rest shows what the pool held there before: so what is zeros in a part of a block is written there.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::device::Device;
use super::sysfs::{node, number};
use super::{dm, sys};
use crate::sector::SECTOR_SIZE;

/// How a device takes discards.
#[derive(Debug)]
pub(super) struct Discards {
    /// What is given back is a multiple of so many bytes,
    granule: u64,
    /// and begins at a multiple of them from here on.
    first: u64,
    /// Where a part of a granule is written, the rest may become something else than the zeros that it reads as.
    is_zeroed_late: bool,
    /// What was discarded did not read as zeros, or a discard failed.
    is_useless: AtomicBool,
}

impl Discards {
    pub(super) fn new(granule: u64, first: u64, is_zeroed_late: bool) -> Self {
        Self { granule, first, is_zeroed_late, is_useless: AtomicBool::new(false) }
    }

    /// Those of a block device, where it promises zeros.
    pub(super) fn of(rdev: u64) -> Option<Self> {
        let node = node(rdev);
        // Of a partition what it does not have itself is its disk's.
        let ask = |name: &str| number(&node.join(name)).or_else(|| number(&node.join("..").join(name)));
        let takes = ask("queue/discard_max_bytes").is_some_and(|most| most > 0);
        if let Some(pool) = pool(&node, rdev) {
            let this = Self::new(pool.block * SECTOR_SIZE, 0, !pool.zeroes);
            this.is_useless.store(!takes, Ordering::Relaxed);
            return Some(this);
        }
        let granule = ask("queue/discard_granularity").filter(|granule| takes && *granule > 0)?;
        let promises = ["device/vpd_pgb2", "../device/vpd_pgb2"].iter().any(|page| is_zeroing(&node.join(page)));
        promises.then(|| Self::new(granule, number(&node.join("discard_alignment")).unwrap_or(0), false))
    }

    /// The granules that lie in a range.
    fn within(&self, bytes: &Range<u64>) -> Option<Range<u64>> {
        let first = self.first % self.granule;
        let up = (bytes.start + self.granule - first).div_ceil(self.granule) * self.granule - self.granule + first;
        let down = bytes.end.checked_sub(first)? / self.granule * self.granule + first;
        (up < down).then_some(up..down)
    }
}

impl Device {
    /// The part of a range of bytes that a discard gives back and that reads as zeros after it; `None` where there is none, or no
    /// discard is to be trusted.
    pub(crate) fn discardable(&self, bytes: &Range<u64>) -> Option<Range<u64>> {
        self.granules(bytes).filter(|_| self.takes_discards())
    }

    fn takes_discards(&self) -> bool {
        self.discards.as_ref().is_some_and(|discards| !discards.is_useless.load(Ordering::Relaxed))
    }

    /// The part of a range of bytes that a discard could give back.
    pub(crate) fn granules(&self, bytes: &Range<u64>) -> Option<Range<u64>> {
        self.discards.as_ref()?.within(bytes)
    }

    /// Whether zeros in a part of a granule must be written, although it reads as zeros now.
    pub(crate) fn is_zeroed_late(&self) -> bool {
        self.discards.as_ref().is_some_and(|discards| discards.is_zeroed_late)
    }

    /// A discard failed, or did not leave zeros: there are no more of them as long as the device is open.
    pub(crate) fn distrust_discards(&self) {
        if let Some(discards) = &self.discards
            && !discards.is_useless.swap(true, Ordering::Relaxed)
        {
            log::info!("{}: discards fail, or do not leave zeros: zeros are written", self.path.display());
        }
    }
}

/// The pool of a thin volume.
fn pool(node: &Path, rdev: u64) -> Option<dm::Pool> {
    if !node.join("dm").exists() {
        return None;
    }
    let pool = dm::thin_pool(&sys::dm_table(rdev).ok()?.0)?;
    dm::pool(&sys::dm_table(pool).ok()?.0)
}

/// Whether a page of logical block provisioning says that unmapped blocks read as zeros: LBPRZ is `xx1`.
fn is_zeroing(page: &Path) -> bool {
    std::fs::read(page).is_ok_and(|page| page.get(1) == Some(&0xb2) && page.get(5).is_some_and(|flags| flags & 4 != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_granules_are_given_back() {
        let within = |granule, first, bytes| Discards::new(granule, first, false).within(&bytes);
        assert_eq!(within(8, 0, 0..64), Some(0..64));
        assert_eq!(within(8, 0, 1..63), Some(8..56));
        assert_eq!(within(8, 0, 1..15), None);
        assert_eq!(within(8, 3, 0..64), Some(3..59));
        assert_eq!(within(8, 3, 3..11), Some(3..11));
        assert_eq!(within(8, 11, 4..19), Some(11..19));
        assert_eq!(within(8, 3, 0..2), None);
    }

    #[test]
    fn a_page_that_promises_zeros_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let page = folder.path().join("vpd_pgb2");
        for (flags, expected) in [(0x84, true), (0x80, false), (0x88, false), (0xe4, true)] {
            std::fs::write(&page, [0, 0xb2, 0, 4, 0, flags, 0, 0]).unwrap();
            assert_eq!(is_zeroing(&page), expected, "{flags:x}");
        }
        assert!(!is_zeroing(&folder.path().join("missing")));
    }
}
