//! A line of `wait/ID`: how a job stands and what it does, for people. Programs read `status`.

use std::time::Duration;

use super::text::{one_line, percent};
use super::units::{amount, clock, columns, count};
use crate::jobs::View;

/// Most columns of a line: a terminal of 80 does not wrap it.
const WIDTH: usize = 79;
/// Columns of a bar within its brackets, where there is room: what stands behind it does not move while errors are few.
const BAR_MAX: usize = 20;
/// Fewest columns that a bar keeps; what stands behind it is cut then.
const BAR_MIN: usize = 10;
/// A device that is silent for longer is worth a word.
const SILENT_MIN: Duration = Duration::from_secs(3);

/// The line, with its newline: `[####====....]  42.17 %  1.8 GiB/s  0:00:32 left  copy  1 error`.
pub(super) fn line(view: &View) -> Vec<u8> {
    let figures = format!("{:>6} %  {}", percent(view), rest(view));
    let room = WIDTH - "[]  ".len();
    let bar = room.saturating_sub(figures.chars().count()).clamp(BAR_MIN, BAR_MAX);
    let text = format!("[{}]  {figures}", draw(view, bar));
    let mut line = cut(text.trim_end());
    line.push('\n');
    line.into_bytes()
}

/// What stands behind the percentage.
fn rest(view: &View) -> String {
    let state = view.state.as_str();
    if !view.state.moves() {
        // It waits: why says more than figures that stand still.
        let why = view.error.as_deref().map(one_line).filter(|why| !why.is_empty());
        return why.map_or_else(|| state.to_owned(), |why| format!("{state}: {why}"));
    }
    let phase = view.course.phase.unwrap_or(state);
    let text = if view.stalled >= SILENT_MIN {
        format!("no device has answered for {}", clock(view.stalled))
    } else {
        let left = view.eta.map_or_else(|| "-:--:--".to_owned(), clock);
        format!("{:>10}/s  {left:>8} left", amount(view.speed))
    };
    match errors(view) {
        0 => format!("{text}  {phase}"),
        errors => format!("{text}  {phase}  {}", count(errors, "error")),
    }
}

/// Errors until now, of the source and of all destinations.
fn errors(view: &View) -> u64 {
    let reads = view.course.read_errors.max(u64::from(view.read_err));
    view.dests.iter().map(|dest| dest.errors).fold(reads, u64::saturating_add)
}

/// `#` is on the destinations for good, `=` is copied, `.` is to be done.
fn draw(view: &View, width: usize) -> String {
    let copied = columns(view.copied, view.total, width);
    let durable = columns(view.durable, view.total, width).min(copied);
    format!("{}{}{}", "#".repeat(durable), "=".repeat(copied - durable), ".".repeat(width - copied))
}

/// The text, or its beginning with three dots.
fn cut(text: &str) -> String {
    if text.chars().count() <= WIDTH {
        return text.to_owned();
    }
    text.chars().take(WIDTH - 3).chain("...".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::board::samples;
    use crate::jobs::{Course, State};

    fn said(view: &View) -> String {
        let line = String::from_utf8(line(view)).unwrap();
        let text = line.strip_suffix('\n').expect("a line");
        assert!(text.chars().count() <= 79 && !text.contains('\n'), "{text}");
        text.to_owned()
    }

    /// Half copied, a quarter durable.
    fn running() -> View {
        let mut view = samples::view(7, State::Running);
        view.dests.iter_mut().for_each(|dest| dest.errors = 0);
        let course = Course { phase: Some("copy"), ..Course::default() };
        View { total: 800, copied: 400, durable: 200, speed: 3 << 29, course, ..view }
    }

    #[test]
    fn a_job_that_runs_has_a_bar_a_speed_and_a_time_left() {
        let view = running();
        assert_eq!(said(&view), "[#####=====..........]   50.00 %     1.5 GiB/s   0:00:32 left  copy");
        assert_eq!(
            said(&View { eta: None, speed: 0, ..view.clone() }),
            "[#####=====..........]   50.00 %     0.0 MiB/s   -:--:-- left  copy"
        );
        let course = Course { phase: Some("verify"), ..view.course };
        assert_eq!(
            said(&View { state: State::Verifying, copied: 800, durable: 800, course, ..view }),
            "[####################]  100.00 %     1.5 GiB/s   0:00:32 left  verify"
        );
    }

    #[test]
    fn errors_are_told_while_it_runs() {
        let mut view = View { read_err: true, ..running() };
        assert!(said(&view).ends_with("left  copy  1 error"), "{}", said(&view));
        view.dests[1].errors = 4;
        view.course = Course { phase: Some("scrape"), read_errors: 2, ..view.course };
        assert!(said(&view).ends_with("left  scrape  6 errors"), "{}", said(&view));
    }

    #[test]
    fn a_device_that_is_silent_is_told() {
        let view = View { stalled: Duration::from_secs(65), ..running() };
        assert_eq!(said(&view), "[#####=====..........]   50.00 %  no device has answered for 0:01:05  copy");
    }

    #[test]
    fn a_job_that_waits_says_why() {
        let why = |why: &str| View { state: State::Queued, error: Some(why.to_owned()), ..running() };
        assert!(said(&why("waits for job 3")).ends_with("50.00 %  queued: waits for job 3"));
        let long = said(&why(&format!("waits: /dev/disk/by-id/{} is in\nuse", "x".repeat(99))));
        assert!(long.starts_with("[##===.....]") && long.ends_with("..."), "{long}");
        assert!(said(&View { state: State::Paused, error: None, ..running() }).ends_with(" %  paused"));
    }

    #[test]
    fn the_largest_figures_fit() {
        let mut view = View { total: u64::MAX, copied: u64::MAX - 1, speed: u64::MAX, ..running() };
        view.state = State::Verifying;
        view.eta = Some(Duration::MAX);
        view.dests[0].errors = u64::MAX;
        assert!(said(&view).starts_with("[=========.]   99.99 %"), "{}", said(&view));
        assert!(said(&View { total: 0, copied: 0, durable: 0, ..running() }).starts_with("[##############"));
    }
}
