//! Figures after this and that.

use super::*;
use crate::blkdev::HELD;

fn spec(dests: usize) -> Spec {
    let sector = |number| Sector::new(number).unwrap();
    let region = |path: &str, at| RegionSpec { path: path.into(), sector: sector(at), count: None };
    let to = (0..dests).map(|index| region(&format!("/d{index}"), 1000)).collect();
    Spec { from: Some(region("/s", 500)), to, ..Spec::default() }
}

fn progress(spec: &Spec, sectors: u64) -> Progress {
    Progress::new(spec, Sector::new(sectors).unwrap())
}

const BOTH: ErrorBits = ErrorBits::first(2);

#[test]
fn a_dropped_destination_holds_the_others_back_no_longer() {
    let spec = spec(2);
    let mut progress = progress(&spec, 32);
    progress.taken(&(0..8), BOTH);
    progress.taken(&(8..16), ErrorBits::first(1));
    assert_eq!(progress.copied(), 8 * 512);
    progress.write_failed(&spec, 1, &(8..16), libc::EIO);
    progress.taken(&(16..32), BOTH);
    assert_eq!((progress.copied(), progress.write_err.bits()), (32 * 512, 2));
    assert_eq!(progress.dests[1].taken.bytes(), 8 * 512);
    assert_eq!(progress.dests[1].first_error(), Some((libc::EIO, Sector::new(1008).unwrap())));
    assert_eq!(progress.error.as_deref(), Some("write /d1: EIO in the 8 sectors from 1008"));
}

#[test]
fn what_is_dropped_by_hand_has_not_failed_and_begins_anew_with_a_retry() {
    let spec = Spec { ignore_error: true, ..spec(2) };
    let mut progress = progress(&spec, 16);
    progress.taken(&(0..8), BOTH);
    progress.taken(&(8..16), ErrorBits::first(1));
    let mark = marks(&progress);
    made_durable(&mut progress, &mark, BOTH);
    progress.drop_dest(&spec, 1);
    assert_eq!((progress.copied(), progress.durable, progress.write_err.bits()), (16 * 512, 16 * 512, 0));
    assert_eq!((progress.dest_state(0, true), progress.dest_state(1, false)), (DestState::Done, DestState::Dropped));
    // What fails there now is nobody's error.
    progress.write_failed(&spec, 1, &(8..16), libc::EIO);
    progress.verify_failed(&spec, 1, &(0..8), DIFFERENT);
    assert!(progress.flush_failed(&spec, &[(1, libc::EIO)]).is_empty());
    assert_eq!((progress.given_up().bits(), progress.write_err.bits(), progress.bad.len()), (2, 0, 0));
    assert_eq!(progress.error.as_deref(), Some("/d1 was dropped by hand"));
    progress.begin_anew();
    assert_eq!((progress.live(), progress.copied()), (BOTH, 0));
    assert_eq!((progress.dests[0].durable.bytes(), progress.dests[1].taken.bytes()), (16 * 512, 0));
}

#[test]
fn ignoring_errors_counts_only_what_all_have() {
    let spec = Spec { ignore_error: true, ..spec(2) };
    let mut progress = progress(&spec, 24);
    progress.taken(&(0..8), BOTH);
    progress.taken(&(8..16), ErrorBits::first(1));
    progress.write_failed(&spec, 1, &(8..16), libc::EIO);
    progress.unreadable(&spec, &(16..24), libc::ENODATA);
    assert_eq!((progress.copied(), progress.bad_bytes()), (8 * 512, 8 * 512));
    assert_eq!(progress.dests[0].taken.bytes(), 16 * 512);
    assert!(progress.read_err && progress.live() == BOTH);
}

#[test]
fn only_what_was_taken_before_the_flush_is_durable() {
    let spec = spec(2);
    let mut progress = progress(&spec, 24);
    progress.taken(&(0..8), BOTH);
    let mark = marks(&progress);
    progress.taken(&(8..16), BOTH);
    made_durable(&mut progress, &mark, BOTH);
    assert_eq!((progress.durable, progress.copied()), (8 * 512, 16 * 512));
    let mark = marks(&progress);
    assert_eq!(progress.flush_failed(&spec, &[(0, libc::EIO)]).bits(), 1);
    made_durable(&mut progress, &mark, ErrorBits::from_bits(2));
    assert_eq!((progress.dests[0].durable.bytes(), progress.dests[1].durable.bytes()), (8 * 512, 16 * 512));
    assert_eq!(progress.durable, 16 * 512, "of the one that is left");
    assert_eq!(progress.error.as_deref(), Some("flush /d0: EIO"));
}

