//! Thin destinations without write-zeroes: they stay thin, and read as zeros where the source does.

use super::*;
use crate::io::sim::Discard;

const CHUNK: u64 = 128;
const SIZE: u64 = 64 * CHUNK;

fn thin(sim: &Sim) -> Arc<Device> {
    let device = Device::in_memory(sectors(SIZE), 512).unwrap();
    sim.behave(&device, Behaviour { thin: Some(sectors(CHUNK)), ..Behaviour::default() });
    device
}

#[test]
fn a_fresh_thin_destination_stays_thin() {
    for subjob_bytes in [64 << 10, 512 << 10] {
        let sim = Sim::new(1);
        let bench = Bench::new(Settings { subjob_bytes, ..small(&sim) });
        let from = Device::in_memory(sectors(SIZE), 512).unwrap();
        for chunk in [3, 17, 18, 63] {
            from.file().write_all_at(&stamp(5, 0, CHUNK), chunk * CHUNK * 512).unwrap();
        }
        let dests = [thin(&sim), thin(&sim), thin(&sim)];
        // What one of them holds already is overwritten, and that alone.
        dests[1].file().write_all_at(&[7; 512], 40 * CHUNK * 512 + 512).unwrap();
        dests[1].file().write_all_at(&[7; 512], 18 * CHUNK * 512).unwrap();
        bench.request(Request { sparse: true, ..plain(Work::Copy(whole(&from)), &dests) });
        assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
        assert_eq!(dests.each_ref().map(|dest| sim.allocated(dest)), [4, 5, 4]);
        assert!(dests.iter().all(|dest| bytes_at(dest, 0, SIZE) == bytes_at(&from, 0, SIZE)));
        bench.client.destroy();
    }
}

#[test]
fn what_cannot_be_read_is_written() {
    let sim = Sim::new(2);
    let bench = Bench::new(small(&sim));
    let dest = thin(&sim);
    dest.file().write_all_at(&stamp(9, 0, SIZE), 0).unwrap();
    sim.fault(&dest, Op::Read, 1000..1001, Fault::Error(libc::EIO), None);
    sim.fault(&dest, Op::Read, 2000..2001, Fault::Short(512), Some(3));
    let from = Device::in_memory(sectors(SIZE), 512).unwrap();
    bench.request(Request { sparse: true, ..plain(Work::Copy(whole(&from)), &[Arc::clone(&dest)]) });
    assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
    assert!(bytes_at(&dest, 0, SIZE).iter().all(|byte| *byte == 0));
}

#[test]
fn zeros_take_no_space_where_there_are_zeros() {
    let sim = Sim::new(3);
    let bench = Bench::new(Settings { subjob_bytes: 512 << 10, ..small(&sim) });
    let dests = [thin(&sim), thin(&sim)];
    dests[0].file().write_all_at(&[7; 512], 5 * CHUNK * 512 + 1024).unwrap();
    bench.request(Request { sparse: true, ..plain(Work::Zero, &dests) });
    assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
    assert_eq!(dests.each_ref().map(|dest| sim.allocated(dest)), [1, 0]);
    assert!(dests.iter().all(|dest| bytes_at(dest, 0, SIZE).iter().all(|byte| *byte == 0)));
}

#[test]
fn a_failed_zero_is_that_destinations_error() {
    let sim = Sim::new(4);
    let bench = Bench::new(small(&sim));
    let dests = [thin(&sim), thin(&sim)];
    dests[1].file().write_all_at(&stamp(9, 0, SIZE), 0).unwrap();
    sim.fault(&dests[1], Op::Write, 1000..1001, Fault::Error(libc::ENOSPC), None);
    let flags = Flags::KEEP_FAILED;
    bench.request(Request { sparse: true, flags, ..plain(Work::Zero, &dests) });
    assert_eq!(bench.ends.recv().unwrap().write_err.bits(), 2);
    let left = bytes_at(&dests[1], 0, SIZE).chunks(512).filter(|sector| sector[300] != 0).count();
    assert_eq!(left, 8, "one piece");
}

/// A device that is full of data, and said to answer discards of whole chunks with zeros.
fn full(sim: &Sim, discard: Option<Discard>, zeroes: bool) -> Arc<Device> {
    let device = Device::discarding_in_memory(sectors(SIZE), 512, sectors(CHUNK)).unwrap();
    let io = Bench::new(small(sim));
    sim.behave(&device, Behaviour { thin: Some(sectors(CHUNK)), discard, zeroes, ..Behaviour::default() });
    assert_eq!(io.copy(&disk(9, SIZE), &[Arc::clone(&device)], Flags::NONE), Outcome::default());
    assert_eq!(sim.allocated(&device), 64);
    device
}

fn discards(sim: &Sim, device: &Device) -> usize {
    sim.log().iter().filter(|(op, target, _)| *op == Op::Discard && *target == device.target()).count()
}

#[test]
fn a_full_thin_destination_gives_space_back() {
    // With write-zeroes that keep the space, and without.
    for (seed, zeroes) in [(1, false), (2, true)] {
        let sim = Sim::new(seed);
        let dests = [full(&sim, Some(Discard::Zeros), zeroes), thin(&sim), full(&sim, Some(Discard::Zeros), zeroes)];
        let from = Device::in_memory(sectors(SIZE), 512).unwrap();
        for chunk in [3, 17, 18, 63] {
            from.file().write_all_at(&stamp(5, 0, CHUNK), chunk * CHUNK * 512).unwrap();
        }
        // A chunk of which a part is data.
        from.file().write_all_at(&[7; 4096], 30 * CHUNK * 512 + 8192).unwrap();
        let bench = Bench::new(Settings { subjob_bytes: 512 << 10, ..small(&sim) });
        bench.request(Request { sparse: true, ..plain(Work::Copy(whole(&from)), &dests) });
        assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
        assert!(dests.iter().all(|dest| bytes_at(dest, 0, SIZE) == bytes_at(&from, 0, SIZE)));
        assert_eq!(dests.each_ref().map(|dest| sim.allocated(dest)), [5, 5, 5]);
        bench.request(Request { sparse: true, ..plain(Work::Zero, &dests) });
        assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
        assert!(dests.iter().all(|dest| bytes_at(dest, 0, SIZE).iter().all(|byte| *byte == 0)));
        assert_eq!([&dests[0], &dests[2]].map(|dest| sim.allocated(dest)), [0, 0]);
    }
}

