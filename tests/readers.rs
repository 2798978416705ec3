//! What readers cost the daemon: many who have a long file open share its text, and nobody can take all memory so.
//!
//! Needs FUSE and root.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use kcopyfs_support::{Daemon, need};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kcopyfs");

/// Jobs that wait, each with its lines in `metrics`.
const JOBS: usize = 200;
/// More than the daemon keeps for other users' open files.
const BOUND: u64 = 8 << 20;

/// A tree with a long `metrics`; other users may look.
fn tree(dir: &tempfile::TempDir) -> Daemon {
    let source = dir.path().join("source");
    fs::write(&source, [7; 4096]).expect("a source");
    let daemon = Daemon::builder(PROGRAM).option("state=none").option("allow_other").start();
    let spec = |job| format!("from={} to={}/to.{job} create paused\n", source.display(), dir.path().display());
    let specs: String = (0..JOBS).map(spec).collect();
    daemon.write("jobs/new", &specs).expect("jobs");
    daemon
}

/// Memory of the daemon in bytes.
fn memory(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.worker())).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

#[test]
fn readers_of_one_moment_share_a_text() {
    if !need::root() || !need::fuse() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let daemon = tree(&dir);
    let length = daemon.read("metrics").unwrap().len() as u64;
    assert!(length > 40_000, "{length} bytes");
    let before = memory(&daemon);
    let mut open = Vec::new();
    for _ in 0..1000 {
        let mut file = File::open(daemon.path("metrics")).unwrap();
        file.read_exact(&mut [0]).unwrap();
        open.push(file);
    }
    let more = memory(&daemon).saturating_sub(before);
    eprintln!("1000 readers of {length} bytes: {} KiB", more >> 10);
    assert!(more < 1000 * length / 4, "{more} bytes for 1000 readers of {length}");
}

/// A user who opens `metrics` for each line that he is told, and says what comes of it.
struct User(Child);

impl User {
    fn start(daemon: &Daemon) -> Self {
        // A fresh descriptor each time, which stays open.
        const SCRIPT: &str = "while read -r _; do exec {open}< $0; read -r -N 1 -u $open 2>&1 && echo ok; done";
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", SCRIPT]);
        command.arg(daemon.path("metrics")).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().expect("a user"))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_reader_of_everything_is_refused_and_the_owner_is_not() {
    let programs = need::program("setpriv", "util-linux") && need::program("bash", "bash");
    if !need::root() || !need::fuse() || !programs {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let daemon = tree(&dir);
    let length = daemon.read("metrics").unwrap().len() as u64;
    let mut open_way = Command::new("chmod");
    assert!(open_way.arg("755").arg(daemon.mount().parent().unwrap()).status().unwrap().success());
    let mut user = User::start(&daemon);
    let (mut says, mut hears) = (user.0.stdin.take().unwrap(), BufReader::new(user.0.stdout.take().unwrap()));
    let mut told = Vec::new();
    for round in 1.. {
        // What was written is seen by the next reader, so each gets a text of his own.
        daemon.write("throttle", &format!("{}\n", 50 + round % 50)).unwrap();
        says.write_all(b"open\n").unwrap();
        let mut line = String::new();
        hears.read_line(&mut line).unwrap();
        told.push(line);
        if told.last().is_none_or(|line| line != "ok\n") || round > 2 * BOUND / length {
            break;
        }
    }
    let last = told.last().unwrap();
    assert!(last.contains("Too many open files in system"), "{last} after {} opens of {length} bytes", told.len());
    assert!(told.len() as u64 > BOUND / length / 2, "refused after {} opens of {length} bytes", told.len());
    assert!(daemon.log().contains("readers are refused until some are closed"), "{}", daemon.log());
    // The owner still reads, and so does everybody once those are closed.
    assert!(daemon.read("metrics").unwrap().ends_with("# EOF\n"));
    drop((says, hears, user));
    let mut again = User::start(&daemon);
    again.0.stdin.take().unwrap().write_all(b"open\n").unwrap();
    let mut line = String::new();
    BufReader::new(again.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ok\n");
}
