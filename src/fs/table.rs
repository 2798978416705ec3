//! The one table of the tree's nodes: names, modes, contents, documentation.
//!
//! Lookup, listing, modes, the tree's README, the tests of modes and the man page are made from it. To add a file is to
//! add a row; nothing else knows the names.
//!
//! # Invariants
//! A row's directory is a row above it. In a path, `ID` stands for a job's number and `.K` for a destination's. A file
//! whose mode lets somebody read has something to read, and the same for writing.

use std::ffi::OsString;

use super::inode::Key;
use super::tree::Tree;
use super::{readme, text};
use crate::error::{Error, ErrorKind, Result};
use crate::jobs::Verb;

/// What sort of node it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
}

/// A row: one file, directory or link, or one for each job.
#[derive(Debug)]
pub struct Node {
    /// Its path below the mount point; `ID` and `.K` stand for numbers.
    pub path: &'static str,
    /// Permission bits, before the mount options `gid=` and `mode=` widen those of writable files.
    pub mode: u16,
    /// What it is, in one line for people.
    pub doc: &'static str,
    pub(super) each: Each,
    pub(super) body: Body,
}

/// For what a row stands once in its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Each {
    /// There is one.
    One,
    /// There is one, but each lookup gets an inode of its own: the kernel lets one write(2) at a time into an inode, and
    /// a write that waits for a sick device must not keep other writers waiting.
    Fresh,
    /// One for each job.
    Job,
    /// One for each destination of the directory's job.
    Dest,
    /// One where the directory's job has a source.
    Source,
}

/// What a node holds.
#[derive(Debug)]
pub(super) enum Body {
    /// Nodes; `remove` is rmdir(2) of it.
    Dir { remove: Option<fn(&Tree, Key) -> Result<()>> },
    /// A path.
    Link(fn(&Tree, Key) -> Option<OsString>),
    /// Bytes.
    File { read: Read, write: Write },
}

/// How a file is read.
#[derive(Debug)]
pub(super) enum Read {
    /// Not at all.
    Never,
    /// A text, made when it is read at offset 0; `None` where the job is gone.
    Text(fn(&Tree, Key) -> Option<Vec<u8>>),
    /// What became of the open file's writes.
    Replies,
    /// The log of changes of state, as it grows.
    Events,
    /// Progress, until the job ends.
    Wait,
}

/// How a file is written.
#[derive(Debug)]
pub(super) enum Write {
    /// Not at all.
    Never,
    /// Specs of jobs.
    Specs,
    /// Each write is a whole.
    Text(fn(&Tree, Key, &[u8]) -> Result<()>),
}

impl Node {
    /// What sort of node it is.
    pub const fn kind(&self) -> Kind {
        match self.body {
            Body::Dir { .. } => Kind::Dir,
            Body::Link(_) => Kind::Link,
            Body::File { .. } => Kind::File,
        }
    }

    /// Whether writing to it does something.
    pub const fn is_writable(&self) -> bool {
        matches!(self.body, Body::File { write: Write::Specs | Write::Text(_), .. })
    }

    /// Whether reading it gives something.
    pub(super) const fn is_readable(&self) -> bool {
        !matches!(self.body, Body::File { read: Read::Never, .. })
    }

    /// Whether it is a job, or part of one.
    pub(super) fn is_of_job(&self) -> bool {
        self.path.split('/').any(|segment| segment == "ID")
    }

    /// The path of its directory, and its own name there; the root has none.
    pub(super) fn split(&self) -> Option<(&'static str, &'static str)> {
        match self.path.rsplit_once('/') {
            Some(split) => Some(split),
            None if self.path.is_empty() => None,
            None => Some(("", self.path)),
        }
    }
}

/// Every node of the tree, each directory before what is in it.
pub fn nodes() -> &'static [Node] {
    NODES
}

const fn dir(path: &'static str, doc: &'static str) -> Node {
    Node { path, mode: 0o755, doc, each: Each::One, body: Body::Dir { remove: None } }
}

const fn file(path: &'static str, mode: u16, read: Read, write: Write, doc: &'static str) -> Node {
    Node { path, mode, doc, each: Each::One, body: Body::File { read, write } }
}

const fn link(path: &'static str, each: Each, target: fn(&Tree, Key) -> Option<OsString>, doc: &'static str) -> Node {
    Node { path, mode: 0o777, doc, each, body: Body::Link(target) }
}

