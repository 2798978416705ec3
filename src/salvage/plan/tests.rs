//! Plans against a model of disks: what is read, written and given up, and in how many requests.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::sector::Sector;
use crate::spec::RegionSpec;

/// A source and destinations with bad sectors, each with how often it fails; an engine that cuts pieces of 64 sectors.
#[derive(Default)]
struct Model {
    read: BTreeMap<u64, u32>,
    write: Vec<BTreeMap<u64, u32>>,
    /// What each destination holds, by sector: `Some(sector)` copied, `None` zeros.
    held: Vec<BTreeMap<u64, Option<u64>>>,
    requests: u64,
    /// First sectors of the writes, in order.
    order: Vec<u64>,
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
            Step::Compare { .. } => unreachable!("no comparison here"),
        };
        let ignores = flags.contains(Flags::IGNORE_ERROR) && !flags.contains(Flags::WRITE_SEQ);
        for start in range.clone().step_by(PIECE as usize) {
            let part = start..(start + PIECE).min(range.end);
            self.requests += 1;
            let unread = copies && Self::strikes(&mut self.read, &part);
            let write = !unread || ignores;
            let (written, errors) =
                if write { self.write(&part, dests, unread || !copies) } else { Default::default() };
            let sector = |number| Sector::new(number).unwrap();
            let piece = Piece {
                offset: sector(part.start - range.start),
                count: sector(part.end - part.start),
                read_error: unread.then_some(libc::EIO),
                written,
                write_errors: &errors,
                different: ErrorBits::NONE,
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
        }
    }
}

fn spec(dests: usize) -> Spec {
    let region = |path: &str| RegionSpec { path: path.into(), sector: Sector::ZERO, count: None };
    let to = (0..dests).map(|index| region(&format!("/d{index}"))).collect();
    Spec { from: Some(region("/s")), to, ..Spec::default() }
}

fn run(spec: &Spec, total: u64, block: u64, model: &mut Model) -> (Plan, Progress) {
    model.write.resize_with(spec.to.len(), BTreeMap::new);
    model.held.resize_with(spec.to.len(), BTreeMap::new);
    let (mut plan, mut progress) = (Plan::new(spec, block), Progress::new(spec, Sector::new(total).unwrap()));
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
    let (mut plan, mut progress) = (Plan::new(&spec, 1), Progress::new(&spec, Sector::new(1000).unwrap()));
    let step = plan.next(&spec, &mut progress).unwrap();
    let sector = |number| Sector::new(number).unwrap();
    // one request of the system: the bad block is in the second
    for start in [320, 256] {
        let piece = Piece {
            offset: sector(start),
            count: sector(64),
            read_error: Some(libc::EIO),
            written: ErrorBits::NONE,
            write_errors: &[],
            different: ErrorBits::NONE,
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
    let (mut plan, mut progress) = (Plan::new(&spec, 1), Progress::new(&spec, Sector::new(1000).unwrap()));
    let step = plan.next(&spec, &mut progress).unwrap();
    // several are in flight, and end in any order: two fail, and the one before them is not written for that
    for first in [3, 1] {
        let sector = |number| Sector::new(number).unwrap();
        let (offset, count) = (sector(first * PIECE), sector(PIECE));
        let (read_error, written, different) = (Some(libc::EIO), ErrorBits::NONE, ErrorBits::NONE);
        let piece = Piece { offset, count, read_error, written, write_errors: &[], different };
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
    let (mut plan, mut model) = (Plan::new(&spec, 1), Model::default());
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
