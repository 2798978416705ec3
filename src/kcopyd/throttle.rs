//! The throttle: which share of the time the engine may have I/O in flight. Pure; time is an argument.
//!
//! As in kcopyd, one account of time with I/O is kept for all clients, what starts at once starts together, and nobody waits
//! for more than a second for what is in flight: on a device that hangs that is for ever. Unlike there nobody sleeps: who may
//! not start is told when to ask again. And the account is not halved as it grows: a halved debt is a broken share. It is kept
//! within bounds instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Percent of time in which the engine does I/O, 1 to 100; shared by clients and changed while they run
/// (`dm_kcopyd_throttle` and its module parameter).
#[derive(Clone, Debug)]
pub struct ThrottleShare(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    percent: AtomicU32,
    account: Mutex<Throttle>,
}

impl Default for ThrottleShare {
    fn default() -> Self {
        Self(Arc::new(Shared { percent: AtomicU32::new(100), account: Mutex::default() }))
    }
}

impl ThrottleShare {
    /// The percentage now.
    pub fn get(&self) -> u32 {
        self.0.percent.load(Ordering::Relaxed)
    }

    /// Sets it, between 1 and 100. Debts from before are forgotten.
    pub fn set(&self, percent: u32) {
        self.0.account.lock().debt = 0;
        self.0.percent.store(percent.clamp(1, 100), Ordering::Relaxed);
    }

    /// A sub-job starts.
    pub(super) fn start(&self, now: Duration) {
        self.0.account.lock().start(now, self.get());
    }

    /// A sub-job has ended.
    pub(super) fn end(&self, now: Duration) {
        self.0.account.lock().end(now, self.get());
    }

    /// Whether the next one of a client may start, of which `own` are in flight.
    pub(super) fn ask(&self, now: Duration, own: u32) -> Start {
        match self.get() {
            percent if percent >= 100 => Start::Now,
            percent => self.0.account.lock().ask(now, percent, own),
        }
    }
}

/// What is saved up while there is nothing to do, in time with I/O: as much as a late wake-up costs.
const CREDIT_MAX: Duration = Duration::from_millis(20);
/// What is owed at most, in time with I/O: a device that took a minute is not paid for by an hour.
const DEBT_MAX: Duration = Duration::from_secs(1);
/// The longest time accounted at once.
const PERIOD_MAX: Duration = Duration::from_secs(3600);
/// Time with I/O beyond the share for which more may start beside what is in flight: what is there to be done is done
/// together, as kcopyd does within a tick of its clock, and not one after the other.
const TOGETHER: Duration = Duration::from_millis(2);
/// After so long without a start the next one comes whatever the share (`MAX_SLEEPS` of `SLEEP_USEC`).
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks at what other clients have in flight.
const LOOK: Duration = Duration::from_millis(2);

/// When a client may start its next sub-job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Now.
    Now,
    /// At that time, or when something of the client's own has ended.
    At(Duration),
}

/// The account of time.
#[derive(Debug, Default)]
struct Throttle {
    /// Up to when time is accounted.
    since: Duration,
    /// Time with I/O beyond the share, in hundredths of nanoseconds.
    debt: i64,
    in_flight: u32,
    /// When the last sub-job started.
    started: Duration,
}

impl Throttle {
    fn start(&mut self, now: Duration, percent: u32) {
        self.account(now, percent);
        self.in_flight += 1;
        self.started = now;
    }

    fn end(&mut self, now: Duration, percent: u32) {
        self.account(now, percent);
        self.in_flight = self.in_flight.checked_sub(1).expect("an end for each start");
    }

    fn ask(&mut self, now: Duration, percent: u32, own: u32) -> Start {
        self.account(now, percent);
        let Some(debt) = u64::try_from(self.debt).ok().filter(|debt| *debt > 0) else { return Start::Now };
        if self.in_flight == 0 {
            // While it is idle the debt shrinks by the share of the time.
            return Start::At(now + Duration::from_nanos(debt.div_ceil(percent.into())));
        }
        let latest = self.started + PATIENCE;
        if self.debt <= hundredths(TOGETHER) || now >= latest {
            return Start::Now;
        }
        // What is its own wakes a client when it ends.
        Start::At(if own > 0 { latest } else { latest.min(now + LOOK) })
    }

