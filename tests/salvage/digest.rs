//! The digest is that of the source, whatever happens on the way.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use kcopyfs_support::{Daemon, Fault, FaultDisk, Op, Rng, need};

use crate::{NEW, OLD, assert_same, at, disk, end, image, span, start, until};

const SIZE: u64 = 2 << 20;
/// The part that is copied, in bytes.
const FROM: u64 = 256 << 10;
const LEN: u64 = (1 << 20) + 24576;
const PIECE: u64 = 64 << 10;

const WAYS: [(&str, u32); 2] = [("io=uring", 512), ("io=threads", 4096)];

/// What `digest` must say of `data`, by other programs' reckoning.
pub(crate) fn expected(digest: &str, data: &[u8]) -> String {
    if digest == "blake3" {
        return format!("blake3:{}", blake3::hash(data).to_hex());
    }
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run sha256sum");
    child.stdin.take().expect("its input").write_all(data).expect("write to sha256sum");
    let output = child.wait_with_output().expect("sha256sum's answer");
    let text = String::from_utf8(output.stdout).expect("text");
    format!("sha256:{}", text.split_whitespace().next().expect("a digest"))
}

fn spec(from: &FaultDisk, to: &FaultDisk, words: &str) -> String {
    let (first, count) = (FROM / 512, LEN / 512);
    format!("from={},{first},{count} to={} {words}", from.path().display(), to.path().display())
}

fn source() -> Vec<u8> {
    image(SIZE, NEW)[span(&(FROM..FROM + LEN))].to_vec()
}

fn assert_digest(daemon: &Daemon, id: u64, state: &str, digest: &str, data: &[u8]) {
    let status = end(daemon, id, state);
    assert_eq!(status.digest(), Some(expected(digest, data).as_str()), "\n{status}");
}

#[test]
fn the_digest_is_that_of_the_source() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(12);
    for (io, block) in WAYS {
        let (from, to) = (disk(SIZE, block, NEW), disk(SIZE, block, OLD));
        let daemon = start(&["state=none", "subjob_kb=64", io]);
        for digest in ["sha256", "blake3"] {
            for words in ["", "write_seq", "verify", "sparse", "retries=3", "retries=3 write_seq", "on_read_error=zero"]
            {
                to.fill(OLD);
                // reads end out of order
                for piece in 0..8 {
                    let first = FROM + piece * 2 * PIECE;
                    let delay = Fault::Delay(Duration::from_millis(rng.below(6)));
                    from.rule(Op::Read, first..first + PIECE, delay).times(1);
                }
                if words.contains("retries") {
                    let bad = FROM + rng.below(LEN / 4096) * 4096;
                    from.rule(Op::Read, bad..bad + 4096, Fault::Err(libc::EIO)).times(rng.within(1..4));
                }
                let id = daemon.job(&spec(&from, &to, &format!("digest={digest} {words}"))).unwrap();
                assert_digest(&daemon, id, "done", digest, &source());
                assert_same(&to.contents_of(0..LEN), &source(), words);
                from.clear();
            }
        }
    }
}

#[test]
fn what_cannot_be_read_counts_as_zeros() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(13);
    for (io, block) in WAYS {
        let (from, to) = (disk(SIZE, block, NEW), disk(SIZE, block, OLD));
        let daemon = start(&["state=none", "subjob_kb=64", io]);
        for digest in ["sha256", "blake3"] {
            // kcopyd's flag makes zeros of the rest of the piece
            let holes = [("ignore_error", PIECE), ("on_read_error=zero", 1), ("on_read_error=skip", 1)];
            for (words, hole) in holes {
                to.fill(OLD);
                let mut data = source();
                let hole = hole.max(u64::from(block));
                for _ in 0..3 {
                    let first = rng.below(LEN / u64::from(block)) * u64::from(block);
                    from.rule(Op::Read, FROM + first..FROM + first + u64::from(block), Fault::Err(libc::EIO));
                    let end = (first + 1).next_multiple_of(hole).min(LEN);
                    data[at(first)..at(end)].fill(0);
                }
                let id = daemon.job(&spec(&from, &to, &format!("digest={digest} {words}"))).unwrap();
                assert_digest(&daemon, id, "degraded", digest, &data);
                if !words.contains("skip") {
                    assert_same(&to.contents_of(0..LEN), &data, words);
                }
                from.clear();
            }
        }
    }
}

