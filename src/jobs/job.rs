//! One job: what it knows of itself, and the one place where its state changes.
//!
//! # Invariants
//! * `devices` are open while the job works, and are closed before anybody is told that it has ended.
//! * `work` is there from the first step to the end.
//! * Only [`Job::change`] changes `life`, and it asserts that the table of changes allows it.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::card::{Card, ShownDest};
use super::effect::Effect;
use super::event::Reply;
use super::names::Names;
use super::open::{Opened, Zoned};
use super::state::{Life, PausedBy, Wait, may_become};
use super::turn::Turn;
use super::view::{Change, JobId, State};
use super::waiting::{Found, Kept, LetGo};
use super::work::Work;
use crate::blkdev::DeviceCard;
use crate::claims::Lasting;
use crate::dm_io::ErrorBits;
use crate::error::Result;
use crate::figures::{BadKind, Hashing, Map, Meter, Progress, RangeSet, Sheet};
use crate::salvage::{Phase, remedy};
use crate::sector::Sector;
use crate::spec::{Action, Spec};

/// A job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) card: Arc<Card>,
    /// As its card shows it.
    pub(super) spec: Arc<Spec>,
    life: Life,
    pub(super) phase: Phase,
    pub(super) progress: Progress,
    pub(super) work: Option<Box<Work>>,
    pub(super) devices: Devices,
    /// What is left of its devices while it waits without them.
    pub(super) kept: Option<Box<Kept>>,
    pub(super) claim: Claim,
    /// A record that is on disk, or on its way there, says that it has its claim.
    pub(super) claim_is_told: bool,
    /// Of the source, where there is one, and of the destinations: what each was recognised by. Empty: not looked at.
    pub(super) identities: Vec<Option<Arc<str>>>,
    /// Its bytes by names that last; `None` until its devices were looked at.
    pub(super) lasting: Option<Arc<Lasting>>,
    /// Its devices are known to be those that it began with. Not so after a restart, and for a job that lives again.
    pub(super) recognised: bool,
    /// It comes from a record in which it had its claim, and does not have it back yet.
    pub(super) returning: bool,
    /// Destinations that were dropped, and whose bytes are its own until that is on disk.
    pub(super) unreleased: ErrorBits,
    pub(super) follows: Follows,
    /// What others have written over since, by destination: it is copied again.
    pub(super) overwritten: Option<Box<[RangeSet]>>,
    pub(super) digest: Option<String>,
    /// Of a test: what its pattern is made from.
    pub(super) seed: u64,
    pub(super) recording: Recording,
    /// Destinations that were left behind and owe an answer, and since when.
    pub(super) late: Vec<(usize, Instant)>,
    /// Counts the runs of the job, so that a late answer of an earlier one is known as one.
    pub(super) run: u32,
    /// Among the ended jobs, the how-manieth.
    pub(super) ended: u64,
}

/// A job's devices.
#[derive(Debug)]
pub(super) enum Devices {
    Closed,
    /// A worker opens them; the number of the attempt.
    Opening(u64),
    Open(Box<Opened>),
    /// A worker closes them; the job ends when they are closed.
    Closing,
}

/// How far a job is to having its bytes for itself. Each step comes after the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It has none.
    None,
    /// No other job of this daemon may disturb it. A record says so from now on.
    Claimed,
    /// A worker locks its destination files; the number of the attempt.
    Locking(u64),
    /// No other program that asks may disturb it.
    Locked,
    /// Its record is being written: a restart must know that it came before those that still wait.
    Recording,
    /// It may write.
    Ready,
}

/// Whether a job starts after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// After none, or that one is done.
    Nobody,
    /// After that one.
    Job(JobId),
    /// That one ended otherwise; why the job cannot start.
    Lost(JobId, String),
}

impl Follows {
    /// After that one, where there is one.
    pub(super) fn after(leader: Option<JobId>) -> Self {
        leader.map_or(Self::Nobody, Self::Job)
    }

    /// The one after which it is to start, or was to.
    pub(super) fn leader(&self) -> Option<JobId> {
        match self {
            Self::Nobody => None,
            Self::Job(leader) | Self::Lost(leader, _) => Some(*leader),
        }
    }
}

