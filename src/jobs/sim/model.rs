//! What must be true: asked after every event, every write, every record, every answer, and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::behind::late_dests;
use super::super::event::Event;
use super::super::job::{Devices, Job};
use super::super::open::Opened;
use super::super::state::{Life, may_become};
use super::super::view::{JobId, State, Verb};
use super::disks::{DISKS, Span};
use super::world::{Checked, World};
use super::wrong::Wrong;
use crate::dm_io::ErrorBits;
use crate::dm_io::IoRegion;
use crate::figures::{Cell, Hashing, RangeSet, Speeds, sums_text};
use crate::journal::{Record, Side};
use crate::kcopyd::Pattern;
use crate::salvage::Phase;
use crate::sector::{SECTOR_SIZE, Sector};
use crate::spec::{self, Action};

/// Running time that a kill may take: two checkpoints, because the flush of the first may hang; and the owner's lag.
const RUNNING_TIME_LAG: Duration = Duration::from_millis(10_100);

/// Cells of the pictures that are looked at: few, so that many sectors share one.
const PICTURE: usize = 32;

/// What is known of the jobs from outside.
#[derive(Default)]
pub(super) struct Model {
    /// Numbers that an administrator was told.
    told: BTreeSet<JobId>,
    /// Jobs that were dismissed, or were too many.
    pub(super) gone: BTreeSet<JobId>,
    /// The state of each that was told last.
    pub(super) last: BTreeMap<JobId, State>,
    /// The devices with which a job began.
    places: BTreeMap<JobId, Places>,
    /// Jobs that had begun before a restart and do not have their bytes back yet.
    returning: BTreeSet<JobId>,
    /// Jobs that somebody resumed although their devices were not surely the same.
    forced: BTreeSet<JobId>,
    /// `copied` and `durable` that were seen last, where they must not fall.
    figures: BTreeMap<JobId, (u64, u64)>,
    /// Pages that a wrong build has.
    pub(super) kept_pages: u32,
    /// How often a state became another.
    pub(super) coverage: [[u64; 10]; 10],
}

/// What a job reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Places {
    source: Option<Span>,
    dests: Vec<Span>,
    writes: bool,
    /// Of a test: what its pattern is made from.
    seed: Option<u64>,
}

impl Places {
    fn read(&self) -> impl Iterator<Item = &Span> {
        self.source.iter().chain(self.dests.iter().filter(|_| !self.writes))
    }

    fn written(&self) -> impl Iterator<Item = &Span> {
        self.dests.iter().filter(|_| self.writes)
    }

    /// Whether they are the same, but for destinations that were dropped.
    fn is(&self, other: &Self) -> bool {
        let is_same = |(old, new): (&Span, &Span)| old == new || [old.disk, new.disk].contains(&DISKS);
        let same = (&self.source, self.writes, self.seed) == (&other.source, other.writes, other.seed);
        same && self.dests.iter().zip(&other.dests).all(is_same)
    }

    /// Without destinations that were dropped.
    fn without(&self, dropped: ErrorBits) -> Self {
        let mut left = self.clone();
        dropped.iter().for_each(|index| left.dests[index].disk = DISKS);
        left
    }

    /// Whether one of two jobs writes what the other reads or writes.
    fn disturbs(&self, other: &Self) -> bool {
        let meets = |written: &Span, of: &Self| of.read().chain(of.written()).any(|span| span.overlaps(written));
        self.written().any(|span| meets(span, other)) || other.written().any(|span| meets(span, self))
    }
}

fn place_of(state: State) -> usize {
    State::ALL.iter().position(|other| *other == state).expect("one of all")
}

fn set(pairs: &[(u64, u64)]) -> RangeSet {
    pairs.iter().map(|(start, end)| *start..*end).collect()
}

