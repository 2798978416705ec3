//! Clients and the life of a job: pages, callbacks, pauses, the end, the limits.

use super::*;

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
    let settings = Settings { subjobs: Some(64), ..small(&sim) };
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
        paused: true,
        observer: Some(Box::new(log.clone())),
        ..plain(Work::Copy(whole(&from)), &[Arc::clone(&dest)])
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
        flags: Flags::WRITE_SEQ,
        paused: true,
        observer: Some(Box::new(observer)),
        ..plain(Work::Copy(whole(&from)), &[Arc::clone(&dest)])
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
    let handle = bench.request(Request { paused: true, ..plain(Work::Copy(whole(&from)), &[Arc::clone(&dest)]) });
    handle.cancel();
    assert_eq!(bench.ends.recv().unwrap(), Outcome { cancelled: true, ..Outcome::default() });
    assert_eq!(bytes_at(&dest, 0, 800), stamp(9, 0, 800));
    handle.resume();
    handle.cancel();
    bench.client.destroy();
}

#[test]
fn each_flush_ends_by_itself_with_its_errno() {
    let sim = Sim::new(17);
    let bench = Bench::new(small(&sim));
    let disks = [disk(1, 8), disk(2, 8), disk(3, 8), disk(4, 8)];
    sim.fault(&disks[0], Op::Flush, 0..8, Fault::Hang, None);
    sim.fault(&disks[2], Op::Flush, 0..8, Fault::Error(libc::EIO), None);
    let (sender, ends) = channel();
    for (number, disk) in disks.iter().cloned().enumerate() {
        let sender = sender.clone();
        bench.client.flush(disk, move |result| sender.send((number, result)).unwrap());
    }
    let mut told: Vec<_> = ends.iter().take(3).collect();
    told.sort_unstable();
    assert_eq!(told, [(1, Ok(())), (2, Err(libc::EIO)), (3, Ok(()))]);
    assert!(ends.try_recv().is_err(), "the first hangs, and alone");
    // Its I/O never ends: it cannot be destroyed.
    std::mem::forget(bench);
}

#[test]
fn devices_are_let_go_before_the_end_is_told() {
    for backend in [BackendKind::Uring, BackendKind::Threads, BackendKind::Sim(Sim::new(1))] {
        let bench = Bench::new(Settings { subjob_bytes: 4096, backend, ..Settings::default() });
        let (from, dest) = (disk(1, 800), disk(9, 800));
        let (sender, ends) = channel();
        let weak = Arc::downgrade(&dest);
        let request = Request { paused: true, ..plain(Work::Copy(whole(&from)), &[Arc::clone(&dest)]) };
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
        let settings = Settings { subjobs: Some(1), ..small(&sim) };
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
                flags: Flags::WRITE_SEQ,
                speed_max: SpeedLimit::new(job),
                ..plain(Work::Copy(whole(from)), &[Arc::clone(dest)])
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
    assert_eq!(create(Settings { subjobs: Some(0), ..Settings::default() }), ErrorKind::Invalid);
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
