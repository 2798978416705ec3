//! The engine against a bare ring, and the mounted tree against both.
//!
//! `cargo bench --bench engine`, as root. Scratch images on tmpfs under loop devices with direct I/O, so that no disk
//! is measured. Four contenders copy one source to one destination and to four, in turn, each with the final flush:
//! * `raw`: an `io_uring` loop of this bench, the least code that can do it;
//! * `engine`: [`Client::copy`] in this process;
//! * `tree`: the built program, by its own status figures;
//! * `kept`: the same with a state directory, on the disk of the temporary directory.
//!
//! Each round gives a ratio to `raw`, and only ratios say anything: what the machine does besides hits all alike. The
//! contender that begins changes from round to round. Round 0 warms up and is not counted. After every copy the first
//! and last MiB of every destination and samples between are compared, so that a wrong copy cannot win.
//!
//! | environment | default | |
//! |---|---|---|
//! | `KCOPYFS_BENCH_MB` | 2048 | size of an image; five of them must fit into `/dev/shm` |
//! | `KCOPYFS_BENCH_ROUNDS` | 7 | rounds that count |
//!
//! It skips, loudly, where it is not root or gets no loop device; under `CI=true` that is a failure.

mod raw;
mod scratch;

use std::error::Error;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use kcopyfs::Sector;
use kcopyfs::blkdev::{OpenDest, open_dest, open_source};
use kcopyfs::dm_io::IoRegion;
use kcopyfs::io::PagePool;
use kcopyfs::kcopyd::{Client, Flags, Settings};
use kcopyfs_support::{Daemon, need};

use raw::Raw;
use scratch::Scratch;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The most destinations of a run.
const DESTS: usize = 4;
/// The pool and the client of a tree that is mounted without options.
const POOL_PAGES: u32 = 8192;
const CLIENT_PAGES: u32 = 1024;

/// Whoever copies. Everything that can be is made before the clock starts.
struct Contender {
    name: &'static str,
    copy: CopyTo,
}

/// Copies the source to so many destinations and says how long that took.
type CopyTo = Box<dyn FnMut(&Scratch, usize) -> Result<Duration>>;

fn main() -> ExitCode {
    // `cargo test --all-targets` builds and starts benches too, without this word.
    if !std::env::args().any(|word| word == "--bench") {
        println!("engine: a benchmark; run it by `cargo bench --bench engine`");
        return ExitCode::SUCCESS;
    }
    // Under CI=true it does not come back without.
    if !need::loops() {
        return ExitCode::SUCCESS;
    }
    let scratch = Scratch::new(setting("KCOPYFS_BENCH_MB", 2048), DESTS);
    let rounds = setting("KCOPYFS_BENCH_ROUNDS", 7);
    match race_all(&scratch, rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("engine: {error}");
            ExitCode::FAILURE
        }
    }
}

fn setting(name: &str, default: u32) -> u32 {
    let number = std::env::var(name).map_or(Some(default), |text| text.parse().ok());
    number.filter(|number| *number > 0).unwrap_or_else(|| panic!("{name}: give a number from 1"))
}

fn race_all(scratch: &Scratch, rounds: u32) -> Result<()> {
    let mut contenders = vec![raw_loop()?, engine()?];
    for (name, options) in [("tree", &["state=none"][..]), ("kept", &[])] {
        match mounted_tree(name, options) {
            Ok(tree) => contenders.push(tree),
            Err(error) => println!("{name}: LEFT OUT, {error}"),
        }
    }
    for dests in [1, DESTS] {
        race(scratch, &mut contenders, dests, rounds)?;
    }
    Ok(())
}

fn raw_loop() -> Result<Contender> {
    let mut raw = Raw::new()?;
    let copy = move |scratch: &Scratch, dests: usize| {
        let (from, to) = scratch.open(dests)?;
        let start = Instant::now();
        raw.copy(&from, &to, scratch.bytes())?;
        Ok(start.elapsed())
    };
    Ok(Contender { name: "raw", copy: Box::new(copy) })
}

fn engine() -> Result<Contender> {
    let pool = PagePool::new(POOL_PAGES)?;
    let client = Client::create(&pool, CLIENT_PAGES, Settings::default())?;
    let (backend, figures) = (client.backend(), pool.figures());
    println!(
        "engine: backend {backend}, fixed buffers {}, pages locked {}, huge {}",
        client.has_fixed_buffers(),
        figures.locked,
        figures.huge
    );
    Ok(Contender { name: "engine", copy: Box::new(move |scratch, dests| engine_copy(&client, scratch, dests)) })
}

