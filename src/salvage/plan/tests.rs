//! Plans against a model of disks: what is read, written and given up, and in how many requests.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::kcopyd::Flags;
use crate::sector::Sector;
use crate::spec::{OnReadError, OnWriteError, RegionSpec};

/// A source and destinations with bad sectors, each with how often it fails; an engine that cuts pieces of 64 sectors.
#[derive(Default)]
struct Model {
    read: BTreeMap<u64, u32>,
    /// Where a read takes a second, and no millisecond.
    slow: Range<u64>,
    write: Vec<BTreeMap<u64, u32>>,
    /// What each destination holds, by sector: `Some(sector)` copied, `None` zeros.
    held: Vec<BTreeMap<u64, Option<u64>>>,
    requests: u64,
    /// Reads that failed.
    failures: u64,
    /// First sectors of the writes, in order.
    order: Vec<u64>,
    /// The scratch block: what lies at each sector of the job.
    scratch: BTreeMap<u64, Option<u64>>,
    /// Writes and zeros, by destination and sector: how many of zeros there were.
    zeroed: BTreeMap<(usize, u64), u32>,
}

const PIECE: u64 = 64;
const ALWAYS: u32 = u32::MAX;

impl Model {
    fn strikes(bad: &mut BTreeMap<u64, u32>, range: &Range<u64>) -> bool {
        let hit = bad.range_mut(range.clone()).find(|(_, left)| **left > 0);
        hit.is_some_and(|(_, left)| {
            *left = if *left == ALWAYS { ALWAYS } else { *left - 1 };
            true
        })
    }

    fn write(&mut self, range: &Range<u64>, dests: ErrorBits, zeros: bool) -> (ErrorBits, Vec<(usize, i32)>) {
        let (mut written, mut errors) = (ErrorBits::NONE, Vec::new());
        for index in dests.iter() {
            if Self::strikes(&mut self.write[index], range) {
                errors.push((index, libc::EIO));
            } else {
                written.set(index);
                self.order.push(range.start);
                self.held[index].extend(range.clone().map(|sector| (sector, (!zeros).then_some(sector))));
                range.clone().filter(|_| zeros).for_each(|at| *self.zeroed.entry((index, at)).or_default() += 1);
            }
        }
        (written, errors)
    }

    /// Reads a range of the source into the scratch block.
    fn gather(&mut self, range: &Range<u64>, zeros: bool) -> Option<i32> {
        let unread = Self::strikes(&mut self.read, range);
        if !unread || zeros {
            self.scratch.extend(range.clone().map(|sector| (sector, (!unread).then_some(sector))));
        }
        unread.then_some(libc::EIO)
    }

    /// Writes the scratch block.
    fn put(&mut self, range: &Range<u64>, dests: ErrorBits) -> (ErrorBits, Vec<(usize, i32)>) {
        let before: Vec<_> = self.held.clone();
        let (written, errors) = self.write(range, dests, false);
        for index in written.iter() {
            for sector in range.clone() {
                let new = self.scratch.get(&sector).copied();
                match new {
                    Some(new) => _ = self.held[index].insert(sector, new),
                    // What was fetched was nothing of the job's.
                    None => _ = self.held[index].remove(&sector),
                }
                let was_zero = before[index].get(&sector) == Some(&None);
                *self.zeroed.entry((index, sector)).or_default() += u32::from(new == Some(None) && !was_zero);
            }
        }
        (written, errors)
    }

