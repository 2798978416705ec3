//! One look at the whole system for all who want one at the same time: it costs some system calls a block device, and thousands of
//! jobs may open their devices one after the other.
//!
//! # Protocol
//! 1. Whoever asks wants a look that begins after he has asked.
//! 2. If none is under way he looks himself, and all who asked before he began have what he saw.
//! 3. Else he waits for the end of the one under way, and goes back to 2.
//! 4. One that takes long may hang with a device: nobody waits longer for it than [`PATIENCE`], then he looks by himself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::holders::Holders;
use crate::error::Result;

/// How long the look of another is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// The looks of a daemon.
#[derive(Debug, Default)]
pub(super) struct SharedLook {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Looks that have begun.
    begun: u64,
    is_under_way: bool,
    /// The last that has ended, with its number.
    last: Option<(u64, Arc<Holders>)>,
}

impl SharedLook {
    /// What is in use, seen by a look that begins from here on.
    pub(super) fn holders(&self, read: impl Fn() -> Result<Holders>) -> Result<Arc<Holders>> {
        let mut state = self.state.lock();
        let (wanted, until) = (state.begun + 1, Instant::now() + PATIENCE);
        loop {
            if let Some((_, holders)) = state.last.as_ref().filter(|(number, _)| *number >= wanted) {
                return Ok(Arc::clone(holders));
            }
            if !state.is_under_way {
                break;
            }
            if self.ended.wait_until(&mut state, until).timed_out() {
                drop(state);
                return read().map(Arc::new);
            }
        }
        state.begun += 1;
        state.is_under_way = true;
        let number = state.begun;
        drop(state);
        let seen = read().map(Arc::new);
        let mut state = self.state.lock();
        state.is_under_way = false;
        state.last = seen.as_ref().ok().map(|holders| (number, Arc::clone(holders)));
        drop(state);
        self.ended.notify_all();
        seen
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn many_at_once_share_looks_that_began_after_they_asked() {
        let (look, looks, barrier) = (SharedLook::default(), AtomicU64::new(0), Barrier::new(32));
        thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    barrier.wait();
                    let before = looks.load(Ordering::SeqCst);
                    look.holders(|| {
                        looks.fetch_add(1, Ordering::SeqCst);
                        thread::sleep(Duration::from_millis(50));
                        Holders::read()
                    })
                    .unwrap();
                    assert!(looks.load(Ordering::SeqCst) > before, "a look that was over is not new");
                });
            }
        });
        assert!(looks.load(Ordering::SeqCst) < 32, "{looks:?} looks");
    }

    #[test]
    fn one_that_hangs_or_fails_holds_up_nobody() {
        let look = SharedLook::default();
        let (hangs, barrier) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                let hung = look.holders(|| {
                    barrier.wait();
                    hangs.wait();
                    Holders::read()
                });
                hung.unwrap();
            });
            barrier.wait();
            look.holders(Holders::read).unwrap();
            hangs.wait();
        });
        let gone = || Err(crate::error::Error::new(crate::error::ErrorKind::Busy, "no /proc"));
        assert!(look.holders(gone).is_err());
        look.holders(Holders::read).unwrap();
    }
}
