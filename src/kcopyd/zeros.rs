//! How large a piece without data is: a zero or a hole needs no pages, so that one request may do what many would. Pure.
//!
//! It begins with an ordinary piece, and doubles while its devices do such requests by themselves and quickly; so a pause, a limit of
//! speed and the figures wait for no request for long. What is too large for a device, or fails, is done in ordinary pieces.

use std::time::Duration;

use super::Work;
use super::job::NewJob;
use crate::sector::Sector;

/// The largest piece, 1 GiB: a terabyte of a file is a thousand of them.
pub(super) const MOST: Sector = Sector::whole_in(1 << 30);
/// A piece that took no longer may be larger.
const QUICK: Duration = Duration::from_millis(20);
/// One that took longer was too large.
const SLOW: Duration = Duration::from_millis(100);

/// The size of a job's pieces without data.
#[derive(Debug)]
pub(super) struct ZeroPiece {
    least: Sector,
    size: Sector,
    /// A device cannot do it, or one failed: ordinary pieces from now on.
    is_ordinary: bool,
}

impl ZeroPiece {
    /// For a job that writes zeros. A zoned device compares what it holds already, which takes memory.
    pub(super) fn of(new: &NewJob) -> Option<Self> {
        let is_zoned = new.dests.iter().any(|dest| dest.device.is_sequential());
        let piece = new.piece;
        (matches!(new.work, Work::Zero) && !is_zoned).then_some(Self { least: piece, size: piece, is_ordinary: false })
    }

    /// How large the next piece may be.
    pub(super) fn size(&self) -> Sector {
        self.size
    }

    /// A piece of `count` sectors has ended, which took so long; `fell_back` where a device could not do it by itself.
    pub(super) fn ended(&mut self, count: Sector, took: Duration, fell_back: bool) {
        self.is_ordinary |= fell_back;
        let double = Sector::whole_in(self.size.bytes() * 2);
        let half = Sector::whole_in(count.bytes() / 2);
        match () {
            () if self.is_ordinary => self.size = self.least,
            // Of several in flight each is as large as it was when it began.
            () if took > SLOW => self.size = self.size.min(half).max(self.least),
            () if took <= QUICK && count >= self.size => self.size = double.min(MOST).max(self.least),
            () => {}
        }
    }

    /// A piece failed. Whether it is to be done again in ordinary pieces, which tell where.
    pub(super) fn failed(&mut self, count: Sector) -> bool {
        self.is_ordinary = true;
        self.size = self.least;
        count > self.least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sectors(count: u64) -> Sector {
        Sector::new(count).unwrap()
    }

    fn piece() -> ZeroPiece {
        ZeroPiece { least: sectors(1024), size: sectors(1024), is_ordinary: false }
    }

    #[test]
    fn it_grows_while_a_device_is_quick() {
        let mut piece = piece();
        for _ in 0..40 {
            piece.ended(piece.size(), Duration::from_millis(1), false);
        }
        assert_eq!(piece.size(), MOST);
        // Those that began before it shrank do not make it smaller still.
        for _ in 0..8 {
            piece.ended(MOST, Duration::from_millis(400), false);
        }
        assert_eq!(piece.size().bytes(), MOST.bytes() / 2);
        piece.ended(piece.size(), Duration::from_millis(50), false);
        assert_eq!(piece.size().bytes(), MOST.bytes() / 2);
        for _ in 0..40 {
            piece.ended(piece.size(), Duration::from_secs(1), false);
        }
        assert_eq!(piece.size(), sectors(1024));
    }

    #[test]
    fn one_that_failed_is_done_again_in_ordinary_pieces() {
        let mut piece = piece();
        assert!(!piece.failed(sectors(1024)));
        let mut piece = ZeroPiece { size: sectors(4096), ..piece };
        assert!(piece.failed(sectors(4096)) && !piece.failed(sectors(1024)));
        piece.ended(sectors(1024), Duration::ZERO, false);
        assert_eq!(piece.size(), sectors(1024));
        let mut other = ZeroPiece { is_ordinary: false, ..piece };
        other.ended(sectors(1024), Duration::ZERO, true);
        other.ended(sectors(1024), Duration::ZERO, false);
        assert_eq!(other.size(), sectors(1024));
    }
}
