//! The promises of the room, one by one; `random` holds random jobs against a reference.

mod random;

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::Mutex;

use super::*;
use crate::blkdev::Device;
use crate::dm_io::IoRegion;
use crate::error::ErrorKind;
use crate::io::sim::Fault;
use crate::io::{BackendKind, MIN_PAGES, Op, PagePool, Sim};

fn sectors(number: u64) -> Sector {
    Sector::new(number).unwrap()
}

/// Bytes that tell their place: each sector begins with its number and goes on from its seed.
fn stamp(seed: u8, first: u64, count: u64) -> Vec<u8> {
    let mut bytes = vec![seed; usize::try_from(count * 512).unwrap()];
    for (number, sector) in (first..).zip(bytes.chunks_mut(512)) {
        sector[..8].copy_from_slice(&number.to_le_bytes());
        sector[8..264].fill(number as u8);
    }
    bytes
}

fn disk(seed: u8, size: u64) -> Arc<Device> {
    let device = Device::in_memory(sectors(size), 512).unwrap();
    device.file().write_all_at(&stamp(seed, 0, size), 0).unwrap();
    device
}

fn bytes_at(device: &Device, sector: u64, count: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(count * 512).unwrap()];
    device.file().read_exact_at(&mut bytes, sector * 512).unwrap();
    bytes
}

fn whole(device: &Arc<Device>) -> IoRegion {
    IoRegion::new(device, Sector::ZERO, device.size())
}

/// Settings with small pieces, so that small disks have many.
fn small(sim: &Sim) -> Settings {
    Settings { subjob_bytes: 4096, backend: BackendKind::Sim(sim.clone()), ..Settings::default() }
}

struct Bench {
    client: Client,
    ends: Receiver<Outcome>,
    sender: Sender<Outcome>,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let client = Client::create(&PagePool::new(MIN_PAGES).unwrap(), 0, settings).unwrap();
        let (sender, ends) = channel();
        Self { client, ends, sender }
    }

    fn copy(&self, from: &Arc<Device>, dests: &[Arc<Device>], flags: Flags) -> Outcome {
        let dests: Vec<_> = dests.iter().map(whole).collect();
        self.client.copy(&whole(from), &dests, flags, self.sender.clone(), tell).unwrap();
        self.ends.recv().unwrap()
    }

    fn request(&self, request: Request) -> JobHandle {
        self.client.submit(request, self.sender.clone(), tell).unwrap()
    }
}

#[allow(clippy::needless_pass_by_value)]
fn tell(outcome: Outcome, sender: Sender<Outcome>) {
    sender.send(outcome).unwrap();
}

/// A piece: first sector, count, read error, destinations that have it.
type Entry = (u64, u64, Option<i32>, u64);

/// Pieces, and how often the job fell quiet.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Entry>>>, Arc<Mutex<u32>>);

impl Observer for Log {
    fn piece(&mut self, piece: &Piece<'_>) {
        let entry = (piece.offset.get(), piece.count.get(), piece.read_error, piece.written.bits());
        self.0.lock().push(entry);
    }

    fn quiesced(&mut self) {
        *self.1.lock() += 1;
    }
}

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
fn the_smallest_pool_serves_64_jobs_of_64_destinations() {
    for (clients, settings) in
        [(1, small(&Sim::new(10))), (3, Settings { subjob_bytes: 128 << 10, ..Settings::default() })]
    {
        let pool = PagePool::new(MIN_PAGES).unwrap();
        let clients: Vec<Client> = (0..clients).map(|_| Client::create(&pool, 0, settings.clone()).unwrap()).collect();
        let from = disk(1, 300);
        let (sender, ends) = channel();
        let jobs: Vec<Vec<_>> = (0..64).map(|_| (0..64).map(|_| disk(9, 300)).collect()).collect();
        for (index, dests) in jobs.iter().enumerate() {
            let regions: Vec<_> = dests.iter().map(whole).collect();
            let client = &clients[index % clients.len()];
            client.copy(&whole(&from), &regions, Flags::NONE, sender.clone(), tell).unwrap();
        }
        assert!(ends.iter().take(64).all(|outcome| outcome == Outcome::default()));
        let want = stamp(1, 0, 300);
        assert!(jobs.iter().flatten().all(|dest| bytes_at(dest, 0, 300) == want));
        clients.into_iter().for_each(Client::destroy);
        assert_eq!(pool.figures().free, MIN_PAGES);
    }
}

