//! Thin destinations without write-zeroes: they stay thin, and read as zeros where the source does.

use super::*;

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
