//! Limits in bytes per second. Pure but for the lock around a shared one; time is an argument.
//!
//! A limit saves up nothing: what was not used while there was nothing to do, or while a device was slow, is gone. Only
//! that is made good, within bounds, by which somebody who waited for the limit was woken too late, so that the speed asked
//! for is the speed got.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::sector::SECTOR_SIZE;

/// How much is made good to somebody who did not wait: pieces do not start to the microsecond.
const GRACE: Duration = Duration::from_millis(20);
/// How much is made good to somebody who waited: a busy machine wakes its threads late.
const LATE_MAX: Duration = Duration::from_millis(100);
/// Pieces under a limit are so small that there are at least so many a second, down to [`MIN_PIECE`].
const PIECES_PER_SECOND: u64 = 32;
/// The smallest piece, which every device takes.
const MIN_PIECE: u64 = 4096;

/// A limit of speed, shared by clones and changed while jobs run.
#[derive(Clone, Debug, Default)]
pub struct SpeedLimit(Arc<Mutex<Bucket>>);

#[derive(Debug, Default)]
struct Bucket {
    /// Bytes per second; `None`: no limit.
    rate: Option<u64>,
    /// When the next piece may start.
    free_at: Duration,
    /// When the last one started.
    charged: Duration,
    /// Somebody was told to wait since then.
    awaited: bool,
}

impl SpeedLimit {
    /// A limit of `rate` bytes per second; `None` limits nothing.
    pub fn new(rate: Option<u64>) -> Self {
        Self(Arc::new(Mutex::new(Bucket { rate, ..Bucket::default() })))
    }

    /// Bytes per second.
    pub fn get(&self) -> Option<u64> {
        self.0.lock().rate
    }

    /// Sets it. Debts from before are forgotten. Whoever waits must be woken: see
    /// [`JobHandle::wake`](super::JobHandle::wake) and [`Client::wake`](super::Client::wake).
    pub fn set(&self, rate: Option<u64>) {
        *self.0.lock() = Bucket { rate, ..Bucket::default() };
    }

    /// When the next piece may start, if that is later than `now`.
    pub(super) fn ask(&self, now: Duration) -> Option<Duration> {
        let mut bucket = self.0.lock();
        bucket.rate?;
        let waits = bucket.free_at > now;
        bucket.awaited |= waits;
        waits.then_some(bucket.free_at)
    }

    /// A piece of `bytes` starts.
    pub(super) fn charge(&self, now: Duration, bytes: u64) {
        let mut bucket = self.0.lock();
        if let Some(rate) = bucket.rate {
            let takes = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
            let takes = Duration::from_nanos(u64::try_from(takes).unwrap_or(u64::MAX));
            // What is made good takes more than one piece, of which only the first was waited for.
            let goes_on = now.saturating_sub(bucket.charged) <= GRACE;
            let grace = if bucket.awaited || goes_on { LATE_MAX } else { GRACE };
            bucket.free_at = bucket.free_at.max(now.saturating_sub(grace)).saturating_add(takes);
            bucket.charged = now;
            bucket.awaited = false;
        }
    }

    /// The largest piece that keeps the flow even, in bytes: a power of two.
    pub(super) fn piece_max(&self) -> u64 {
        let Some(rate) = self.get() else { return u64::MAX };
        let piece = (rate / PIECES_PER_SECOND).max(MIN_PIECE);
        let power = 1 << piece.ilog2();
        debug_assert!(power >= SECTOR_SIZE);
        power
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that pass from `from` to `to`, when each wake-up is `late`.
    fn pass(limit: &SpeedLimit, from: Duration, to: Duration, late: Duration) -> u64 {
        let (mut now, mut bytes) = (from, 0);
        while now < to {
            if let Some(time) = limit.ask(now) {
                now = time + late;
                continue;
            }
            let piece = limit.piece_max().min(1 << 19);
            limit.charge(now, piece);
            bytes += piece;
        }
        bytes
    }

    #[test]
    fn the_speed_is_kept_over_ten_seconds() {
        for rate in [100_000, 1 << 20, 100 << 20, 3_000_000_000] {
            for late in [0, 60, 2000, 50_000] {
                let limit = SpeedLimit::new(Some(rate));
                let bytes = pass(&limit, Duration::ZERO, Duration::from_secs(10), Duration::from_micros(late));
                let permille = bytes * 100 / rate;
                assert!((980..=1020).contains(&permille), "{rate} late {late}: {permille}");
            }
        }
    }

    #[test]
    fn idle_time_saves_up_nothing() {
        let limit = SpeedLimit::new(Some(1 << 20));
        limit.charge(Duration::ZERO, 4096);
        let start = Duration::from_secs(100);
        let bytes = pass(&limit, start, start + Duration::from_secs(1), Duration::ZERO);
        assert!(bytes < (1 << 20) * 105 / 100, "{bytes}");
    }

    #[test]
    fn a_change_holds_at_once() {
        let limit = SpeedLimit::new(Some(4096));
        limit.charge(Duration::ZERO, 1 << 20);
        assert!(limit.ask(Duration::from_secs(1)).is_some());
        limit.set(Some(1 << 20));
        assert_eq!(limit.ask(Duration::from_secs(1)), None);
        limit.set(None);
        limit.charge(Duration::ZERO, u64::MAX);
        assert_eq!(limit.ask(Duration::ZERO), None);
    }
}
