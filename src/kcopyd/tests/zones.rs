//! Zones that hold something already: it is compared with what was to be written, and the copy goes on at the write pointer.

use super::*;
use crate::blkdev::{HELD, Zone, ZoneKind};

const SIZE: u64 = 800;
const ZONE: u64 = 200;

/// A copy of the first `count` sectors, and the device asked what its zones hold.
fn begun(sim: &Sim, from: &Arc<Device>, count: u64) -> Arc<Device> {
    let dest = zoned(sim, SIZE, ZONE);
    let bench = Bench::new(small(sim));
    let part = |device: &Arc<Device>| IoRegion::new(device, Sector::ZERO, sectors(count));
    bench.client.copy(&part(from), &[part(&dest)], Flags::NONE, bench.sender.clone(), tell).unwrap();
    assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
    dest.note_zones(&sim.zones(&dest));
    dest
}

fn writes(sim: &Sim, device: &Device) -> usize {
    sim.log().iter().filter(|(op, target, _)| *op == Op::Write && *target == device.target()).count()
}

#[test]
fn a_copy_goes_on_at_the_write_pointer() {
    for (seed, count) in [0, 1, 3, 199, 200, 203, 500, 799, 800].into_iter().enumerate() {
        for sparse in [false, true] {
            let sim = Sim::new(seed as u64);
            let from = disk(1, SIZE);
            from.file().write_all_at(&vec![0; 512 * 100], 130 * 512).unwrap();
            let dest = begun(&sim, &from, count);
            let before = writes(&sim, &dest);
            // Another destination that has nothing yet.
            let new = zoned(&sim, SIZE, ZONE);
            let bench = Bench::new(small(&sim));
            bench
                .request(Request { sparse, ..plain(Work::Copy(whole(&from)), &[Arc::clone(&dest), Arc::clone(&new)]) });
            assert_eq!(bench.ends.recv().unwrap(), Outcome::default(), "{count} sectors were there");
            assert!([&dest, &new].iter().all(|dest| bytes_at(dest, 0, SIZE) == bytes_at(&from, 0, SIZE)));
            if count == SIZE {
                assert_eq!(writes(&sim, &dest), before, "nothing is written twice");
            }
        }
    }
}

#[test]
fn zeros_go_on_at_the_write_pointer() {
    let sim = Sim::new(1);
    let zeros = Device::in_memory(sectors(SIZE), 512).unwrap();
    let dest = begun(&sim, &zeros, 333);
    let bench = Bench::new(small(&sim));
    bench.request(plain(Work::Zero, &[Arc::clone(&dest)]));
    assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
    let is_full = |zone: &Zone| zone.kind == ZoneKind::Sequential { pointer: zone.end };
    assert!(sim.zones(&dest).iter().all(is_full) && bytes_at(&dest, 0, SIZE).iter().all(|byte| *byte == 0));
}

#[test]
fn other_data_in_a_zone_is_an_error_that_says_so() {
    for (seed, flags) in
        [Flags::NONE, Flags::DROP_FAILED, Flags::KEEP_FAILED, Flags::IGNORE_ERROR].into_iter().enumerate()
    {
        let sim = Sim::new(seed as u64);
        let from = disk(1, SIZE);
        let dest = begun(&sim, &from, 333);
        dest.file().write_all_at(&[7], 300 * 512 + 511).unwrap();
        let (held, before) = (bytes_at(&dest, 0, SIZE), writes(&sim, &dest));
        let bench = Bench::new(small(&sim));
        let errors = Errors::default();
        let observer: Option<Box<dyn Observer>> = Some(Box::new(errors.clone()));
        bench.request(Request { flags, observer, ..plain(Work::Copy(whole(&from)), &[Arc::clone(&dest)]) });
        assert_eq!(bench.ends.recv().unwrap().write_err.bits(), 1);
        assert_eq!(*errors.0.lock(), [(296, HELD)]);
        assert!(bytes_at(&dest, 0, SIZE) == held && writes(&sim, &dest) == before, "{flags:?}: it is as it was");
    }
}

#[test]
fn what_cannot_be_read_back_is_an_error() {
    let sim = Sim::new(1);
    let from = disk(1, SIZE);
    let dest = begun(&sim, &from, 333);
    sim.fault(&dest, Op::Read, 100..101, Fault::Error(libc::EREMOTEIO), None);
    let bench = Bench::new(small(&sim));
    assert_eq!(bench.copy(&from, &[Arc::clone(&dest)], Flags::NONE).write_err.bits(), 1);
}

/// Pieces that could not be written.
#[derive(Clone, Default)]
struct Errors(Arc<Mutex<Vec<(u64, i32)>>>);

impl Observer for Errors {
    fn piece(&mut self, piece: &Piece<'_>) {
        let errors = piece.write_errors.iter().map(|(_, errno)| (piece.offset.get(), *errno));
        self.0.lock().extend(errors);
    }
}