/// What of a job is on its way to disk.
#[derive(Debug, Default)]
pub(super) struct Recording {
    /// Records of it that are being written; with none, the one on disk says all there is to say.
    pub(super) in_flight: u32,
    /// There is more to say than they do.
    pub(super) again: bool,
    /// There is more to say, and no hurry.
    pub(super) owes: bool,
    /// Who is to be told, and when.
    pub(super) waiting: Vec<(Until, Reply<Result<()>>)>,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// That what is being written is on disk.
    Recorded,
    /// The same of the record after it.
    RecordedAgain,
    /// The job's end.
    Ended,
}

impl Recording {
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// Who waits no longer.
    pub(super) fn take(&mut self, until: Until) -> Vec<Reply<Result<()>>> {
        self.waiting.extract_if(.., |(what, _)| *what == until).map(|(_, reply)| reply).collect()
    }
}

impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "job {}", self.id())?;
        self.spec().name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

impl Job {
    /// A job of `count` sectors that has done nothing yet, and follows nobody.
    pub(super) fn new(id: JobId, mut spec: Spec, created: SystemTime, count: Sector, life: Life) -> Self {
        // It is kept for long.
        spec.to.shrink_to_fit();
        let spec = Arc::new(spec);
        let progress = Progress::new(&spec, count);
        let phase = Phase::first_of(&spec);
        let card = Card::new(id, &spec, created, progress.total_bytes(), life.state());
        Self {
            card: Arc::new(card),
            spec,
            life,
            phase,
            progress,
            work: None,
            devices: Devices::Closed,
            kept: None,
            claim: Claim::None,
            claim_is_told: false,
            identities: Vec::new(),
            lasting: None,
            recognised: true,
            returning: false,
            unreleased: ErrorBits::NONE,
            follows: Follows::Nobody,
            overwritten: None,
            digest: None,
            seed: 0,
            recording: Recording::default(),
            late: Vec::new(),
            run: 0,
            ended: 0,
        }
    }

    pub(super) fn id(&self) -> JobId {
        self.card.id
    }

    pub(super) fn spec(&self) -> &Spec {
        &self.spec
    }

    /// It does what it does after errors in another way from now on. Nothing of it is under way.
    pub(super) fn set_spec(&mut self, spec: Spec) {
        self.spec = Arc::new(spec);
        self.card.show(|shown| shown.spec = Arc::clone(&self.spec));
    }

    pub(super) fn life(&self) -> &Life {
        &self.life
    }

    pub(super) fn state(&self) -> State {
        self.life.state()
    }

    pub(super) fn has_claim(&self) -> bool {
        self.claim != Claim::None
    }

    /// Whether it writes to its destinations.
    pub(super) fn writes(&self) -> bool {
        self.spec().action != Action::Verify
    }

    pub(super) fn opened(&self) -> Option<&Opened> {
        match &self.devices {
            Devices::Open(opened) => Some(opened),
            Devices::Closed | Devices::Opening(_) | Devices::Closing => None,
        }
    }

    /// Its work, which begins now where there is none yet.
    pub(super) fn work(&mut self) -> &mut Work {
        if self.work.is_none() {
            let geometry = self.opened().map(Opened::geometry).unwrap_or_default();
            let hashes = self.phase == Phase::first_of(self.spec()) && self.digest.is_none();
            let hashing = Hashing::new(&self.spec().digests).filter(|_| hashes);
            self.work = Some(Work::new(self.spec(), geometry, hashing));
            self.leave_far_ones_behind();
        }
        self.work.as_mut().expect("it was made just now")
    }

    /// Bytes that it has done of what it does now.
    pub(super) fn done(&self) -> u64 {
        let reads_back = self.phase == Phase::Verify && self.writes();
        if reads_back { self.progress.verified } else { self.progress.moved }
    }

