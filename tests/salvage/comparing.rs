//! Comparisons that meet errors: what cannot be read back, what was bad before, and what is sound the next time.

use kcopyfs_support::{Daemon, Fault, FaultDisk, Op, Rng, need};

use crate::merging::{SIZE, fail, merging};
use crate::{NEW, OLD, end, listed, map, mapped, rounds, spec, start, until};

fn verify(daemon: &Daemon, id: u64, state: &str) {
    daemon.control(id, "verify").unwrap();
    end(daemon, id, state);
}

#[test]
fn what_a_comparison_cannot_read_is_told_to_the_block() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(31);
    for (io, block) in [("io=uring", 512), ("io=threads", 4096)] {
        let from = merging(block, NEW);
        let to = [merging(block, OLD), merging(block, OLD)];
        let daemon = start(&["state=none", io]);
        let block = u64::from(block);
        for _ in 0..rounds(2, 50) {
            let copy = daemon.job(&spec(&from, &to, "")).unwrap();
            end(&daemon, copy, "done");
            // read back, by the word and by the action
            let bad = fail(&to[1], block, &mut rng);
            for (action, words) in [("copy", "verify"), ("verify", "")] {
                let id = daemon.job(&format!("{action} {}", spec(&from, &to, words))).unwrap();
                let status = end(&daemon, id, "degraded");
                assert_eq!(listed(&daemon.errors(id), Some(1)), std::slice::from_ref(&bad), "{action}\n{status}");
                assert_eq!(mapped(&map(&daemon, id, 1), '?'), std::slice::from_ref(&bad), "{action}");
                assert_eq!((status.write_err(), status.bad_bytes()), (2, 0), "{action}\n{status}");
            }
            to[1].clear();
            let bad = fail(&from, block, &mut rng);
            let id = daemon.job(&format!("verify {}", spec(&from, &to, "on_read_error=skip"))).unwrap();
            let status = end(&daemon, id, "degraded");
            assert_eq!(listed(&daemon.errors(id), None), std::slice::from_ref(&bad), "\n{status}");
            assert_eq!((status.bad_bytes(), status.copied()), (block, SIZE - block), "\n{status}");
            // one that passes is none
            from.clear();
            to[0].rule(Op::Read, bad, Fault::Err(libc::EIO)).times(3);
            let id = daemon.job(&format!("verify {}", spec(&from, &to, "retries=3"))).unwrap();
            end(&daemon, id, "done");
            to[0].clear();
        }
    }
}

#[test]
fn a_destination_that_is_equal_the_next_time_is_whole() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(32);
    let (from, to) = (merging(512, NEW), [merging(512, OLD), merging(512, OLD)]);
    let daemon = start(&["state=none"]);
    for fault in [Fault::Corrupt, Fault::Err(libc::EIO)] {
        let id = daemon.job(&spec(&from, &to, "")).unwrap();
        end(&daemon, id, "done");
        let start = rng.below(SIZE / 512) * 512;
        to[0].rule(Op::Read, start..start + 512, fault);
        verify(&daemon, id, "degraded");
        assert_eq!(mapped(&map(&daemon, id, 0), '?'), std::iter::once(start..start + 512).collect::<Vec<_>>());
        to[0].clear();
        verify(&daemon, id, "done");
        let status = daemon.status(id);
        assert_eq!((status.copied(), status.durable(), status.error()), (SIZE, SIZE, None), "\n{status}");
        let dests = daemon.dests(id);
        assert!(dests.iter().all(|dest| dest.state == "done" && dest.durable == SIZE), "{dests:?}");
        assert!(mapped(&map(&daemon, id, 0), '?').is_empty() && daemon.errors(id).is_empty());
    }
}

#[test]
fn a_comparison_keeps_what_was_bad_before() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(33);
    for words in ["on_read_error=zero", "on_read_error=skip"] {
        let (from, to) = (merging(512, NEW), [merging(512, OLD), merging(512, OLD), merging(512, OLD)]);
        let daemon = start(&["state=none"]);
        let bad = fail(&from, 512, &mut rng);
        to[1].rule(Op::Write, SIZE / 2..SIZE / 2 + 512, Fault::Err(libc::EIO));
        // a flush that failed is not mended by reading back
        to[2].rule(Op::Flush, .., Fault::Err(libc::EIO)).times(1);
        let id = daemon.job(&spec(&from, &to, words)).unwrap();
        end(&daemon, id, "degraded");
        let shown = |daemon: &Daemon| {
            let status = daemon.status(id);
            let files = ["dests", "errors", "map.0", "map.1", "map.2"];
            let files = files.map(|file| daemon.read(format!("jobs/{id}/{file}")).unwrap());
            (status.bad_bytes(), status.write_err(), status.copied(), status.error().map(str::to_owned), files)
        };
        let before = shown(&daemon);
        assert_eq!((before.0, before.1), (512, 6));
        verify(&daemon, id, "degraded");
        assert_eq!(shown(&daemon), before, "{words}");
        // it can be read now, but that is not what was copied
        from.clear();
        to.iter().for_each(FaultDisk::clear);
        verify(&daemon, id, "degraded");
        assert_eq!(shown(&daemon), before, "{words}");
        daemon.control(id, "retry").unwrap();
        end(&daemon, id, "done");
        assert!(to.iter().all(|disk| disk.check(NEW).is_ok()) && bad.end <= SIZE);
    }
}

#[test]
fn a_comparison_can_be_paused_and_goes_on_after_a_restart() {
    if !need::fault_disk() {
        return;
    }
    for io in ["io=uring", "io=threads"] {
        let (from, to) = (merging(512, NEW), [merging(512, NEW), merging(512, NEW)]);
        let bad = SIZE - 512..SIZE;
        to[1].load(bad.start, &[0; 512]);
        let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_kcopyfs")).option(io).start();
        let id = daemon.job(&format!("verify {}", spec(&from, &to, "speed_max=4K"))).unwrap();
        until("progress", || (daemon.status(id).copied() > 0).then_some(()));
        daemon.control(id, "pause").unwrap();
        assert_eq!(daemon.status(id).state(), "paused");
        for restarts in [false, true] {
            if restarts {
                daemon.kill9();
                daemon.restart();
            }
            assert_eq!(daemon.status(id).state(), "paused");
            daemon.write(format!("jobs/{id}/speed_max"), if restarts { "max" } else { "4K" }).unwrap();
            daemon.control(id, "resume").unwrap();
            if !restarts {
                until("verifying", || (daemon.status(id).state() == "verifying").then_some(()));
                daemon.control(id, "pause").unwrap();
            }
        }
        let status = end(&daemon, id, "degraded");
        assert_eq!((status.write_err(), status.read_err()), (2, false), "\n{status}");
        assert_eq!(listed(&daemon.errors(id), Some(1)), std::slice::from_ref(&bad), "\n{status}");
        assert_eq!(daemon.dests(id)[0].state, "done");
    }
}
