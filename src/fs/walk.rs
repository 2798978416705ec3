//! Finding and listing nodes: what names there are, from the table and the jobs there are now.
//!
//! # Invariants
//! A directory's listing and its lookup agree: a name is listed exactly if it is found. A listing's cursor is the inode
//! number of the last entry given, so that a directory can change while it is listed, and nothing that stays is left out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::inode::Key;
use super::table::{Each, Node, nodes};
use crate::jobs::Jobs;

/// The rows whose directory is row `dir`, with their numbers.
fn children(dir: u8) -> impl Iterator<Item = (u8, &'static Node)> {
    let path = nodes()[usize::from(dir)].path;
    (0u8..).zip(nodes()).filter(move |(_, node)| node.split().is_some_and(|(parent, _)| parent == path))
}

/// The directory a node is in; the root is in itself.
pub(super) fn parent(key: Key) -> Key {
    let Some((dir, _)) = key.node().split() else { return Key::ROOT };
    let found = (0u8..).zip(nodes()).find(|(_, node)| node.path == dir);
    found.map_or(Key::ROOT, |(row, node)| Key { row, sub: 0, id: if node.is_of_job() { key.id } else { 0 } })
}

/// A node's name in its directory.
pub(super) fn name(key: Key) -> String {
    let (_, pattern) = key.node().split().unwrap_or_default();
    match key.node().each {
        Each::One | Each::Fresh | Each::Source => pattern.to_owned(),
        Each::Job => key.id.to_string(),
        Each::Dest => format!("{}{}", dest_prefix(pattern), key.sub),
    }
}

/// A node's path below the mount point.
pub(super) fn path(key: Key) -> String {
    let (dir, name) = (parent(key), name(key));
    if dir == Key::ROOT { name } else { format!("{}/{name}", path(dir)) }
}

/// Whether a node is there now.
pub(super) fn exists(jobs: &Jobs, key: Key) -> bool {
    if !key.node().is_of_job() {
        return true;
    }
    jobs.brief(key.id).is_some_and(|brief| match key.node().each {
        Each::One | Each::Fresh | Each::Job => true,
        Each::Dest => usize::from(key.sub) < brief.dests,
        Each::Source => brief.has_source,
    })
}

/// The node of that name in a directory.
pub(super) fn lookup(jobs: &Jobs, dir: Key, name: &OsStr) -> Option<Key> {
    let found = children(dir.row).find_map(|(row, node)| matching(row, node, dir, name.as_bytes()));
    found.filter(|key| exists(jobs, *key))
}

fn matching(row: u8, node: &Node, dir: Key, name: &[u8]) -> Option<Key> {
    let (_, pattern) = node.split()?;
    match node.each {
        Each::One | Each::Fresh | Each::Source => (pattern.as_bytes() == name).then_some(Key { row, ..dir }),
        Each::Job => number(name).filter(|id| *id <= Key::ID_MAX).map(|id| Key { row, sub: 0, id }),
        Each::Dest => {
            let sub = number(name.strip_prefix(dest_prefix(pattern).as_bytes())?)?;
            Some(Key { row, sub: u8::try_from(sub).ok()?, ..dir })
        }
    }
}

/// Gives the entries of a directory that come after `cursor` (0: all), until `emit` says that it is full.
pub(super) fn list(jobs: &Jobs, dir: Key, cursor: u64, emit: &mut dyn FnMut(Key) -> bool) {
    let after = Key::from_ino(cursor);
    for (row, node) in children(dir.row).filter(|(row, _)| after.is_none_or(|after| after.row <= *row)) {
        let after = after.filter(|after| after.row == row);
        let full = match node.each {
            Each::One | Each::Fresh | Each::Source => {
                let key = Key { row, ..dir };
                after.is_none() && exists(jobs, key) && emit(key)
            }
            Each::Job => {
                let ids = jobs.ids();
                let first = after.map_or(0, |after| ids.partition_point(|id| *id <= after.id));
                ids[first..].iter().any(|id| emit(Key { row, sub: 0, id: *id }))
            }
            Each::Dest => {
                let dests = jobs.brief(dir.id).map_or(0, |brief| brief.dests);
                let first = after.map_or(0, |after| usize::from(after.sub) + 1);
                (first..dests).map_while(|sub| u8::try_from(sub).ok()).any(|sub| emit(Key { row, sub, ..dir }))
            }
        };
        if full {
            return;
        }
    }
}

/// What stands before K in `dest.K`.
fn dest_prefix(pattern: &'static str) -> &'static str {
    pattern.strip_suffix('K').unwrap_or(pattern)
}

/// A number as a name writes it: decimal, without a sign or leading zeros, so that each has one name.
fn number(name: &[u8]) -> Option<u64> {
    let canonical = name == b"0" || (name.iter().all(u8::is_ascii_digit) && name.first().is_some_and(|b| *b != b'0'));
    if canonical { std::str::from_utf8(name).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &str) -> u8 {
        (0u8..).zip(nodes()).find(|(_, node)| node.path == path).unwrap().0
    }

    #[test]
    fn a_number_has_one_name() {
        assert_eq!(number(b"17"), Some(17));
        assert_eq!(number(b"0"), Some(0));
        for name in [&b""[..], b"017", b"+1", b"-1", b" 1", b"1 ", b"99999999999999999999999", b"x"] {
            assert_eq!(number(name), None, "{name:?}");
        }
    }

    #[test]
    fn names_and_matches_agree() {
        let job = Key { row: row("jobs/ID"), sub: 0, id: 7 };
        for (path, text) in [
            ("jobs/ID/status", "jobs/7/status"),
            ("jobs/ID/dest.K", "jobs/7/dest.3"),
            ("jobs/ID/source", "jobs/7/source"),
        ] {
            let row = row(path);
            let key = Key { row, sub: if path.ends_with('K') { 3 } else { 0 }, id: 7 };
            assert_eq!(super::path(key), text);
            assert_eq!(parent(key), job);
            assert_eq!(matching(row, key.node(), job, name(key).as_bytes()), Some(key));
        }
        assert_eq!(super::path(Key { row: row("wait/ID"), sub: 0, id: 7 }), "wait/7");
        assert_eq!(parent(job), Key { row: row("jobs"), sub: 0, id: 0 });
        assert_eq!(parent(Key { row: row("jobs"), sub: 0, id: 0 }), Key::ROOT);
        assert_eq!(
            matching(row("jobs/ID/dest.K"), &nodes()[usize::from(row("jobs/ID/dest.K"))], job, b"dest.03"),
            None
        );
    }
}
