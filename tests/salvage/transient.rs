//! Errors that pass, and flushes that fail.

use std::ops::Range;

use kcopyfs_support::{Fault, FaultDisk, Op, Rng, need, stamp};

use crate::{NEW, OLD, disk, end, map, mapped, spec, stamped, start, until};

const SIZE: u64 = 1 << 20;

/// Both backends, both sizes of block.
const WAYS: [(&str, u32); 2] = [("io=uring", 512), ("io=threads", 4096)];

fn random_block(rng: &mut Rng, block: u32) -> Range<u64> {
    let block = u64::from(block);
    let first = rng.below(SIZE / block) * block;
    first..first + block
}

#[test]
fn a_read_error_that_passes_needs_as_many_retries() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(3);
    for (io, block) in WAYS {
        let (from, to) = (disk(SIZE, block, NEW), [disk(SIZE, block, OLD)]);
        let daemon = start(&["state=none", "subjob_kb=64", io]);
        for (times, retries) in (1..=5).flat_map(|times| (0..=5).map(move |retries| (times, retries))) {
            to[0].fill(OLD);
            let rule = from.rule(Op::Read, random_block(&mut rng, block), Fault::Err(libc::EIO)).times(times);
            let words = format!("retries={retries} {}", rng.pick(&["", "write_seq", "digest=sha256"]));
            let id = daemon.job(&spec(&from, &to, &words)).unwrap();
            let passes = retries >= times;
            let status = end(&daemon, id, if passes { "done" } else { "failed" });
            // A job that fails has its bad block looked for, which may meet the error again.
            let tries = times.min(retries + 1);
            assert!(rule.hits() == tries || !passes && (tries..=times).contains(&rule.hits()), "{words}");
            assert_eq!((status.read_err(), status.bad_bytes() == 0), (!passes, passes), "\n{status}");
            assert_eq!(daemon.errors(id).is_empty(), passes, "{words}");
            assert!(!passes || to[0].check(NEW).is_ok(), "{words}");
            from.clear();
        }
    }
}

#[test]
fn a_write_error_that_passes_needs_as_many_retries() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(4);
    for (io, block) in WAYS {
        let (from, to) = (disk(SIZE, block, NEW), [0, 1].map(|index| disk(SIZE, block, OLD + index)));
        let daemon = start(&["state=none", "subjob_kb=64", io]);
        for (times, retries) in (1..=5).flat_map(|times| (0..=5).map(move |retries| (times, retries))) {
            to[0].fill(OLD);
            to[1].fill(OLD + 1);
            let bad = usize::from(rng.one_in(2));
            let rule = to[bad].rule(Op::Write, random_block(&mut rng, block), Fault::Err(libc::EREMOTEIO)).times(times);
            let words = format!("retries={retries} {}", rng.pick(&["", "write_seq", "on_write_error=stop"]));
            let id = daemon.job(&spec(&from, &to, &words)).unwrap();
            let passes = retries >= times;
            let stops = words.contains("stop");
            let state = match passes {
                true => "done",
                false if stops => "failed",
                false => "degraded",
            };
            let status = end(&daemon, id, state);
            assert_eq!(rule.hits(), times.min(retries + 1), "{words}");
            assert_eq!(status.write_err(), if passes { 0 } else { 1 << bad }, "\n{status}");
            assert_eq!(daemon.errors(id).is_empty(), passes, "{words}");
            for (index, disk) in to.iter().enumerate() {
                let dest = &daemon.dests(id)[index];
                let is_good = passes || (index != bad && !stops);
                assert!(!is_good || dest.state == "done" && dest.errors == 0, "{dest:?}");
                assert!(passes || index != bad || dest.state == "failed", "{dest:?}");
                // the job may have ended before it had all
                assert!(dest.state != "done" || disk.check(NEW).is_ok(), "{words}: destination {index}");
                disk.clear();
            }
        }
    }
}

/// Three disks with caches, so that what was not flushed is not there.
fn cached(block: u32) -> [FaultDisk; 3] {
    [0, 1, 2].map(|index| stamped(FaultDisk::builder(SIZE).block(block).volatile(true).merging(false), OLD + index))
}

