//! What others ask of the jobs. Figures come from published cards, without asking anybody; what changes a job is an event,
//! and whoever asks waits for the answer, for a bounded time.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::card::{Card, Cards};
use super::clients::{Clients, check_rate};
use super::closings::Closings;
use super::config::{ACTIVE_MAX, Config};
use super::core::{Core, Limits};
use super::counters::Counters;
use super::event::{Event, Reply};
use super::job::Job;
use super::names::Names;
use super::open::Opener;
use super::owner::{self, Hands, Inbox, Listener, Opening};
use super::recorder::Recorder;
use super::submit::{Made, NotMade, Ready};
use super::view::{
    BadRange, Brief, Cells, Change, DeviceView, EngineView, JobId, Rate, Refusal, State, Totals, Verb, View,
};
use super::workers::Workers;
use crate::blkdev::Devices;
use crate::error::{Error, ErrorKind, Result};
use crate::io::PAGE_SIZE;
use crate::journal::{EventFile, Record, Settings};
use crate::os::parallel;
use crate::spec::Spec;

/// How long a verb waits for its record, and `cancel` for the end.
const SOON: Duration = Duration::from_millis(500);
/// How long a start waits for the devices of jobs that had begun: one of them may hang.
const PATIENCE: Duration = Duration::from_secs(2);

/// All jobs of a daemon, and the engine that runs them.
pub struct Jobs {
    config: Config,
    inbox: Arc<Inbox>,
    cards: Arc<Cards>,
    names: Arc<Names>,
    counters: Arc<Counters>,
    pub(super) clients: Arc<Clients>,
    opening: Arc<Opening>,
    listeners: Arc<Mutex<Vec<Listener>>>,
    recorder: Arc<Recorder>,
    /// Of an earlier daemon, until they are taken in.
    records: Mutex<Vec<Record>>,
    /// Until somebody writes it.
    events: Mutex<Option<EventFile>>,
}

/// A job whose figures stay in sight, also when it has been dismissed.
pub struct Followed(Arc<Card>);

impl Followed {
    /// Its number.
    pub fn id(&self) -> JobId {
        self.0.id
    }

    /// Its figures.
    pub fn view(&self) -> View {
        self.0.view(Instant::now())
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.0.state().is_ended()
    }
}

impl Jobs {
    /// An engine. The jobs that its state directory holds go on by [`Jobs::restore`].
    ///
    /// # Errors
    /// Sizes out of their bounds, memory or a backend that is not to be had, a state directory in use by another daemon.
    pub fn new(config: Config) -> Result<Self> {
        let inbox = Inbox::new();
        let (recorder, found) = Recorder::open(config.state.as_deref(), &inbox)?;
        let clients = Arc::new(Clients::new(&config, &found.settings)?);
        let kept = found.settings.active.map(|chosen| chosen.or_option(config.active as u64));
        let active =
            kept.map_or(config.active, |most| usize::try_from(most).unwrap_or(ACTIVE_MAX).clamp(1, ACTIVE_MAX));
        let limits = Limits { active, keep: config.keep, max_jobs: config.max_jobs };
        let (cards, counters) = (Arc::<Cards>::default(), Arc::<Counters>::default());
        let keeps = config.state.is_some();
        let core = Core::new(limits, keeps, found.next_id, Arc::clone(&cards), Arc::clone(&counters));
        let names = Arc::clone(&core.names);
        let devices = Devices::default();
        let opening = Arc::new(Opening {
            clients: Arc::clone(&clients),
            devices,
            state: config.state.clone(),
            closings: Closings::default(),
        });
        let listeners = Arc::<Mutex<Vec<Listener>>>::default();
        let (theirs, heard) = (Arc::clone(&opening), Arc::clone(&listeners));
        let hands = Hands::new(Arc::clone(&inbox), Workers::default(), Arc::clone(&recorder), theirs, heard);
        owner::spawn(core, hands)?;
        let (records, events) = (Mutex::new(found.records), Mutex::new(found.events));
        Ok(Self { config, inbox, cards, names, counters, clients, opening, listeners, recorder, records, events })
    }

    /// Takes the jobs of an earlier daemon in, and lets those go on that were alive. Those who listen hear of it. To be
    /// called before anybody makes a job or looks for one: when it is back all are shown; for the devices of jobs that had
    /// begun it waits a moment.
    pub fn restore(&self) {
        let records = std::mem::take(&mut *self.records.lock());
        if records.is_empty() {
            return;
        }
        let jobs = parallel::map(records, |record| (record.id, Job::from_record(record, &self.names)));
        let ((shown, all_shown), (settled, all_settled)) = (Reply::new(), Reply::new());
        self.inbox.send(Event::Restore { jobs, shown, settled });
        let _ = all_shown.recv();
        // One that is late is waited for when its turn comes.
        let _ = all_settled.recv_timeout(PATIENCE);
    }

    /// Where what is told of jobs is kept, for the one who writes it; `None` where nothing is kept.
    pub(crate) fn take_event_file(&self) -> Option<EventFile> {
        self.events.lock().take()
    }

