//! How much a device is given at once: the least that keeps it at its highest rate. Pure; time is an argument.
//!
//! What is asked for in pieces beyond that waits here and not in the device, where it would only make everybody wait longer.
//! Nobody knows the right depth beforehand: it is 2 for a disk and 64 for an array. So the window finds it by what it sees:
//!
//! * *Rounds*: the rate of a device is measured over at least a window's worth of ended transfers, never by the clock. A round in
//!   which the device was not kept full says nothing of the device (a limit, the other side, or pages were to blame) and is dropped.
//! * *Growing*: the window doubles with each round while the rate grows by a quarter. After two rounds without it takes the lowest
//!   depth at which it saw nearly the highest rate.
//! * *Holding*: now and then a round is tried at the next depth up, and one at the next depth down. Up stays if it is clearly
//!   faster, down if it is not slower. Each trial that changes nothing makes the next of its kind come later.
//! * A rate that is another one twice in a row is another device behaviour: it is looked for anew.

use std::time::Duration;

#[cfg(test)]
mod tests;

/// Depths, in pieces.
const DEPTHS: [u64; 13] = [2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128];
/// The depth that a device of which nothing is known begins with.
const FIRST: usize = 2;
/// Rounds between two trials, at first and at most.
const PATIENCE: std::ops::RangeInclusive<u32> = 4..=64;
/// Pieces that make a round's rate worth something.
const SAMPLE: u64 = 12;

/// How much a device is given at once.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Bytes of a piece.
    piece: u64,
    depth: usize,
    in_flight: u64,
    mode: Mode,
    round: Round,
    /// Of the last round that said something.
    rate: u64,
    latency: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Round {
    since: Duration,
    ended: u64,
    /// Bytes of `ended` while the device had all that the window allows.
    full: u64,
}

