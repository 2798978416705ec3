//! How fast a job was, over all its running time, in a few samples however long it takes. Pure; time is an argument.
//!
//! # Invariants
//! There are at most [`SAMPLES_MAX`] samples, each for the same span of running time. When they are full, two become one and
//! the span is doubled.

use std::time::Duration;

/// Samples at most: a curve of so many points is as wide as a page.
pub(crate) const SAMPLES_MAX: usize = 240;
/// The span of a sample at first, in milliseconds.
const FIRST_SPAN: u64 = 250;

/// What was moved in each span of the running time.
///
/// A sample is a number of bytes in 16 bits, rounded down to 11 significant binary digits: an ended job keeps half a kilobyte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Speeds {
    /// Milliseconds of a sample; 0 while there is none.
    span: u64,
    samples: Vec<u16>,
    /// Bytes of the span that goes on, which the last sample says too.
    open: u64,
}

impl Speeds {
    /// Those of a record; `None` where it says nothing that can be.
    pub(crate) fn recorded(span: u64, samples: Vec<u16>) -> Option<Self> {
        let is_good = samples.len() <= SAMPLES_MAX && (span > 0) != samples.is_empty();
        let open = samples.last().map_or(0, |last| bytes_of(*last));
        is_good.then_some(Self { span, samples, open })
    }

    /// Milliseconds of a sample, and the samples, for a record.
    pub(crate) fn parts(&self) -> (u64, &[u16]) {
        (self.span, &self.samples)
    }

    /// So many bytes more are done, when the job has run for so long.
    pub(crate) fn add(&mut self, running: Duration, bytes: u64) {
        let millis = u64::try_from(running.as_millis()).unwrap_or(u64::MAX);
        self.span = self.span.max(FIRST_SPAN);
        while millis / self.span >= SAMPLES_MAX as u64 {
            self.halve();
        }
        let place = usize::try_from(millis / self.span).expect("less than the most");
        if place >= self.samples.len() {
            // In the spans between nothing was done.
            self.samples.resize(place + 1, 0);
            self.open = 0;
        }
        self.open = self.open.saturating_add(bytes);
        if let Some(last) = self.samples.last_mut() {
            *last = sample_of(self.open);
        }
    }

    fn halve(&mut self) {
        let was_whole = self.samples.len().is_multiple_of(2);
        let before = self.samples.len().checked_sub(2).map_or(0, |index| bytes_of(self.samples[index]));
        let both = |pair: &[u16]| pair.iter().map(|one| bytes_of(*one)).fold(0, u64::saturating_add);
        self.samples = self.samples.chunks(2).map(|pair| sample_of(both(pair))).collect();
        if was_whole && !self.samples.is_empty() {
            self.open = self.open.saturating_add(before);
        }
        self.span = self.span.saturating_mul(2);
    }

    /// Bytes per second over the running time: where each span begins, and ends, in seconds, and its speed. `running` is how
    /// long the job has run: where it ends within the last span.
    // Figures of a curve, which need no more digits than it has pixels.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn rates(&self, running: Duration) -> Vec<Rate> {
        let span = self.span as f64 / 1000.0;
        let last = self.samples.len().saturating_sub(1);
        let rate = |(index, sample): (usize, &u16)| {
            let from = index as f64 * span;
            let until = if index == last { running.as_secs_f64().clamp(from, from + span) } else { from + span };
            // A moment at the end says nothing.
            (until - from > span / 8.0 || last == 0).then(|| Rate {
                from,
                until,
                speed: bytes_of(*sample) as f64 / (until - from).max(0.001),
            })
        };
        self.samples.iter().enumerate().filter_map(rate).collect()
    }

    /// Takes no more memory than it must.
    pub(crate) fn shrink(&mut self) {
        self.samples.shrink_to_fit();
    }
}

/// A speed over a part of the running time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Seconds of running time at which it begins.
    pub from: f64,
    /// Seconds of running time at which it ends.
    pub until: f64,
    /// Bytes per second.
    pub speed: f64,
}

/// The 11 leading binary digits, and how many more there were.
fn sample_of(bytes: u64) -> u16 {
    let more = (u64::BITS - bytes.leading_zeros()).saturating_sub(11);
    let digits = u16::try_from(bytes >> more).expect("11 digits");
    let more = u16::try_from(more).expect("at most 53");
    if digits < 1024 { digits } else { ((more + 1) << 10) + (digits - 1024) }
}

/// The number again, rounded down.
fn bytes_of(sample: u16) -> u64 {
    let digits = u64::from(sample & 1023);
    match sample >> 10 {
        0 => digits,
        more @ 1..=54 => (1024 + digits) << (more - 1),
        // No number of bytes has so many digits.
        _ => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(speeds: &Speeds) -> u64 {
        speeds.samples.iter().map(|sample| bytes_of(*sample)).sum()
    }

    proptest! {
        #[test]
        fn a_sample_is_right_to_a_thousandth(bytes in any::<u64>(), shift in 0_u32..64) {
            let bytes = bytes >> shift;
            let again = bytes_of(sample_of(bytes));
            prop_assert!(again <= bytes && bytes - again <= bytes / 1024, "{bytes} {again}");
            prop_assert_eq!(sample_of(again), sample_of(bytes));
        }

        #[test]
        fn however_long_it_takes_there_are_few_samples_and_nothing_is_lost(
            steps in proptest::collection::vec((0_u64..10_000_000, 0_u64..1 << 40), 0..300),
        ) {
            let (mut speeds, mut time, mut bytes) = (Speeds::default(), 0, 0);
            for (step, more) in steps {
                time += step;
                bytes += more;
                speeds.add(Duration::from_millis(time), more);
                prop_assert!(speeds.samples.len() <= SAMPLES_MAX);
                let (span, samples) = speeds.parts();
                prop_assert!(Speeds::recorded(span, samples.to_vec()).is_some());
            }
            // Each halving rounds down by a thousandth at most.
            prop_assert!(sum(&speeds) <= bytes && bytes - sum(&speeds) <= bytes / 40, "{} {bytes}", sum(&speeds));
            prop_assert!(speeds.samples.is_empty() || (speeds.samples.len() as u64 - 1) * speeds.span <= time);
        }
    }

    #[test]
    fn a_steady_job_has_a_level_curve_at_any_length() {
        for seconds in [10_u64, 100, 100_000] {
            let mut speeds = Speeds::default();
            (1..=seconds * 4).for_each(|quarter| speeds.add(Duration::from_millis(quarter * 250 - 1), 1 << 20));
            let rates = speeds.rates(Duration::from_secs(seconds));
            assert!(rates.len() <= SAMPLES_MAX && rates.len() >= 40, "{}", rates.len());
            for rate in &rates {
                assert!((rate.speed / f64::from(4 << 20) - 1.0).abs() < 0.02, "{seconds}: {rate:?}");
            }
            assert!(rates.windows(2).all(|pair| pair[0].until.to_bits() == pair[1].from.to_bits()));
        }
    }

    #[test]
    fn a_record_of_nonsense_is_none() {
        assert_eq!(Speeds::recorded(0, Vec::new()), Some(Speeds::default()));
        assert_eq!((Speeds::recorded(0, vec![1]), Speeds::recorded(250, vec![1; 241])), (None, None));
        assert!(Speeds::default().rates(Duration::from_secs(9)).is_empty());
        let mut wild = Speeds::recorded(u64::MAX, vec![u16::MAX; 240]).unwrap();
        wild.add(Duration::MAX, u64::MAX);
        assert!(!wild.rates(Duration::MAX).is_empty());
    }
}