    /// Does a step as the engine would, piece by piece, up to an error that stops it.
    fn run(&mut self, plan: &mut Plan, spec: &Spec, step: &Step, progress: &mut Progress) {
        let (range, mut dests, flags, copies) = match step {
            Step::Copy { range, dests, flags } => (range, *dests, *flags, true),
            Step::Probe { range } => (range, ErrorBits::NONE, Flags::NONE, true),
            Step::Zero { range, dests, flags } => (range, *dests, *flags, false),
            Step::Gather { range, .. } | Step::Fetch { range, .. } => (range, ErrorBits::first(1), Flags::NONE, true),
            Step::Put { range, dests, .. } => (range, *dests, Flags::KEEP_FAILED, true),
            Step::Compare { .. }
            | Step::Check { .. }
            | Step::Show { .. }
            | Step::HashZeros { .. }
            | Step::Hole { .. }
            | Step::FindHoles { .. } => {
                unreachable!("no comparison here")
            }
        };
        let block = plan.block();
        let is_whole = range.start.is_multiple_of(block) && range.end.is_multiple_of(block);
        assert!(is_whole || matches!(step, Step::Gather { .. }), "the devices do not take {step:?}");
        let ignores = flags.contains(Flags::IGNORE_ERROR) && !flags.contains(Flags::WRITE_SEQ);
        for start in range.clone().step_by(PIECE as usize) {
            let part = start..(start + PIECE).min(range.end);
            self.requests += 1;
            let (unread, written, errors) = match step {
                Step::Gather { zeros, .. } => {
                    let unread = self.gather(&part, *zeros);
                    let done = unread.is_none() || *zeros;
                    (unread.is_some(), if done { dests } else { ErrorBits::NONE }, Vec::new())
                }
                Step::Fetch { dest, .. } => {
                    self.scratch.clear();
                    let held = self.held[*dest].range(part.clone());
                    self.scratch.extend(held.map(|(sector, what)| (*sector, *what)));
                    (false, dests, Vec::new())
                }
                Step::Put { .. } => {
                    let (written, errors) = self.put(&part, dests);
                    (false, written, errors)
                }
                _ => {
                    let unread = copies && Self::strikes(&mut self.read, &part);
                    let write = !unread || ignores;
                    let (written, errors) =
                        if write { self.write(&part, dests, unread || !copies) } else { Default::default() };
                    (unread, written, errors)
                }
            };
            let sector = |number| Sector::new(number).unwrap();
            self.failures += u64::from(unread);
            let is_slow = part.start < self.slow.end && self.slow.start < part.end;
            let piece = Piece {
                offset: sector(part.start - range.start),
                count: sector(part.end - part.start),
                read_took: Duration::from_millis(if is_slow { 1000 } else { 1 }),
                read_error: unread.then_some(libc::EIO),
                written,
                write_errors: &errors,
                different: ErrorBits::NONE,
                displaced: None,
                same: ErrorBits::NONE,
                behind: ErrorBits::NONE,
            };
            let live = progress.live();
            plan.piece(spec, step, &piece, progress);
            let lost = live.without(progress.live());
            dests = dests.without(lost);
            let goes_on = |error: bool, flag: Flags| !error || ignores || flags.contains(flag);
            let drops = flags.contains(Flags::DROP_FAILED) && !dests.is_empty();
            if !goes_on(unread, Flags::SKIP_UNREADABLE) || !(goes_on(!errors.is_empty(), Flags::KEEP_FAILED) || drops) {
                return;
            }
            if plan.goes_on_otherwise() {
                return;
            }
        }
    }
}

fn spec(dests: usize) -> Spec {
    let region = |path: &str| RegionSpec { path: path.into(), sector: Sector::ZERO, count: None };
    let to = (0..dests).map(|index| region(&format!("/d{index}"))).collect();
    Spec { from: Some(region("/s")), to, ..Spec::default() }
}

/// All devices with blocks of so many sectors.
fn even(block: u64) -> Geometry {
    Geometry { source_block: block, dest_block: block, sequential: false, has_holes: false }
}

fn run(spec: &Spec, total: u64, block: u64, model: &mut Model) -> (Plan, Progress) {
    let progress = Progress::new(spec, Sector::new(total).unwrap());
    go_on(spec, progress, even(block), model)
}

/// Runs a job from those figures to its end.
fn go_on(spec: &Spec, mut progress: Progress, geometry: Geometry, model: &mut Model) -> (Plan, Progress) {
    model.write.resize_with(spec.to.len(), BTreeMap::new);
    model.held.resize_with(spec.to.len(), BTreeMap::new);
    let mut plan = Plan::new(spec, geometry);
    while let Some(step) = plan.next(spec, &mut progress) {
        model.run(&mut plan, spec, &step, &mut progress);
        assert!(model.requests < 1_000_000, "it does not end");
    }
    (plan, progress)
}

fn bad(sectors: impl IntoIterator<Item = u64>, times: u32) -> BTreeMap<u64, u32> {
    sectors.into_iter().map(|sector| (sector, times)).collect()
}

#[test]
fn without_errors_one_step_does_it() {
    let mut model = Model::default();
    let (plan, progress) = run(&spec(3), 1000, 1, &mut model);
    assert_eq!((progress.copied(), model.requests, plan.fatal), (1000 * 512, 16, false));
}

#[test]
fn stop_ends_the_job_at_the_first_bad_piece_and_names_the_block() {
    for block in [1, 8] {
        for first in [256, 257, 300, 318, 319] {
            let mut model = Model { read: bad([first, 319, 500], ALWAYS), ..Model::default() };
            let (plan, progress) = run(&spec(1), 1000, block, &mut model);
            assert!(plan.fatal && progress.read_err);
            let start = first / block * block;
            assert!(progress.unreadable.iter().eq(std::iter::once(start..start + block)), "{first}, {block}");
            assert_eq!((progress.copied(), progress.bad.len()), (256 * 512, 1));
            assert!(model.requests <= 5 + 7, "{} requests", model.requests);
            assert_eq!(model.held[0].len(), 256, "nothing of that piece is written");
        }
    }
}

#[test]
fn an_error_that_does_not_last_stops_the_job_for_what_was_seen() {
    let mut model = Model { read: bad([300], 2), ..Model::default() };
    let (plan, progress) = run(&spec(1), 1000, 1, &mut model);
    assert!(plan.fatal && progress.read_err && progress.unreadable.bytes() == 0);
    let bad: Vec<_> = progress.bad.iter().map(|bad| (bad.sector.get(), bad.count.get())).collect();
    assert_eq!((bad, progress.bad_bytes()), (vec![(288, 16)], 16 * 512));
}

