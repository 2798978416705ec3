//! A piece's I/O: its read, then its writes or comparisons, and whose turn it is.

use std::ops::Range;
use std::sync::Arc;

use super::super::content::{Part, parts};
use super::super::job::Phase;
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

    /// Writes a piece to every destination that takes part: zeros if it has no pages, in parts if it has holes.
    pub(super) fn write(&mut self, key: usize, list: Option<PageList>) {
        let sub = &mut self.subs[key];
        let job = &self.jobs[sub.job];
        sub.phase = Phase::Writing;
        sub.to = job.new.live;
        let length = bytes(sub.span.count);
        let all = 0..length;
        match list {
            None => {
                let op = if job.new.sparse { Op::Punch } else { Op::Zero };
                self.write_part(key, op, all, None);
            }
            Some(list) if !job.new.sparse => {
                self.write_part(key, Op::Write, all, Some(Memory::Pages { list, offset: 0 }));
            }
            Some(list) => {
                let parts = parts(&list, length);
                let list = Arc::new(list);
                for Part { bytes, is_zero } in parts {
                    let (list, offset) = (Arc::clone(&list), bytes.start);
                    let memory = (!is_zero).then_some(Memory::Shared { list, offset });
                    let op = if is_zero { Op::Punch } else { Op::Write };
                    self.write_part(key, op, bytes, memory);
                }
            }
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
        let dests = job.new.dests.iter().enumerate().filter(|(index, _)| sub.to.contains(*index));
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

    /// Step 4, over again as long as it moves something: what one piece waits for may be another.
    pub(super) fn write_out(&mut self) {
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for _ in 0..self.for_io.len() {
                let Some(key) = self.for_io.pop_front() else { break };
                moved |= self.go_on(key);
            }
        }
    }

    /// Shows, writes or compares a piece that was read. If its turn has not come it goes back into the list.
    fn go_on(&mut self, key: usize) -> bool {
        let (sub, job) = self.sub_and_job(key);
        if !job.may_go_on() {
            sub.phase = Phase::Waiting;
            self.sub_ended(key);
            return true;
        }
        let Phase::Read(list) = &sub.phase else { unreachable!("only what was read is in this list") };
        let shown_now = job.new.in_order && !sub.shown;
        if shown_now {
            if sub.span.offset != job.shown_to {
                self.for_io.push_back(key);
                return false;
            }
            let length = bytes(sub.span.count);
            if let Some(observer) = &mut job.new.observer {
                observer.data(sub.span.offset, &|see| list.show(0, length, see));
            }
            job.shown_to = sub.span.offset.checked_add(sub.span.count).expect("inside the job");
            sub.shown = true;
        }
        if !job.is_turn_of(sub.span) {
            self.for_io.push_back(key);
            return shown_now;
        }
        let Phase::Read(list) = std::mem::replace(&mut sub.phase, Phase::Writing) else { unreachable!("as above") };
        if job.is_comparison() {
            self.compare(key, list, 0);
        } else {
            self.write(key, Some(list));
        }
        true
    }
}
