//! Errors and flags: what is read, written, given up, and in which order.

use super::*;

#[test]
fn without_errors_every_destination_is_equal() {
    for settings in [small(&Sim::new(1)), Settings::default()] {
        let bench = Bench::new(settings);
        for count in [1, 3, 64] {
            let from = disk(1, 1000);
            let dests: Vec<_> = (0..count).map(|_| disk(9, 1000)).collect();
            assert_eq!(bench.copy(&from, &dests, Flags::NONE), Outcome::default());
            assert!(dests.iter().all(|dest| bytes_at(dest, 0, 1000) == stamp(1, 0, 1000)));
        }
        bench.client.destroy();
    }
}

#[test]
fn a_read_error_stops_a_job_without_flags() {
    let sim = Sim::new(2);
    let (from, dest) = (disk(1, 800), disk(9, 800));
    sim.fault(&from, Op::Read, 400..401, Fault::Error(libc::EIO), None);
    let outcome = Bench::new(small(&sim)).copy(&from, &[Arc::clone(&dest)], Flags::NONE);
    assert_eq!(outcome, Outcome { read_err: true, ..Outcome::default() });
    assert_eq!(bytes_at(&dest, 400, 8), stamp(9, 400, 8), "the failing piece is written nowhere");
    assert_eq!(bytes_at(&dest, 480, 320), stamp(9, 480, 320), "no piece is started after it");
    assert_eq!(bytes_at(&dest, 0, 320), stamp(1, 0, 320), "what was under way finishes");
}

#[test]
fn ignoring_errors_writes_zeros_for_what_cannot_be_read() {
    let sim = Sim::new(3);
    let (from, dests) = (disk(1, 800), [disk(9, 800), disk(9, 800), disk(9, 800)]);
    sim.fault(&from, Op::Read, 401..402, Fault::Error(libc::EIO), None);
    sim.fault(&dests[1], Op::Write, 80..81, Fault::Error(libc::EIO), None);
    let outcome = Bench::new(small(&sim)).copy(&from, &dests, Flags::IGNORE_ERROR);
    assert_eq!(outcome, Outcome { read_err: true, write_err: ErrorBits::from_bits(2), cancelled: false });
    for (index, dest) in dests.iter().enumerate() {
        let mut want = stamp(1, 0, 800);
        want[400 * 512..408 * 512].fill(0);
        if index == 1 {
            want[80 * 512..88 * 512].copy_from_slice(&stamp(9, 80, 8));
        }
        assert!(bytes_at(dest, 0, 800) == want, "destination {index}");
    }
}

#[test]
fn a_write_error_without_flags_stops_the_job_for_all() {
    let sim = Sim::new(4);
    let (from, dests) = (disk(1, 800), [disk(9, 800), disk(9, 800)]);
    sim.fault(&dests[0], Op::Write, 0..1, Fault::Error(libc::EIO), None);
    let outcome = Bench::new(small(&sim)).copy(&from, &dests, Flags::NONE);
    assert_eq!((outcome.read_err, outcome.write_err.bits()), (false, 1));
    assert_eq!(bytes_at(&dests[1], 400, 400), stamp(9, 400, 400));
}

#[test]
fn a_dropped_destination_does_not_harm_the_others() {
    for bad in [0, 1, 2] {
        let sim = Sim::new(5);
        let (from, dests) = (disk(1, 800), [disk(9, 800), disk(9, 800), disk(9, 800)]);
        sim.fault(&dests[bad], Op::Write, 96..97, Fault::Error(libc::EIO), None);
        let outcome = Bench::new(small(&sim)).copy(&from, &dests, Flags::DROP_FAILED);
        assert_eq!((outcome.read_err, outcome.write_err.bits()), (false, 1 << bad));
        for (index, dest) in dests.iter().enumerate() {
            assert_eq!(bytes_at(dest, 0, 800) == stamp(1, 0, 800), index != bad);
        }
        assert_eq!(bytes_at(&dests[bad], 400, 400), stamp(9, 400, 400), "it is left alone then");
        let log = sim.log();
        let reads = log.iter().filter(|(op, ..)| *op == Op::Read).count();
        assert_eq!(reads, 100);
    }
}

#[test]
fn with_no_destination_left_a_job_ends() {
    let sim = Sim::new(6);
    let (from, dest) = (disk(1, 8000), disk(9, 8000));
    sim.fault(&dest, Op::Write, 0..8000, Fault::Error(libc::ENOSPC), None);
    let outcome = Bench::new(small(&sim)).copy(&from, &[dest], Flags::DROP_FAILED);
    assert_eq!(outcome.write_err.bits(), 1);
    assert!(sim.log().len() < 40);
}

