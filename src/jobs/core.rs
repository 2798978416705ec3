//! All jobs of a daemon, and what becomes of them: an event and the time in, effects out. Pure: no lock that anybody else
//! holds for long, no clock, no system call, no thread.
//!
//! # Invariants
//! * A job is where its state says, in the one [`Index`]: that is derived from the job after each event.
//! * No number is given twice.
//! * What an event changes is published before its effects are carried out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::card::Cards;
use super::counters::Counters;
use super::effect::{Answer, Effect};
use super::event::{EndedPiece, Event, Reply};
use super::index::{Index, Place};
use super::job::{Follows, Job, waits_for_directory};
use super::names::Names;
use super::open::Opened;
use super::state::{Life, PausedBy};
use super::submit::{Made, NotMade};
use super::turn::{Now, Turn};
use super::view::{Change, JobId, State};
use super::waiting::BEGUN_MAX;
use crate::claims::{Claims, Overwritten, Region};
use crate::error::{Error, ErrorKind, Result};
use table::Table;

/// Between two checkpoints of a running job.
const CHECKPOINT: Duration = Duration::from_secs(5);
/// How long the record that a job has begun may wait: most small jobs have ended by then, and one record says both.
const BEGUN: Duration = Duration::from_millis(250);
/// Between two looks at a device that is busy.
const LOOK: Duration = Duration::from_secs(1);

/// How many of what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) active: usize,
    pub(super) keep: usize,
    pub(super) max_jobs: usize,
}

/// All jobs.
pub(super) struct Core {
    limits: Limits,
    /// Whether records are kept at all.
    keeps: bool,
    pub(super) jobs: Table,
    cards: Arc<Cards>,
    counters: Arc<Counters>,
    pub(super) claims: Claims,
    pub(super) names: Arc<Names>,
    pub(super) index: Index,
    /// New jobs whose files are being locked, or whose records are being written.
    batches: BTreeMap<u64, Batch>,
    /// The number that the next new job gets.
    next: JobId,
    ends: u64,
    attempts: u64,
    /// Why records cannot be written.
    trouble: Option<String>,
    /// The daemon stops; who waits for it.
    pub(super) stopping: Option<Vec<Reply<()>>>,
    /// Jobs of an earlier daemon whose devices are being looked at, and who waits for that.
    returning: BTreeSet<JobId>,
    restored: Vec<Reply<()>>,
    checkpoint_due: Option<Instant>,
    look_due: Option<Instant>,
    record_due: Option<Instant>,
    /// Jobs whose records do not say yet that they have begun.
    unrecorded: BTreeSet<JobId>,
    /// Jobs whose end was not followed yet.
    just_ended: VecDeque<JobId>,
    /// Jobs that changed in this turn.
    changed: BTreeSet<JobId>,
    /// Jobs that wait, and hold descriptors.
    waits_open: BTreeSet<JobId>,
    effects: Vec<Effect>,
}

/// New jobs of one write.
struct Batch {
    jobs: Vec<Job>,
    reply: Reply<std::result::Result<Made, NotMade>>,
}

impl Core {
    /// No jobs. The next new one gets the number `next`.
    pub(super) fn new(limits: Limits, keeps: bool, next: JobId, cards: Arc<Cards>, counters: Arc<Counters>) -> Self {
        cards.show_active(0, limits.active);
        Self {
            limits,
            keeps,
            jobs: Table::default(),
            cards,
            counters,
            claims: Claims::default(),
            names: Arc::default(),
            index: Index::default(),
            batches: BTreeMap::new(),
            next,
            ends: 0,
            attempts: 0,
            trouble: None,
            stopping: None,
            returning: BTreeSet::new(),
            restored: Vec::new(),
            checkpoint_due: None,
            look_due: None,
            record_due: None,
            unrecorded: BTreeSet::new(),
            just_ended: VecDeque::new(),
            changed: BTreeSet::new(),
            waits_open: BTreeSet::new(),
            effects: Vec::new(),
        }
    }

