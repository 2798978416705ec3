//! A job: its spec, and under one lock everything that changes.

use std::time::{Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};

use super::clients::DEFAULT;
use super::meter::{Meter, Stopwatch};
use super::news::News;
use super::open::Opened;
use super::progress::Progress;
use super::view::{Brief, Change, DestView, JobId, State, View};
use crate::kcopyd::{JobHandle, SpeedLimit};
use crate::spec::Spec;

/// A job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    /// In canonical form: every count is said.
    pub(super) spec: Spec,
    /// Its own limit of speed.
    pub(super) speed_max: SpeedLimit,
    life: Mutex<Life>,
}

/// What changes in a job's life.
///
/// # Invariants
/// `opened` is there until the job has ended, and goes before the change to an ended state is posted. `handle` is there
/// once the job was given to the engine.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) state: State,
    pub(super) progress: Progress,
    pub(super) opened: Option<Opened>,
    pub(super) handle: Option<JobHandle>,
    pub(super) ending: Ending,
    /// Nothing of it is in flight.
    pub(super) quiet: bool,
    /// Flushes under way.
    pub(super) flushes: u32,
    pub(super) meter: Meter,
    pub(super) watch: Stopwatch,
    /// Speed at the end.
    final_speed: u64,
    pub(super) progressed: SystemTime,
}

/// Whether the end has begun, from which no verb brings the job back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// No.
    No,
    /// It was cancelled and waits for the I/O in flight.
    Cancelled,
    /// Its devices are being closed.
    Closing,
}

impl Job {
    pub(super) fn new(id: JobId, spec: Spec, opened: Opened) -> Self {
        let progress = Progress::new(&spec, opened.count());
        let life = Life {
            state: State::Queued,
            progress,
            opened: Some(opened),
            handle: None,
            ending: Ending::No,
            quiet: true,
            flushes: 0,
            meter: Meter::default(),
            watch: Stopwatch::default(),
            final_speed: 0,
            progressed: SystemTime::now(),
        };
        let speed_max = SpeedLimit::new(spec.speed_max);
        Self { id, spec, speed_max, life: Mutex::new(life) }
    }

    pub(super) fn client_name(&self) -> &str {
        self.spec.client.as_deref().unwrap_or(DEFAULT)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Life> {
        self.life.lock()
    }

    /// Changes the state and posts it; the caller delivers when it has let go of the lock.
    pub(super) fn change(&self, life: &mut Life, new: State, reason: Option<String>, news: &News) {
        let old = std::mem::replace(&mut life.state, new);
        let now = Instant::now();
        match new {
            State::Running => {
                life.watch.start(now);
                life.meter.start(now, life.progress.copied);
            }
            State::Flushing | State::Verifying => {}
            _ => life.watch.stop(now),
        }
        news.post(Change { time: SystemTime::now(), id: self.id, old: Some(old), new, reason });
    }

    pub(super) fn brief(&self) -> Brief {
        let life = self.lock();
        Brief {
            state: life.state,
            copied: life.progress.copied,
            progressed: life.progressed,
            dests: self.spec.to.len(),
            has_source: self.spec.from.is_some(),
        }
    }

    pub(super) fn view(&self) -> View {
        let life = self.lock();
        let now = Instant::now();
        let progress = &life.progress;
        let speed = life.speed(now);
        let left = progress.total.saturating_sub(progress.copied);
        let eta = (life.state == State::Running && life.ending == Ending::No && speed > 0)
            .then(|| std::time::Duration::from_micros(left.saturating_mul(1_000_000) / speed));
        let dests = self.spec.to.iter().enumerate().map(|(index, to)| {
            let dest = &progress.dests[index];
            DestView {
                state: progress.dest_state(index, life.state.is_ended()),
                copied: dest.copied,
                durable: dest.durable,
                errors: dest.errors,
                first_error: dest.first_error,
                path: to.path.clone(),
            }
        });
        View {
            id: self.id,
            state: life.state,
            read_err: progress.read_err,
            write_err: progress.write_err.bits(),
            total: progress.total,
            copied: progress.copied,
            durable: progress.durable,
            speed,
            eta,
            elapsed: life.watch.elapsed(now),
            stalled: life.handle.as_ref().map_or(std::time::Duration::ZERO, JobHandle::stalled),
            bad_bytes: progress.bad_bytes,
            client: self.client_name().to_owned(),
            name: self.spec.name.clone(),
            digest: None,
            error: life.why(),
            source: self.spec.from.as_ref().map(|from| from.path.clone()),
            dests: dests.collect(),
            progressed: life.progressed,
        }
    }
}

impl Life {
    /// Bytes per second: of the last five seconds while it runs, of the last of them when it has ended.
    fn speed(&self, now: Instant) -> u64 {
        match self.state {
            State::Running => self.meter.speed(now, self.progress.copied),
            State::Flushing | State::Verifying => self.final_speed,
            state if state.is_ended() => self.final_speed,
            _ => 0,
        }
    }

    /// The last piece has ended.
    pub(super) fn keep_speed(&mut self) {
        self.final_speed = self.meter.speed(Instant::now(), self.progress.copied);
    }

    fn why(&self) -> Option<String> {
        match self.ending {
            Ending::Cancelled => Some("cancelled; waits for the I/O in flight".to_owned()),
            Ending::No | Ending::Closing => self.progress.error.clone(),
        }
    }
}
