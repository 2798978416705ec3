//! The line of jobs that want a piece: whose turn it is, and what holds it back.

use std::time::Duration;

use super::super::job::{NewJob, Phase, Place, SubJob};
use super::super::pace::Direction;
use super::super::throttle::Start;
use super::super::zeros::ZeroPiece;
use super::lanes::{self, Waiting};
use super::{Limit, Worker};
use crate::dm_io::Memory;
use crate::io::PAGE_SIZE;
use crate::sector::Sector;

/// Pieces of a job under way at once while nothing is known of its devices, and where no window counts.
const FEW: usize = 8;
/// Pieces of a job under way at least.
const FEWEST: usize = 4;

impl Worker {
    /// Puts a job in the line if it wants a piece and waits nowhere.
    pub(super) fn line_up(&mut self, key: usize) {
        if self.jobs[key].place == Place::None && self.jobs[key].wants_piece(self.most_pieces(key)) {
            self.jobs[key].place = Place::Line;
            self.line.push_back(key);
        }
    }

    /// Pieces that a job may have under way: what fills the windows of its source and of its fastest destination, and half as much
    /// again, so that neither waits for the other.
    pub(super) fn most_pieces(&self, key: usize) -> usize {
        let job = &self.jobs[key];
        let (most, left) = job.most.get();
        if left > 0 {
            return most;
        }
        let most = self.ask_most_pieces(key);
        // Windows change by the round. Each asks for a lock, of up to 64 destinations.
        let often = (most / 4).max(job.new.dests.len() / 8).max(1);
        job.most.set((most, u32::try_from(often).unwrap_or(u32::MAX)));
        most
    }

    fn ask_most_pieces(&self, key: usize) -> usize {
        let looks_first = self.jobs[key].looks_first();
        let NewJob { work, dests, live, piece, .. } = &self.jobs[key].new;
        match (self.settings.subjobs, work.source()) {
            (Some(subjobs), _) => subjobs,
            (None, None) => FEW,
            (None, Some(from)) => {
                let direction = if looks_first { Direction::Read } else { work.direction() };
                let dests = dests.iter().enumerate().filter(|(index, _)| live.contains(*index));
                let shares = dests.filter_map(|(_, dest)| self.lanes.share(lanes::key(&dest.device, direction)));
                let unknown = FEW as u64 / 2 * piece.bytes();
                let reads = self.lanes.share(lanes::key(&from.device, Direction::Read)).unwrap_or(unknown);
                let both = reads + shares.max().unwrap_or(unknown);
                usize::try_from((both * 3 / 2).div_ceil(piece.bytes())).unwrap_or(FEW).max(FEWEST)
            }
        }
    }

    /// Takes a job out of the line, or from where it waits for its limit.
    pub(super) fn stand_back(&mut self, key: usize) {
        match std::mem::replace(&mut self.jobs[key].place, Place::None) {
            Place::None => {}
            Place::Line => self.line.retain(|other| *other != key),
            Place::Delayed(time) => _ = self.delayed.remove(&(time, key)),
            Place::Lane => _ = self.lanes.withdraw(key, |what| matches!(what, Waiting::Piece)),
        }
    }

    /// The largest piece that a job may start now.
    pub(super) fn piece_max(&self, key: usize) -> Sector {
        let new = &self.jobs[key].new;
        let even = new.speed.piece_max().min(self.settings.speed_max.piece_max());
        let most = self.jobs[key].zeros.as_ref().map_or(new.piece, ZeroPiece::size);
        Sector::whole_in(even).max(new.block).min(most)
    }