    pub(super) fn opener<T>(&self, act: impl FnOnce(&Opener<'_>) -> T) -> T {
        self.opening.with(&self.inbox, false, act)
    }

    /// The same for those who only look.
    pub(super) fn looker<T>(&self, act: impl FnOnce(&Opener<'_>) -> T) -> T {
        self.opening.with(&self.inbox, true, act)
    }

    /// Whether the owner would make those jobs; gives them back. Nothing of it is kept.
    ///
    /// # Errors
    /// Why it would not.
    pub(super) fn would_make(&self, ready: Vec<Ready>) -> std::result::Result<Vec<Ready>, Refusal> {
        self.ask(|reply| Event::Check { ready, reply })
    }

    /// Has the owner make jobs, and waits for that: as long as the state directory's disk likes.
    pub(super) fn make(&self, ready: Vec<Ready>) -> std::result::Result<Made, NotMade> {
        self.ask(|reply| Event::Submit { ready, reply })
    }

    /// Whether a spec with that name and `once` may be made now.
    pub(super) fn check_once(&self, name: String) -> Result<()> {
        self.ask(|reply| Event::CheckOnce { name, reply })
    }

    /// Does what a verb says. It is on disk when this returns, unless the state directory fails or takes its time.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` or `Busy` where the job's state does not allow it.
    pub fn control(&self, id: JobId, verb: Verb) -> Result<()> {
        self.ask_for(SOON, |reply| Event::Control { id, verb, reply })
    }

    /// Sets a job's limit of speed; it holds within a second.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for 0.
    pub fn set_job_speed_max(&self, id: JobId, rate: Option<u64>) -> Result<()> {
        check_rate(rate)?;
        self.ask_for(SOON, |reply| Event::SpeedMax { id, rate, reply })
    }

    /// How many jobs run at once.
    pub fn active(&self) -> usize {
        self.cards.most_active()
    }

    /// Sets it, from 1 to [`ACTIVE_MAX`]. Those that run go on, also where they are more.
    ///
    /// # Errors
    /// `Invalid` for anything else.
    pub fn set_active(&self, most: u64) -> Result<()> {
        let checked = usize::try_from(most).ok().filter(|most| (1..=ACTIVE_MAX).contains(most));
        let most = checked.ok_or_else(|| {
            let what = format!("active {most}: give 1 to {ACTIVE_MAX}; to hold jobs back, pause them");
            Error::new(ErrorKind::Invalid, what)
        })?;
        self.ask(|reply| Event::Active { most, reply });
        self.keep_settings()
    }

    /// Forgets an ended job.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while it lives.
    pub fn dismiss(&self, id: JobId) -> Result<()> {
        self.ask(|reply| Event::Dismiss { id, reply })
    }

    /// Ends all I/O within `limit`, whatever the devices do: no new I/O, then a checkpoint. Jobs that are not quiet by
    /// then are left to their devices; the process can exit.
    pub fn stop(&self, limit: Duration) {
        let (reply, answer) = Reply::new();
        self.inbox.send(Event::Stop { reply });
        if answer.recv_timeout(limit).is_err() {
            log::warn!("devices did not end their I/O in time; what they still do is theirs");
        }
    }

    /// Asks the owner, who never waits for anybody.
    fn ask<T>(&self, event: impl FnOnce(Reply<T>) -> Event) -> T {
        let (reply, answer) = Reply::new();
        self.inbox.send(event(reply));
        answer.recv().expect("the owner lives as long as the jobs")
    }

    /// The same where the answer may come late: then it is taken for a yes, since a no comes at once.
    fn ask_for(&self, limit: Duration, event: impl FnOnce(Reply<Result<()>>) -> Event) -> Result<()> {
        let (reply, answer) = Reply::new();
        self.inbox.send(event(reply));
        answer.recv_timeout(limit).unwrap_or(Ok(()))
    }

    /// What a job knows that its card does not show.
    fn question<T: Send + 'static>(
        &self,
        id: JobId,
        ask: impl FnOnce(&Job) -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let (answer, told) = std::sync::mpsc::channel();
        let question = move |job: Option<&Job>| _ = answer.send(job.and_then(ask));
        self.inbox.send(Event::Ask { id, question: Box::new(question) });
        told.recv().ok().flatten()
    }

    /// Whether the thread that owns all jobs answers; waits until it does.
    pub fn owner_answers(&self) -> bool {
        // No job has this number, and the answer is that.
        self.question(0, |_| Some(()));
        true
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Has settings on disk when this returns, where records are kept, unless the state directory takes its time.
    pub(super) fn keep(&self, settings: Settings) -> Result<()> {
        if self.config.state.is_none() {
            return Ok(());
        }
        let (reply, answer) = Reply::new();
        self.recorder.save_settings(settings, reply);
        answer.recv_timeout(SOON).unwrap_or(Ok(()))
    }

    fn card(&self, id: JobId) -> Option<Arc<Card>> {
        self.cards.get(id)
    }

    pub(super) fn cards(&self) -> Vec<Arc<Card>> {
        self.cards.all()
    }

    /// Keeps a job in sight.
    pub fn follow(&self, id: JobId) -> Option<Followed> {
        self.card(id).map(Followed)
    }

    /// A job's figures.
    pub fn view(&self, id: JobId) -> Option<View> {
        let mut view = self.card(id)?.view(Instant::now());
        if view.state == State::Queued && view.error.is_none() {
            view.error = self.cards.is_full();
        }
        Some(view)
    }

    /// The little of them that a listing shows.
    pub fn brief(&self, id: JobId) -> Option<Brief> {
        Some(self.card(id)?.brief())
    }

    /// The job in canonical form, as a line without its newline.
    pub fn spec_line(&self, id: JobId) -> Option<Vec<u8>> {
        Some(self.card(id)?.line())
    }

    /// What could not be read or written.
    pub fn bad_ranges(&self, id: JobId) -> Option<Vec<BadRange>> {
        self.question(id, |job| Some(job.progress.bad.clone()))
    }

    /// Destination `index` in at most so many cells.
    pub fn cells(&self, id: JobId, index: usize, most: usize) -> Option<Cells> {
        self.question(id, move |job| job.sheet(index)).map(|sheet| sheet.cells(most))
    }

    /// Its speed over all the time that it has run.
    pub fn rates(&self, id: JobId) -> Option<Vec<Rate>> {
        Some(self.card(id)?.rates(Instant::now()))
    }

    /// The job as it is now.
    pub fn spec(&self, id: JobId) -> Option<Arc<Spec>> {
        Some(self.card(id)?.spec())
    }

    /// How far a destination is, as a mapfile of ddrescue; `None` for jobs without a source.
    pub fn map(&self, id: JobId, index: usize) -> Option<String> {
        self.question(id, move |job| job.map(index)).map(|text| text())
    }

    /// The path of its source.
    pub fn source_path(&self, id: JobId) -> Option<OsString> {
        Some(self.card(id)?.spec().from.as_ref()?.path.clone())
    }

    /// The path of its destination `index`.
    pub fn dest_path(&self, id: JobId, index: usize) -> Option<OsString> {
        Some(self.card(id)?.spec().to.get(index)?.path.clone())
    }

    /// The devices of its regions, the source's first.
    pub fn devices(&self, id: JobId) -> Option<Vec<DeviceView>> {
        Some(self.card(id)?.device_views())
    }

    /// The numbers of all jobs, ascending.
    pub fn ids(&self) -> Vec<JobId> {
        self.cards.ids()
    }

    /// Lets a function know of every change of state. It must be quick and must not ask anything of the jobs.
    pub fn subscribe(&self, listener: Box<dyn Fn(&Change) + Send + Sync>) {
        self.listeners.lock().push(listener);
    }

    /// The jobs in a state, ascending.
    pub fn in_state(&self, state: State) -> Vec<JobId> {
        self.cards.all().iter().filter(|card| card.state() == state).map(|card| card.id).collect()
    }

    /// The newest job of each name, by name.
    pub fn names(&self) -> Vec<(String, JobId)> {
        self.cards.names()
    }

    /// The newest job of that name.
    pub fn named(&self, name: &str) -> Option<JobId> {
        self.cards.named(name)
    }

    /// Jobs of a client that have not ended.
    pub(super) fn live_of(&self, client: &str) -> usize {
        let cards = self.cards.all();
        cards.iter().filter(|card| card.is_of_client(client) && !card.state().is_ended()).count()
    }

    /// A job's limit in bytes per second; the inner `None`: no limit.
    pub fn job_speed_max(&self, id: JobId) -> Option<Option<u64>> {
        Some(self.card(id)?.speed_max.get())
    }

    /// What was done since the daemon began.
    pub fn totals(&self) -> Totals {
        self.counters.totals()
    }

    /// The engine's figures.
    pub fn engine(&self) -> EngineView {
        let pool = self.clients.pool.figures();
        let clients: Vec<_> = self.clients.all().iter().map(|client| client.figures()).collect();
        let default = self.clients.default();
        let cards = self.cards.all();
        let ended = cards.iter().filter(|card| card.state().is_ended()).count();
        let (direct, buffered) = cards
            .iter()
            .map(|card| card.devices())
            .fold((0, 0), |all, one| (all.0 + u64::from(one.0), all.1 + u64::from(one.1)));
        EngineView {
            backend: default.backend(),
            fallback: default.fallback().map(str::to_owned),
            page_size: PAGE_SIZE as u64,
            pages: u64::from(pool.pages),
            pages_free: u64::from(pool.free),
            pages_waiting: clients.iter().map(|client| client.pages_waiting).sum(),
            subjobs_in_flight: clients.iter().map(|client| client.subjobs_in_flight).sum(),
            subjob_bytes: u64::from(self.config.subjob_bytes),
            subjobs_max: self.config.subjobs,
            paces: self.clients.paces(),
            fixed_buffers: default.has_fixed_buffers(),
            huge_pages: pool.huge,
            locked: pool.locked,
            direct,
            buffered,
            jobs_live: (cards.len() - ended) as u64,
            jobs_ended: ended as u64,
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

impl Error {
    /// No job of that number.
    pub(super) fn no_job(id: JobId) -> Self {
        Self::new(ErrorKind::NotFound, format!("no job {id}"))
    }
}