#[test]
fn a_flush_that_failed_once_is_never_forgotten() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        for words in ["", "retries=5", "verify", "write_seq", "digest=sha256", "ignore_error", "on_write_error=stop"] {
            for bad in 0..3 {
                let (from, to) = (disk(SIZE, block, NEW), cached(block));
                let daemon = start(&["state=none", io]);
                // only once: the next flush would succeed, and say nothing of what the failed one lost
                to[bad].rule(Op::Flush, .., Fault::Err(libc::EIO)).times(1);
                let id = daemon.job(&spec(&from, &to, words)).unwrap();
                let status = daemon.wait(id);
                let state = if words.contains("stop") { "failed" } else { "degraded" };
                assert_eq!(status.state(), state, "{words}\n{status}");
                assert_eq!(status.write_err(), 1 << bad, "{words}\n{status}");
                let dest = &daemon.dests(id)[bad];
                assert_eq!((dest.state.as_str(), dest.durable), ("failed", 0), "{words}: {dest:?}");
                assert_eq!((dest.errno.as_deref(), dest.errors), (Some("EIO"), 1), "{words}: {dest:?}");
                assert_eq!(mapped(&map(&daemon, id, bad), '+'), [], "{words}");
                for (index, disk) in to.iter().enumerate().filter(|(index, _)| *index != bad) {
                    assert_eq!(disk.check(NEW), Ok(()), "{words}: destination {index}");
                }
                if words.is_empty() {
                    // the whole of it, again
                    daemon.control(id, "retry").unwrap();
                    let status = end(&daemon, id, "done");
                    assert_eq!((status.write_err(), status.durable()), (0, SIZE), "\n{status}");
                    assert_eq!(to[bad].check(NEW), Ok(()));
                }
            }
        }
    }
}

#[test]
fn a_flush_that_fails_at_a_pause_takes_back_nothing_that_was_durable_and_adds_nothing() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        let (from, to) = (disk(SIZE, block, NEW), cached(block));
        let mut daemon = start(&["subjob_kb=16", io]);
        let id = daemon.job(&(spec(&from, &to, "paused"))).unwrap();
        // twice it stops at a place, and the second time the flush fails
        for (place, fails) in [(SIZE / 8, false), (SIZE / 2, true)] {
            from.rule(Op::Read, place.., Fault::Hang);
            if fails {
                to[1].rule(Op::Flush, .., Fault::Err(libc::EIO)).times(1);
            }

            daemon.control(id, "resume").unwrap();
            from.wait_parked(1);
            until("copied", || (daemon.status(id).copied() >= place).then_some(()));
            daemon.control(id, "pause").unwrap();
            from.release();
            until("durable", || {
                let is_settled = |dest: &kcopyfs_support::daemon::Dest| dest.durable >= place || dest.state == "failed";
                daemon.dests(id).iter().all(is_settled).then_some(())
            });
        }
        let dests = daemon.dests(id);
        assert!(dests[0].durable >= SIZE / 2 && dests[0].durable == dests[2].durable, "{dests:?}");
        assert!((SIZE / 8..SIZE / 2).contains(&dests[1].durable), "{dests:?}");
        assert_eq!((dests[1].errno.as_deref(), daemon.status(id).write_err()), (Some("EIO"), 2));
        let kept = mapped(&map(&daemon, id, 1), '+');
        for range in &kept {
            let data = to[1].contents_of(range.clone());
            assert_eq!(stamp::check(&data, NEW, range.start / 512), Ok(()), "`+` and not on the medium");
        }
        // nor does a crash make it good
        daemon.kill9();
        daemon.restart();
        until("the job", || (daemon.status(id).state() == "paused").then_some(()));
        assert_eq!((mapped(&map(&daemon, id, 1), '+'), daemon.status(id).write_err()), (kept, 2));
        daemon.control(id, "resume").unwrap();
        let status = end(&daemon, id, "degraded");
        assert_eq!((status.write_err(), status.durable()), (2, SIZE), "\n{status}");
        assert_eq!(daemon.dests(id)[1].state, "failed");
        for index in [0, 2] {
            assert_eq!(to[index].check(NEW), Ok(()));
        }
    }
}