#[test]
fn what_a_client_set_aside_is_its_own() {
    let sim = Sim::new(11);
    let pool = PagePool::new(MIN_PAGES).unwrap();
    let greedy = Client::create(&pool, 0, small(&sim)).unwrap();
    let modest = Client::create(&pool, 1, small(&Sim::new(1))).unwrap();
    let (stuck, copy) = (disk(1, 8000), disk(9, 8000));
    // The first client's writes never end, so that it holds all pages it can get, for ever.
    sim.fault(&copy, Op::Write, 0..8000, Fault::Hang, None);
    let settings = Settings { subjobs: 64, ..small(&sim) };
    let hog = Client::create(&pool, 0, settings).unwrap();
    let (sender, ends) = channel();
    for client in [&greedy, &hog] {
        client.copy(&whole(&stuck), &[whole(&copy)], Flags::NONE, sender.clone(), tell).unwrap();
    }
    let (from, to) = (disk(3, 800), disk(9, 800));
    modest.copy(&whole(&from), &[whole(&to)], Flags::NONE, sender.clone(), tell).unwrap();
    assert_eq!(ends.recv().unwrap(), Outcome::default());
    assert_eq!(bytes_at(&to, 0, 800), stamp(3, 0, 800));
    // Their I/O never ends: they cannot be destroyed.
    std::mem::forget((greedy, hog));
}

#[test]
fn callbacks_come_from_one_thread_in_the_order_of_the_ends() {
    let bench = Bench::new(small(&Sim::new(12)));
    let threads: Arc<Mutex<Vec<(usize, ThreadId)>>> = Arc::default();
    let (sender, ends) = channel();
    for number in 0..20 {
        let notify = |_: Outcome, (number, threads, sender): (usize, Arc<Mutex<Vec<_>>>, Sender<()>)| {
            threads.lock().push((number, std::thread::current().id()));
            sender.send(()).unwrap();
        };
        let context = (number, Arc::clone(&threads), sender.clone());
        if number % 2 == 0 {
            let (from, to) = (disk(1, 64), disk(2, 64));
            bench.client.copy(&whole(&from), &[whole(&to)], Flags::NONE, context, notify).unwrap();
        } else {
            bench.client.prepare_callback(context, notify).do_callback(true, ErrorBits::from_bits(5));
        }
    }
    ends.iter().take(20).for_each(drop);
    let told = threads.lock();
    assert!(told.iter().all(|(_, thread)| *thread == told[0].1 && *thread != std::thread::current().id()));
}

#[test]
fn a_prepared_callback_gets_what_it_is_given() {
    let bench = Bench::new(small(&Sim::new(12)));
    bench.client.prepare_callback(bench.sender.clone(), tell).do_callback(true, ErrorBits::from_bits(5));
    let outcome = Outcome { read_err: true, write_err: ErrorBits::from_bits(5), cancelled: false };
    assert_eq!(bench.ends.recv().unwrap(), outcome);
}

