//! The thread that owns all jobs, and what it carries out.
//!
//! # Protocol of a turn
//! 1. It takes all events that came.
//! 2. The [`Core`] decides.
//! 3. What changed is published.
//! 4. The effects are carried out in their order: none of them waits for anybody, see [`Hands`].
//! 5. It sleeps until an event comes or a timer is due.
//!
//! A piece that ended well is no hurry: events of that kind wait up to [`LAG`] for company. With nothing to do the thread
//! sleeps without a timeout.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::card::client_name;
use super::clients::Clients;
use super::closings::Closings;
use super::core::Core;
use super::effect::{Effect, Start};
use super::event::{EndedPiece, Event, Reply};
use super::open::{Opener, lock_files, look_at_zones, look_for_holes, open, stretch_files, with_paths};
use super::recorder::Recorder;
use super::turn::Now;
use super::view::{Change, JobId};
use super::workers::Workers;
use crate::blkdev::{Device, Devices, Extent};
use crate::error::{Error, Result};
use crate::figures::Hashing;
use crate::kcopyd::{Bytes, JobHandle, Lag, Observer, Piece, Request, View};
use crate::sector::Sector;

/// How long the end of a piece may wait before the owner looks at it.
const LAG: Duration = Duration::from_millis(10);

/// Where events come in.
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    came: Condvar,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    /// The owner looks at them at once.
    urgent: bool,
    /// It looks at them then.
    due: Option<Instant>,
    closed: bool,
}

impl Inbox {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { queue: Mutex::default(), came: Condvar::new() })
    }

    pub(super) fn send(&self, event: Event) {
        let mut queue = self.queue.lock();
        queue.events.push_back(event);
        if !std::mem::replace(&mut queue.urgent, true) {
            self.came.notify_one();
        }
    }

    /// The same for what is no hurry.
    pub(super) fn send_later(&self, event: Event) {
        let mut queue = self.queue.lock();
        queue.events.push_back(event);
        if !queue.urgent && queue.due.is_none() {
            queue.due = Some(Instant::now() + LAG);
            self.came.notify_one();
        }
    }

    /// Ends the owner.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.came.notify_one();
    }

    /// All events that came.
    #[cfg(test)]
    pub(super) fn drain(&self) -> VecDeque<Event> {
        let mut queue = self.queue.lock();
        (queue.urgent, queue.due) = (false, None);
        std::mem::take(&mut queue.events)
    }

    /// All events, as soon as they are to be looked at or `timer` is due; `None` at the end.
    fn take(&self, timer: Option<Instant>) -> Option<VecDeque<Event>> {
        let mut queue = self.queue.lock();
        loop {
            if queue.closed {
                return None;
            }
            let due = timer.into_iter().chain(queue.due).min();
            if queue.urgent || due.is_some_and(|due| due <= Instant::now()) {
                (queue.urgent, queue.due) = (false, None);
                return Some(std::mem::take(&mut queue.events));
            }
            match due {
                Some(due) => _ = self.came.wait_until(&mut queue, due),
                None => self.came.wait(&mut queue),
            }
        }
    }
}

/// A function that is told of changes. It must be quick and must not ask anything of the owner.
pub(super) type Listener = Box<dyn Fn(&Change) + Send + Sync>;

/// What the owner needs to carry effects out.
pub(super) struct Hands {
    pub(super) inbox: Arc<Inbox>,
    pub(super) workers: Workers,
    pub(super) recorder: Arc<Recorder>,
    pub(super) opening: Arc<Opening>,
    pub(super) listeners: Arc<Mutex<Vec<Listener>>>,
    handles: HashMap<JobId, JobHandle>,
}

/// What opening devices takes.
pub(super) struct Opening {
    pub(super) clients: Arc<Clients>,
    pub(super) devices: Devices,
    pub(super) state: Option<PathBuf>,
    pub(super) closings: Closings,
}

