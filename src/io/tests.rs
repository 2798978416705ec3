//! One suite that every backend passes.

use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::Arc;

use super::*;
use crate::sector::Sector;

fn each_backend(test: impl Fn(&mut dyn Backend, &Arc<PagePool>)) {
    for kind in [BackendKind::Uring, BackendKind::Threads, BackendKind::Sim(Sim::new(7))] {
        let pool = PagePool::new(1024).unwrap();
        match open(&kind, &pool, 8) {
            Ok(mut opened) => test(&mut *opened.backend, &pool),
            Err(error) if std::env::var_os("CI").is_none() => eprintln!("SKIPPED: {kind:?}: {error}"),
            Err(error) => panic!("{kind:?}: {error}"),
        }
    }
}

fn disk(sectors: u64) -> Arc<Device> {
    let device = Device::in_memory(Sector::new(sectors).unwrap(), 512).unwrap();
    let bytes: Vec<u8> = (0..sectors * 512).map(|at| (at / 512 + at) as u8).collect();
    device.file().write_all_at(&bytes, 0).unwrap();
    device
}

fn contents(device: &Device) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(device.size().bytes()).unwrap()];
    device.file().read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[allow(unsafe_code)]
fn submit(backend: &mut dyn Backend, transfer: Transfer) {
    // SAFETY: every test below reaps all completions before it lets go of the memory.
    unsafe { backend.submit(transfer) };
}

fn reap(backend: &mut dyn Backend, count: usize) -> Vec<Completion> {
    let mut done = Vec::new();
    while done.len() < count {
        backend.reap(Wait::Forever, &mut done);
    }
    done.sort_by_key(|completion| completion.token);
    done
}

fn plain(bytes: &mut [u8]) -> Segments {
    Segments::collect([Segment { start: NonNull::from(&mut bytes[0]), length: bytes.len(), fixed: None }])
}

#[test]
fn many_transfers_in_pages_each_have_one_completion() {
    each_backend(|backend, pool| {
        let (from, to) = (disk(4096), disk(4096));
        let client = pool.reserve(1024, None).unwrap();
        let lists: Vec<PageList> = (0..256).map(|_| client.get(2).unwrap()).collect();
        for op in [Op::Read, Op::Write] {
            for (token, list) in (0..).zip(&lists) {
                let device = Arc::clone(if op == Op::Read { &from } else { &to });
                // Written in the reverse order of the source.
                let place = if op == Op::Read { token } else { 255 - token };
                let memory = list.segments(0, 8192);
                submit(backend, Transfer { token, op, device, position: place * 8192, length: 8192, memory });
            }
            let done = reap(backend, 256);
            assert!((0..).zip(&done).all(|(token, one)| *one == Completion { token, result: Ok(8192) }), "{done:?}");
        }
        let (from, to) = (contents(&from), contents(&to));
        assert!(from.chunks(8192).eq(to.rchunks(8192)), "{}", backend.name());
    });
}

#[test]
fn scattered_memory_keeps_its_order() {
    each_backend(|backend, _| {
        let device = disk(64);
        let (mut a, mut b, mut c) = (vec![0; 512], vec![0; 1024], vec![0; 4096]);
        let memory = Segments::collect([&mut c, &mut a, &mut b].map(|part| plain(part).as_slice()[0]));
        let length = memory.length() as u64;
        let device_ = Arc::clone(&device);
        submit(backend, Transfer { token: 9, op: Op::Read, device: device_, position: 1024, length, memory });
        assert_eq!(reap(backend, 1), [Completion { token: 9, result: Ok(length) }]);
        assert_eq!([c, a, b].concat(), contents(&device)[1024..1024 + 5632]);
    });
}

#[test]
fn the_end_of_a_device_is_short_and_beyond_is_nothing() {
    each_backend(|backend, _| {
        let device = disk(8);
        let mut bytes = vec![0; 2048];
        for (position, want) in [(3072, 1024), (4096, 0), (8192, 0)] {
            let (device, memory) = (Arc::clone(&device), plain(&mut bytes));
            submit(backend, Transfer { token: 1, op: Op::Read, device, position, length: 2048, memory });
            assert_eq!(reap(backend, 1)[0].result, Ok(want), "{}", backend.name());
        }
    });
}

