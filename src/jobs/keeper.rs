//! The thread that makes running jobs durable every few seconds, and tries again what waits for a device. While nothing
//! runs or waits it sleeps without a timeout.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::run::Shared;
use super::view::State;
use crate::error::{Error, Result};

/// Between two checkpoints of a running job.
const PERIOD: Duration = Duration::from_secs(5);
/// Between two looks at a device that is busy.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn spawn(shared: &Arc<Shared>) -> Result<()> {
    let shared = Arc::downgrade(shared);
    std::thread::Builder::new()
        .name("keeper".into())
        .spawn(move || keep(&shared))
        .map(drop)
        .map_err(|error| Error::os("a thread for checkpoints", error))
}

fn keep(shared: &Weak<Shared>) {
    let (mut due, mut look): (Option<Instant>, Option<Instant>) = (None, None);
    while let Some(shared) = Weak::upgrade(shared) {
        let mut stopping = shared.stopping.lock();
        let registry = shared.registry.lock();
        let (runs, blocked) = (registry.is_any_running(), registry.is_any_blocked());
        drop(registry);
        let now = Instant::now();
        due = runs.then(|| due.unwrap_or(now + PERIOD));
        look = blocked.then(|| look.unwrap_or(now + LOOK));
        let until = due.into_iter().chain(look).min();
        if *stopping {
            return;
        }
        let timed_out = until.is_some_and(|until| shared.moved.wait_until(&mut stopping, until).timed_out());
        if until.is_none() {
            shared.moved.wait(&mut stopping);
        }
        drop(stopping);
        if !timed_out {
            continue;
        }
        if due.is_some_and(|due| Instant::now() >= due) {
            due = None;
            checkpoint(&shared);
        }
        if look.is_some_and(|look| Instant::now() >= look) {
            look = None;
            shared.registry.lock().unblock();
            shared.run_next();
        }
    }
}

/// Makes durable what running jobs have written.
fn checkpoint(shared: &Arc<Shared>) {
    let jobs = shared.registry.lock().running();
    for job in jobs {
        let life = job.lock();
        let behind = life.progress.dests.iter().any(|dest| dest.taken != dest.durable);
        if life.state == State::Running && life.flushes == 0 && behind && life.opened.is_some() {
            shared.checkpoint(&job, life, |_, _| {});
        }
    }
}
