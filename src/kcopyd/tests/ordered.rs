//! What is written in order, by the flag or because the device is zoned: whatever fails, the job ends, and no destination gets
//! anything behind a hole.

use super::*;

const SIZE: u64 = 800;
const ZONE: u64 = 200;

/// Every pair of flags.
fn all_flags() -> Vec<Flags> {
    let one = [
        Flags::NONE,
        Flags::IGNORE_ERROR,
        Flags::SKIP_UNREADABLE,
        Flags::DROP_FAILED,
        Flags::KEEP_FAILED,
        Flags::WRITE_SEQ,
    ];
    one.iter().flat_map(|a| one.iter().map(|b| *a | *b)).collect()
}

#[test]
fn a_zoned_destination_is_written_up_to_what_cannot_be_read_whatever_the_flags() {
    for (seed, flags) in (0..).zip(all_flags()) {
        let sim = Sim::new(seed);
        let (from, plain, zoned) = (disk(1, SIZE), disk(9, SIZE), zoned(&sim, SIZE, ZONE));
        sim.fault(&from, Op::Read, 501..502, Fault::Error(libc::EIO), None);
        let outcome = Bench::new(small(&sim)).copy(&from, &[Arc::clone(&plain), Arc::clone(&zoned)], flags);
        assert_eq!(outcome, Outcome { read_err: true, ..Outcome::default() }, "{flags:?}");
        let rest = [stamp(9, 496, SIZE - 496), vec![0; usize::try_from((SIZE - 496) * 512).unwrap()]];
        for (dest, rest) in [plain, zoned].iter().zip(rest) {
            assert!(bytes_at(dest, 0, 496) == stamp(1, 0, 496), "{flags:?}: all that lies before it");
            assert!(bytes_at(dest, 496, SIZE - 496) == rest, "{flags:?}: nothing from there on");
        }
    }
}

#[test]
fn a_zoned_destination_gets_nothing_behind_a_write_that_failed() {
    for (seed, flags) in (0..).zip(all_flags()) {
        let sim = Sim::new(seed);
        let (from, plain, zoned) = (disk(1, SIZE), disk(9, SIZE), zoned(&sim, SIZE, ZONE));
        sim.fault(&zoned, Op::Write, 500..501, Fault::Error(libc::ENOSPC), Some(1));
        let outcome = Bench::new(small(&sim)).copy(&from, &[Arc::clone(&plain), Arc::clone(&zoned)], flags);
        assert_eq!((outcome.read_err, outcome.write_err.bits()), (false, 2), "{flags:?}");
        assert!(bytes_at(&zoned, 0, 496) == stamp(1, 0, 496), "{flags:?}");
        assert!(bytes_at(&zoned, 496, SIZE - 496).iter().all(|byte| *byte == 0), "{flags:?}");
        let tried = sim.log().iter().filter(|(op, target, _)| *op == Op::Write && *target == zoned.target()).count();
        assert_eq!(tried, 63, "{flags:?}: it is not tried again");
        // The other one goes on where one dead disk is not to harm the others.
        if flags.contains(Flags::DROP_FAILED) || flags.contains(Flags::KEEP_FAILED) {
            assert!(bytes_at(&plain, 0, SIZE) == stamp(1, 0, SIZE), "{flags:?}");
        } else {
            assert!(bytes_at(&plain, 504, SIZE - 504) == stamp(9, 504, SIZE - 504), "{flags:?}");
        }
    }
}

#[test]
fn zones_are_filled_with_zeros_in_order() {
    for write_zeroes in [false, true] {
        let sim = Sim::new(3);
        let device = Device::zoned_in_memory(sectors(SIZE), 512).unwrap();
        let zone = Some(sectors(ZONE));
        sim.behave(&device, Behaviour { zone, zeroes: write_zeroes, ..Behaviour::default() });
        for sparse in [false, true] {
            let bench = Bench::new(small(&sim));
            let half = |at| vec![IoRegion::new(&device, sectors(at), sectors(SIZE / 2))];
            let dests = half(if sparse { SIZE / 2 } else { 0 });
            bench.request(Request { dests, sparse, ..plain(Work::Zero, &[]) });
            assert_eq!(bench.ends.recv().unwrap(), Outcome::default(), "sparse {sparse}");
        }
    }
}