fn engine_copy(client: &Client, scratch: &Scratch, dests: usize) -> Result<Duration> {
    let count = Sector::whole_in(scratch.bytes());
    let from = IoRegion::new(&open_source(scratch.source(), 0)?, Sector::ZERO, count);
    let to: std::result::Result<Vec<_>, _> =
        scratch.dests(dests).map(|path| open_dest(path, OpenDest::default())).collect();
    let to: Vec<_> = to?.iter().map(|device| IoRegion::new(device, Sector::ZERO, count)).collect();
    let start = Instant::now();
    let (sender, ended) = mpsc::channel();
    client.copy(&from, &to, Flags::NONE, sender, |outcome, sender| _ = sender.send(outcome))?;
    let outcome = ended.recv()?;
    let (sender, ended) = mpsc::channel();
    for region in &to {
        let sender = sender.clone();
        client.flush(region.device.clone(), move |result| _ = sender.send(result));
    }
    let flushed: Vec<_> = ended.iter().take(to.len()).collect();
    let elapsed = start.elapsed();
    let failed = outcome.read_err || outcome.cancelled || !outcome.write_err.is_empty();
    if failed || flushed.iter().any(std::result::Result::is_err) {
        return Err(format!("the engine's copy failed: {outcome:?}, flush {flushed:?}").into());
    }
    Ok(elapsed)
}

/// Without an option of `state=` it keeps its jobs in a scratch directory.
fn mounted_tree(name: &'static str, options: &[&str]) -> Result<Contender> {
    let program = Daemon::builder(env!("CARGO_BIN_EXE_kcopyfs"));
    let daemon = options.iter().fold(program, |daemon, option| daemon.option(*option));
    let daemon = daemon.try_start().map_err(|refused| format!("it did not start: {refused:?}"))?;
    Ok(Contender { name, copy: Box::new(move |scratch, dests| tree_copy(&daemon, scratch, dests)) })
}

/// One job, and its running time by its own account.
fn tree_copy(daemon: &Daemon, scratch: &Scratch, dests: usize) -> Result<Duration> {
    let to: Vec<String> = scratch.dests(dests).map(|path| format!("to={}", path.display())).collect();
    let id = daemon.job(&format!("copy from={} {}", scratch.source().display(), to.join(" ")))?;
    let status = daemon.wait(id);
    if status.state() != "done" || status.total() != scratch.bytes() {
        return Err(format!("job {id} is not done:\n{status}").into());
    }
    Ok(Duration::from_micros(status.get("elapsed_usec").parse()?))
}

/// Lets all copy in turn and prints what came of it.
fn race(scratch: &Scratch, contenders: &mut [Contender], dests: usize, rounds: u32) -> Result<()> {
    let megabytes = f64::from(scratch.mebibytes()) * 1.048_576;
    println!("\n{} MiB to {dests} destination(s), MB/s of the source, ratio to raw", scratch.mebibytes());
    // One row a contender, one column a round.
    let mut speeds = vec![Vec::new(); contenders.len()];
    for round in 0..=rounds {
        for turn in 0..contenders.len() {
            let index = (turn + round as usize) % contenders.len();
            scratch.spoil(dests)?;
            let elapsed = (contenders[index].copy)(scratch, dests)?;
            scratch.compare(dests).map_err(|error| format!("{}: {error}", contenders[index].name))?;
            if round > 0 {
                speeds[index].push(megabytes / elapsed.as_secs_f64());
            }
        }
        if round > 0 {
            let latest = contenders.iter().zip(&speeds).map(|(contender, own)| (contender.name, own[own.len() - 1]));
            let figures: Vec<String> = latest.map(|(name, speed)| format!("{name} {speed:.0}")).collect();
            println!("round {round}: {}", figures.join("  "));
        }
    }
    for (contender, own) in contenders.iter().zip(&speeds) {
        let ratios: Vec<f64> = own.iter().zip(&speeds[0]).map(|(own, raw)| own / raw).collect();
        let (low, middle, high) = spread(&ratios);
        let (_, speed, _) = spread(own);
        println!(
            "{:>8}: median {speed:6.0} MB/s  ratio min {low:.3}  median {middle:.3}  max {high:.3}",
            contender.name
        );
    }
    Ok(())
}

/// Least, median, largest.
fn spread(figures: &[f64]) -> (f64, f64, f64) {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.as_slice() {
        [] => (f64::NAN, f64::NAN, f64::NAN),
        all => (all[0], all[all.len() / 2], all[all.len() - 1]),
    }
}