    /// Step 3. Returns when to come back for the throttle or a limit of speed.
    pub(super) fn begin_pieces(&mut self) -> Option<Duration> {
        self.undelay();
        self.line_waits_for = None;
        while let Some(key) = self.line.front().copied() {
            let now = self.core.now();
            if let Some(lane) = self.full_lane(key) {
                self.line.pop_front();
                self.jobs[key].place = Place::Lane;
                self.lanes.wait(lane, key, Waiting::Piece);
                continue;
            }
            let own = u32::try_from(self.subs.len() - self.over).unwrap_or(u32::MAX);
            if let Start::At(time) = self.settings.throttle.ask(now, own) {
                self.line_waits_for = Some(Limit::Throttle);
                return self.come_back(Some(time));
            }
            if let Some(time) = self.jobs[key].new.speed.ask(now) {
                self.line.pop_front();
                self.jobs[key].place = Place::Delayed(time);
                self.delayed.insert((time, key));
                continue;
            }
            if let Some(time) = self.settings.speed_max.ask(now) {
                self.line_waits_for = Some(Limit::SpeedMax);
                return self.come_back(Some(time));
            }
            if !self.begin(key, now) {
                self.line_waits_for = Some(Limit::Pages);
                return self.next_delayed();
            }
            self.line.pop_front();
            self.jobs[key].place = Place::None;
            self.line_up(key);
        }
        self.come_back(None)
    }

    /// Nothing is asked of the pool until then: who stands behind in its line need not wait so long.
    fn come_back(&mut self, time: Option<Duration>) -> Option<Duration> {
        if std::mem::take(&mut self.in_line) {
            self.pages.leave_line();
        }
        [time, self.next_delayed()].into_iter().flatten().min()
    }

    /// Lets those go on whose time has come, or whose limit was lifted; asks anew for the others.
    fn undelay(&mut self) {
        let now = self.core.now();
        for (_, key) in std::mem::take(&mut self.delayed) {
            let job = &mut self.jobs[key];
            if let Some(time) = job.new.speed.ask(now) {
                job.place = Place::Delayed(time);
                self.delayed.insert((time, key));
            } else {
                job.place = Place::Line;
                self.line.push_back(key);
            }
        }
    }

    fn next_delayed(&self) -> Option<Duration> {
        self.delayed.first().map(|(time, _)| *time)
    }

    /// Cuts the next piece of a job and begins it; `false` if it has to wait for pages.
    fn begin(&mut self, key: usize, now: Duration) -> bool {
        let limit = self.piece_max(key);
        let job = &mut self.jobs[key];
        job.splitter.limit(limit);
        let span = job.splitter.peek().expect("a job in line has a piece left");
        let bytes = span.count.bytes();
        let mut list = None;
        // What makes holes may have to look at what the destination holds there: pages for that.
        let pattern = job.new.work.pattern();
        let has_data = job.new.work.source().is_some() || pattern.is_some();
        // A larger one than others are is one that its devices do by themselves.
        if has_data || job.new.sparse && span.count <= job.new.piece {
            // A comparison reads the source and one destination after the other beside it; so does a look before a write.
            let sides = if job.is_comparison() || job.looks_first() { 2 } else { 1 };
            let pages = u32::try_from((sides * bytes).div_ceil(PAGE_SIZE as u64)).expect("a sub-job's pages");
            list = self.pages.get(pages);
            if list.is_none() {
                self.in_line = true;
                return false;
            }
        }
        job.splitter.next();
        let (most, left) = job.most.get();
        job.most.set((most, left.saturating_sub(1)));
        self.settings.throttle.start(now);
        self.settings.speed_max.charge(now, bytes);
        job.new.speed.charge(now, bytes);
        let (reads, looks_first) = (job.new.work.source().is_some(), job.looks_first());
        let (memory, phase) = match list {
            Some(list) if reads => (Some(Memory::Pages { list, offset: 0 }), Phase::Reading),
            mut list => {
                if let (Some(list), Some(pattern)) = (&mut list, pattern) {
                    pattern.fill_list(span.offset, list, super::bytes(span.count));
                }
                (None, Phase::Ready(list))
            }
        };
        let mut sub = SubJob::new(key, span, phase);
        sub.is_unknown = looks_first;
        let sub = self.subs.insert(sub);
        job.pieces.push_back(sub);
        match memory {
            Some(memory) => self.read(sub, memory),
            None => self.look_at(key),
        }
        true
    }
}
