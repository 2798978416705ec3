//! A record as text: `parse(print(x)) == x`. Pure.
//!
//! ```text
//! kcopyfs job 1
//! id 7
//! created 1763612345.000000000
//! progressed 1763612357.500000000
//! state running
//! spec copy from=/dev/sda,0,4096 to=/dev/sdb,0,4096
//! followed 0
//! claimed 1
//! total 2097152
//! common 0+1024
//! durable 524288
//! read_err 0
//! write_err 0x0
//! bad_bytes 4096
//! read_errors 3
//! verified_bytes 0
//! elapsed 12.500000000
//! final_speed 0
//! speeds 250:a3e8a3f0
//! verified 0
//! source.identity wwid:naa.5000c500a1b2c3d4;sectors=4096
//! source.card size=2097152 model=WDC\040WD40 serial=VB122 transport=sata rotational=1
//! source.durable
//! ...
//! dests 1
//! dest.0.identity serial:VB123;sectors=4096
//! dest.0.durable 0+1024 1032+8
//! dest.0.errors 1
//! dest.0.failed 0
//! dest.0.copied 532480
//! dest.0.taken 0+1024 1032+8
//! dest.0.zeroed 1024+8
//! dest.0.first_error 5:1032
//! bad -:1024+8:5 0:2048+1:differs
//! unreadable 1024+8
//! sum 1a2b3c4d
//! ```
//! A line is a key, a blank, and a value. Ranges are `FIRST+COUNT` in sectors. Bytes that are not printable ASCII, and the
//! backslash, are `\xHH`. Keys without a value to say (`error`, `digest`, `first_error`, `zeroed`, `leader`, `dropped`, `doubted`, `same`, `card`, `seed`, a source) are left out.
//! `speeds` is a span in milliseconds and what was moved in each span of the running time, see `figures::speeds`.
//! `card`, `leader`, `dropped`, `doubted`, `same`, `seed`, `claimed`, `read_errors`, `verified_bytes`, `zeroed` and `speeds` came later: older records lack them, and say of a range that is
//! different that its errno is `EBADMSG`. Keys that are not known are passed over: later versions may add some.

use std::collections::HashMap;
use std::fmt::Write;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::record::{Record, Side};
use super::seal::{Flaw, Reading, seal, unseal};
use super::state::State;
use crate::figures::{BadKind, BadRange, Speeds};
use crate::sector::Sector;

/// What a range has instead of an errno that is different.
const DIFFERS: &str = "differs";

/// The word for a record in its header.
const KIND: &str = "job";

/// The file for a record.
pub(super) fn print(record: &Record) -> Vec<u8> {
    let mut out = Lines::default();
    out.line("id", record.id);
    out.line("created", seconds(record.created.duration_since(UNIX_EPOCH).unwrap_or_default()));
    out.line("progressed", seconds(record.progressed.duration_since(UNIX_EPOCH).unwrap_or_default()));
    out.time("started", record.started);
    out.time("ended", record.ended);
    out.line("state", record.state.as_str());
    out.line("spec", escape(&record.spec));
    out.line("followed", u8::from(record.followed));
    if let Some(leader) = record.leader {
        out.line("leader", leader);
    }
    out.line("claimed", u8::from(record.claimed));
    out.line("total", record.total);
    out.line("common", ranges(&record.common));
    out.line("durable", record.durable);
    out.line("read_err", u8::from(record.read_err));
    out.line("write_err", format_args!("{:#x}", record.write_err));
    out.line("bad_bytes", record.bad_bytes);
    out.line("read_errors", record.read_errors);
    out.line("verified_bytes", record.verified_bytes);
    out.some_ranges("same", &record.same);
    if let Some(seed) = record.seed {
        out.line("seed", seed);
    }
    out.line("elapsed", seconds(record.elapsed));
    out.line("final_speed", record.final_speed);
    if let (span @ 1.., samples) = record.speeds.parts() {
        let samples: Vec<String> = samples.iter().map(|sample| format!("{sample:04x}")).collect();
        out.line("speeds", format_args!("{span}:{}", samples.concat()));
    }
    out.line("verified", u8::from(record.verified));
    out.text("digest", record.digest.as_deref());
    out.text("error", record.error.as_deref());
    if let Some(source) = &record.source {
        out.side("source", source);
    }
    out.line("dests", record.dests.len());
    for (index, dest) in record.dests.iter().enumerate() {
        out.side(&format!("dest.{index}"), dest);
    }
    let bad = record.bad.iter().map(|range| {
        let dest = range.dest.map_or_else(|| "-".to_owned(), |index| index.to_string());
        match range.kind {
            BadKind::Failed => format!("{dest}:{}+{}:{}", range.sector, range.count, range.errno),
            BadKind::Differs => format!("{dest}:{}+{}:{DIFFERS}", range.sector, range.count),
        }
    });
    out.line("bad", bad.collect::<Vec<_>>().join(" "));
    out.line("unreadable", ranges(&record.unreadable));
    seal(KIND, &out.0)
}