#[test]
fn nothing_is_discarded_unless_it_is_asked_for() {
    let sim = Sim::new(3);
    let dest = full(&sim, Some(Discard::Zeros), false);
    let bench = Bench::new(small(&sim));
    bench.request(plain(Work::Zero, &[Arc::clone(&dest)]));
    assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
    assert_eq!((discards(&sim, &dest), sim.allocated(&dest)), (0, 64));
}

#[test]
fn discards_that_fail_or_leave_no_zeros_are_tried_once() {
    for (seed, discard, zeroes) in
        [(1, Some(Discard::Nothing), false), (2, None, false), (3, Some(Discard::Nothing), true)]
    {
        let sim = Sim::new(seed);
        let dest = full(&sim, discard, zeroes);
        // One piece after the other, so that the first tells the others.
        let flags = Flags::WRITE_SEQ;
        let bench = Bench::new(Settings { subjob_bytes: 256 << 10, ..small(&sim) });
        bench.request(Request { sparse: true, flags, ..plain(Work::Zero, &[Arc::clone(&dest)]) });
        assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
        assert!(bytes_at(&dest, 0, SIZE).iter().all(|byte| *byte == 0), "{discard:?}");
        assert_eq!(discards(&sim, &dest), 1, "{discard:?}");
    }
}

#[test]
fn what_is_no_whole_chunk_is_written() {
    let sim = Sim::new(4);
    let dest = full(&sim, Some(Discard::Zeros), false);
    let region = IoRegion::new(&dest, sectors(100), sectors(3 * CHUNK));
    let bench = Bench::new(Settings { subjob_bytes: 512 << 10, ..small(&sim) });
    let request = Request { sparse: true, ..plain(Work::Zero, &[Arc::clone(&dest)]) };
    bench.request(Request { dests: vec![region], ..request });
    assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
    assert!(bytes_at(&dest, 100, 3 * CHUNK).iter().all(|byte| *byte == 0));
    let rest = [(0, 100), (100 + 3 * CHUNK, SIZE - 100 - 3 * CHUNK)];
    assert!(rest.iter().all(|(first, count)| bytes_at(&dest, *first, *count) == stamp(9, *first, *count)));
    assert_eq!(sim.allocated(&dest), 62);
}

#[test]
fn zeros_after_a_discard_are_durable_after_a_flush() {
    let sim = Sim::new(5);
    let dest = Device::discarding_in_memory(sectors(SIZE), 512, sectors(CHUNK)).unwrap();
    sim.behave(&dest, Behaviour { discard: Some(Discard::Zeros), cache: true, ..Behaviour::default() });
    let bench = Bench::new(small(&sim));
    let request = || Request { sparse: true, ..plain(Work::Zero, &[Arc::clone(&dest)]) };
    for flushed in [true, false] {
        dest.file().write_all_at(&stamp(9, 0, SIZE), 0).unwrap();
        bench.request(request());
        assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
        if flushed {
            let (sender, end) = channel();
            bench.client.flush(Arc::clone(&dest), move |result| sender.send(result).unwrap());
            assert_eq!(end.recv().unwrap(), Ok(()));
        }
        sim.power_cut();
        assert_eq!(bytes_at(&dest, 0, SIZE).iter().all(|byte| *byte == 0), flushed);
    }
}

#[test]
fn a_chunk_that_is_data_in_part_is_written_whole_where_new_chunks_are_not_zeroed() {
    for flags in [Flags::NONE, Flags::WRITE_SEQ] {
        let sim = Sim::new(6);
        let dest = Device::zeroed_late_in_memory(sectors(SIZE), sectors(CHUNK)).unwrap();
        let discard = Some(Discard::Zeros);
        sim.behave(&dest, Behaviour { thin: Some(sectors(CHUNK)), discard, ..Behaviour::default() });
        let from = Device::in_memory(sectors(SIZE), 512).unwrap();
        for sector in [5 * CHUNK + 64, 17 * CHUNK + 8, 63 * CHUNK] {
            from.file().write_all_at(&stamp(5, 0, 8), sector * 512).unwrap();
        }
        let bench = Bench::new(Settings { subjob_bytes: 512 << 10, ..small(&sim) });
        bench.request(Request { sparse: true, flags, ..plain(Work::Copy(whole(&from)), &[Arc::clone(&dest)]) });
        assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
        assert!(bytes_at(&dest, 0, SIZE) == bytes_at(&from, 0, SIZE));
        assert_eq!(sim.allocated(&dest), 3);
        // What was not discarded was written, whatever it read as.
        let mut reached = vec![false; usize::try_from(SIZE * 512).unwrap()];
        for (_, bytes) in sim.take_written() {
            reached[usize::try_from(bytes.start).unwrap()..usize::try_from(bytes.end).unwrap()].fill(true);
        }
        assert!(reached.iter().all(|byte| *byte), "{flags:?}");
    }
}