static NODES: &[Node] = &[
    dir("", "the control tree"),
    file("README", 0o444, Read::Text(readme::text), Write::Never, "how to drive the tree: this text"),
    file("version", 0o444, Read::Text(version), Write::Never, "the version of kcopyfs"),
    file("engine", 0o444, Read::Text(engine), Write::Never, "backend, pages and sub-jobs, as KEY VALUE"),
    file(
        "events",
        0o444,
        Read::Events,
        Write::Never,
        "a line per change of state: TIME_USEC JOB OLD NEW [reason]; tail -f and poll(2) work",
    ),
    file(
        "error_log",
        0o644,
        Read::Text(error_log),
        Write::Text(clear_error_log),
        "the last 16 refused writes, newest last, with the reason and its place; a write clears it",
    ),
    dir("jobs", "a directory per job, numbered from 1; rmdir dismisses an ended job"),
    Node {
        path: "jobs/new",
        mode: 0o600,
        doc: "write specs, a line each; then read: one made ID per read, or `error: ` and the reason",
        each: Each::Fresh,
        body: Body::File { read: Read::Replies, write: Write::Specs },
    },
    Node {
        path: "jobs/ID",
        mode: 0o755,
        doc: "a job; its size is the bytes copied, its time the last progress",
        each: Each::Job,
        body: Body::Dir { remove: Some(dismiss) },
    },
    file(
        "jobs/ID/spec",
        0o444,
        Read::Text(spec),
        Write::Never,
        "the job's spec; cat jobs/ID/spec > jobs/new runs it again",
    ),
    file("jobs/ID/status", 0o444, Read::Text(status), Write::Never, "state, errors and figures, as KEY VALUE"),
    file("jobs/ID/dests", 0o444, Read::Text(dests), Write::Never, "a line per destination: N KEY=VALUE... path=PATH"),
    file(
        "jobs/ID/errors",
        0o444,
        Read::Text(errors),
        Write::Never,
        "a line per bad range: read SECTOR COUNT ERRNO, or write DEST SECTOR COUNT ERRNO",
    ),
    file("jobs/ID/control", 0o200, Read::Never, Write::Text(control), "write pause, resume, cancel, retry or verify"),
    link("jobs/ID/source", Each::Source, source, "the source"),
    link("jobs/ID/dest.K", Each::Dest, dest, "destination K, counted from 0"),
    dir("wait", "a file per job that tells its end"),
    Node {
        path: "wait/ID",
        mode: 0o444,
        doc: "progress every second, then the status; read fails unless the job is done: cat wait/ID && next",
        each: Each::Job,
        body: Body::File { read: Read::Wait, write: Write::Never },
    },
];

#[allow(clippy::unnecessary_wraps)] // the signature of every row
fn version(_: &Tree, _: Key) -> Option<Vec<u8>> {
    Some(concat!(env!("CARGO_PKG_VERSION"), "\n").into())
}

#[allow(clippy::unnecessary_wraps)] // the signature of every row
fn engine(tree: &Tree, _: Key) -> Option<Vec<u8>> {
    Some(text::engine(&tree.jobs.engine()))
}

#[allow(clippy::unnecessary_wraps)] // the signature of every row
fn error_log(tree: &Tree, _: Key) -> Option<Vec<u8>> {
    Some(tree.errors.text())
}

#[allow(clippy::unnecessary_wraps)] // the signature of every row
fn clear_error_log(tree: &Tree, _: Key, _: &[u8]) -> Result<()> {
    tree.errors.clear();
    Ok(())
}

fn dismiss(tree: &Tree, key: Key) -> Result<()> {
    tree.jobs.dismiss(key.id)
}

fn spec(tree: &Tree, key: Key) -> Option<Vec<u8>> {
    let mut line = tree.jobs.spec_line(key.id)?;
    line.push(b'\n');
    Some(line)
}

fn status(tree: &Tree, key: Key) -> Option<Vec<u8>> {
    Some(text::status(&tree.jobs.view(key.id)?))
}

fn dests(tree: &Tree, key: Key) -> Option<Vec<u8>> {
    Some(text::dests(&tree.jobs.view(key.id)?))
}

fn errors(tree: &Tree, key: Key) -> Option<Vec<u8>> {
    Some(text::errors(&tree.jobs.bad_ranges(key.id)?))
}

fn control(tree: &Tree, key: Key, data: &[u8]) -> Result<()> {
    let word = data.trim_ascii();
    if let Some(verb) = Verb::ALL.into_iter().find(|verb| verb.as_str().as_bytes() == word) {
        return tree.jobs.control(key.id, verb);
    }
    let verbs = Verb::ALL.map(Verb::as_str).join(" ");
    Err(Error::new(ErrorKind::Syntax, format!("not a verb; one of: {verbs}")))
}

fn source(tree: &Tree, key: Key) -> Option<OsString> {
    tree.jobs.source_path(key.id)
}

fn dest(tree: &Tree, key: Key) -> Option<OsString> {
    tree.jobs.dest_path(key.id, usize::from(key.sub))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_directory_above_it_and_a_name_of_its_own() {
        for (index, node) in nodes().iter().enumerate() {
            let Some((dir, _)) = node.split() else {
                assert_eq!(index, 0, "only the root has no name");
                continue;
            };
            let above = nodes()[..index].iter().find(|other| other.path == dir);
            assert_eq!(above.map(Node::kind), Some(Kind::Dir), "{}", node.path);
            assert!(!nodes()[..index].iter().any(|other| other.path == node.path), "{}", node.path);
        }
    }

    #[test]
    fn modes_say_what_can_be_done() {
        for node in nodes().iter().filter(|node| node.kind() == Kind::File) {
            assert_eq!(node.mode & 0o400 != 0, node.is_readable(), "{}", node.path);
            assert_eq!(node.mode & 0o200 != 0, node.is_writable(), "{}", node.path);
            assert_eq!(node.mode & 0o022, 0, "{}: only the owner writes", node.path);
        }
    }

    #[test]
    fn every_row_is_documented_in_one_line() {
        for node in nodes() {
            assert!(!node.doc.is_empty() && !node.doc.contains('\n'), "{}", node.path);
        }
        assert!(nodes().len() < 255, "a row's number plus one fits 8 bits");
    }
}
