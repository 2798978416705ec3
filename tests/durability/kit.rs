//! What these tests share: rounds, waiting, maps and records as they are read.

use std::{
    fs::{self, File, OpenOptions},
    ops::Range,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

pub(crate) use kcopyfs_support::until;
use kcopyfs_support::{Daemon, daemon::Builder, stamp};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_kcopyfs");

/// How many rounds: `short`, or what `KCOPYFS_TORTURE` says.
pub(crate) fn rounds(short: u64) -> u64 {
    torture().unwrap_or(short)
}

/// Rounds of a race: `short`, or 500 for each that `KCOPYFS_TORTURE` says.
pub(crate) fn many_rounds(short: u64) -> u64 {
    torture().map_or(short, |rounds| rounds * 500)
}

/// `KCOPYFS_TORTURE`, where it is set.
pub(crate) fn torture() -> Option<u64> {
    let text = std::env::var("KCOPYFS_TORTURE").ok()?;
    Some(text.trim().parse().unwrap_or_else(|_| panic!("KCOPYFS_TORTURE={text} is not a number")))
}

/// A daemon with small pieces, so that a small disk has many.
pub(crate) fn daemon() -> Builder {
    Daemon::builder(PROGRAM).option("pages=1024").option("subjob_kb=64").option("subjobs=4")
}

pub(crate) fn until_state(daemon: &Daemon, id: u64, state: &str) {
    let mut last = String::new();
    until(&format!("job {id} {state}"), || {
        let status = daemon.status(id);
        let there = status.state() == state;
        if last != status.state() {
            status.state().clone_into(&mut last);
            eprintln!("job {id}: {last} {}", status.error().unwrap_or_default());
        }
        there.then_some(())
    });
}

/// Waits until the reason of a job that waits says `what`, and returns it.
pub(crate) fn until_reason(daemon: &Daemon, id: u64, what: &str) -> String {
    until(&format!("job {id} says {what:?}"), || {
        daemon.status(id).error().filter(|error| error.contains(what)).map(str::to_owned)
    })
}

/// Makes durable what a running job has, and lets it go on.
pub(crate) fn checkpoint(daemon: &Daemon, id: u64) {
    if daemon.control(id, "pause").is_ok() {
        until("a checkpoint", || {
            let status = daemon.status(id);
            (status.is_ended() || status.durable() == status.copied()).then_some(())
        });
        // it may have ended meanwhile
        let _ = daemon.control(id, "resume");
    }
}

/// What `map.K` shows as `+`, in bytes of the source; the map must be whole and in order.
pub(crate) fn durable_map(daemon: &Daemon, id: u64, dest: usize) -> Vec<Range<u64>> {
    let text = daemon.read(format!("jobs/{id}/map.{dest}")).expect("read the map");
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let number = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).expect("a number");
    assert!(lines.next().is_some(), "no status line:\n{text}");
    let (mut at, mut durable) = (None, Vec::new());
    for line in lines {
        let words: Vec<_> = line.split_whitespace().collect();
        let [pos, size, status] = words[..] else { panic!("not a block: {line:?}") };
        let (pos, size) = (number(pos), number(size));
        assert!(at.is_none_or(|at| at == pos) && size > 0, "a gap before {line:?}:\n{text}");
        at = Some(pos + size);
        if status == "+" {
            durable.push(pos..pos + size);
        }
    }
    durable
}

/// What the record of a job says is durable on its destinations, in bytes from the job's beginning.
pub(crate) fn recorded(state: &Path, id: u64, dests: usize) -> Vec<Vec<Range<u64>>> {
    let path = state.join(format!("{id}.job"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let ranges = |line: &str| {
        let words = line.split_whitespace();
        let ranges = words.map(|word| {
            let (first, count) = word.split_once('+').expect("FIRST+COUNT");
            let (first, count): (u64, u64) = (first.parse().expect("a sector"), count.parse().expect("a count"));
            first * 512..(first + count) * 512
        });
        ranges.collect()
    };
    (0..dests)
        .map(|dest| {
            let key = format!("dest.{dest}.durable");
            let line = text.lines().find_map(|line| line.strip_prefix(&key)).expect("what is durable");
            ranges(line)
        })
        .collect()
}

pub(crate) fn bytes(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// Whether every byte of `part` is in `whole`; both are in order, without neighbours that touch.
pub(crate) fn covers(whole: &[Range<u64>], part: &[Range<u64>]) -> bool {
    part.iter().all(|part| whole.iter().any(|whole| whole.start <= part.start && part.end <= whole.end))
}

pub(crate) fn touches(ranges: &[Range<u64>], other: &Range<u64>) -> bool {
    ranges.iter().any(|range| range.start < other.end && other.start < range.end)
}

/// What is shown as durable must be on the medium: those ranges of it carry the stamps of `seed`.
pub(crate) fn assert_on_medium(medium: &[u8], durable: &[Range<u64>], seed: u64, what: &str) {
    for range in durable {
        let data = &medium[index(range.start)..index(range.end)];
        stamp::check(data, seed, range.start / 512).unwrap_or_else(|mismatch| {
            panic!("{what}: {range:?} is shown as durable and is not: {mismatch}");
        });
    }
}

pub(crate) fn index(byte: u64) -> usize {
    usize::try_from(byte).expect("a disk that fits in memory")
}

/// Opens a block device exclusively, as soon as nobody else has it: no event tells.
pub(crate) fn hold(device: &Path) -> File {
    until("an exclusive open", || {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_EXCL).open(device).ok()
    })
}

/// What a daemon has set aside as damaged, or warned of: nothing, after whatever a test did to it.
pub(crate) fn assert_nothing_torn(daemon: &Daemon) {
    let log = daemon.log();
    let told: Vec<_> = log.lines().filter(|line| line.contains("set aside") || line.contains("left out")).collect();
    assert!(told.is_empty(), "{told:#?}");
}

/// The files of jobs that must outlive a daemon, as text.
pub(crate) fn figures(daemon: &Daemon, id: u64) -> Vec<(String, String)> {
    let mut files = vec!["status".to_owned(), "dests".to_owned(), "errors".to_owned(), "spec".to_owned()];
    files.extend((0..daemon.dests(id).len()).map(|dest| format!("map.{dest}")));
    files
        .into_iter()
        .map(|file| {
            let text = daemon.read(format!("jobs/{id}/{file}")).unwrap_or_else(|error| format!("{error}"));
            (file, text)
        })
        .collect()
}

/// A scratch directory for links and files, in memory.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("kcopyfs-durability-").tempdir_in("/dev/shm").expect("a scratch directory")
}

/// Points the symbolic link `link` at `target`, at once.
pub(crate) fn point(link: &Path, target: &Path) {
    let new = PathBuf::from(format!("{}.new", link.display()));
    let _ = fs::remove_file(&new);
    std::os::unix::fs::symlink(target, &new).expect("a link");
    fs::rename(&new, link).expect("rename a link");
}
