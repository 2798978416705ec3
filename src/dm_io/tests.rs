use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::*;
use crate::blkdev::Device;
use crate::error::ErrorKind;
use crate::io::sim::Fault;
use crate::io::{BackendKind, Op, PagePool, Sim};

fn sectors(number: u64) -> Sector {
    Sector::new(number).unwrap()
}

fn disk(fill: u8) -> Arc<Device> {
    let device = Device::in_memory(sectors(256), 512).unwrap();
    device.file().write_all_at(&vec![fill; 256 * 512], 0).unwrap();
    device
}

fn bytes_at(device: &Device, sector: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count * 512];
    device.file().read_exact_at(&mut bytes, sector * 512).unwrap();
    bytes
}

fn client(sim: &Sim) -> DmIo {
    DmIo::new(&PagePool::new(128).unwrap(), 64, &BackendKind::Sim(sim.clone())).unwrap()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 249) as u8).collect()
}

#[test]
fn each_kind_of_memory_writes_and_reads_the_same() {
    let io = client(&Sim::new(1));
    let data = pattern(8 * 512);
    let mut list = io.page_list(8192).unwrap();
    list.write(1000, &data);
    let bvec = |data: &[u8]| {
        let (head, tail) = data.split_at(700);
        let mut padded = vec![9; 50];
        padded.extend(tail);
        Memory::Bvec(vec![BioVec::new(head.to_vec()), BioVec { offset: 50, length: tail.len(), buffer: padded }])
    };
    for memory in [Memory::Pages { list, offset: 1000 }, bvec(&data), Memory::Vm(data.clone())] {
        let device = disk(0xff);
        let region = [IoRegion::new(&device, sectors(40), sectors(8))];
        assert!(io.sync(&region, Rw::Write, memory).unwrap().errors.is_empty());
        assert_eq!(bytes_at(&device, 40, 8), data);
        assert_eq!(bytes_at(&device, 39, 1), [0xff; 512]);
        assert_eq!(bytes_at(&device, 48, 1), [0xff; 512]);

        let mut list = io.page_list(8192).unwrap();
        list.write(0, &[3; 8192]);
        let done = io.sync(&region, Rw::Read, Memory::Pages { list, offset: 513 }).unwrap();
        let Memory::Pages { list, .. } = done.memory else { panic!("other memory came back") };
        let mut all = vec![0; 8192];
        list.read(0, &mut all);
        assert_eq!(all[513..][..data.len()], data);
        assert_eq!((all[512], all[513 + data.len()]), (3, 3));

        let done = io.sync(&region, Rw::Read, bvec(&[0; 4096])).unwrap();
        let Memory::Bvec(parts) = done.memory else { panic!("other memory came back") };
        let back: Vec<u8> = parts.iter().flat_map(|part| &part.buffer[part.offset..][..part.length]).copied().collect();
        assert_eq!(back, data);
        assert_eq!(parts[1].buffer[..50], [9; 50]);
    }
}

#[test]
fn a_failed_region_sets_its_bit_and_no_other() {
    for bad in [0, 31, 63] {
        let sim = Sim::new(bad as u64);
        let disks: Vec<_> = (0..64).map(|_| disk(0)).collect();
        sim.fault(&disks[bad], Op::Write, 9..10, Fault::Error(libc::EIO), None);
        let regions: Vec<_> = disks.iter().map(|disk| IoRegion::new(disk, sectors(8), sectors(4))).collect();
        let done = client(&sim).sync(&regions, Rw::Write, Memory::Vm(vec![5; 2048])).unwrap();
        assert_eq!(done.errors.bits(), 1 << bad);
        for (index, disk) in disks.iter().enumerate() {
            assert_eq!(bytes_at(disk, 8, 4) == [5; 2048], index != bad);
        }
    }
}

#[test]
fn regions_of_no_sectors_are_passed_over() {
    let (a, b) = (disk(1), disk(2));
    let regions = [IoRegion::new(&a, sectors(0), sectors(0)), IoRegion::new(&b, sectors(0), sectors(1))];
    let io = client(&Sim::new(1));
    assert!(io.sync(&regions, Rw::Write, Memory::Vm(vec![9; 512])).unwrap().errors.is_empty());
    assert_eq!((bytes_at(&a, 0, 1)[0], bytes_at(&b, 0, 1)[0], bytes_at(&b, 1, 1)[0]), (1, 9, 2));
    assert!(io.sync(&regions[..1], Rw::Write, Memory::Vm(vec![])).unwrap().errors.is_empty());
}

#[test]
fn regions_may_take_different_counts_of_the_same_memory() {
    let (a, b) = (disk(1), disk(2));
    let regions = [IoRegion::new(&a, sectors(0), sectors(4)), IoRegion::new(&b, sectors(10), sectors(2))];
    client(&Sim::new(1)).sync(&regions, Rw::Write, Memory::Vm(pattern(2048))).unwrap();
    assert_eq!(bytes_at(&a, 0, 4), pattern(2048));
    assert_eq!(bytes_at(&b, 10, 2), pattern(1024));
    assert_eq!(bytes_at(&b, 12, 1), [2; 512]);
}

