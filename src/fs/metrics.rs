//! `metrics` and `metrics.prom`: the figures as `OpenMetrics` 1.0 text, for Prometheus and its like, and in the older Prometheus text
//! format, for `node_exporter`.
//!
//! Pure. A family is a HELP line, a TYPE line and its samples. `OpenMetrics` names a counter's family without `_total`, has a UNIT line,
//! and ends with `# EOF`; the older format does none of this.
//!
//! # Invariants
//! A family's samples stand together. A counter's end in `_total`. A unit is the end of its family's name.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::board::{Board, Row};
use crate::jobs::{DestState, DestView, Totals};
use crate::kcopyd::PaceFigures;

/// Before every name.
const PREFIX: &str = "kcopyfs_";

/// Bytes of the text that are mostly enough: without jobs, and of a job to one destination.
const TEXT: usize = 16 << 10;
const JOB_TEXT: usize = 768;

/// How the figures are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    /// Version 0.0.4.
    Prometheus,
}

/// The whole file.
pub(super) fn render(board: &Board, format: Format) -> String {
    let mut out = Exposition { format, text: String::with_capacity(TEXT + board.live.len() * JOB_TEXT) };
    daemon(&mut out, board);
    engine(&mut out, board);
    clients(&mut out, board);
    jobs(&mut out, &board.live);
    dests(&mut out, &board.live);
    if format == Format::OpenMetrics {
        out.text.push_str("# EOF\n");
    }
    out.text
}

/// A text in the making.
struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    fn gauge(&mut self, name: &str, unit: &str, help: &str) -> Family<'_> {
        self.family(name, unit, "gauge", "", help)
    }

    fn counter(&mut self, name: &str, unit: &str, help: &str) -> Family<'_> {
        self.family(name, unit, "counter", "_total", help)
    }

    fn family(&mut self, name: &str, unit: &str, kind: &str, suffix: &'static str, help: &str) -> Family<'_> {
        let name = if unit.is_empty() { format!("{PREFIX}{name}") } else { format!("{PREFIX}{name}_{unit}") };
        let sampled = format!("{name}{suffix}");
        let (family, unit) = match self.format {
            Format::OpenMetrics => (&name, unit),
            Format::Prometheus => (&sampled, ""),
        };
        _ = write!(self.text, "# HELP {family} {help}\n# TYPE {family} {kind}\n");
        if !unit.is_empty() {
            _ = writeln!(self.text, "# UNIT {family} {unit}");
        }
        Family { out: &mut self.text, name: sampled }
    }
}

/// A family whose samples are being written.
struct Family<'a> {
    out: &'a mut String,
    name: String,
}

impl Family<'_> {
    fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) -> &mut Self {
        self.line(&braces(labels), value)
    }

    /// The same with labels that are written already.
    fn line(&mut self, labels: &str, value: impl Display) -> &mut Self {
        self.out.push_str(&self.name);
        self.out.push_str(labels);
        _ = writeln!(self.out, " {value}");
        self
    }
}

/// Labels as they are written.
fn braces(labels: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (index, (label, text)) in labels.iter().enumerate() {
        out.push(if index == 0 { '{' } else { ',' });
        out.push_str(label);
        out.push_str("=\"");
        escape(&mut out, text);
        out.push('"');
    }
    out.push_str(if labels.is_empty() { "" } else { "}" });
    out
}

/// A label's value: backslash, quote and newline are escaped, bytes that are no UTF-8 were replaced before.
fn escape(out: &mut String, mut text: &str) {
    while let Some(at) = text.find(['\\', '"', '\n']) {
        let (plain, rest) = text.split_at(at);
        out.push_str(plain);
        out.push('\\');
        out.push_str(if rest.starts_with('\n') { "n" } else { &rest[..1] });
        text = &rest[1..];
    }
    out.push_str(text);
}

fn seconds(time: Duration) -> String {
    format!("{}.{:06}", time.as_secs(), time.subsec_micros())
}

