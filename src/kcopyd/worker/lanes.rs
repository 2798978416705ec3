//! What waits for its turn at a device: reads and writes that its window has no room for yet.
//!
//! # Invariants
//! A job of which nothing is in flight at a device is never held back there, whatever others have in flight: what hangs there
//! holds up itself alone. So whatever waits in a lane is looked at again when an I/O of its own job ends there; what rests there, when
//! its rest ends.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use super::super::pace::{Direction, Pace, Paces};
use crate::blkdev::{Device, Target};
use crate::dm_io::Finished;
use crate::io::PageList;

/// What waits in a lane.
pub(super) enum Waiting {
    /// A job that wants to read its next piece.
    Piece,
    /// A part of a piece that is to be written to a destination.
    Write { sub: usize, dest: usize, part: Range<usize> },
    /// A piece that is to be compared with a destination.
    Compare { sub: usize, dest: usize, list: PageList },
}

/// One device in one direction.
pub(in crate::kcopyd) type Key = (Target, Direction);

pub(super) fn key(device: &Device, direction: Direction) -> Key {
    (device.target(), direction)
}

struct Lane {
    pace: Pace,
    /// Bytes in flight that this client began.
    in_flight: u64,
    /// The same of background jobs.
    background: u64,
    /// I/Os in flight of each job that has some.
    jobs: HashMap<usize, u32>,
    waiting: VecDeque<(usize, Waiting)>,
}

/// The lanes that are in use.
pub(super) struct Lanes {
    paces: Paces,
    piece: u64,
    /// Windows count; otherwise every I/O begins at once.
    limited: bool,
    table: BTreeMap<Key, Lane>,
    /// Jobs that stay out of the way.
    background: BTreeSet<usize>,
}

impl Lanes {
    pub(super) fn new(paces: Paces, piece: u64, limited: bool) -> Self {
        Self { paces, piece, limited, table: BTreeMap::new(), background: BTreeSet::new() }
    }

    fn lane(&mut self, device: &Device, direction: Direction) -> &mut Lane {
        let Self { paces, piece, table, .. } = self;
        table.entry(key(device, direction)).or_insert_with(|| Lane {
            pace: paces.join(device, direction, *piece),
            in_flight: 0,
            background: 0,
            jobs: HashMap::new(),
            waiting: VecDeque::new(),
        })
    }

    /// The process is gone.
    #[cfg(test)]
    pub(super) fn abandon(&mut self) {
        self.table.clear();
    }

    /// A job stays out of the way of others, or is gone.
    pub(super) fn set_background(&mut self, job: usize, is_background: bool) {
        if is_background {
            self.background.insert(job);
        } else if self.background.remove(&job) && self.background.is_empty() {
            // Nobody rests any more.
            self.table.retain(|_, lane| !lane.is_idle());
        }
    }

    /// Whether a job may begin an I/O there now.
    pub(super) fn has_room(&self, key: Key, job: usize, now: Duration, bytes: u64) -> bool {
        let is_background = self.background.contains(&job);
        let has_room = |lane: &Lane| {
            lane.has_room(job, bytes) && (!is_background || lane.has_room_behind_others(self.piece, job, now, bytes))
        };
        !self.limited || self.table.get(&key).is_none_or(has_room)
    }

    /// When the next rest ends of a lane in which something waits.
    pub(super) fn next_end_of_rest(&self, now: Duration) -> Option<Duration> {
        if self.background.is_empty() {
            return None;
        }
        let waiting = self.table.values().filter(|lane| !lane.waiting.is_empty());
        waiting.map(|lane| lane.pace.courtesy().1).filter(|end| *end > now).min()
    }

