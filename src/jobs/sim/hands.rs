//! What the owner says is to be done, done in the simulated world; and what wrong builds do instead.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::super::effect::{Effect, Start};
use super::super::event::Event;
use super::super::open::{OpenError, Opened};
use super::super::owner::start_step;
use super::super::view::{Change, JobId, State};
use super::journal::{Task, Written};
use super::world::{Checked, Later, Pending, World};
use super::wrong::Wrong;
use crate::error::{Error, ErrorKind};
use crate::figures::Hashing;
use crate::journal::Record;
use crate::kcopyd::JobHandle;
use crate::spec::Place;

impl World<'_> {
    pub(super) fn carry_out(&mut self, asked: u64, effect: Effect) -> Checked {
        self.say(|| format!("         -> {}", super::story::effect(&effect)));
        match effect {
            Effect::Open { card, attempt, without, .. } => self.after_work(Later::Open(card, attempt, without)),
            Effect::Lock { id, attempt, .. } => {
                let result = self.lock().map(|()| Vec::new());
                self.after_work(Later::Event(Event::Locked { id, attempt, result }));
            }
            Effect::LockBatch { batch, .. } => {
                let result = self.lock().map_err(|error| (0, 0, error));
                self.after_work(Later::Event(Event::BatchLocked { batch, result }));
            }
            Effect::Close { id, devices, answer } => self.close(id, devices, answer),
            Effect::Record(record) => self.record(asked, record)?,
            Effect::RecordBatch { batch, records } => self.record_new(asked, batch, records),
            Effect::Forget(id) => self.forget(id),
            Effect::Start(start) => self.start(*start)?,
            Effect::HashZeros { id, hashing, range } => self.hash_zeros(id, hashing, &range),
            Effect::FindHoles { id, source, range } => {
                let (known, holes) = self.disks.holes(&source, range);
                self.after_work(Later::Event(Event::HolesFound { id, known, holes }));
            }
            Effect::Pause(id) => self.pause(id),
            Effect::Resume(id) => self.tell(id, JobHandle::resume),
            Effect::Cancel(id) => self.cancel(id),
            Effect::GiveUp(id, dests) => self.tell(id, |handle| handle.give_up(dests)),
            Effect::LeaveBehind(id, dests) => self.tell(id, |handle| handle.leave_behind(dests)),
            Effect::Wake(id) => self.tell(id, JobHandle::wake),
            Effect::Flush { id, run, dest, client, device } => {
                if self.flushes(id, run, dest) {
                    let inbox = Arc::clone(&self.daemon.inbox);
                    client.flush(device, move |result| inbox.send(Event::Flushed { id, run, dest, result }));
                }
            }
            Effect::EnsureClient(_) => {}
            Effect::Post(change) => self.post(change)?,
            Effect::Answer(answer) => {
                answer.send();
                self.look_at_answers()?;
            }
        }
        Ok(())
    }

    fn close(&mut self, id: JobId, devices: Box<Opened>, answer: bool) {
        if answer {
            self.daemon.handles.remove(&id);
            self.daemon.closing.insert(id);
            if self.is_wrong(Wrong::ClosedEarly) {
                self.send(Event::Closed { id });
            }
        }
        self.after_work(Later::Close { id, devices, answer });
    }

    fn record_new(&mut self, asked: u64, batch: u64, records: Vec<Record>) {
        if self.is_wrong(Wrong::BatchUnrecorded) {
            self.send(Event::BatchRecorded { batch, result: Ok(()) });
        } else {
            self.put(Task::SaveNew { batch, records, asked });
        }
    }

    fn forget(&mut self, id: JobId) {
        self.model.gone.insert(id);
        self.put(Task::Forget(id));
    }

    fn hash_zeros(&mut self, id: JobId, mut hashing: Box<Hashing>, range: &Range<u64>) {
        hashing.see_zeros(range);
        self.after_work(Later::Event(Event::StepEnded { id, hashing: Some(hashing), gone: Vec::new() }));
    }

    fn pause(&mut self, id: JobId) {
        self.tell(id, JobHandle::pause);
        if self.is_wrong(Wrong::ClaimReleased) {
            self.daemon.core.claims.release(id);
        }
    }

    fn cancel(&mut self, id: JobId) {
        if !self.is_wrong(Wrong::CancelLost) {
            self.tell(id, JobHandle::cancel);
        }
    }

    /// Whether a flush is done. Wrong builds say that it is.
    fn flushes(&mut self, id: JobId, run: u32, dest: usize) -> bool {
        let is_skipped = self.is_wrong(Wrong::FlushSkipped);
        if is_skipped || self.is_wrong(Wrong::FlushEarly) {
            self.send(Event::Flushed { id, run, dest, result: Ok(()) });
        }
        !is_skipped
    }

    fn post(&mut self, change: Change) -> Checked {
        if self.daemon.kept_back.is_none() && self.is_wrong(Wrong::EventsSwapped) {
            self.daemon.kept_back = Some(change);
            return Ok(());
        }
        self.check_change(change.id, change.old, change.new)?;
        match self.daemon.kept_back.take() {
            Some(change) => self.check_change(change.id, change.old, change.new),
            None => Ok(()),
        }
    }

    /// A record is to be written.
    fn record(&mut self, asked: u64, mut record: Box<Record>) -> Checked {
        self.check_record(&record)?;
        if self.is_wrong(Wrong::TakenAsDurable)
            && let Some(job) = self.daemon.core.jobs.get(&record.id)
        {
            for (side, dest) in record.dests.iter_mut().zip(&job.progress.dests) {
                side.durable = dest.taken.iter().map(|range| (range.start, range.end)).collect();
            }
            self.check_record(&record)?;
        }
        if record.state.is_ended() && self.is_wrong(Wrong::EventEarly) {
            let old = self.model.last.get(&record.id).copied();
            self.check_change(record.id, old, record.state)?;
        }
        if self.is_wrong(Wrong::RecordDropped) {
            self.send(Event::Recorded { ids: vec![record.id] });
            return Ok(());
        }
        if self.is_wrong(Wrong::RecordAckEarly) {
            self.send(Event::Recorded { ids: vec![record.id] });
        }
        self.put(Task::Save(record, asked));
        Ok(())
    }

    /// The engine gets a step.
    fn start(&mut self, start: Start) -> Checked {
        let id = start.card.id;
        if !self.daemon.steps.insert(id) {
            return Err(format!("job {id}: a second step while the engine has one"));
        }
        match start_step(&self.daemon.inbox, start) {
            Some(handle) => _ = self.daemon.handles.insert(id, handle),
            None => _ = self.daemon.steps.remove(&id),
        }
        if self.is_wrong(Wrong::PageKept)
            && let Ok(kept) = self.pool.reserve(1, None)
        {
            std::mem::forget(kept);
            self.model.kept_pages += 1;
        }
        Ok(())
    }

    /// Whoever has an answer now acts on it.
    fn look_at_answers(&mut self) -> Checked {
        for pending in std::mem::take(&mut self.pending) {
            match pending {
                Pending::Submit(answer) => match answer.try_recv() {
                    Ok(Ok(made)) => self.check_made(&made.ids)?,
                    Ok(Err(not_made)) => self.say(|| format!("refused: {}", not_made.refusal.error)),
                    Err(_) => self.pending.push(Pending::Submit(answer)),
                },
                Pending::Verb { id, verb, asked, answer } => match answer.try_recv() {
                    Ok(Ok(())) => self.check_verb(id, verb, asked)?,
                    Ok(Err(error)) => self.say(|| format!("refused: {error}")),
                    Err(_) => self.pending.push(Pending::Verb { id, verb, asked, answer }),
                },
                Pending::Restored(answer) => match answer.try_recv() {
                    Ok(()) => self.daemon.restored = true,
                    Err(_) => self.pending.push(Pending::Restored(answer)),
                },
                Pending::Stopped(answer) => match answer.try_recv() {
                    Ok(()) => {
                        self.check_stopped()?;
                        self.end_in = Some((0, false));
                    }
                    Err(_) => self.pending.push(Pending::Stopped(answer)),
                },
            }
        }
        Ok(())
    }

    fn tell(&self, id: u64, what: impl FnOnce(&JobHandle)) {
        if let Some(handle) = self.daemon.handles.get(&id) {
            what(handle);
        }
    }

    fn lock(&mut self) -> Result<(), Error> {
        match self.random.below(6) {
            0 => Err(Error::new(ErrorKind::Busy, "another program has locked a part of it")),
            1 if self.random.one_in(4) => Err(Error::new(ErrorKind::Os(libc::EIO), "lock")),
            _ => Ok(()),
        }
    }

    /// Something is to be written to the journal. New jobs are refused while it is patient.
    pub(super) fn put(&mut self, task: Task) {
        match task {
            Task::SaveNew { batch, .. } if self.journal.is_patient => {
                let result = Err(Error::new(ErrorKind::Os(libc::ENOSPC), "state directory"));
                self.send(Event::BatchRecorded { batch, result });
            }
            task => {
                self.journal.queue.push_back(task);
                self.write();
            }
        }
    }

    /// The journal begins to write what waits, unless it is at work.
    fn write(&mut self) {
        if self.journal.take() {
            self.after_work(Later::Journal);
        }
    }

    /// The journal writes what it has begun to write.
    fn written(&mut self) {
        match self.journal.write(&mut self.random) {
            Written::New(batch, result) => self.send(Event::BatchRecorded { batch, result }),
            Written::Saved(ids) => self.send(Event::Recorded { ids }),
            Written::Failed(error) => return self.journal_fails(&error),
        }
        self.journal.is_patient = false;
        self.write();
    }

    /// It tries again in a second.
    fn journal_fails(&mut self, why: &Error) {
        self.send(Event::RecordsFail { why: why.to_string() });
        self.journal.is_patient = true;
        for task in std::mem::take(&mut self.journal.queue) {
            self.put(task);
        }
        self.after(Duration::from_secs(1), Later::JournalAgain);
    }

    /// What was to happen at this time happens.
    pub(super) fn happen(&mut self, what: Later) -> Checked {
        match what {
            Later::Event(event) => self.send(event),
            Later::Verb(id, verb) => self.control(id, verb)?,
            Later::Open(card, attempt, without) => {
                let spec = card.spec();
                let result = self.disks.open(&spec, without, self.daemon.client(&spec)).map(Box::new);
                let result = match self.random.below(12) {
                    0 => Err(OpenError::InUse(Place::Line, Error::new(ErrorKind::Busy, "it is mounted"))),
                    _ => result,
                };
                self.send(Event::Opened { id: card.id, attempt, result });
            }
            Later::Close { id, devices, answer } => {
                drop(devices);
                if answer {
                    self.daemon.closing.remove(&id);
                    if !self.is_wrong(Wrong::ClosedLost) {
                        self.send(Event::Closed { id });
                    }
                }
            }
            Later::Journal => self.written(),
            Later::JournalAgain => {
                self.journal.is_patient = false;
                self.after_work(Later::Journal);
            }
            Later::Land(disk) => {
                self.say(|| format!("late writes arrive at disk {disk}"));
                let before = self.disks.content();
                self.disks.sim.land_orphans(&self.disks.devices[disk]);
                self.model_changed(&before);
                self.check_landed(disk)?;
            }
        }
        Ok(())
    }

    /// What becomes of an event in a wrong build.
    pub(super) fn spoil_event(&mut self, event: Event) -> Option<Event> {
        Some(match event {
            Event::Quiet { .. } if self.is_wrong(Wrong::QuietLost) => return None,
            Event::StepEnded { id, hashing, gone } => {
                if self.is_wrong(Wrong::StepEndedTwice) {
                    self.after(
                        Duration::from_micros(50),
                        Later::Event(Event::StepEnded { id, hashing: None, gone: Vec::new() }),
                    );
                }
                Event::StepEnded { id, hashing, gone }
            }
            Event::Flushed { id, run, dest, result } if self.wrong == Some(Wrong::OldFlush) => {
                let run = self.daemon.core.jobs.get(&id).map_or(run, |job| job.run);
                Event::Flushed { id, run, dest, result }
            }
            Event::Piece { id, mut piece }
                if !piece.write_errors.is_empty() && self.wrong == Some(Wrong::PieceInvented) =>
            {
                for (dest, _) in std::mem::take(&mut piece.write_errors) {
                    piece.written.set(dest);
                }
                Event::Piece { id, piece }
            }
            event => event,
        })
    }

    /// The state of a job in the core.
    pub(super) fn state(&self, id: u64) -> Option<State> {
        self.daemon.core.jobs.get(&id).map(super::super::job::Job::state)
    }
}
