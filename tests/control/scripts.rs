//! What helps scripts.

use std::time::{SystemTime, UNIX_EPOCH};

use kcopyfs_support::until;

use crate::bench::Bench;

fn now_usec() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    now.as_micros().try_into().expect("before the year 500000")
}

#[test]
fn a_job_tells_when_it_ran_first_and_when_it_ended_needs_fuse() {
    let Some(mut bench) = Bench::new(&[]) else { return };
    let before = now_usec();
    let waits = bench.slow("waits", "paused");
    assert_eq!(bench.daemon.status(waits).times(), [None, None]);
    let slow = bench.slow("slow", "");
    bench.daemon.events().until_state(slow, "running");
    let [Some(started), None] = bench.daemon.status(slow).times() else { panic!("{}", bench.daemon.status(slow)) };
    assert!((before..=now_usec()).contains(&started), "{started}");
    for id in [waits, slow] {
        bench.daemon.control(id, "cancel").unwrap();
    }
    assert_eq!(bench.daemon.status(waits).times()[0], None, "it never ran");
    let times = bench.daemon.status(slow).times();
    assert!(times[0] == Some(started) && (started..=now_usec()).contains(&times[1].unwrap()), "{times:?}");
    // They are kept, and a job that lives again has no end yet.
    bench.daemon.stop();
    bench.daemon.restart();
    assert_eq!(bench.daemon.status(slow).times(), times);
    bench.daemon.control(slow, "retry").unwrap();
    assert_eq!(bench.daemon.status(slow).times(), [Some(started), None]);
}

#[test]
fn a_job_at_its_limit_of_speed_says_so_needs_fuse() {
    let Some(bench) = Bench::new(&["state=none"]) else { return };
    let id = bench.slow("slow", "");
    until("it is at its limit", || (bench.daemon.status(id).get("limited_by") == "speed_max").then_some(()));
    bench.daemon.control(id, "pause").unwrap();
    assert_eq!(bench.daemon.status(id).get("limited_by"), "-");
}

