//! What the rows of the table read and write: from the jobs to a text, and back.
//!
//! A number is read back plain, and may be written with K M G T. Whoever writes gets the reason and the remedy where a
//! text is none of what the file takes; whether the value can be, the jobs say.

use std::ffi::OsString;
use std::time::SystemTime;

use super::board::Board;
use super::eye;
use super::inode::Key;
use super::keys;
use super::metrics::{self, Format};
use super::summary::{self, Limits};
use super::tree::Tree;
use super::walk;
use crate::error::{Error, ErrorKind, Result};
use crate::jobs::{Policy, Verb};
use crate::spec::{MAX_LABEL, number, shown};

/// The word for unlimited speed.
const MAX: &str = "max";

/// What a file's row gives: `None` where the job or client is gone.
type Text = Option<Vec<u8>>;

#[allow(clippy::unnecessary_wraps)] // the signature of every row
pub(super) fn version(_: &Tree, _: Key) -> Text {
    Some(concat!(env!("CARGO_PKG_VERSION"), "\n").into())
}

#[allow(clippy::unnecessary_wraps)] // the signature of every row
pub(super) fn summary(tree: &Tree, _: Key) -> Text {
    let glance = tree.jobs.glance(summary::MOST);
    let limits = Limits { throttle: tree.jobs.throttle(), speed_max: tree.jobs.speed_max() };
    let devices = |id| eye::device::labels(&tree.jobs, id);
    Some(summary::render(&glance, limits, SystemTime::now(), devices).into_bytes())
}

#[allow(clippy::unnecessary_wraps)] // the signature of every row
pub(super) fn metrics(tree: &Tree, _: Key) -> Text {
    Some(metrics::render(&Board::take(&tree.jobs), Format::OpenMetrics).into_bytes())
}

#[allow(clippy::unnecessary_wraps)] // the signature of every row
pub(super) fn metrics_prom(tree: &Tree, _: Key) -> Text {
    Some(metrics::render(&Board::take(&tree.jobs), Format::Prometheus).into_bytes())
}

#[allow(clippy::unnecessary_wraps)] // the signature of every row
pub(super) fn engine(tree: &Tree, _: Key) -> Text {
    Some(keys::engine(&tree.jobs.engine()))
}

#[allow(clippy::unnecessary_wraps)] // the signature of every row
pub(super) fn error_log(tree: &Tree, _: Key) -> Text {
    Some(tree.errors.text())
}

pub(super) fn clear_error_log(tree: &Tree) {
    tree.errors.clear();
}

#[allow(clippy::unnecessary_wraps)] // the signature of every row
pub(super) fn throttle(tree: &Tree, _: Key) -> Text {
    Some(line(tree.jobs.throttle()))
}

pub(super) fn set_throttle(tree: &Tree, _: Key, data: &[u8]) -> Result<()> {
    tree.jobs.set_throttle(parse_number(data, "percent of time, 1 to 100")?)
}

#[allow(clippy::unnecessary_wraps)] // the signature of every row
pub(super) fn active(tree: &Tree, _: Key) -> Text {
    Some(line(tree.jobs.active()))
}

pub(super) fn set_active(tree: &Tree, _: Key, data: &[u8]) -> Result<()> {
    tree.jobs.set_active(parse_number(data, "how many jobs run at once")?)
}

#[allow(clippy::unnecessary_wraps)] // the signature of every row
pub(super) fn speed_max(tree: &Tree, _: Key) -> Text {
    Some(rate_line(tree.jobs.speed_max()))
}

pub(super) fn set_speed_max(tree: &Tree, _: Key, data: &[u8]) -> Result<()> {
    tree.jobs.set_speed_max(parse_rate(data)?)
}

pub(super) fn job_speed_max(tree: &Tree, key: Key) -> Text {
    Some(rate_line(tree.jobs.job_speed_max(key.id)?))
}

pub(super) fn set_job_speed_max(tree: &Tree, key: Key, data: &[u8]) -> Result<()> {
    tree.jobs.set_job_speed_max(key.id, parse_rate(data)?)
}

pub(super) fn create_client(tree: &Tree, name: &[u8]) -> Result<()> {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    if !(1..=MAX_LABEL).contains(&name.len()) || !name.iter().all(is_letter) {
        let what = format!("{}: name a client with 1 to {MAX_LABEL} ASCII letters, digits and . _ -", shown(name));
        return Err(Error::new(ErrorKind::Invalid, what));
    }
    tree.jobs.create_client(&String::from_utf8_lossy(name))
}

pub(super) fn destroy_client(tree: &Tree, key: Key) -> Result<()> {
    let name = client_name(tree, key)?;
    tree.jobs.destroy_client(&name)?;
    tree.clients.forget(key.id);
    Ok(())
}

pub(super) fn pages(tree: &Tree, key: Key) -> Text {
    Some(line(tree.jobs.client(&tree.clients.name(key.id)?)?.pages))
}

pub(super) fn set_pages(tree: &Tree, key: Key, data: &[u8]) -> Result<()> {
    let pages = parse_number(data, "a number of pages of 4 KiB")?;
    tree.jobs.resize_client(&client_name(tree, key)?, pages)
}

pub(super) fn client_stat(tree: &Tree, key: Key) -> Text {
    Some(keys::client(&tree.jobs.client(&tree.clients.name(key.id)?)?))
}

fn client_name(tree: &Tree, key: Key) -> Result<String> {
    tree.clients.name(key.id).ok_or_else(|| Error::new(ErrorKind::NotFound, "this client was removed"))
}

pub(super) fn dismiss(tree: &Tree, key: Key) -> Result<()> {
    tree.jobs.dismiss(key.id)
}

