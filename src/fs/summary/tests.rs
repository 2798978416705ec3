//! What people see, to the letter; and that it is never wider than a terminal.

use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;
use crate::fs::board::samples;
use crate::jobs::Course;

const FREE: Limits = Limits { throttle: 100, speed_max: None };
const NOW: Duration = Duration::from_secs(1_000_000);

fn said(glance: &Glance, limits: Limits) -> String {
    let text = render(glance, limits, UNIX_EPOCH + NOW, |_| Vec::new());
    assert!(text.ends_with('\n') && text.lines().all(|line| width(line) <= WIDTH), "{text}");
    text.replacen(env!("CARGO_PKG_VERSION"), "0.1.0", 1)
}

fn glance(live: Vec<View>, ended: Vec<View>) -> Glance {
    let mut glance = Glance::default();
    for view in live.iter().chain(&ended) {
        glance.states[State::ALL.iter().position(|state| *state == view.state).unwrap()] += 1;
    }
    for view in live {
        glance.total += view.total;
        glance.copied += view.copied;
        glance.durable += view.durable;
        glance.speed += view.speed;
        glance.live.push(Seen { view, speed_max: None });
    }
    Glance { ended, ..glance }
}

/// From one disk to another, without trouble.
fn plain(id: u64) -> View {
    let mut view = samples::view(id, State::Running);
    view.dests.truncate(1);
    view.course = Course { phase: Some("copy"), ..Course::default() };
    View { name: None, ..view }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + NOW - Duration::from_secs(seconds)
}