    /// Changes where it is in its life. A change that others see is told.
    ///
    /// # Panics
    /// If the table has no such change.
    pub(super) fn change(&mut self, life: Life, reason: Option<String>, turn: &mut Turn<'_>) {
        let (old, new) = (self.state(), life.state());
        self.life = life;
        if old == new {
            return;
        }
        assert!(may_become(old, new), "job {}: {} does not become {}", self.id(), old.as_str(), new.as_str());
        let (now, done) = (turn.now.instant, self.done());
        let moves = self.card.moves_in(new) || new == State::Verifying;
        self.card.show(|shown| {
            match new {
                _ if moves => {
                    shown.watch.start(now);
                    shown.meter.get_or_insert_with(Box::<Meter>::default).start(now, done);
                }
                State::Flushing => shown.watch.start(now),
                _ => shown.watch.stop(now),
            }
            if new.is_ended() {
                (shown.meter, shown.handle) = (None, None);
                shown.speeds.shrink();
            }
        });
        self.log_change(old, new, reason.as_deref());
        let change =
            Change { time: turn.now.wall, id: self.id(), name: self.spec().name.clone(), old: Some(old), new, reason };
        turn.push(Effect::Post(change));
    }

    /// The log tells of a job when it starts, ends, or is held.
    fn log_change(&self, old: State, new: State, reason: Option<&str>) {
        let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
        match new {
            State::Running | State::Verifying if old == State::Queued => {
                log::info!("{self} starts: {}", String::from_utf8_lossy(&self.card.line()).trim_end());
            }
            State::Done => log::info!("{self} is done"),
            State::Degraded | State::Failed | State::Cancelled | State::Held => {
                log::warn!("{self} is {}{reason}", new.as_str());
            }
            _ => {}
        }
    }

    /// The log tells of destinations that are given up.
    pub(super) fn log_drops(&self, dests: ErrorBits) {
        for index in dests.iter() {
            let path = self.spec().to[index].path.display();
            match self.progress.dests[index].first_error() {
                Some((errno, sector)) => {
                    let errno = crate::error::errno_name(errno);
                    log::warn!("{self}: destination {index}, {path}, is given up: {errno} at sector {sector}");
                }
                None => log::warn!("{self}: destination {index}, {path}, is given up"),
            }
        }
    }

    /// Publishes what it knows.
    pub(super) fn publish(&self, turn_trouble: Option<&str>) {
        let progress = &self.progress;
        let ended = self.life.state().is_ended();
        let error = self.why(turn_trouble);
        let flushing = self.work.as_ref().and_then(|work| work.flushing_since());
        let devices = self.opened().map_or((0, 0), Opened::direct_and_not);
        self.card.show(|shown| {
            shown.state = self.life.state();
            shown.read_err = progress.read_err;
            shown.write_err = progress.write_err;
            shown.total = progress.total_bytes();
            shown.copied = progress.copied();
            shown.moved = progress.moved;
            shown.durable = progress.durable;
            shown.bad_bytes = progress.bad_bytes();
            shown.course.phase = self.activity();
            shown.course.verified = progress.verified;
            shown.course.read_errors = progress.read_errors;
            shown.course.suspect_bytes = progress.suspect_bytes;
            shown.course.same = progress.same_bytes();
            if shown.error != error {
                shown.error = error;
            }
            if shown.digest != self.digest {
                shown.digest.clone_from(&self.digest);
            }
            for (index, (shown, dest)) in shown.dests.iter_mut().zip(&progress.dests).enumerate() {
                *shown = ShownDest {
                    state: progress.dest_state(index, ended),
                    copied: dest.taken.bytes(),
                    durable: dest.durable.bytes(),
                    errors: dest.errors(),
                    first_error: dest.first_error(),
                    unanswered: self.unanswered(index),
                };
            }
            shown.flushing = flushing;
            shown.is_quiet = self.work.as_ref().is_none_or(|work| work.is_quiet());
            shown.devices = devices;
            shown.is_over = self.life.is_over();
        });
    }

