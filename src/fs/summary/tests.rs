//! What people see, to the letter.

use std::time::UNIX_EPOCH;

use super::*;
use crate::fs::board::samples;

#[test]
fn a_block_for_each_live_job_and_a_total() {
    let expected = "\
kcopyfs 0.1.0: uring, 8100 of 8192 pages free, throttle 50 %, at most 100.0 MiB/s

7 nightly: running, at most 64.0 MiB/s
    /dev/sda -> /dev/sdb
             -> /dev/sdc  FAILED: EIO at sector 100, 2 errors
    [============>.................]  42.17 %  42.1 of 100.0 GiB  1.7 GiB/s  0:00:32 left

3: queued (waits for job 7)
    zeros -> /tmp/a\\012b
    [>.............................]   0.00 %  0.0 of 1.0 MiB  0.0 MiB/s

total: 1 queued, 1 running, 4 ended (1 degraded, see state/degraded); 42.1 of 100.0 GiB, 1.7 GiB/s
";
    let board = samples::board();
    let text = render(&board);
    assert_eq!(text.replacen(env!("CARGO_PKG_VERSION"), "0.1.0", 1), expected);
}

#[test]
fn nothing_to_do_is_said() {
    let board = Board { live: Vec::new(), states: [0; 10], speed_max: None, ..samples::board() };
    let text = render(&board);
    assert!(text.contains("no limit of speed") && text.contains("total: no live jobs, 4 ended"), "{text}");
}

#[test]
fn jobs_that_did_not_end_well_are_pointed_at() {
    let mut states = [0; 10];
    states[State::ALL.iter().position(|state| *state == State::Degraded).unwrap()] = 1;
    states[State::ALL.iter().position(|state| *state == State::Failed).unwrap()] = 2;
    let text = render(&Board { live: Vec::new(), states, ..samples::board() });
    assert!(
        text.contains("no live jobs, 4 ended (1 degraded, see state/degraded; 2 failed, see state/failed); "),
        "{text}"
    );
}

#[test]
fn little_is_not_nothing() {
    let little = [0, 1, 1023, 1024, 65_536, (1 << 20) - 1, 1 << 20].map(amount);
    assert_eq!(little, ["0.0 MiB", "1 B", "1023 B", "1.0 KiB", "64.0 KiB", "1023.9 KiB", "1.0 MiB"]);
    assert_eq!(
        [part(0, 4096), part(512, 4096), part(4096, 1 << 20)],
        ["0.0 of 4.0 KiB", "0.5 of 4.0 KiB", "0.0 of 1.0 MiB"]
    );
}

#[test]
fn silence_and_bad_bytes_are_said() {
    let mut view = samples::view(7, State::Running);
    view.stalled = Duration::from_secs(7);
    view.bad_bytes = 4096;
    view.progressed = UNIX_EPOCH;
    let mut out = String::new();
    job(&mut out, &Row { view, speed_max: None });
    assert!(out.contains("no device has answered for 0:00:07\n"), "{out}");
    assert!(out.contains("4096 bytes could not be read, see jobs/7/errors\n"), "{out}");
}

#[test]
fn a_bar_is_full_only_when_all_is_copied() {
    let bar_of = |copied, total| bar(&View { total, copied, ..samples::view(1, State::Running) });
    assert_eq!(bar_of(0, 0), "=".repeat(BAR));
    assert_eq!(bar_of(10, 10), "=".repeat(BAR));
    assert_eq!(bar_of(u64::MAX - 1, u64::MAX), format!("{}>", "=".repeat(BAR - 1)));
    assert_eq!(bar_of(0, 10), format!(">{}", ".".repeat(BAR - 1)));
}
