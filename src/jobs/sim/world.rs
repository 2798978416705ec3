//! The world of one run: its clock, what is due when, and the daemon in it, which may end at any moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::super::card::{Card, Cards};
use super::super::core::{Core, Limits};
use super::super::effect::{Answer, Effect};
use super::super::event::{Event, Reply};
use super::super::job::Job;
use super::super::open::Opened;
use super::super::owner::Inbox;
use super::super::submit::{Made, NotMade};
use super::super::turn::Now;
use super::super::view::{Change, JobId, Verb};
use super::disks::{Bank, DISKS, Disks, NAMES};
use super::journal::{Found, Journal};
use super::model::Model;
use super::random::Random;
use super::wrong::Wrong;
use crate::dm_io::ErrorBits;
use crate::error::Result as Answered;
use crate::io::PagePool;
use crate::journal::double::Mistake;
use crate::kcopyd::{Client, JobHandle, Settings, Stepped};
use crate::spec::Spec;

/// What went wrong.
pub(super) type Checked = Result<(), String>;

/// What happens later.
pub(super) enum Later {
    Event(Event),
    /// Somebody writes that to a job's `control`.
    Verb(JobId, Verb),
    /// A worker has opened devices, or not.
    Open(Arc<Card>, u64, ErrorBits),
    /// A worker has closed them.
    Close {
        id: JobId,
        devices: Box<Opened>,
        answer: bool,
    },
    /// What the journal writes is written, or has failed.
    Journal,
    /// The journal tries again.
    JournalAgain,
    /// Late writes of a daemon that was killed arrive.
    Land(usize),
}

/// Who waits for an answer.
pub(super) enum Pending {
    Submit(mpsc::Receiver<Result<Made, NotMade>>),
    Verb { id: JobId, verb: Option<Verb>, asked: u64, answer: mpsc::Receiver<Answered<()>> },
    Restored(mpsc::Receiver<()>),
    Stopped(mpsc::Receiver<()>),
}

/// A client's worker.
pub(super) struct Engine {
    pub(super) stepped: Stepped,
    pub(super) due: Option<Duration>,
}

impl Engine {
    fn next(&self, now: Duration) -> Option<Duration> {
        if self.stepped.is_woken() { Some(now) } else { self.due }
    }
}

/// The name of the client that the second of them works for.
pub(super) const CLIENT: &str = "other";

pub(super) struct Daemon {
    pub(super) core: Core,
    pub(super) inbox: Arc<Inbox>,
    /// Events that came and that the owner has not seen.
    pub(super) queue: VecDeque<Event>,
    /// The owner's next turn.
    pub(super) due: Duration,
    pub(super) engines: [Engine; 2],
    pub(super) handles: BTreeMap<JobId, JobHandle>,
    /// Jobs of which the engine has a step.
    pub(super) steps: BTreeSet<JobId>,
    /// Jobs whose devices are being closed.
    pub(super) closing: BTreeSet<JobId>,
    pub(super) restored: bool,
    /// A change that a wrong build keeps back.
    pub(super) kept_back: Option<Change>,
}

pub(super) struct World<'a> {
    pub(super) random: Random,
    pub(super) disks: Disks<'a>,
    pub(super) pool: Arc<PagePool>,
    pub(super) now: Duration,
    began: Instant,
    /// Counts events.
    pub(super) number: u64,
    pub(super) daemon: Daemon,
    pub(super) journal: Journal,
    pub(super) later: BTreeMap<(Duration, u64), Later>,
    turns: u64,
    pub(super) pending: Vec<Pending>,
    pub(super) model: Model,
    pub(super) wrong: Option<Wrong>,
    /// The daemon ends after so many events and effects; whether the power goes, too.
    pub(super) end_in: Option<(u64, bool)>,
    pub(super) has_hung: bool,
    /// The names that people use.
    pub(super) names: Vec<usize>,
    limits: Limits,
    /// Whether there is a state directory.
    pub(super) keeps: bool,
    settings: Settings,
    pub(super) story: Option<Vec<String>>,
}

impl<'a> World<'a> {
    pub(super) fn new(seed: u64, bank: &'a Bank, pool: &Arc<PagePool>, wrong: Option<Wrong>, tells: bool) -> Self {
        let mut random = Random::new(seed);
        let disks = Disks::new(bank, &mut random, seed);
        let count = |number: u64| usize::try_from(number).expect("small");
        let limits = Limits { active: count(1 + random.below(4)), keep: count(2 + random.below(20)), max_jobs: 30 };
        let settings = Settings {
            subjob_bytes: 4096,
            subjobs: (!random.one_in(2)).then(|| count(1 + random.below(4))),
            ..Settings::default()
        };
        let most = random.pick(&[3, 4, NAMES.len() as u64]);
        let shift = random.below(NAMES.len() as u64);
        let names = (0..most).map(|name| count((name + shift) % NAMES.len() as u64)).collect();
        let keeps = !random.one_in(10);
        let daemon = Daemon::new(limits, keeps, 1, pool, &settings, &disks);
        let mut world = Self {
            random,
            disks,
            pool: Arc::clone(pool),
            now: Duration::ZERO,
            began: Instant::now(),
            number: 0,
            daemon,
            journal: Journal::new(wrong.map_or(Mistake::None, Wrong::mistake)),
            later: BTreeMap::new(),
            turns: 0,
            pending: Vec::new(),
            model: Model::default(),
            wrong,
            end_in: None,
            has_hung: false,
            names,
            limits,
            keeps,
            settings,
            story: tells.then(Vec::new),
        };
        world.daemon.restored = true;
        world
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(story) = &mut self.story {
            story.push(format!("{:>12.6}  {}", now.as_secs_f64(), line()));
        }
    }

