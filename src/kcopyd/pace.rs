//! The windows of all devices, one a device and direction, shared by all clients.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::courtesy::Courtesy;
use super::window::Window;
use crate::blkdev::{Device, Target};

/// What a device is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// To be read.
    Read,
    /// To be written.
    Write,
}

impl Direction {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// How fast devices are, as their jobs have seen it; shared by clones. What was found out about a device is kept when nobody uses
/// it, so that the next job begins with it.
#[derive(Clone, Debug, Default)]
pub struct Paces(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    paces: HashMap<(Target, Direction), Arc<Mutex<Shared>>>,
    /// Counts what was asked for.
    asked: u64,
}

/// Devices that are remembered beyond those in use.
const REMEMBERED: usize = 1024;

/// What is known of a device's pace.
#[derive(Clone, Debug)]
pub struct PaceFigures {
    /// The path that it was opened by last.
    pub path: PathBuf,
    /// Read or written.
    pub direction: Direction,
    /// Bytes that it is given at once.
    pub window: u64,
    /// Bytes that it has now.
    pub in_flight: u64,
    /// Bytes per second that it did when it was kept busy; 0 until then.
    pub rate: u64,
    /// What one transfer takes.
    pub latency: Duration,
}

/// A client's use of one device's window in one direction.
#[derive(Debug)]
pub(super) struct Pace(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    window: Window,
    courtesy: Courtesy,
    /// Clients that use it now.
    users: u32,
    /// When it was asked for last.
    asked: u64,
    path: PathBuf,
}

impl Paces {
    /// What is known of each device in use, by path.
    pub fn figures(&self) -> Vec<PaceFigures> {
        let table = self.0.lock();
        let figures = table.paces.iter().filter_map(|((_, direction), pace)| {
            let Shared { window, users, path, .. } = &*pace.lock();
            (*users > 0).then(|| PaceFigures {
                path: path.clone(),
                direction: *direction,
                window: window.bytes(),
                in_flight: window.in_flight(),
                rate: window.rate(),
                latency: window.latency(),
            })
        });
        let mut figures: Vec<_> = figures.collect();
        figures.sort_by(|a, b| (&a.path, a.direction).cmp(&(&b.path, b.direction)));
        figures
    }

    /// A client begins to use a device.
    pub(super) fn join(&self, device: &Device, direction: Direction, piece: u64) -> Pace {
        let target = device.target();
        let mut table = self.0.lock();
        table.asked += 1;
        let asked = table.asked;
        if table.paces.len() >= REMEMBERED && !table.paces.contains_key(&(target, direction)) {
            table.forget_oldest();
        }
        let new = || {
            Arc::new(Mutex::new(Shared {
                window: Window::new(piece),
                courtesy: Courtesy::new(),
                users: 0,
                asked,
                path: PathBuf::new(),
            }))
        };
        let pace = Arc::clone(table.paces.entry((target, direction)).or_insert_with(new));
        let mut shared = pace.lock();
        shared.users += 1;
        shared.asked = asked;
        device.path().clone_into(&mut shared.path);
        drop(shared);
        Pace(pace)
    }
}

impl Table {
    fn forget_oldest(&mut self) {
        let unused = self.paces.iter().filter(|(_, pace)| pace.lock().users == 0);
        let oldest = unused.min_by_key(|(_, pace)| pace.lock().asked).map(|(key, _)| *key);
        if let Some(key) = oldest {
            self.paces.remove(&key);
        }
    }
}

impl Pace {
    /// Bytes that one client may have in flight.
    pub(super) fn share(&self) -> u64 {
        let shared = self.0.lock();
        shared.window.bytes() / u64::from(shared.users.max(1))
    }

    /// Pieces that all background jobs of one client may have in flight, and until when they rest.
    pub(super) fn courtesy(&self) -> (u64, Duration) {
        let shared = self.0.lock();
        (shared.courtesy.pieces(), shared.courtesy.rests_until())
    }

    /// A transfer of a background job has ended.
    pub(super) fn background_ended(&self, now: Duration, took: Duration) {
        self.0.lock().courtesy.ended(now, took);
    }

    pub(super) fn started(&self, now: Duration, bytes: u64) {
        self.0.lock().window.started(now, bytes);
    }

    pub(super) fn ended(&self, now: Duration, bytes: u64, started: Duration) {
        self.0.lock().window.ended(now, bytes, started);
    }

    pub(super) fn failed(&self, now: Duration, bytes: u64) {
        self.0.lock().window.failed(now, bytes);
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.0.lock().users -= 1;
    }
}