#[test]
fn a_piece_that_failed_with_its_neighbour_is_not_what_the_job_stops_for() {
    let spec = spec(1);
    let (mut plan, mut progress) = (Plan::new(&spec, even(1)), Progress::new(&spec, Sector::new(1000).unwrap()));
    let step = plan.next(&spec, &mut progress).unwrap();
    let sector = |number| Sector::new(number).unwrap();
    // one request of the system: the bad block is in the second
    for start in [320, 256] {
        let piece = Piece {
            offset: sector(start),
            count: sector(64),
            read_took: Duration::ZERO,
            read_error: Some(libc::EIO),
            written: ErrorBits::NONE,
            write_errors: &[],
            different: ErrorBits::NONE,
            displaced: None,
            same: ErrorBits::NONE,
            behind: ErrorBits::NONE,
        };
        plan.piece(&spec, &step, &piece, &mut progress);
        assert!(progress.read_err, "known at once");
    }
    let mut model = Model { read: bad([330], ALWAYS), ..Model::default() };
    while let Some(step) = plan.next(&spec, &mut progress) {
        model.run(&mut plan, &spec, &step, &mut progress);
    }
    assert!(plan.fatal && progress.unreadable.iter().eq(std::iter::once(330..331)));
}

#[test]
fn ignored_write_errors_leave_only_the_bad_blocks_out() {
    let spec = Spec { ignore_error: true, ..spec(2) };
    let mut model = Model { write: vec![BTreeMap::new(), bad([300, 301, 900], ALWAYS)], ..Model::default() };
    let (_, progress) = run(&spec, 1000, 1, &mut model);
    assert_eq!((progress.write_err.bits(), model.held[0].len(), model.held[1].len()), (2, 1000, 997));
    let lost: Vec<_> = progress.bad.iter().map(|bad| (bad.dest, bad.sector.get(), bad.count.get())).collect();
    assert_eq!(lost, [(Some(1), 300, 2), (Some(1), 900, 1)]);
    // a dead one costs no request for each of its blocks
    let mut model = Model { write: vec![BTreeMap::new(), bad(0..400_000, ALWAYS)], ..Model::default() };
    let (_, progress) = run(&spec, 400_000, 1, &mut model);
    assert_eq!((progress.write_err.bits(), model.held[0].len(), model.held[1].len()), (2, 400_000, 0));
    assert!(model.requests < 400_000 / PIECE * 2, "{} requests", model.requests);
}

#[test]
fn one_bad_block_costs_few_requests() {
    let spec = Spec { on_read_error: OnReadError::Skip, ..spec(2) };
    let mut model = Model { read: bad([300], ALWAYS), ..Model::default() };
    let (_, progress) = run(&spec, 1000, 1, &mut model);
    assert!(progress.unreadable.iter().eq(std::iter::once(300..301)));
    assert!(model.requests <= 16 + 12, "{}", model.requests);
    assert!(!model.held[0].contains_key(&300) && model.held[1].len() == 999);
}

#[test]
fn a_dead_area_is_probed_and_not_read_block_by_block() {
    let spec = Spec { on_read_error: OnReadError::Zero, ..spec(1) };
    let total = 400_000;
    let mut model = Model { read: bad(10_000..390_000, ALWAYS), ..Model::default() };
    let (_, progress) = run(&spec, total, 1, &mut model);
    assert_eq!(progress.unreadable.bytes(), 380_000 * 512);
    assert!(model.requests < 380_000 / 3, "{} requests", model.requests);
    assert!(model.held[0][&200_000].is_none() && model.held[0].len() == total as usize);
}

#[test]
fn in_order_means_that_whatever_comes_first_on_the_source_is_done_first() {
    let spec = Spec { write_seq: true, on_read_error: OnReadError::Skip, ..spec(1) };
    let (mut plan, mut progress) = (Plan::new(&spec, even(1)), Progress::new(&spec, Sector::new(1000).unwrap()));
    let step = plan.next(&spec, &mut progress).unwrap();
    // several are in flight, and end in any order: two fail, and the one before them is not written for that
    for first in [3, 1] {
        let sector = |number| Sector::new(number).unwrap();
        let (offset, count) = (sector(first * PIECE), sector(PIECE));
        let (read_error, written, different) = (Some(libc::EIO), ErrorBits::NONE, ErrorBits::NONE);
        let (same, behind) = (ErrorBits::NONE, ErrorBits::NONE);
        let piece = Piece {
            offset,
            count,
            read_took: Duration::ZERO,
            read_error,
            written,
            write_errors: &[],
            different,
            displaced: None,
            same,
            behind,
        };
        plan.piece(&spec, &step, &piece, &mut progress);
    }
    let (mut model, mut steps) = (Model::default(), Vec::new());
    model.write.resize_with(1, BTreeMap::new);
    model.held.resize_with(1, BTreeMap::new);
    while let Some(step) = plan.next(&spec, &mut progress) {
        model.run(&mut plan, &spec, &step, &mut progress);
        steps.push(step.range().clone());
    }
    assert!(steps.iter().flat_map(Clone::clone).eq(0..1000), "{steps:?}");
}