    pub(super) fn clock(&self) -> Now {
        Now { instant: self.began + self.now, wall: UNIX_EPOCH + Duration::from_secs(1_000_000) + self.now }
    }

    /// Whether this build is wrong in that way, now.
    pub(super) fn is_wrong(&mut self, how: Wrong) -> bool {
        self.wrong == Some(how) && self.random.one_in(2)
    }

    pub(super) fn after(&mut self, wait: Duration, what: Later) {
        self.turns += 1;
        self.later.insert((self.now + wait, self.turns), what);
    }

    /// That happens when a worker has done its work.
    pub(super) fn after_work(&mut self, what: Later) {
        let wait = self.while_working();
        self.after(wait, what);
    }

    /// How long a worker takes.
    pub(super) fn while_working(&mut self) -> Duration {
        Duration::from_micros(self.random.pick(&[1, 30, 30, 200, 200, 3000, 700_000]))
    }

    /// Something came for the owner.
    pub(super) fn send(&mut self, event: Event) {
        if self.daemon.queue.is_empty() {
            self.daemon.due = self.now + Duration::from_micros(self.random.pick(&[0, 0, 5, 100, 10_000]));
        }
        self.daemon.queue.push_back(event);
    }

    /// When something happens next.
    fn next(&self) -> Option<Duration> {
        let daemon = &self.daemon;
        let owner = (!daemon.queue.is_empty()).then_some(daemon.due);
        let timer = daemon.core.due().map(|due| due - self.began);
        let engines = daemon.engines.iter().filter_map(|engine| engine.next(self.now));
        let later = self.later.first_key_value().map(|((time, _), _)| *time);
        owner.into_iter().chain(timer).chain(engines).chain(later).min().map(|next| next.max(self.now))
    }