/// The lines of a file as they grow.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn line(&mut self, key: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "{key} {value}").expect("a String takes all");
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.line(key, escape(value.as_bytes()));
        }
    }

    fn time(&mut self, key: &str, time: Option<SystemTime>) {
        if let Some(time) = time {
            self.line(key, seconds(time.duration_since(UNIX_EPOCH).unwrap_or_default()));
        }
    }

    fn some_ranges(&mut self, key: &str, list: &[(u64, u64)]) {
        if !list.is_empty() {
            self.line(key, ranges(list));
        }
    }

    fn side(&mut self, name: &str, side: &Side) {
        let key = |what: &str| format!("{name}.{what}");
        self.line(&key("identity"), escape(side.identity.as_bytes()));
        if !side.card.is_empty() {
            self.line(&key("card"), escape(side.card.as_bytes()));
        }
        if !side.bytes.is_empty() {
            self.line(&key("bytes"), escape(side.bytes.as_bytes()));
        }
        if !side.overwritten.is_empty() {
            self.line(&key("overwritten"), ranges(&side.overwritten));
        }
        self.line(&key("durable"), ranges(&side.durable));
        self.line(&key("errors"), side.errors);
        self.line(&key("failed"), u8::from(side.failed));
        if side.dropped {
            self.line(&key("dropped"), 1);
        }
        if side.doubted {
            self.line(&key("doubted"), 1);
        }
        self.line(&key("copied"), side.copied);
        self.line(&key("taken"), ranges(&side.taken));
        if !side.zeroed.is_empty() {
            self.line(&key("zeroed"), ranges(&side.zeroed));
        }
        if let Some((errno, sector)) = side.first_error {
            self.line(&key("first_error"), format_args!("{errno}:{sector}"));
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{}.{:09}", time.as_secs(), time.subsec_nanos())
}

fn ranges(list: &[(u64, u64)]) -> String {
    let range = |(start, end): &(u64, u64)| {
        debug_assert!(start <= end, "a range that ends before it begins");
        format!("{start}+{}", end.saturating_sub(*start))
    };
    list.iter().map(range).collect::<Vec<_>>().join(" ")
}

fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' | 0..=0x1f | 0x7f..=0xff => write!(out, "\\x{byte:02x}").expect("a String takes all"),
            _ => out.push(char::from(*byte)),
        }
    }
    out
}

/// The record in a file, or why there is none.
pub(super) fn parse(bytes: &[u8]) -> Reading<Record> {
    let fields = Fields::new(unseal(KIND, bytes)?)?;
    let source = if fields.has("source.identity") { Some(fields.side("source")?) } else { None };
    let dests = (0..fields.number("dests")?).map(|index: usize| fields.side(&format!("dest.{index}")));
    let time = |key| fields.read(key, |text| UNIX_EPOCH.checked_add(parse_seconds(text)?));
    let time_if_any = |key| if fields.has(key) { time(key).map(Some) } else { Ok(None) };
    Ok(Record {
        id: fields.number("id")?,
        created: time("created")?,
        progressed: time("progressed")?,
        started: time_if_any("started")?,
        ended: time_if_any("ended")?,
        spec: fields.read("spec", unescape)?,
        state: fields.read("state", |text| State::ALL.into_iter().find(|state| state.as_str() == text))?,
        error: fields.text("error")?,
        read_err: fields.flag("read_err")?,
        write_err: fields.read("write_err", |text| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok())?,
        followed: fields.flag("followed")?,
        leader: if fields.has("leader") { Some(fields.number("leader")?) } else { None },
        claimed: !fields.has("claimed") || fields.flag("claimed")?,
        total: fields.number("total")?,
        common: fields.list("common", parse_range)?,
        durable: fields.number("durable")?,
        bad_bytes: fields.number("bad_bytes")?,
        read_errors: fields.number_or_zero("read_errors")?,
        verified_bytes: fields.number_or_zero("verified_bytes")?,
        seed: if fields.has("seed") { Some(fields.number("seed")?) } else { None },
        same: fields.list_or_none("same", parse_range)?,
        elapsed: fields.read("elapsed", parse_seconds)?,
        final_speed: fields.number("final_speed")?,
        speeds: if fields.has("speeds") { fields.read("speeds", parse_speeds)? } else { Speeds::default() },
        digest: fields.text("digest")?,
        verified: fields.flag("verified")?,
        source,
        dests: dests.collect::<Result<_, _>>()?,
        bad: fields.list("bad", parse_bad)?,
        unreadable: fields.list("unreadable", parse_range)?,
    })
}