#[test]
fn a_flush_that_succeeds_beside_one_that_fails_counts_nothing() {
    for spec in [spec(2), Spec { ignore_error: true, ..spec(2) }] {
        let mut progress = progress(&spec, 24);
        progress.taken(&(0..8), BOTH);
        let mark = marks(&progress);
        made_durable(&mut progress, &mark, BOTH);
        progress.taken(&(8..16), BOTH);
        let both = [marks(&progress), marks(&progress)];
        progress.flush_failed(&spec, &[(0, libc::EIO)]);
        made_durable(&mut progress, &both[0], ErrorBits::from_bits(2));
        assert_eq!(progress.durable_after(0, &both[1][0]).bytes(), 8 * 512);
        made_durable(&mut progress, &both[1], BOTH);
        assert_eq!([0, 1].map(|index: usize| progress.dests[index].durable.bytes()), [8 * 512, 16 * 512]);
    }
}

#[test]
fn what_is_different_is_taken_back() {
    let spec = spec(2);
    let mut progress = progress(&spec, 16);
    progress.taken(&(0..16), BOTH);
    let mark = marks(&progress);
    made_durable(&mut progress, &mark, BOTH);
    progress.verify_failed(&spec, 0, &(8..9), DIFFERENT);
    assert_eq!(progress.dest_state(0, true), DestState::Mismatch);
    assert_eq!(progress.dest_state(1, true), DestState::Done);
    assert_eq!(progress.dests[0].durable.bytes(), 15 * 512);
    progress.begin_anew();
    assert_eq!(progress.dests[0].taken.gaps(0..16).bytes(), 512);
    assert!(progress.write_err.is_empty() && progress.bad.is_empty());
}

#[test]
fn bad_ranges_that_touch_are_one() {
    let spec = spec(1);
    let mut progress = progress(&spec, 8000);
    for start in [16, 0, 8, 80, 24] {
        progress.unreadable(&spec, &(start..start + 8), libc::EIO);
    }
    let ranges: Vec<_> = progress.bad.iter().map(|range| (range.sector.get(), range.count.get())).collect();
    assert_eq!(ranges, [(500, 32), (580, 8)]);
}

#[test]
fn with_no_destination_left_a_comparison_leaves_nothing() {
    let spec = spec(2);
    let mut progress = progress(&spec, 16);
    progress.taken(&(0..16), BOTH);
    let mark = marks(&progress);
    made_durable(&mut progress, &mark, BOTH);
    progress.verify_failed(&spec, 0, &(8..9), DIFFERENT);
    assert_eq!((progress.copied(), progress.durable), (16 * 512, 16 * 512), "of the other one");
    progress.verify_failed(&spec, 1, &(3..4), libc::EIO);
    assert_eq!((progress.copied(), progress.durable), (0, 0));
    assert_eq!(progress.dests[0].durable.bytes(), 15 * 512);
}

#[test]
fn the_first_difference_on_the_disk_is_told() {
    let spec = spec(2);
    let mut progress = progress(&spec, 100);
    progress.taken(&(0..100), BOTH);
    for start in [50, 70, 30, 40] {
        progress.verify_failed(&spec, 0, &(start..start + 1), DIFFERENT);
    }
    assert_eq!(progress.error.as_deref(), Some("verify /d0: different in sector 1030"));
    // Data of another sector is there, of one before it and of one behind it.
    progress.differs(&spec, 0, &(25..29), Some(8));
    let text = "verify /d0: different in the 4 sectors from 1025: what was written to sector 1008 is there";
    assert_eq!(progress.error.as_deref(), Some(text));
    progress.differs(&spec, 0, &(20..21), Some(80));
    let text = "verify /d0: different in sector 1020: what was written to sector 1080 is there; the device may be smaller than it says";
    assert_eq!(progress.error.as_deref(), Some(text));
    assert_eq!(progress.dests[0].first_error(), Some((DIFFERENT, Sector::new(1020).unwrap())));
    assert!(progress.bad.iter().all(|bad| bad.kind == BadKind::Differs));
    assert!(progress.bad.is_sorted_by_key(|bad| bad.sector));
    // what went wrong before it was compared comes first
    let mut copied = Progress::new(&spec, Sector::new(100).unwrap());
    copied.unreadable(&spec, &(80..81), libc::EIO);
    copied.verify_failed(&spec, 0, &(5..6), DIFFERENT);
    assert_eq!(copied.error.as_deref(), Some("read /s: EIO in sector 580"));
}

