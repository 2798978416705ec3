//! `jobs/ID/report.json`: what the page says, as data. Pure. `doc/report.schema.json` is its schema.
//!
//! Keys are only ever added. Sizes are bytes, times microseconds since the epoch; a path or text that is not plain has octal
//! escapes as in /proc/mounts.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::device::Device;
use super::fit::exact;
use super::report::{Report, kernel};
use crate::error::errno_name;

use crate::jobs::{BadKind, Cell, Cells};

/// The file.
pub(in crate::fs) fn render(report: &Report) -> String {
    let text = serde_json::to_string_pretty(&value(report)).expect("keys are texts");
    text + "\n"
}

fn value(report: &Report) -> Value {
    let (view, course) = (&report.view, &report.view.course);
    let from = report.spec.from.as_ref();
    let source = from.map(|from| region(&from.path, from.sector.get(), report.source()));
    let dests: Vec<Value> = (0..view.dests.len()).map(|index| dest(report, index)).collect();
    let policy: Map<String, Value> =
        report.policy().into_iter().map(|(key, value)| (key.to_owned(), Value::String(value))).collect();
    let speeds: Vec<Value> = report
        .rates
        .iter()
        .map(|rate| json!({"from": rate.from, "until": rate.until, "speed": rate.speed.round()}))
        .collect();
    let bad: Vec<Value> = report
        .bad
        .iter()
        .map(|range| {
            json!({
                "dest": range.dest,
                "kind": if range.kind == BadKind::Differs { "differs" } else { "failed" },
                "sector": range.sector.get(),
                "count": range.count.get(),
                "errno": errno_name(range.errno),
            })
        })
        .collect();
    json!({
        "version": 1,
        "kcopyfs": env!("CARGO_PKG_VERSION"),
        "kernel": kernel(),
        "backend": report.backend,
        "made": micros(Some(report.made)),
        "job": view.id,
        "name": view.name.as_ref().map(exact),
        "state": view.state.as_str(),
        "verdict": report.verdict(),
        "error": view.error.as_ref().map(exact),
        "spec": exact(OsStr::from_bytes(report.spec_line.trim_ascii_end())),
        "policy": policy,
        "source": source,
        "dests": dests,
        "total": view.total,
        "copied": view.copied,
        "durable": view.durable,
        "same": course.same,
        "verified": course.verified,
        "bad_bytes": view.bad_bytes,
        "suspect_bytes": course.suspect_bytes,
        "read_errors": course.read_errors,
        "read_err": u8::from(view.read_err),
        "write_err": format!("{:#x}", view.write_err),
        "digest": view.digest,
        "started": micros(course.started),
        "ended": micros(course.ended),
        "elapsed_usec": u64::try_from(view.elapsed.as_micros()).unwrap_or(u64::MAX),
        "speed_average": report.average(),
        "speeds": speeds,
        "bad": bad,
        "bad_count": report.bad_count,
    })
}

fn micros(time: Option<SystemTime>) -> Option<u64> {
    let since = time?.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_micros()).ok()
}

fn region(path: &OsStr, sector: u64, device: Option<&Device>) -> Value {
    let device = device.cloned().unwrap_or_default();
    json!({
        "path": exact(path),
        "sector": sector,
        "model": device.model.as_ref().map(exact),
        "serial": device.serial.as_ref().map(exact),
        "wwid": device.wwid.as_ref().map(exact),
        "size": device.size,
    })
}

fn dest(report: &Report, index: usize) -> Value {
    let dest = &report.view.dests[index];
    let sector = report.spec.to.get(index).map_or(0, |to| to.sector.get());
    let mut value = region(&dest.path, sector, report.dest(index));
    let more = json!({
        "state": dest.state.as_str(),
        "copied": dest.copied,
        "durable": dest.durable,
        "errors": dest.errors,
        "errno": dest.first_error.map(|(errno, _)| errno_name(errno)),
        "error_sector": dest.first_error.map(|(_, sector)| sector.get()),
        "map": report.maps.get(index).map(map),
    });
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

/// The letters of `picture`, each for so many bytes.
fn map(cells: &Cells) -> Value {
    let letters: String = cells.cells.iter().map(|cell: &Cell| cell.letter()).collect();
    json!({"cell": cells.size, "cells": letters})
}