impl Opening {
    /// Opens with it, or only looks. Who writes some bytes the owner says.
    pub(super) fn with<T>(&self, inbox: &Inbox, looks: bool, act: impl FnOnce(&Opener<'_>) -> T) -> T {
        let who_writes = |extents: Vec<Extent>| {
            let (reply, answer) = Reply::new();
            inbox.send(Event::WhoWrites { extents, reply });
            answer.recv().ok().flatten()
        };
        let opener = Opener::new(&self.clients, &self.devices, &who_writes, self.state.as_deref(), &self.closings);
        act(&if looks { opener.looking() } else { opener })
    }
}

/// Starts the owner.
pub(super) fn spawn(core: Core, hands: Hands) -> Result<()> {
    let owner = std::thread::Builder::new().name("owner".into()).spawn(move || run(core, hands));
    owner.map(drop).map_err(|error| Error::os("a thread for the jobs", error))
}

fn run(mut core: Core, mut hands: Hands) {
    while let Some(events) = hands.inbox.take(core.due()) {
        let now = Now::read();
        for event in events {
            core.on(event, now);
        }
        if core.due().is_some_and(|due| due <= now.instant) {
            core.on(Event::Tick, now);
        }
        for effect in core.effects() {
            hands.carry_out(effect);
        }
    }
    hands.recorder.close();
    // Jobs that have I/O in flight keep their devices until it has ended.
}

impl Hands {
    pub(super) fn new(
        inbox: Arc<Inbox>,
        workers: Workers,
        recorder: Arc<Recorder>,
        opening: Arc<Opening>,
        listeners: Arc<Mutex<Vec<Listener>>>,
    ) -> Self {
        Self { inbox, workers, recorder, opening, listeners, handles: HashMap::new() }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Open { card, attempt, without, paths } => {
                let (inbox, opening) = (Arc::clone(&self.inbox), Arc::clone(&self.opening));
                self.workers.run(move || {
                    let other = paths.map(|paths| with_paths((*card.spec()).clone(), &paths));
                    let spec = || other.as_ref().map_or_else(|| card.spec(), |other| Arc::new(other.clone()));
                    let result = opening.with(&inbox, false, |with| open(&spec(), without, with)).map(Box::new);
                    inbox.send(Event::Opened { id: card.id, attempt, result });
                });
            }
            Effect::Lock { id, attempt, dests, sparse } => {
                let (inbox, closings) = (Arc::clone(&self.inbox), self.opening.closings.clone());
                self.workers.run(move || {
                    let locked = lock_files(&dests, &closings).map_err(|(_, error)| error);
                    let stretched = locked.and_then(|()| stretch_files(&dests, sparse));
                    let result = stretched.and_then(|()| look_at_zones(&dests));
                    drop(dests);
                    inbox.send(Event::Locked { id, attempt, result });
                });
            }
            Effect::LockBatch { batch, jobs } => {
                let (inbox, closings) = (Arc::clone(&self.inbox), self.opening.closings.clone());
                self.workers.run(move || {
                    let mut locked = jobs.iter().enumerate().map(|(index, dests)| {
                        lock_files(dests, &closings).map_err(|(dest, error)| (index, dest, error))
                    });
                    let result = locked.find(std::result::Result::is_err).unwrap_or(Ok(()));
                    inbox.send(Event::BatchLocked { batch, result });
                });
            }
            Effect::Close { id, devices, answer } => {
                self.handles.remove(&id);
                let inbox = Arc::clone(&self.inbox);
                let closing = self.opening.closings.begin();
                self.workers.run(move || {
                    drop(devices);
                    drop(closing);
                    if answer {
                        inbox.send(Event::Closed { id });
                    }
                });
            }
            Effect::Record(record) => self.recorder.save(record),
            Effect::RecordBatch { batch, records } => self.recorder.save_batch(batch, records),
            Effect::Forget(id) => self.recorder.forget(id),
            Effect::Start(start) => self.start(*start),
            Effect::HashZeros { id, mut hashing, range } => {
                let inbox = Arc::clone(&self.inbox);
                self.workers.run(move || {
                    hashing.see_zeros(&range);
                    inbox.send(Event::StepEnded { id, hashing: Some(hashing), gone: Vec::new() });
                });
            }
            Effect::FindHoles { id, source, range } => {
                let inbox = Arc::clone(&self.inbox);
                self.workers.run(move || {
                    let (known, holes) = look_for_holes(&source, range);
                    drop(source);
                    inbox.send(Event::HolesFound { id, known, holes });
                });
            }
            Effect::Pause(id) => self.tell(id, JobHandle::pause),
            Effect::Resume(id) => self.tell(id, JobHandle::resume),
            Effect::Cancel(id) => self.tell(id, JobHandle::cancel),
            Effect::GiveUp(id, dests) => self.tell(id, |handle| handle.give_up(dests)),
            Effect::LeaveBehind(id, dests) => self.tell(id, |handle| handle.leave_behind(dests)),
            Effect::Wake(id) => self.tell(id, JobHandle::wake),
            Effect::Flush { id, run, dest, client, device } => {
                let inbox = Arc::clone(&self.inbox);
                client.flush(device, move |result| inbox.send(Event::Flushed { id, run, dest, result }));
            }
            // At the start, when nobody waits for the owner.
            Effect::EnsureClient(card) => self.opening.clients.ensure(client_name(&card.spec())),
            Effect::Post(change) => self.listeners.lock().iter().for_each(|listener| listener(&change)),
            Effect::Answer(answer) => answer.send(),
        }
    }

