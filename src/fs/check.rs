//! `check`: specs in, and what would become of them out.
//!
//! A reader gets what came of the last write of its own open file; where that had none, what came of the last write of anybody.
//!
//! # Invariants
//! What is kept of one write is at most [`REPORT_MAX`] bytes. A report is made by the writer's thread, and read without waiting.

use std::sync::Arc;

use parking_lot::Mutex;

use super::error_log::Refused;
use super::jobs_new::Lines;
use super::{preview, text};
use crate::error::Error;
use crate::jobs::Jobs;

/// Bytes that are kept of what came of one write.
const REPORT_MAX: usize = 1 << 20;

/// What a reader gets before anybody has written.
const NOTHING: &[u8] = b"nothing was checked yet: write a spec here, then read\n";

/// What came of the last write of anybody.
#[derive(Default)]
pub(super) struct Last(Mutex<Option<Arc<[u8]>>>);

/// What an open `check` keeps.
#[derive(Default)]
pub(super) struct Check {
    pub(super) lines: Lines,
    report: Mutex<Report>,
}

#[derive(Default)]
struct Report {
    text: Option<Arc<[u8]>>,
    /// The offset of the first read: behind what was written, where the same open file is read.
    begin: Option<u64>,
}

impl Check {
    /// Says what would become of the specs of one write. Blocks: devices are opened, and read.
    pub(super) fn write(&self, jobs: &Jobs, last: &Last, data: &[u8]) -> Result<(), Refused> {
        self.lines.write(data, |specs| {
            let checked = jobs.check(specs)?;
            self.keep(last, preview::render(&checked));
            Ok(())
        })
    }

    /// Keeps the reason of a refused write.
    pub(super) fn refuse(&self, last: &Last, error: &Error) {
        self.keep(last, format!("error: {}\n", text::one_line(&error.to_string())));
    }

    fn keep(&self, last: &Last, mut text: String) {
        if text.len() > REPORT_MAX {
            let cut = text.as_bytes()[..REPORT_MAX].iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
            text.truncate(cut);
            text.push_str("\n... and more: check fewer specs at once\n");
        }
        let text: Arc<[u8]> = text.into_bytes().into();
        *self.report.lock() = Report { text: Some(Arc::clone(&text)), begin: None };
        *last.0.lock() = Some(text);
    }

    /// At most `size` bytes. The report begins where the first read is, whatever its offset.
    pub(super) fn read(&self, last: &Last, offset: u64, size: usize) -> Vec<u8> {
        let mut report = self.report.lock();
        if report.text.is_none() {
            report.text.clone_from(&last.0.lock());
        }
        let begin = *report.begin.get_or_insert(offset);
        if offset < begin {
            report.begin = Some(offset);
        }
        let at = usize::try_from(offset.saturating_sub(begin)).unwrap_or(usize::MAX);
        let text = report.text.as_deref().unwrap_or(NOTHING);
        let from = at.min(text.len());
        text[from..from.saturating_add(size).min(text.len())].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_in_parts_from_wherever_the_file_stands() {
        let (check, other, last) = (Check::default(), Check::default(), Last::default());
        assert_eq!(Check::default().read(&last, 0, 4096), NOTHING);
        check.keep(&last, "one two\n".to_owned());
        assert_eq!(check.read(&last, 30, 4), b"one ");
        assert_eq!(check.read(&last, 34, 4096), b"two\n");
        assert_eq!(check.read(&last, 38, 4096), b"");
        assert_eq!(check.read(&last, 0, 3), b"one", "and again from the beginning");
        assert_eq!(other.read(&last, 0, 4096), b"one two\n");
        check.keep(&last, "three\n".to_owned());
        assert_eq!(check.read(&last, 50, 4096), b"three\n");
        assert_eq!(other.read(&last, 0, 4096), b"one two\n", "what was read once stays");
    }

    #[test]
    fn a_report_has_a_limit() {
        let (check, last) = (Check::default(), Last::default());
        check.keep(&last, "a line of it\n".repeat(REPORT_MAX / 10));
        let text = check.read(&last, 0, usize::MAX);
        assert!(
            text.len() < REPORT_MAX + 100 && text.ends_with(b"a line of it\n... and more: check fewer specs at once\n")
        );
    }
}
