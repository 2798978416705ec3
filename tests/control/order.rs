//! Whose turn it is: `active=`, `after=`, `queue`; and what a job that waits says.

use std::fs;

use crate::bench::Bench;

#[test]
fn no_more_than_active_run_and_the_others_wait_in_order_needs_fuse() {
    let Some(bench) = Bench::new(&["state=none", "active=2"]) else { return };
    let mut events = bench.daemon.events();
    let jobs = ["b0", "b1", "b2", "b3", "b4"].map(|name| bench.slow(name, ""));
    let state = |index: usize| bench.daemon.status(jobs[index]).state().to_owned();
    events.until_state(jobs[0], "running");
    events.until_state(jobs[1], "running");
    assert_eq!([2, 3, 4].map(state), ["queued"; 3]);
    assert_eq!(bench.why(jobs[3]), "waits: 2 jobs are running, and no more may at once (active=2)");
    assert_eq!(bench.why(jobs[0]), "");

    bench.daemon.control(jobs[0], "cancel").unwrap();
    events.until_state(jobs[2], "running");
    bench.daemon.control(jobs[1], "pause").unwrap();
    events.until_state(jobs[3], "running");
    // One that was paused comes before those made after it.
    bench.daemon.control(jobs[1], "resume").unwrap();
    assert_eq!([1, 4].map(state), ["queued"; 2]);
    bench.daemon.control(jobs[2], "cancel").unwrap();
    events.until("the second runs again", |events| {
        let own = events.iter().filter(|event| event.job == jobs[1] && event.new == "running");
        (own.count() == 2).then_some(())
    });
    assert_eq!(state(4), "queued");
    // A place is free for one that is cancelled while it waits, too.
    bench.daemon.control(jobs[4], "cancel").unwrap();
    assert_eq!(bench.daemon.wait(jobs[4]).state(), "cancelled");
    assert_eq!(events.changes(jobs[4]), ["- queued", "queued cancelled"]);
}

#[test]
fn ten_copies_run_one_after_the_other_needs_fuse() {
    let Some(bench) = Bench::new(&["state=none", "active=1"]) else { return };
    let specs: Vec<String> = (0..10).map(|index| bench.copy(&format!("b{index}"), "") + "\n").collect();
    bench.daemon.write("jobs/new", &specs.concat()).unwrap();
    let mut events = bench.daemon.events();
    events.until_state(10, "done");
    let changes: Vec<(u64, String)> = events.now().iter().map(|event| (event.job, event.change())).collect();
    let expected =
        (1..=10).map(|id| (id, "- queued".to_owned())).chain((1..=10).flat_map(|id| {
            ["queued running", "running flushing", "flushing done"].map(|change| (id, change.to_owned()))
        }));
    // They are all made before the first runs, because one write made them.
    assert_eq!(changes, expected.collect::<Vec<_>>());
    assert!((0..10).all(|index| bench.is_whole(&format!("b{index}"))));
}

#[test]
fn after_waits_for_the_end_of_a_job_needs_fuse() {
    let Some(bench) = Bench::new(&["state=none"]) else { return };
    let mut events = bench.daemon.events();
    let first = bench.slow("first", "");
    let second = bench.daemon.job(&bench.copy("second", &format!("after={first}"))).unwrap();
    let third = bench.daemon.job(&bench.copy("third", &format!("after={second}"))).unwrap();
    assert_eq!(
        (bench.why(second), bench.why(third)),
        (format!("waits for job {first}"), format!("waits for job {second}"))
    );
    // A pause between does not make it forget.
    bench.daemon.control(second, "pause").unwrap();
    bench.daemon.control(second, "resume").unwrap();
    assert_eq!((bench.daemon.status(second).state(), bench.why(second)), ("queued", format!("waits for job {first}")));
    bench.daemon.write(format!("jobs/{first}/speed_max"), "max").unwrap();
    for id in [first, second, third] {
        assert_eq!(bench.daemon.wait(id).state(), "done");
    }
    let order: Vec<u64> = events
        .now()
        .iter()
        .filter(|event| event.new == "running" || event.new == "done")
        .map(|event| event.job)
        .collect();
    assert_eq!(order, [first, first, second, second, third, third]);

    // After one that is done it runs at once.
    let late = bench.daemon.job(&bench.copy("late", &format!("after={first}"))).unwrap();
    assert_eq!(bench.daemon.wait(late).state(), "done");
    // After none there is none.
    let refused = bench.daemon.refused(&bench.copy("none", "after=999"));
    assert_eq!((refused.errno, refused.reason.contains("no job 999")), (libc::ENOENT, true), "{}", refused.reason);
}