#[test]
fn ordered_writes_ascend_and_end_at_an_error() {
    for (fault, flags) in [(None, Flags::NONE), (Some(Op::Write), Flags::IGNORE_ERROR), (Some(Op::Read), Flags::NONE)] {
        let sim = Sim::new(7);
        let (from, dests) = (disk(1, 800), [disk(9, 800), disk(9, 800)]);
        if let Some(op) = fault {
            let bad = if op == Op::Read { &from } else { &dests[1] };
            sim.fault(bad, op, 400..401, Fault::Error(libc::EIO), None);
        }
        let outcome = Bench::new(small(&sim)).copy(&from, &dests, flags | Flags::WRITE_SEQ);
        assert_eq!(outcome.read_err, fault == Some(Op::Read));
        assert_eq!(outcome.write_err.bits(), if fault == Some(Op::Write) { 2 } else { 0 });
        for dest in &dests {
            let writes: Vec<u64> = sim
                .log()
                .iter()
                .filter(|(op, target, _)| (*op, *target) == (Op::Write, dest.target()))
                .map(|one| one.2)
                .collect();
            assert!(writes.is_sorted());
            let last = if fault.is_none() { 792 * 512 } else { 400 * 512 };
            assert!(writes.last().is_some_and(|at| *at <= last), "{writes:?}");
        }
    }
}

#[test]
fn zero_writes_zeros_and_nothing_else() {
    for settings in [small(&Sim::new(8)), Settings::default()] {
        let bench = Bench::new(settings);
        let dests = [disk(9, 30_000), disk(9, 30_000)];
        let regions: Vec<_> = dests.iter().map(|dest| IoRegion::new(dest, sectors(100), sectors(29_000))).collect();
        bench.client.zero(&regions, Flags::NONE, bench.sender.clone(), tell).unwrap();
        assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
        for dest in &dests {
            assert_eq!(bytes_at(dest, 0, 100), stamp(9, 0, 100));
            assert!(bytes_at(dest, 100, 29_000).iter().all(|byte| *byte == 0));
            assert_eq!(bytes_at(dest, 29_100, 900), stamp(9, 29_100, 900));
        }
    }
}

#[test]
fn a_job_of_no_sectors_only_has_its_callback_run() {
    let sim = Sim::new(9);
    let bench = Bench::new(small(&sim));
    let device = disk(1, 8);
    let other = disk(2, 8);
    let region = |device| IoRegion::new(device, Sector::ZERO, Sector::ZERO);
    bench.client.copy(&region(&device), &[region(&other)], Flags::NONE, bench.sender.clone(), tell).unwrap();
    assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
    assert!(sim.log().is_empty());
}

#[test]
fn what_is_skipped_is_written_nowhere_and_the_rest_everywhere() {
    let sim = Sim::new(22);
    let (from, dest) = (disk(1, 800), disk(9, 800));
    sim.fault(&from, Op::Read, 400..401, Fault::Error(libc::EIO), None);
    let outcome = Bench::new(small(&sim)).copy(&from, &[Arc::clone(&dest)], Flags::SKIP_UNREADABLE);
    assert!(outcome.read_err);
    let want = [stamp(1, 0, 400), stamp(9, 400, 8), stamp(1, 408, 392)].concat();
    assert!(bytes_at(&dest, 0, 800) == want);
}

#[test]
fn a_kept_destination_gets_all_that_it_takes() {
    let sim = Sim::new(23);
    let (from, dest) = (disk(1, 800), disk(9, 800));
    sim.fault(&dest, Op::Write, 400..401, Fault::Error(libc::EIO), None);
    let outcome = Bench::new(small(&sim)).copy(&from, &[Arc::clone(&dest)], Flags::KEEP_FAILED);
    assert_eq!((outcome.read_err, outcome.write_err.bits()), (false, 1));
    let want = [stamp(1, 0, 400), stamp(9, 400, 8), stamp(1, 408, 392)].concat();
    assert!(bytes_at(&dest, 0, 800) == want);
}

#[test]
fn destinations_left_out_are_left_alone() {
    let bench = Bench::new(small(&Sim::new(16)));
    let (from, dests) = (disk(1, 80), [disk(8, 80), disk(9, 80)]);
    bench.request(Request { without: ErrorBits::from_bits(1), ..plain(Work::Copy(whole(&from)), &dests) });
    assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
    assert_eq!(bytes_at(&dests[0], 0, 80), stamp(8, 0, 80));
    assert_eq!(bytes_at(&dests[1], 0, 80), stamp(1, 0, 80));
}
