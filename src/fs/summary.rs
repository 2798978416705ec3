//! `summary`: what goes on, for people who look at it once a second. Not for programs: `status` and `metrics` are.
//!
//! A block for each live job, those that move data first, so that they are on the screen; then a line with the sums.

use std::fmt::Write as _;
use std::time::Duration;

use super::board::{Board, Row};
use super::text::{self, one_line};
use super::units::{amount, clock, columns, count, part};
use crate::error::errno_name;
use crate::jobs::{DestState, DestView, State, View};

/// Columns of a bar within its brackets.
const BAR: usize = 30;
/// How long a device may keep silent before that is worth a line.
const STALLED_MIN: Duration = Duration::from_secs(3);

/// The whole file.
pub(super) fn render(board: &Board) -> String {
    let mut out = String::new();
    let engine = &board.engine;
    _ = write!(out, "kcopyfs {}: {}", env!("CARGO_PKG_VERSION"), engine.backend);
    _ = write!(out, ", {} of {} pages free, throttle {} %", engine.pages_free, engine.pages, board.throttle);
    _ = match board.speed_max {
        Some(rate) => writeln!(out, ", at most {}/s", amount(rate)),
        None => writeln!(out, ", no limit of speed"),
    };
    out.push('\n');
    let mut rows: Vec<&Row> = board.live.iter().collect();
    rows.sort_by_key(|row| (rank(row.view.state), row.view.id));
    for row in rows {
        job(&mut out, row);
        out.push('\n');
    }
    total(&mut out, board);
    out
}

/// Who comes first: jobs that move data, then those that somebody stopped, then those that wait for their turn.
fn rank(state: State) -> u8 {
    match state {
        State::Running | State::Flushing | State::Verifying => 0,
        State::Held => 1,
        State::Paused => 2,
        _ => 3,
    }
}

fn job(out: &mut String, row: &Row) {
    let view = &row.view;
    _ = write!(out, "{}", view.id);
    if let Some(name) = &view.name {
        _ = write!(out, " {}", one_line(name));
    }
    _ = write!(out, ": {}", view.state.as_str());
    if let Some(rate) = row.speed_max {
        _ = write!(out, ", at most {}/s", amount(rate));
    }
    if let Some(why) = &view.error {
        _ = write!(out, " ({})", one_line(why));
    }
    out.push('\n');
    paths(out, view);
    _ = write!(out, "    [{}] {:>6} %", bar(view), text::percent(view));
    _ = write!(out, "  {}  {}/s", part(view.copied, view.total), amount(view.speed));
    if let Some(eta) = view.eta {
        _ = write!(out, "  {} left", clock(eta));
    }
    out.push('\n');
    if view.stalled >= STALLED_MIN {
        _ = writeln!(out, "    no device has answered for {}", clock(view.stalled));
    }
    if view.bad_bytes > 0 || view.read_err {
        _ = writeln!(out, "    {} bytes could not be read, see jobs/{}/errors", view.bad_bytes, view.id);
    }
}

/// The source, and a line for each destination, with its trouble.
fn paths(out: &mut String, view: &View) {
    let source = view.source.as_ref().map_or_else(|| "zeros".to_owned(), |path| one_line(&path.to_string_lossy()));
    let indent = source.chars().count();
    for (index, dest) in view.dests.iter().enumerate() {
        let from = if index == 0 { &source } else { "" };
        _ = writeln!(
            out,
            "    {from:indent$} -> {}{}",
            one_line(&dest.path.to_string_lossy()),
            trouble(dest).unwrap_or_default()
        );
    }
}

fn trouble(dest: &DestView) -> Option<String> {
    if dest.errors == 0 && !matches!(dest.state, DestState::Failed | DestState::Mismatch) {
        return None;
    }
    let first = dest
        .first_error
        .map(|(errno, sector)| format!(": {} at sector {sector}, {}", errno_name(errno), count(dest.errors, "error")))
        .unwrap_or_default();
    Some(format!("  {}{first}", dest.state.as_str().to_uppercase()))
}

fn bar(view: &View) -> String {
    let done = columns(view.copied, view.total, BAR);
    let head = if done < BAR { ">" } else { "" };
    format!("{}{head}{}", "=".repeat(done), ".".repeat(BAR - done - head.len()))
}

fn total(out: &mut String, board: &Board) {
    let states = board.states().filter(|(state, jobs)| !state.is_ended() && *jobs > 0);
    let live: Vec<String> = states.map(|(state, jobs)| format!("{jobs} {}", state.as_str())).collect();
    let ended = ended(board);
    if live.is_empty() {
        _ = writeln!(out, "total: no live jobs, {ended}; `echo 'from=PATH to=PATH' > jobs/new` makes one");
        return;
    }
    let sum = |figure: fn(&View) -> u64| board.live.iter().map(|row| figure(&row.view)).fold(0, u64::saturating_add);
    let (copied, all, speed) = (sum(|view| view.copied), sum(|view| view.total), sum(|view| view.speed));
    _ = writeln!(out, "total: {}, {ended}; {}, {}/s", live.join(", "), part(copied, all), amount(speed));
}

/// How many jobs have ended, and where those are that somebody should look at.
fn ended(board: &Board) -> String {
    let bad = board.states().filter(|(state, jobs)| matches!(state, State::Degraded | State::Failed) && *jobs > 0);
    let bad: Vec<String> = bad.map(|(state, jobs)| format!("{jobs} {0}, see state/{0}", state.as_str())).collect();
    let ended = board.engine.jobs_ended;
    if bad.is_empty() { format!("{ended} ended") } else { format!("{ended} ended ({})", bad.join("; ")) }
}

#[cfg(test)]
mod tests;
