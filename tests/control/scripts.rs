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
    assert!(
        output.stdout.contains("\nstate cancelled\n") && output.stderr.contains("Operation canceled"),
        "{output:?}"
    );
    // It says the same as the file in wait/.
    let output = bench.daemon.sh("bash", "cat $M/jobs/1/wait 2> /dev/null | cmp - $M/jobs/1/status");
    assert!(output.status.success(), "{output:?}");
}
