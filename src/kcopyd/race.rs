//! Which destinations of a job do not keep up with the others. Pure; time is an argument.
//!
//! A destination *stalls* if it has answered nothing for [`STALLED`] while another one has. It is *slow* if pages run out because of it:
//! the job cannot begin a piece, at least half of its pieces wait for that destination alone, and it does less than a quarter of what the
//! next slowest one does. Several may be so together.
//!
//! A rate is bytes per time in which there was something to do, so one that has to wait for others is not taken for a slow one. It is
//! that of the last two laps; of whoever had nothing to do in these, the one before.

use std::time::Duration;

#[cfg(test)]
mod tests;

use crate::dm_io::ErrorBits;

/// A destination that has answered nothing for so long has stalled.
pub const STALLED: Duration = Duration::from_secs(5);
/// What a rate is measured over, once or twice.
const LAP: Duration = Duration::from_millis(500);
/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// Looks in a row at which a job was held up before anybody is too slow.
const HELD_UP: u32 = 2;
/// How much slower than the next one is too slow.
const FAR_SLOWER: u64 = 4;

/// Why a destination was left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lag {
    /// It has answered nothing for [`STALLED`].
    Stalled,
    /// It is far slower than the others.
    Slow,
    /// Its caller gave it up.
    GivenUp,
}

/// How the destinations of a job keep up.
#[derive(Debug)]
pub(super) struct Race {
    runners: Vec<Runner>,
    lap: Duration,
    looked: Duration,
    held_up: u32,
}

#[derive(Clone, Debug, Default)]
struct Runner {
    owes: u32,
    /// Since when it owes something, without a break.
    busy_since: Duration,
    /// Since when it owes an answer.
    silent_since: Duration,
    now: Tally,
    before: Tally,
    /// Of the laps before.
    rate: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    bytes: u64,
    busy: Duration,
}

impl Runner {
    fn settle(&mut self, now: Duration) {
        if self.owes > 0 {
            self.now.busy += now.saturating_sub(self.busy_since);
            self.busy_since = now;
        }
    }

    fn next_lap(&mut self, now: Duration) {
        self.settle(now);
        self.rate = self.measured().unwrap_or(self.rate);
        self.before = std::mem::take(&mut self.now);
    }

    /// Bytes per second, where it was busy for long enough to tell.
    fn measured(&self) -> Option<u64> {
        let busy = self.before.busy + self.now.busy;
        let bytes = u128::from(self.before.bytes + self.now.bytes);
        let rate = (bytes * 1_000_000_000).checked_div(busy.as_nanos())?;
        (busy >= LAP / 10 || rate > 0).then(|| u64::try_from(rate).unwrap_or(u64::MAX))
    }
}

impl Race {
    /// Of so many destinations.
    pub(super) fn new(dests: usize) -> Self {
        let runners = vec![Runner::default(); dests];
        Self { runners, lap: Duration::ZERO, looked: Duration::ZERO, held_up: 0 }
    }

    /// A destination is given something to do.
    pub(super) fn owes(&mut self, dest: usize, now: Duration) {
        let runner = &mut self.runners[dest];
        if runner.owes == 0 {
            (runner.busy_since, runner.silent_since) = (now, now);
        }
        runner.owes += 1;
    }

    /// It has done it, or will not: then `bytes` is 0.
    pub(super) fn ended(&mut self, dest: usize, bytes: u64, now: Duration) {
        let runner = &mut self.runners[dest];
        runner.settle(now);
        runner.silent_since = now;
        runner.owes -= 1;
        runner.now.bytes += bytes;
    }

    /// Whether it is time for another look.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        now >= self.looked + LOOK
    }

    /// Those of `live` that do not keep up now, and why. `waits_only_for` says how many of a job's pieces, of how many, wait for
    /// nobody but some destinations; it is `None` where the job could begin a piece, or has none left.
    pub(super) fn look(
        &mut self,
        live: ErrorBits,
        now: Duration,
        waits_only_for: Option<&dyn Fn(ErrorBits) -> (usize, usize)>,
    ) -> Option<(ErrorBits, Lag)> {
        self.looked = now;
        let stalled = self.stalled(live, now);
        if !stalled.is_empty() {
            return Some((stalled, Lag::Stalled));
        }
        self.held_up = if waits_only_for.is_some() { self.held_up + 1 } else { 0 };
        let slow = waits_only_for.filter(|_| self.held_up >= HELD_UP).and_then(|waits| self.slow(live, now, waits));
        if now >= self.lap + LAP {
            self.lap = now;
            self.runners.iter_mut().for_each(|runner| runner.next_lap(now));
        }
        slow.map(|slow| (slow, Lag::Slow))
    }

    fn stalled(&self, live: ErrorBits, now: Duration) -> ErrorBits {
        let silent = |index: &usize| {
            let runner = &self.runners[*index];
            runner.owes > 0 && now >= runner.silent_since + STALLED
        };
        let mut stalled = ErrorBits::NONE;
        for index in live.iter().filter(silent) {
            // Another one has answered since.
            let since = self.runners[index].silent_since;
            if live.iter().any(|other| !silent(&other) && self.runners[other].silent_since > since) {
                stalled.set(index);
            }
        }
        stalled
    }

    fn slow(
        &mut self,
        live: ErrorBits,
        now: Duration,
        waits_only_for: &dyn Fn(ErrorBits) -> (usize, usize),
    ) -> Option<ErrorBits> {
        self.runners.iter_mut().for_each(|runner| runner.settle(now));
        let mut order: Vec<(u64, usize)> = live
            .iter()
            .map(|index| (self.runners[index].measured().unwrap_or(self.runners[index].rate), index))
            .collect();
        order.sort_unstable();
        let mut slow = ErrorBits::NONE;
        for pair in order.windows(2) {
            let [(rate, index), (next, _)] = pair else { continue };
            slow.set(*index);
            let runner = &self.runners[*index];
            // Whoever has not been at it for a lap is not judged, and nobody faster than it.
            if runner.before.busy + runner.now.busy < LAP {
                return None;
            }
            let (waiting, of) = waits_only_for(slow);
            if rate.saturating_mul(FAR_SLOWER) < *next && waiting * 2 >= of && waiting > 0 {
                return Some(slow);
            }
        }
        None
    }
}
