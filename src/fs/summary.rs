//! `summary`: what goes on, for people who look at it once a second, as at /proc/mdstat. Not for programs: `status` and
//! `metrics` are. Pure.
//!
//! Totals and trouble first, so that they are on every screen; then the live jobs, those that move data first; then those
//! that ended last. No line is wider than [`WIDTH`], a figure has its column, and what found no room is counted.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::eye::fit::{cut, pad, shorten, shown, width};
use super::units::{amount, clock, columns, count, span};
use crate::error::errno_name;
use crate::jobs::{DestState, DestView, Glance, JobId, Most, SILENT_MIN, Seen, State, View};

/// Most columns of a line: a terminal of 80 does not wrap it.
const WIDTH: usize = 79;
/// Columns of a bar within its brackets.
const BAR: usize = 20;
/// Destinations whose letters fit behind a job's name; those of more have a line of their own.
const LETTERS_INLINE: usize = 16;
/// Columns of a destination's model and serial.
const LABEL_MAX: usize = 30;
/// Lines of live jobs: more than any screen has, and not more than a reader once a second can be given.
const LINES_MAX: usize = 1000;
/// How many jobs are shown at most.
pub(super) const MOST: Most = Most { live: 200, troubled: 4, ended: 5 };

/// What limits the whole engine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Percent of time in which it does I/O.
    pub(super) throttle: u32,
    /// Bytes per second of all jobs together.
    pub(super) speed_max: Option<u64>,
}

/// The whole file. `devices` says what is known of a job's destinations, as model and serial.
pub(super) fn render(
    glance: &Glance,
    limits: Limits,
    now: SystemTime,
    devices: impl Fn(JobId) -> Vec<Option<String>>,
) -> String {
    let mut page = Page::default();
    totals(&mut page, glance, limits);
    troubles(&mut page, glance);
    let mut shown = 0;
    for seen in &glance.live {
        if page.lines > LINES_MAX {
            break;
        }
        if shown == 0 {
            page.line("");
        }
        job(&mut page, seen, &devices);
        shown += 1;
    }
    let live: u64 = states(glance).filter(|(state, _)| !state.is_ended()).map(|(_, jobs)| jobs).sum();
    if live > shown {
        page.line(&format!("... and {} more, see state/", count(live - shown, "live job")));
    }
    ended(&mut page, glance, now);
    page.text
}

/// Lines, none of them too wide.
#[derive(Default)]
struct Page {
    text: String,
    lines: usize,
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(&cut(line.trim_end(), WIDTH));
        self.text.push('\n');
        self.lines += 1;
    }
}

fn states(glance: &Glance) -> impl Iterator<Item = (State, u64)> {
    State::ALL.into_iter().zip(glance.states).filter(|(_, jobs)| *jobs > 0)
}

fn totals(page: &mut Page, glance: &Glance, limits: Limits) {
    let live: Vec<String> = states(glance)
        .filter(|(state, _)| !state.is_ended())
        .map(|(state, jobs)| format!("{jobs} {}", state.as_str()))
        .collect();
    let mut head = format!("kcopyfs {}: ", env!("CARGO_PKG_VERSION"));
    if live.is_empty() {
        head.push_str("no live jobs");
    } else {
        head.push_str(&live.join(", "));
    }
    if limits.throttle < 100 {
        _ = write!(head, "; throttle {} %", limits.throttle);
    }
    if let Some(rate) = limits.speed_max {
        _ = write!(head, "; max {}/s", amount(rate));
    }
    page.line(&head);
    if live.is_empty() {
        page.line("make one: echo 'from=PATH to=PATH' > jobs/new");
    }
    // What one job alone does stands with it.
    if live_jobs(glance) > 1 {
        let speed = Some(glance.speed).filter(|speed| *speed > 0);
        page.line(&figures(glance.durable, glance.copied, glance.total, speed, "all jobs"));
    }
    let ended: Vec<String> = states(glance)
        .filter(|(state, _)| state.is_ended())
        .map(|(state, jobs)| match state {
            State::Degraded | State::Failed => format!("{jobs} {0} (ls state/{0})", state.as_str()),
            _ => format!("{jobs} {}", state.as_str()),
        })
        .collect();
    if !ended.is_empty() {
        page.line(&format!("ended: {}", ended.join(", ")));
    }
}

fn live_jobs(glance: &Glance) -> u64 {
    states(glance).filter(|(state, _)| !state.is_ended()).map(|(_, jobs)| jobs).sum()
}

/// A line for each of the first jobs that something is wrong with.
fn troubles(page: &mut Page, glance: &Glance) {
    for view in &glance.troubled {
        page.line(&format!("! {}: {}", title(view), trouble(view).join(", ")));
    }
    let more = glance.troubled_count.saturating_sub(glance.troubled.len() as u64);
    if more > 0 {
        page.line(&format!("! and {} more in trouble", count(more, "job")));
    }
}

