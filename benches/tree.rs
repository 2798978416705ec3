//! The mounted tree with 10,000 jobs: how long a listing takes, how long a status, and what a job costs in memory.
//!
//! `cargo bench --bench tree`. A third of the jobs has ended, a third is paused, and the rest waits behind eight that run.
//! Every job is a copy between two files in memory, each to a range of its own.
//!
//! * `ls jobs` and `ls -l jobs`, the first time and when the kernel believes nothing any more (after [`STALE`]), against the
//!   same of as many directories on tmpfs;
//! * opening, reading and closing a random job's `status`, against a file of sysfs, while the eight copies run: first with
//!   a limit, so that most of it is the time in which an idle core wakes up, then as fast as they can;
//! * the daemon's memory before and after the jobs of each sort were made.
//!
//! | environment | default | |
//! |---|---|---|
//! | `KCOPYFS_BENCH_JOBS` | 10000 | how many jobs |
//! | `KCOPYFS_BENCH_ROUNDS` | 7 | rounds, of which the median counts |

use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kcopyfs_support::{Daemon, Rng, need};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// After which the kernel asks again for all it was told.
const STALE: Duration = Duration::from_millis(1100);
/// Bytes a second of each copy that runs meanwhile.
const RUNNING_SPEED: &str = "50M";
const RUNNING: usize = 8;
/// Specs of one write.
const BATCH: usize = 200;
/// A file that sysfs makes when it is read, as a status is.
const SYSFS: &str = "/sys/kernel/uevent_seqnum";
const STATUS_READS: u32 = 1000;

fn main() -> ExitCode {
    // `cargo test --all-targets` builds and starts benches too, without this word.
    if !std::env::args().any(|word| word == "--bench") {
        println!("tree: a benchmark; run it by `cargo bench --bench tree`");
        return ExitCode::SUCCESS;
    }
    if !need::fuse() {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tree: {error}");
            ExitCode::FAILURE
        }
    }
}

fn setting(name: &str, default: usize) -> usize {
    let number = std::env::var(name).map_or(Some(default), |text| text.parse().ok());
    number.filter(|number| *number > 0).unwrap_or_else(|| panic!("{name}: give a number from 1"))
}

/// A tree, and files in memory.
struct Bench {
    daemon: Daemon,
    scratch: tempfile::TempDir,
    /// Jobs made so far.
    made: usize,
}

fn run() -> Result<()> {
    let (count, rounds) = (setting("KCOPYFS_BENCH_JOBS", 10_000), setting("KCOPYFS_BENCH_ROUNDS", 7));
    let mut bench = Bench::new()?;
    bench.make_all(count)?;
    bench.list(rounds)?;
    bench.read_status(rounds, "at 50 MiB/s each")?;
    (0..RUNNING).try_for_each(|index| bench.daemon.write(format!("names/running{index}/speed_max"), "max"))?;
    bench.read_status(rounds, "as fast as they can (ratio at most 10)")?;
    Ok(())
}

