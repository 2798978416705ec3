//! `jobs/ID/report.html`: a page about one job, to be read, printed and kept with the disk. Pure.
//!
//! One file: no script, no link, nothing that is fetched; a policy in its head has browsers hold to that. On paper it is A4.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::device::Device;
use super::fit::{shorten, shown};
use super::report::{Report, SPEC_MAX, kernel};
use super::svg;
use crate::error::errno_name;

use crate::fs::text::utc;
use crate::fs::units::{amount, count, span};
use crate::jobs::{BadKind, BadRange, Cell, Cells, State};
use crate::spec::Action;

/// Columns of a path; a longer one is shortened in its middle.
const PATH_MAX: usize = 200;
/// Columns of a path above a map.
const CAPTION_MAX: usize = 80;
/// Cells of a line of a map.
const COLUMNS: usize = 128;
/// Units of the curve, each way.
const CURVE: (u32, u32) = (1000, 160);

const STYLE: &str = "
:root{color-scheme:light}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem;max-width:60rem;background:#fff;color:#1b1b1b;font:15px/1.45 system-ui,'DejaVu Sans',sans-serif}
h1{margin:0;font-size:1.5rem}
h2{margin:1.6rem 0 .5rem;padding-bottom:.2rem;border-bottom:1px solid #bbb;font-size:1.1rem}
p{margin:.4rem 0}
.verdict{margin:1rem 0;padding:.7rem 1rem;border-left:.6rem solid;background:#f4f4f4}
.verdict b{font-size:1.25rem;text-transform:uppercase;letter-spacing:.04em}
.good{border-color:#0072b2}.bad{border-color:#d55e00}.open{border-color:#777}
table{width:100%;border-collapse:collapse;font-size:.93rem}
th,td{padding:.25rem .6rem .25rem 0;text-align:left;vertical-align:top;border-bottom:1px solid #e3e3e3;overflow-wrap:anywhere}
th{font-weight:600;color:#444}
table.pairs th{width:11rem}
td.n,th.n{text-align:right;white-space:nowrap;overflow-wrap:normal;font-variant-numeric:tabular-nums}
code,pre,.mono{font-family:ui-monospace,'DejaVu Sans Mono',monospace;font-size:.88em;overflow-wrap:anywhere}
pre{margin:0;padding:.6rem;background:#f4f4f4;white-space:pre-wrap}
svg{display:block;width:100%;height:auto}
figure{margin:.3rem 0 .9rem}
figcaption{margin:.2rem 0;color:#555;font-size:.88rem}
.curve,.map{border:1px solid #999}
.curve{height:9rem}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;margin:.4rem 0;padding:0;list-style:none;font-size:.88rem}
.legend svg{display:inline-block;width:1.6em;height:1em;vertical-align:-.1em;border:1px solid #999}
.bad-text{color:#a33c00;font-weight:600}
small,.small{color:#555;font-size:.85rem}
footer{margin-top:2rem;padding-top:.4rem;border-top:1px solid #bbb;color:#555;font-size:.85rem}
@page{size:A4;margin:14mm}
@media print{body{max-width:none;padding:0;font-size:10.5pt}h2{break-after:avoid}tr,figure,.verdict{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
";

/// The page.
pub(in crate::fs) fn render(report: &Report) -> String {
    page(report).into_string()
}

fn page(report: &Report) -> Markup {
    let view = &report.view;
    let name = view.name.as_ref().map(shown);
    let title = match &name {
        Some(name) => format!("kcopyfs job {}: {name}", view.id),
        None => format!("kcopyfs job {}", view.id),
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                svg style="position:absolute;width:0;height:0" aria-hidden="true" { (svg::patterns()) }
                h1 { (kind(report)) " " (view.id) @if let Some(name) = &name { ": " bdi { (name) } } }
                (verdict(report))
                (devices(report))
                (figures(report))
                (policy(report))
                (speed(report))
                (maps(report))
                (errors(report))
                (spec(report))
                footer {
                    "kcopyfs " (env!("CARGO_PKG_VERSION")) ", " (report.backend) ", " (kernel())
                    ". This page was made " (date(report.made)) "."
                }
            }
        }
    }
}

/// `Copy job`: by the first word of its spec.
fn kind(report: &Report) -> String {
    let word = shown(OsStr::from_bytes(report.spec_line.split(|byte| *byte == b' ').next().unwrap_or_default()));
    let first = word.chars().next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(word.chars().skip(1)).chain(" job".chars()).collect()
}

fn verdict(report: &Report) -> Markup {
    let view = &report.view;
    let (class, sign) = match view.state {
        State::Done => ("verdict good", "\u{2713}"),
        State::Degraded | State::Failed | State::Held => ("verdict bad", "\u{2717}"),
        State::Cancelled => ("verdict bad", "\u{2013}"),
        _ => ("verdict open", "\u{2026}"),
    };
    html! {
        div class=(class) {
            b { (sign) " " (view.state.as_str()) }
            p { (report.verdict()) }
            @if let Some(why) = &view.error { p { (shorten(&shown(why), 1000)) } }
        }
    }
}

/// The source and each destination, with what is known of the device.
fn devices(report: &Report) -> Markup {
    let view = &report.view;
    let path = |path: &OsString| shorten(&shown(path), PATH_MAX);
    html! {
        h2 { "Source and " (if view.dests.len() == 1 { "destination" } else { "destinations" }) }
        table {
            thead { tr { th { "" } th { "Path and device" } th { "State" } th.n { "Copied" } th.n { "Durable" } } }
            tbody {
                tr {
                    td { "source" }
                    td {
                        @if let Some(source) = &view.source { code { bdi { (path(source)) } } } @else { "zeros" }
                        (start(report.spec.from.as_ref().map_or(0, |from| from.sector.get())))
                        (device(report.source()))
                    }
                    td {
                        @if view.bad_bytes > 0 {
                            span.bad-text { (amount(view.bad_bytes)) " unreadable" }
                        } @else if view.course.read_errors > 0 {
                            (count(view.course.read_errors, "read error"))
                        }
                    }
                    td.n { "" } td.n { "" }
                }
                @for (index, dest) in view.dests.iter().enumerate() {
                    tr {
                        td { (index) }
                        td {
                            code { bdi { (path(&dest.path)) } }
                            (start(report.spec.to.get(index).map_or(0, |to| to.sector.get())))
                            (device(report.dest(index)))
                        }
                        td {
                            @let is_bad = dest.errors > 0 || matches!(dest.state.as_str(), "failed" | "mismatch" | "dropped");
                            span.bad-text[is_bad] { (dest.state.as_str()) }
                            @if let Some((errno, sector)) = dest.first_error {
                                br; small { (errno_name(errno)) " at sector " (sector) ", " (count(dest.errors, "error")) }
                            }
                        }
                        td.n { (amount(dest.copied)) }
                        td.n { (amount(dest.durable)) }
                    }
                }
            }
        }
    }
}

fn start(sector: u64) -> Markup {
    html! { @if sector > 0 { " " small { "from sector " (sector) } } }
}

fn device(device: Option<&Device>) -> Markup {
    let Some(device) = device else { return html! {} };
    let text = |text: &Option<String>| text.as_ref().map(|text| shorten(&shown(text), PATH_MAX));
    let known: Vec<(&str, Option<String>)> = vec![
        ("model", text(&device.model)),
        ("serial", text(&device.serial)),
        ("wwid", text(&device.wwid)),
        ("size", device.size.map(|size| format!("{} ({size} bytes)", amount(size)))),
    ];
    let known: Vec<String> = known.into_iter().filter_map(|(key, value)| Some(format!("{key} {}", value?))).collect();
    html! { @if !known.is_empty() { br; small { bdi { (known.join(", ")) } } } }
}

fn figures(report: &Report) -> Markup {
    let (view, course) = (&report.view, &report.view.course);
    let time = |time: Option<SystemTime>| time.map_or_else(|| "-".to_owned(), date);
    let exact = |bytes: u64| format!("{} ({bytes} bytes)", amount(bytes));
    let row = |key: &str, value: String| html! { tr { th { (key) } td { (value) } } };
    html! {
        h2 { "Figures" }
        table.pairs { tbody {
            (row("To copy", exact(view.total)))
            (row("Copied to all", exact(view.copied)))
            (row("Durable on all", exact(view.durable)))
            @if course.same > 0 { (row("Already equal", exact(course.same))) }
            (row("Started", time(course.started)))
            (row("Ended", time(course.ended)))
            (row("Running time", format!("{}, pauses not counted", span(view.elapsed))))
            (row("Average speed", format!("{}/s of running time", amount(report.average()))))
            @if view.bad_bytes > 0 || course.read_errors > 0 {
                (row("Unreadable", format!("{}; {}", exact(view.bad_bytes), count(course.read_errors, "read error"))))
            }
            @if course.suspect_bytes > 0 { (row("To be looked at again", exact(course.suspect_bytes))) }
            (row("Verification", verification(report)))
            tr { th { "Digest" } td { code { (view.digest.as_deref().unwrap_or("not asked for, or not complete")) } } }
        } }
    }
}

/// `2026-01-31 23:59:59 UTC`.
fn date(time: SystemTime) -> String {
    utc(time).replace('T', " ").replace('Z', " UTC")
}

fn verification(report: &Report) -> String {
    let verified = report.view.course.verified;
    if report.is_verified() {
        format!("read back and compared: {}", amount(verified))
    } else if report.verifies() {
        format!("{} of {} compared", amount(verified), amount(report.view.total))
    } else {
        "not asked for".to_owned()
    }
}

fn policy(report: &Report) -> Markup {
    let words: Vec<String> = report.policy().into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
    html! { h2 { "Policy" } p { (words.join("; ")) "." } }
}

fn speed(report: &Report) -> Markup {
    let (width, height) = CURVE;
    html! {
        h2 { "Speed over time" }
        @if report.rates.len() < 2 {
            p.small { "Too short for a curve." }
        } @else {
            @let top = report.rates.iter().map(|rate| rate.speed).fold(0.0, f64::max);
            @let end = report.rates.last().map_or(0.0, |rate| rate.until);
            figure {
                svg.curve viewBox=(format!("-2 -2 {} {}", width + 4, height + 4)) role="img" aria-label="speed over time"
                    preserveAspectRatio="none" { (svg::curve(&report.rates, width, height)) }
                figcaption {
                    "Highest " (amount(whole(top))) "/s, over " (span(Duration::from_secs_f64(end)))
                    " of running time: " (moved(report)) "."
                }
            }
        }
    }
}

/// What the curve counts.
fn moved(report: &Report) -> &'static str {
    match (report.view.copied > 0, report.view.course.verified > 0) {
        (true, true) if report.spec.action != Action::Verify => "what was copied, then what was compared",
        (_, true) => "what was compared",
        _ => "what was copied",
    }
}

// The figure is shown with four digits at most.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(speed: f64) -> u64 {
    speed.max(0.0) as u64
}

fn maps(report: &Report) -> Markup {
    let used = |state: Cell| report.maps.iter().any(|map| map.cells.contains(&state));
    html! {
        h2 { "Map" }
        ul.legend {
            @for state in Cell::ALL {
                @if used(state) {
                    li { svg viewBox="0 0 24 16" { rect width="24" height="16" fill=(svg::fill(state)) {} } " " (state.as_str()) }
                }
            }
        }
        @if let Some(size) = report.maps.first().map(|map| map.size) {
            p.small { "Each cell is " (amount(size)) " and shows the worst in it; they are read line by line." }
        }
        @for (index, (map, dest)) in report.maps.iter().zip(&report.view.dests).enumerate() {
            figure {
                figcaption { (index) ": " bdi { (shorten(&shown(&dest.path), CAPTION_MAX)) } }
                (map_of(map))
            }
        }
    }
}

fn map_of(map: &Cells) -> Markup {
    // A small map is not blown up: its cells stay as high as those of others.
    let lines = map.cells.len().div_ceil(COLUMNS);
    html! {
        @if lines > 0 {
            svg.map viewBox=(format!("0 0 {} {}", COLUMNS * 8, lines * 8)) role="img" { (svg::map(map, COLUMNS)) }
        }
    }
}

fn errors(report: &Report) -> Markup {
    html! {
        h2 { "Errors" }
        @if report.bad.is_empty() {
            p { "None." }
        } @else {
            table {
                thead { tr { th { "Where" } th { "What" } th.n { "Sector" } th.n { "Sectors" } th { "Error" } } }
                tbody { @for range in &report.bad { (error(range)) } }
            }
            @if report.bad_count > report.bad.len() {
                p.small { "And " (count((report.bad_count - report.bad.len()) as u64, "range")) " more, see errors." }
            }
        }
    }
}

fn error(range: &BadRange) -> Markup {
    let what = match (range.dest, range.kind) {
        (None, _) => "could not be read",
        (_, BadKind::Failed) => "could not be written or read back",
        (_, BadKind::Differs) => "differs",
    };
    html! {
        tr {
            td { @if let Some(dest) = range.dest { "destination " (dest) } @else { "source" } }
            td { (what) }
            td.n { (range.sector) }
            td.n { (range.count) }
            td { @if range.kind == BadKind::Failed { (errno_name(range.errno)) } }
        }
    }
}

fn spec(report: &Report) -> Markup {
    let line = report.spec_line.trim_ascii_end();
    let part = &line[..line.len().min(SPEC_MAX)];
    html! {
        h2 { "Spec" }
        pre { bdi { (shown(OsStr::from_bytes(part))) } }
        @if part.len() < line.len() { p.small { "Its first " (part.len()) " of " (line.len()) " bytes." } }
    }
}