/// What is wrong with a job, the worst first.
fn trouble(view: &View) -> Vec<String> {
    let mut all = Vec::new();
    if let State::Held | State::Paused = view.state {
        let why = view.error.as_deref().map(shown).unwrap_or_default();
        all.push(format!("{} {why}", view.state.as_str()));
    }
    let is_bad = |dest: &&DestView| matches!(dest.state, DestState::Failed | DestState::Mismatch);
    let failed = view.dests.iter().filter(is_bad).count();
    if failed > 0 {
        let of = view.dests.len();
        all.push(if of == 1 {
            "its destination failed".to_owned()
        } else {
            format!("{failed} of {of} destinations failed")
        });
    }
    if view.stalled >= SILENT_MIN && view.state.moves() {
        all.push(format!("no device has answered for {}", clock(view.stalled)));
    }
    if view.bad_bytes > 0 || view.read_err {
        all.push(format!("{} unreadable", amount(view.bad_bytes)));
    }
    if view.course.suspect_bytes > 0 {
        all.push(format!("{} to look at again", amount(view.course.suspect_bytes)));
    }
    if all.is_empty() {
        all.push(count(view.course.read_errors, "read error"));
    }
    all
}

/// Number and name.
fn title(view: &View) -> String {
    match &view.name {
        Some(name) => format!("{} {}", view.id, cut(&shown(name), 24)),
        None => view.id.to_string(),
    }
}

fn job(page: &mut Page, seen: &Seen, devices: impl Fn(JobId) -> Vec<Option<String>>) {
    let view = &seen.view;
    let letters: String = view.dests.iter().map(letter).collect();
    let behind = if letters.len() <= LETTERS_INLINE { format!(" [{letters}]") } else { String::new() };
    // What it does says that it runs.
    let state = view.course.phase.filter(|_| view.state == State::Running).unwrap_or(view.state.as_str());
    let mut head = format!("{}: {state}", title(view));
    if let Some(rate) = seen.speed_max {
        _ = write!(head, ", max {}/s", amount(rate));
    }
    let room = WIDTH - width(&behind);
    let head = cut(&head, room);
    // Paths are told whole, where they can be: behind the job's name, or below it.
    let paths_room = room.saturating_sub(width(&head) + 2);
    let whole = paths(view, WIDTH - 2);
    let is_below = width(&whole) > paths_room;
    let line = if is_below { head } else { format!("{head}  {whole}") };
    page.line(&format!("{}{behind}", pad(&line, room)));
    if is_below {
        page.line(&format!("  {whole}"));
    }
    let begun = view.copied > 0 || view.state.moves();
    if begun {
        page.line(&job_figures(view));
    }
    if letters.len() > LETTERS_INLINE {
        page.line(&format!("  [{letters}]"));
    }
    if !view.state.moves()
        && let Some(why) = view.error.as_deref().filter(|why| !why.is_empty())
    {
        page.line(&format!("  {}", shown(why)));
    }
    dests(page, view, devices);
    if view.stalled >= SILENT_MIN {
        page.line(&format!("  no device has answered for {}", clock(view.stalled)));
    }
    let course = &view.course;
    if view.bad_bytes > 0 || view.read_err || course.read_errors > 0 {
        page.line(&format!(
            "  source: {} unreadable, {} to look at again, {}",
            amount(view.bad_bytes),
            amount(course.suspect_bytes),
            count(course.read_errors, "read error"),
        ));
    }
}

/// From where to where, in so many columns.
fn paths(view: &View, room: usize) -> String {
    const ARROW: &str = " -> ";
    let source = view.source.as_ref().map_or_else(|| "zeros".to_owned(), shown);
    let dest = match &*view.dests {
        [one] => shown(&one.path),
        all => count(all.len() as u64, "destination"),
    };
    let room = room.saturating_sub(ARROW.len());
    // The shorter one is shown whole, where that leaves half for the other.
    let half = room / 2;
    let (source_room, dest_room) = match (width(&source), width(&dest)) {
        (a, b) if a + b <= room => (a, b),
        (a, _) if a <= half => (a, room - a),
        (_, b) if b <= half => (room - b, b),
        _ => (half, room - half),
    };
    format!("{}{ARROW}{}", shorten(&source, source_room), shorten(&dest, dest_room))
}

fn job_figures(view: &View) -> String {
    let compares = view.state == State::Verifying && view.copied >= view.total;
    let (durable, copied) = if compares { (view.course.verified, view.total) } else { (view.durable, view.copied) };
    let left = match view.eta {
        Some(eta) => format!("{} left", span(eta)),
        None if view.state.moves() => "-:--:-- left".to_owned(),
        None => String::new(),
    };
    if compares {
        // What is done of the comparison, in place of the copy, which is complete.
        let speed = view.eta.map(|_| view.speed);
        return figures(durable, durable, view.total, speed, &left);
    }
    let speed = (view.state == State::Running || view.state == State::Verifying).then_some(view.speed);
    figures(durable, copied, view.total, speed, &left)
}

