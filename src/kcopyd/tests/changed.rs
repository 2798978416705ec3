//! Copies of what has changed: who is written to, what is told, and what cannot be read.

use super::*;

const SIZE: u64 = 800;
/// Half of a sub-job is less than the smallest piece.
const PIECE: u64 = 8;

/// A destination that has all of the source but for those sectors.
fn nearly(wrong: &[u64]) -> Arc<Device> {
    let device = disk(1, SIZE);
    for sector in wrong {
        device.file().write_all_at(&[0xee], sector * 512 + 511).unwrap();
    }
    device
}

fn pieces_of(sectors: &[u64]) -> Vec<u64> {
    let mut pieces: Vec<u64> = sectors.iter().map(|sector| sector / PIECE * PIECE).collect();
    pieces.dedup();
    pieces
}

/// Where a device was written, in order of place.
fn written(sim: &Sim, device: &Device) -> Vec<u64> {
    let log = sim.log();
    let of_it = log.iter().filter(|(op, target, _)| *op == Op::Write && *target == device.target());
    let mut starts: Vec<u64> = of_it.map(|(_, _, byte)| byte / 512).collect();
    starts.sort_unstable();
    starts
}

/// What was told of each piece: where, who has it, who had it before.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(u64, u64, u64)>>>);

impl Observer for Told {
    fn piece(&mut self, piece: &Piece<'_>) {
        self.0.lock().push((piece.offset.get(), piece.written.bits(), piece.same.bits()));
    }
}

#[test]
fn each_destination_gets_only_what_differs_there() {
    for flags in [Flags::NONE, Flags::WRITE_SEQ, Flags::KEEP_FAILED, Flags::SKIP_UNREADABLE] {
        let sim = Sim::new(1);
        let (first, second): (&[u64], &[u64]) = (&[0, 5, 6, 400, 799], &[5, 77]);
        let (from, dests) = (disk(1, SIZE), [nearly(first), nearly(second), nearly(&[])]);
        let told = Told::default();
        let flags = flags | Flags::ONLY_CHANGED;
        for device in dests.iter().chain([&from]) {
            sim.behave(device, Behaviour::default());
        }
        let bench = Bench::new(small(&sim));
        bench.request(Request {
            flags,
            observer: Some(Box::new(told.clone())),
            ..plain(Work::Copy(whole(&from)), &dests)
        });
        assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
        assert!(dests.iter().all(|dest| bytes_at(dest, 0, SIZE) == stamp(1, 0, SIZE)), "{flags:?}");
        let want = [pieces_of(first), pieces_of(second), Vec::new()];
        for (dest, want) in dests.iter().zip(&want) {
            assert_eq!(written(&sim, dest), *want, "{flags:?}");
        }
        let told = told.0.lock();
        assert_eq!(told.len() as u64, SIZE / PIECE);
        for (at, written, same) in told.iter() {
            assert_eq!(*written, 7, "{flags:?}: piece {at}");
            let expected = (0..3).filter(|index| !want[*index].contains(at)).map(|index| 1 << index).sum::<u64>();
            assert_eq!(*same, expected, "{flags:?}: piece {at}");
        }
        let read = sim.log().iter().filter(|(op, target, _)| *op == Op::Read && *target == from.target()).count();
        assert_eq!(read as u64, SIZE / PIECE, "the source is read once");
        bench.client.destroy();
    }
}

#[test]
fn a_destination_that_cannot_be_read_is_written() {
    let sim = Sim::new(2);
    let (from, dests) = (disk(1, SIZE), [nearly(&[]), nearly(&[])]);
    sim.fault(&dests[0], Op::Read, 40..48, Fault::Error(libc::EIO), None);
    let outcome = Bench::new(small(&sim)).copy(&from, &dests, Flags::ONLY_CHANGED);
    assert_eq!(outcome, Outcome::default());
    assert_eq!((written(&sim, &dests[0]), written(&sim, &dests[1])), (vec![40], Vec::new()));
}

#[test]
fn errors_are_dealt_with_as_in_any_copy() {
    // A source that cannot be read is written nowhere, however little the destination has of it.
    let sim = Sim::new(3);
    let (from, dest) = (disk(1, SIZE), disk(9, SIZE));
    sim.fault(&from, Op::Read, 401..402, Fault::Error(libc::EIO), None);
    let flags = Flags::ONLY_CHANGED | Flags::SKIP_UNREADABLE;
    let outcome = Bench::new(small(&sim)).copy(&from, &[Arc::clone(&dest)], flags);
    assert_eq!(outcome, Outcome { read_err: true, ..Outcome::default() });
    assert!(bytes_at(&dest, 400, PIECE) == stamp(9, 400, PIECE) && bytes_at(&dest, 408, 392) == stamp(1, 408, 392));
    // A destination fails where it is written, and not where it is equal.
    let (dests, sim) = ([nearly(&[300]), nearly(&[300])], Sim::new(4));
    sim.fault(&dests[0], Op::Write, 0..SIZE, Fault::Error(libc::EIO), None);
    let from = disk(1, SIZE);
    let outcome = Bench::new(small(&sim)).copy(&from, &dests, Flags::ONLY_CHANGED | Flags::DROP_FAILED);
    assert_eq!((outcome.read_err, outcome.write_err.bits()), (false, 1));
    assert!(bytes_at(&dests[1], 0, SIZE) == stamp(1, 0, SIZE));
}

#[test]
fn the_observer_sees_all_of_the_source_in_order() {
    struct Seen(Arc<Mutex<Vec<u8>>>);
    impl Observer for Seen {
        fn piece(&mut self, _: &Piece<'_>) {}
        fn data(&mut self, _: Sector, bytes: &Bytes<'_>) {
            bytes(&mut |run| self.0.lock().extend_from_slice(run));
        }
    }
    let (sim, seen) = (Sim::new(5), Arc::<Mutex<Vec<u8>>>::default());
    let (from, dest) = (disk(1, SIZE), nearly(&[9, 10, 500]));
    let bench = Bench::new(small(&sim));
    let observer: Option<Box<dyn Observer>> = Some(Box::new(Seen(Arc::clone(&seen))));
    let plain = plain(Work::Copy(whole(&from)), &[Arc::clone(&dest)]);
    bench.request(Request { flags: Flags::ONLY_CHANGED, in_order: true, observer, ..plain });
    assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
    assert!(*seen.lock() == stamp(1, 0, SIZE) && bytes_at(&dest, 0, SIZE) == stamp(1, 0, SIZE));
}