    /// Lets the world go on until that time; whether anything is due after it.
    pub(super) fn run(&mut self, until: Duration) -> Result<bool, String> {
        loop {
            match self.next() {
                None => return Ok(false),
                Some(next) if next > until => {
                    self.now = until;
                    return Ok(true);
                }
                Some(next) => self.now = next,
            }
            let daemon = &self.daemon;
            let owner = !daemon.queue.is_empty() && daemon.due <= self.now;
            let timer = daemon.core.due().is_some_and(|due| due <= self.clock().instant);
            let is_due = |engine: &Engine| engine.next(self.now).is_some_and(|due| due <= self.now);
            if let Some(engine) = daemon.engines.iter().position(is_due) {
                self.engine_turn(engine)?;
            } else if let Some(entry) = self.later.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let what = entry.remove();
                self.happen(what)?;
            } else if owner || timer {
                self.owner_turn()?;
            }
        }
    }

    fn engine_turn(&mut self, engine: usize) -> Checked {
        let engine = &mut self.daemon.engines[engine];
        engine.due = engine.stepped.turn(self.now).next;
        for event in self.daemon.inbox.drain() {
            if let Event::StepEnded { id, .. } = &event {
                self.daemon.steps.remove(id);
            }
            self.send(event);
        }
        self.check_writes()?;
        self.count_down(None).map(drop)
    }

    fn owner_turn(&mut self) -> Checked {
        let events = std::mem::take(&mut self.daemon.queue);
        let mut effects: Vec<(u64, Effect)> = Vec::new();
        for event in events {
            self.deliver(event, &mut effects)?;
            if self.count_down(None)? {
                return Ok(());
            }
        }
        if self.daemon.core.due().is_some_and(|due| due <= self.clock().instant) {
            self.deliver(Event::Tick, &mut effects)?;
        }
        for (asked, effect) in effects {
            self.carry_out(asked, effect)?;
            if self.count_down(None)? {
                return Ok(());
            }
        }
        self.check_turn()
    }

    fn deliver(&mut self, event: Event, effects: &mut Vec<(u64, Effect)>) -> Checked {
        self.number += 1;
        let Some(mut event) = self.spoil_event(event) else { return Ok(()) };
        self.say(|| format!("event  {}", super::story::event(&event)));
        self.model_before(&mut event);
        let now = self.clock();
        // Whoever had asked just before would have been told the same.
        let told = match &event {
            Event::Submit { ready, .. } => {
                Some(self.daemon.core.would_make(ready).err().map(|refusal| refusal.error.kind()))
            }
            _ => None,
        };
        self.daemon.core.on(event, now);
        let number = self.number;
        let new = self.daemon.core.effects();
        let refused = new.iter().find_map(|effect| match effect {
            Effect::Answer(Answer::Submit(_, Err(not_made))) => Some(not_made.refusal.error.kind()),
            _ => None,
        });
        if let Some(told) = told.filter(|told| *told != refused) {
            return Err(format!("specs would be refused with {told:?}, and were with {refused:?}"));
        }
        effects.extend(new.into_iter().map(|effect| (number, effect)));
        self.check_event()
    }

    /// The daemon ends when it is time, or at once for a power cut or a kill. Whether it did.
    pub(super) fn count_down(&mut self, at_once: Option<bool>) -> Result<bool, String> {
        let power = match (&mut self.end_in, at_once) {
            (_, Some(power)) => power,
            (Some((0, power)), None) => *power,
            (Some((left, _)), None) => {
                *left -= 1;
                return Ok(false);
            }
            (None, None) => return Ok(false),
        };
        self.end_in = None;
        self.end_daemon(power)?;
        Ok(true)
    }

    /// Ends the daemon as it stands, and starts the next.
    fn end_daemon(&mut self, power: bool) -> Checked {
        self.say(|| if power { "POWER CUT".to_owned() } else { "kill -9".to_owned() });
        self.later.clear();
        self.pending.clear();
        let Found { mut records, next } = self.journal.crash(power, &mut self.random)?;
        let next = if self.keeps { next } else { 1 };
        let next = if self.is_wrong(Wrong::NumberAgain) { 1 } else { next };
        let fresh = Daemon::new(self.limits, self.keeps, next, &self.pool, &self.settings, &self.disks);
        std::mem::replace(&mut self.daemon, fresh).kill();
        if power {
            let before = self.disks.content();
            self.disks.power_cut();
            self.model_changed(&before);
            self.model_restarted();
            self.has_hung = false;
        }
        for disk in 0..DISKS {
            if self.disks.sim.orphans(&self.disks.devices[disk]) > 0 {
                let wait = Duration::from_micros(self.random.pick(&[1, 1000, 100_000, 3_000_000]));
                self.after(wait, Later::Land(disk));
            }
        }
        self.check_writes()?;
        self.check_journal()?;
        for record in &mut records {
            match self.wrong {
                Some(Wrong::ClaimForgotten) => record.claimed = false,
                Some(Wrong::SeedForgotten) => record.seed = record.seed.map(|seed| seed + 1),
                Some(Wrong::OverwrittenForgotten) => record.dests.iter_mut().for_each(|dest| dest.overwritten.clear()),
                Some(Wrong::IdentityForgotten) => {
                    for side in record.dests.iter_mut().chain(&mut record.source) {
                        side.identity.clear();
                        side.bytes.clear();
                    }
                }
                _ => {}
            }
        }
        let ((shown, _), (settled, answer)) = (Reply::new(), Reply::new());
        self.pending.push(Pending::Restored(answer));
        let jobs =
            records.into_iter().map(|record| (record.id, Job::from_record(record, &self.daemon.core.names))).collect();
        self.send(Event::Restore { jobs, shown, settled });
        Ok(())
    }
}

impl Daemon {
    fn new(
        limits: Limits,
        keeps: bool,
        next: JobId,
        pool: &Arc<PagePool>,
        settings: &Settings,
        disks: &Disks<'_>,
    ) -> Self {
        let cards = Arc::<Cards>::default();
        Self {
            core: Core::new(limits, keeps, next, cards, Arc::default()),
            inbox: Inbox::new(),
            queue: VecDeque::new(),
            due: Duration::ZERO,
            engines: std::array::from_fn(|_| {
                let stepped = Stepped::new(pool, 4, settings.clone(), &disks.sim).expect("pages for a client");
                Engine { stepped, due: None }
            }),
            handles: BTreeMap::new(),
            steps: BTreeSet::new(),
            closing: BTreeSet::new(),
            restored: false,
            kept_back: None,
        }
    }

    /// The client of a job.
    pub(super) fn client(&self, spec: &Spec) -> &Arc<Client> {
        &self.engines[usize::from(spec.client.is_some())].stepped.client
    }

    fn kill(self) {
        let Self { core, queue, engines, handles, .. } = self;
        drop((queue, handles));
        for engine in engines {
            engine.stepped.kill();
        }
        drop(core);
    }
}

impl World<'_> {
    /// It is over: the engine's pages are free for the next run.
    pub(super) fn leave(self) {
        let Self { daemon, later, pending, .. } = self;
        drop((later, pending));
        daemon.kill();
    }
}
