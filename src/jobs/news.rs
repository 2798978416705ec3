//! Who is told of changes of state.
//!
//! # Protocol
//! 1. Who changes a state posts the change while it holds the job's lock: so changes lie in the order of their happening.
//! 2. It lets go of the lock and delivers. One thread delivers at a time; what another posted meanwhile goes along.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::view::Change;

/// A function that is told of changes. It must be quick and must not change a job.
pub(super) type Listener = Box<dyn Fn(&Change) + Send + Sync>;

/// Changes on their way to whoever listens.
#[derive(Default)]
pub(super) struct News {
    posted: Mutex<VecDeque<Change>>,
    listeners: Mutex<Vec<Listener>>,
}

impl News {
    pub(super) fn listen(&self, listener: Listener) {
        self.listeners.lock().push(listener);
    }

    pub(super) fn post(&self, change: Change) {
        self.posted.lock().push_back(change);
    }

    pub(super) fn deliver(&self) {
        let listeners = self.listeners.lock();
        loop {
            let Some(change) = self.posted.lock().pop_front() else { return };
            for listener in &*listeners {
                listener(&change);
            }
        }
    }
}
