//! Every mode of a job beside what a user would type instead, on the same disks, in alternating rounds.
//!
//! `cargo bench --bench modes`, as root. Disks are loop devices over files in memory, so what is measured is the work of the programs
//! and of the kernel, and not that of a medium. Each round does everything once: the jobs through the mounted tree, the commands in a
//! shell. Printed is the median of the rounds, and how often as fast as the command the job is (above 1 is faster).
//!
//! | environment | default | |
//! |---|---|---|
//! | `KCOPYFS_BENCH_MIB` | 512 | size of the disks |
//! | `KCOPYFS_BENCH_ROUNDS` | 5 | rounds, of which the median counts |

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use kcopyfs_support::{Daemon, LoopDevice, need};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const MIB: u64 = 1 << 20;
const SEED: u64 = 77;
/// The hole of the sparse file.
const HOLE: u64 = 2 << 40;

fn main() -> ExitCode {
    // `cargo test --all-targets` builds and starts benches too, without this word.
    if !std::env::args().any(|word| word == "--bench") {
        println!("modes: a benchmark; run it by `cargo bench --bench modes`");
        return ExitCode::SUCCESS;
    }
    if !need::fuse() || !need::loops() {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("modes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let number = std::env::var(name).map_or(Some(default), |text| text.parse().ok());
    number.filter(|number| *number > 0).unwrap_or_else(|| panic!("{name}: give a number from 1"))
}

/// A mode, and what does the same.
struct Mode {
    name: &'static str,
    /// A spec.
    job: String,
    /// Done before each of both, without being measured.
    before: String,
    /// What a user would type; none where nothing does the same.
    command: Option<String>,
    /// Bytes that it is about.
    bytes: u64,
}

struct Measured {
    job: Vec<Duration>,
    command: Vec<Duration>,
}

fn run() -> Result<()> {
    let (mib, rounds) = (setting("KCOPYFS_BENCH_MIB", 512), setting("KCOPYFS_BENCH_ROUNDS", 5));
    let bytes = mib * MIB;
    let disk = |seed: Option<u64>| {
        let disk = LoopDevice::new(bytes, 4096);
        if let Some(seed) = seed {
            disk.fill(seed);
        }
        disk
    };
    let (source, zeros, dest, same) = (disk(Some(SEED)), disk(None), disk(None), disk(Some(SEED)));
    let folder = tempfile::Builder::new().prefix("kcopyfs-modes-").tempdir_in("/dev/shm")?;
    let image = folder.path().join("image");
    shell(&format!("cp {} {}", source.path().display(), image.display()))?;
    let thin = thin(folder.path())?;
    let made = folder.path().join("made");
    let daemon = Daemon::builder(env!("CARGO_BIN_EXE_kcopyfs")).option("state=none");
    let daemon = daemon.try_start().map_err(|refused| format!("it did not start: {refused:?}"))?;
    let shown = |path: &Path| path.display().to_string();
    let [from, blank, to, equal] = [&source, &zeros, &dest, &same].map(|disk| shown(disk.path()));
    let [image, thin, made] = [&image, &thin, &made].map(|path| shown(path));
    let sum = shell(&format!("sha256sum {image} | cut -d' ' -f1"))?;
    let sum = sum.trim();
    let dd =
        |source: &str| format!("dd if={source} of={to} bs=1M iflag=direct oflag=direct conv=fsync,notrunc status=none");
    let new = |name, job: String, command: Option<String>| Mode { name, job, before: String::new(), command, bytes };
    let modes = [
        new("copy", format!("from={from} to={to}"), Some(dd(&from))),
        new("copy, write_seq", format!("from={from} to={to} write_seq"), Some(dd(&from))),
        new("copy, verify", format!("from={from} to={to} verify"), Some(format!("{} && cmp {from} {to}", dd(&from)))),
        new(
            "copy, digest=sha256",
            format!("from={from} to={to} digest=sha256"),
            Some(format!("{} && sha256sum {from}", dd(&from))),
        ),
        new("copy, digest=blake3", format!("from={from} to={to} digest=blake3"), Some(dd(&from))),
        new(
            "copy, both digests",
            format!("from={from} to={to} digest=sha256,blake3"),
            Some(format!("{} && sha256sum {from}", dd(&from))),
        ),
        new(
            "copy, sparse, of data",
            format!("from={from} to={to} sparse"),
            Some(dd(&from).replace("notrunc", "notrunc,sparse")),
        ),
        new("copy, sparse, of zeros", format!("from={blank} to={to} sparse"), Some(dd(&blank))),
        new("zero", format!("zero to={to},0,{}", bytes / 512), Some(format!("blkdiscard -z {to}"))),
        new("verify", format!("verify from={from} to={equal}"), Some(format!("cmp {from} {equal}"))),
        new("verify, a sum", format!("verify from={image} digest=sha256:{sum}"), Some(format!("sha256sum {image}"))),
        Mode {
            name: "copy, sparse, 2 TiB of hole",
            job: format!("from={thin} to={made} create sparse"),
            before: format!("rm -f {made}"),
            command: Some(format!("cp --sparse=always {thin} {made}")),
            bytes: HOLE,
        },
    ];
    let mut measured: Vec<Measured> = modes.iter().map(|_| Measured { job: Vec::new(), command: Vec::new() }).collect();
    for _ in 0..rounds {
        for (mode, measured) in modes.iter().zip(&mut measured) {
            shell(&mode.before)?;
            let begun = Instant::now();
            let id = daemon.job(&mode.job)?;
            let status = daemon.wait(id);
            measured.job.push(begun.elapsed());
            if status.state() != "done" {
                return Err(format!("{}: {status}", mode.job).into());
            }
            shell(&mode.before)?;
            if let Some(command) = &mode.command {
                let begun = Instant::now();
                shell(command)?;
                measured.command.push(begun.elapsed());
            }
        }
    }
    println!("{mib} MiB, {rounds} rounds");
    println!("{:<28} {:>10} {:>10} {:>6}", "mode", "MiB/s", "command", "ratio");
    for (mode, measured) in modes.iter().zip(&mut measured) {
        let job = median(&mut measured.job);
        let rate = |time: Duration| mebibytes(mode.bytes) / time.as_secs_f64();
        match &mode.command {
            Some(command) => {
                let other = median(&mut measured.command);
                let ratio = other.as_secs_f64() / job.as_secs_f64();
                println!("{:<28} {:>10.0} {:>10.0} {ratio:>6.2}  {}", mode.name, rate(job), rate(other), word(command));
            }
            None => println!("{:<28} {:>10.0}", mode.name, rate(job)),
        }
    }
    Ok(())
}

/// A file that is a hole but for a little at its ends.
fn thin(folder: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::FileExt as _;
    let path = folder.join("thin");
    let file = File::create(&path)?;
    file.set_len(HOLE)?;
    for at in [0, HOLE / 2, HOLE - MIB] {
        file.write_all_at(&vec![1; usize::try_from(MIB)?], at)?;
    }
    Ok(path)
}

/// What the command is, in a word or two.
fn word(command: &str) -> String {
    let parts = command.split(" && ").map(|part| part.split(' ').next().unwrap_or_default());
    parts.collect::<Vec<_>>().join(" + ")
}

fn mebibytes(bytes: u64) -> f64 {
    u32::try_from(bytes / MIB).map_or(f64::MAX, f64::from)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn shell(script: &str) -> Result<String> {
    let output = Command::new("sh").args(["-c", script]).output()?;
    if !output.status.success() {
        return Err(format!("{script}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
