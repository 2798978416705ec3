//! A piece's I/O: its read, then its writes or comparisons, and whose turn it is.

use std::ops::Range;
use std::sync::Arc;

use super::super::Work;
use super::super::content::{Part, parts};
use super::super::job::{Move, Phase, Place};
use super::super::pace::Direction;
use super::super::views::Shown;
use super::lanes::{self, Key, Waiting};
use super::{Message, Owner, Worker, bytes};
use crate::dm_io::{ErrorBits, IoRegion, Memory};
use crate::io::{Op, PageList};
use crate::sector::Sector;

/// Where a piece of a job lies in one of its regions.
fn place(region: &IoRegion, offset: Sector) -> Sector {
    region.sector.checked_add(offset).expect("a checked region")
}

impl Worker {
    pub(super) fn read(&mut self, key: usize, memory: Memory) {
        let Self { core, subs, jobs, lanes, .. } = self;
        let sub = &mut subs[key];
        let job = &jobs[sub.job];
        let from = job.new.work.source().expect("a source");
        lanes.started((&from.device, Direction::Read), sub.job, core.now(), sub.span.count.bytes());
        sub.phase = Phase::Reading;
        sub.ios += 1;
        job.new.activity.start();
        let region = [(0, &from.device, place(from, sub.span.offset), sub.span.count)];
        core.set_background(job.new.background);
        core.start(Owner::SubJob(key).token(), Op::Read, region, sub.span.count, Some(memory));
    }

    /// Writes a piece to every destination that takes part: zeros if there is no source, in parts if it has holes.
    fn write(&mut self, key: usize, list: Option<PageList>) {
        let sub = &mut self.subs[key];
        let job = &self.jobs[sub.job];
        sub.phase = Phase::Writing;
        sub.to = job.new.live.without(sub.same);
        if sub.to.is_empty() {
            drop(list);
            return self.sub_ended(key);
        }
        let length = bytes(sub.span.count);
        let all = 0..length;
        match list {
            list if matches!(job.new.work, Work::Zero) && job.new.sparse => {
                self.write_part(key, Op::Punch, all, list.map(|list| Memory::Pages { list, offset: 0 }));
            }
            None if matches!(job.new.work, Work::Zero) => self.write_zeros(key),
            None => unreachable!("what was read has pages"),
            Some(list) => {
                let whole = Part { bytes: all, is_zero: false };
                sub.parts = if job.new.sparse { parts(&list, length).into() } else { [whole].into() };
                sub.list = Some(Arc::new(list));
                // What is written in order is so inside of a piece, too.
                let at_once = if job.is_sequential() { 1 } else { sub.parts.len() };
                for _ in 0..at_once {
                    self.write_next_part(key);
                }
            }
        }
    }

    /// Writes the next part of a piece to the destinations that have what lies before it. False if there is none.
    pub(super) fn write_next_part(&mut self, key: usize) -> bool {
        let (sub, job) = self.sub_and_job(key);
        if job.outcome.cancelled && !sub.parts.is_empty() {
            sub.parts.clear();
            sub.to = ErrorBits::NONE;
        }
        let (Some(Part { bytes, is_zero }), Some(list)) = (sub.parts.pop_front(), sub.list.clone()) else {
            return false;
        };
        let to = sub.to.without(sub.failed_bits());
        if to.is_empty() {
            return false;
        }
        if is_zero {
            self.write_part(key, Op::Punch, bytes.clone(), Some(Memory::Shared { list, offset: bytes.start }));
            return true;
        }
        let dests = self.jobs[self.subs[key].job].new.dests.len();
        for dest in (0..dests).filter(|dest| to.contains(*dest)) {
            self.write_to(key, dest, bytes.clone());
        }
        true
    }

    /// Writes a part of a piece to a destination, when its window has room.
    fn write_to(&mut self, key: usize, dest: usize, part: Range<usize>) {
        let sub = &mut self.subs[key];
        let region = &self.jobs[sub.job].new.dests[dest];
        let lane = lanes::key(&region.device, Direction::Write);
        sub.owes(dest);
        self.jobs[sub.job].race.owes(dest, self.core.now());
        if self.lanes.has_room(lane, sub.job, self.core.now(), part.len() as u64) {
            self.start_write(key, dest, part);
        } else {
            self.lanes.wait(lane, sub.job, Waiting::Write { sub: key, dest, part });
        }
    }

