//! Destinations that do not keep up are left behind, so that the others go on at their own pace.
//!
//! # Protocol
//! 1. Whoever is left behind takes no part in pieces any more; what waits for room at its device is not begun.
//! 2. What is in flight there is *late*: no piece waits for it. It keeps its pages, since the device may still reach for them, and its
//!    place in the device's window.
//! 3. A piece that now waits for nobody ends. When the job's last piece has, its end is told, whatever is late.
//! 4. When the last of what a destination owed has come, that is told, also after the job's end. What it says counts for nothing.

use std::time::Duration;

use super::super::job::{Job, Phase, Place};
use super::super::race::LOOK;
use super::super::{Lag, Work};
use super::{Owner, Worker};
use crate::dm_io::{ErrorBits, Finished};

impl Worker {
    /// Looks at who does not keep up, in each job that may leave somebody behind.
    pub(super) fn look_at_laggards(&mut self) {
        let now = self.core.now();
        if self.look.is_some_and(|due| now < due) {
            return;
        }
        self.look = None;
        let jobs: Vec<usize> = self.jobs.iter().filter(|(_, job)| job.may_leave_behind()).map(|(key, _)| key).collect();
        for key in jobs {
            self.look = Some(now + LOOK);
            if !self.jobs[key].race.is_due(now) {
                continue;
            }
            if let Some((dests, why)) = self.laggards(key, now) {
                self.leave_behind(key, dests, why);
            }
        }
    }

    fn laggards(&mut self, key: usize, now: Duration) -> Option<(ErrorBits, Lag)> {
        let job = &self.jobs[key];
        let wants_more = !job.stopping && !job.paused && !job.splitter.is_empty();
        let waits_for_pages = job.place == Place::Line && self.in_line;
        let is_held_up = wants_more && (waits_for_pages || job.pieces.len() >= self.most_pieces(key));
        let Self { jobs, subs, .. } = self;
        let is_sequential = jobs[key].is_sequential();
        let Job { pieces, race, new, .. } = &mut jobs[key];
        let waits_only_for = |dests: ErrorBits| {
            let first_waits = pieces.front().is_some_and(|first| subs[*first].waits_only_for(dests));
            let waits = |piece: &&usize| match &subs[**piece].phase {
                Phase::Writing => subs[**piece].waits_only_for(dests),
                Phase::Comparing(dest) => dests.contains(*dest),
                // What is written in order waits for the piece before it.
                Phase::Ready(_) => is_sequential && first_waits,
                Phase::Reading | Phase::Seen => false,
            };
            (pieces.iter().filter(waits).count(), pieces.len())
        };
        let held_up: Option<&dyn Fn(ErrorBits) -> (usize, usize)> =
            if is_held_up { Some(&waits_only_for) } else { None };
        race.look(new.live, now, held_up)
    }

    /// Leaves destinations behind.
    pub(super) fn leave_behind(&mut self, key: usize, dests: ErrorBits, why: Lag) {
        let live = self.jobs[key].new.live;
        self.jobs[key].leave_behind(dests);
        // Nothing ends before it was told who is behind.
        let unstarted = self.take_waiting(key, |dest| dests.contains(dest));
        let pieces: Vec<usize> = self.jobs[key].pieces.iter().copied().collect();
        for (sub, dest) in pieces.iter().flat_map(|sub| dests.iter().map(move |dest| (*sub, dest))) {
            self.leave_to(sub, dest);
        }
        let job = &mut self.jobs[key];
        for dest in dests.iter() {
            let owes = job.late.iter().any(|(other, _)| *other == dest);
            if let Some(observer) =
                job.new.observer.as_mut().filter(|_| owes || live.contains(dest) && why != Lag::GivenUp)
            {
                observer.fell_behind(dest, why, owes);
            }
        }
        for what in unstarted {
            self.pass_over(what);
        }
        for sub in pieces {
            self.go_on_without(sub, dests);
        }
        if self.jobs.contains(key) {
            self.look_at(key);
            self.line_up(key);
            self.settle(key);
        }
    }

    /// What a piece has in flight at a destination is late.
    fn leave_to(&mut self, key: usize, dest: usize) {
        let sub = &self.subs[key];
        if dest >= self.jobs[sub.job].new.dests.len() {
            return;
        }
        // A copy that looks first reads there.
        let reads = matches!(sub.phase, Phase::Comparing(_));
        let lane = self.lane_of(key, if reads { Owner::SubJob(key) } else { Owner::Write(key, dest) });
        let (sub, job) = self.sub_and_job(key);
        let count = match sub.phase {
            Phase::Writing => sub.leave_behind(dest, lane),
            // One that waited for room there goes on by itself.
            Phase::Comparing(other) if other == dest && sub.ios > 0 => {
                sub.ios -= 1;
                sub.late.push((dest, lane));
                1
            }
            _ => 0,
        };
        if count > 0 {
            match job.late.iter_mut().find(|(other, _)| *other == dest) {
                Some((_, sum)) => *sum += count,
                None => job.late.push((dest, count)),
            }
        }
    }

    /// A piece may have waited for those alone.
    fn go_on_without(&mut self, key: usize, dests: ErrorBits) {
        if self.subs.get(key).is_none_or(|sub| sub.is_over) {
            return;
        }
        let (sub, job) = self.sub_and_job(key);
        match sub.phase {
            Phase::Writing => self.written(key),
            Phase::Comparing(dest) if dests.contains(dest) && sub.ios == 0 => {
                // The pages are with that destination: the piece is compared anew with those behind it.
                let missed = job.new.live.without(ErrorBits::first(dest)).union(ErrorBits::only(dest));
                // Where it was only looked at, nothing is written yet.
                sub.behind = if sub.is_unknown { missed.union(sub.to) } else { missed };
                sub.to = sub.to.without(sub.behind);
                self.sub_ended(key);
            }
            _ => {}
        }
    }

    /// Whether an I/O that has ended was late.
    pub(super) fn late_ended(&mut self, key: usize, end: &Finished) -> bool {
        let sub = &mut self.subs[key];
        let place = match Owner::of(end.token) {
            Owner::Write(_, dest) => sub.late.iter().position(|(other, _)| *other == dest),
            // Of a comparison that one is all it had.
            Owner::SubJob(_) if sub.is_over => sub.late.first().map(|_| 0),
            _ => None,
        };
        let Some(place) = place else { return false };
        let (dest, lane) = sub.late.swap_remove(place);
        let (owner, is_gone) = (sub.job, sub.is_over && sub.late.is_empty());
        if is_gone {
            self.subs.remove(key);
            self.over -= 1;
        }
        if let Some(lane) = lane {
            self.lanes.ended(lane, owner, self.core.now(), end);
        }
        let job = &mut self.jobs[owner];
        job.new.activity.end_at(dest);
        if let Some(place) = job.late.iter().position(|(other, _)| *other == dest) {
            job.late[place].1 -= 1;
            if job.late[place].1 == 0 {
                job.late.swap_remove(place);
                if let Some(answered) = &mut job.new.answered {
                    answered(dest);
                }
            }
        }
        self.freed = true;
        if let Some(lane) = lane {
            self.serve(lane);
        }
        self.settle(owner);
        true
    }
}

impl Job {
    /// Whether a destination of it may fall behind now.
    fn may_leave_behind(&self) -> bool {
        self.new.leaves_behind
            && !self.outcome.read_err
            && !self.pieces.is_empty()
            && self.new.live.count() > 1
            // Holes are made on one destination after the other, with the same pages.
            && !matches!(self.new.work, Work::Zero if self.new.sparse)
    }
}
