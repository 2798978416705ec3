//! What a job waits for, and for how long it did in the last seconds. The client's thread enters it, anybody reads it.

use std::time::Duration;

/// Parts of the time that is told.
const PARTS: usize = 5;
/// How long one is.
const PART: Duration = Duration::from_secs(1);

/// What keeps a job from going faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Its source.
    Source,
    /// That destination.
    Dest(usize),
    /// Pages.
    Pages,
    /// Its own limit of speed, or that of all jobs.
    SpeedMax,
    /// The throttle.
    Throttle,
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Source => f.write_str("source"),
            Self::Dest(index) => write!(f, "dest {index}"),
            Self::Pages => f.write_str("pages"),
            Self::SpeedMax => f.write_str("speed_max"),
            Self::Throttle => f.write_str("throttle"),
        }
    }
}

/// How long a job has waited for what, in the last [`PARTS`] parts of time. Pure; time is an argument.
#[derive(Debug, Default)]
pub(super) struct Waits {
    now: Option<Limit>,
    since: Duration,
    /// The newest last.
    parts: [Vec<(Limit, Duration)>; PARTS],
    /// When the newest began.
    part: Duration,
}

impl Waits {
    /// From now on it waits for that, or for nothing.
    pub(super) fn waits(&mut self, limit: Option<Limit>, now: Duration) {
        self.settle(now);
        self.now = limit;
    }

    /// It has waited for that until now, since it was asked about last.
    pub(super) fn waited(&mut self, limit: Option<Limit>, now: Duration) {
        self.now = limit;
        self.settle(now);
    }

    /// What it has waited for most.
    pub(super) fn most(&mut self, now: Duration) -> Option<Limit> {
        self.settle(now);
        let mut sums: Vec<(Limit, Duration)> = Vec::new();
        for (limit, time) in self.parts.iter().flatten() {
            match sums.iter_mut().find(|(other, _)| other == limit) {
                Some((_, sum)) => *sum += *time,
                None => sums.push((*limit, *time)),
            }
        }
        sums.into_iter().max_by_key(|(_, sum)| *sum).map(|(limit, _)| limit)
    }

    fn settle(&mut self, now: Duration) {
        let waited = now.saturating_sub(self.since);
        self.since = now.max(self.since);
        let passed = now.saturating_sub(self.part).as_nanos() / PART.as_nanos();
        for _ in 0..passed.min(PARTS as u128) {
            self.parts.rotate_left(1);
            self.parts[PARTS - 1].clear();
        }
        if passed > 0 {
            self.part = now;
        }
        let Some(limit) = self.now.filter(|_| !waited.is_zero()) else { return };
        let newest = &mut self.parts[PARTS - 1];
        match newest.iter_mut().find(|(other, _)| *other == limit) {
            Some((_, sum)) => *sum += waited,
            None => newest.push((limit, waited)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_was_waited_for_longest_is_told() {
        let mut waits = Waits::default();
        assert_eq!(waits.most(at(10)), None);
        waits.waits(Some(Limit::Source), at(100));
        waits.waits(Some(Limit::Dest(3)), at(200));
        assert_eq!(waits.most(at(250)), Some(Limit::Source));
        waits.waits(None, at(400));
        assert_eq!(waits.most(at(900)), Some(Limit::Dest(3)));
        assert_eq!(Limit::Dest(3).to_string(), "dest 3");
    }

    #[test]
    fn what_is_long_ago_is_forgotten_and_what_lasts_is_not() {
        let mut waits = Waits::default();
        waits.waits(Some(Limit::Pages), at(0));
        waits.waits(Some(Limit::Throttle), at(3000));
        assert_eq!(waits.most(at(4000)), Some(Limit::Pages));
        assert_eq!(waits.most(at(60_000)), Some(Limit::Throttle));
        waits.waits(None, at(60_000));
        assert_eq!(waits.most(at(63_000)), Some(Limit::Throttle));
        assert_eq!(waits.most(at(66_000)), None);
        waits.waited(Some(Limit::Source), at(66_500));
        assert_eq!(waits.most(at(66_500)), Some(Limit::Source));
    }
}