/// `[####====....]  42.1%     42.1 of  100.0 GiB    1.7 GiB/s   0:00:32 left`: each figure in its column.
fn figures(durable: u64, copied: u64, total: u64, speed: Option<u64>, left: &str) -> String {
    let speed = speed.map(|speed| format!("{}/s", amount(speed))).unwrap_or_default();
    let size = super::units::part_wide(copied, total);
    format!("  [{}] {:>6} {size:>20} {speed:>12} {left:>13}", bar(durable, copied, total), percent(copied, total))
}

/// `#` is on the destinations for good, `=` is copied, `.` is to be done.
fn bar(durable: u64, copied: u64, total: u64) -> String {
    let copied = columns(copied, total, BAR);
    let durable = columns(durable, total, BAR).min(copied);
    format!("{}{}{}", "#".repeat(durable), "=".repeat(copied - durable), ".".repeat(BAR - copied))
}

/// With one decimal, rounded down: `100.0%` only when all is done.
fn percent(part: u64, all: u64) -> String {
    let tenths = if part >= all { 1000 } else { u128::from(part) * 1000 / u128::from(all) };
    format!("{}.{}%", tenths / 10, tenths % 10)
}

/// How a destination is, in a letter, as in /proc/mdstat: `U` takes part, `_` does not any more; `s` stalls, `b` is behind.
fn letter(dest: &DestView) -> char {
    match dest.state {
        DestState::Active | DestState::Done => 'U',
        DestState::Stalled => 's',
        DestState::Behind => 'b',
        _ => '_',
    }
}

/// A line for each destination, where there is more than one, or trouble.
fn dests(page: &mut Page, view: &View, devices: impl Fn(JobId) -> Vec<Option<String>>) {
    if view.dests.len() == 1 && dest_trouble(&view.dests[0]).is_none() {
        return;
    }
    let devices = devices(view.id);
    let label = |index| devices.get(index).and_then(Option::as_deref).unwrap_or_default();
    let rows: Vec<[String; 3]> = (0..)
        .zip(&view.dests)
        .map(|(index, dest)| {
            [shown(&dest.path), cut(&shown(label(index)), LABEL_MAX), dest_trouble(dest).unwrap_or_default()]
        })
        .collect();
    let widest = |column: usize| rows.iter().map(|row| width(&row[column])).max().unwrap_or(0);
    let (what, wrong) = (widest(1), widest(2).min(34));
    let gap = |columns: usize| if columns > 0 { columns + 2 } else { 0 };
    let room = WIDTH - "  63 U 100.0%  ".len();
    let path = widest(0).min(room.saturating_sub(gap(what) + gap(wrong)).max(20));
    for (index, (dest, [name, device, trouble])) in view.dests.iter().zip(&rows).enumerate() {
        let mut line = format!("  {index:>2} {} {:>6}  ", letter(dest), percent(dest.copied, view.total));
        line.push_str(&pad(&shorten(name, path), path));
        if what > 0 {
            _ = write!(line, "  {}", pad(device, what));
        }
        _ = write!(line, "  {trouble}");
        page.line(&line);
    }
}

fn dest_trouble(dest: &DestView) -> Option<String> {
    let is_well = matches!(dest.state, DestState::Active | DestState::Done);
    if dest.errors == 0 && is_well {
        return None;
    }
    let first = dest.first_error.map(|(errno, sector)| {
        let more = if dest.errors > 1 { format!(", {}", count(dest.errors, "error")) } else { String::new() };
        format!(": {} at sector {sector}{more}", errno_name(errno))
    });
    Some(format!("{}{}", dest.state.as_str().to_uppercase(), first.unwrap_or_default()))
}

/// Those that ended last, each with its verdict.
fn ended(page: &mut Page, glance: &Glance, now: SystemTime) {
    if glance.ended.is_empty() {
        return;
    }
    page.line("");
    for view in &glance.ended {
        let ago = view.course.ended.and_then(|ended| now.duration_since(ended).ok()).unwrap_or(Duration::ZERO);
        let verdict = match view.state {
            State::Done => "done".to_owned(),
            state => state.as_str().to_uppercase(),
        };
        let head = format!("{}: {verdict} {} ago, ", title(view), span(ago));
        let why = view.error.as_ref().filter(|_| view.state != State::Done);
        let figures = || {
            let figures = format!("{}  ", amount(view.copied));
            let room = WIDTH.saturating_sub(width(&head) + width(&figures));
            format!("{figures}{}", paths(view, room))
        };
        let rest = why.map_or_else(figures, shown);
        page.line(&format!("{head}{rest}"));
    }
}

#[cfg(test)]
mod tests;
