//! What a job sees of the data, and what it leaves out.

use super::*;

/// Which sides differ, which could not be read, how many sectors were equal, and the data that was shown.
type Seen = (ErrorBits, ErrorBits, u64, Vec<u8>);

#[derive(Clone, Default)]
struct Sides(Arc<Mutex<Seen>>);

impl Observer for Sides {
    fn piece(&mut self, piece: &Piece<'_>) {
        let mut sides = self.0.lock();
        sides.0 = sides.0.union(piece.different);
        piece.write_errors.iter().for_each(|(index, _)| sides.1.set(*index));
        sides.2 += u64::from(piece.written.count()) * piece.count.get();
    }

    fn data(&mut self, _: Sector, bytes: &Bytes<'_>) {
        let mut sides = self.0.lock();
        bytes(&mut |run| sides.3.extend_from_slice(run));
    }
}

#[test]
fn a_comparison_finds_what_is_different_and_writes_nothing() {
    let sim = Sim::new(20);
    let bench = Bench::new(small(&sim));
    let (from, dests) = (disk(1, 800), [disk(1, 800), disk(1, 800), disk(1, 800), disk(1, 800)]);
    dests[1].file().write_all_at(&[0xfe], 799 * 512 + 511).unwrap();
    sim.fault(&dests[2], Op::Read, 400..401, Fault::Error(libc::EIO), None);
    let sides = Sides::default();
    bench.request(Request {
        observer: Some(Box::new(sides.clone())),
        without: ErrorBits::from_bits(8),
        ..plain(Work::Compare(whole(&from)), &dests)
    });
    assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
    let (different, unread, equal, _) = sides.0.lock().clone();
    assert_eq!((different.bits(), unread.bits(), equal), (2, 4, 800 + 792 + 792));
    assert!(sim.log().iter().all(|(op, target, _)| *op == Op::Read && *target != dests[3].target()));
    bench.client.destroy();
}

#[test]
fn the_data_is_shown_in_order() {
    for (flags, compare) in [(Flags::NONE, false), (Flags::WRITE_SEQ, false), (Flags::NONE, true)] {
        let bench = Bench::new(small(&Sim::new(21)));
        let (from, dest, sides) = (disk(1, 801), disk(9, 801), Sides::default());
        let work = if compare { Work::Compare(whole(&from)) } else { Work::Copy(whole(&from)) };
        let without = ErrorBits::from_bits(u64::from(compare));
        let observer: Option<Box<dyn Observer>> = Some(Box::new(sides.clone()));
        bench.request(Request { flags, without, in_order: true, observer, ..plain(work, &[Arc::clone(&dest)]) });
        assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
        assert!(sides.0.lock().3 == stamp(1, 0, 801));
        assert_eq!(bytes_at(&dest, 0, 801), stamp(if compare { 9 } else { 1 }, 0, 801));
        bench.client.destroy();
    }
}

#[test]
fn a_sparse_copy_leaves_holes_that_read_as_zeros() {
    for settings in [Settings::default(), small(&Sim::new(24))] {
        let bench = Bench::new(settings);
        let (from, dests) = (disk(1, 8192), [disk(9, 8192), disk(9, 8192)]);
        from.file().write_all_at(&vec![0; 6000 * 512], 100 * 512).unwrap();
        let want = bytes_at(&from, 0, 8192);
        bench.request(Request { sparse: true, ..plain(Work::Copy(whole(&from)), &dests) });
        assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
        for dest in &dests {
            assert!(bytes_at(dest, 0, 8192) == want);
            if bench.client.backend() == "uring" {
                let blocks = std::os::unix::fs::MetadataExt::blocks(&dest.file().metadata().unwrap());
                assert!(blocks < 8192 - 5800, "{blocks} sectors are allocated");
            }
        }
        bench.client.destroy();
    }
}