#[test]
fn only_what_failed_is_said_to_have_failed() {
    let spec = spec(3);
    let mut progress = progress(&spec, 16);
    progress.taken(&(0..16), ErrorBits::from_bits(2));
    progress.write_failed(&spec, 0, &(8..16), libc::EIO);
    let mark = marks(&progress);
    made_durable(&mut progress, &mark, ErrorBits::first(3));
    let states = [true, false].map(|ended| [0, 1, 2].map(|index: usize| progress.dest_state(index, ended).as_str()));
    assert_eq!(states, [["failed", "done", "dropped"], ["failed", "active", "active"]]);
    assert_eq!((progress.live().bits(), progress.write_err.bits()), (6, 1));
    let cancelled = Progress::new(&spec, Sector::new(16).unwrap());
    assert_eq!(cancelled.dest_state(0, true), DestState::Dropped);
    progress.begin_anew();
    assert_eq!(progress.live().bits(), 7);
}

#[test]
fn what_is_known_of_zeros_is_what_was_flushed() {
    let spec = spec(2);
    let mut progress = progress(&spec, 100);
    progress.unreadable(&spec, &(10..20), libc::EIO);
    progress.zeroed(&(10..20), BOTH);
    let mark = marks(&progress);
    progress.zeroed(&(30..40), BOTH);
    assert_eq!(progress.zeros_after(0, &mark[0]), std::iter::once(10..20).collect());
    made_durable(&mut progress, &mark, ErrorBits::first(1));
    progress.begin_anew();
    assert_eq!([0, 1].map(|index: usize| progress.dests[index].zeroed().bytes()), [10 * 512, 0]);
    let restored = Dest::recorded(RangeSet::new(), RangeSet::new(), 0, None).with_zeros(progress.zeros(0));
    assert_eq!(restored.zeroed().bytes(), 10 * 512);
}

#[test]
fn zeros_are_a_reason_to_flush_and_durable_after_it() {
    let spec = spec(2);
    let mut progress = progress(&spec, 100);
    progress.taken(&(0..50), BOTH);
    let first = progress.dests[0].mark();
    progress.dest_made_durable(0, &first);
    assert!(!progress.dests[0].needs_flush() && progress.dests[1].needs_flush());
    assert_eq!(progress.durable, 0, "the other one has nothing yet");
    progress.zeroed(&(60..70), BOTH);
    assert!(progress.dests[0].needs_flush() && progress.zeros(0).is_empty());
    let mark = progress.dests[0].mark();
    progress.taken(&(50..60), BOTH);
    progress.verify_failed(&spec, 0, &(10..20), DIFFERENT);
    assert_eq!(progress.durable_after(0, &mark).bytes(), 40 * 512, "it was lost meanwhile");
    progress.dest_made_durable(0, &first.union(&mark));
    assert_eq!((progress.zeros(0).bytes(), progress.dests[0].durable.bytes()), (10 * 512, 40 * 512));
    progress.begin_anew();
    assert_eq!([0, 1].map(|index: usize| progress.dests[index].zeroed().bytes()), [10 * 512, 0]);
}

/// Marks of all destinations.
#[test]
fn what_lies_behind_a_write_pointer_was_never_written() {
    let spec = spec(1);
    let mut progress = progress(&spec, 400);
    let one = ErrorBits::first(1);
    progress.taken(&(0..300), one);
    progress.zeroed(&(300..310), one);
    let all = marks(&progress);
    made_durable(&mut progress, &all, one);
    progress.never_written(0, &(250..400));
    assert_eq!((progress.copied(), progress.durable, progress.has_any()), (250 * 512, 250 * 512, true));
    assert!(progress.dests[0].zeroed().is_empty() && progress.zeros(0).is_empty());
}

#[test]
fn a_zone_that_holds_other_data_is_told_with_the_remedy() {
    for (zone, remedy) in [(Some(800..1000), "`blkzone reset -o 1200 -c 200 /d0`"), (None, "reset the zone")] {
        let spec = spec(1);
        let mut progress = progress(&spec, 400);
        progress.dests[0].zone = zone;
        // Its zones are known as long as it is open.
        progress.begin_anew();
        progress.write_failed(&spec, 0, &(300..308), HELD);
        let why = progress.error.unwrap();
        assert!(why.contains("other data than the source in the 8 sectors from 1300") && why.contains(remedy), "{why}");
    }
}

fn marks(progress: &Progress) -> Vec<DestMark> {
    progress.dests.iter().map(Dest::mark).collect()
}

/// Those of them are durable.
fn made_durable(progress: &mut Progress, marks: &[DestMark], dests: ErrorBits) {
    dests.iter().for_each(|index| progress.dest_made_durable(index, &marks[index]));
}

