//! Finding and listing nodes: what names there are, from the table and from what there is now.
//!
//! # Invariants
//! A directory's listing and its lookup agree: a name is listed exactly if it is found. A listing is made at once, so
//! that a directory can change while it is read, and nothing that stays is left out or comes twice.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::inode::Key;
use super::table::{Each, Kind, Node, Owner, nodes};
use super::tree::Tree;
use crate::jobs::{Brief, JobId, State};

/// A name in a directory.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) key: Key,
}

/// A node that is there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The job that it is, or is part of.
    pub(super) job: Option<Brief>,
}

/// The rows whose directory is row `dir`, with their numbers.
fn children(dir: u8) -> impl Iterator<Item = (u8, &'static Node)> {
    let path = nodes()[usize::from(dir)].path;
    (0u8..).zip(nodes()).filter(move |(_, node)| node.split().is_some_and(|(parent, _)| parent == path))
}

/// The directory a node is in; the root is in itself.
pub(super) fn parent(key: Key) -> Key {
    let Some((dir, _)) = key.node().split() else { return Key::ROOT };
    let Some((row, node)) = (0u8..).zip(nodes()).find(|(_, node)| node.path == dir) else { return Key::ROOT };
    Key {
        row,
        sub: if node.each == Each::State { key.sub } else { 0 },
        id: if node.owner() == Owner::Tree { 0 } else { key.id },
    }
}

/// A node's name in its directory; `None` where what it was named after is gone.
fn name(tree: &Tree, key: Key) -> Option<String> {
    let (_, pattern) = key.node().split().unwrap_or_default();
    match key.node().each {
        Each::One | Each::Fresh => Some(pattern.to_owned()),
        Each::Job | Each::InState => Some(key.id.to_string()),
        Each::Dest => {
            let (before, behind) = around_k(pattern);
            Some(format!("{before}{}{behind}", key.sub))
        }
        Each::State => state(key).map(|state| state.as_str().to_owned()),
        Each::Client => tree.clients.name(key.id),
        Each::Name => tree.jobs.view(key.id)?.name,
    }
}

/// A node's path below the mount point, as messages have it.
pub(super) fn path(tree: &Tree, key: Key) -> String {
    let dir = parent(key);
    let name = name(tree, key).unwrap_or_else(|| "(removed)".to_owned());
    if dir == Key::ROOT { name } else { format!("{}/{name}", path(tree, dir)) }
}

/// The state that a node of `state/` stands for.
fn state(key: Key) -> Option<State> {
    State::ALL.get(usize::from(key.sub)).copied()
}

/// A node, if it is there now.
pub(super) fn seen(tree: &Tree, key: Key) -> Option<Seen> {
    let node = key.node();
    let job = match node.owner() {
        Owner::Job => Some(tree.jobs.brief(key.id)?),
        Owner::Client => tree.clients.name(key.id).map(|_| None)?,
        Owner::Tree => None,
    };
    let is_there = match (node.each, job) {
        (Each::Dest, Some(job)) => usize::from(key.sub) < job.dests,
        (Each::InState, Some(job)) => state(key) == Some(job.state),
        (Each::Name, _) => name(tree, key).is_some_and(|name| tree.jobs.named(&name) == Some(key.id)),
        (Each::State, _) => state(key).is_some(),
        _ => true,
    };
    (is_there && (node.there)(tree, key)).then_some(Seen { job })
}

/// A job's directory.
pub(super) fn job(id: JobId) -> Option<Key> {
    let mut rows = (0u8..).zip(nodes());
    let (row, _) = rows.find(|(_, node)| node.each == Each::Job && node.kind() == Kind::Dir)?;
    (id <= Key::ID_MAX).then_some(Key { row, sub: 0, id })
}

/// The node of that name in a directory.
pub(super) fn lookup(tree: &Tree, dir: Key, name: &OsStr) -> Option<Key> {
    let found = children(dir.row).find_map(|(row, node)| matching(tree, row, node, dir, name.as_bytes()));
    found.filter(|key| seen(tree, *key).is_some())
}

