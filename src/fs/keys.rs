//! The keys of the tree's texts: what each means, and how its value is made, in one table a text. The printers, the tree's README
//! and the man page all read these tables, so a key that is printed is documented.
//!
//! # Invariants
//! Keys are only ever added, at the end of their table. The meaning of one never changes.

use std::fmt::Display;
use std::io::Write as _;
use std::time::SystemTime;

use super::text::{escape, micros, one_line, percent};
use crate::blkdev::{DeviceCard, word};
use crate::error::errno_name;
use crate::jobs::{BadKind, BadRange, Change, ClientView, DestView, DeviceView, EngineView, State, View};
use crate::kcopyd::PaceFigures;

/// A key of a text about a `T`.
struct Key<T: 'static> {
    name: &'static str,
    /// What it means, in a line.
    doc: &'static str,
    /// Adds its value. What could hold a newline is escaped.
    value: fn(&T, &mut Vec<u8>),
}

/// What a text has: a key, or a kind of line.
#[derive(Clone, Copy, Debug)]
pub struct KeyDoc {
    /// The key, or the line with its parts in capitals.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// A text of the tree, and what is in it.
#[derive(Debug)]
pub struct TextKeys {
    /// Its path in the tree.
    pub path: &'static str,
    /// How it is built.
    pub form: &'static str,
    /// Its keys or lines, in their order.
    pub entries: Vec<KeyDoc>,
}

/// Every text that has keys, in the order of the tree.
pub fn texts_with_keys() -> Vec<TextKeys> {
    let lines = |table: &[KeyDoc]| table.to_vec();
    let pace =
        [&[KeyDoc { name: "pace", doc: "a line per device in use and direction; its keys follow" }], &*entries(PACE)]
            .concat();
    vec![
        TextKeys { path: "engine", form: "a line per key: KEY VALUE", entries: [entries(ENGINE), pace].concat() },
        TextKeys {
            path: "events",
            form: "a line per change of state, TIME_USEC JOB OLD NEW [name=NAME] [REASON]; beyond 1 MiB it is cut to its last 64 KiB",
            entries: lines(EVENT_PARTS),
        },
        TextKeys { path: "clients/NAME/stat", form: "a line per key: KEY VALUE", entries: entries(CLIENT) },
        TextKeys {
            path: "jobs/ID/status",
            form: "a line per key: KEY VALUE; `-` where there is nothing to say",
            entries: entries(STATUS),
        },
        TextKeys {
            path: "jobs/ID/dests",
            form: "a line per destination: its number, then KEY=VALUE, the path last",
            entries: entries(DEST),
        },
        TextKeys {
            path: "jobs/ID/errors",
            form: "a line per bad range, ascending; SECTOR is the device's",
            entries: lines(ERROR_LINES),
        },
    ]
}

fn entries<T>(keys: &[Key<T>]) -> Vec<KeyDoc> {
    keys.iter().map(|key| KeyDoc { name: key.name, doc: key.doc }).collect()
}

/// `KEY VALUE`, a line each.
fn flat<T>(keys: &[Key<T>], what: &T) -> Vec<u8> {
    let mut text = Vec::new();
    for key in keys {
        put(&mut text, key.name);
        text.push(b' ');
        (key.value)(what, &mut text);
        text.push(b'\n');
    }
    text
}

/// `HEAD KEY=VALUE...`, one line.
fn nested<T>(head: impl Display, keys: &[Key<T>], what: &T, text: &mut Vec<u8>) {
    put(text, head);
    for key in keys {
        put(text, format_args!(" {}=", key.name));
        (key.value)(what, text);
    }
    text.push(b'\n');
}

/// `jobs/ID/status`.
pub(super) fn status(view: &View) -> Vec<u8> {
    flat(STATUS, view)
}

/// `jobs/ID/dests`.
pub(super) fn dests(view: &View) -> Vec<u8> {
    let mut text = Vec::new();
    for (index, dest) in view.dests.iter().enumerate() {
        nested(index, DEST, dest, &mut text);
    }
    text
}

/// `jobs/ID/devices`. Blanks in a value are escaped too, so that each is one word; the path comes last, as in `dests`.
pub(super) fn devices(views: &[DeviceView]) -> Vec<u8> {
    let mut text = Vec::new();
    let nothing = DeviceCard::default();
    for DeviceView { dest, card, path } in views {
        let name = dest.map_or_else(|| "source".to_owned(), |index| index.to_string());
        text.extend_from_slice(name.as_bytes());
        // Of a device that was not looked at nothing is known, not even the size.
        for (key, value) in card.as_deref().unwrap_or(&nothing).fields() {
            let value = value.filter(|value| card.is_some() && !value.is_empty());
            let value = value.map_or_else(|| "-".to_owned(), |value| word(&value));
            text.extend_from_slice(format!(" {key}={value}").as_bytes());
        }
        text.extend_from_slice(b" path=");
        text.extend(escape(path.as_encoded_bytes()));
        text.push(b'\n');
    }
    text
}

/// `engine`.
pub(super) fn engine(view: &EngineView) -> Vec<u8> {
    let mut text = flat(ENGINE, view);
    for pace in &view.paces {
        nested("pace", PACE, pace, &mut text);
    }
    text
}

/// `clients/NAME/stat`.
pub(super) fn client(view: &ClientView) -> Vec<u8> {
    flat(CLIENT, view)
}

/// `jobs/ID/errors`.
pub(super) fn errors(ranges: &[BadRange]) -> Vec<u8> {
    let mut text = Vec::new();
    for BadRange { dest, kind, sector, count, errno } in ranges {
        let why = errno_name(*errno);
        match (dest, kind) {
            (Some(dest), BadKind::Differs) => put(&mut text, format_args!("differs {dest} {sector} {count}\n")),
            (Some(dest), BadKind::Failed) => put(&mut text, format_args!("write {dest} {sector} {count} {why}\n")),
            (None, _) => put(&mut text, format_args!("read {sector} {count} {why}\n")),
        }
    }
    text
}

/// The kinds of lines of `errors`.
static ERROR_LINES: &[KeyDoc] = &[
    KeyDoc { name: "read SECTOR COUNT ERRNO", doc: "sectors of the source that could not be read, and why" },
    KeyDoc {
        name: "write DEST SECTOR COUNT ERRNO",
        doc: "sectors of destination DEST that could not be written, and why",
    },
    KeyDoc { name: "differs DEST SECTOR COUNT", doc: "sectors of destination DEST that read back differently" },
];

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

/// The parts of a line of `events`.
static EVENT_PARTS: &[KeyDoc] = &[
    KeyDoc { name: "TIME_USEC", doc: "when, in microseconds since the epoch" },
    KeyDoc { name: "JOB", doc: "the job's number" },
    KeyDoc { name: "OLD", doc: "the state that it left; `-` where it is new, or kcopyfs has started again" },
    KeyDoc { name: "NEW", doc: "the state that it has now" },
    KeyDoc { name: "name=NAME", doc: "its name, where it has one" },
    KeyDoc { name: "REASON", doc: "why, where there is more to say" },
];

const fn key<T>(name: &'static str, doc: &'static str, value: fn(&T, &mut Vec<u8>)) -> Key<T> {
    Key { name, doc, value }
}

fn put(text: &mut Vec<u8>, value: impl Display) {
    // Memory takes all that is written to it.
    _ = write!(text, "{value}");
}

/// A value for people or of their making; `-` where there is none.
fn put_text(text: &mut Vec<u8>, value: Option<&str>) {
    let value = value.map(one_line).filter(|value| !value.is_empty());
    put(text, value.as_deref().unwrap_or("-"));
}

/// Microseconds since the epoch; `-` where there is no such moment.
fn put_time(text: &mut Vec<u8>, time: Option<SystemTime>) {
    put_text(text, time.map(|time| micros(time).to_string()).as_deref());
}

static STATUS: &[Key<View>] = &[
    key("state", "where it is in its life, see Job states", |view, text| put(text, view.state.as_str())),
    key("read_err", "1 once a read has failed for good, else 0", |view, text| put(text, u8::from(view.read_err))),
    key("write_err", "destinations that have failed: bit i is destination i", |view, text| {
        put(text, format_args!("{:#x}", view.write_err));
    }),
    key("total", "bytes to copy", |view, text| put(text, view.total)),
    key("copied", "bytes that every destination that takes part has taken", |view, text| put(text, view.copied)),
    key("durable", "bytes that a power cut now would leave", |view, text| put(text, view.durable)),
    key("percent", "of total that is copied; 100.00 only when all is", |view, text| put(text, percent(view))),
    key("speed", "bytes per second over the last 5 s; at the end, over the last 5 s of copying", |view, text| {
        put(text, view.speed);
    }),
    key("eta_usec", "microseconds to the end, or `none` where they cannot be told", |view, text| match view.eta {
        Some(eta) => put(text, eta.as_micros()),
        None => put(text, "none"),
    }),
    key("elapsed_usec", "microseconds that it has run, pauses not counted; goes on over restarts", |view, text| {
        put(text, view.elapsed.as_micros());
    }),
    key("stalled_usec", "microseconds since a device last answered, while one should", |view, text| {
        put(text, view.stalled.as_micros());
    }),
    key("bad_bytes", "bytes of the source that could not be read", |view, text| put(text, view.bad_bytes)),
    key("client", "the client whose pages it uses", |view, text| put_text(text, Some(&view.client))),
    key("name", "its name= in the spec", |view, text| put_text(text, view.name.as_deref())),
    key("digest", "of the source, in order, as sha256:HEX, when it is known", |view, text| {
        put_text(text, view.digest.as_deref());
    }),
    key("error", "why it failed, is held, or waits, and what to do about it", |view, text| {
        put_text(text, view.error.as_deref());
    }),
    key("phase", "what a live job does: copy, retry, scrape, zero, flush or verify", |view, text| {
        put_text(text, view.course.phase);
    }),
    key("verified", "bytes compared so far", |view, text| put(text, view.course.verified)),
    key("read_errors", "reads that have failed so far", |view, text| put(text, view.course.read_errors)),
    key(
        "suspect_bytes",
        "bytes of pieces that have failed and are still to be looked at, block by block",
        |view, text| {
            put(text, view.course.suspect_bytes);
        },
    ),
    key("same", "bytes that were equal already and were not written", |view, text| put(text, view.course.same)),
    key("started", "when it first ran, in microseconds since the epoch", |view, text| {
        put_time(text, view.course.started);
    }),
    key("ended", "when it ended, in microseconds since the epoch", |view, text| put_time(text, view.course.ended)),
    key("limited_by", "what it waits for most: source, dest K, pages, speed_max or throttle", |view, text| {
        put_text(text, view.limited_by.map(|limit| limit.to_string()).as_deref());
    }),
];

/// The path comes last, so that blanks in it hurt nobody.
static DEST: &[Key<DestView>] = &[
    key(
        "state",
        "active, stalled or behind, at the end done, failed, mismatch (it reads back differently) or dropped",
        |dest, text| {
            put(text, dest.state.as_str());
        },
    ),
    key("copied", "bytes that it has taken", |dest, text| put(text, dest.copied)),
    key("durable", "bytes of it that a power cut now would leave", |dest, text| put(text, dest.durable)),
    key("errors", "writes to it that failed, and blocks that read back differently", |dest, text| {
        put(text, dest.errors);
    }),
    key("errno", "the first error", |dest, text| match dest.first_error {
        Some((errno, _)) => put(text, errno_name(errno)),
        None => put(text, "-"),
    }),
    key("sector", "the sector of the device at which that happened", |dest, text| match dest.first_error {
        Some((_, sector)) => put(text, sector),
        None => put(text, "-"),
    }),
    key("path", "as the spec names it; backslashes and control bytes as \\OOO, in octal", |dest, text| {
        text.extend(escape(dest.path.as_encoded_bytes()));
    }),
];

static ENGINE: &[Key<EngineView>] =
    &[
        key("backend", "uring or threads", |view, text| put(text, view.backend)),
        key("fallback", "why it is threads although io=auto was said", |view, text| {
            put_text(text, view.fallback.as_deref());
        }),
        key("direct_io_devices", "open devices that are read and written past the page cache", |view, text| {
            put(text, view.direct);
        }),
        key("buffered_devices", "open devices that do not allow that", |view, text| put(text, view.buffered)),
        key("page_size", "bytes of a page", |view, text| put(text, view.page_size)),
        key("pages", "pages in the pool", |view, text| put(text, view.pages)),
        key("pages_free", "pages that nobody uses now", |view, text| put(text, view.pages_free)),
        key("pages_waiting", "sub-jobs that wait for pages", |view, text| put(text, view.pages_waiting)),
        key("subjobs_in_flight", "pieces that are being copied now", |view, text| put(text, view.subjobs_in_flight)),
        key("subjob_bytes", "bytes of a piece", |view, text| put(text, view.subjob_bytes)),
        key("subjobs_max", "pieces of a job at once, or auto: each device has a window of its own", |view, text| {
            match view.subjobs_max {
                Some(most) => put(text, most),
                None => put(text, "auto"),
            }
        }),
        key("fixed_buffers", "1: the pool is registered with the ring", |view, text| {
            put(text, u8::from(view.fixed_buffers));
        }),
        key("huge_pages", "1: the pool lies in huge pages", |view, text| put(text, u8::from(view.huge_pages))),
        key("locked", "1: the pool cannot be swapped out", |view, text| put(text, u8::from(view.locked))),
        key("jobs_live", "jobs that have not ended", |view, text| put(text, view.jobs_live)),
        key("jobs_ended", "ended jobs that are kept", |view, text| put(text, view.jobs_ended)),
    ];

static PACE: &[Key<PaceFigures>] = &[
    key("direction", "read or write", |pace, text| put(text, pace.direction.as_str())),
    key("window", "bytes that it gets at once: as few as it is fastest with", |pace, text| put(text, pace.window)),
    key("in_flight", "bytes that it has now", |pace, text| put(text, pace.in_flight)),
    key("rate", "bytes per second, measured while it was busy; 0 until then", |pace, text| put(text, pace.rate)),
    key("latency_usec", "microseconds that a request takes, as measured", |pace, text| {
        put(text, pace.latency.as_micros());
    }),
    key("path", "the device; escaped as in dests", |pace, text| {
        text.extend(escape(pace.path.as_os_str().as_encoded_bytes()));
    }),
];

static CLIENT: &[Key<ClientView>] = &[
    key("pages", "pages of 4 KiB set aside for it", |view, text| put(text, view.pages)),
    key("pages_used", "pages that its jobs use now", |view, text| put(text, view.pages_used)),
    key("pages_waiting", "sub-jobs of it that wait for pages", |view, text| put(text, view.pages_waiting)),
    key("subjobs_in_flight", "pieces of it that are being copied now", |view, text| put(text, view.subjobs_in_flight)),
    key("jobs_live", "jobs of it that have not ended", |view, text| put(text, view.jobs_live)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_documented_in_one_line_and_stands_once_in_its_text() {
        for text in texts_with_keys() {
            let names: Vec<&str> = text.entries.iter().map(|entry| entry.name).collect();
            assert!(!names.is_empty(), "{}", text.path);
            for KeyDoc { name, doc } in &text.entries {
                assert!(!doc.is_empty() && !doc.contains('\n') && !doc.ends_with('.'), "{}: {name}", text.path);
            }
            let mut once = names.clone();
            once.sort_unstable();
            once.dedup();
            assert_eq!(once.len(), names.len(), "{}: {names:?}", text.path);
        }
    }

    #[test]
    fn every_text_is_a_file_of_the_tree() {
        for text in texts_with_keys() {
            assert!(
                super::super::table::nodes().iter().any(|node| node.path == text.path && !node.doc.is_empty()),
                "{}",
                text.path
            );
        }
    }
}
