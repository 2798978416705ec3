//! How new jobs are taken in: all of one write, or none.
//!
//! # Protocol
//! 1. They are admitted, numbered, and claim their bytes.
//! 2. Their files are locked, elsewhere.
//! 3. Their records are written, elsewhere.
//! 4. They are there, and their numbers are told. What fails before that undoes all of it.

use super::{Batch, Core};
use crate::claims::{Claims, Overwritten};
use crate::dm_io::IoRegion;
use crate::error::{Error, ErrorKind, Result};
use crate::jobs::effect::{Answer, Effect};
use crate::jobs::event::Reply;
use crate::jobs::job::Job;
use crate::jobs::submit::{Made, NotMade, Ready};
use crate::jobs::turn::Now;
use crate::jobs::view::{JobId, Refusal, State};
use crate::jobs::waiting::Found;
use crate::journal::NUMBERS;
use crate::spec::{After, Place, Spec};

/// Who is in the way of a line of a write.
const EARLIER_LINE: &str = "an earlier line of this write";

impl Core {
    /// Numbers and claims new jobs; they are there when their records are on disk.
    pub(super) fn submit(&mut self, ready: Vec<Ready>, reply: Reply<std::result::Result<Made, NotMade>>, now: Now) {
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
            job.share_names(&self.names);
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
    pub(in crate::jobs) fn would_make(&self, ready: &[Ready]) -> std::result::Result<(), Refusal> {
        let (first, _) = self.admit(ready)?;
        // Lines of one write may be in each other's way.
        let mut earlier = Claims::default();
        for (index, (one, id)) in ready.iter().zip(first..).enumerate() {
            let Some(footprint) = one.claims_now() else { continue };
            let refuse = |place, error| Err(Refusal { index, place, error });
            if let Some(conflict) = self.claims.conflict_at_once(id, footprint) {
                return refuse(conflict.place, one.refusal(&conflict, &format!("job {}", conflict.owner)));
            }
            if let Err(conflict) = earlier.claim_at_once(id, footprint) {
                return refuse(conflict.place, one.refusal(&conflict, EARLIER_LINE));
            }
        }
        Ok(())
    }

    /// The first number of new jobs, and the job that each starts after, if they may be made.
    fn admit(&self, ready: &[Ready]) -> std::result::Result<(JobId, Vec<Option<JobId>>), Refusal> {
        let line = |error| Refusal { index: 0, place: Place::Line, error };
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
            leaders.push(leader.map_err(|error| Refusal { index, place: Place::Word("after"), error })?);
            if let (true, Some(name)) = (one.spec.once, &one.spec.name) {
                let checked = self.check_once(name, &ready[..index]);
                checked.map_err(|error| Refusal { index, place: Place::Word("once"), error })?;
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
    pub(super) fn check_once(&self, name: &str, earlier: &[Ready]) -> Result<()> {
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
    ) -> std::result::Result<Vec<Overwritten>, (Place, Error)> {
        let Some(footprint) = one.claims_now() else { return Ok(Vec::new()) };
        self.claims.claim_at_once(id, footprint).map_err(|conflict| {
            let who = match conflict.owner {
                other if other >= first => EARLIER_LINE.to_owned(),
                other => format!("job {other}"),
            };
            (conflict.place, one.refusal(&conflict, &who))
        })
    }

    fn refuse(&mut self, reply: Reply<std::result::Result<Made, NotMade>>, refusal: Refusal, devices: Vec<Found>) {
        self.effects.push(Effect::Answer(Answer::Submit(reply, Err(NotMade { refusal, devices }))));
    }

    pub(super) fn batch_locked(&mut self, id: u64, result: std::result::Result<(), (usize, usize, Error)>, now: Now) {
        let Some(batch) = self.batches.get(&id) else { return };
        if let Err((index, dest, error)) = result {
            return self.drop_batch(id, Refusal { index, place: Place::To(dest), error });
        }
        if !self.keeps {
            return self.batch_recorded(id, Ok(()), now);
        }
        let records = batch.jobs.iter().map(|job| job.to_record(now.instant)).collect();
        self.effects.push(Effect::RecordBatch { batch: id, records });
    }

    pub(super) fn batch_recorded(&mut self, id: u64, result: Result<()>, now: Now) {
        if let Err(error) = result {
            return self.drop_batch(id, Refusal { index: 0, place: Place::Line, error });
        }
        let Some(Batch { jobs, reply }) = self.batches.remove(&id) else { return };
        let ids: Vec<JobId> = jobs.iter().map(Job::id).collect();
        self.counters.made(ids.len());
        for mut job in jobs {
            job.locked_and_recorded();
            self.take_in(Box::new(job), now);
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
}
