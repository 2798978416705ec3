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
use super::open::Opened;
use super::state::{Life, PausedBy};
use super::submit::{Made, NotMade, Ready};
use super::turn::{Now, Turn};
use super::view::{Change, JobId, Refusal, State};
use super::waiting::{BEGUN_MAX, Found};
use crate::claims::{Claims, Overwritten, Rank, Region};
use crate::dm_io::IoRegion;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{NUMBERS, Record};
use crate::spec::{After, Place as SpecPlace, Spec};

/// Between two checkpoints of a running job.
const CHECKPOINT: Duration = Duration::from_secs(5);
/// Between two looks at a device that is busy.
const LOOK: Duration = Duration::from_secs(1);

/// Who is in the way of a line of a write.
const EARLIER_LINE: &str = "an earlier line of this write";

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
    pub(super) jobs: BTreeMap<JobId, Job>,
    cards: Arc<Cards>,
    counters: Arc<Counters>,
    pub(super) claims: Claims,
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
            jobs: BTreeMap::new(),
            cards,
            counters,
            claims: Claims::default(),
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
            Event::Restore { records, shown, settled } => self.restore(records, shown, settled, now),
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

    fn note_waiting(&mut self, id: JobId) {
        if self.jobs.get(&id).is_some_and(Job::waits_open) {
            self.waits_open.insert(id);
        } else {
            self.waits_open.remove(&id);
        }
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
        self.checkpoint_due.into_iter().chain(self.look_due).min()
    }

    /// Does something with a job, and what follows from it.
    fn with(&mut self, id: JobId, now: Now, act: impl FnOnce(&mut Job, &mut Turn<'_>)) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let mut overwritten = Vec::new();
        let mut turn = Turn {
            now,
            effects: &mut self.effects,
            claims: &mut self.claims,
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
        self.note_waiting(id);
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
    }

    fn set_timers(&mut self, now: Now) {
        let next = |due: Option<Instant>, wanted: bool, period| wanted.then(|| due.unwrap_or(now.instant + period));
        let runs = self.index.active() > 0 && self.stopping.is_none();
        self.checkpoint_due = next(self.checkpoint_due, runs, CHECKPOINT);
        self.look_due = next(self.look_due, self.index.has_blocked() && self.stopping.is_none(), LOOK);
    }

    fn stop(&mut self, reply: Reply<()>, now: Now) {
        self.stopping.get_or_insert_default().push(reply);
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

impl Core {
    /// Numbers and claims new jobs; they are there when their records are on disk.
    fn submit(&mut self, ready: Vec<Ready>, reply: Reply<std::result::Result<Made, NotMade>>, now: Now) {
        let (first, leaders) = match self.admit(&ready) {
            Ok(admitted) => admitted,
            Err(refusal) => return self.refuse(reply, refusal, ready.into_iter().filter_map(Ready::opened).collect()),
        };
        let mut overwritten = Vec::new();
        for (index, (one, id)) in ready.iter().zip(first..).enumerate() {
            match self.claim_new(one, id, first) {
                Ok(lost) => overwritten.extend(lost),
                Err((place, error)) => {
                    (first..id).for_each(|id| self.claims.release(id));
                    // It is told once only: what nobody has written after all is copied again all the same.
                    self.overwrite(overwritten, now);
                    let devices = ready.into_iter().filter_map(Ready::opened).collect();
                    return self.refuse(reply, Refusal { index, place, error }, devices);
                }
            }
        }
        self.overwrite(overwritten, now);
        let new = ready.into_iter().zip(first..).zip(leaders);
        let mut jobs: Vec<Job> = new.map(|((one, id), leader)| one.into_job(id, leader, now.wall)).collect();
        for job in &mut jobs {
            job.share_names(&self.claims);
        }
        self.next += jobs.len() as JobId;
        self.attempts += 1;
        let batch = self.attempts;
        let files: Vec<Vec<IoRegion>> = jobs.iter().map(Job::files_to_lock).collect();
        self.batches.insert(batch, Batch { jobs, reply });
        if files.iter().any(|files| !files.is_empty()) {
            self.effects.push(Effect::LockBatch { batch, jobs: files });
        } else {
            self.batch_locked(batch, Ok(()), now);
        }
    }

    /// Whether new jobs would be made, as far as the owner has a say in it. Changes nothing.
    pub(super) fn would_make(&self, ready: &[Ready]) -> std::result::Result<(), Refusal> {
        let (first, _) = self.admit(ready)?;
        // Lines of one write may be in each other's way.
        let mut earlier = Claims::default();
        for (index, (one, id)) in ready.iter().zip(first..).enumerate() {
            let Some(footprint) = one.claims_now() else { continue };
            let refuse = |place, error| Err(Refusal { index, place, error });
            if let Some(conflict) = self.claims.conflict_at_once(id, footprint) {
                return refuse(conflict.place, conflict.error(&format!("job {}", conflict.owner)));
            }
            if let Err(conflict) = earlier.claim_at_once(id, footprint) {
                return refuse(conflict.place, conflict.error(EARLIER_LINE));
            }
        }
        Ok(())
    }

    /// The first number of new jobs, and the job that each starts after, if they may be made.
    fn admit(&self, ready: &[Ready]) -> std::result::Result<(JobId, Vec<Option<JobId>>), Refusal> {
        let line = |error| Refusal { index: 0, place: SpecPlace::Line, error };
        if self.stopping.is_some() {
            return Err(line(Error::new(ErrorKind::Cancelled, "the daemon is stopping")));
        }
        let making: usize = self.batches.values().map(|batch| batch.jobs.len()).sum();
        if self.jobs.len() + making + ready.len() > self.limits.max_jobs {
            let what = format!("{} jobs are the most (max_jobs=): dismiss some with rmdir", self.limits.max_jobs);
            return Err(line(Error::new(ErrorKind::Exhausted, what)));
        }
        if self.next.saturating_add(ready.len() as JobId) > NUMBERS {
            let what = "no number is left for a job: begin a new state directory";
            return Err(line(Error::new(ErrorKind::Exhausted, what)));
        }
        let mut leaders = Vec::with_capacity(ready.len());
        for (index, one) in ready.iter().enumerate() {
            let leader = one.spec.after.as_ref().map(|after| self.leader(after, &ready[..index])).transpose();
            leaders.push(leader.map_err(|error| Refusal { index, place: SpecPlace::Word("after"), error })?);
            if let (true, Some(name)) = (one.spec.once, &one.spec.name) {
                let checked = self.check_once(name, &ready[..index]);
                checked.map_err(|error| Refusal { index, place: SpecPlace::Word("once"), error })?;
            }
        }
        Ok((self.next, leaders))
    }

    /// The job that `after=` means for a line behind `earlier` ones.
    fn leader(&self, after: &After, earlier: &[Ready]) -> Result<JobId> {
        let (who, found) = match after {
            After::Job(id) => (id.to_string(), Some(*id).filter(|id| self.jobs.contains_key(id))),
            After::Name(name) => {
                let line = earlier.iter().rposition(|one| one.spec.name.as_ref() == Some(name));
                let new = line.map(|line| self.next + line as JobId);
                (format!("named {name}"), new.or_else(|| self.cards.named(name)))
            }
        };
        found.ok_or_else(|| {
            let what = format!("no job {who} to start after: it was never made, or was dismissed");
            Error::new(ErrorKind::NotFound, what)
        })
    }

    /// Whether no job of that name is live or done, nor is about to be: by another write, or by an `earlier` line.
    fn check_once(&self, name: &str, earlier: &[Ready]) -> Result<()> {
        let has_name = |spec: &Spec| spec.name.as_deref() == Some(name);
        let refuse = |who: String| {
            let what = format!("name={name}: {who}, and `once` makes no other");
            Err(Error::new(ErrorKind::Exists, what))
        };
        if earlier.iter().any(|one| has_name(&one.spec)) {
            return refuse("an earlier line of this write has that name".to_owned());
        }
        if let Some(job) = self.batches.values().flat_map(|batch| &batch.jobs).find(|job| has_name(job.spec())) {
            return refuse(format!("job {} of that name is being made", job.id()));
        }
        let named = self.cards.all_named(name).into_iter().filter_map(|id| Some((id, self.jobs.get(&id)?.state())));
        match named.rev().find(|(_, state)| *state == State::Done || !state.is_ended()) {
            Some((id, State::Done)) => refuse(format!("job {id} of that name is done (rmdir jobs/{id} forgets it)")),
            Some((id, state)) => refuse(format!("job {id} of that name is {}", state.as_str())),
            None => Ok(()),
        }
    }

    /// Claims for the job `id` of a write whose first job is `first`; none of them has been told its number.
    fn claim_new(
        &mut self,
        one: &Ready,
        id: JobId,
        first: JobId,
    ) -> std::result::Result<Vec<Overwritten>, (SpecPlace, Error)> {
        let Some(footprint) = one.claims_now() else { return Ok(Vec::new()) };
        self.claims.claim_at_once(id, footprint).map_err(|conflict| {
            let who = match conflict.owner {
                other if other >= first => EARLIER_LINE.to_owned(),
                other => format!("job {other}"),
            };
            (conflict.place, conflict.error(&who))
        })
    }

    fn refuse(&mut self, reply: Reply<std::result::Result<Made, NotMade>>, refusal: Refusal, devices: Vec<Found>) {
        self.effects.push(Effect::Answer(Answer::Submit(reply, Err(NotMade { refusal, devices }))));
    }

    fn batch_locked(&mut self, id: u64, result: std::result::Result<(), (usize, usize, Error)>, now: Now) {
        let Some(batch) = self.batches.get(&id) else { return };
        if let Err((index, dest, error)) = result {
            return self.drop_batch(id, Refusal { index, place: SpecPlace::To(dest), error });
        }
        if !self.keeps {
            return self.batch_recorded(id, Ok(()), now);
        }
        let records = batch.jobs.iter().map(|job| job.to_record(now.instant)).collect();
        self.effects.push(Effect::RecordBatch { batch: id, records });
    }

    fn batch_recorded(&mut self, id: u64, result: Result<()>, now: Now) {
        if let Err(error) = result {
            return self.drop_batch(id, Refusal { index: 0, place: SpecPlace::Line, error });
        }
        let Some(Batch { jobs, reply }) = self.batches.remove(&id) else { return };
        let ids: Vec<JobId> = jobs.iter().map(Job::id).collect();
        self.counters.made(ids.len());
        for mut job in jobs {
            job.locked_and_recorded();
            self.take_in(job, now);
        }
        for id in &ids {
            self.find_leader(*id, now);
        }
        // The numbers are told when they can be seen.
        self.effects.push(Effect::Answer(Answer::Submit(reply, Ok(Made { ids }))));
    }

    /// None of the new jobs becomes one.
    fn drop_batch(&mut self, id: u64, refusal: Refusal) {
        let Some(Batch { jobs, reply }) = self.batches.remove(&id) else { return };
        for job in &jobs {
            self.claims.release(job.id());
        }
        let last = jobs.last().map_or(0, Job::id);
        if self.next == last + 1 {
            self.next -= jobs.len() as JobId;
        }
        self.refuse(reply, refusal, jobs.into_iter().filter_map(Job::into_devices).collect());
    }

    /// A job is there from now on.
    fn take_in(&mut self, job: Job, now: Now) {
        let (id, place) = (job.id(), Place::of(&job));
        job.publish(self.trouble.as_deref());
        self.cards.insert(&job.card);
        let reason = job.why_not();
        let change = Change { time: now.wall, id, name: job.spec().name.clone(), old: None, new: job.state(), reason };
        self.effects.push(Effect::Post(change));
        self.jobs.insert(id, job);
        self.index.move_job(id, &Place::default(), &place);
        self.changed.insert(id);
        self.note_waiting(id);
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

    /// Takes the jobs of an earlier daemon in. Those that had begun get their devices back before all others.
    fn restore(&mut self, records: Vec<Record>, shown: Reply<()>, settled: Reply<()>, now: Now) {
        let mut jobs = Vec::with_capacity(records.len());
        for record in records {
            let id = record.id;
            match Job::from_record(record) {
                Ok(mut job) => {
                    job.share_names(&self.claims);
                    jobs.push(job);
                }
                Err(why) => log::warn!("job {id} is left out: {why}"),
            }
        }
        // The oldest end first.
        jobs.sort_by_key(|job| (job.card.show(|card| card.course.ended), job.id()));
        let mut alive = Vec::new();
        for mut job in jobs {
            let id = job.id();
            self.next = self.next.max(id + 1);
            if matches!(job.life(), Life::Ended(_)) {
                self.ends += 1;
                job.ended = self.ends;
                if let Some(lasting) = &job.lasting {
                    self.claims.remember(id, lasting);
                }
                job.publish(None);
                self.cards.insert(&job.card);
                self.index.move_job(id, &Place::default(), &Place::of(&job));
                self.jobs.insert(id, job);
            } else {
                alive.push(job);
            }
        }
        alive.sort_by_key(Job::id);
        let mut ids = Vec::with_capacity(alive.len());
        for mut job in alive {
            let id = job.id();
            ids.push(id);
            self.effects.push(Effect::EnsureClient(Arc::clone(&job.card)));
            if let Some(lasting) = job.lasting.as_ref().map(|lasting| lasting.without(job.progress.dropped)) {
                match job.life() {
                    _ if job.returning => self.claims.reserve(id, &lasting, Rank::Begun),
                    Life::Queued(_) if job.follows == Follows::Nobody => {
                        self.claims.reserve(id, &lasting, Rank::Waiting);
                    }
                    _ => {}
                }
            }
            // It waits and has data: others may write over it.
            if let Some(lasting) = job.lasting.as_ref().filter(|_| !job.returning && job.progress.has_any()) {
                self.claims.remember(id, lasting);
            }
            job.sort_in();
            self.take_in(job, now);
        }
        for id in &ids {
            self.find_leader(*id, now);
            if self.jobs.get(id).is_some_and(|job| job.returning && !job.life().is_over()) {
                self.returning.insert(*id);
                self.with(*id, now, Job::open);
            }
        }
        while let Some(oldest) = self.index.ended_beyond(self.limits.keep) {
            self.forget(oldest);
        }
        self.effects.push(Effect::Answer(Answer::Over(shown)));
        if self.returning.is_empty() {
            self.effects.push(Effect::Answer(Answer::Over(settled)));
        } else {
            self.restored.push(settled);
        }
    }
}
