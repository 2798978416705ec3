//! The throttle: which share of the time the engine may have I/O in flight. Pure; time is an argument.
//!
//! As in kcopyd, the share is measured over a window whose two sums, time with I/O and time in all, are halved when it is
//! full, so that what was long ago counts less and less. Unlike there nobody sleeps: who may not start is told when to ask
//! again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Percent of time in which the engine does I/O, 1 to 100; shared by clients and changed while they run
/// (`dm_kcopyd_throttle` and its module parameter).
#[derive(Clone, Debug)]
pub struct ThrottleShare(Arc<AtomicU32>);

impl Default for ThrottleShare {
    fn default() -> Self {
        Self(Arc::new(AtomicU32::new(100)))
    }
}

impl ThrottleShare {
    /// The percentage now.
    pub fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it, between 1 and 100.
    pub fn set(&self, percent: u32) {
        self.0.store(percent.clamp(1, 100), Ordering::Relaxed);
    }
}

/// The sums are halved when they reach this.
const WINDOW: Duration = Duration::from_millis(200);

/// When a client may start its next sub-job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Now.
    Now,
    /// At that time, if nothing else changes.
    At(Duration),
    /// Not before something in flight has ended.
    AfterIo,
}

/// One client's account of time.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// Up to when time is accounted.
    since: Duration,
    with_io: Duration,
    in_all: Duration,
    in_flight: u32,
}

impl Throttle {
    /// A sub-job starts.
    pub(super) fn start(&mut self, now: Duration) {
        self.account(now);
        self.in_flight += 1;
    }

    /// A sub-job has ended.
    pub(super) fn end(&mut self, now: Duration) {
        self.account(now);
        self.in_flight = self.in_flight.checked_sub(1).expect("an end for each start");
    }

    /// Whether the next one may start.
    pub(super) fn ask(&mut self, now: Duration, percent: u32) -> Start {
        if percent >= 100 {
            return Start::Now;
        }
        self.account(now);
        // Idle time that makes the share right: with_io / (in_all + idle) = percent / 100.
        let due = self.with_io * 100 / percent;
        match due.checked_sub(self.in_all) {
            None | Some(Duration::ZERO) => Start::Now,
            Some(_) if self.in_flight > 0 => Start::AfterIo,
            Some(idle) => Start::At(now + idle),
        }
    }

    fn account(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.since);
        self.since = now;
        self.in_all += passed;
        if self.in_flight > 0 {
            self.with_io += passed;
        }
        while self.in_all > WINDOW {
            self.in_all /= 2;
            self.with_io /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sub-jobs of `work` one after the other for ten seconds; the share of time with I/O, in percent.
    fn share(percent: u32, work: Duration) -> f64 {
        let (mut throttle, mut now, mut busy) = (Throttle::default(), Duration::ZERO, Duration::ZERO);
        while now < Duration::from_secs(10) {
            match throttle.ask(now, percent) {
                Start::At(later) => now = later,
                Start::AfterIo => unreachable!("nothing is in flight"),
                Start::Now => {
                    throttle.start(now);
                    now += work;
                    busy += work;
                    throttle.end(now);
                }
            }
        }
        busy.as_secs_f64() / now.as_secs_f64() * 100.0
    }

    #[test]
    fn the_share_is_kept() {
        for percent in [1, 10, 50, 90, 99] {
            for work in [100, 1000, 10_000] {
                let got = share(percent, Duration::from_micros(work));
                assert!((got - f64::from(percent)).abs() < f64::from(percent) * 0.05 + 0.2, "{percent} %: {got}");
            }
        }
        assert!(share(100, Duration::from_millis(1)) > 99.9);
    }

    #[test]
    fn with_io_in_flight_it_waits_for_its_end() {
        let mut throttle = Throttle::default();
        throttle.start(Duration::ZERO);
        let now = Duration::from_millis(5);
        assert_eq!(throttle.ask(now, 50), Start::AfterIo);
        assert_eq!(throttle.ask(now, 100), Start::Now);
        throttle.end(now);
        assert_eq!(throttle.ask(now, 50), Start::At(now * 2));
    }
}