fn matching(tree: &Tree, row: u8, node: &Node, dir: Key, name: &[u8]) -> Option<Key> {
    let (_, pattern) = node.split()?;
    let job = |id: Option<JobId>| id.filter(|id| *id <= Key::ID_MAX).map(|id| Key { row, sub: dir.sub, id });
    match node.each {
        Each::One | Each::Fresh => (pattern.as_bytes() == name).then_some(Key { row, ..dir }),
        Each::Job | Each::InState => job(number(name)),
        Each::Name => job(tree.jobs.named(std::str::from_utf8(name).ok()?)),
        Each::Dest => {
            let (before, behind) = around_k(pattern);
            let sub = number(name.strip_prefix(before.as_bytes())?.strip_suffix(behind.as_bytes())?)?;
            Some(Key { row, sub: u8::try_from(sub).ok()?, ..dir })
        }
        Each::State => {
            let place = State::ALL.iter().position(|state| state.as_str().as_bytes() == name)?;
            Some(Key { row, sub: u8::try_from(place).ok()?, id: 0 })
        }
        Each::Client => {
            let name = std::str::from_utf8(name).ok()?;
            let known = tree.jobs.clients().iter().any(|known| known == name);
            known.then(|| Key { row, sub: 0, id: tree.clients.number(name) })
        }
    }
}

/// The entries of a directory, `.` and `..` first.
pub(super) fn list(tree: &Tree, dir: Key) -> Vec<Entry> {
    let mut entries = vec![Entry { name: ".".to_owned(), key: dir }, Entry { name: "..".to_owned(), key: parent(dir) }];
    for (row, node) in children(dir.row) {
        let jobs = |ids: Vec<JobId>| {
            ids.into_iter().map(move |id| Entry { name: id.to_string(), key: Key { row, id, ..dir } })
        };
        match node.each {
            Each::One | Each::Fresh => {
                let key = Key { row, ..dir };
                let is_there = seen(tree, key).is_some();
                let (_, pattern) = node.split().unwrap_or_default();
                entries.extend(is_there.then(|| Entry { name: pattern.to_owned(), key }));
            }
            Each::Job => entries.extend(jobs(tree.jobs.ids())),
            Each::InState => entries.extend(state(dir).into_iter().flat_map(|state| jobs(tree.jobs.in_state(state)))),
            Each::Name => {
                let names = tree.jobs.names();
                entries.extend(names.into_iter().map(|(name, id)| Entry { name, key: Key { row, sub: 0, id } }));
            }
            Each::Client => entries.extend(tree.jobs.clients().into_iter().map(|name| {
                let key = Key { row, sub: 0, id: tree.clients.number(&name) };
                Entry { name, key }
            })),
            Each::Dest | Each::State => {
                let count = match node.each {
                    Each::State => State::ALL.len(),
                    _ => tree.jobs.brief(dir.id).map_or(0, |job| job.dests),
                };
                let subs = (0..count).filter_map(|sub| u8::try_from(sub).ok());
                let keys = subs.map(|sub| Key { row, sub, ..dir }).filter(|key| seen(tree, *key).is_some());
                entries.extend(keys.filter_map(|key| Some(Entry { name: name(tree, key)?, key })));
            }
        }
    }
    entries
}

/// What stands before and behind K in `map.K.svg`.
fn around_k(pattern: &'static str) -> (&'static str, &'static str) {
    pattern.split_once('K').unwrap_or((pattern, ""))
}

/// A number as a name writes it: decimal, without a sign or leading zeros, so that each has one name.
fn number(name: &[u8]) -> Option<u64> {
    let canonical = name == b"0" || (name.iter().all(u8::is_ascii_digit) && name.first().is_some_and(|b| *b != b'0'));
    if canonical { std::str::from_utf8(name).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
