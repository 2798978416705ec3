//! A limit on everything that asks the tree. A daemon that does not answer would hold the test for ever, since a reader
//! of a FUSE file cannot be killed; so when an operation takes too long, the daemon is killed and its mount aborted,
//! which fails the operation.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{mounts, process::Pidfd};

#[derive(Debug, Default)]
struct Watched {
    /// What goes on: until when it may, and what it is.
    running: BTreeMap<u64, (Instant, String)>,
    last: u64,
    over: bool,
}

type Shared = Arc<(Mutex<Watched>, Condvar)>;

/// Watches one run of a daemon; dropping it ends the watch.
#[derive(Debug)]
pub(super) struct Watchdog(Shared);

impl Watchdog {
    /// Watches over `daemon` and its mount.
    pub(super) fn start(daemon: Arc<Pidfd>, mount: PathBuf) -> Self {
        let shared = Shared::default();
        let watch = Arc::clone(&shared);
        thread::spawn(move || {
            let mut watched = watch.0.lock();
            while !watched.over {
                let Some((until, what)) = watched.running.values().min_by_key(|(until, _)| *until).cloned() else {
                    watch.1.wait(&mut watched);
                    continue;
                };
                if Instant::now() >= until {
                    eprintln!("{what}: no answer; killing the daemon");
                    daemon.signal(libc::SIGKILL);
                    // aborts the connection even if threads of the daemon are stuck; fails where the mount is gone
                    let _ = mounts::unmount_now(&mount);
                    return;
                }
                watch.1.wait_until(&mut watched, until);
            }
        });
        Self(shared)
    }

    /// Does `work`, which is `what`, within `limit`.
    pub(super) fn within<T>(&self, limit: Duration, what: &str, work: impl FnOnce() -> T) -> T {
        let mut watched = self.0.0.lock();
        watched.last += 1;
        let _guard = Running { shared: &self.0, id: watched.last };
        let id = watched.last;
        watched.running.insert(id, (Instant::now() + limit, what.to_owned()));
        drop(watched);
        self.0.1.notify_all();
        work()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.0.lock().over = true;
        self.0.1.notify_all();
    }
}

/// Takes the operation off the list, also when it panics.
struct Running<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.shared.0.lock().running.remove(&self.id);
    }
}