    fn start_write(&mut self, key: usize, dest: usize, part: Range<usize>) {
        let Self { core, subs, jobs, lanes, .. } = self;
        let sub = &subs[key];
        let job = &jobs[sub.job];
        let region = &job.new.dests[dest];
        lanes.started((&region.device, Direction::Write), sub.job, core.now(), part.len() as u64);
        job.new.activity.start_at(dest);
        let skip = Sector::whole_in(part.start as u64);
        let at = place(region, sub.span.offset.checked_add(skip).expect("inside the job"));
        let count = Sector::whole_in(part.len() as u64);
        let list = Arc::clone(sub.list.as_ref().expect("the pages of a piece that is written"));
        let memory = Memory::Shared { list, offset: part.start };
        core.set_background(job.new.background);
        core.start(
            Owner::Write(key, dest).token(),
            Op::Write,
            [(dest, &region.device, at, count)],
            count,
            Some(memory),
        );
    }

    /// Writes zeros for a piece, to each destination by itself. They are no measure of anybody's pace.
    fn write_zeros(&mut self, key: usize) {
        let Self { core, subs, jobs, .. } = self;
        let sub = &mut subs[key];
        let job = &mut jobs[sub.job];
        for dest in sub.to.iter() {
            sub.owes(dest);
            job.race.owes(dest, core.now());
            job.new.activity.start_at(dest);
            let region = &job.new.dests[dest];
            let part = [(dest, &region.device, place(region, sub.span.offset), sub.span.count)];
            core.set_background(job.new.background);
            core.start(Owner::Write(key, dest).token(), Op::Zero, part, sub.span.count, None);
        }
    }

    /// A write of a piece has ended, or will not begin.
    pub(super) fn written(&mut self, key: usize) {
        if self.subs[key].ios == 0 && !self.write_next_part(key) {
            self.sub_ended(key);
        }
    }

    /// The lane that an I/O in flight is in.
    pub(super) fn lane_of(&self, key: usize, owner: Owner) -> Option<Key> {
        let sub = &self.subs[key];
        let new = &self.jobs[sub.job].new;
        match (&sub.phase, owner) {
            (_, Owner::Write(_, dest)) => {
                new.work.has_lanes().then(|| lanes::key(&new.dests[dest].device, Direction::Write))
            }
            (Phase::Reading, _) => new.work.source().map(|from| lanes::key(&from.device, Direction::Read)),
            (Phase::Comparing(dest), _) => Some(lanes::key(&new.dests[*dest].device, Direction::Read)),
            _ => None,
        }
    }

    /// The lane of a job's source, if it has no room for a piece.
    pub(super) fn full_lane(&self, job: usize) -> Option<Key> {
        let lane = lanes::key(&self.jobs[job].new.work.source()?.device, Direction::Read);
        let has_room = self.lanes.has_room(lane, job, self.core.now(), self.piece_max(job).bytes());
        (!has_room).then_some(lane)
    }

    /// An I/O has ended in that lane: what waits there may go on.
    pub(super) fn serve(&mut self, lane: Key) {
        while let Some((job, what)) = self.lanes.next(lane, self.core.now()) {
            match what {
                Waiting::Piece => {
                    self.jobs[job].place = Place::Line;
                    self.line.push_back(job);
                    // It takes its room when its turn comes.
                    return;
                }
                Waiting::Write { sub, dest, part } if self.jobs[job].new.live.contains(dest) => {
                    self.start_write(sub, dest, part);
                }
                Waiting::Compare { sub, dest, list } if self.jobs[job].new.live.contains(dest) => {
                    self.start_compare(sub, dest, list);
                }
                what => {
                    self.unstarted(&what);
                    self.pass_over(what);
                }
            }
        }
    }

    /// Does not begin what waits at devices for a job and destinations.
    pub(super) fn withdraw(&mut self, job: usize, dests: impl Fn(usize) -> bool) {
        for what in self.take_waiting(job, dests) {
            self.pass_over(what);
        }
    }

    /// Takes out what waits at devices for a job and destinations. Its pieces do not wait for it any more.
    pub(super) fn take_waiting(&mut self, job: usize, dests: impl Fn(usize) -> bool) -> Vec<Waiting> {
        let picked = |what: &Waiting| match what {
            Waiting::Piece => false,
            Waiting::Write { dest, .. } | Waiting::Compare { dest, .. } => dests(*dest),
        };
        let taken = self.lanes.withdraw(job, picked);
        for what in &taken {
            self.unstarted(what);
        }
        taken
    }

    fn unstarted(&mut self, what: &Waiting) {
        let now = self.core.now();
        let (Waiting::Write { sub, dest, .. } | Waiting::Compare { sub, dest, .. }) = what else { return };
        let (piece, job) = self.sub_and_job(*sub);
        job.race.ended(*dest, 0, now);
        match what {
            Waiting::Write { .. } => piece.owes_no_more(*dest),
            _ => piece.ios -= 1,
        }
        piece.to = piece.to.without(ErrorBits::only(*dest));
    }