    fn tell(&self, id: JobId, what: impl FnOnce(&JobHandle)) {
        if let Some(handle) = self.handles.get(&id) {
            what(handle);
        }
    }

    fn start(&mut self, start: Start) {
        let id = start.card.id;
        if let Some(handle) = start_step(&self.inbox, start) {
            self.handles.insert(id, handle);
        }
    }
}

/// Has the engine start a step. What becomes of it comes into the inbox, also that it was refused.
pub(super) fn start_step(inbox: &Arc<Inbox>, start: Start) -> Option<JobHandle> {
    let Start { card, client, request, hashing, first, files } = start;
    let id = card.id;
    let hashing = Arc::new(Mutex::new(hashing));
    let watcher = Watcher { id, inbox: Arc::clone(inbox), hashing: Arc::clone(&hashing), first, files };
    let (to, files) = (Arc::clone(inbox), watcher.files.clone());
    let answers = Arc::clone(inbox);
    let answered = move |dest| answers.send(Event::Answered { id, dest });
    let request = Request { observer: Some(Box::new(watcher)), answered: Some(Box::new(answered)), ..request };
    let submitted = client.submit(request, (), move |_, ()| {
        to.send(Event::StepEnded { id, hashing: hashing.lock().take(), gone: gone(&files, |_| true) });
    });
    match submitted {
        Ok(handle) => {
            card.show(|shown| shown.handle = Some(handle.clone()));
            Some(handle)
        }
        Err(error) => {
            inbox.send(Event::StepRefused { id, error });
            None
        }
    }
}

/// Those of some files that were taken away, and why.
fn gone(files: &[(usize, Arc<Device>)], which: impl Fn(usize) -> bool) -> Vec<(usize, i32)> {
    let asked = files.iter().filter(|(index, _)| which(*index));
    asked.filter_map(|(index, file)| Some((*index, file.loss()?))).collect()
}

/// Hands on what the engine tells, and makes the digest.
struct Watcher {
    id: JobId,
    inbox: Arc<Inbox>,
    /// With the engine while the step runs.
    hashing: Arc<Mutex<Option<Box<Hashing>>>>,
    /// Sectors of the job before the step.
    first: u64,
    files: Vec<(usize, Arc<Device>)>,
}

impl Observer for Watcher {
    fn piece(&mut self, piece: &Piece<'_>) {
        let gone = gone(&self.files, |index| piece.written.contains(index));
        let piece = EndedPiece::new(piece, gone);
        let is_clean = piece.is_clean();
        let event = Event::Piece { id: self.id, piece };
        if is_clean {
            self.inbox.send_later(event);
        } else {
            self.inbox.send(event);
        }
    }

    fn data(&mut self, offset: Sector, bytes: &Bytes<'_>) {
        if let Some(hashing) = &mut *self.hashing.lock() {
            hashing.see(self.first + offset.get(), bytes);
        }
    }

    fn view(&mut self) -> Option<View> {
        // A step that is to learn whether something can be read hashes nothing.
        let hashes = self.hashing.lock().is_some();
        let (hashing, first) = (Arc::clone(&self.hashing), self.first);
        hashes.then(|| -> View {
            Box::new(move |offset, bytes| {
                if let Some(hashing) = &mut *hashing.lock() {
                    hashing.see(first + offset.get(), bytes);
                }
            })
        })
    }

    fn fell_behind(&mut self, dest: usize, why: Lag, owes: bool) {
        self.inbox.send(Event::Behind { id: self.id, dest, why, owes });
    }

    fn quiesced(&mut self) {
        self.inbox.send(Event::Quiet { id: self.id });
    }
}