#[test]
fn the_first_difference_is_named_also_after_a_restart() {
    let spec = spec(2);
    let mut before = progress(&spec, 400);
    before.verify_failed(&spec, 1, &(200..201), DIFFERENT);
    before.verify_failed(&spec, 0, &(100..101), libc::EIO);
    assert_eq!(before.error.as_deref(), Some("read back /d0: EIO in sector 1100"));
    let mut after = progress(&spec, 400);
    (after.error, after.bad) = (before.error, before.bad);
    after.restore_compared_at(&spec);
    after.verify_failed(&spec, 1, &(150..151), DIFFERENT);
    assert_eq!(after.error.as_deref(), Some("read back /d0: EIO in sector 1100"));
    after.verify_failed(&spec, 1, &(50..51), DIFFERENT);
    assert_eq!(after.error.as_deref(), Some("verify /d1: different in sector 1050"));
    // What went wrong before the comparison stays what is told.
    let mut copied = progress(&spec, 400);
    copied.write_failed(&spec, 0, &(300..301), libc::EIO);
    copied.restore_compared_at(&spec);
    copied.verify_failed(&spec, 1, &(50..51), DIFFERENT);
    assert_eq!(copied.error.as_deref(), Some("write /d0: EIO in sector 1300"));
}

#[test]
fn what_is_the_same_is_so_on_every_destination() {
    let spec = Spec { changed: true, ..spec(2) };
    let mut progress = progress(&spec, 64);
    let first = ErrorBits::first(1);
    for (range, same) in [(0..8, BOTH), (8..16, first), (16..24, BOTH)] {
        progress.taken(&range, BOTH);
        progress.found_same(&range, BOTH, same);
    }
    assert_eq!(progress.same_bytes(), 16 * 512);
    // One of them lost a part and gets it again; the other is not asked any more.
    progress.forget(1, &(0..4));
    assert_eq!(progress.same_bytes(), 12 * 512);
    progress.taken(&(0..4), ErrorBits::only(1));
    progress.found_same(&(0..4), ErrorBits::only(1), ErrorBits::only(1));
    assert_eq!(progress.same_bytes(), 12 * 512);
    // A destination that is given up does not count.
    progress.write_failed(&spec, 1, &(24..32), libc::EIO);
    progress.taken(&(24..32), first);
    progress.found_same(&(24..32), BOTH, first);
    assert_eq!(progress.same_bytes(), 20 * 512);
    progress.begin_anew();
    assert_eq!(progress.same_bytes(), 0, "nothing was durable");
}

#[test]
fn a_map_says_what_is_there_and_what_is_bad() {
    let given =
        crate::figures::Given { there: [0..8, 16..24].into_iter().collect(), bad: std::iter::once(8..10).collect() };
    for (retries, bad) in [(0, 2 * 512), (1, 0)] {
        let spec = Spec { retries, ..spec(2) };
        let mut progress = progress(&spec, 32);
        progress.begin_with(&spec, &given);
        assert_eq!((progress.copied(), progress.durable, progress.bad_bytes()), (16 * 512, 16 * 512, bad));
        assert!(progress.read_err == (bad > 0) && progress.dests.iter().all(|dest| !dest.needs_flush()));
        let error = (bad > 0).then_some("read /s: EIO in the 2 sectors from 508");
        assert_eq!((progress.bad.len(), progress.error.as_deref()), (usize::from(bad > 0), error));
    }
}

#[test]
fn what_a_test_could_not_write_is_told_once() {
    let spec = Spec { action: Action::Test, from: None, ..spec(2) };
    let mut progress = progress(&spec, 64);
    progress.taken(&(0..64), ErrorBits::only(1));
    progress.write_failed(&spec, 0, &(8..16), libc::EIO);
    assert_eq!(progress.live(), BOTH, "it goes on");
    assert!(progress.lost_everywhere().is_empty(), "the other one has it");
    assert_eq!(progress.without_lost(BOTH, &(8..16)), ErrorBits::only(1));
    assert_eq!(progress.without_lost(BOTH, &(8..17)), BOTH);
    progress.verify_failed(&spec, 0, &(6..20), libc::EIO);
    let told = |progress: &Progress| {
        let bad = progress.bad.iter();
        bad.map(|range| (range.sector.get(), range.count.get(), range.kind)).collect::<Vec<_>>()
    };
    assert_eq!(told(&progress), [(1006, 14, BadKind::Failed)]);
    progress.verify_failed(&spec, 0, &(8..21), DIFFERENT);
    assert_eq!(told(&progress), [(1006, 14, BadKind::Failed), (1016, 5, BadKind::Differs)]);
    // A restart knows it, too.
    let mut after = Progress::new(&spec, Sector::new(64).unwrap());
    after.bad.clone_from(&progress.bad);
    after.restore_lost(&spec.to);
    assert_eq!(after.dests[0].lost().iter().collect::<Vec<_>>(), [std::ops::Range { start: 6, end: 20 }]);
    assert_eq!(after.bad_of(0, &spec.to[0], |_| true).bytes(), 15 * 512);
}