    /// Lanes in which something of a background job waits, and may have rested enough.
    pub(super) fn rested(&self, now: Duration) -> Vec<Key> {
        if self.background.is_empty() {
            return Vec::new();
        }
        let waits = |lane: &Lane| lane.waiting.iter().any(|(job, _)| self.background.contains(job));
        let rested = self.table.iter().filter(|(_, lane)| waits(lane) && lane.pace.courtesy().1 <= now);
        rested.map(|(key, _)| *key).collect()
    }

    /// Bytes that this client may have in flight there.
    pub(super) fn share(&self, key: Key) -> Option<u64> {
        self.table.get(&key).map(|lane| lane.pace.share())
    }

    /// Something of a job waits there.
    ///
    /// # Panics
    /// If there is room for it.
    pub(super) fn wait(&mut self, key: Key, job: usize, what: Waiting) {
        let lane = self.table.get_mut(&key).expect("a lane without room");
        lane.waiting.push_back((job, what));
    }

    /// An I/O begins.
    pub(super) fn started(&mut self, at: (&Device, Direction), job: usize, now: Duration, bytes: u64) {
        if self.limited {
            let behind_others = if self.background.contains(&job) { bytes } else { 0 };
            let lane = self.lane(at.0, at.1);
            lane.in_flight += bytes;
            lane.background += behind_others;
            *lane.jobs.entry(job).or_default() += 1;
            lane.pace.started(now, bytes);
        }
    }

    /// An I/O has ended.
    pub(super) fn ended(&mut self, key: Key, job: usize, now: Duration, end: &Finished) {
        let is_background = self.background.contains(&job);
        let Some(lane) = self.table.get_mut(&key) else { return };
        lane.in_flight -= end.bytes;
        if is_background {
            lane.background -= end.bytes;
            lane.pace.background_ended(now, now.saturating_sub(end.started));
        }
        if end.errors.is_empty() {
            lane.pace.ended(now, end.bytes, end.started);
        } else {
            lane.pace.failed(now, end.bytes);
        }
        if let Some(count) = lane.jobs.get_mut(&job) {
            *count -= 1;
            if *count == 0 {
                lane.jobs.remove(&job);
            }
        }
        self.close_idle(key);
    }

    /// The next that may go on there, with its job.
    pub(super) fn next(&mut self, key: Key, now: Duration) -> Option<(usize, Waiting)> {
        let Self { piece, background, table, .. } = self;
        let lane = table.get_mut(&key)?;
        let has_room = |job: usize| {
            lane.has_room(job, *piece)
                && (!background.contains(&job) || lane.has_room_behind_others(*piece, job, now, *piece))
        };
        let place = lane.waiting.iter().position(|(job, _)| has_room(*job))?;
        let next = lane.waiting.remove(place);
        self.close_idle(key);
        next
    }

    /// Takes out what waits of a job, as far as it is picked.
    pub(super) fn withdraw(&mut self, job: usize, picked: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut out = Vec::new();
        self.table.retain(|_, lane| {
            let waiting = std::mem::take(&mut lane.waiting);
            for (owner, what) in waiting {
                if owner == job && picked(&what) {
                    out.push(what);
                } else {
                    lane.waiting.push_back((owner, what));
                }
            }
            !self.background.is_empty() || !lane.is_idle()
        });
        out
    }

    fn close_idle(&mut self, key: Key) {
        // A rest is remembered.
        if self.background.is_empty() && self.table.get(&key).is_some_and(Lane::is_idle) {
            self.table.remove(&key);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}

impl Lane {
    fn has_room(&self, job: usize, bytes: u64) -> bool {
        !self.jobs.contains_key(&job) || self.in_flight + bytes <= self.pace.share()
    }

    /// Whether a background job is in nobody's way there.
    fn has_room_behind_others(&self, piece: u64, job: usize, now: Duration, bytes: u64) -> bool {
        let (pieces, rests_until) = self.pace.courtesy();
        now >= rests_until && (!self.jobs.contains_key(&job) || self.background + bytes <= pieces * piece)
    }

    fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.jobs.is_empty() && self.waiting.is_empty()
    }
}