#[test]
fn a_job_is_waited_for_by_its_name_needs_fuse() {
    let Some(bench) = Bench::new(&["state=none"]) else { return };
    let id = bench.slow("slow", "name=clone");
    bench.daemon.events().until_state(id, "running");
    // A reader who cannot wait finds a line, and then is told to come again.
    let script = "head -n1 $M/names/clone/wait; dd if=$M/jobs/1/wait iflag=nonblock 2>&1 >/dev/null | head -n1";
    let output = bench.daemon.sh("bash", script);
    let (line, again) = output.stdout.split_once('\n').expect("a line");
    assert!(line.contains(" %  ") && line.ends_with(" left  copy") && line.chars().count() <= 79, "{line}");
    assert!(again.contains("Resource temporarily unavailable"), "{again}");
    let output = bench.daemon.sh("bash", "(echo cancel > $M/jobs/1/control) & cat $M/names/clone/wait");
    assert!(output.stdout.contains("state cancelled\n") && output.stderr.contains("Operation canceled"), "{output:?}");
    // It says the same as the file in wait/.
    let output = bench.daemon.sh("bash", "cat $M/jobs/1/wait 2> /dev/null | cmp - $M/jobs/1/status");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn fifty_scripts_at_once_make_one_job_needs_fuse() {
    let Some(bench) = Bench::new(&[]) else { return };
    let spec = bench.copy("b", "name=nightly once");
    let script = "for i in $(seq 50); do (echo \"$SPEC\" > $M/jobs/new) 2>&1 & done; wait";
    let output = bench.daemon.sh("bash", &format!("SPEC={spec:?}; {script}"));
    let refused: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(refused.len(), 49, "{output:?}");
    assert!(refused.iter().all(|line| line.ends_with("File exists")), "{output:?}");
    assert_eq!(bench.daemon.wait(1).state(), "done");
    assert!(bench.is_whole("b") && !bench.daemon.path("jobs/2").exists());
    // Nor once it is done, whatever the others are named, nor after a restart; and nothing is opened for that.
    bench.daemon.job(&bench.copy("c", "name=weekly once")).unwrap();
    let mut bench = bench;
    bench.daemon.stop();
    bench.daemon.restart();
    let refused = bench.daemon.refused("from=/nothing to=/nowhere name=nightly once");
    assert_eq!(refused.errno, libc::EEXIST);
    assert_eq!(
        refused.reason,
        "name=nightly: job 1 of that name is done (rmdir jobs/1 forgets it), and `once` makes no other"
    );
    // Where it did not end well, or was dismissed, there is another.
    assert_eq!(bench.rmdir("jobs/1"), 0);
    let slow = bench.slow("b", "name=nightly once");
    let refused = bench.daemon.refused(&spec);
    assert_eq!((refused.errno, refused.reason.contains(&format!("job {slow} of that name is "))), (libc::EEXIST, true));
    bench.daemon.control(slow, "cancel").unwrap();
    let again = bench.daemon.job(&spec).unwrap();
    assert_eq!(bench.daemon.wait(again).state(), "done");
}

#[test]
fn once_counts_the_lines_of_its_own_write_too_needs_fuse() {
    let Some(bench) = Bench::new(&["state=none"]) else { return };
    let line = |to: &str, words: &str| bench.copy(to, words) + "\n";
    let errno = |text: &str| bench.daemon.write("jobs/new", text).unwrap_err().raw_os_error();
    let twice = line("b", "name=x once") + &line("c", "name=x once");
    assert_eq!(errno(&twice), Some(libc::EEXIST));
    assert!(bench.daemon.read("error_log").unwrap().contains("an earlier line of this write has that name"));
    assert_eq!(errno(&(line("b", "name=x") + &line("c", "name=x once"))), Some(libc::EEXIST));
    assert!(!bench.daemon.path("jobs/1").exists(), "all or none");
    // An earlier one that says it has no say in what comes after it.
    bench.daemon.write("jobs/new", &(line("b", "name=x once") + &line("c", "name=x"))).unwrap();
    assert!(bench.daemon.path("jobs/2").exists());
    // Without a name there is nothing to look for.
    let refused = bench.daemon.refused(&bench.copy("b", "once"));
    assert_eq!((refused.errno, refused.reason.contains("add name=LABEL")), (libc::EINVAL, true), "{}", refused.reason);
}

#[test]
fn after_a_name_is_after_the_newest_job_of_that_name_needs_fuse() {
    let Some(mut bench) = Bench::new(&[]) else { return };
    let waits = |bench: &Bench, id: u64, leader: u64| {
        assert_eq!((bench.daemon.status(id).state(), bench.why(id)), ("queued", format!("waits for job {leader}")));
    };
    bench.slow("old", "name=clone");
    let newest = bench.slow("new", "name=clone");
    let second = bench.daemon.job(&bench.copy("second", "after=clone name=clone")).unwrap();
    waits(&bench, second, newest);
    // The spec keeps the name: tomorrow it is another job.
    let spec = bench.daemon.read(format!("jobs/{second}/spec")).unwrap();
    assert!(spec.contains(" after=clone"), "{spec}");
    bench.image("third");
    let third = bench.daemon.job(&spec.replace("/second ", "/third ").replace("name=clone ", "")).unwrap();
    waits(&bench, third, second);
    // Also one on an earlier line of the same write, if there is none newer.
    let lines = bench.copy("fourth", "name=x paused") + "\n" + &bench.copy("fifth", "after=x") + "\n";
    bench.daemon.write("jobs/new", &lines).unwrap();
    waits(&bench, third + 2, third + 1);
    // Which one was meant is kept, whatever is named so later.
    bench.daemon.job(&bench.copy("late", "name=clone paused")).unwrap();
    bench.daemon.stop();
    bench.daemon.restart();
    waits(&bench, second, newest);
    bench.daemon.write(format!("jobs/{newest}/speed_max"), "max").unwrap();
    for id in [newest, second, third] {
        assert_eq!(bench.daemon.wait(id).state(), "done");
    }
    assert!(bench.is_whole("second") && bench.is_whole("third"));

    let refused = bench.daemon.refused(&bench.copy("none", "after=nobody"));
    assert_eq!(
        (refused.errno, refused.reason.contains("no job named nobody")),
        (libc::ENOENT, true),
        "{}",
        refused.reason
    );
    // A line comes after those before it only.
    let lines = bench.copy("b", "after=y") + "\n" + &bench.copy("c", "name=y") + "\n";
    assert_eq!(bench.daemon.write("jobs/new", &lines).unwrap_err().raw_os_error(), Some(libc::ENOENT));
}

#[test]
fn how_many_jobs_run_at_once_is_changed_while_they_run_needs_fuse() {
    let Some(mut bench) = Bench::new(&["active=1"]) else { return };
    let jobs = ["b0", "b1", "b2", "b3"].map(|name| bench.slow(name, ""));
    let running = |bench: &Bench| jobs.map(|id| bench.daemon.status(id).state() == "running");
    let set = |bench: &Bench, text: &str| bench.daemon.write("active", text).map_err(|error| error.raw_os_error());
    let mut events = bench.daemon.events();
    events.until_state(jobs[0], "running");
    assert_eq!(bench.daemon.read("active").unwrap(), "1\n");
    set(&bench, "3\n").unwrap();
    events.until_state(jobs[1], "running");
    events.until_state(jobs[2], "running");
    assert_eq!((bench.daemon.read("active").unwrap(), running(&bench)), ("3\n".to_owned(), [true, true, true, false]));
    // With fewer allowed, those that run go on, and the next one waits for all of them.
    set(&bench, "2").unwrap();
    assert_eq!(running(&bench), [true, true, true, false]);
    assert_eq!(bench.why(jobs[3]), "waits: 3 jobs are running, and no more may at once (active=2)");
    bench.daemon.control(jobs[0], "cancel").unwrap();
    assert_eq!(bench.daemon.status(jobs[3]).state(), "queued");
    bench.daemon.control(jobs[1], "cancel").unwrap();
    events.until_state(jobs[3], "running");
    drop(events);
    for bad in ["0", "4097", "max", "-1", "\n"] {
        assert_eq!(set(&bench, bad), Err(Some(libc::EINVAL)), "{bad:?}");
    }
    // It is kept over a restart, also one by kill -9.
    bench.daemon.kill9();
    bench.daemon.restart();
    assert_eq!(bench.daemon.read("active").unwrap(), "2\n");
}
