//! How much of a device background jobs may use, so that others hardly notice. Pure; time is an argument.
//!
//! As in PARDA the only sign of others is the latency: it rises above what the device takes when nobody else is there. The window grows
//! while the latency is that, up to a fifth above it: where a device works on many at once, that is enough for its full rate. Beyond it the
//! window shrinks, in proportion, down to one piece. Where even one piece alone takes half as long again, others are at work: background jobs
//! then rest between pieces, each time for longer, up to [`LONGEST`] times what a piece takes. So of a hundred requests of others one at
//! most meets one.
//!
//! A job that has never been alone with a device does not know what that takes. And where a device answers many at once over one link, others
//! may wait for a piece on the link without a sign that could be seen here: there the priority has to help.

use std::time::Duration;

#[cfg(test)]
mod tests;

/// How far the latency may rise above its base, in twentieths of it.
const RISE: u32 = 24;
/// Up to here it is as good as its base.
const FLAT: u32 = 21;
/// From here on others are there.
const CROWDED: u32 = 30;
/// The window is in parts of a piece.
const PARTS: u64 = 16;
/// The largest window, in pieces.
const MOST: u64 = 128;
/// The longest rest, in the time that a piece takes.
const LONGEST: u32 = 256;
/// Pieces that make a round at least.
const SAMPLE: u64 = 2;

/// What background jobs may use of one device in one direction.
#[derive(Clone, Debug)]
pub(super) struct Courtesy {
    /// Of a piece, in parts.
    depth: u64,
    /// What a piece takes where nobody else is there.
    base: Option<Duration>,
    took: Duration,
    count: u64,
    /// What a rest takes now, in the time that a piece takes; 0 where there is none.
    rest: u32,
    rests_until: Duration,
}

impl Courtesy {
    pub(super) fn new() -> Self {
        Self { depth: PARTS, base: None, took: Duration::ZERO, count: 0, rest: 0, rests_until: Duration::ZERO }
    }

    /// Pieces that may be in flight at once.
    pub(super) fn pieces(&self) -> u64 {
        (self.depth / PARTS).max(1)
    }

    /// Until when nothing may begin.
    pub(super) fn rests_until(&self) -> Duration {
        self.rests_until
    }

    /// A piece of a background job has ended, after so long.
    pub(super) fn ended(&mut self, now: Duration, took: Duration) {
        self.took += took;
        self.count += 1;
        let is_slow = self.base.is_some_and(|base| took > base * CROWDED / 20);
        if self.rest > 0 {
            // Each piece tells, and nothing else does.
            self.rest = if is_slow { (self.rest * 2).min(LONGEST) } else { self.rest / 4 };
            self.rests_until = now + took * self.rest;
            (self.took, self.count) = (Duration::ZERO, 0);
        } else if self.count >= self.pieces().max(SAMPLE) {
            self.learn(now);
        }
    }

    fn learn(&mut self, now: Duration) {
        let took = std::mem::take(&mut self.took) / u32::try_from(std::mem::take(&mut self.count)).unwrap_or(u32::MAX);
        // A device that has become slower is known as such in the end.
        let base = self.base.map_or(took, |base| took.min(base + base / 1024)).max(Duration::from_nanos(1));
        self.base = Some(base);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        let before = self.pieces();
        let wanted = if took <= base * FLAT / 20 {
            self.depth * 2
        } else {
            let fits = self.depth.saturating_mul(nanos(base * RISE / 20)) / nanos(took);
            (self.depth + fits + PARTS / 4) / 2
        };
        self.depth = wanted.clamp(PARTS, MOST * PARTS);
        if before == 1 && took > base * CROWDED / 20 {
            self.rest = 1;
            self.rests_until = now + took;
        }
    }
}