    /// What it does now, in a word.
    fn activity(&self) -> Option<&'static str> {
        match self.life.state() {
            State::Flushing => Some("flush"),
            State::Running | State::Verifying => self.work.as_ref().map(|work| work.salvage.activity().as_str()),
            _ => None,
        }
    }

    /// Why it waits, where that is told with its birth.
    pub(super) fn why_not(&self) -> Option<String> {
        if matches!(self.life, Life::Ended(_)) { None } else { self.why(None) }
    }

    /// A job from a record waits for what it waited for.
    pub(super) fn sort_in(&mut self) {
        if matches!(self.life, Life::Queued(_)) {
            self.life = Life::Queued(self.wait());
        }
    }

    /// Why it failed, is held, or waits.
    fn why(&self, trouble: Option<&str>) -> Option<String> {
        let waits_for_record = !self.recording.is_idle();
        match &self.life {
            Life::Cancelling(_) => Some("cancelled; waits for the I/O in flight".to_owned()),
            Life::Held(why) | Life::Paused(PausedBy::Daemon(why)) => Some(why.clone()),
            Life::Ended(end) => self.why_ended(*end),
            _ if waits_for_record && trouble.is_some() => trouble.map(waits_for_directory),
            Life::Queued(Wait::Job(after)) => Some(format!("waits for job {after}")),
            Life::Queued(Wait::Device(why)) | Life::Starting(Some(why)) => Some(format!("waits: {why}")),
            _ => self.why_it_waits().or_else(|| self.progress.error.clone()),
        }
    }

    /// Why it has ended so, with the remedy where there is one.
    pub(super) fn why_ended(&self, end: State) -> Option<String> {
        let error = self.progress.error.as_ref()?;
        let remedy = Some(end).filter(|end| *end == State::Failed).and_then(|_| remedy(self.spec(), &self.progress));
        Some(remedy.map_or_else(|| error.clone(), |remedy| format!("{error}; {remedy}")))
    }

    /// The map of a destination; jobs that write zeros have none. Ready to be made by somebody else.
    pub(super) fn map(&self, index: usize) -> Option<impl FnOnce() -> String + Send + use<>> {
        let spec = Arc::clone(&self.spec);
        let total = self.progress.total;
        let durable = self.progress.dests.get(index)?.durable.clone();
        let tests = spec.action == Action::Test;
        let unreadable = if tests {
            self.progress.bad_of(index, &spec.to[index], |_| true)
        } else {
            self.progress.unreadable.clone()
        };
        spec.from.as_ref().or(Some(&spec.to[index]).filter(|_| tests))?;
        Some(move || {
            let to = &spec.to[index];
            // The positions of a test are those of the destination.
            let from = spec.from.as_ref().unwrap_or(to);
            let compares = tests || spec.action == Action::Verify;
            Map { from, to, total, durable: &durable, unreadable: &unreadable, compares }.text()
        })
    }

    /// What is known of a destination, for pictures. Ready to be looked at by somebody else.
    pub(super) fn sheet(&self, index: usize) -> Option<Sheet> {
        let (progress, region) = (&self.progress, self.spec().to.get(index)?);
        let dest = progress.dests.get(index)?;
        let listed = |kind| {
            let ranges = progress.bad.iter().filter(move |range| range.dest == Some(index) && range.kind == kind);
            ranges.filter_map(|range| {
                let start = range.sector.get().checked_sub(region.sector.get())?;
                Some(start..start + range.count.get())
            })
        };
        let failed = listed(BadKind::Failed).chain(dest.lost().iter()).collect();
        let work = self.work.as_deref().filter(|_| self.state().moves());
        let place = work.and_then(|work| work.salvage.place(&work.step.as_ref()?.step, index, dest));
        Some(Sheet {
            total: progress.total,
            taken: dest.taken.clone(),
            durable: dest.durable.clone(),
            unreadable: progress.unreadable.clone(),
            suspect: work.map_or_else(RangeSet::new, |work| work.salvage.suspect()),
            failed,
            differs: listed(BadKind::Differs).collect(),
            at_work: place.map(|sector| sector..sector + 1).into_iter().collect(),
        })
    }

    /// Keeps the speed that it has now: the last piece has ended.
    pub(super) fn keep_speed(&self, turn: &Turn<'_>) {
        self.card.show(|shown| shown.final_speed = shown.measured(turn.now.instant));
    }

    /// Whether a destination is left, and nothing has ended the job.
    pub(super) fn goes_on(&self) -> bool {
        let fatal = self.work.as_ref().is_some_and(|work| work.salvage.is_fatal());
        !self.life.is_over() && !fatal && self.progress.is_wanted()
    }

    /// Another job has written there, or it was cut off: it counts for nothing when this one goes on.
    pub(super) fn overwrite(&mut self, dests: impl Iterator<Item = usize>, range: &std::ops::Range<u64>) {
        let count = self.spec().to.len();
        let sets = self.overwritten.get_or_insert_with(|| vec![RangeSet::new(); count].into_boxed_slice());
        for index in dests {
            sets[index].insert(range.clone());
        }
    }

    /// Forgets what others have written over, in whole blocks of its devices. It has its claim, so nobody writes there now.
    pub(super) fn forget_overwritten(&mut self) {
        let Some(sets) = self.overwritten.take() else { return };
        let block = self.opened().map_or(1, |opened| opened.geometry().coarsest());
        let total = self.progress.total;
        for (index, range) in
            sets.iter().enumerate().flat_map(|(index, set)| set.iter().map(move |range| (index, range)))
        {
            let outward = range.start / block * block..(range.end.div_ceil(block) * block).min(total);
            log::info!("job {}: destination {index} is copied again where it has changed since", self.id());
            self.progress.forget(index, &outward);
        }
    }

    /// Destinations whose flush is waited for: those that take part, at the end of a phase those that keep up; where none is left, all
    /// of them, so that a retry knows what they have.
    pub(super) fn awaited(&self, is_end_of_phase: bool) -> ErrorBits {
        if !self.writes() {
            return ErrorBits::NONE;
        }
        if self.progress.live().is_empty() {
            return ErrorBits::first(self.spec().to.len()).without(self.progress.dropped);
        }
        self.awaited_of_live(is_end_of_phase)
    }

    /// Shows what people call its devices.
    pub(super) fn show_cards(&self, cards: &[Arc<DeviceCard>]) {
        self.card.show(|shown| shown.cards = cards.into());
    }

    /// Files to lock before it writes to them.
    pub(super) fn files_to_lock(&self) -> Vec<crate::dm_io::IoRegion> {
        match self.opened() {
            Some(opened) if self.writes() && self.claim == Claim::Claimed => opened.files_to_lock(),
            _ => Vec::new(),
        }
    }

    /// Destinations that a worker looks at before it writes to them.
    pub(super) fn to_prepare(&self) -> Vec<crate::dm_io::IoRegion> {
        self.opened().filter(|_| self.writes()).map_or(Vec::new(), Opened::to_prepare)
    }

    /// A zoned destination was asked what it holds: what lies behind a write pointer is not there, whatever was known.
    pub(super) fn learn_zones(&mut self, zoned: Zoned) {
        let Zoned { dest, zone, unwritten } = zoned;
        self.progress.dests[dest].zone = Some(zone);
        for range in &unwritten {
            self.progress.never_written(dest, range);
        }
    }

    /// Names that other jobs have too are kept once.
    pub(super) fn share_names(&mut self, names: &Names) {
        if let Some(lasting) = self.lasting.as_mut().and_then(Arc::get_mut) {
            lasting.extents_mut().for_each(|extent| names.share(&mut extent.medium));
        }
        self.identities.iter_mut().flatten().for_each(|identity| names.share(identity));
    }

    /// It is new; its files are locked, and its record says that it has its claim.
    pub(super) fn locked_and_recorded(&mut self) {
        self.claim_is_told = self.has_claim();
    }

    /// Its devices, of a job that is refused.
    pub(super) fn into_devices(self) -> Option<Found> {
        match (self.devices, self.kept) {
            (Devices::Open(opened), _) => Some(Found::Open(opened)),
            (_, Some(kept)) => {
                let (identities, lasting) = (Vec::new(), None);
                Some(Found::LetGo(Box::new(LetGo { kept: *kept, identities, lasting, cards: Vec::new() })))
            }
            _ => None,
        }
    }

    /// It has ended: what it worked with goes.
    pub(super) fn put_away(&mut self) {
        self.work = None;
        self.claim = Claim::None;
        (self.claim_is_told, self.returning) = (false, false);
        self.progress.shrink();
    }
}

/// Why a job does not go on while its record cannot be written.
pub(super) fn waits_for_directory(why: &str) -> String {
    format!("waits for the state directory: {why}")
}