#[test]
fn a_dead_area_is_probed_in_order_too() {
    let spec = Spec { write_seq: true, on_read_error: OnReadError::Zero, ..spec(1) };
    let mut model = Model { read: bad(10_000..90_000, ALWAYS), ..Model::default() };
    let (_, progress) = run(&spec, 100_000, 1, &mut model);
    assert_eq!(progress.unreadable.bytes(), 80_000 * 512);
    assert!(model.requests < 80_000 / 2 && model.order.is_sorted(), "{} requests", model.requests);
}

#[test]
fn transient_errors_are_outlived_by_as_many_retries() {
    for times in 0..=5 {
        for retries in 0..=5 {
            let well = retries >= times;
            let spec = Spec { retries, ..spec(2) };
            let mut model = Model { read: bad([300], times), ..Model::default() };
            let (plan, progress) = run(&spec, 1000, 1, &mut model);
            assert_eq!((plan.fatal, progress.read_err), (!well, !well), "read x{times}, retries={retries}");

            let mut model = Model { write: vec![bad([300], times), BTreeMap::new()], ..Model::default() };
            let (plan, progress) = run(&spec, 1000, 1, &mut model);
            assert_eq!((plan.fatal, progress.write_err.is_empty()), (false, well), "write x{times}, retries={retries}");
            assert_eq!(progress.copied(), 1000 * 512);

            let spec = Spec { on_write_error: OnWriteError::Stop, ..spec };
            let mut model = Model { write: vec![bad([300], times), BTreeMap::new()], ..Model::default() };
            let (plan, _) = run(&spec, 1000, 1, &mut model);
            assert_eq!(plan.fatal, !well, "write x{times}, retries={retries}, stop");
        }
    }
}

#[test]
fn a_dead_destination_is_given_up_in_spite_of_retries() {
    let spec = Spec { retries: 5, ..spec(2) };
    let mut model = Model { write: vec![BTreeMap::new(), bad(0..100_000, ALWAYS)], ..Model::default() };
    let (_, progress) = run(&spec, 100_000, 1, &mut model);
    assert_eq!((progress.write_err.bits(), progress.copied()), (2, 100_000 * 512));
    assert!(model.requests < 100_000 / PIECE + 500, "{}", model.requests);
}

#[test]
fn a_plan_goes_on_from_what_is_there() {
    let spec = spec(2);
    let mut progress = Progress::new(&spec, Sector::new(1000).unwrap());
    progress.taken(&(0..200), ErrorBits::first(2));
    progress.taken(&(300..400), ErrorBits::first(1));
    let (mut plan, mut model) = (Plan::new(&spec, even(1)), Model::default());
    model.write.resize_with(2, BTreeMap::new);
    model.held.resize_with(2, BTreeMap::new);
    let mut steps = Vec::new();
    while let Some(step) = plan.next(&spec, &mut progress) {
        model.run(&mut plan, &spec, &step, &mut progress);
        steps.push(match step {
            Step::Copy { range, dests, .. } => (range, dests.bits()),
            _ => unreachable!(),
        });
    }
    assert_eq!(steps, [(200..300, 3), (300..400, 2), (400..1000, 3)]);
}