impl World<'_> {
    /// Before the owner hears of it.
    pub(super) fn model_before(&mut self, event: &mut Event) {
        if let Event::Submit { ready, .. } = event {
            for one in ready {
                self.draw_map(one);
            }
        }
        if let Event::Control { id, verb: Verb::Resume, .. } = event
            && self.daemon.core.jobs.get(id).is_some_and(|job| matches!(job.life(), Life::Held(_)))
        {
            self.model.forced.insert(*id);
        }
    }

    /// Something else than a job has changed disks, which were like this: copies of what is new there are not what it is.
    pub(super) fn model_changed(&mut self, before: &[Vec<u8>]) {
        let disks = &self.disks;
        let is_new = |span: &Span| span.disk != DISKS && disks.read(span) != before[span.disk][span.bytes()];
        let changed = self.model.places.iter().filter(|(_, places)| places.read().any(is_new));
        self.model.forced.extend(changed.map(|(id, _)| *id));
    }

    /// The machine has restarted: nobody can tell any more which disk it was that had a name until then.
    pub(super) fn model_restarted(&mut self) {
        let anonymous = &self.disks.anonymous;
        let is_lost = |places: &Places| {
            places.source.iter().chain(&places.dests).any(|span| anonymous.get(span.disk) == Some(&true))
        };
        let lost = self.model.places.iter().filter(|(_, places)| is_lost(places));
        self.model.forced.extend(lost.map(|(id, _)| *id));
    }

    /// After each event.
    pub(super) fn check_event(&mut self) -> Checked {
        let core = &self.daemon.core;
        if let Some(id) = core.index.misplaced(core.jobs.values()) {
            return Err(format!("job {id} is not where its state says"));
        }
        let claim = core.jobs.values().find(|job| job.has_claim() != core.claims.has_claim(job.id()));
        if let Some(job) = claim {
            return Err(format!("job {}: its claim is not what it believes", job.id()));
        }
        Ok(())
    }

    /// After each turn of the owner.
    pub(super) fn check_turn(&mut self) -> Checked {
        let mut new = Vec::new();
        for job in self.daemon.core.jobs.values() {
            let id = &job.id();
            let has_step = job.work.as_ref().is_some_and(|work| work.step.is_some());
            if self.daemon.steps.contains(id) && !has_step {
                return Err(format!("job {id}: the engine has a step of it, and the owner does not know"));
            }
            if let Devices::Open(opened) = &job.devices
                && !self.model.forced.contains(id)
            {
                let places = self.places(job, opened);
                match self.model.places.get(id) {
                    Some(known) if !known.is(&places) && job.has_claim() => {
                        return Err(format!("job {id} has other devices than those that it began with"));
                    }
                    Some(known) if known.is(&places) && known.dests.iter().all(|span| span.disk != DISKS) => {}
                    _ => new.push((*id, places)),
                }
            }
            self.check_running_time(job)?;
            let progress = &job.progress;
            if !progress.live().is_empty() && !progress.same().without(progress.common()).is_empty() {
                return Err(format!("job {id} counts as equal what its destinations do not have"));
            }
            let figures = (progress.copied(), progress.durable);
            // Until it works, what others have written over is taken away; a comparison takes away what is different.
            let copies = job.phase == Phase::Copy && job.work.is_some();
            let moves = copies && matches!(job.state(), State::Running | State::Flushing | State::Paused);
            match self.model.figures.get(id).filter(|_| moves) {
                Some(old) if old.0 > figures.0 || old.1 > figures.1 => {
                    return Err(format!("job {id}: its figures fell from {old:?} to {figures:?}"));
                }
                Some(old) if old.1 < figures.1 => self.check_durable(job)?,
                _ => {}
            }
            if moves {
                self.model.figures.insert(*id, figures);
            } else {
                self.model.figures.remove(id);
            }
        }
        self.model.places.extend(new);
        self.check_returning()
    }

    fn places(&self, job: &Job, opened: &Opened) -> Places {
        let span = |region: &IoRegion| self.disks.span_of(region);
        let dests = opened.dests.iter().map(span).collect();
        Places {
            source: opened.from.as_ref().map(span),
            dests,
            writes: job.writes(),
            seed: (job.spec().action == Action::Test).then_some(job.seed),
        }
    }

    /// Nobody has the bytes of a job that had begun before a restart.
    fn check_returning(&mut self) -> Checked {
        let jobs = &self.daemon.core.jobs;
        let waits = |id: &JobId| jobs.get(id).is_some_and(|job| !job.has_claim() && !job.state().is_ended());
        self.model.returning.retain(waits);
        for id in &self.model.returning {
            let Some(places) = self.model.places.get(id).filter(|_| !self.model.forced.contains(id)) else { continue };
            let places = &places.without(jobs[id].progress.dropped);
            let mut others = jobs.values().filter(|other| other.has_claim());
            let disturbs =
                |other: &&Job| other.opened().is_some_and(|opened| self.places(other, opened).disturbs(places));
            if let Some(other) = others.find(disturbs) {
                return Err(format!("job {} has bytes of job {id}, which had begun before a restart", other.id()));
            }
        }
        Ok(())
    }

    /// Its running time is on disk, or on its way there, to within two checkpoints, whatever its devices do. A daemon that stops has
    /// made its last, and waits for its devices no longer than that.
    fn check_running_time(&self, job: &Job) -> Checked {
        if self.daemon.core.stopping.is_some() {
            return Ok(());
        }
        let works = matches!(job.life(), Life::Running | Life::Flushing | Life::Verifying) && job.recording.is_idle();
        let Some((record, _)) = self.journal.kept.get(&job.id()).filter(|_| works && self.keeps) else { return Ok(()) };
        let elapsed = job.card.show(|shown| shown.watch.elapsed(self.clock().instant));
        let lag = elapsed.saturating_sub(record.elapsed);
        if lag <= RUNNING_TIME_LAG {
            return Ok(());
        }
        Err(format!("job {} has been working for {elapsed:?}, and {lag:?} of that would not survive a kill", job.id()))
    }

    /// What was written was written by a job that has its claim.
    pub(super) fn check_writes(&mut self) -> Checked {
        for (target, bytes) in self.disks.sim.take_written() {
            let disk = self.disks.disk_of(target);
            let span = Span { disk, sectors: bytes.start / SECTOR_SIZE..bytes.end.div_ceil(SECTOR_SIZE) };
            let core = &self.daemon.core;
            let mut writers = core.jobs.values().filter(|job| job.writes() && core.claims.has_claim(job.id()));
            let within = |region: &IoRegion| {
                let whole = self.disks.span_of(region);
                whole.disk == span.disk
                    && whole.sectors.start <= span.sectors.start
                    && span.sectors.end <= whole.sectors.end
            };
            // A job that ends without one that hangs keeps its place there until that has answered.
            let late = self.model.places.iter().any(|(id, places)| {
                let late = core.jobs.get(id).map_or(ErrorBits::first(64), |job| late_dests(&job.late));
                let keeps = core.claims.has_late(*id) || core.claims.has_claim(*id);
                let mut dests = places.dests.iter().enumerate().filter(|(index, _)| keeps && late.contains(*index));
                dests.any(|(_, whole)| {
                    let (within, written) = (&whole.sectors, &span.sectors);
                    whole.disk == disk && within.start <= written.start && written.end <= within.end
                })
            });
            // A job that was made when the daemon ended was never told, so its places are not known.
            let is_known = |id: &JobId| self.model.places.contains_key(id);
            let late = late || core.jobs.keys().any(|id| !is_known(id) && core.claims.has_late(*id));
            if !late && !writers.any(|job| job.opened().is_some_and(|opened| opened.dests.iter().any(within))) {
                return Err(format!("{span:?} was written, and no job has a claim there"));
            }
        }
        Ok(())
    }

    /// Late writes have come to a disk: nobody was let at it meanwhile.
    pub(super) fn check_landed(&self, disk: usize) -> Checked {
        let writes = |job: &&Job| {
            let opened = job.opened().filter(|_| job.writes());
            opened.is_some_and(|opened| opened.dests.iter().any(|dest| self.disks.span_of(dest).disk == disk))
        };
        match self.daemon.core.jobs.values().find(writes) {
            Some(job) => Err(format!("job {} had disk {disk} open while late writes came", job.id())),
            None => Ok(()),
        }
    }

    /// A record says only what is so.
    pub(super) fn check_record(&self, record: &Record) -> Checked {
        let (span, samples) = record.speeds.parts();
        if Speeds::recorded(span, samples.to_vec()).is_none() {
            return Err(format!("the record of job {} has {:?}", record.id, record.speeds));
        }
        let Some(places) = self.model.places.get(&record.id).filter(|_| !self.model.forced.contains(&record.id)) else {
            return Ok(());
        };
        self.check_digest(record, places)?;
        // What was dropped is another's by now, perhaps; a record from before may not know of that.
        let is_kept = |(_, (side, span)): &(usize, (&Side, &Span))| !side.dropped && span.disk != DISKS;
        let kept = record.dests.iter().zip(places.written()).enumerate().filter(is_kept);
        for (index, (side, span)) in kept {
            Self::check_card(side, span)
                .map_err(|what| format!("record of job {}, destination {index}: {what}", record.id))?;
            let not = set(&side.overwritten).union(&set(&record.unreadable));
            for range in set(&side.durable).without(&not).iter() {
                self.check_equal(places, span, &range)
                    .map_err(|what| format!("record of job {}, destination {index}: {what}", record.id))?;
            }
        }
        Ok(())
    }

    /// A card is that of the disk that it began with.
    fn check_card(side: &Side, span: &Span) -> Checked {
        let expected = format!("serial=disk-{}", span.disk);
        match side.card.as_str() {
            "" => Ok(()),
            card if card == expected => Ok(()),
            // It is not known where a destination was that had been dropped before the restart.
            _ if span.disk == DISKS => Ok(()),
            card => Err(format!("the card says {card}, and should say {expected}")),
        }
    }

    /// A digest is that of what is read. A comparison that comes later keeps the one of the copy.
    fn check_digest(&self, record: &Record, places: &Places) -> Checked {
        let (Some(digest), Some(source)) = (&record.digest, &places.source) else { return Ok(()) };
        let known = self.journal.kept.get(&record.id).and_then(|(known, _)| known.digest.as_ref());
        if known == Some(digest) {
            return Ok(());
        }
        let spec = spec::parse(&record.spec).map_err(|error| error.to_string())?.spec;
        let Some(mut hashing) = Hashing::new(&spec.digests) else {
            return Err(format!("job {} has a digest that nobody asked for", record.id));
        };
        hashing.see(0, &|see| see(&self.disks.read(source)));
        let right = sums_text(&hashing.sums());
        if record.unreadable.is_empty() && right != *digest {
            return Err(format!("the digest of job {} is {digest}, and should be {right}", record.id));
        }
        let differs = spec.digests.objection(&hashing.sums()).is_some();
        match record.state {
            State::Done if differs => Err(format!("job {} is done, and its sum is not the expected one", record.id)),
            State::Done | State::Degraded if spec.digests.expects() && !record.unreadable.is_empty() => {
                Err(format!("job {} has a sum of what cannot be read", record.id))
            }
            _ => Ok(()),
        }
    }

    /// What is shown as durable is.
    fn check_durable(&self, job: &Job) -> Checked {
        let id = job.id();
        let known = self.model.places.get(&id).filter(|_| !self.model.forced.contains(&id));
        let Some(places) = known else { return Ok(()) };
        for (index, (dest, span)) in job.progress.dests.iter().zip(places.written()).enumerate() {
            // What was dropped is another's by now, perhaps.
            if job.progress.dropped.contains(index) {
                continue;
            }
            for range in dest.durable.without(&job.progress.unreadable).iter() {
                self.check_equal(places, span, &range)
                    .map_err(|what| format!("job {id} shows as durable, of destination {index}: {what}"))?;
            }
            let picture = job.sheet(index).map(|sheet| sheet.cells(PICTURE)).ok_or("no picture of a destination")?;
            for (run, _) in picture.runs().iter().filter(|(_, cell)| *cell == Cell::Durable) {
                let bytes = picture.bytes(run);
                if !dest.durable.contains(&(bytes.start / 512..bytes.end / 512)) {
                    return Err(format!("job {id}: its picture of destination {index} has a + in {bytes:?} too many"));
                }
            }
        }
        Ok(())
    }

    /// A part of a destination has what the job puts there, for good.
    fn check_equal(&self, places: &Places, dest: &Span, range: &std::ops::Range<u64>) -> Checked {
        let part = |span: &Span| {
            let start = span.sectors.start;
            Span { disk: span.disk, sectors: start + range.start..start + range.end }
        };
        let there = part(dest);
        let is = self.disks.read(&there);
        let mut want = vec![0; is.len()];
        match (&places.source, places.seed) {
            (Some(source), _) => want = self.disks.read(&part(source)),
            (None, Some(seed)) => Pattern { seed, first: range.start }.fill(Sector::ZERO, &mut want),
            (None, None) => {}
        }
        if let Some(sector) = is.chunks(512).zip(want.chunks(512)).position(|(is, want)| is != want) {
            return Err(format!("sector {} of {there:?} does not have what it should", sector as u64));
        }
        match self.disks.sim.first_volatile(&self.disks.devices[there.disk], there.sectors.clone()) {
            Some(sector) => Err(format!("sector {sector} of disk {} would not survive a power cut", there.disk)),
            None => Ok(()),
        }
    }

    /// Numbers are told.
    pub(super) fn check_made(&mut self, ids: &[JobId]) -> Checked {
        self.say(|| format!("told: {ids:?}"));
        for id in ids {
            if !self.model.told.insert(*id) {
                return Err(format!("the number {id} was told before"));
            }
            if self.keeps && !self.journal.kept.contains_key(id) && !self.model.gone.contains(id) {
                return Err(format!("job {id} was told, and its record is not on disk"));
            }
        }
        Ok(())
    }

    /// A verb is answered: its record is on disk.
    pub(super) fn check_verb(&mut self, id: JobId, verb: Option<Verb>, asked: u64) -> Checked {
        self.say(|| format!("told: {verb:?} of job {id} is done"));
        if !self.keeps || self.model.gone.contains(&id) {
            return Ok(());
        }
        let Some((record, made)) = self.journal.kept.get(&id) else {
            return Err(format!("job {id}: {verb:?} was answered, and it has no record"));
        };
        let is_right = match verb {
            Some(Verb::Cancel) => record.state.is_ended(),
            _ => *made >= asked,
        };
        if is_right { Ok(()) } else { Err(format!("job {id}: {verb:?} was answered before its record was on disk")) }
    }

    /// A change is told.
    pub(super) fn check_change(&mut self, id: JobId, old: Option<State>, new: State) -> Checked {
        let last = self.model.last.insert(id, new);
        if last != old {
            return Err(format!("job {id}: told from {old:?} to {new:?}, and it was {last:?}"));
        }
        if let Some(old) = old {
            if !may_become(old, new) {
                return Err(format!("job {id}: {old:?} does not become {new:?}"));
            }
            self.model.coverage[place_of(old)][place_of(new)] += 1;
        }
        let record = self.journal.kept.get(&id).map(|(record, _)| record);
        if self.keeps && record.is_none() && !self.model.gone.contains(&id) {
            return Err(format!("job {id} is {new:?}, and has no record"));
        }
        if !new.is_ended() {
            return Ok(());
        }
        self.model.returning.remove(&id);
        if record.is_some_and(|record| record.state != new) {
            return Err(format!("job {id}: {new:?} is told, and its record does not say so"));
        }
        if self.daemon.closing.contains(&id) {
            return Err(format!("job {id}: {new:?} is told, and its devices are not closed"));
        }
        if new == State::Done && !self.model.forced.contains(&id) { self.check_done(id) } else { Ok(()) }
    }

    fn check_done(&self, id: JobId) -> Checked {
        let (Some(job), Some(places)) = (self.daemon.core.jobs.get(&id), self.model.places.get(&id)) else {
            return Ok(());
        };
        // One that lives again by now makes a new one.
        if job.state() == State::Done && !job.spec().digests.is_empty() && job.digest.is_none() {
            return Err(format!("job {id} is done, and has no digest"));
        }
        for (index, span) in places.dests.iter().enumerate() {
            let whole = 0..span.sectors.end - span.sectors.start;
            match self.check_equal(places, span, &whole) {
                Err(what) if job.writes() || !what.contains("power cut") => {
                    return Err(format!("job {id} is done; destination {index}: {what}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// After a crash: every record on disk is true, and none that was told is missing.
    pub(super) fn check_journal(&mut self) -> Checked {
        if !self.keeps {
            // Nothing is known any more.
            let (coverage, kept_pages) = (self.model.coverage, self.model.kept_pages);
            self.model = Model { kept_pages, coverage, ..Model::default() };
            return Ok(());
        }
        self.model.last.clear();
        self.model.figures.clear();
        let kept = self.journal.kept.values().map(|(record, _)| record);
        let claimed = kept.filter(|record| record.claimed).map(|record| record.id);
        self.model.returning = claimed.collect();
        for id in self.model.told.difference(&self.model.gone) {
            if !self.journal.kept.contains_key(id) {
                return Err(format!("job {id} was told, and a crash has lost it"));
            }
        }
        for (record, _) in self.journal.kept.values() {
            self.check_record(record)?;
            if record.state.is_ended() {
                self.model.last.insert(record.id, record.state);
            }
            let sides = record.source.iter().chain(&record.dests);
            if sides.into_iter().all(|side| side.bytes.is_empty()) {
                self.model.places.remove(&record.id);
            }
        }
        // Numbers that nobody was told may be given again.
        let disk = &self.journal.kept;
        let model = &mut self.model;
        model.places.retain(|id, _| disk.contains_key(id));
        model.forced.retain(|id| disk.contains_key(id));
        // A record that was to be removed may still be there.
        model.gone.retain(|id| !disk.contains_key(id));
        Ok(())
    }

    /// The daemon says that it is quiet and durable.
    pub(super) fn check_stopped(&self) -> Checked {
        self.daemon.core.jobs.values().try_for_each(|job| match job.life() {
            Life::Running | Life::Verifying => Self::check_rest(job),
            _ => Ok(()),
        })
    }

    /// Nothing of a job that does not run is in flight, and what it has is durable.
    fn check_rest(job: &Job) -> Checked {
        let id = job.id();
        if job.work.as_ref().is_some_and(|work| !work.is_quiet()) {
            return Err(format!("job {id} should be quiet, and has I/O in flight"));
        }
        let late = |index: &usize| {
            let dest = &job.progress.dests[*index];
            dest.needs_flush() && !dest.is_doubtful()
        };
        let answering = job.progress.present().without(late_dests(&job.late));
        match answering.iter().find(late).filter(|_| job.writes() && job.work.is_some()) {
            Some(index) => Err(format!("job {id} should be durable, and its destination {index} is not")),
            None => Ok(()),
        }
    }

    /// Nothing fails, and nobody has asked for anything for a while.
    pub(super) fn check_paused(&self) -> Checked {
        let mut jobs = self.daemon.core.jobs.values();
        jobs.try_for_each(|job| if job.state() == State::Paused { Self::check_rest(job) } else { Ok(()) })
    }

    /// All has ended.
    pub(super) fn check_end(&mut self, free: u32) -> Checked {
        let core = &self.daemon.core;
        if let Some(job) = core.jobs.values().find(|job| !job.state().is_ended()) {
            return Err(format!("job {} does not end: {:?}, {:?}", job.id(), job.life(), job.claim));
        }
        if let Some(id) = core.jobs.keys().find(|id| core.claims.has_claim(**id)) {
            return Err(format!("job {id} has ended with its claim"));
        }
        if core.due().is_some()
            || !self.later.is_empty()
            || self.daemon.engines.iter().any(|engine| engine.due.is_some())
        {
            return Err("all jobs have ended, and the daemon is not quiet".to_owned());
        }
        for disk in 0..DISKS {
            if self.disks.sim.orphans(&self.disks.devices[disk]) > 0 {
                return Err(format!("disk {disk} has late writes"));
            }
        }
        if self.pool.figures().free != free || self.model.kept_pages > 0 {
            return Err(format!("pages are missing: {:?}", self.pool.figures()));
        }
        for engine in &self.daemon.engines {
            engine.stepped.assert_clean();
        }
        Ok(())
    }

    /// In a wrong build a verb is answered when it comes.
    pub(super) fn answers_early(&mut self, id: JobId, verb: Verb) -> Checked {
        if self.is_wrong(Wrong::AnswerEarly) && self.state(id).is_some_and(|state| !state.is_ended()) {
            return self.check_verb(id, Some(verb), self.number + 1);
        }
        Ok(())
    }
}
