//! Names, numbers and paths, over jobs of a small engine.

use std::sync::Arc;

use super::*;
use crate::fs::tree::TreeConfig;
use crate::io::BackendKind;
use crate::jobs::{Config, Jobs};
use crate::spec;

/// A tree with jobs on scratch files, each line a job.
fn tree(specs: &[&str]) -> (Tree, tempfile::TempDir) {
    let scratch = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c", "d"] {
        std::fs::write(scratch.path().join(name), [0; 4096]).unwrap();
    }
    let config = Config { pages: 256, client_pages: 128, backend: BackendKind::Threads, ..Config::default() };
    let jobs = Arc::new(Jobs::new(config).unwrap());
    let root = scratch.path().to_str().unwrap();
    for line in specs {
        let spec = spec::parse(line.replace('@', root).as_bytes()).unwrap().spec;
        jobs.submit(vec![spec]).unwrap();
    }
    (Tree::new(jobs, TreeConfig { uid: 0, gid: 0, mode: 0o600, allow_other: false }), scratch)
}

fn find(tree: &Tree, path: &str) -> Option<Key> {
    path.split('/').try_fold(Key::ROOT, |dir, name| lookup(tree, dir, name.as_ref()))
}

fn names(tree: &Tree, path: &str) -> Vec<String> {
    let dir = if path.is_empty() { Key::ROOT } else { find(tree, path).unwrap() };
    list(tree, dir).into_iter().skip(2).map(|entry| entry.name).collect()
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
fn what_is_listed_is_found_and_leads_back() {
    let (tree, _scratch) = tree(&["from=@/a to=@/b to=@/c paused name=x", "zero to=@/d,0,8 paused"]);
    let mut dirs = vec![Key::ROOT];
    let mut count = 0;
    while let Some(dir) = dirs.pop() {
        for entry in list(&tree, dir).into_iter().skip(2) {
            count += 1;
            assert_eq!(lookup(&tree, dir, entry.name.as_ref()), Some(entry.key), "{}", entry.name);
            assert_eq!(parent(entry.key), dir, "{}", entry.name);
            assert_eq!(find(&tree, &path(&tree, entry.key)), Some(entry.key));
            assert_eq!(Key::from_ino(entry.key.ino()), Some(entry.key));
            if matches!(entry.key.node().kind(), crate::fs::Kind::Dir) {
                dirs.push(entry.key);
            }
        }
    }
    assert!(count > nodes().len(), "{count}");
}

#[test]
fn directories_hold_what_there_is() {
    let (tree, _scratch) = tree(&["from=@/a to=@/b to=@/c paused name=x", "zero to=@/d,0,8 paused name=x"]);
    assert_eq!(names(&tree, "jobs"), ["new", "1", "2"]);
    assert_eq!(names(&tree, "state").len(), State::ALL.len());
    assert_eq!(names(&tree, "state/paused"), ["1", "2"]);
    assert_eq!(names(&tree, "state/done"), [""; 0]);
    assert_eq!(names(&tree, "names"), ["x"]);
    assert_eq!(find(&tree, "names/x").map(|key| key.id), Some(2), "the newest");
    assert_eq!(names(&tree, "clients"), ["default"]);
    let has = |path: &str, name: &str| names(&tree, path).iter().any(|known| known == name);
    assert!(has("jobs/1", "source") && has("jobs/1", "dest.1") && !has("jobs/1", "dest.2"));
    assert!(!has("jobs/2", "source"), "zeros come from nowhere");
    for gone in
        ["jobs/3", "jobs/01", "jobs/1/dest.01", "state/1", "state/done/1", "names/y", "clients/bulk", "jobs/2/source"]
    {
        assert_eq!(find(&tree, gone), None, "{gone}");
    }
}
