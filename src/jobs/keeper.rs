//! The thread that makes running jobs durable every few seconds. While nothing runs it sleeps without a timeout.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::run::Shared;
use super::view::State;
use crate::error::{Error, Result};

/// Between two checkpoints of a running job.
const PERIOD: Duration = Duration::from_secs(5);

pub(super) fn spawn(shared: &Arc<Shared>) -> Result<()> {
    let shared = Arc::downgrade(shared);
    std::thread::Builder::new()
        .name("keeper".into())
        .spawn(move || keep(&shared))
        .map(drop)
        .map_err(|error| Error::os("a thread for checkpoints", error))
}

fn keep(shared: &Weak<Shared>) {
    while let Some(shared) = Weak::upgrade(shared) {
        let mut stopping = shared.stopping.lock();
        while !*stopping && !shared.registry.lock().is_any_running() {
            shared.moved.wait(&mut stopping);
        }
        let due = Instant::now() + PERIOD;
        while !*stopping && !shared.moved.wait_until(&mut stopping, due).timed_out() {}
        if *stopping {
            return;
        }
        drop(stopping);
        checkpoint(&shared);
    }
}

/// Flushes what running jobs have written.
fn checkpoint(shared: &Arc<Shared>) {
    let jobs = shared.registry.lock().running();
    for job in jobs {
        let life = job.lock();
        if life.state == State::Running && life.flushes == 0 && life.progress.copied > life.progress.durable {
            shared.flush(&job, life, |_, _| {});
        }
    }
}