impl Bench {
    fn new() -> Result<Self> {
        let scratch = tempfile::Builder::new().prefix("kcopyfs-tree-").tempdir_in("/dev/shm")?;
        for (name, bytes) in [("from", 8_u64 << 30), ("to", 8 << 30)] {
            File::create(scratch.path().join(name))?.set_len(bytes)?;
        }
        for index in 0..RUNNING {
            File::create(scratch.path().join(format!("to{index}")))?;
        }
        let daemon = Daemon::builder(env!("CARGO_BIN_EXE_kcopyfs")).option("state=none").option("keep=1000000");
        let daemon = daemon.option("max_jobs=1000000").option(format!("active={RUNNING}"));
        let daemon = daemon.try_start().map_err(|refused| format!("it did not start: {refused:?}"))?;
        Ok(Self { daemon, scratch, made: 0 })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Copies of 4 KiB, each to its own place.
    fn make(&mut self, count: usize, words: &str) -> Result<()> {
        let (from, to) = (self.file("from"), self.file("to"));
        for start in (0..count).step_by(BATCH) {
            let mut text = String::new();
            for _ in start..count.min(start + BATCH) {
                writeln!(text, "from={},0,8 to={},{} {words}", from.display(), to.display(), self.made * 8)?;
                self.made += 1;
            }
            self.daemon.write("jobs/new", &text)?;
        }
        Ok(())
    }

    /// Makes the jobs of each sort, and says what they cost.
    fn make_all(&mut self, count: usize) -> Result<()> {
        // What is allocated once is allocated by now.
        self.make(BATCH, "")?;
        self.until_ended(BATCH)?;
        (1..=BATCH).try_for_each(|id| fs::remove_dir(self.daemon.path(format!("jobs/{id}"))))?;
        let base = self.memory()?;
        println!("memory: {base} KiB without jobs");
        let (ended, paused) = (count / 3, count / 3);
        let start = Instant::now();
        self.make(ended, "")?;
        self.until_ended(ended)?;
        let mut before = self.memory_since("ended", base, ended)?;
        self.make(paused, "paused")?;
        before = self.memory_since("paused", before, paused)?;
        for index in 0..RUNNING {
            let (from, to) = (self.file("from"), self.file(&format!("to{index}")));
            let (from, to) = (from.display(), to.display());
            self.daemon.job(&format!("from={from} to={to} name=running{index} speed_max={RUNNING_SPEED}"))?;
        }
        before = self.memory_since("running", before, RUNNING)?;
        let queued = count - ended - paused - RUNNING;
        self.make(queued, "")?;
        self.memory_since("queued", before, queued)?;
        let all = self.memory()?.saturating_sub(base) * 1024 / count;
        println!("memory: {all} bytes a job of {count} (at most 2048); made in {:.1?}", start.elapsed());
        Ok(())
    }

    fn until_ended(&self, count: usize) -> Result<()> {
        while fs::read_dir(self.daemon.path("state/done"))?.count() < count {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn memory_since(&self, sort: &str, before: usize, count: usize) -> Result<usize> {
        let now = self.memory()?;
        println!("memory: {:5} bytes a job {sort} ({count})", now.saturating_sub(before) * 1024 / count);
        Ok(now)
    }

    /// KiB resident.
    fn memory(&self) -> Result<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.worker()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse()?)
    }

    fn list(&self, rounds: usize) -> Result<()> {
        let count = fs::read_dir(self.daemon.path("jobs"))?.count();
        let plain = self.file("plain");
        fs::create_dir(&plain)?;
        (0..count).try_for_each(|index| fs::create_dir(plain.join(index.to_string())))?;
        for (words, most) in [(&["-l"][..], 150), (&[], 30)] {
            let name = format!("ls {}", words.join(" "));
            let jobs = self.daemon.path("jobs");
            let mut took = (Vec::new(), Vec::new());
            let first = ls(words, &jobs)?;
            for _ in 0..rounds {
                thread::sleep(STALE);
                took.0.push(ls(words, &jobs)?);
                took.1.push(ls(words, &plain)?);
            }
            let (ours, theirs) = (median(took.0), median(took.1));
            let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
            println!(
                "{name:6} of {count}: {ours:.1?} (at most {most} ms), the first time {first:.1?}; on tmpfs {theirs:.1?}, ratio {ratio:.2} (at most 2)"
            );
        }
        Ok(())
    }

    fn read_status(&self, rounds: usize, how: &str) -> Result<()> {
        let running = fs::read_dir(self.daemon.path("state/running"))?.count();
        let mut rng = Rng::from_env_or(1);
        let ids: Vec<String> = fs::read_dir(self.daemon.path("jobs"))?
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name != "new")
            .collect();
        let mut took = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let start = Instant::now();
            for _ in 0..STATUS_READS {
                look(Path::new(SYSFS))?;
            }
            took.0.push(start.elapsed() / STATUS_READS);
            // As somebody who watches a job: the same one again and again.
            let path = self.daemon.path(format!("jobs/{}/status", rng.pick(&ids)));
            let start = Instant::now();
            for _ in 0..STATUS_READS {
                look(&path)?;
            }
            took.1.push(start.elapsed() / STATUS_READS);
        }
        let (theirs, ours) = (median(took.0), median(took.1));
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        println!("status: {ours:.1?}, {SYSFS} {theirs:.1?}, ratio {ratio:.1}, while {running} copies run {how}");
        Ok(())
    }
}

/// Opens a file, reads it at once, closes it.
fn look(path: &Path) -> Result<()> {
    let mut text = [0; 4096];
    let length = File::open(path)?.read(&mut text)?;
    if length > 0 { Ok(()) } else { Err(format!("{} is empty", path.display()).into()) }
}

/// Lists a directory and says how long that took.
fn ls(words: &[&str], directory: &Path) -> Result<Duration> {
    std::io::stdout().flush()?;
    let start = Instant::now();
    let status = Command::new("ls").args(words).arg(directory).env("LC_ALL", "C").stdout(Stdio::null()).status()?;
    let took = start.elapsed();
    if status.success() { Ok(took) } else { Err(format!("ls {}: {status}", directory.display()).into()) }
}

fn median(mut figures: Vec<Duration>) -> Duration {
    figures.sort();
    figures[figures.len() / 2]
}