impl Round {
    fn new(since: Duration) -> Self {
        Self { since, ended: 0, full: 0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Up,
    Down,
}

#[derive(Clone, Debug)]
enum Mode {
    Growing {
        rates: [u64; DEPTHS.len()],
        best: u64,
        misses: u32,
    },
    Holding(Holding),
    /// At another depth for a round. The first round after the change is still full of the old one.
    Trying {
        step: Step,
        settled: bool,
        from: Holding,
    },
}

/// What is known of the depth that is held.
#[derive(Clone, Copy, Debug)]
struct Holding {
    rate: u64,
    /// Rounds in a row with quite another rate.
    odd: u32,
    up: Trial,
    down: Trial,
}

/// When a step is tried next.
#[derive(Clone, Copy, Debug)]
struct Trial {
    patience: u32,
    left: u32,
}

impl Trial {
    fn new() -> Self {
        let patience = *PATIENCE.start();
        Self { patience, left: patience }
    }

    fn in_vain(self) -> Self {
        let patience = (self.patience * 2).min(*PATIENCE.end());
        Self { patience, left: patience }
    }
}

impl Holding {
    fn at(rate: u64) -> Self {
        Self { rate, odd: 0, up: Trial::new(), down: Trial::new() }
    }

    fn trial(&mut self, step: Step) -> &mut Trial {
        match step {
            Step::Up => &mut self.up,
            Step::Down => &mut self.down,
        }
    }
}

impl Mode {
    fn growing(best: u64) -> Self {
        Self::Growing { rates: [0; DEPTHS.len()], best, misses: 0 }
    }
}

impl Window {
    /// The window of a device of which nothing is known.
    pub(super) fn new(piece: u64) -> Self {
        Self {
            piece,
            depth: FIRST,
            in_flight: 0,
            mode: Mode::growing(0),
            round: Round::new(Duration::ZERO),
            rate: 0,
            latency: Duration::ZERO,
        }
    }

    /// Bytes that the device is given at once.
    pub(super) fn bytes(&self) -> u64 {
        DEPTHS[self.depth] * self.piece
    }

    /// Bytes that it has now.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Bytes per second that it last did when it was kept full.
    pub(super) fn rate(&self) -> u64 {
        self.rate
    }

    /// What a transfer takes, on the whole.
    pub(super) fn latency(&self) -> Duration {
        self.latency
    }

    /// A transfer begins.
    pub(super) fn started(&mut self, now: Duration, bytes: u64) {
        if self.in_flight == 0 {
            self.round = Round::new(now);
        }
        self.in_flight += bytes;
    }

    /// A transfer has ended that began at `started`.
    pub(super) fn ended(&mut self, now: Duration, bytes: u64, started: Duration) {
        let is_full = self.in_flight + self.piece > self.bytes();
        self.in_flight -= bytes;
        let took = now.saturating_sub(started);
        self.latency = if self.latency.is_zero() { took } else { (self.latency * 7 + took) / 8 };
        self.round.ended += bytes;
        if is_full {
            self.round.full += bytes;
        }
        let Round { since, ended, full } = self.round;
        let elapsed = now.saturating_sub(since);
        if ended < self.round_bytes() || elapsed.is_zero() {
            return;
        }
        self.round = Round::new(now);
        if full >= ended / 4 * 3 {
            let rate = u128::from(ended) * 1_000_000_000 / elapsed.as_nanos();
            self.learn(u64::try_from(rate).unwrap_or(u64::MAX));
        }
    }

    /// A transfer has ended with an error: its time says nothing.
    pub(super) fn failed(&mut self, now: Duration, bytes: u64) {
        self.in_flight -= bytes;
        self.round = Round::new(now);
    }

    fn round_bytes(&self) -> u64 {
        match self.mode {
            Mode::Growing { .. } | Mode::Trying { settled: false, .. } => self.bytes(),
            Mode::Holding(_) | Mode::Trying { settled: true, .. } => (2 * self.bytes()).max(SAMPLE * self.piece),
        }
    }

    fn learn(&mut self, rate: u64) {
        self.mode = match std::mem::replace(&mut self.mode, Mode::growing(0)) {
            Mode::Growing { rates, best, misses } => self.grow(rates, best, misses, rate),
            Mode::Holding(holding) => self.hold(holding, rate),
            Mode::Trying { step, settled: false, from } => Mode::Trying { step, settled: true, from },
            Mode::Trying { step, settled: true, from } => self.judge(step, from, rate),
        };
        self.rate = rate;
    }

    fn grow(&mut self, mut rates: [u64; DEPTHS.len()], best: u64, misses: u32, rate: u64) -> Mode {
        rates[self.depth] = rates[self.depth].max(rate);
        let highest = best.max(rate);
        let grew = share(rate, best) >= 125;
        let misses = if grew { 0 } else { misses + 1 };
        let top = DEPTHS.len() - 1;
        if misses == 2 || (grew && self.depth == top) {
            // A rate from before the growth began has no depth here: the lowest of them then is the one there was.
            let first = rates.iter().position(|rate| *rate > 0).expect("this round's");
            self.depth = (first..DEPTHS.len()).find(|depth| share(rates[*depth], highest) >= 95).unwrap_or(first);
            return Mode::Holding(Holding::at(rates[self.depth]));
        }
        if grew {
            self.depth = (self.depth + 2).min(top);
        }
        Mode::Growing { rates, best: highest, misses }
    }

    fn hold(&mut self, mut holding: Holding, rate: u64) -> Mode {
        if !(60..=167).contains(&share(rate, holding.rate)) {
            holding.odd += 1;
            if holding.odd < 2 {
                return Mode::Holding(holding);
            }
            if rate > holding.rate {
                return Mode::growing(0);
            }
            // Whether less would do is soon tried, against a rate without anything from before.
            let mut changed = Holding::at(rate);
            changed.down.left = 2;
            return Mode::Holding(changed);
        }
        holding.odd = 0;
        holding.rate = holding.rate / 4 * 3 + rate / 4;
        holding.up.left = holding.up.left.saturating_sub(1);
        holding.down.left = holding.down.left.saturating_sub(1);
        for step in [Step::Up, Step::Down] {
            if holding.trial(step).left == 0 && self.beyond(step).is_some() {
                return self.attempt(step, holding);
            }
        }
        Mode::Holding(holding)
    }

    fn beyond(&self, step: Step) -> Option<usize> {
        match step {
            Step::Up => Some(self.depth + 1).filter(|depth| *depth < DEPTHS.len()),
            Step::Down => self.depth.checked_sub(1),
        }
    }

    fn attempt(&mut self, step: Step, from: Holding) -> Mode {
        let Some(depth) = self.beyond(step) else { return Mode::Holding(from) };
        self.depth = depth;
        Mode::Trying { step, settled: false, from }
    }

    fn judge(&mut self, step: Step, mut from: Holding, rate: u64) -> Mode {
        let gain = share(rate, from.rate);
        match step {
            Step::Up if gain >= 125 => Mode::growing(from.rate),
            Step::Up if gain >= 107 => self.attempt(step, Holding::at(rate)),
            Step::Down if gain >= 97 => {
                from.down = Trial::new();
                self.attempt(step, from)
            }
            _ => {
                let back = if step == Step::Up { Step::Down } else { Step::Up };
                self.depth = self.beyond(back).expect("the depth it came from");
                let trial = from.trial(step);
                *trial = trial.in_vain();
                Mode::Holding(from)
            }
        }
    }
}

/// `rate` in percent of `other`.
fn share(rate: u64, other: u64) -> u64 {
    let percent = u128::from(rate) * 100 / u128::from(other.max(1));
    u64::try_from(percent).unwrap_or(u64::MAX)
}
