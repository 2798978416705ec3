//! A mounted tree's life: the threads that serve it, and its end from inside or outside.
//!
//! Two threads: `fuse` reads requests, `ticker` answers readers that wait. Both sleep without a timeout while nothing is
//! asked. The order of the end stands in the room's documentation.

use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Config, INodeNo, Session, SessionACL};
use parking_lot::{Condvar, Mutex};

use super::fuse::Glue;
use super::mount::Mount;
use super::tree::{Tree, TreeConfig};
use crate::error::{Error, Result};
use crate::jobs::Jobs;

/// How long the end waits for the FUSE thread, which an open file keeps alive.
const END_MAX: Duration = Duration::from_millis(500);

/// The part of an inode that is forgotten: no bytes of it, which no cache keeps, but size and times.
const ATTRIBUTES: i64 = -1;

/// A tree that is mounted and answers.
pub struct Serving {
    tree: Arc<Tree>,
    /// Detached when this is dropped.
    mount: Mount,
    session: Arc<SessionEnd>,
}

/// Tells that the FUSE thread has ended, and why nobody need be told.
#[derive(Default)]
struct SessionEnd {
    state: Mutex<EndState>,
    changed: Condvar,
}

#[derive(Default)]
struct EndState {
    ended: bool,
    /// It was asked for.
    stopping: bool,
    on_end: Option<Box<dyn FnOnce() + Send>>,
}

impl Tree {
    /// Serves a control tree over `jobs` at `mount`. When this returns, the tree answers.
    ///
    /// # Errors
    /// What the handshake with the kernel, or making a thread, says.
    pub fn serve(mut mount: Mount, jobs: Arc<Jobs>, config: TreeConfig) -> Result<Serving> {
        let tree = Arc::new(Self::new(jobs, config));
        // The kernel keeps others out unless they were let in; fuser asks again, and must be told the same.
        let acl = if config.allow_other { SessionACL::All } else { SessionACL::Owner };
        let session = match mount.take_device() {
            Some(device) => Session::from_fd(Glue::new(Arc::clone(&tree)), device, acl, Config::default()),
            None => Err(io::Error::from_raw_os_error(libc::EBADF)),
        };
        let session = session.map_err(|error| Error::os(format!("serve {}", mount.point().display()), error))?;

        if let Some(file) = tree.jobs.take_event_file() {
            tree.events.keep(file)?;
        }
        let (weak, kernel) = (Arc::downgrade(&tree), session.notifier());
        tree.jobs.subscribe(Box::new(move |change| {
            let Some(tree) = weak.upgrade() else { return };
            // Who waits for the change and then looks must not see what the kernel remembers from before.
            if let Some(key) = Tree::remembered(change) {
                // What the kernel does not know it need not forget.
                _ = kernel.inval_inode(INodeNo(key.ino()), ATTRIBUTES, 0);
            }
            tree.changed(change);
        }));
        tree.jobs.restore();
        let serving = Serving { tree, mount, session: Arc::default() };
        serving.start(session).map_err(|error| Error::os("start the threads of the tree", error))?;
        Ok(serving)
    }
}

impl Serving {
    fn start(&self, session: Session<Glue>) -> io::Result<()> {
        let tree = Arc::clone(&self.tree);
        thread::Builder::new().name("ticker".to_owned()).spawn(move || tree.waiting.run())?;
        let (end, tree) = (Arc::clone(&self.session), Arc::downgrade(&self.tree));
        thread::Builder::new().name("fuse".to_owned()).spawn(move || {
            if let Err(error) = session.run() {
                log::error!("FUSE: {error}");
            }
            // Nobody can reach the tree any more.
            _ = Weak::upgrade(&tree).map(|tree| tree.close());
            end.tell();
        })?;
        Ok(())
    }

    /// Has `f` called once when the mount goes away from outside (umount(8)); at once where that has happened already.
    /// Not called for [`Serving::stop`].
    pub fn on_end(&self, f: Box<dyn FnOnce() + Send>) {
        let mut state = self.session.state.lock();
        if state.ended && !state.stopping {
            drop(state);
            f();
        } else {
            state.on_end = Some(f);
        }
    }

    /// Ends the tree: writes are refused, readers that wait are answered, the mount is detached. Returns within a bounded
    /// time, whatever is open.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let mut state = self.session.state.lock();
        state.stopping = true;
        let gone = state.ended;
        drop(state);
        self.tree.close();
        self.tree.events.end();
        if gone {
            self.mount.forget();
        } else {
            self.mount.detach();
        }
        if !self.session.wait(END_MAX) {
            log::info!("{}: still open somewhere; its last reader ends it", self.mount.point().display());
        }
    }
}

impl SessionEnd {
    fn tell(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        self.changed.notify_all();
        let on_end = state.on_end.take().filter(|_| !state.stopping);
        drop(state);
        if let Some(on_end) = on_end {
            on_end();
        }
    }

    fn wait(&self, most: Duration) -> bool {
        let until = Instant::now() + most;
        let mut state = self.state.lock();
        while !state.ended && !self.changed.wait_until(&mut state, until).timed_out() {}
        state.ended
    }
}
