//! The formats of files: from figures to bytes, and nothing else.
//!
//! Flat keyed files (`KEY VALUE`) and nested keyed ones (`NAME KEY=VALUE...`) as in cgroup v2; keys are only ever added,
//! at the end. Where a value could hold a newline it is escaped as in /proc/mounts (`\012`), so a line stays a line.

use std::fmt::{Display, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::errno_name;
use crate::jobs::{BadKind, BadRange, Change, ClientView, EngineView, State, View};
use crate::kcopyd::PaceFigures;

/// A flat keyed text in the making.
#[derive(Default)]
struct Flat(Vec<u8>);

impl Flat {
    fn put(&mut self, key: &str, value: impl Display) {
        self.0.extend_from_slice(format!("{key} {value}\n").as_bytes());
    }

    /// A value for people or of their making; `-` where there is none.
    fn put_text(&mut self, key: &str, value: Option<&str>) {
        let value = value.map(one_line).filter(|value| !value.is_empty());
        self.put(key, value.as_deref().unwrap_or("-"));
    }

    /// Microseconds since the epoch; `-` where there is no such moment.
    fn put_time(&mut self, key: &str, time: Option<SystemTime>) {
        self.put_text(key, time.map(|time| micros(time).to_string()).as_deref());
    }
}

/// `jobs/ID/status`.
pub(super) fn status(view: &View) -> Vec<u8> {
    let mut flat = Flat::default();
    flat.put("state", view.state.as_str());
    flat.put("read_err", u8::from(view.read_err));
    flat.put("write_err", format_args!("{:#x}", view.write_err));
    flat.put("total", view.total);
    flat.put("copied", view.copied);
    flat.put("durable", view.durable);
    flat.put("percent", percent(view));
    flat.put("speed", view.speed);
    flat.put("eta_usec", eta(view));
    flat.put("elapsed_usec", view.elapsed.as_micros());
    flat.put("stalled_usec", view.stalled.as_micros());
    flat.put("bad_bytes", view.bad_bytes);
    flat.put_text("client", Some(&view.client));
    flat.put_text("name", view.name.as_deref());
    flat.put_text("digest", view.digest.as_deref());
    flat.put_text("error", view.error.as_deref());
    let course = &view.course;
    flat.put_text("phase", course.phase);
    flat.put("verified", course.verified);
    flat.put("read_errors", course.read_errors);
    flat.put("suspect_bytes", course.suspect_bytes);
    flat.put("same", course.same);
    flat.put_time("started", course.started);
    flat.put_time("ended", course.ended);
    flat.put_text("limited_by", view.limited_by.map(|limit| limit.to_string()).as_deref());
    flat.0
}

/// `jobs/ID/dests`. The path comes last, so that blanks in it hurt nobody.
pub(super) fn dests(view: &View) -> Vec<u8> {
    let mut text = Vec::new();
    for (index, dest) in view.dests.iter().enumerate() {
        let (errno, sector) = match dest.first_error {
            Some((errno, sector)) => (errno_name(errno), sector.to_string()),
            None => ("-".to_owned(), "-".to_owned()),
        };
        let (state, copied, durable, errors) = (dest.state.as_str(), dest.copied, dest.durable, dest.errors);
        let head = format!(
            "{index} state={state} copied={copied} durable={durable} errors={errors} errno={errno} sector={sector} path="
        );
        text.extend_from_slice(head.as_bytes());
        text.extend(escape(dest.path.as_encoded_bytes()));
        text.push(b'\n');
    }
    text
}

/// `jobs/ID/errors`.
pub(super) fn errors(ranges: &[BadRange]) -> Vec<u8> {
    let mut text = String::new();
    for BadRange { dest, kind, sector, count, errno } in ranges {
        let why = errno_name(*errno);
        _ = match (dest, kind) {
            (Some(dest), BadKind::Differs) => writeln!(text, "differs {dest} {sector} {count}"),
            (Some(dest), BadKind::Failed) => writeln!(text, "write {dest} {sector} {count} {why}"),
            (None, _) => writeln!(text, "read {sector} {count} {why}"),
        };
    }
    text.into_bytes()
}

/// `engine`.
pub(super) fn engine(view: &EngineView) -> Vec<u8> {
    let mut flat = Flat::default();
    flat.put("backend", view.backend);
    flat.put_text("fallback", view.fallback.as_deref());
    flat.put("direct_io_devices", view.direct);
    flat.put("buffered_devices", view.buffered);
    flat.put("page_size", view.page_size);
    flat.put("pages", view.pages);
    flat.put("pages_free", view.pages_free);
    flat.put("pages_waiting", view.pages_waiting);
    flat.put("subjobs_in_flight", view.subjobs_in_flight);
    flat.put("subjob_bytes", view.subjob_bytes);
    flat.put("subjobs_max", view.subjobs_max.map_or("auto".to_owned(), |most| most.to_string()));
    flat.put("fixed_buffers", u8::from(view.fixed_buffers));
    flat.put("huge_pages", u8::from(view.huge_pages));
    flat.put("locked", u8::from(view.locked));
    flat.put("jobs_live", view.jobs_live);
    flat.put("jobs_ended", view.jobs_ended);
    for PaceFigures { path, direction, window, in_flight, rate, latency } in &view.paces {
        let latency = latency.as_micros();
        let head = format!(
            "pace direction={} window={window} in_flight={in_flight} rate={rate} latency_usec={latency} path=",
            direction.as_str()
        );
        flat.0.extend_from_slice(head.as_bytes());
        flat.0.extend(escape(path.as_os_str().as_encoded_bytes()));
        flat.0.push(b'\n');
    }
    flat.0
}

/// `clients/NAME/stat`.
pub(super) fn client(view: &ClientView) -> Vec<u8> {
    let mut flat = Flat::default();
    flat.put("pages", view.pages);
    flat.put("pages_used", view.pages_used);
    flat.put("pages_waiting", view.pages_waiting);
    flat.put("subjobs_in_flight", view.subjobs_in_flight);
    flat.put("jobs_live", view.jobs_live);
    flat.0
}

/// A line of `events`.
pub(super) fn event(change: &Change) -> Vec<u8> {
    let time = micros(change.time);
    let old = change.old.map_or("-", State::as_str);
    let mut line = format!("{time} {} {old} {}", change.id, change.new.as_str());
    if let Some(name) = &change.name {
        line.push_str(" name=");
        line.push_str(&one_line(name));
    }
    if let Some(reason) = change.reason.as_deref().filter(|reason| !reason.is_empty()) {
        line.push(' ');
        line.push_str(&one_line(reason));
    }
    line.push('\n');
    line.into()
}

/// Microseconds since the epoch.
fn micros(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_micros()
}

/// Percent copied with two decimals, rounded down: 100.00 only when all is copied.
pub(super) fn percent(view: &View) -> String {
    let (copied, total) = (u128::from(view.copied), u128::from(view.total));
    let hundredths = if copied >= total { 10_000 } else { copied * 10_000 / total };
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn eta(view: &View) -> String {
    view.eta.map_or_else(|| "none".to_owned(), |eta| eta.as_micros().to_string())
}

/// A text with its control characters escaped, so that it is one line and no terminal obeys it.
pub(super) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            let mut bytes = [0; 4];
            letter.encode_utf8(&mut bytes).bytes().for_each(|byte| _ = write!(line, "\\{byte:03o}"));
        } else {
            line.push(letter);
        }
    }
    line
}

/// A path with backslashes and control bytes escaped as in /proc/mounts. Blanks and other bytes stay.
fn escape(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for &byte in path {
        if byte == b'\\' || byte.is_ascii_control() {
            out.extend_from_slice(format!("\\{byte:03o}").as_bytes());
        } else {
            out.push(byte);
        }
    }
    out
}

/// A moment as people write it: `2026-01-31T23:59:59Z`.
pub(super) fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 1 March of year 0, so that a leap day is the last of its year; 400 years are 146,097 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests;
