//! The text commands of a disk, and the socket that a shell script sends them to.
//!
//! One line is one command, one line its answer: `ok ...` or `error: ...`. Positions are bytes; `K`, `M`, `G` multiply by
//! 1024, `s` by 512.
//!
//! ```text
//! rule read|write|flush LO HI err ERRNO | hang | delay MS | corrupt | drop | short N | misdirect TO  [xN]
//! clear | release | dead [ERRNO] | revive | powercut drop | keep N | random SEED
//! size N | mark TEXT | parked N | stat | path | down
//! ```

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use parking_lot::RwLock;

use crate::{
    faultdisk::{Builder, Fault, FaultDisk, Op, PowerCut},
    process::{self, Termination},
};

/// The disk that is served, until it is taken down.
type Served = Arc<RwLock<Option<FaultDisk>>>;

/// Serves a disk of that shape at `socket` until `down` or a signal; tells `ready` where the device is. Call it before
/// the program has other threads.
pub fn serve(builder: Builder, socket: &Path, ready: impl FnOnce(&Path)) -> io::Result<()> {
    let termination = Termination::block();
    let listener = UnixListener::bind(socket)?;
    let disk = builder.start();
    let path = disk.path();
    let served: Served = Arc::new(RwLock::new(Some(disk)));
    let for_clients = Arc::clone(&served);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let served = Arc::clone(&for_clients);
            thread::spawn(move || attend(&client, &served));
        }
    });
    ready(&path);
    termination.wait();
    drop(served.write().take());
    std::fs::remove_file(socket)
}

/// Sends `commands` to the disk at `socket` and returns its answers, a line each. After `down` it returns when the
/// server has ended.
pub fn send(socket: &Path, commands: &[String]) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    for command in commands {
        writeln!(stream, "{command}")?;
    }
    stream.shutdown(Shutdown::Write)?;
    let mut answers = String::new();
    stream.read_to_string(&mut answers)?;
    Ok(answers)
}

fn attend(client: &UnixStream, served: &Served) {
    let mut answers = client;
    for line in BufReader::new(client).lines().map_while(Result::ok) {
        if line.trim() == "down" {
            let _ = writeln!(answers, "ok");
            process::signal_self(libc::SIGTERM);
            // the client reads to the end, which is the end of this process
            loop {
                thread::park();
            }
        }
        let served = served.read();
        let Some(disk) = served.as_ref() else { return };
        let _ = match command(disk, &line) {
            Ok(text) if text.is_empty() => writeln!(answers, "ok"),
            Ok(text) => writeln!(answers, "ok {text}"),
            Err(text) => writeln!(answers, "error: {text}: {line}"),
        };
    }
}

/// Does one command.
fn command(disk: &FaultDisk, line: &str) -> Result<String, String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let none = || Ok(String::new());
    match words[..] {
        ["rule", op, low, high, ref fault @ ..] => rule(disk, op, number(low)?..number(high)?, fault),
        ["clear"] => {
            disk.clear();
            none()
        }
        ["release"] => Ok(format!("released={}", disk.release())),
        ["dead"] => {
            disk.dead(libc::EIO);
            none()
        }
        ["dead", errno] => {
            disk.dead(errno_number(errno)?);
            none()
        }
        ["revive"] => {
            disk.revive();
            none()
        }
        ["powercut", ref mode @ ..] => {
            let mode = match mode {
                ["drop"] => PowerCut::Drop,
                ["keep", count] => PowerCut::Keep(length(count)?),
                ["random", seed] => PowerCut::Random(number(seed)?),
                _ => return Err("drop, keep N or random SEED".to_owned()),
            };
            let cut = disk.powercut(mode);
            Ok(format!("writes={} sectors_kept={} sectors_lost={}", cut.writes, cut.sectors_kept, cut.sectors_lost))
        }
        ["size", size] => {
            disk.resize(number(size)?);
            none()
        }
        ["mark", ref text @ ..] => {
            disk.mark(&text.join(" "));
            none()
        }
        ["parked", count] => {
            disk.wait_parked(length(count)?);
            none()
        }
        ["stat"] => {
            let s = disk.stat();
            Ok(format!(
                "reads={} writes={} flushes={} parked={} pending={} max_request={}",
                s.reads, s.writes, s.flushes, s.parked, s.pending, s.max_request
            ))
        }
        ["path"] => Ok(disk.path().display().to_string()),
        _ => Err("no such command".to_owned()),
    }
}

fn rule(disk: &FaultDisk, op: &str, range: std::ops::Range<u64>, words: &[&str]) -> Result<String, String> {
    let op = match op {
        "read" => Op::Read,
        "write" => Op::Write,
        "flush" => Op::Flush,
        _ => return Err("read, write or flush".to_owned()),
    };
    let (words, times) = match words {
        [words @ .., last] if last.starts_with('x') => (words, Some(number(&last[1..])?)),
        _ => (words, None),
    };
    let fault = match words {
        ["err", errno] => Fault::Err(errno_number(errno)?),
        ["hang"] => Fault::Hang,
        ["delay", milliseconds] => Fault::Delay(Duration::from_millis(number(milliseconds)?)),
        ["corrupt"] => Fault::Corrupt,
        ["drop"] => Fault::Drop,
        ["short", count] => Fault::Short(length(count)?),
        ["misdirect", to] => Fault::Misdirect(number(to)?),
        _ => return Err("no such fault".to_owned()),
    };
    if range.is_empty() {
        return Err("a rule for no byte never fires".to_owned());
    }
    if !fault.fits(op) {
        return Err("that cannot happen to it".to_owned());
    }
    let rule = disk.rule(op, range, fault);
    if let Some(times) = times {
        rule.times(times);
    }
    Ok(String::new())
}

/// A number with an optional unit; `end` is the largest.
pub fn number(text: &str) -> Result<u64, String> {
    if text == "end" {
        return Ok(u64::MAX);
    }
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G') => (&text[..text.len() - 1], 1 << 30),
        Some(b's') => (&text[..text.len() - 1], 512),
        _ => (text, 1),
    };
    let number = digits.parse::<u64>().map_err(|_| format!("{text} is not a number"))?;
    number.checked_mul(unit).ok_or_else(|| format!("{text} is too large"))
}

fn length(text: &str) -> Result<usize, String> {
    number(text).and_then(|number| usize::try_from(number).map_err(|_| format!("{text} is too large")))
}

fn errno_number(text: &str) -> Result<i32, String> {
    text.parse().map_err(|_| format!("{text} is not the number of an errno"))
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_take_units() {
        assert_eq!(
            ["7", "3s", "2K", "1M", "end"].map(|text| number(text).unwrap()),
            [7, 1536, 2048, 1 << 20, u64::MAX]
        );
        for bad in ["", "K", "1T", "-1", "99999999999G"] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }
}