#[test]
fn a_failed_read_leaves_zeros() {
    let sim = Sim::new(4);
    let device = disk(7);
    sim.fault(&device, Op::Read, 18..19, Fault::Error(libc::ENODATA), None);
    let region = [IoRegion::new(&device, sectors(16), sectors(4))];
    let done = client(&sim).sync(&region, Rw::Read, Memory::Vm(vec![1; 2048])).unwrap();
    assert_eq!(done.errors.bits(), 1);
    assert!(matches!(done.memory, Memory::Vm(bytes) if bytes == [0; 2048]));
}

#[test]
fn a_short_transfer_is_finished() {
    let sim = Sim::new(5);
    let device = disk(7);
    for op in [Op::Read, Op::Write] {
        sim.fault(&device, op, 16..17, Fault::Short(512 + 100), None);
    }
    let region = [IoRegion::new(&device, sectors(16), sectors(4))];
    let io = client(&sim);
    assert!(io.sync(&region, Rw::Write, Memory::Vm(pattern(2048))).unwrap().errors.is_empty());
    let done = io.sync(&region, Rw::Read, Memory::Vm(vec![1; 2048])).unwrap();
    assert!(done.errors.is_empty() && matches!(done.memory, Memory::Vm(bytes) if bytes == pattern(2048)));
}

#[test]
fn a_device_that_moves_nothing_is_an_error() {
    let sim = Sim::new(5);
    let device = disk(7);
    for op in [Op::Read, Op::Write] {
        sim.fault(&device, op, 18..19, Fault::Short(0), None);
    }
    let region = [IoRegion::new(&device, sectors(16), sectors(4))];
    let io = client(&sim);
    assert_eq!(io.sync(&region, Rw::Write, Memory::Vm(vec![0; 2048])).unwrap().errors.bits(), 1);
    assert_eq!(io.sync(&region, Rw::Read, Memory::Vm(vec![0; 2048])).unwrap().errors.bits(), 1);
}

#[test]
fn a_call_that_makes_no_sense_is_refused() {
    let (a, b) = (disk(1), Device::in_memory(sectors(64), 4096).unwrap());
    let io = client(&Sim::new(1));
    let region = |device, sector, count| IoRegion::new(device, sectors(sector), sectors(count));
    let two = [region(&a, 0, 1), region(&a, 8, 1)];
    let refused = |regions: &[IoRegion], rw, bytes| {
        io.sync(regions, rw, Memory::Vm(vec![0; bytes])).expect_err("a refusal").kind()
    };
    assert_eq!(refused(&two, Rw::Read, 512), ErrorKind::Os(libc::EIO));
    assert_eq!(refused(&[], Rw::Write, 512), ErrorKind::Invalid);
    assert_eq!(refused(&vec![region(&a, 0, 1); 65], Rw::Write, 512), ErrorKind::Invalid);
    assert_eq!(refused(&two[..1], Rw::Write, 511), ErrorKind::Invalid);
    assert_eq!(refused(&[region(&a, 255, 2)], Rw::Write, 1024), ErrorKind::BeyondEnd);
    assert_eq!(refused(&[region(&b, 1, 8)], Rw::Write, 4096), ErrorKind::Unaligned);
}

#[test]
fn callbacks_get_their_context_from_one_thread() {
    let io = client(&Sim::new(9));
    let device = disk(0);
    let (sender, receiver) = std::sync::mpsc::channel();
    for number in 0..50_u64 {
        let region = [IoRegion::new(&device, sectors(number), sectors(1))];
        let sender = sender.clone();
        let notify = move |done: Done, context: u64| {
            sender.send((context, done.errors, std::thread::current().id())).unwrap();
        };
        io.start(&region, Rw::Write, Memory::Vm(vec![number as u8; 512]), number, notify).unwrap();
    }
    let mut ends: Vec<_> = receiver.iter().take(50).collect();
    ends.sort_by_key(|(context, ..)| *context);
    assert!(
        ends.iter().enumerate().all(|(at, (context, errors, thread))| {
            at as u64 == *context && errors.is_empty() && *thread == ends[0].2
        })
    );
}

#[test]
fn pages_are_got_and_put() {
    let pool = PagePool::new(128).unwrap();
    let io = DmIo::new(&pool, 100, &BackendKind::Sim(Sim::new(1))).unwrap();
    assert!(io.get(29).is_err());
    io.get(28).unwrap();
    assert!(io.put(129).is_err());
    io.put(128).unwrap();
    let other = pool.reserve(128, None).unwrap();
    assert!(io.page_list(1).is_none());
    drop(other);
    assert_eq!(io.page_list(4097).map(|list| list.pages()), Some(2));
}

#[test]
fn a_file_that_was_cut_is_not_made_long_again() {
    let path = std::env::temp_dir().join(format!("kcopyfs-cut-{}", std::process::id()));
    std::fs::write(&path, vec![7; 256 * 512]).unwrap();
    let device = crate::blkdev::open_source(&path, 512).unwrap();
    let io = client(&Sim::new(7));
    std::fs::File::options().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let region = [IoRegion::new(&device, sectors(248), sectors(8))];
    let done = io.sync(&region, Rw::Write, Memory::Vm(pattern(4096))).unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::remove_file(&path).unwrap();
    assert_eq!((done.errors, length), (ErrorBits::only(0), 4096));
}
