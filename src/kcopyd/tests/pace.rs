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