fn daemon(out: &mut Exposition, board: &Board) {
    let totals = &board.totals;
    let build = [("version", env!("CARGO_PKG_VERSION")), ("backend", board.engine.backend)];
    out.gauge("build_info", "", "Version and backend of the daemon.").sample(&build, 1);
    out.counter("jobs_made", "", "Jobs made since the daemon began.").sample(&[], totals.jobs_made);
    let mut ended = out.counter("jobs_ended", "", "Jobs ended since the daemon began, by how.");
    for (state, jobs) in Totals::ENDS.into_iter().zip(totals.ended) {
        ended.sample(&[("state", state.as_str())], jobs);
    }
    let help = "Source bytes copied to every live destination since the daemon began.";
    out.counter("copied", "bytes", help).sample(&[], totals.copied);
    let help = "Bytes written since the daemon began, summed over destinations.";
    out.counter("written", "bytes", help).sample(&[], totals.written);
    out.counter("read_errors", "", "Pieces that could not be read since the daemon began.")
        .sample(&[], totals.read_errors);
    let help = "Pieces that could not be written since the daemon began, summed over destinations.";
    out.counter("write_errors", "", help).sample(&[], totals.write_errors);
    let mut states = out.gauge("jobs", "", "Jobs held, by state.");
    for (state, jobs) in board.states() {
        states.sample(&[("state", state.as_str())], jobs);
    }
}

fn engine(out: &mut Exposition, board: &Board) {
    let engine = &board.engine;
    for (name, unit, help, value) in [
        ("page_size", "bytes", "Bytes in a page.", engine.page_size),
        ("pages", "", "Pages in the pool.", engine.pages),
        ("pages_free", "", "Pages that no sub-job holds.", engine.pages_free),
        ("subjobs_waiting", "", "Sub-jobs that wait for pages.", engine.pages_waiting),
        ("subjobs_in_flight", "", "Sub-jobs that hold pages.", engine.subjobs_in_flight),
        ("subjob_size", "bytes", "Bytes in a full sub-job.", engine.subjob_bytes),
        ("direct_io_devices", "", "Open devices with direct I/O.", engine.direct),
        ("buffered_devices", "", "Open devices without direct I/O.", engine.buffered),
    ] {
        out.gauge(name, unit, help).sample(&[], value);
    }
    let throttle = format!("{}.{:02}", board.throttle / 100, board.throttle % 100);
    out.gauge("throttle", "ratio", "Share of time in which the engine does I/O.").sample(&[], throttle);
    let help = "Limit of all jobs together.";
    out.gauge("speed_max", "bytes_per_second", help).sample(&[], rate(board.speed_max));
    for (name, unit, help, value) in PACE_FAMILIES {
        let mut family = out.gauge(name, unit, help);
        for pace in &engine.paces {
            let device = pace.path.to_string_lossy();
            family.sample(&[("device", &device), ("direction", pace.direction.as_str())], value(pace));
        }
    }
}