    /// Something has happened. What follows is in [`Core::effects`].
    pub(super) fn on(&mut self, event: Event, now: Now) {
        match event {
            Event::Submit { ready, reply } => self.submit(ready, reply, now),
            Event::Check { ready, reply } => {
                let answer = self.would_make(&ready).map(|()| ready);
                self.effects.push(Effect::Answer(Answer::Check(reply, answer)));
            }
            Event::CheckOnce { name, reply } => {
                let answer = self.check_once(&name, &[]);
                self.effects.push(Effect::Answer(Answer::Done(reply, answer)));
            }
            Event::BatchLocked { batch, result } => self.batch_locked(batch, result, now),
            Event::BatchRecorded { batch, result } => self.batch_recorded(batch, result, now),
            Event::Restore { jobs, shown, settled } => self.restore(jobs, shown, settled, now),
            Event::Control { id, verb, reply } => {
                self.with_or_tell(id, reply, now, |job, reply, turn| job.control(verb, reply, turn));
                self.with(id, now, Job::give_up_following);
            }
            Event::SpeedMax { id, rate, reply } => self.with_or_tell(id, reply, now, |job, reply, turn| {
                job.card.speed_max.set(rate);
                turn.push(Effect::Wake(id));
                job.record_and_tell(reply, turn);
            }),
            Event::Active { most, reply } => {
                self.limits.active = most;
                self.effects.push(Effect::Answer(Answer::Over(reply)));
            }
            Event::Dismiss { id, reply } => {
                let answer = self.dismiss(id);
                self.effects.push(Effect::Answer(Answer::Done(reply, answer)));
            }
            Event::Ask { id, question } => question(self.jobs.get(&id)),
            Event::WhoWrites { extents, reply } => {
                let writer = self.claims.writer_of(&extents);
                self.effects.push(Effect::Answer(Answer::WhoWrites(reply, writer)));
            }
            Event::Opened { id, attempt, result } => self.opened(id, attempt, result, now),
            Event::Locked { id, attempt, result } => self.with(id, now, |job, turn| job.locked(attempt, result, turn)),
            Event::Closed { id } => self.with(id, now, Job::closed),
            Event::Recorded { ids } => self.recorded(&ids, now),
            Event::RecordsFail { why } => self.records_fail(why, now),
            Event::Piece { id, piece } => self.piece(id, &piece, now),
            Event::StepEnded { id, hashing, gone } => {
                self.with(id, now, |job, turn| job.step_ended(hashing, &gone, turn));
            }
            Event::HolesFound { id, known, holes } => {
                self.with(id, now, |job, turn| job.holes_found(known, &holes, turn));
            }
            Event::StepRefused { id, error } => self.with(id, now, |job, turn| job.step_refused(&error, turn)),
            Event::Quiet { id } => self.with(id, now, Job::quiet),
            Event::Flushed { id, run, dest, result } => {
                self.with(id, now, |job, turn| job.flushed(run, dest, result, turn));
            }
            Event::Behind { id, dest, why, owes } => {
                self.with(id, now, |job, turn| job.fell_behind(dest, why, owes, turn));
            }
            Event::Answered { id, dest } => {
                self.claims.release_late(id, dest);
                self.index.unblock();
                self.with(id, now, |job, turn| job.answered(dest, turn));
            }
            Event::Tick => self.tick(now),
            Event::Stop { reply } => self.stop(reply, now),
        }
        loop {
            self.follow_ends(now);
            self.schedule(now);
            if self.just_ended.is_empty() {
                break;
            }
        }
        self.let_go(now);
        self.answer_if_stopped();
        self.set_timers(now);
    }

    /// Jobs that wait let go of their devices.
    fn let_go(&mut self, now: Now) {
        if self.waits_open.is_empty() {
            return;
        }
        let (begun, new): (Vec<JobId>, Vec<JobId>) =
            self.waits_open.iter().partition(|id| self.jobs.get(id).is_some_and(Job::has_begun));
        let too_many = begun.len().saturating_sub(BEGUN_MAX);
        for id in new.into_iter().chain(begun.into_iter().take(too_many)) {
            if self.jobs.get(&id).is_some_and(Job::can_let_go) {
                self.with(id, now, Job::let_go);
            }
        }
    }

    /// What is to be done about a job later.
    fn note(&mut self, id: JobId) {
        let job = self.jobs.get(&id);
        let note = |jobs: &mut BTreeSet<JobId>, is| if is { jobs.insert(id) } else { jobs.remove(&id) };
        note(&mut self.waits_open, job.is_some_and(Job::waits_open));
        note(&mut self.unrecorded, job.is_some_and(|job| job.recording.owes));
    }

    /// Publishes what has changed, and says what is to be done, in this order.
    pub(super) fn effects(&mut self) -> Vec<Effect> {
        for id in std::mem::take(&mut self.changed) {
            if let Some(job) = self.jobs.get(&id) {
                job.publish(self.trouble.as_deref());
            }
        }
        self.cards.show_active(self.index.active(), self.limits.active);
        std::mem::take(&mut self.effects)
    }