#[test]
fn an_errno_comes_back_as_it_is() {
    each_backend(|backend, _| {
        // A pipe-less way to a refused write that all backends share: a descriptor that is open for reading only.
        let scratch = tempfile::NamedTempFile::new().unwrap();
        scratch.as_file().set_len(8192).unwrap();
        let device = crate::blkdev::open_source(scratch.path(), 512).unwrap();
        let mut bytes = vec![0; 4096];
        let memory = plain(&mut bytes);
        submit(backend, Transfer { token: 3, op: Op::Write, device, position: 0, length: 4096, memory });
        assert_eq!(reap(backend, 1), [Completion { token: 3, result: Err(libc::EBADF) }], "{}", backend.name());
    });
}

#[test]
fn a_flush_ends_and_a_zero_says_whether_it_could() {
    each_backend(|backend, _| {
        let device = disk(64);
        let (a, b) = (Arc::clone(&device), Arc::clone(&device));
        submit(
            backend,
            Transfer { token: 1, op: Op::Flush, device: a, position: 0, length: 0, memory: Segments::None },
        );
        submit(
            backend,
            Transfer { token: 2, op: Op::Zero, device: b, position: 0, length: 4096, memory: Segments::None },
        );
        let done = reap(backend, 2);
        assert_eq!(done[0].result, Ok(0));
        assert!(matches!(done[1].result, Ok(4096) | Err(libc::EOPNOTSUPP)), "{done:?}");
    });
}

#[test]
fn a_discard_says_whether_it_could_beside_other_transfers() {
    each_backend(|backend, _| {
        let device = disk(64);
        let mut buffer = vec![0; 4096];
        for round in 0..20 {
            let submitted = [(round, Op::Discard, Segments::None), (100 + round, Op::Read, plain(&mut buffer))];
            for (token, op, memory) in submitted {
                submit(backend, Transfer { token, op, device: Arc::clone(&device), position: 0, length: 4096, memory });
            }
            let done = reap(backend, 2);
            assert!(matches!(done[0], Completion { result: Err(libc::ENOTTY | libc::EOPNOTSUPP), .. }), "{done:?}");
            assert_eq!(done[1], Completion { token: 100 + round, result: Ok(4096) });
        }
    });
}

#[test]
fn a_wake_and_a_deadline_end_the_wait() {
    each_backend(|backend, _| {
        let mut done = Vec::new();
        backend.waker().wake();
        backend.reap(Wait::Forever, &mut done);
        let deadline = backend.now() + Duration::from_millis(20);
        while backend.now() < deadline {
            backend.reap(Wait::Until(deadline), &mut done);
        }
        let waker = backend.waker();
        let other = std::thread::spawn(move || waker.wake());
        backend.reap(Wait::Forever, &mut done);
        other.join().unwrap();
        assert!(done.is_empty());
    });
}

#[test]
fn simulated_faults_strike_where_they_were_put() {
    use sim::Fault;
    let sim = Sim::new(3);
    let pool = PagePool::new(128).unwrap();
    let mut opened = open(&BackendKind::Sim(sim.clone()), &pool, 8).unwrap();
    let backend = &mut *opened.backend;
    let device = disk(64);
    sim.fault(&device, Op::Read, 10..11, Fault::Error(libc::EIO), Some(1));
    sim.fault(&device, Op::Read, 20..21, Fault::Short(512), None);
    sim.fault(&device, Op::Read, 30..31, Fault::Hang, None);
    let mut bytes = vec![0; 1024];
    let mut read = |backend: &mut dyn Backend, token, sector: u64| {
        let (device, memory) = (Arc::clone(&device), plain(&mut bytes));
        submit(backend, Transfer { token, op: Op::Read, device, position: sector * 512, length: 1024, memory });
    };
    read(backend, 1, 9);
    assert_eq!(reap(backend, 1)[0].result, Err(libc::EIO));
    read(backend, 1, 9);
    read(backend, 2, 11);
    read(backend, 3, 20);
    read(backend, 4, 30);
    let results: Vec<_> = reap(backend, 3).iter().map(|one| one.result).collect();
    assert_eq!(results, [Ok(1024), Ok(1024), Ok(512)]);
}
