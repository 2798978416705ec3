//! A client whose worker has no thread: whoever owns it gives it its turns, and the time. For simulations.
//!
//! The backend is a [stepped](Sim::stepped) simulation, which orders and times the ends of transfers by its seed. So a run of many
//! clients, their callers and their disks is one thread, and the same seed gives the same run.
//!
//! # How it is driven
//! 1. Ask the client for work ([`Client::submit`](super::Client::submit) and the others): that only sends messages.
//! 2. Call [`Stepped::turn`] with the time. Callbacks and observers are called inside.
//! 3. Call it again at the time that [`Turn::next`] says, and whenever [`Stepped::is_woken`]: it was asked for something, or pages came
//!    free. If no client is woken or has anything due and one still has work, its devices hang, it is paused, or it is stuck.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::worker::Worker;
use super::{Client, Settings};
use crate::error::Result;
use crate::io::{BackendKind, PagePool, Sim, Waker};

/// A client and the worker that does its jobs.
pub(crate) struct Stepped {
    /// What callers use. It may be shared with whoever gives it work.
    pub(crate) client: Arc<Client>,
    worker: Worker,
    sim: Sim,
    woken: Arc<AtomicBool>,
}

/// What a turn leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// It has jobs, messages, or I/O in flight.
    pub(crate) has_work: bool,
    /// When it wants its next turn, if nobody asks it for anything before.
    pub(crate) next: Option<Duration>,
}

impl Stepped {
    /// As [`Client::create`], over a stepped simulation. `settings.backend` is not looked at.
    pub(crate) fn new(pool: &Arc<PagePool>, pages: u32, settings: Settings, sim: &Sim) -> Result<Self> {
        let settings = Settings { backend: BackendKind::Sim(sim.clone()), ..settings };
        let woken = Arc::new(AtomicBool::new(true));
        let flag = Arc::clone(&woken);
        let waker = Waker::new(move || flag.store(true, Ordering::Relaxed));
        let (client, worker) = Client::stepped(pool, pages, settings, waker)?;
        Ok(Self { client: Arc::new(client), worker, sim: sim.clone(), woken })
    }

    /// Whether a thread in its place would have been woken since the last turn.
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::Relaxed)
    }

    /// Does once all there is to do at that time: messages, I/O that has ended, pages, writes, callbacks.
    pub(crate) fn turn(&mut self, now: Duration) -> Turn {
        self.woken.store(false, Ordering::Relaxed);
        self.sim.advance(now);
        self.worker.step()
    }

    /// Ends it as kill -9 does, at any moment: no callback comes any more, and its writes in flight are [orphans](Sim::orphans) of the
    /// simulation, which arrive when [`Sim::land_orphans`] is called, or in part at a [`Sim::power_cut`].
    pub(crate) fn kill(self) {
        let Self { client, worker, .. } = self;
        worker.abandon();
        drop(client);
    }

    /// Asserts, for a client without work, that every page and every list entry is back.
    pub(crate) fn assert_clean(&self) {
        self.worker.assert_clean();
    }
}