/// A family of the devices in use: name, unit, help, and the value.
type PaceFamily = (&'static str, &'static str, &'static str, fn(&PaceFigures) -> String);

const PACE_FAMILIES: [PaceFamily; 4] = [
    ("device_window", "bytes", "Bytes that a device is given at once.", |pace| pace.window.to_string()),
    ("device_in_flight", "bytes", "Bytes that a device has now.", |pace| pace.in_flight.to_string()),
    ("device_rate", "bytes_per_second", "What a device did when it was kept busy.", |pace| pace.rate.to_string()),
    ("device_latency", "seconds", "What one transfer takes.", |pace| seconds(pace.latency)),
];

/// A limit, where there is one.
fn rate(limit: Option<u64>) -> String {
    limit.map_or_else(|| "+Inf".to_owned(), |limit| limit.to_string())
}

fn clients(out: &mut Exposition, board: &Board) {
    let mut pages = out.gauge("client_pages", "", "Pages set aside for a client.");
    for (name, client) in &board.clients {
        pages.sample(&[("client", name)], client.pages);
    }
    let mut used = out.gauge("client_pages_used", "", "Pages that a client's sub-jobs hold.");
    for (name, client) in &board.clients {
        used.sample(&[("client", name)], client.pages_used);
    }
}

/// A family of the live jobs: name, unit, help, and the value where a job has it.
type JobFamily = (&'static str, &'static str, &'static str, fn(&Row) -> Option<String>);

const JOB_FAMILIES: [JobFamily; 9] = [
    ("job_size", "bytes", "Bytes to copy.", |row| Some(row.view.total.to_string())),
    ("job_copied", "bytes", "Bytes that every live destination has taken.", |row| Some(row.view.copied.to_string())),
    ("job_durable", "bytes", "Bytes that survive a power cut now.", |row| Some(row.view.durable.to_string())),
    ("job_bad", "bytes", "Source bytes that could not be read.", |row| Some(row.view.bad_bytes.to_string())),
    ("job_speed", "bytes_per_second", "Speed over the last 5 s.", |row| Some(row.view.speed.to_string())),
    ("job_speed_max", "bytes_per_second", "The job's own limit.", |row| Some(rate(row.speed_max))),
    ("job_elapsed", "seconds", "Running time, pauses not counted.", |row| Some(seconds(row.view.elapsed))),
    ("job_stalled", "seconds", "Since the last completed I/O while some is in flight.", |row| {
        Some(seconds(row.view.stalled))
    }),
    ("job_eta", "seconds", "Time left, where an honest figure exists.", |row| row.view.eta.map(seconds)),
];

fn jobs(out: &mut Exposition, live: &[Row]) {
    let labels = live.iter().map(|row| braces(&[("job", &row.view.id.to_string()), ("name", label(row))]));
    let rows: Vec<_> = live.iter().zip(labels).collect();
    for (name, unit, help, value) in JOB_FAMILIES {
        let mut family = out.gauge(name, unit, help);
        for (row, labels) in &rows {
            if let Some(value) = value(row) {
                family.line(labels, value);
            }
        }
    }
}

fn label(row: &Row) -> &str {
    row.view.name.as_deref().unwrap_or("")
}

/// A family of the live jobs' destinations.
type DestFamily = (&'static str, &'static str, &'static str, fn(&DestView) -> u64);

const DEST_FAMILIES: [DestFamily; 4] = [
    ("dest_copied", "bytes", "Bytes written to a destination.", |dest| dest.copied),
    ("dest_durable", "bytes", "Bytes of it that survive a power cut now.", |dest| dest.durable),
    ("dest_errors", "", "Failed pieces of a destination.", |dest| dest.errors),
    ("dest_failed", "", "1 once a destination was given up or reads back differently.", |dest| {
        u64::from(matches!(dest.state, DestState::Failed | DestState::Mismatch))
    }),
];

fn dests(out: &mut Exposition, live: &[Row]) {
    let mut rows = Vec::with_capacity(live.len());
    for row in live {
        let job = row.view.id.to_string();
        for (index, dest) in row.view.dests.iter().enumerate() {
            let (index, path) = (index.to_string(), dest.path.to_string_lossy());
            rows.push((dest, braces(&[("job", &job), ("name", label(row)), ("dest", &index), ("path", &path)])));
        }
    }
    for (name, unit, help, value) in DEST_FAMILIES {
        let mut family = out.gauge(name, unit, help);
        for (dest, labels) in &rows {
            family.line(labels, value(dest));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::fs::board::samples;

    #[test]
    fn families_are_whole_and_named_as_open_metrics_has_it() {
        let text = render(&samples::board(), Format::OpenMetrics);
        assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1);
        let (mut family, mut suffix, mut seen) = (String::new(), "", BTreeSet::new());
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap().to_owned();
                assert!(seen.insert(family.clone()), "{family} comes twice");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert_eq!(name, family);
                suffix = if kind == "counter" { "_total" } else { "" };
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                let (name, unit) = rest.split_once(' ').unwrap();
                assert!(name == family && name.ends_with(&format!("_{unit}")), "{line}");
            } else {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(name, format!("{family}{suffix}"));
                let value = line.rsplit(' ').next().unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
    }

    #[test]
    fn figures_stand_where_they_belong() {
        let text = render(&samples::board(), Format::OpenMetrics);
        for line in [
            "kcopyfs_jobs_made_total 6",
            "kcopyfs_jobs_ended_total{state=\"degraded\"} 1",
            "kcopyfs_jobs{state=\"queued\"} 1",
            "kcopyfs_throttle_ratio 0.50",
            "kcopyfs_speed_max_bytes_per_second 104857600",
            "kcopyfs_job_eta_seconds{job=\"7\",name=\"nightly\"} 32.126000",
            "kcopyfs_job_speed_max_bytes_per_second{job=\"3\",name=\"\"} +Inf",
            "kcopyfs_dest_errors{job=\"7\",name=\"nightly\",dest=\"1\",path=\"/dev/sdc\"} 2",
            "kcopyfs_dest_copied_bytes{job=\"3\",name=\"\",dest=\"0\",path=\"/tmp/a\\nb\"} 45281234944",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_older_format_has_the_same_samples() {
        let [new, old] = [Format::OpenMetrics, Format::Prometheus].map(|format| render(&samples::board(), format));
        let samples =
            |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(samples(&new), samples(&old));
        assert!(
            old.contains("# TYPE kcopyfs_jobs_made_total counter\n")
                && !old.contains("# UNIT")
                && !old.contains("# EOF")
        );
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(braces(&[("name", "a\\b\"c\nd"), ("x", "")]), r#"{name="a\\b\"c\nd",x=""}"#);
    }
}
