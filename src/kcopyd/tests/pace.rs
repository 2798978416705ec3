//! Copies between devices of different speed: the windows find the depth, and no destination waits for one that is slower.

use super::*;
use crate::io::sim::Service;

const PIECE: u32 = 4096;
/// Sectors of a copy.
const SIZE: u64 = 4096 * 8;

fn latency(micros: u64) -> Service {
    let latency = Duration::from_micros(micros)..Duration::from_micros(micros + micros / 10);
    Service { servers: 64, latency, bandwidth: 1 << 40, ..Service::default() }
}

/// The virtual time that a copy of 16 MiB in pieces of 4 KiB takes.
fn copy(subjobs: Option<usize>, from: &Service, dests: &[Service]) -> Duration {
    let sim = Sim::new(3);
    let settings =
        Settings { subjob_bytes: PIECE, subjobs, backend: BackendKind::Sim(sim.clone()), ..Settings::default() };
    let client = Client::create(&PagePool::new(1024).unwrap(), 512, settings).unwrap();
    let device = |service: &Service| {
        let device = disk(1, SIZE);
        sim.behave(&device, Behaviour { service: Some(service.clone()), ..Behaviour::default() });
        device
    };
    let source = device(from);
    let dests: Vec<_> = dests.iter().map(|service| whole(&device(service))).collect();
    let (sender, ends) = channel();
    client.copy(&whole(&source), &dests, Flags::NONE, sender, tell).unwrap();
    assert_eq!(ends.recv().unwrap(), Outcome::default());
    client.destroy();
    sim.clock()
}

/// The least that any fixed number of sub-jobs takes.
fn best(from: &Service, dests: &[Service]) -> Duration {
    [2, 4, 8, 16, 32, 64].into_iter().map(|depth| copy(Some(depth), from, dests)).min().unwrap()
}

#[test]
fn windows_are_near_the_best_fixed_depth() {
    let slow_link = Service { bandwidth: 20 << 20, ..latency(300) };
    for (from, to) in [(latency(2000), latency(2000)), (latency(100), slow_link.clone()), (slow_link, latency(100))] {
        let dests = [to];
        let (ours, best) = (copy(None, &from, &dests), best(&from, &dests));
        assert!(ours * 80 <= best * 100, "{ours:?} against {best:?}: {from:?}, {dests:?}");
    }
}

#[test]
fn a_window_at_many_devices_that_answer_slowly_is_deep() {
    let (from, dests) = (latency(10_000), [latency(10_000)]);
    let (ours, eight) = (copy(None, &from, &dests), copy(Some(8), &from, &dests));
    assert!(ours * 4 <= eight, "{ours:?} against {eight:?}");
}

#[test]
fn two_clients_share_a_device_within_a_fifth() {
    let array = latency(5000);
    let disk_like = Service { servers: 1, bandwidth: 100 << 20, ..latency(1000) };
    let flash = Service { servers: 8, bandwidth: 100 << 20, ..latency(100) };
    for service in [array, disk_like, flash] {
        let sim = Sim::stepped(9);
        let pool = PagePool::new(8192).unwrap();
        let settings = Settings { subjob_bytes: PIECE, ..Settings::default() };
        // They share the table of paces, as the clients of a daemon do.
        let mut clients = [(); 2].map(|()| Stepped::new(&pool, 256, settings.clone(), &sim).unwrap());
        let timed = |service: &Service| {
            let device = disk(1, SIZE);
            sim.behave(&device, Behaviour { service: Some(service.clone()), ..Behaviour::default() });
            device
        };
        let shared = timed(&service);
        let (sender, ends) = channel();
        let logs: Vec<Log> = clients
            .iter()
            .map(|client| {
                let log = Log::default();
                let quick =
                    Service { servers: 64, latency: Duration::ZERO..Duration::from_nanos(1), ..service.clone() };
                let request = Request {
                    observer: Some(Box::new(log.clone())),
                    ..plain(Work::Copy(whole(&shared)), &[timed(&quick)])
                };
                client.client.submit(request, sender.clone(), tell).unwrap();
                log
            })
            .collect();
        let [one, two] = &mut clients;
        let mut now = Duration::ZERO;
        drive([&mut *one, &mut *two], &mut now, || ends.try_recv().is_ok());
        let mut done: Vec<usize> = logs.iter().map(|log| log.0.lock().len()).collect();
        done.sort_unstable();
        assert!(done[0] * 10 >= done[1] * 8, "{done:?} pieces: {service:?}");
        drive([one, two], &mut now, || ends.try_recv().is_ok());
    }
}