    /// When the next [`Event::Tick`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.checkpoint_due.into_iter().chain(self.look_due).chain(self.record_due).min()
    }

    /// Does something with a job, and what follows from it.
    fn with(&mut self, id: JobId, now: Now, act: impl FnOnce(&mut Job, &mut Turn<'_>)) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let mut overwritten = Vec::new();
        let mut turn = Turn {
            now,
            effects: &mut self.effects,
            claims: &mut self.claims,
            names: &self.names,
            overwritten: &mut overwritten,
            attempts: &mut self.attempts,
            keeps: self.keeps,
            stopping: self.stopping.is_some(),
        };
        let (before, from) = (Place::of(job), turn.effects.len());
        act(job, &mut turn);
        if let (Life::Ended(_), true) = (job.life(), !before.is_ended()) {
            self.ends += 1;
            job.ended = self.ends;
        }
        let after = Place::of(job);
        self.changed.insert(id);
        self.index.move_job(id, &before, &after);
        self.note(id);
        // What others have lost by a claim is on disk before the record that says that the claim was made.
        let behind = self.effects.split_off(from);
        self.overwrite(overwritten, now);
        self.effects.extend(behind);
        if after.is_ended() && !before.is_ended() {
            self.just_ended.push_back(id);
        }
    }

    /// The same for somebody who waits for an answer.
    fn with_or_tell(
        &mut self,
        id: JobId,
        reply: Reply<Result<()>>,
        now: Now,
        act: impl FnOnce(&mut Job, Reply<Result<()>>, &mut Turn<'_>),
    ) {
        if self.jobs.contains_key(&id) {
            self.with(id, now, |job, turn| act(job, reply, turn));
        } else {
            self.effects.push(Effect::Answer(Answer::Done(reply, Err(Error::no_job(id)))));
        }
    }

    /// Those jobs do not have any more what others write from now on.
    fn overwrite(&mut self, lost: Vec<Overwritten>, now: Now) {
        let mut whose = BTreeSet::new();
        for Overwritten { id, region, sectors } in lost {
            let Some(job) = self.jobs.get_mut(&id) else { continue };
            let count = job.spec().to.len();
            match region {
                Region::Dest(index) => job.overwrite(std::iter::once(index), &sectors),
                // What was copied from there is not what is there now.
                Region::Source => job.overwrite(0..count, &sectors),
            }
            whose.insert(id);
        }
        for id in whose {
            self.with(id, now, Job::record_now);
        }
    }

    /// Jobs have ended: those that follow them start or end, and the oldest that are too many go.
    fn follow_ends(&mut self, now: Now) {
        while let Some(id) = self.just_ended.pop_front() {
            self.follow_end(id, now);
        }
    }

    fn follow_end(&mut self, id: JobId, now: Now) {
        let Some(state) = self.jobs.get(&id).map(Job::state) else { return };
        self.counters.ended(state);
        for follower in self.index.followers(id) {
            let how = if state == State::Done { Ok(()) } else { Err(ended(state).to_owned()) };
            self.with(follower, now, |job, turn| job.leader_ended(how, turn));
        }
        self.index.unblock();
        while let Some(oldest) = self.index.ended_beyond(self.limits.keep) {
            self.forget(oldest);
        }
    }

    /// Starts jobs while there is room.
    fn schedule(&mut self, now: Now) {
        while self.stopping.is_none() && self.index.active() < self.limits.active {
            let Some(id) = self.index.next() else { return };
            self.with(id, now, Job::begin);
        }
    }

    fn piece(&mut self, id: JobId, piece: &EndedPiece, now: Now) {
        let copied = |core: &Self| core.jobs.get(&id).map_or(0, |job| job.progress.copied());
        let before = copied(self);
        self.with(id, now, |job, turn| job.piece_ended(piece, turn));
        self.counters.piece(&piece.piece(), copied(self).saturating_sub(before));
    }

    fn opened(
        &mut self,
        id: JobId,
        attempt: u64,
        result: std::result::Result<Box<Opened>, super::open::OpenError>,
        now: Now,
    ) {
        if self.jobs.contains_key(&id) {
            self.with(id, now, |job, turn| job.was_opened(attempt, result, turn));
        } else if let Ok(devices) = result {
            self.effects.push(Effect::Close { id, devices, answer: false });
        }
        if self.returning.remove(&id) && self.returning.is_empty() {
            let waiting = std::mem::take(&mut self.restored);
            self.effects.extend(waiting.into_iter().map(|reply| Effect::Answer(Answer::Over(reply))));
        }
    }

    fn recorded(&mut self, ids: &[JobId], now: Now) {
        for id in ids {
            self.with(*id, now, Job::recorded);
        }
        if self.trouble.take().is_some() {
            for id in self.jobs.keys().copied().collect::<Vec<_>>() {
                self.with(id, now, Job::recorder_recovered);
            }
        }
    }

    /// No job can be made durable: all that run pause.
    fn records_fail(&mut self, why: String, now: Now) {
        let reason = waits_for_directory(&why);
        let is_new = self.trouble.replace(why).is_none();
        for id in self.index.all_active() {
            let reason = reason.clone();
            self.with(id, now, |job, turn| {
                if matches!(job.life(), Life::Running | Life::Verifying) {
                    job.pause(PausedBy::Daemon(reason), turn);
                }
            });
        }
        if is_new {
            // Those that wait for a record say so.
            self.changed.extend(self.jobs.keys());
        }
    }

    fn tick(&mut self, now: Now) {
        if self.checkpoint_due.is_some_and(|due| due <= now.instant) {
            self.checkpoint_due = None;
            for id in self.index.all_active() {
                self.with(id, now, |job, turn| {
                    if matches!(job.life(), Life::Running | Life::Flushing | Life::Verifying) {
                        job.checkpoint(turn);
                    }
                    job.look_for_stalls(turn);
                });
            }
        }
        if self.look_due.is_some_and(|due| due <= now.instant) {
            self.look_due = None;
            self.index.unblock();
        }
        if self.record_due.is_some_and(|due| due <= now.instant) {
            self.record_due = None;
            self.record_what_is_owed(now);
        }
    }

    fn record_what_is_owed(&mut self, now: Now) {
        for id in std::mem::take(&mut self.unrecorded) {
            self.with(id, now, Job::record);
        }
    }

    fn set_timers(&mut self, now: Now) {
        let next = |due: Option<Instant>, wanted: bool, period| wanted.then(|| due.unwrap_or(now.instant + period));
        let runs = self.index.active() > 0 && self.stopping.is_none();
        self.checkpoint_due = next(self.checkpoint_due, runs, CHECKPOINT);
        self.look_due = next(self.look_due, self.index.has_blocked() && self.stopping.is_none(), LOOK);
        self.record_due = next(self.record_due, !self.unrecorded.is_empty(), BEGUN);
    }

    fn stop(&mut self, reply: Reply<()>, now: Now) {
        self.stopping.get_or_insert_default().push(reply);
        self.record_what_is_owed(now);
        for id in self.index.all_active() {
            self.with(id, now, |job, turn| {
                job.pause_step(turn);
                job.go_on(turn);
            });
        }
    }

    fn answer_if_stopped(&mut self) {
        let Some(waiting) = self.stopping.as_mut().filter(|waiting| !waiting.is_empty()) else { return };
        let is_over = |id: &JobId| self.jobs[id].is_at_rest();
        if self.index.all_active().iter().all(is_over) {
            let waiting = std::mem::take(waiting);
            self.effects.extend(waiting.into_iter().map(|reply| Effect::Answer(Answer::Over(reply))));
        }
    }

    /// A job is there from now on.
    fn take_in(&mut self, job: Box<Job>, now: Now) {
        let (id, place) = (job.id(), Place::of(&job));
        job.publish(self.trouble.as_deref());
        self.cards.insert(&job.card);
        let reason = job.why_not();
        let change = Change { time: now.wall, id, name: job.spec().name.clone(), old: None, new: job.state(), reason };
        self.effects.push(Effect::Post(change));
        self.jobs.insert(job);
        self.index.move_job(id, &Place::default(), &place);
        self.changed.insert(id);
        self.note(id);
    }

    /// The job that it follows may have ended meanwhile.
    fn find_leader(&mut self, id: JobId, now: Now) {
        let Some(Follows::Job(after)) = self.jobs.get(&id).map(|job| &job.follows) else { return };
        let how = match self.jobs.get(after).map(Job::life) {
            Some(Life::Ended(State::Done)) => Ok(()),
            Some(Life::Ended(end)) => Err(ended(*end).to_owned()),
            Some(_) => return,
            None => Err("was dismissed".to_owned()),
        };
        self.with(id, now, |job, turn| job.leader_ended(how, turn));
    }

    fn dismiss(&mut self, id: JobId) -> Result<()> {
        let job = self.jobs.get(&id).ok_or_else(|| Error::no_job(id))?;
        if !matches!(job.life(), Life::Ended(_)) {
            return Err(Error::new(ErrorKind::Busy, format!("job {id} has not ended: cancel it first")));
        }
        self.forget(id);
        Ok(())
    }

    fn forget(&mut self, id: JobId) {
        let Some(job) = self.jobs.remove(&id) else { return };
        // Who keeps it in sight learns how it has ended.
        job.publish(None);
        self.index.move_job(id, &Place::of(&job), &Place::default());
        self.claims.forget(id);
        self.cards.remove(id);
        if self.keeps {
            self.effects.push(Effect::Forget(id));
        }
    }
}

/// How a job that another one was waiting for has ended, in a few words.
fn ended(state: State) -> &'static str {
    match state {
        State::Degraded => "ended degraded",
        State::Failed => "failed",
        _ => "was cancelled",
    }
}

mod admission;
mod restore;
mod table;