#[test]
fn a_paused_job_does_no_io_and_goes_on_where_it_was() {
    let sim = Sim::new(13);
    let bench = Bench::new(small(&sim));
    let (from, dest, log) = (disk(1, 800), disk(9, 800), Log::default());
    let request = Request {
        work: Work::Copy(whole(&from)),
        dests: vec![whole(&dest)],
        without: ErrorBits::NONE,
        flags: Flags::NONE,
        speed_max: SpeedLimit::default(),
        paused: true,
        sparse: false,
        in_order: false,
        observer: Some(Box::new(log.clone())),
    };
    let handle = bench.request(request);
    // A job behind it ends, so the paused one has been looked at.
    assert_eq!(bench.copy(&disk(3, 8), &[disk(4, 8)], Flags::NONE), Outcome::default());
    assert!(log.0.lock().is_empty() && *log.1.lock() > 0);
    handle.resume();
    assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
    let mut pieces = log.0.lock().clone();
    pieces.sort_unstable();
    assert!(pieces.iter().map(|piece| piece.0).eq((0..100).map(|piece| piece * 8)), "each piece once");
}

#[test]
fn pausing_in_the_middle_quiesces_and_loses_no_piece() {
    struct PauseAt(Arc<Mutex<Option<JobHandle>>>, Log, Sender<()>);
    impl Observer for PauseAt {
        fn piece(&mut self, piece: &Piece<'_>) {
            self.1.piece(piece);
            if self.1.0.lock().len() == 30 {
                self.0.lock().as_ref().expect("set before the resume").pause();
            }
        }
        fn quiesced(&mut self) {
            let pieces = self.1.0.lock().len();
            if (30..100).contains(&pieces) {
                self.2.send(()).unwrap();
            }
        }
    }
    let bench = Bench::new(small(&Sim::new(14)));
    let (from, dest, log, slot) = (disk(1, 800), disk(9, 800), Log::default(), Arc::default());
    let (sender, quiet) = channel();
    let observer = PauseAt(Arc::clone(&slot), log.clone(), sender);
    let handle = bench.request(Request {
        work: Work::Copy(whole(&from)),
        dests: vec![whole(&dest)],
        without: ErrorBits::NONE,
        flags: Flags::WRITE_SEQ,
        speed_max: SpeedLimit::default(),
        paused: true,
        sparse: false,
        in_order: false,
        observer: Some(Box::new(observer)),
    });
    *slot.lock() = Some(handle.clone());
    handle.resume();
    quiet.recv().unwrap();
    let at = log.0.lock().len();
    assert_eq!(bench.copy(&disk(3, 8), &[disk(4, 8)], Flags::NONE), Outcome::default());
    assert_eq!(log.0.lock().len(), at, "nothing happens while it is paused");
    handle.resume();
    assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
    assert_eq!(bytes_at(&dest, 0, 800), stamp(1, 0, 800));
    assert_eq!(log.0.lock().len(), 100);
}

#[test]
fn a_cancelled_job_ends_and_says_so() {
    let bench = Bench::new(small(&Sim::new(15)));
    let (from, dest) = (disk(1, 800), disk(9, 800));
    let handle = bench.request(Request {
        work: Work::Copy(whole(&from)),
        dests: vec![whole(&dest)],
        without: ErrorBits::NONE,
        flags: Flags::NONE,
        speed_max: SpeedLimit::default(),
        paused: true,
        sparse: false,
        in_order: false,
        observer: None,
    });
    handle.cancel();
    assert_eq!(bench.ends.recv().unwrap(), Outcome { cancelled: true, ..Outcome::default() });
    assert_eq!(bytes_at(&dest, 0, 800), stamp(9, 0, 800));
    handle.resume();
    handle.cancel();
    bench.client.destroy();
}

#[test]
fn destinations_left_out_are_left_alone() {
    let bench = Bench::new(small(&Sim::new(16)));
    let (from, dests) = (disk(1, 80), [disk(8, 80), disk(9, 80)]);
    bench.request(Request {
        work: Work::Copy(whole(&from)),
        dests: dests.iter().map(whole).collect(),
        without: ErrorBits::from_bits(1),
        flags: Flags::NONE,
        speed_max: SpeedLimit::default(),
        paused: false,
        sparse: false,
        in_order: false,
        observer: None,
    });
    assert_eq!(bench.ends.recv().unwrap(), Outcome::default());
    assert_eq!(bytes_at(&dests[0], 0, 80), stamp(8, 0, 80));
    assert_eq!(bytes_at(&dests[1], 0, 80), stamp(1, 0, 80));
}