/// Lets a job run until a write of the byte at `place` is waiting.
fn run_to(to: &FaultDisk, daemon: &Daemon, id: u64, place: u64) {
    to.rule(Op::Write, place.., Fault::Hang);
    daemon.control(id, "resume").unwrap();
    to.wait_parked(1);
    until("copied", || {
        let status = daemon.status(id);
        (status.copied() + status.bad_bytes() >= place / PIECE * PIECE).then_some(())
    });
}

#[test]
fn neither_a_pause_nor_a_crash_changes_the_digest() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(14);
    for (io, block) in WAYS {
        for (digest, words) in [("sha256", "on_read_error=zero"), ("blake3", "write_seq on_read_error=skip")] {
            let (from, to) = (disk(SIZE, block, NEW), disk(SIZE, block, OLD));
            let mut daemon = start(&["subjob_kb=64", io]);
            let mut data = source();
            // one hole before the first stop, one behind the last
            for hole in [PIECE, 15 * PIECE] {
                from.rule(Op::Read, FROM + hole..FROM + hole + u64::from(block), Fault::Err(libc::EIO));
                data[at(hole)..at(hole) + block as usize].fill(0);
            }
            let id = daemon.job(&spec(&from, &to, &format!("digest={digest} {words} paused"))).unwrap();
            run_to(&to, &daemon, id, rng.within(3..6) * PIECE);
            daemon.control(id, "pause").unwrap();
            to.release();
            until("durable", || (daemon.status(id).durable() >= 2 * PIECE).then_some(()));
            run_to(&to, &daemon, id, rng.within(8..12) * PIECE);
            if io == "io=threads" {
                // a thread in a hung write cannot be killed
                to.release();
                to.rule(Op::Write, .., Fault::Delay(Duration::from_millis(50)));
            }
            daemon.kill9();
            to.release();
            daemon.restart();
            if daemon.status(id).state() == "paused" {
                // the crash came before the verb was on disk
                daemon.control(id, "resume").unwrap();
            }
            assert_digest(&daemon, id, "degraded", digest, &data);
            if words.contains("zero") {
                assert_same(&to.contents_of(0..LEN), &data, words);
            }
        }
    }
}

#[test]
fn a_comparison_has_the_digest_of_the_source_too() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(15);
    for (io, block) in WAYS {
        for (digest, words, different) in
            [("sha256", "", false), ("blake3", "", true), ("sha256", "retries=1", false), ("blake3", "restart", true)]
        {
            let (from, to) = (disk(SIZE, block, NEW), disk(SIZE, block, OLD));
            to.load(0, &source());
            if different {
                to.load(rng.below(LEN / 4096) * 4096, &[0xee; 512]);
            }
            let restarts = words == "restart";
            let mut daemon = start(&["subjob_kb=64", io]);
            let mut data = source();
            if digest == "sha256" || restarts {
                for _ in 0..3 {
                    let first = rng.below(LEN / u64::from(block)) * u64::from(block);
                    from.rule(Op::Read, FROM + first..FROM + first + u64::from(block), Fault::Err(libc::EIO));
                    data[at(first)..at(first) + block as usize].fill(0);
                }
            }
            let words = if restarts { "speed_max=256K" } else { words };
            let id = daemon.job(&format!("verify {}", spec(&from, &to, &format!("digest={digest} {words}")))).unwrap();
            if restarts {
                until("progress", || (daemon.status(id).copied() > 0).then_some(()));
                daemon.stop();
                daemon.restart();
                daemon.write(format!("jobs/{id}/speed_max"), "max").unwrap();
            }
            let status = daemon.wait(id);
            assert_eq!(status.state(), if different { "failed" } else { state_of(&data) }, "\n{status}");
            if !different {
                assert_eq!(status.digest(), Some(expected(digest, &data).as_str()), "\n{status}");
            }
            let errors = daemon.errors(id);
            assert_eq!(errors.iter().any(|range| range.dest == Some(0)), different, "{errors:?}");
            // once more, with what is there now
            if !different && data == source() {
                daemon.control(id, "verify").unwrap();
                assert_digest(&daemon, id, "done", digest, &data);
            }
        }
    }
}

fn state_of(data: &[u8]) -> &'static str {
    if *data == source()[..] { "done" } else { "degraded" }
}
