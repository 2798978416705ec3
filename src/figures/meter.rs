//! Speed and running time. Pure; time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Speed is that of the last five seconds.
const WINDOW: Duration = Duration::from_secs(5);
/// Samples closer than this are one.
const STEP: Duration = Duration::from_millis(250);

/// For so long a speed must have been measured before a time is told from it: at first it is that of the caches.
const SETTLED: Duration = Duration::from_secs(1);

/// How fast a figure grows.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    samples: VecDeque<(Instant, u64)>,
    /// When it grew last, or began.
    grown: Option<Instant>,
}

impl Meter {
    /// Begins anew, from `copied`.
    pub(crate) fn start(&mut self, now: Instant, copied: u64) {
        self.samples.clear();
        self.grown = Some(now);
        self.samples.push_back((now, copied));
    }

    /// The figure has grown to `copied`.
    pub(crate) fn sample(&mut self, now: Instant, copied: u64) {
        self.grown = Some(now);
        if self.samples.back().is_none_or(|(last, _)| now.duration_since(*last) >= STEP) {
            self.samples.push_back((now, copied));
            // One sample beyond the window stays: the speed is measured from there.
            while self.samples.get(1).is_some_and(|(time, _)| now.duration_since(*time) >= WINDOW) {
                self.samples.pop_front();
            }
        }
    }

    /// Bytes per second over the window, or since the start where that is later; 0 where it did not grow in the window.
    pub(crate) fn speed(&self, now: Instant, copied: u64) -> u64 {
        let passed = |time: &Instant| now.duration_since(*time);
        if self.grown.is_none_or(|grown| passed(&grown) > WINDOW) {
            return 0;
        }
        let before = self.samples.iter().rfind(|(time, _)| passed(time) >= WINDOW);
        let Some((time, then)) = before.or(self.samples.front()) else { return 0 };
        let passed = now.duration_since(*time).as_micros();
        let bytes = u128::from(copied.saturating_sub(*then));
        u64::try_from(bytes * 1_000_000 / passed.max(1)).unwrap_or(u64::MAX)
    }
}

impl Meter {
    /// The time that `left` bytes take at the speed of the window; none before it has been measured for long enough, see
    /// [`time_left`].
    pub(crate) fn time_left(&self, now: Instant, copied: u64, left: u64, silent: Duration) -> Option<Duration> {
        let is_settled = self.samples.front().is_some_and(|(since, _)| now.duration_since(*since) >= SETTLED);
        time_left(left, self.speed(now, copied), silent).filter(|_| is_settled)
    }
}

/// The time that `left` bytes take at a speed. None where they do not move, or where the devices have been silent for longer:
/// then it was too short.
fn time_left(left: u64, speed: u64, silent: Duration) -> Option<Duration> {
    let micros = left.saturating_mul(1_000_000).checked_div(speed)?;
    Some(Duration::from_micros(micros)).filter(|time| *time >= silent)
}

/// Running time, pauses not counted.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    before: Duration,
    since: Option<Instant>,
}

impl Stopwatch {
    /// One that has run so long already.
    pub(crate) fn at(before: Duration) -> Self {
        Self { before, since: None }
    }

    /// Runs from now on, if it does not already.
    pub(crate) fn start(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    /// Stands still from now on.
    pub(crate) fn stop(&mut self, now: Instant) {
        self.before = self.elapsed(now);
        self.since = None;
    }

    /// How long it has run.
    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_that_of_the_last_five_seconds() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut meter = Meter::default();
        meter.start(start, 0);
        assert_eq!(meter.speed(at(100), 1000), 10_000);
        for step in 1..=100 {
            meter.sample(at(step * 100), step * 100);
        }
        assert_eq!(meter.speed(at(10_000), 10_000), 1000);
        assert!(meter.samples.len() < 24);
    }

    #[test]
    fn no_time_is_told_before_the_speed_is_known() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut meter = Meter::default();
        assert_eq!(meter.time_left(start, 0, 1000, Duration::ZERO), None);
        for again in 0..2 {
            let begin = again * 10_000;
            meter.start(at(begin), 5_000);
            // what a burst of the first pieces says is 150 times too short
            meter.sample(at(begin + 1), 20_000);
            assert_eq!(meter.time_left(at(begin + 900), 20_000, 1_000_000, Duration::ZERO), None);
            meter.sample(at(begin + 1000), 25_000);
            let left = meter.time_left(at(begin + 1000), 25_000, 1_000_000, Duration::ZERO);
            assert_eq!(left, Some(Duration::from_secs(50)));
        }
    }

    #[test]
    fn what_stands_still_has_no_speed() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut meter = Meter::default();
        meter.start(start, 0);
        // Of the last three one is too near to the one before to be kept.
        for (millis, copied) in [(1000, 1000), (1900, 1900), (2000, 2000)] {
            meter.sample(at(millis), copied);
        }
        assert_eq!(meter.speed(at(4000), 2000), 500);
        assert_eq!(meter.speed(at(6000), 2000), 200);
        assert_eq!(meter.speed(at(7001), 2000), 0);
        // A piece every four seconds.
        let mut meter = Meter::default();
        meter.start(start, 0);
        for step in 1..=9 {
            meter.sample(at(step * 4000), step * 4000);
            let speed = meter.speed(at(step * 4000 + 3000), step * 4000);
            assert!((500..=1200).contains(&speed), "{step}: {speed}");
        }
    }

    #[test]
    fn nobody_promises_an_end_that_should_have_been() {
        let seconds = Duration::from_secs;
        assert_eq!(time_left(100, 10, Duration::ZERO), Some(seconds(10)));
        assert_eq!(time_left(100, 10, seconds(9)), Some(seconds(10)));
        assert_eq!(time_left(100, 10, seconds(11)), None);
        assert_eq!(time_left(100, 0, Duration::ZERO), None);
        assert_eq!(time_left(0, 10, Duration::ZERO), Some(Duration::ZERO));
        assert!(time_left(u64::MAX, 1, Duration::ZERO).is_some());
    }

    #[test]
    fn pauses_do_not_count() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let mut watch = Stopwatch::default();
        watch.start(at(0));
        watch.start(at(1));
        watch.stop(at(2));
        assert_eq!(watch.elapsed(at(9)), Duration::from_secs(2));
        watch.start(at(9));
        assert_eq!(watch.elapsed(at(10)), Duration::from_secs(3));
    }
}