#[test]
fn a_flush_covers_each_device_and_names_the_failed() {
    let sim = Sim::new(17);
    let bench = Bench::new(small(&sim));
    let disks = [disk(1, 8), disk(2, 8), disk(3, 8)];
    sim.fault(&disks[1], Op::Flush, 0..8, Fault::Error(libc::EIO), None);
    let (sender, ends) = channel();
    let devices = disks.iter().cloned().enumerate().map(|(index, disk)| (index + 4, disk)).collect();
    bench.client.flush(devices, move |bits, why| sender.send((bits, why.to_vec())).unwrap());
    assert_eq!(ends.recv().unwrap(), (ErrorBits::from_bits(1 << 5), vec![(5, libc::EIO)]));
}

#[test]
fn devices_are_let_go_before_the_end_is_told() {
    for backend in [BackendKind::Uring, BackendKind::Threads, BackendKind::Sim(Sim::new(1))] {
        let bench = Bench::new(Settings { subjob_bytes: 4096, backend, ..Settings::default() });
        let (from, dest) = (disk(1, 800), disk(9, 800));
        let (sender, ends) = channel();
        let weak = Arc::downgrade(&dest);
        let request = Request {
            work: Work::Copy(whole(&from)),
            dests: vec![whole(&dest)],
            without: ErrorBits::NONE,
            flags: Flags::NONE,
            speed_max: SpeedLimit::default(),
            paused: true,
            sparse: false,
            in_order: false,
            observer: None,
        };
        let notify = move |_: Outcome, sender: Sender<usize>| sender.send(weak.strong_count()).unwrap();
        let handle = bench.client.submit(request, sender, notify).unwrap();
        drop(dest);
        handle.resume();
        assert_eq!(ends.recv().unwrap(), 0);
    }
}

#[test]
fn the_throttle_keeps_its_share_in_virtual_time() {
    let mut took = Vec::new();
    for percent in [100, 25] {
        let sim = Sim::new(18);
        let settings = Settings { subjobs: 1, ..small(&sim) };
        settings.throttle.set(percent);
        let bench = Bench::new(settings);
        let (from, dest) = (disk(1, 16_000), disk(9, 16_000));
        assert_eq!(bench.copy(&from, &[dest], Flags::NONE), Outcome::default());
        took.push(sim.clock());
    }
    let ratio = took[1].as_secs_f64() / took[0].as_secs_f64();
    assert!((3.6..4.4).contains(&ratio), "a quarter of the time means four times as long, not {ratio}");
    assert!(took[0] > Duration::from_millis(500));
}

/// A request with nothing special.
fn plain(work: Work, dests: &[Arc<Device>]) -> Request {
    Request {
        work,
        dests: dests.iter().map(whole).collect(),
        without: ErrorBits::NONE,
        flags: Flags::NONE,
        speed_max: SpeedLimit::default(),
        paused: false,
        sparse: false,
        in_order: false,
        observer: None,
    }
}

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