    /// Goes on with a piece of which something was not begun.
    pub(super) fn pass_over(&mut self, what: Waiting) {
        match what {
            Waiting::Write { sub, .. } if self.subs.get(sub).is_some_and(|sub| !sub.is_over) => self.written(sub),
            Waiting::Piece | Waiting::Write { .. } => {}
            Waiting::Compare { sub, dest, list } => self.compare(sub, list, dest + 1),
        }
    }

    fn write_part(&mut self, key: usize, op: Op, part: Range<usize>, memory: Option<Memory>) {
        let Self { core, subs, jobs, .. } = self;
        let sub = &mut subs[key];
        let job = &jobs[sub.job];
        sub.ios += 1;
        job.new.activity.start();
        let skip = Sector::whole_in(part.start as u64);
        let offset = sub.span.offset.checked_add(skip).expect("inside the job");
        let count = Sector::whole_in(part.len() as u64);
        let to = sub.to.without(sub.failed_bits());
        let dests = job.new.dests.iter().enumerate().filter(|(index, _)| to.contains(*index));
        let regions = dests.map(|(index, dest)| (index, &dest.device, place(dest, offset), count));
        core.set_background(job.new.background);
        core.start(Owner::SubJob(key).token(), op, regions, count, memory);
    }

    /// Compares a piece with destination `next` or the first after it that takes part.
    pub(super) fn compare(&mut self, key: usize, list: PageList, next: usize) {
        let sub = &mut self.subs[key];
        let job = &self.jobs[sub.job];
        let mut left = next..job.new.dests.len();
        let next = left.find(|index| job.new.live.contains(*index)).filter(|_| !job.outcome.cancelled);
        let Some(index) = next else {
            if sub.is_unknown {
                return self.looked_at_all(key, list);
            }
            drop(list);
            return self.sub_ended(key);
        };
        sub.phase = Phase::Comparing(index);
        if !sub.is_unknown {
            sub.to.set(index);
        }
        sub.ios += 1;
        let lane = lanes::key(&job.new.dests[index].device, Direction::Read);
        let sub = &self.subs[key];
        self.jobs[sub.job].race.owes(index, self.core.now());
        if self.lanes.has_room(lane, sub.job, self.core.now(), sub.span.count.bytes()) {
            self.start_compare(key, index, list);
        } else {
            self.lanes.wait(lane, sub.job, Waiting::Compare { sub: key, dest: index, list });
        }
    }

    fn start_compare(&mut self, key: usize, index: usize, list: PageList) {
        let Self { core, subs, jobs, lanes, .. } = self;
        let sub = &subs[key];
        let job = &jobs[sub.job];
        let dest = &job.new.dests[index];
        lanes.started((&dest.device, Direction::Read), sub.job, core.now(), sub.span.count.bytes());
        job.new.activity.start_at(index);
        let region = [(0, &dest.device, place(dest, sub.span.offset), sub.span.count)];
        let memory = Memory::Pages { list, offset: bytes(sub.span.count) };
        core.set_background(job.new.background);
        core.start(Owner::SubJob(key).token(), Op::Read, region, sub.span.count, Some(memory));
    }

    /// Step 4.
    pub(super) fn move_pieces(&mut self) {
        while let Some(job) = self.moved.pop_front() {
            while let Some((key, next)) = self.jobs.get(job).and_then(|job| job.next_move(&self.subs)) {
                match next {
                    Move::Show => self.show(key),
                    Move::Drop => self.sub_ended(key),
                    Move::Write | Move::Compare => self.go_on(key),
                }
            }
        }
    }

    fn show(&mut self, key: usize) {
        let mailbox = self.mailbox.clone();
        let (sub, job) = self.sub_and_job(key);
        let length = bytes(sub.span.count);
        if let Some(viewing) = &job.viewing {
            let Phase::Ready(Some(list)) = std::mem::replace(&mut sub.phase, Phase::Seen) else {
                unreachable!("what was read has pages")
            };
            let back = Box::new(move |list| mailbox.send(Message::Seen(key, list)));
            viewing.show(Shown { offset: sub.span.offset, length, list, back });
        } else if let (Phase::Ready(Some(list)), Some(observer)) = (&sub.phase, &mut job.new.observer) {
            observer.data(sub.span.offset, &|see| list.show(0, length, see));
        }
        sub.shown = true;
    }

    /// Writes or compares a piece whose turn has come.
    fn go_on(&mut self, key: usize) {
        let (sub, job) = self.sub_and_job(key);
        let Phase::Ready(list) = std::mem::replace(&mut sub.phase, Phase::Writing) else { return };
        match list {
            Some(list) if job.is_comparison() || sub.is_unknown => self.compare(key, list, 0),
            list => self.write(key, list),
        }
    }
}