fn policy() -> impl Strategy<Value = Spec> {
    let read = prop_oneof![Just(OnReadError::Stop), Just(OnReadError::Zero), Just(OnReadError::Skip)];
    let write = prop_oneof![Just(OnWriteError::Drop), Just(OnWriteError::Stop)];
    (1..4_usize, read, write, 0..3_u32, any::<bool>(), any::<bool>()).prop_map(
        |(dests, on_read_error, on_write_error, retries, write_seq, ignore_error)| {
            let ignore_error = ignore_error && on_read_error == OnReadError::Stop;
            Spec { ignore_error, write_seq, on_read_error, on_write_error, retries, ..spec(dests) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_policy_ends_and_tells_the_truth(
        spec in policy(),
        blocks in 1..200_u64,
        block in prop_oneof![Just(1_u64), Just(8)],
        read in proptest::collection::vec((0..1600_u64, prop_oneof![Just(1_u32), Just(ALWAYS)]), 0..6),
        write in proptest::collection::vec((0..3_usize, 0..1600_u64, prop_oneof![Just(1_u32), Just(ALWAYS)]), 0..3),
    ) {
        let total = blocks * block;
        let mut model = Model { read: read.iter().copied().collect(), write: vec![BTreeMap::new(); 3], ..Model::default() };
        for (dest, sector, times) in &write {
            model.write[*dest].insert(*sector, *times);
        }
        let (plan, progress) = run(&spec, total, block, &mut model);
        // What the figures say a destination has, it has; what it has not taken holds no copy that was not asked for.
        for (index, dest) in progress.dests.iter().enumerate() {
            for sector in dest.taken.iter().flatten() {
                prop_assert_eq!(model.held[index].get(&sector), Some(&Some(sector)));
            }
        }
        let live = progress.live();
        if !plan.fatal && !live.is_empty() {
            let gone = progress.unreadable.clone();
            for index in live.iter().filter(|index| !progress.write_err.contains(*index)) {
                prop_assert!(progress.dests[index].taken.union(&gone).contains(&(0..total)));
                let zeros = spec.on_read_error == OnReadError::Zero || spec.ignore_error && !spec.write_seq;
                for sector in gone.iter().flatten() {
                    prop_assert!(!zeros || model.held[index].get(&sector) == Some(&None));
                }
            }
            // No hole is larger than the device forces: each block in it has a sector that fails for ever.
            if !spec.ignore_error || spec.write_seq {
                for range in gone.iter() {
                    for start in range.step_by(block as usize) {
                        let forced = (start..start + block).any(|sector| model.read.get(&sector) == Some(&ALWAYS))
                            || read.iter().any(|(sector, _)| (start..start + block).contains(sector));
                        prop_assert!(forced);
                    }
                }
            }
        }
        if spec.write_seq {
            prop_assert!(spec.to.len() > 1 || model.order.is_sorted());
        }
    }
}

/// A destination whose blocks are eight of the source's.
const COARSE: Geometry = Geometry { source_block: 1, dest_block: 8, sequential: false, has_holes: false };

fn fresh(spec: &Spec, total: u64) -> Progress {
    Progress::new(spec, Sector::new(total).unwrap())
}

#[test]
fn a_coarser_destination_loses_no_more_than_the_source_forces() {
    for policy in [OnReadError::Zero, OnReadError::Skip] {
        for write_seq in [false, true] {
            let spec = Spec { on_read_error: policy, write_seq, ..spec(2) };
            let mut model = Model { read: bad([300, 301, 640, 647, 999], ALWAYS), ..Model::default() };
            let (plan, progress) = go_on(&spec, fresh(&spec, 1000), COARSE, &mut model);
            assert!(!plan.fatal && progress.unreadable.iter().flatten().eq([300, 301, 640, 647, 999]));
            for index in 0..2 {
                for at in 0..1000 {
                    let is_bad = [300, 301, 640, 647, 999].contains(&at);
                    let expected = match (is_bad, policy) {
                        (false, _) => Some(Some(at)),
                        (true, OnReadError::Zero) => Some(None),
                        (true, _) => None,
                    };
                    assert_eq!(model.held[index].get(&at).copied(), expected, "{policy:?} {index} {at}");
                }
                assert_eq!(progress.dests[index].taken.bytes(), 995 * 512);
            }
            assert!(model.requests < 300, "{}", model.requests);
        }
    }
    // the job that stops names the sector
    let spec = spec(1);
    let mut model = Model { read: bad([300], ALWAYS), ..Model::default() };
    let (plan, progress) = go_on(&spec, fresh(&spec, 1000), COARSE, &mut model);
    assert!(plan.fatal && progress.unreadable.iter().eq(std::iter::once(300..301)));
}

/// The figures of a job as a retry finds them, after all was made durable.
fn retried(mut progress: Progress) -> Progress {
    let all = ErrorBits::first(progress.dests.len());
    for index in all.iter() {
        progress.dest_made_durable(index, &progress.dests[index].mark());
    }
    progress.begin_anew();
    progress
}

#[test]
fn a_bad_block_is_given_zeros_once() {
    for (geometry, block) in [(even(1), 1), (COARSE, 8)] {
        for words in 0..3 {
            let spec = match words {
                0 => Spec { on_read_error: OnReadError::Zero, ..spec(2) },
                1 => Spec { on_read_error: OnReadError::Zero, write_seq: true, ..spec(2) },
                _ => Spec { ignore_error: true, ..spec(2) },
            };
            let (first, last) = if words == 2 { (300 / block * block, 320) } else { (300, 303) };
            let mut model = Model { read: bad(300..303, ALWAYS), ..Model::default() };
            let (_, progress) = go_on(&spec, fresh(&spec, 1000), geometry, &mut model);
            let zeros: Vec<_> = (first..last).collect();
            assert!(progress.dests.iter().all(|dest| dest.zeroed().iter().flatten().eq(zeros.iter().copied())));
            // ddrescue saves one of them, and the source's other blocks stay as they are
            model.held[0].insert(301, Some(301));
            let (_, progress) = go_on(&spec, retried(progress), geometry, &mut model);
            assert_eq!(model.held[0][&301], Some(301), "{words} {geometry:?}: zeros over what was saved");
            assert_eq!((model.held[0][&300], model.held[1][&301]), (None, None));
            assert!(model.zeroed.values().all(|count| *count <= 1), "{words} {geometry:?}");
            // two of them can be read now
            model.read = bad([300], ALWAYS);
            let (_, progress) = go_on(&spec, retried(progress), geometry, &mut model);
            let expected = if words == 2 { None } else { Some(302) };
            assert_eq!((model.held[0][&301], model.held[1][&302]), (Some(301), expected), "{words} {geometry:?}");
            model.read.clear();
            let (_, progress) = go_on(&spec, retried(progress), geometry, &mut model);
            assert_eq!(progress.copied(), 1000 * 512);
        }
    }
}

#[test]
fn zeros_that_were_not_flushed_are_written_again() {
    let spec = Spec { on_read_error: OnReadError::Zero, ..spec(1) };
    for geometry in [even(1), COARSE] {
        let mut model = Model { read: bad([300], ALWAYS), ..Model::default() };
        let (_, mut progress) = go_on(&spec, fresh(&spec, 1000), geometry, &mut model);
        progress.begin_anew();
        model.held[0].clear();
        go_on(&spec, progress, geometry, &mut model);
        assert_eq!((model.held[0].len(), model.held[0][&300]), (1000, None));
    }
}

#[test]
fn ignored_errors_on_both_sides_leave_only_the_bad_block_out() {
    // sixteen pieces in a row cannot be read, and the destination has one bad sector among them
    let spec = Spec { ignore_error: true, ..spec(2) };
    let mut model = Model { read: bad(0..16 * PIECE, ALWAYS), write: vec![bad([10], ALWAYS)], ..Model::default() };
    let (_, progress) = run(&spec, 32 * PIECE, 1, &mut model);
    assert_eq!((progress.write_err.bits(), model.held[1].len() as u64), (1, 32 * PIECE));
    let lacks: Vec<_> = (0..32 * PIECE).filter(|at| !model.held[0].contains_key(at)).collect();
    assert_eq!(lacks, [10]);
    let bad: Vec<_> = progress.bad.iter().map(|bad| (bad.dest, bad.sector.get(), bad.count.get())).collect();
    assert_eq!(bad, [(None, 0, 16 * PIECE), (Some(0), 10, 1)]);
}

#[test]
fn with_ignored_errors_what_lies_before_the_first_bad_block_of_a_piece_is_copied() {
    for (retries, block) in [(0, 1), (2, 1), (0, 8)] {
        for first in [0, 1, 31, 32, 40, 62, 63] {
            let spec = Spec { ignore_error: true, retries, ..spec(2) };
            // More bad ones behind it, and a neighbour that is bad as a whole.
            let bad_ones = (first..PIECE).step_by(9).map(|at| 3 * PIECE + at).chain(5 * PIECE..6 * PIECE);
            let mut model = Model { read: bad(bad_ones, ALWAYS), ..Model::default() };
            let (_, progress) = run(&spec, 16 * PIECE, block, &mut model);
            let first = 3 * PIECE + first / block * block;
            assert!(progress.unreadable.iter().eq([first..4 * PIECE, 5 * PIECE..6 * PIECE]), "{first} {retries}");
            for held in &model.held {
                let zeros: Vec<_> = held.iter().filter(|(_, copy)| copy.is_none()).map(|(at, _)| *at).collect();
                assert!(zeros.iter().copied().eq((first..4 * PIECE).chain(5 * PIECE..6 * PIECE)));
                assert_eq!(held.len() as u64, 16 * PIECE);
            }
            // Each piece in bulk, zeros for two; the one alone, its first block, by halves; the other alone, its first block.
            let most = 16 + 2 + (1 + 1 + 7) + (1 + 1) + 2 * u64::from(retries);
            assert!(model.requests <= most, "{} requests for {first}, {retries}", model.requests);
        }
    }
}

#[test]
fn with_ignored_errors_a_block_that_is_read_at_the_second_try_is_copied() {
    let spec = Spec { ignore_error: true, retries: 1, ..spec(1) };
    let mut model = Model { read: bad([100], 9), ..Model::default() };
    let (_, progress) = run(&spec, 1000, 1, &mut model);
    assert!(progress.bad_bytes() > 0, "it fails nine times");
    let mut model = Model { read: bad([64], 3), ..Model::default() };
    let (_, progress) = run(&spec, 1000, 1, &mut model);
    assert_eq!((progress.bad_bytes(), progress.copied()), (0, 1000 * 512));
}

/// A piece by its number, its read error, or 0, and its write errors.
type Ended<'a> = (u64, i32, &'a [(usize, i32)]);

/// Ends pieces of a step, each with what could not be read or written.
fn end_pieces(plan: &mut Plan, spec: &Spec, step: &Step, progress: &mut Progress, pieces: &[Ended<'_>]) {
    for (number, read_error, write_errors) in pieces {
        let sector = |number| Sector::new(number).unwrap();
        let read_error = (*read_error != 0).then_some(*read_error);
        let mut written = if read_error.is_some() { ErrorBits::NONE } else { ErrorBits::first(spec.to.len()) };
        for (index, _) in *write_errors {
            written = written.without(ErrorBits::from_bits(1 << index));
        }
        let (offset, count) = (sector(number * PIECE), sector(PIECE));
        let piece = Piece {
            offset,
            count,
            read_took: Duration::ZERO,
            read_error,
            written,
            write_errors,
            different: ErrorBits::NONE,
            displaced: None,
            same: ErrorBits::NONE,
            behind: ErrorBits::NONE,
        };
        plan.piece(spec, step, &piece, progress);
    }
}

#[test]
fn whatever_ends_a_job_what_was_not_read_is_told() {
    let policies = [OnReadError::Stop, OnReadError::Zero, OnReadError::Skip];
    for (policy, retries) in policies.into_iter().flat_map(|policy| [(policy, 0), (policy, 2)]) {
        let spec = Spec { on_read_error: policy, retries, on_write_error: OnWriteError::Stop, ..spec(1) };
        let (mut plan, mut progress) = (Plan::new(&spec, even(1)), fresh(&spec, 1000));
        let step = plan.next(&spec, &mut progress).unwrap();
        plan.policy.retries = 0;
        end_pieces(&mut plan, &spec, &step, &mut progress, &[(2, 0, &[(0, libc::EIO)]), (1, libc::ENODATA, &[])]);
        assert!(plan.fatal && plan.next(&spec, &mut progress).is_none());
        let bad: Vec<_> = progress.bad.iter().map(|bad| (bad.dest, bad.sector.get(), bad.errno)).collect();
        assert_eq!(bad, [(None, PIECE, libc::ENODATA), (Some(0), 2 * PIECE, libc::EIO)], "{policy:?} {retries}");
        assert!(progress.read_err && progress.bad_bytes() == PIECE * 512);
    }
}

#[test]
fn whatever_ends_a_job_every_destination_that_failed_is_told() {
    let spec = Spec { on_write_error: OnWriteError::Stop, retries: 1, ..spec(3) };
    let (mut plan, mut progress) = (Plan::new(&spec, even(1)), fresh(&spec, 1000));
    let step = plan.next(&spec, &mut progress).unwrap();
    let failed: &[(usize, i32)] = &[(0, libc::EIO), (1, libc::ENOSPC)];
    end_pieces(&mut plan, &spec, &step, &mut progress, &[(0, 0, failed), (1, 0, &[])]);
    let step = plan.next(&spec, &mut progress).unwrap();
    // bulk goes on first, then the first of the two is tried again and fails
    let Step::Copy { dests, .. } = &step else { panic!("{step:?}") };
    let step = if dests.bits() == 7 {
        end_pieces(&mut plan, &spec, &step, &mut progress, &(0..14).map(|at| (at, 0, &[][..])).collect::<Vec<_>>());
        progress.taken(&(0..1000), ErrorBits::from_bits(4));
        progress.taken(&(PIECE..1000), ErrorBits::first(2));
        plan.next(&spec, &mut progress).unwrap()
    } else {
        step
    };
    end_pieces(&mut plan, &spec, &step, &mut progress, &[(0, 0, &[(0, libc::EIO)])]);
    assert!(plan.fatal && plan.next(&spec, &mut progress).is_none());
    assert_eq!(progress.write_err.bits(), 3);
    assert_eq!(progress.dests[1].first_error().map(|(errno, _)| errno), Some(libc::ENOSPC));
}

#[test]
fn in_order_all_that_comes_before_a_bad_piece_is_copied() {
    for geometry in [even(1), Geometry { sequential: true, ..even(1) }] {
        let spec = Spec { write_seq: !geometry.sequential, ..spec(1) };
        let (mut plan, mut progress) = (Plan::new(&spec, geometry), fresh(&spec, 1000));
        let step = plan.next(&spec, &mut progress).unwrap();
        // what was in flight when it failed was not written
        end_pieces(&mut plan, &spec, &step, &mut progress, &[(6, libc::EIO, &[])]);
        let mut model = Model { read: bad([6 * PIECE + 3], ALWAYS), ..Model::default() };
        model.write.resize_with(1, BTreeMap::new);
        model.held.resize_with(1, BTreeMap::new);
        while let Some(step) = plan.next(&spec, &mut progress) {
            model.run(&mut plan, &spec, &step, &mut progress);
        }
        assert!(plan.fatal && progress.copied() == 6 * PIECE * 512, "{}", progress.copied());
        assert!(progress.unreadable.iter().eq(std::iter::once(6 * PIECE + 3..6 * PIECE + 4)));
    }
}

#[test]
fn a_zoned_destination_is_written_in_order_and_has_no_holes() {
    let zoned = Geometry { sequential: true, ..even(1) };
    for (policy, ignore_error) in [(OnReadError::Zero, false), (OnReadError::Stop, true), (OnReadError::Skip, false)] {
        let spec = Spec { on_read_error: policy, ignore_error, ..spec(1) };
        let mut model = Model { read: bad([300, 500], ALWAYS), ..Model::default() };
        let (plan, progress) = go_on(&spec, fresh(&spec, 1000), zoned, &mut model);
        let held: Vec<u64> = model.held[0].keys().copied().collect();
        assert!(model.order.is_sorted() && held.iter().copied().eq(0..held.len() as u64), "{policy:?}");
        assert_eq!((plan.fatal, progress.read_err), (policy != OnReadError::Zero, true), "{policy:?}");
    }
    let spec = Spec { on_read_error: OnReadError::Skip, ..spec(1) };
    assert!(crate::salvage::objection(&spec, zoned).is_some() && crate::salvage::objection(&spec, even(1)).is_none());
    let spec = Spec { changed: true, on_read_error: OnReadError::Zero, ..spec };
    let refused = crate::salvage::objection(&spec, zoned).map(|(word, _)| word);
    assert!(refused == Some("changed") && crate::salvage::objection(&spec, even(1)).is_none());
}

#[test]
fn a_source_that_is_gone_stops_the_job_and_nothing_is_zeroed() {
    for policy in [OnReadError::Stop, OnReadError::Zero, OnReadError::Skip] {
        for errno in [libc::ENODEV, libc::ENXIO] {
            let spec = Spec { on_read_error: policy, retries: 3, ..spec(1) };
            let (mut plan, mut progress) = (Plan::new(&spec, even(1)), fresh(&spec, 1000));
            let step = plan.next(&spec, &mut progress).unwrap();
            end_pieces(&mut plan, &spec, &step, &mut progress, &[(0, 0, &[]), (1, errno, &[]), (2, errno, &[])]);
            assert!(plan.fatal && plan.next(&spec, &mut progress).is_none(), "{policy:?}");
            assert!(progress.read_err && progress.unreadable.is_empty() && progress.error.is_some());
            assert_eq!(progress.copied(), PIECE * 512);
        }
    }
}

#[test]
fn what_another_job_wrote_in_finer_blocks_is_copied_in_whole_ones() {
    let spec = spec(1);
    let mut model = Model::default();
    let (_, mut progress) = go_on(&spec, fresh(&spec, 1000), COARSE, &mut model);
    progress.forget(0, &(99..900));
    model.held[0].retain(|at, _| !(99..900).contains(at));
    let (_, progress) = go_on(&spec, progress, COARSE, &mut model);
    assert_eq!((progress.copied(), model.held[0].len()), (1000 * 512, 1000));
}

#[test]
fn a_million_scattered_bad_blocks_cost_no_more_each_than_a_few() {
    // every other piece has a bad block: the model counts no time, but a plan that looked at everything before each step
    // would take hours here
    let pieces = 200_000;
    let spec = Spec { on_read_error: OnReadError::Zero, ..spec(1) };
    let (mut plan, mut progress) = (Plan::new(&spec, even(8)), fresh(&spec, pieces * PIECE));
    let mut steps = 0_u64;
    while let Some(step) = plan.next(&spec, &mut progress) {
        steps += 1;
        let range = step.range().clone();
        let zeros = matches!(step, Step::Zero { .. });
        for start in range.clone().step_by(PIECE as usize) {
            let part = start..(start + PIECE).min(range.end);
            // in each piece the blocks 1, 3, 5, and so on for the odd ones
            let is_bad =
                !zeros && (part.start / PIECE) % 2 == 1 && (part.start / 8..part.end / 8).any(|block| block % 2 == 1);
            let sector = |number| Sector::new(number).unwrap();
            let piece = Piece {
                offset: sector(part.start - range.start),
                count: sector(part.end - part.start),
                read_took: Duration::ZERO,
                read_error: is_bad.then_some(libc::EIO),
                written: if is_bad { ErrorBits::NONE } else { ErrorBits::first(1) },
                write_errors: &[],
                different: ErrorBits::NONE,
                displaced: None,
                same: ErrorBits::NONE,
                behind: ErrorBits::NONE,
            };
            plan.piece(&spec, &step, &piece, &mut progress);
        }
    }
    let bad = progress.unreadable.len() as u64;
    assert_eq!((bad, progress.unreadable.bytes()), (pieces / 2 * 4, pieces / 2 * 4 * 8 * 512));
    assert_eq!(progress.dests[0].zeroed(), &progress.unreadable);
    assert!(steps < 6 * bad, "{steps} steps for {bad} blocks");
    assert_eq!((progress.bad.len(), progress.suspect_bytes), (1 << 17, 0));
}

#[test]
fn what_lies_behind_a_slow_piece_is_put_last() {
    let (slow, total) = (100 * PIECE..180 * PIECE, 300 * PIECE);
    let skip = Spec { on_read_error: OnReadError::Skip, ..spec(1) };
    let mut model = Model { slow: slow.clone(), read: bad([150 * PIECE], ALWAYS), ..Model::default() };
    let (_, progress) = run(&skip, total, 1, &mut model);
    let place = |sector: u64| model.order.iter().position(|start| *start == sector).unwrap();
    // It skips 32 pieces, and then 64.
    assert_eq!(model.order[99..103], [99, 100, 133, 198].map(|piece| piece * PIECE));
    let order = [299, 101, 132, 134, 197].map(|piece| place(piece * PIECE));
    assert!(order.is_sorted(), "{:?}", model.order);
    // What could not be read comes after that.
    assert!(place(150 * PIECE + 1) > order[4]);
    assert_eq!(progress.copied(), (total - 1) * 512);
    // Where the first error ends the job it goes on as it lies.
    let mut model = Model { slow, ..Model::default() };
    run(&spec(1), total, 1, &mut model);
    assert!(model.order.is_sorted() && model.order.len() == 300);
}

#[test]
fn where_a_failure_takes_long_there_are_few() {
    let skip = Spec { on_read_error: OnReadError::Skip, ..spec(1) };
    let failures = |slow: Range<u64>| {
        let read = bad((100 * PIECE..101 * PIECE).step_by(4), ALWAYS);
        let mut model = Model { read, slow, ..Model::default() };
        let (_, progress) = run(&skip, 300 * PIECE, 1, &mut model);
        assert_eq!(progress.bad_bytes(), PIECE / 4 * 512);
        model.failures
    };
    // The piece, its halves, and each bad sector; not all that is between.
    assert_eq!(failures(100 * PIECE..101 * PIECE), 1 + 2 + PIECE / 4);
    assert_eq!(failures(0..0), 1 + 2 + 4 + 8 + 3 * PIECE / 4);
}
