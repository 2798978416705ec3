//! What the formats of files have in common: from figures to bytes, and nothing else. The keys are in `keys`.
//!
//! Flat keyed files (`KEY VALUE`) and nested keyed ones (`NAME KEY=VALUE...`) as in cgroup v2; keys are only ever added,
//! at the end. Where a value could hold a newline it is escaped as in /proc/mounts (`\012`), so a line stays a line.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::jobs::View;

/// Microseconds since the epoch.
pub(super) fn micros(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_micros()
}

/// Percent copied with two decimals, rounded down: 100.00 only when all is copied.
pub(super) fn percent(view: &View) -> String {
    let (copied, total) = (u128::from(view.copied), u128::from(view.total));
    let hundredths = if copied >= total { 10_000 } else { copied * 10_000 / total };
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
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
pub(super) fn escape(path: &[u8]) -> Vec<u8> {
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