#[test]
fn a_job_has_two_lines_and_its_figures_their_columns() {
    let mut slow = plain(12);
    (slow.total, slow.copied, slow.durable) = (22 << 40, 5 << 40, 0);
    (slow.speed, slow.eta, slow.name) = (9 << 10, Some(Duration::from_secs(1_000_000)), Some("archive".to_owned()));
    let expected = "\
kcopyfs 0.1.0: 2 running
  [====................]  22.8%    5.04 of 22.09 TiB    1.8 GiB/s      all jobs

7: copy  /dev/sda -> /dev/sdb                                               [U]
  [########............]  42.1%    42.1 of 100.0 GiB    1.7 GiB/s  0:00:32 left
12 archive: copy  /dev/sda -> /dev/sdb                                      [U]
  [====................]  22.7%    5.00 of 22.00 TiB    9.0 KiB/s  11d 13h left
";
    let text = said(&glance(vec![plain(7), slow], Vec::new()), FREE);
    assert_eq!(text, expected);
}

#[test]
fn trouble_comes_first_and_stands_with_its_destination() {
    let view = samples::view(7, State::Running);
    let mut glance = glance(vec![view.clone()], Vec::new());
    glance.live[0].speed_max = Some(64 << 20);
    (glance.troubled, glance.troubled_count) = (vec![view], 3);
    let expected = "\
kcopyfs 0.1.0: 1 running; throttle 50 %; max 100.0 MiB/s
! 7 nightly: 1 of 2 destinations failed
! and 2 jobs more in trouble

7 nightly: running, max 64.0 MiB/s  /dev/sda -> 2 destinations             [U_]
  [########............]  42.1%    42.1 of 100.0 GiB    1.7 GiB/s  0:00:32 left
   0 U  42.1%  /dev/sdb
   1 _  42.1%  /dev/sdc  FAILED: EIO at sector 100, 2 errors
";
    assert_eq!(said(&glance, Limits { throttle: 50, speed_max: Some(100 << 20) }), expected);
}

#[test]
fn model_and_serial_stand_with_their_destination() {
    let glance = glance(vec![samples::view(7, State::Running)], Vec::new());
    let known = |text: &str| Some(text.to_owned());
    let label = |_| vec![known("WDC WD40EFRX WD-1"), known("evil\x1b[31m")];
    let text = render(&glance, FREE, UNIX_EPOCH + NOW, label);
    assert!(text.contains("   0 U  42.1%  /dev/sdb  WDC WD40EFRX WD-1\n"), "{text}");
    assert!(text.contains("/dev/sdc  evil\\033[31m       FAILED: EIO"), "{text}");
}

#[test]
fn those_that_wait_say_why_and_those_that_ended_how() {
    let waits =
        View { error: Some("waits for job 7".to_owned()), copied: 0, durable: 0, eta: None, speed: 0, ..plain(9) };
    let waits = View { state: State::Queued, course: Course::default(), source: None, ..waits };
    let held = View { state: State::Held, error: Some("serial WD-1 is now WD-2".to_owned()), eta: None, ..plain(8) };
    let mut done = View { state: State::Done, copied: 100 << 30, ..plain(3) };
    done.course.ended = Some(at(60));
    let mut failed =
        View { state: State::Failed, error: Some("read /dev/sda: EIO\nin sector 8".to_owned()), ..plain(2) };
    failed.course.ended = Some(at(4000));
    let expected = "\
kcopyfs 0.1.0: 1 queued, 1 held
  [####................]  21.0%    42.1 of 200.0 GiB    1.7 GiB/s      all jobs
ended: 1 done, 1 failed (ls state/failed)

8: held  /dev/sda -> /dev/sdb                                               [U]
  [########............]  42.1%    42.1 of 100.0 GiB
  serial WD-1 is now WD-2
9: queued  zeros -> /dev/sdb                                                [U]
  waits for job 7

3: done 0:01:00 ago, 100.0 GiB  /dev/sda -> /dev/sdb
2: FAILED 1:06:40 ago, read /dev/sda: EIO\\012in sector 8
";
    let text = said(&glance(vec![held, waits], vec![done, failed]), FREE);
    assert_eq!(text, expected);
    let none = said(&Glance::default(), FREE);
    assert_eq!(none, "kcopyfs 0.1.0: no live jobs\nmake one: echo 'from=PATH to=PATH' > jobs/new\n");
}

#[test]
fn what_cannot_be_read_and_silence_are_said() {
    let mut view = View { stalled: Duration::from_secs(7), bad_bytes: 4096, ..plain(7) };
    (view.course.suspect_bytes, view.course.read_errors) = (1 << 20, 3);
    let mut glance = glance(vec![view.clone()], Vec::new());
    glance.troubled = vec![view];
    let text = said(&glance, FREE);
    assert!(
        text.contains("\n! 7: no device has answered for 0:00:07, 4.0 KiB unreadable, 1.0 MiB to look...\n"),
        "{text}"
    );
    assert!(text.contains("  no device has answered for 0:00:07\n"), "{text}");
    assert!(text.contains("  source: 4.0 KiB unreadable, 1.0 MiB to look at again, 3 read errors\n"), "{text}");
}

#[test]
fn a_comparison_moves_the_bar_again() {
    let mut view = View { state: State::Verifying, eta: None, ..plain(7) };
    (view.copied, view.durable, view.course.verified) = (view.total, view.total, view.total / 4);
    let text = said(&glance(vec![view], Vec::new()), FREE);
    assert!(text.contains("  [#####...............]  25.0%    25.0 of 100.0 GiB"), "{text}");
}

#[test]
fn very_many_jobs_and_destinations_are_bounded_and_counted() {
    let mut view = samples::view(1, State::Running);
    view.dests = vec![view.dests[0].clone(); 64];
    let mut all = glance((1..=200).map(|id| View { id, ..view.clone() }).collect(), Vec::new());
    all.states[0] = 100_000;
    let text = said(&all, FREE);
    assert!(text.lines().count() < LINES_MAX + 100 && text.len() < 80 * 1100, "{}", text.len());
    assert!(text.contains(&format!("\n  [{}]\n   0 U", "U".repeat(64))), "{text}");
    let shown = text.matches("-> 64 destinations").count() as u64;
    assert!(text.contains(&format!("\n... and {} live jobs more, see state/\n", 100_200 - shown)), "{text}");
}

#[test]
fn a_bar_is_full_only_when_all_is_copied() {
    assert_eq!((bar(0, 0, 0), percent(0, 0)), ("#".repeat(BAR), "100.0%".to_owned()));
    assert_eq!(bar(0, u64::MAX - 1, u64::MAX), format!("{}.", "=".repeat(BAR - 1)));
    assert_eq!(percent(u64::MAX - 1, u64::MAX), "99.9%");
    assert_eq!(bar(3, 1, 10), format!("##{}", ".".repeat(BAR - 2)));
}

proptest! {
    #[test]
    fn no_line_is_wider_than_a_terminal(
        paths in proptest::collection::vec(".{0,200}", 1..70),
        name in proptest::option::of(".{0,64}"),
        error in proptest::option::of(".{0,300}"),
        figures in any::<(u64, u64, u64, u64, u64)>(),
        place in 0..State::ALL.len(),
        label in proptest::option::of(".{0,99}"),
    ) {
        let mut view = View { id: figures.4, state: State::ALL[place], name, error, ..samples::view(1, State::Running) };
        (view.total, view.copied, view.durable, view.speed) = (figures.0, figures.1, figures.2, figures.3);
        (view.bad_bytes, view.eta, view.elapsed) = (figures.1, Some(Duration::from_secs(figures.2)), Duration::MAX);
        let bad = view.dests[1].clone();
        view.dests = paths.iter().map(|path| DestView { path: path.into(), errors: figures.3, ..bad.clone() }).collect();
        let mut glance = Glance { ended: vec![view.clone()], troubled: vec![view.clone()], ..Glance::default() };
        glance.live.push(Seen { view, speed_max: Some(figures.0) });
        glance.states[place] = figures.1;
        let text = render(&glance, FREE, SystemTime::UNIX_EPOCH, |_| vec![label.clone()]);
        prop_assert!(text.lines().all(|line| width(line) <= WIDTH), "{}", text);
        prop_assert!(!text.chars().any(|letter| letter.is_control() && letter != '\n'), "{}", text);
    }
}