#[test]
fn after_one_that_ends_otherwise_the_whole_chain_is_cancelled_and_says_why_needs_fuse() {
    let Some(bench) = Bench::new(&["state=none"]) else { return };
    let mut events = bench.daemon.events();
    let first = bench.slow("first", "");
    let second = bench.slow("second", &format!("after={first}"));
    let third = bench.slow("third", &format!("after={second}"));
    bench.daemon.control(first, "cancel").unwrap();
    assert_eq!(bench.daemon.wait(third).state(), "cancelled");
    let why = |before: u64| format!("not started: job {before}, which it was waiting for, was cancelled");
    assert_eq!((bench.why(second), bench.why(third)), (why(first), why(second)));
    let reasons: Vec<_> =
        events.now().iter().filter(|event| event.new == "cancelled").map(|event| event.reason.clone()).collect();
    assert_eq!(reasons, [None, Some(why(first)), Some(why(second))]);
    // One that comes late is told the same.
    let late = bench.slow("late", &format!("after={first}"));
    assert_eq!(bench.daemon.wait(late).state(), "cancelled");
    // `retry` starts it all the same: who says so has looked. And then it does not ask again.
    bench.daemon.control(second, "retry").unwrap();
    events.until("it runs", |events| {
        events.iter().any(|event| event.job == second && event.new == "running").then_some(())
    });
    bench.daemon.control(second, "pause").unwrap();
    bench.daemon.control(second, "resume").unwrap();
    assert_eq!(bench.daemon.status(second).state(), "running");
}

#[test]
fn one_that_has_begun_waits_for_nobody_any_more_needs_fuse() {
    let Some(mut bench) = Bench::new(&[]) else { return };
    let first = bench.daemon.job(&bench.copy("first", "")).unwrap();
    assert_eq!(bench.daemon.wait(first).state(), "done");
    let second = bench.slow("second", &format!("after={first}"));
    bench.daemon.events().until_state(second, "running");
    fs::remove_dir(bench.daemon.path(format!("jobs/{first}"))).unwrap();
    bench.daemon.control(second, "pause").unwrap();
    bench.daemon.control(second, "resume").unwrap();
    assert_eq!(bench.daemon.status(second).state(), "running", "{}", bench.why(second));
    // Nor after a restart.
    bench.daemon.stop();
    bench.daemon.restart();
    bench.daemon.events().until_state(second, "running");
    bench.daemon.write(format!("jobs/{second}/speed_max"), "max").unwrap();
    assert_eq!(bench.daemon.wait(second).state(), "done");
    assert!(bench.is_whole("second"));
}

/// What it followed was done: that it is not there any more is no reason to be cancelled.
#[test]
fn one_that_was_paused_starts_though_what_it_follows_was_dismissed_needs_fuse() {
    for by_keep in [false, true] {
        for restarts in [false, true] {
            let Some(mut bench) = Bench::new(&["keep=1"]) else { return };
            let first = bench.slow("first", "");
            // one is born paused, the other paused while it waits
            let followers = ["second paused", "third"].map(|word| {
                let (name, words) = word.split_once(' ').unwrap_or((word, ""));
                bench.daemon.job(&bench.copy(name, &format!("after={first} {words}"))).unwrap()
            });
            bench.daemon.control(followers[1], "pause").unwrap();
            bench.daemon.write(format!("jobs/{first}/speed_max"), "max").unwrap();
            assert_eq!(bench.daemon.wait(first).state(), "done");
            if by_keep {
                let other = bench.daemon.job(&bench.copy("other", "")).unwrap();
                assert_eq!(bench.daemon.wait(other).state(), "done");
                kcopyfs_support::until("it is dismissed", || {
                    (bench.rmdir(&format!("jobs/{first}")) == libc::ENOENT).then_some(())
                });
            } else {
                assert_eq!(bench.rmdir(&format!("jobs/{first}")), 0);
            }
            if restarts {
                bench.daemon.kill9();
                bench.daemon.restart();
            }
            for (id, name) in followers.iter().zip(["second", "third"]) {
                let status = bench.daemon.status(*id);
                assert_eq!((status.state(), status.error()), ("paused", None), "\n{status}");
                // kept in sight, since with keep=1 only the last that ended stays
                let why = std::thread::scope(|scope| {
                    let wait = scope.spawn(|| bench.daemon.wait(*id));
                    bench.daemon.control(*id, "resume").unwrap();
                    wait.join().unwrap()
                });
                assert_eq!(why.state(), "done", "\n{why}");
                assert!(bench.is_whole(name));
            }
        }
    }
}

#[test]
fn queue_waits_for_busy_destinations_needs_fuse() {
    let Some(bench) = Bench::new(&["state=none"]) else { return };
    let mut events = bench.daemon.events();
    let first = bench.slow("b", "");
    let b = bench.path("b");
    let spec = format!("from={} to={}", bench.path("a").display(), b.display());
    let refused = bench.daemon.refused(&spec);
    assert_eq!(refused.errno, libc::EBUSY);
    assert!(refused.reason.contains(&format!("by job {first}")), "{}", refused.reason);
    let [second, third] = [0, 1].map(|_| bench.daemon.job(&format!("{spec} queue")).unwrap());
    let other = bench.daemon.job(&bench.copy("c", "queue")).unwrap();
    assert_eq!(bench.daemon.wait(other).state(), "done", "others pass it");
    for id in [second, third] {
        assert_eq!(bench.daemon.status(id).state(), "queued");
        let why = bench.why(id);
        assert!(why.starts_with(&format!("waits: {}", b.display())) && why.contains(&format!("job {first}")), "{why}");
    }
    bench.daemon.control(first, "cancel").unwrap();
    for id in [second, third] {
        assert_eq!(bench.daemon.wait(id).state(), "done");
    }
    assert!(bench.is_whole("b"));
    let order: Vec<u64> = events
        .now()
        .iter()
        .filter(|event| [second, third].contains(&event.job) && event.new != "flushing")
        .map(|event| event.job)
        .collect();
    assert_eq!(order, [second, third, second, second, third, third], "one after the other");
}
