//! Every node of a mounted tree, against the table.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::table::Bench;
use kcopyfs::fs::{Kind, Node, nodes};
use kcopyfs_support::daemon::STATES;

#[test]
fn modes_owners_and_links_are_the_table_s_needs_fuse() {
    let Some(bench) = Bench::new(&[], &[("bash", "bash")]) else { return };
    bench
        .script("bash", "mkdir $M/clients/bulk; slow one; echo \"from=$S/a to=$S/b to=$S/c\" > $M/jobs/new; ended 2")
        .ok();
    let mut met = BTreeSet::from([""]);
    visit(&bench, Path::new(""), &mut met);
    let missing: Vec<_> = nodes().iter().map(|node| node.path).filter(|path| !met.contains(path)).collect();
    assert!(missing.is_empty(), "in the table, not in the tree: {missing:?}");
    let readme = bench.daemon.read("README").unwrap();
    for node in nodes() {
        assert!(readme.contains(node.path) && (node.path.is_empty() || readme.contains(node.doc)), "{}", node.path);
    }
    for word in kcopyfs::spec::words() {
        assert!(readme.contains(&word.usage()), "{}", word.name);
    }
}

#[test]
fn gid_and_mode_are_those_of_writable_files_needs_fuse() {
    let Some(bench) = Bench::new(&["allow_other", "gid=6", "mode=0660"], &[("bash", "bash")]) else { return };
    let modes = bench.script(
        "bash",
        "slow one; cd $M; stat -c '%n %a %u:%g' jobs/new jobs/1/control throttle jobs/1/speed_max error_log clients/default/pages \
         jobs/1/status jobs clients | sed 's/:6$//; s/ '$(id -u)'$//'",
    );
    let expected = "jobs/new 660\njobs/1/control 220\nthrottle 664\njobs/1/speed_max 664\nerror_log 664\n\
        clients/default/pages 664\njobs/1/status 444\njobs 755\nclients 755\n";
    assert_eq!(modes.ok(), expected);
}

fn visit(bench: &Bench, dir: &Path, met: &mut BTreeSet<&'static str>) {
    let root = bench.daemon.mount();
    for entry in fs::read_dir(root.join(dir)).expect("list") {
        let path = dir.join(entry.expect("an entry").file_name());
        let full = root.join(&path);
        let node = node_of(&path).unwrap_or_else(|| panic!("{} is in no row", path.display()));
        met.insert(node.path);
        let metadata = fs::symlink_metadata(&full).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let own = fs::metadata("/proc/self").expect("who we are").uid();
        assert_eq!(metadata.mode() & 0o7777, u32::from(node.mode), "{}", path.display());
        assert_eq!((metadata.uid(), metadata.gid()), (own, 0), "{}", path.display());
        match node.kind() {
            Kind::Dir => {
                assert!(metadata.is_dir(), "{}", path.display());
                visit(bench, &path, met);
            }
            Kind::File => assert!(metadata.is_file(), "{}", path.display()),
            Kind::Link => {
                let target = fs::read_link(&full).expect("a link");
                assert_eq!(target, link_target(bench, &path), "{}", path.display());
                assert!(full.exists(), "{} leads nowhere", path.display());
            }
        }
    }
}

/// The row of a path.
fn node_of(path: &Path) -> Option<&'static Node> {
    let path = path.to_str()?;
    let is_of = |node: &&Node| {
        let (pattern, names) = (node.path.split('/'), path.split('/'));
        pattern.clone().count() == names.clone().count()
            && pattern.zip(names).all(|(pattern, name)| stands_for(pattern, name))
    };
    // A row that says the name itself comes before one that stands for names.
    nodes().iter().find(|node| node.path == path).or_else(|| nodes().iter().find(is_of))
}

fn stands_for(pattern: &str, name: &str) -> bool {
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    match pattern {
        "ID" => is_number(name),
        "S" => STATES.contains(&name),
        "NAME" => true,
        "dest.K" => name.strip_prefix("dest.").is_some_and(is_number),
        "map.K.svg" => name.strip_prefix("map.").and_then(|rest| rest.strip_suffix(".svg")).is_some_and(is_number),
        "map.K" => name.strip_prefix("map.").is_some_and(is_number),
        _ => pattern == name,
    }
}

fn link_target(bench: &Bench, path: &Path) -> std::path::PathBuf {
    let names: Vec<_> = path.iter().map(|name| name.to_str().unwrap()).collect();
    match names[..] {
        ["names", "one"] => "../jobs/1".into(),
        ["state", _, id] => format!("../../jobs/{id}").into(),
        ["jobs", _, "source"] => bench.scratch().join("a"),
        ["jobs", "1", "dest.0"] => bench.scratch().join("slow.one"),
        ["jobs", "2", "dest.0"] => bench.scratch().join("b"),
        ["jobs", "2", "dest.1"] => bench.scratch().join("c"),
        _ => panic!("{} is a link", path.display()),
    }
}
