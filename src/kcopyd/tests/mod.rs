//! The promises of the room, one by one; `random` holds random jobs against a reference.

mod background;
mod behind;
mod changed;
mod content;
mod flags;
mod life;
mod ordered;
mod pace;
mod power;
mod random;
mod schedules;
mod thin;
mod zones;

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
use crate::io::sim::{Behaviour, Fault};
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

fn zoned(sim: &Sim, size: u64, zone: u64) -> Arc<Device> {
    let device = Device::zoned_in_memory(sectors(size), 512).unwrap();
    sim.behave(&device, Behaviour { zone: Some(sectors(zone)), ..Behaviour::default() });
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
    Settings { subjob_bytes: 4096, subjobs: Some(8), backend: BackendKind::Sim(sim.clone()), ..Settings::default() }
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

/// Lets time go by for two clients of one stepped simulation until `is_over`.
///
/// # Panics
/// If that takes a day.
fn drive(mut engines: [&mut Stepped; 2], now: &mut Duration, mut is_over: impl FnMut() -> bool) {
    while !is_over() {
        let due: Vec<_> = engines.iter_mut().filter_map(|engine| engine.turn(*now).next).collect();
        if engines.iter().any(|engine| engine.is_woken()) {
            continue;
        }
        if is_over() {
            return;
        }
        *now = due.into_iter().min().expect("something is under way").max(*now);
        assert!(*now < Duration::from_secs(86_400), "it does not end");
    }
}

/// A request with nothing special.
fn plain(work: Work, dests: &[Arc<Device>]) -> Request {
    Request::new(work, &dests.iter().map(whole).collect::<Vec<_>>(), Flags::NONE)
}