    fn account(&mut self, now: Duration, percent: u32) {
        // What lasted longer has reached the bounds.
        let passed = now.saturating_sub(self.since).min(PERIOD_MAX);
        self.since = now;
        let with_io = if self.in_flight > 0 { hundredths(passed) } else { 0 };
        let due = hundredths(passed) / 100 * i64::from(percent);
        self.debt = (self.debt + with_io - due).clamp(-hundredths(CREDIT_MAX), hundredths(DEBT_MAX));
    }
}

/// Hundredths of nanoseconds: a percentage of a time is a whole number of them.
fn hundredths(time: Duration) -> i64 {
    i64::try_from(time.as_nanos() * 100).expect("less than years")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sub-jobs of `work` one after the other for a minute, each wake-up `late`; the share of time with I/O, in percent.
    fn share(percent: u32, work: Duration, late: Duration) -> f64 {
        let (mut throttle, mut now, mut busy) = (Throttle::default(), Duration::ZERO, Duration::ZERO);
        while now < Duration::from_secs(60) {
            match throttle.ask(now, percent, 0) {
                Start::At(later) => now = later + late,
                Start::Now => {
                    throttle.start(now, percent);
                    now += work;
                    busy += work;
                    throttle.end(now, percent);
                }
            }
        }
        busy.as_secs_f64() / now.as_secs_f64() * 100.0
    }

    #[test]
    fn the_share_is_kept() {
        for percent in [1, 10, 50, 90, 99] {
            for work in [100, 1000, 10_000, 40_000, 300_000] {
                for late in [0, 1000] {
                    let got = share(percent, Duration::from_micros(work), Duration::from_micros(late));
                    let off = (got - f64::from(percent)).abs();
                    // The first piece comes before anything is known of its time.
                    assert!(off < f64::from(percent) * 0.03 + 0.5, "{percent} % of {work} us, late {late}: {got}");
                }
            }
        }
    }

    #[test]
    fn idle_time_saves_up_nothing() {
        let mut throttle = Throttle::default();
        let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
        throttle.start(hour, 50);
        throttle.end(hour + CREDIT_MAX * 3, 50);
        assert_eq!(throttle.ask(hour + CREDIT_MAX * 3, 50, 0), Start::At(hour + CREDIT_MAX * 4));
        // Nor does a device that took its time cost for ever.
        throttle.start(hour * 2, 50);
        throttle.end(hour * 2 + minute, 50);
        assert_eq!(throttle.ask(hour * 2 + minute, 50, 0), Start::At(hour * 2 + minute + DEBT_MAX * 2));
    }

    #[test]
    fn with_io_in_flight_it_waits_for_its_end() {
        let share = ThrottleShare::default();
        let ms = Duration::from_millis;
        assert_eq!(share.ask(ms(0), 0), Start::Now);
        share.set(50);
        share.start(ms(0));
        assert_eq!(share.ask(ms(10), 1), Start::At(PATIENCE));
        assert_eq!(share.ask(ms(10), 0), Start::At(ms(10) + LOOK), "another client's");
        share.end(ms(10));
        assert_eq!(share.ask(ms(10), 0), Start::At(ms(20)));
        share.set(100);
        assert_eq!(share.ask(ms(10), 0), Start::Now);
    }

    #[test]
    fn what_is_there_starts_together() {
        let mut throttle = Throttle::default();
        throttle.start(Duration::ZERO, 50);
        assert_eq!(throttle.ask(TOGETHER, 50, 1), Start::Now);
        throttle.end(TOGETHER, 50);
        // Alone it waits until the share is right.
        assert_eq!(throttle.ask(TOGETHER, 50, 0), Start::At(TOGETHER * 2));
    }

    #[test]
    fn what_hangs_holds_nobody_up_for_ever() {
        let mut throttle = Throttle::default();
        throttle.start(Duration::ZERO, 10);
        for second in 1..10 {
            let now = PATIENCE * second;
            assert_eq!(throttle.ask(now.saturating_sub(LOOK), 10, 1), Start::At(now));
            assert_eq!(throttle.ask(now, 10, 1), Start::Now);
            throttle.start(now, 10);
            throttle.end(now, 10);
        }
    }
}