/// The lines of a file by their keys.
struct Fields<'a>(HashMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn new(body: &'a str) -> Reading<Self> {
        let mut fields = HashMap::with_capacity(64);
        for line in body.lines() {
            let (key, value) = line.split_once(' ').ok_or_else(|| Flaw::Damaged(format!("`{line}` has no value")))?;
            if fields.insert(key, value).is_some() {
                return Err(Flaw::Damaged(format!("two lines `{key}`")));
            }
        }
        Ok(Self(fields))
    }

    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// A value that must be there, as `read` understands it.
    fn read<T>(&self, key: &str, read: impl FnOnce(&'a str) -> Option<T>) -> Reading<T> {
        let value = self.0.get(key).ok_or_else(|| Flaw::Damaged(format!("no line `{key}`")))?;
        read(value).ok_or_else(|| Flaw::Damaged(format!("`{key}` cannot be `{value}`")))
    }

    fn number<T: FromStr>(&self, key: &str) -> Reading<T> {
        self.read(key, |text| text.parse().ok())
    }

    /// A number of which older records know nothing.
    fn number_or_zero(&self, key: &str) -> Reading<u64> {
        if self.has(key) { self.number(key) } else { Ok(0) }
    }

    fn flag(&self, key: &str) -> Reading<bool> {
        self.read(key, |text| match text {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        })
    }

    fn list<T>(&self, key: &str, read: impl Fn(&str) -> Option<T>) -> Reading<Vec<T>> {
        self.read(key, |text| text.split_ascii_whitespace().map(read).collect())
    }

    /// A list of which older records know nothing.
    fn list_or_none<T>(&self, key: &str, read: impl Fn(&str) -> Option<T>) -> Reading<Vec<T>> {
        if self.has(key) { self.list(key, read) } else { Ok(Vec::new()) }
    }

    /// Text that may be absent.
    fn text(&self, key: &str) -> Reading<Option<String>> {
        if self.has(key) { self.read(key, unescape_text).map(Some) } else { Ok(None) }
    }

    fn side(&self, name: &str) -> Reading<Side> {
        let key = |what: &str| format!("{name}.{what}");
        let first = key("first_error");
        let first_error = if self.has(&first) { Some(self.read(&first, parse_first_error)?) } else { None };
        Ok(Side {
            identity: self.read(&key("identity"), unescape_text)?,
            card: self.text(&key("card"))?.unwrap_or_default(),
            bytes: self.text(&key("bytes"))?.unwrap_or_default(),
            overwritten: if self.has(&key("overwritten")) {
                self.list(&key("overwritten"), parse_range)?
            } else {
                Vec::new()
            },
            durable: self.list(&key("durable"), parse_range)?,
            errors: self.number(&key("errors"))?,
            first_error,
            failed: self.flag(&key("failed"))?,
            dropped: self.has(&key("dropped")) && self.flag(&key("dropped"))?,
            doubted: self.has(&key("doubted")) && self.flag(&key("doubted"))?,
            copied: self.number(&key("copied"))?,
            taken: self.list(&key("taken"), parse_range)?,
            zeroed: if self.has(&key("zeroed")) { self.list(&key("zeroed"), parse_range)? } else { Vec::new() },
        })
    }
}

fn parse_seconds(text: &str) -> Option<Duration> {
    let (seconds, nanos) = text.split_once('.')?;
    let nanos: u32 = nanos.parse().ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(seconds.parse().ok()?, nanos))
}

fn parse_speeds(text: &str) -> Option<Speeds> {
    let (span, samples) = text.split_once(':')?;
    let sample = |digits: &[u8]| u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let samples: Option<Vec<u16>> = samples.as_bytes().chunks(4).map(sample).collect();
    Speeds::recorded(span.parse().ok()?, samples?)
}

fn parse_range(text: &str) -> Option<(u64, u64)> {
    let (start, count) = text.split_once('+')?;
    let start: u64 = start.parse().ok()?;
    Some((start, start.checked_add(count.parse().ok()?)?))
}

fn parse_first_error(text: &str) -> Option<(i32, Sector)> {
    let (errno, sector) = text.split_once(':')?;
    Some((errno.parse().ok()?, Sector::new(sector.parse().ok()?)?))
}

fn parse_bad(text: &str) -> Option<BadRange> {
    let (dest, rest) = text.split_once(':')?;
    let (range, errno) = rest.split_once(':')?;
    let (start, end) = parse_range(range)?;
    let dest = if dest == "-" { None } else { Some(dest.parse().ok()?) };
    let (kind, errno) = match (dest, errno) {
        (Some(_), DIFFERS) => (BadKind::Differs, libc::EBADMSG),
        (_, errno) => match (dest, errno.parse().ok()?) {
            // An older record.
            (Some(_), libc::EBADMSG) => (BadKind::Differs, libc::EBADMSG),
            (_, errno) => (BadKind::Failed, errno),
        },
    };
    Some(BadRange { dest, kind, sector: Sector::new(start)?, count: Sector::new(end - start)?, errno })
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('\\');
    let mut out = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.strip_prefix('x')?;
        out.push(u8::from_str_radix(digits.get(..2)?, 16).ok()?);
        out.extend_from_slice(&digits.as_bytes()[2..]);
    }
    Some(out)
}

fn unescape_text(text: &str) -> Option<String> {
    String::from_utf8(unescape(text)?).ok()
}
