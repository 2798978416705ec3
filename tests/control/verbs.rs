//! Every verb in every state: what write(2) says, and which changes of state follow.

use std::fs;

use kcopyfs_support::{Fault, FaultDisk, Op, need};

use crate::bench::{Bench, IMAGE};

/// Each copies to one destination: without that it ends.
const VERBS: [&str; 6] = ["pause", "resume", "cancel", "retry", "verify", "drop 0"];

/// What a verb does.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// It is taken, and these changes follow.
    Makes(&'static [&'static str]),
    /// It is taken, and nothing changes: it is so already.
    Nothing,
    /// It is refused, and nothing changes.
    Refused(i32),
}

use Does::{Makes, Nothing, Refused};

const BUSY: Does = Refused(libc::EBUSY);
const INVALID: Does = Refused(libc::EINVAL);

/// For each state what each of [`VERBS`] does. Jobs that run here are slow, so they are still running at the end; what is
/// verified in `degraded` and `failed` is different.
const TABLE: [(&str, [Does; 6]); 10] = [
    (
        "queued",
        [Makes(&["queued paused"]), Nothing, Makes(&["queued cancelled"]), BUSY, BUSY, Makes(&["queued cancelled"])],
    ),
    (
        "running",
        [Makes(&["running paused"]), Nothing, Makes(&["running cancelled"]), BUSY, BUSY, Makes(&["running cancelled"])],
    ),
    (
        "paused",
        [
            Nothing,
            Makes(&["paused queued", "queued running"]),
            Makes(&["paused cancelled"]),
            BUSY,
            BUSY,
            Makes(&["paused cancelled"]),
        ],
    ),
    ("flushing", [BUSY, Nothing, Makes(&["flushing cancelled"]), BUSY, BUSY, Makes(&["flushing cancelled"])]),
    (
        "verifying",
        [
            Makes(&["verifying paused"]),
            Nothing,
            Makes(&["verifying cancelled"]),
            BUSY,
            BUSY,
            Makes(&["verifying cancelled"]),
        ],
    ),
    (
        "done",
        [INVALID, INVALID, INVALID, INVALID, Makes(&["done queued", "queued verifying", "verifying done"]), INVALID],
    ),
    (
        "degraded",
        [
            INVALID,
            INVALID,
            INVALID,
            Makes(&["degraded queued", "queued verifying", "verifying degraded"]),
            Makes(&["degraded queued", "queued verifying", "verifying degraded"]),
            INVALID,
        ],
    ),
    (
        "failed",
        [
            INVALID,
            INVALID,
            INVALID,
            Makes(&["failed queued", "queued verifying", "verifying failed"]),
            INVALID,
            INVALID,
        ],
    ),
    ("cancelled", [INVALID, INVALID, INVALID, Makes(&["cancelled queued", "queued running"]), INVALID, INVALID]),
    (
        "held",
        [
            INVALID,
            Makes(&["held queued", "queued running"]),
            Makes(&["held cancelled"]),
            BUSY,
            BUSY,
            Makes(&["held cancelled"]),
        ],
    ),
];

#[test]
fn every_verb_in_every_state_needs_root() {
    if !need::fault_disk() {
        return;
    }
    let Some(mut bench) = Bench::new(&[]) else { return };
    let held: Vec<u64> = VERBS.iter().map(|verb| bench.slow(&image_of(verb), "")).collect();
    exchange(&mut bench, &held);
    for (state, row) in TABLE {
        for (index, (verb, does)) in VERBS.into_iter().zip(row).enumerate() {
            let id = if state == "held" { Some(held[index]) } else { None };
            let cell = Cell { bench: &bench, state, verb, does };
            cell.check(id);
        }
    }
}

/// The destination of the job that is held for a verb.
fn image_of(verb: &str) -> String {
    verb.replace(' ', "-")
}

/// Stops the daemon and puts other files in the place of the jobs' destinations, so that its jobs are held.
fn exchange(bench: &mut Bench, jobs: &[u64]) {
    {
        let mut events = bench.daemon.events();
        for id in jobs {
            events.until_state(*id, "running");
        }
    }
    bench.daemon.stop();
    for verb in VERBS {
        // Made beside the old one, so that the inode is another.
        let new = bench.image("new");
        fs::rename(new, bench.path(&image_of(verb))).expect("rename");
    }
    bench.daemon.restart();
}

