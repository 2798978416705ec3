//! All that a report says of a job: asked of the jobs once, for the page and for the data.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::device::{self, Device};
use super::svg::BYTES_MAX;

use crate::jobs::{BadRange, CELLS_MAX, Cells, JobId, Jobs, Rate, State, View};
use crate::spec::{Action, Spec};

/// Bad ranges that a report lists; `errors` has all of them.
pub(super) const ERRORS_MAX: usize = 200;
/// Bytes of the spec that a report shows; `spec` has all of it.
pub(super) const SPEC_MAX: usize = 8 << 10;
/// Most cells of one destination: a line of them is as wide as a page, and may be read.
const DEST_CELLS_MAX: usize = 2048;
/// With fewer cells a map says nothing any more.
const DEST_CELLS_MIN: usize = 64;

/// What is known of a job.
#[derive(Clone, Debug)]
pub(in crate::fs) struct Report {
    pub(super) view: View,
    pub(super) spec: Arc<Spec>,
    pub(super) spec_line: Vec<u8>,
    /// Of the source, where there is one, and of the destinations; empty where nobody has looked at them yet.
    pub(super) devices: Vec<Option<Device>>,
    /// By destination.
    pub(super) maps: Vec<Cells>,
    pub(super) rates: Vec<Rate>,
    /// The first of them, and how many there are.
    pub(super) bad: Vec<BadRange>,
    pub(super) bad_count: usize,
    pub(super) backend: &'static str,
    pub(super) made: SystemTime,
}

/// A text that is made of a report, with as many cells as fit.
pub(in crate::fs) fn text(jobs: &Jobs, id: JobId, make: impl Fn(&Report) -> String) -> Option<String> {
    let mut cells = CELLS_MAX;
    loop {
        let text = make(&Report::of(jobs, id, cells)?);
        if text.len() <= BYTES_MAX || cells < DEST_CELLS_MIN {
            return Some(text);
        }
        cells /= 2;
    }
}

impl Report {
    /// Asks, for maps of at most so many cells together; `None` where there is no such job.
    pub(in crate::fs) fn of(jobs: &Jobs, id: JobId, cells: usize) -> Option<Self> {
        let view = jobs.view(id)?;
        let most = (cells / view.dests.len().max(1)).min(DEST_CELLS_MAX);
        let maps = (0..view.dests.len()).map(|index| jobs.cells(id, index, most)).collect::<Option<_>>()?;
        let mut bad = jobs.bad_ranges(id)?;
        let bad_count = bad.len();
        bad.truncate(ERRORS_MAX);
        Some(Self {
            spec: jobs.spec(id)?,
            spec_line: jobs.spec_line(id)?,
            devices: device::all(jobs, id),
            maps,
            rates: jobs.rates(id)?,
            bad,
            bad_count,
            backend: jobs.engine().backend,
            made: SystemTime::now(),
            view,
        })
    }

    /// What is known of the source.
    pub(super) fn source(&self) -> Option<&Device> {
        self.spec.from.as_ref()?;
        self.devices.first()?.as_ref()
    }

    /// What is known of a destination.
    pub(super) fn dest(&self, index: usize) -> Option<&Device> {
        self.devices.get(index + usize::from(self.spec.from.is_some()))?.as_ref()
    }

    /// What has become of the job, in a sentence.
    pub(super) fn verdict(&self) -> &'static str {
        let compares = self.spec.action == Action::Verify;
        match self.view.state {
            State::Done if compares => "Every destination is equal to the source.",
            State::Done if self.is_verified() => {
                "Every destination has every byte, has flushed it, and was read back and compared."
            }
            State::Done => "Every destination has every byte and has flushed it.",
            State::Degraded => "It went to its end, but a destination lacks what is listed under Errors.",
            State::Failed => "It did not go to its end, or no destination is complete.",
            State::Cancelled => "It was cancelled, or never started.",
            State::Held => "It waits for you: its devices may not be those that it began with.",
            State::Queued => "It waits for its turn.",
            State::Paused => "It is paused.",
            State::Running | State::Flushing | State::Verifying => "It is not finished.",
        }
    }

    /// Whether the destinations were compared to the end.
    pub(super) fn is_verified(&self) -> bool {
        let view = &self.view;
        view.state == State::Done && view.course.verified >= view.total && view.total > 0
    }

    /// Whether a comparison is part of the job.
    pub(super) fn verifies(&self) -> bool {
        self.spec.verify || self.spec.action == Action::Verify || self.view.course.verified > 0
    }

    /// The words of the policy, as in a spec, with what holds where nothing was said.
    pub(super) fn policy(&self) -> Vec<(&'static str, String)> {
        let spec = &self.spec;
        let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
        vec![
            ("on_read_error", format!("{:?}", spec.on_read_error).to_lowercase()),
            ("on_write_error", format!("{:?}", spec.on_write_error).to_lowercase()),
            ("retries", spec.retries.to_string()),
            ("ignore_error", yes(spec.ignore_error)),
            ("write_seq", yes(spec.write_seq)),
            ("sparse", yes(spec.sparse)),
            ("verify", yes(spec.verify)),
            ("force=mounted", yes(spec.force_mounted)),
        ]
    }

    /// Bytes of the running time's average, a second.
    pub(super) fn average(&self) -> u64 {
        let micros = self.view.elapsed.as_micros().max(1);
        u64::try_from(u128::from(self.view.copied) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }
}

/// The kernel that this runs on.
pub(super) fn kernel() -> &'static str {
    static KERNEL: OnceLock<String> = OnceLock::new();
    KERNEL.get_or_init(|| {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        format!("{} {}", read("ostype").trim(), read("osrelease").trim()).trim().to_owned()
    })
}
