//! The window against the best fixed depth, over models of devices. What it does is kept in `table.txt`: a change shows there.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write;

use super::*;
use crate::io::sim::{Servers, Service};

const PIECE: u64 = 512 << 10;
const FIXED: [u64; 16] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256];

fn micros(number: u64) -> Duration {
    Duration::from_micros(number)
}

fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// A device that is read or written by one user who always wants more.
struct Loop {
    service: Service,
    servers: Servers,
    now: Duration,
    position: u64,
    /// In flight: when it ends, when it began.
    flying: BinaryHeap<Reverse<(Duration, Duration)>>,
    random: u64,
}

impl Loop {
    fn new(service: Service) -> Self {
        let (servers, flying) = (Servers::default(), BinaryHeap::new());
        Self { service, servers, now: Duration::ZERO, position: 0, flying, random: 7 }
    }

    fn start(&mut self) {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let end = self.servers.serve(&self.service, self.now, self.position, PIECE, self.random >> 20);
        self.position += PIECE;
        self.flying.push(Reverse((end, self.now)));
    }

    fn end(&mut self) -> Option<Duration> {
        let Reverse((end, began)) = self.flying.pop()?;
        self.now = end;
        Some(began)
    }

    /// Bytes per second over so many pieces at a fixed depth.
    fn fixed(&mut self, depth: u64, pieces: u64) -> u64 {
        let since = self.now;
        for _ in 0..pieces {
            while (self.flying.len() as u64) < depth {
                self.start();
            }
            self.end();
        }
        rate(pieces, self.now.saturating_sub(since))
    }

    /// The same with a window.
    fn windowed(&mut self, window: &mut Window, pieces: u64) -> u64 {
        let since = self.now;
        for _ in 0..pieces {
            while window.in_flight() + PIECE <= window.bytes() {
                window.started(self.now, PIECE);
                self.start();
            }
            let began = self.end().expect("a piece in flight");
            window.ended(self.now, PIECE, began);
        }
        rate(pieces, self.now.saturating_sub(since))
    }
}

fn rate(pieces: u64, time: Duration) -> u64 {
    u64::try_from(u128::from(pieces * PIECE) * 1_000_000_000 / time.as_nanos()).unwrap()
}

/// The highest rate of all fixed depths, and the lowest depth that has 0.97 of it.
fn best(service: &Service) -> (u64, u64) {
    let rates = FIXED.map(|depth| Loop::new(service.clone()).fixed(depth, 4000));
    let highest = *rates.iter().max().unwrap();
    let knee = rates.iter().position(|rate| share(*rate, highest) >= 97).unwrap();
    (highest, FIXED[knee])
}

fn devices() -> Vec<(&'static str, Service)> {
    let service = |servers, from, to, mib: u64| Service {
        servers,
        latency: micros(from)..micros(to),
        bandwidth: mib << 20,
        ..Service::default()
    };
    vec![
        ("HDD", Service { seek: millis(8), ..service(1, 100, 300, 160) }),
        ("USB stick", service(1, 800, 1500, 25)),
        ("SATA SSD", service(32, 80, 200, 530)),
        ("NVMe", service(64, 80, 120, 3200)),
        ("array of 64 at 5 ms", service(64, 4500, 5500, 100_000)),
        ("WAN of 50 ms", service(1000, 50_000, 50_500, 110)),
        ("cloud volume", service(256, 800, 3000, 1000)),
        ("garbage collection", Service { stalls: Some((millis(1000), millis(80))), ..service(32, 80, 200, 450) }),
    ]
}

/// How a window does on a device: its rate over a long time in percent of the best, its depth then, and after how many rounds' worth of
/// the best depth it did 0.9 of the best for good.
struct Score {
    percent: u64,
    depth: u64,
    settled: u64,
}

fn play(device: &mut Loop, window: &mut Window, highest: u64, knee: u64) -> Score {
    let round = (2 * knee).max(16);
    let rounds: Vec<u64> = (0..60).map(|_| share(device.windowed(window, round), highest)).collect();
    // A round in which a device seizes, or another depth is tried, is none.
    let is_slow = |pair: &[u64]| pair.iter().all(|percent| *percent < 90);
    let settled = rounds.windows(2).rposition(is_slow).map_or(0, |last| last as u64 + 2);
    let percent = share(device.windowed(window, 20_000), highest);
    Score { percent, depth: DEPTHS[window.depth], settled }
}

#[test]
fn it_does_what_the_best_fixed_depth_does() {
    let mut table = String::from("device               knee  best MiB/s  percent  depth  settled\n");
    for (name, service) in devices() {
        let (highest, knee) = best(&service);
        let Score { percent, depth, settled } = play(&mut Loop::new(service), &mut Window::new(PIECE), highest, knee);
        _ = writeln!(table, "{name:20} {knee:4} {:11} {percent:8} {depth:6} {settled:8}", highest >> 20);
        assert!(percent >= 95 && depth <= 2 * knee && settled <= 20, "{table}");
    }
    for (name, before, after) in steps() {
        let (highest, knee) = best(&after);
        let (mut device, mut window) = (Loop::new(before), Window::new(PIECE));
        device.windowed(&mut window, 10_000);
        device.service = after;
        let Score { percent, depth, settled } = play(&mut device, &mut window, highest, knee);
        _ = writeln!(table, "{name:20} {knee:4} {:11} {percent:8} {depth:6} {settled:8}", highest >> 20);
        assert!(percent >= 95 && depth <= 2 * knee && settled <= 20, "{table}");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kcopyd/window/table.txt");
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(path, &table).expect("write the table");
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(committed, table, "another table than table.txt: look, then UPDATE=1 cargo test --lib window");
}

/// Devices that change: before and after.
fn steps() -> Vec<(&'static str, Service, Service)> {
    let service = |from, to, mib: u64| Service {
        servers: 64,
        latency: micros(from)..micros(to),
        bandwidth: mib << 20,
        ..Service::default()
    };
    vec![
        ("ten times slower", service(450, 550, 100_000), service(4500, 5500, 100_000)),
        ("ten times faster", service(4500, 5500, 100_000), service(450, 550, 100_000)),
        ("slows to half", service(200, 300, 1000), service(200, 300, 500)),
        ("link ten times wider", service(1900, 2100, 200), service(1900, 2100, 2000)),
        ("link ten times less", service(1900, 2100, 2000), service(1900, 2100, 200)),
    ]
}

#[test]
fn after_a_silence_it_goes_on_as_before() {
    let service = devices().remove(4).1;
    let (mut device, mut window) = (Loop::new(service), Window::new(PIECE));
    device.windowed(&mut window, 10_000);
    let (before, depth) = (device.windowed(&mut window, 5000), window.depth);
    // Everything in flight ends five seconds late.
    device.now += millis(5000);
    device.flying = device.flying.drain().map(|Reverse((_, began))| Reverse((device.now, began))).collect();
    device.windowed(&mut window, 1000);
    assert!(share(device.windowed(&mut window, 5000), before) >= 95 && window.depth + 1 >= depth);
}

#[test]
fn what_is_not_kept_full_is_not_judged() {
    let (mut device, mut window) = (Loop::new(devices().remove(4).1), Window::new(PIECE));
    device.windowed(&mut window, 10_000);
    let depth = window.depth;
    // One piece after the other, as a limit of speed has it.
    for _ in 0..10_000 {
        while window.in_flight() > 0 {
            let began = device.end().expect("a piece in flight");
            window.ended(device.now, PIECE, began);
        }
        device.now += millis(1);
        window.started(device.now, PIECE);
        device.start();
    }
    assert_eq!(window.depth, depth);
}
