//! Tells the service manager how the jobs stand, and that the daemon is alive, where it asked to be told.
//!
//! # Protocol
//! 1. The thread sends `STATUS=` when it starts. A change of state knocks; then it sends it again, at most once a second.
//! 2. Where there is a watchdog the thread asks the owner of the jobs something, twice in the watchdog's time, and sends `WATCHDOG=1`
//!    when that has answered. An owner that hangs is killed and started again.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use kcopyfs::cli::notify;
use kcopyfs::jobs::{Jobs, State};
use kcopyfs::{Error, Result};

/// Between two messages about jobs.
const PAUSE: Duration = Duration::from_secs(1);

/// The states that are told, and how.
const TOLD: [State; 6] = [State::Running, State::Flushing, State::Verifying, State::Queued, State::Paused, State::Held];

/// Starts the thread, if there is somebody to tell.
pub(crate) fn start(jobs: &Arc<Jobs>) -> Result<()> {
    if !notify::is_heard() {
        return Ok(());
    }
    let (knock, knocks) = sync_channel(1);
    // One knock that waits is as good as many.
    jobs.subscribe(Box::new(move |_| _ = knock.try_send(())));
    let jobs = Arc::clone(jobs);
    let watchdog = notify::watchdog();
    let run = move || {
        notify::notify(&format!("STATUS={}", status(&jobs)));
        loop {
            let knocked = match watchdog {
                Some(period) => knocks.recv_timeout(period),
                None => knocks.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match knocked {
                Ok(()) => {
                    notify::notify(&format!("STATUS={}", status(&jobs)));
                    std::thread::sleep(watchdog.map_or(PAUSE, |period| period.min(PAUSE)));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if watchdog.is_some() && jobs.owner_answers() {
                notify::notify("WATCHDOG=1");
            }
        }
    };
    let thread = std::thread::Builder::new().name("herald".into()).spawn(run);
    thread.map(drop).map_err(|error| Error::os("a thread for the service manager", error))
}

/// `2 running, 1 held`.
fn status(jobs: &Jobs) -> String {
    let counts = TOLD.map(|state| (jobs.in_state(state).len(), state.as_str()));
    let told: Vec<_> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, state)| format!("{count} {state}")).collect();
    if told.is_empty() { "no job under way".to_owned() } else { told.join(", ") }
}