struct Cell<'a> {
    bench: &'a Bench,
    state: &'static str,
    verb: &'static str,
    does: Does,
}

impl Cell<'_> {
    fn check(&self, id: Option<u64>) {
        let Self { bench, state, verb, does } = self;
        // A disk whose flush hangs, for the one state that needs it.
        let disk = (*state == "flushing").then(|| FaultDisk::builder(IMAGE as u64).start());
        let let_go = || {
            if let Some(disk) = &disk {
                disk.clear();
                disk.release();
            }
        };
        let id = id.unwrap_or_else(|| self.job(disk.as_ref()));
        let mut events = bench.daemon.events();
        events.until_state(id, state);
        let before = events.changes(id).len();
        bench.daemon.write("error_log", "clear\n").expect("clear the log");

        let errno = bench.verb(id, verb);
        // The cancelled flush is over when the device lets go.
        if matches!(does, Makes(_)) {
            let_go();
        }
        match does {
            Refused(expected) => {
                assert_eq!(errno, *expected, "{verb} while {state}");
                let log = bench.daemon.read("error_log").expect("read the log");
                assert!(log.contains(&format!("file=jobs/{id}/control")) && log.contains(verb), "{verb}: {log}");
                // who wants an ended job to go on is told how
                let goes_on = *verb != "resume" || !["degraded", "failed", "cancelled"].contains(state);
                assert!(goes_on || log.contains("write `retry`"), "{verb} while {state}: {log}");
                assert_eq!(events.changes(id).len(), before, "{verb} while {state} was refused");
            }
            Nothing => {
                assert_eq!(errno, 0, "{verb} while {state}");
                assert_eq!(events.changes(id).len(), before, "{verb} while {state}");
            }
            Makes(changes) => {
                assert_eq!(errno, 0, "{verb} while {state}: {}", bench.daemon.read("error_log").unwrap());
                events.until(&format!("{verb} while {state}: {changes:?}"), |events| {
                    let own = events.iter().filter(|event| event.job == id).skip(before);
                    let found: Vec<_> = own.map(kcopyfs_support::daemon::Event::change).collect();
                    let want = &changes[..found.len().min(changes.len())];
                    assert_eq!(found, want, "{verb} while {state}");
                    (found.len() == changes.len()).then_some(())
                });
            }
        }
        let now =
            if let Makes(changes) = does { changes[changes.len() - 1].rsplit_once(' ').unwrap().1 } else { state };
        assert_eq!(bench.daemon.status(id).state(), now, "{verb} while {state}");
        let_go();
        if !bench.daemon.status(id).is_ended() {
            bench.verb(id, "cancel");
            bench.daemon.wait(id);
        }
        assert_eq!(bench.rmdir(&format!("jobs/{id}")), 0);
    }

    /// A job in the cell's state, or on its way there.
    fn job(&self, disk: Option<&FaultDisk>) -> u64 {
        let bench = self.bench;
        let job = |spec: String| bench.daemon.job(&spec).unwrap_or_else(|error| panic!("{spec}: {error}"));
        let (a, zeros) = (bench.path("a"), bench.image("zeros"));
        let (a, zeros) = (a.display(), zeros.display());
        match self.state {
            "queued" => {
                // Behind a job that never ends by itself.
                let first = bench.slow("first", "paused queue");
                bench.slow("second", &format!("after={first}"))
            }
            "running" => bench.slow("b", ""),
            "paused" => bench.slow("b", "paused"),
            "flushing" => {
                let disk = disk.expect("a disk that hangs");
                disk.rule(Op::Flush, .., Fault::Hang);
                let id = job(format!("from={a} to={}", disk.path().display()));
                disk.wait_parked(1);
                id
            }
            "verifying" => job(format!("verify from={a} to={zeros} speed_max=4K")),
            "done" => job(bench.copy("b", "")),
            "degraded" => {
                fs::copy(bench.path("a"), bench.path("same")).expect("copy");
                job(format!("verify from={a} to={zeros} to={}", bench.path("same").display()))
            }
            "failed" => job(format!("verify from={a} to={zeros}")),
            "cancelled" => {
                let id = bench.slow("b", "paused");
                assert_eq!(bench.verb(id, "cancel"), 0);
                id
            }
            state => unreachable!("no job is made {state}"),
        }
    }
}