#[test]
fn zeros_are_written_in_order_where_that_is_asked() {
    let sim = Sim::new(4);
    let bench = Bench::new(small(&sim));
    let dest = disk(9, SIZE);
    bench.request(Request { flags: Flags::WRITE_SEQ, ..plain(Work::Zero, &[Arc::clone(&dest)]) });
    assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
    let places: Vec<u64> = sim.log().iter().filter(|entry| entry.0 == Op::Zero).map(|entry| entry.2).collect();
    assert!(places.len() == 100 && places.is_sorted(), "{places:?}");
}

#[test]
fn a_sparse_copy_fills_zones_in_order_where_holes_are_parts_of_pieces() {
    let sim = Sim::new(5);
    let settings = Settings { subjob_bytes: 512 << 10, ..small(&sim) };
    for (seed, zeroes) in [(5, false), (6, true)] {
        let size = 8192;
        let from = disk(seed, size);
        // Holes of 32 KiB every 64, at odd places; and a long one.
        for at in (3_u64..60).map(|place| place * 128 + 64) {
            from.file().write_all_at(&vec![0; 32768], at * 512).unwrap();
        }
        from.file().write_all_at(&vec![0; 2000 * 512], 4000 * 512).unwrap();
        let dest = Device::zoned_in_memory(sectors(size), 512).unwrap();
        sim.behave(&dest, Behaviour { zone: Some(sectors(1024)), zeroes, ..Behaviour::default() });
        let bench = Bench::new(settings.clone());
        bench.request(Request { sparse: true, ..plain(Work::Copy(whole(&from)), &[Arc::clone(&dest)]) });
        assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
        assert!(bytes_at(&dest, 0, size) == bytes_at(&from, 0, size));
    }
}

#[test]
fn a_job_that_stops_for_a_destination_finishes_what_is_in_flight_to_all() {
    struct GivesUp(Arc<Mutex<Option<JobHandle>>>, Log);
    impl Observer for GivesUp {
        fn piece(&mut self, piece: &Piece<'_>) {
            self.1.piece(piece);
            for (index, _) in piece.write_errors {
                let mut bits = ErrorBits::NONE;
                bits.set(*index);
                self.0.lock().as_ref().expect("set before the resume").give_up(bits);
            }
        }
    }
    let sim = Sim::new(6);
    let bench = Bench::new(small(&sim));
    let (from, dests) = (disk(1, SIZE), [disk(8, SIZE), disk(9, SIZE)]);
    sim.fault(&dests[1], Op::Write, 0..1, Fault::Error(libc::EIO), None);
    // The other pieces are still being read when the first has failed.
    sim.fault(&from, Op::Read, 8..SIZE, Fault::Delay(Duration::from_millis(50)), None);
    let (slot, log) = (Arc::default(), Log::default());
    let observer: Option<Box<dyn Observer>> = Some(Box::new(GivesUp(Arc::clone(&slot), log.clone())));
    let handle = bench.request(Request { paused: true, observer, ..plain(Work::Copy(whole(&from)), &dests) });
    *slot.lock() = Some(handle.clone());
    handle.resume();
    assert_eq!(bench.ends.recv().unwrap().write_err.bits(), 2);
    let written: Vec<u64> = log.0.lock().iter().map(|piece| piece.3).collect();
    assert_eq!(written, [1, 3, 3, 3, 3, 3, 3, 3]);
    assert!(bytes_at(&dests[1], 8, 56) == stamp(1, 8, 56));
}
