//! A piece's I/O: its read, then its writes or comparisons, and whose turn it is.

use std::ops::Range;
use std::sync::Arc;

use super::super::content::{Part, parts};
use super::super::job::{Move, Phase};
use super::{Owner, Worker, bytes};
use crate::dm_io::{IoRegion, Memory};
use crate::io::{Op, PageList};
use crate::sector::Sector;

/// Where a piece of a job lies in one of its regions.
fn place(region: &IoRegion, offset: Sector) -> Sector {
    region.sector.checked_add(offset).expect("a checked region")
}

impl Worker {
    pub(super) fn read(&mut self, key: usize, memory: Memory) {
        let Self { core, subs, jobs, .. } = self;
        let sub = &mut subs[key];
        let job = &jobs[sub.job];
        let from = job.new.work.source().expect("a source");
        sub.phase = Phase::Reading;
        sub.ios += 1;
        job.new.activity.start();
        let region = [(0, &from.device, place(from, sub.span.offset), sub.span.count)];
        core.start(Owner::SubJob(key).token(), Op::Read, region, sub.span.count, Some(memory));
    }

    /// Writes a piece to every destination that takes part: zeros if there is no source, in parts if it has holes.
    fn write(&mut self, key: usize, list: Option<PageList>) {
        let sub = &mut self.subs[key];
        let job = &self.jobs[sub.job];
        sub.phase = Phase::Writing;
        sub.to = job.new.live;
        let length = bytes(sub.span.count);
        let all = 0..length;
        match list {
            list if job.new.work.source().is_none() => {
                let op = if job.new.sparse { Op::Punch } else { Op::Zero };
                self.write_part(key, op, all, list.map(|list| Memory::Pages { list, offset: 0 }));
            }
            None => unreachable!("what was read has pages"),
            Some(list) if !job.new.sparse => {
                self.write_part(key, Op::Write, all, Some(Memory::Pages { list, offset: 0 }));
            }
            Some(list) => {
                sub.parts = parts(&list, length).into();
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
        let sub = &mut self.subs[key];
        let list = if sub.parts.len() > 1 { sub.list.clone() } else { sub.list.take() };
        let (Some(Part { bytes, is_zero }), Some(list)) = (sub.parts.pop_front(), list) else { return false };
        if sub.to.without(sub.failed_bits()).is_empty() {
            return false;
        }
        let op = if is_zero { Op::Punch } else { Op::Write };
        let memory = Memory::Shared { list, offset: bytes.start };
        self.write_part(key, op, bytes, Some(memory));
        true
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
        core.start(Owner::SubJob(key).token(), op, regions, count, memory);
    }

    /// Compares a piece with destination `next` or the first after it that takes part.
    pub(super) fn compare(&mut self, key: usize, list: PageList, next: usize) {
        let sub = &mut self.subs[key];
        let job = &self.jobs[sub.job];
        let mut left = next..job.new.dests.len();
        let next = left.find(|index| job.new.live.contains(*index)).filter(|_| !job.outcome.cancelled);
        let Some(index) = next else {
            drop(list);
            return self.sub_ended(key);
        };
        sub.phase = Phase::Comparing(index);
        sub.to.set(index);
        sub.ios += 1;
        job.new.activity.start();
        let dest = &job.new.dests[index];
        let region = [(0, &dest.device, place(dest, sub.span.offset), sub.span.count)];
        let memory = Memory::Pages { list, offset: bytes(sub.span.count) };
        self.core.start(Owner::SubJob(key).token(), Op::Read, region, sub.span.count, Some(memory));
    }

    /// Step 4.
    pub(super) fn move_pieces(&mut self) {
        while let Some(job) = self.moved.pop_front() {
            while let Some((key, next)) = self.jobs.get(job).and_then(|job| job.next_move(&self.subs)) {
                match next {
                    Move::Show => self.show(key),
                    Move::Drop => self.sub_ended(key),
                    Move::Write => self.go_on(key),
                }
            }
        }
    }

    fn show(&mut self, key: usize) {
        let (sub, job) = self.sub_and_job(key);
        if let (Phase::Ready(Some(list)), Some(observer)) = (&sub.phase, &mut job.new.observer) {
            let length = bytes(sub.span.count);
            observer.data(sub.span.offset, &|see| list.show(0, length, see));
        }
        sub.shown = true;
    }

    /// Writes or compares a piece whose turn has come.
    fn go_on(&mut self, key: usize) {
        let (sub, job) = self.sub_and_job(key);
        let Phase::Ready(list) = std::mem::replace(&mut sub.phase, Phase::Writing) else { return };
        match list {
            Some(list) if job.is_comparison() => self.compare(key, list, 0),
            list => self.write(key, list),
        }
    }
}