pub(super) fn spec(tree: &Tree, key: Key) -> Text {
    let mut line = tree.jobs.spec_line(key.id)?;
    line.push(b'\n');
    Some(line)
}

pub(super) fn status(tree: &Tree, key: Key) -> Text {
    Some(keys::status(&tree.jobs.view(key.id)?))
}

pub(super) fn dests(tree: &Tree, key: Key) -> Text {
    Some(keys::dests(&tree.jobs.view(key.id)?))
}

pub(super) fn errors(tree: &Tree, key: Key) -> Text {
    Some(keys::errors(&tree.jobs.bad_ranges(key.id)?))
}

pub(super) fn devices(tree: &Tree, key: Key) -> Text {
    Some(keys::devices(&tree.jobs.devices(key.id)?))
}

pub(super) fn control(tree: &Tree, key: Key, data: &[u8]) -> Result<()> {
    tree.jobs.control(key.id, parse_verb(data.trim_ascii())?)
}

/// A verb, with the words that it takes.
fn parse_verb(text: &[u8]) -> Result<Verb> {
    let (word, rest) = match text.iter().position(u8::is_ascii_whitespace) {
        Some(end) => (&text[..end], text[end..].trim_ascii_start()),
        None => (text, &[][..]),
    };
    match Verb::ALL.into_iter().find(|verb| verb.as_str().as_bytes() == word) {
        Some(Verb::Retry(_)) => Policy::parse(rest).map(Verb::Retry).map_err(|refused| refused.error),
        Some(Verb::Drop(_)) => {
            let number = parse_number(rest, "drop K, the number of a destination as in dests")?;
            Ok(Verb::Drop(usize::try_from(number).unwrap_or(usize::MAX)))
        }
        Some(verb) if rest.is_empty() => Ok(verb),
        _ => {
            let verbs = Verb::ALL.map(Verb::as_str).join(" ");
            Err(Error::new(ErrorKind::Syntax, format!("unknown verb {}; write one of: {verbs}", shown(text))))
        }
    }
}

pub(super) fn has_map(tree: &Tree, key: Key) -> bool {
    tree.jobs.brief(key.id).is_some_and(|brief| brief.has_map)
}

/// Whether the job reads from somewhere.
pub(super) fn has_source(tree: &Tree, key: Key) -> bool {
    tree.jobs.brief(key.id).is_some_and(|brief| brief.has_source)
}

pub(super) fn source(tree: &Tree, key: Key) -> Option<OsString> {
    tree.jobs.source_path(key.id)
}

pub(super) fn dest(tree: &Tree, key: Key) -> Option<OsString> {
    tree.jobs.dest_path(key.id, usize::from(key.sub))
}

pub(super) fn map(tree: &Tree, key: Key) -> Text {
    tree.jobs.map(key.id, usize::from(key.sub)).map(String::into_bytes)
}

pub(super) fn picture(tree: &Tree, key: Key) -> Text {
    let view = tree.jobs.view(key.id)?;
    let cells = |index| tree.jobs.cells(key.id, index, eye::picture::CELLS);
    let dests = (0..view.dests.len()).map(cells).collect::<Option<Vec<_>>>()?;
    Some(eye::picture::render(&view, &dests).into_bytes())
}

pub(super) fn map_svg(tree: &Tree, key: Key) -> Text {
    let (view, index) = (tree.jobs.view(key.id)?, usize::from(key.sub));
    eye::svg::render(&view, index, |most| tree.jobs.cells(key.id, index, most)).map(String::into_bytes)
}

pub(super) fn report_html(tree: &Tree, key: Key) -> Text {
    eye::report::text(&tree.jobs, key.id, eye::html::render).map(String::into_bytes)
}

pub(super) fn report_json(tree: &Tree, key: Key) -> Text {
    eye::report::text(&tree.jobs, key.id, eye::json::render).map(String::into_bytes)
}

pub(super) fn state_link(tree: &Tree, key: Key) -> Option<OsString> {
    walk::seen(tree, key).map(|_| format!("../../jobs/{}", key.id).into())
}

pub(super) fn name_link(tree: &Tree, key: Key) -> Option<OsString> {
    walk::seen(tree, key).map(|_| format!("../jobs/{}", key.id).into())
}

fn line(value: impl std::fmt::Display) -> Vec<u8> {
    format!("{value}\n").into()
}

fn rate_line(rate: Option<u64>) -> Vec<u8> {
    rate.map_or_else(|| line(MAX), line)
}

/// A number, or what to write instead.
fn parse_number(data: &[u8], what: &str) -> Result<u64> {
    let text = data.trim_ascii();
    number::scaled(text)
        .map_err(|error| Error::new(ErrorKind::Syntax, format!("{}: {error}; write {what}", shown(text))))
}

/// Bytes per second, or `None` for `max`.
fn parse_rate(data: &[u8]) -> Result<Option<u64>> {
    if data.trim_ascii() == MAX.as_bytes() {
        return Ok(None);
    }
    parse_number(data, "bytes per second, as 64M, or max").map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_with_units_and_go_plain() {
        assert_eq!(parse_number(b" 64K\n", "").unwrap(), 65_536);
        assert_eq!(parse_rate(b"max\n").unwrap(), None);
        assert_eq!(parse_rate(b"2G").unwrap(), Some(2 << 30));
        assert_eq!((rate_line(None), rate_line(Some(2 << 30))), (b"max\n".to_vec(), b"2147483648\n".to_vec()));
        for bad in [&b""[..], b"\n", b"fast", b"-1", b"1.5M", b"64k", b"50\n60\n"] {
            let error = parse_rate(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Syntax);
            assert!(error.to_string().ends_with("write bytes per second, as 64M, or max"), "{error}");
        }
    }
}