#[test]
fn limits_of_speed_hold_in_virtual_time() {
    let took = |jobs: usize, job: Option<u64>, all: Option<u64>| {
        let sim = Sim::new(19);
        let mut settings = small(&sim);
        settings.speed_max = SpeedLimit::new(all);
        let bench = Bench::new(settings);
        let disks: Vec<_> = (0..jobs).map(|_| (disk(1, 16_000), disk(9, 16_000))).collect();
        for (from, dest) in &disks {
            bench.request(Request {
                work: Work::Copy(whole(from)),
                dests: vec![whole(dest)],
                without: ErrorBits::NONE,
                flags: Flags::WRITE_SEQ,
                speed_max: SpeedLimit::new(job),
                paused: false,
                sparse: false,
                in_order: false,
                observer: None,
            });
        }
        assert!(bench.ends.iter().take(jobs).all(|outcome| outcome == Outcome::default()));
        assert!(disks.iter().all(|(_, dest)| bytes_at(dest, 0, 16_000) == stamp(1, 0, 16_000)));
        sim.clock().as_secs_f64()
    };
    let bytes = 16_000.0 * 512.0;
    for (jobs, job, all, want) in [
        (1, Some(2_000_000), None, bytes / 2e6),
        (3, None, Some(3_000_000), bytes * 3.0 / 3e6),
        (1, Some(1_000_000), Some(9_000_000), bytes / 1e6),
    ] {
        let ratio = took(jobs, job, all) / want;
        assert!((0.97..1.03).contains(&ratio), "{job:?} {all:?}: {ratio}");
    }
}

#[test]
fn a_resized_client_keeps_one_sub_job() {
    let pool = PagePool::new(MIN_PAGES).unwrap();
    let client = Client::create(&pool, 64, small(&Sim::new(1))).unwrap();
    client.resize(100).unwrap();
    assert_eq!(client.figures().pages, 100);
    client.resize(0).unwrap();
    assert_eq!(client.figures().pages, 2);
    assert_eq!(client.resize(129).unwrap_err().kind(), ErrorKind::NoMemory);
}

#[test]
fn what_makes_no_sense_is_refused_with_its_reason() {
    let pool = PagePool::new(MIN_PAGES).unwrap();
    let create = |settings| Client::create(&pool, 0, settings).map(drop).expect_err("a refusal").kind();
    assert_eq!(create(Settings { subjob_bytes: 5000, ..Settings::default() }), ErrorKind::Invalid);
    assert_eq!(create(Settings { subjob_bytes: 2 << 20, ..Settings::default() }), ErrorKind::Invalid);
    assert_eq!(create(Settings { subjobs: 0, ..Settings::default() }), ErrorKind::Invalid);
    assert_eq!(create(Settings { subjob_bytes: 1 << 20, ..Settings::default() }), ErrorKind::NoMemory);

    let client = Client::create(&pool, 0, small(&Sim::new(1))).unwrap();
    let (a, b, coarse) = (disk(1, 64), disk(2, 64), Device::in_memory(sectors(64), 4096).unwrap());
    let region = |device, sector, count| IoRegion::new(device, sectors(sector), sectors(count));
    let refused = |from: IoRegion, dests: &[IoRegion]| {
        client.copy(&from, dests, Flags::NONE, (), |_, ()| unreachable!()).expect_err("a refusal").kind()
    };
    assert_eq!(refused(region(&a, 0, 8), &[]), ErrorKind::Invalid);
    assert_eq!(refused(region(&a, 0, 8), &vec![region(&b, 0, 8); 65]), ErrorKind::Invalid);
    assert_eq!(refused(region(&a, 0, 8), &[region(&b, 0, 9)]), ErrorKind::Invalid);
    assert_eq!(refused(region(&a, 0, 8), &[region(&a, 7, 8)]), ErrorKind::Overlap);
    assert_eq!(refused(region(&a, 0, 8), &[region(&b, 0, 8), region(&b, 7, 8)]), ErrorKind::Overlap);
    assert_eq!(refused(region(&a, 0, 8), &[region(&b, 60, 8)]), ErrorKind::BeyondEnd);
    assert_eq!(refused(region(&a, 60, 8), &[region(&b, 0, 8)]), ErrorKind::BeyondEnd);
    assert_eq!(refused(region(&a, 0, 8), &[region(&coarse, 4, 8)]), ErrorKind::Unaligned);
    // Neighbours do not overlap.
    let (sender, ends) = channel();
    client.copy(&region(&a, 0, 8), &[region(&a, 8, 8)], Flags::NONE, sender, tell).unwrap();
    assert_eq!(ends.recv().unwrap(), Outcome::default());
}
