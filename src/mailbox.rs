//! A thread that owns its state, and the mailbox through which others ask it for work.
//!
//! # Protocol of a wake
//! 1. The sender puts the message in the box, under the lock.
//! 2. It wakes the thread's backend, outside the lock. A wake that comes before the wait ends that wait at once.
//! 3. The thread takes all messages each time it wakes. So none is left behind.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::io::Waker;

/// The way to a thread.
pub(crate) struct Mailbox<T>(Arc<Shared<T>>);

struct Shared<T> {
    messages: Mutex<VecDeque<T>>,
    waker: Mutex<Option<Waker>>,
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mailbox")
    }
}

impl<T> Mailbox<T> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared { messages: Mutex::new(VecDeque::new()), waker: Mutex::new(None) }))
    }

    /// Says how the thread is woken. What was sent before is found at its first look.
    pub(crate) fn attach(&self, waker: Waker) {
        *self.0.waker.lock() = Some(waker);
    }

    pub(crate) fn send(&self, message: T) {
        self.0.messages.lock().push_back(message);
        self.wake();
    }

    pub(crate) fn wake(&self) {
        let waker = self.0.waker.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether there is no message.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.messages.lock().is_empty()
    }

    /// Takes the oldest message.
    pub(crate) fn take(&self) -> Option<T> {
        self.0.messages.lock().pop_front()
    }
}
