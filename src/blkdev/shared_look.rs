//! One look at the whole system for all who want one: it costs some system calls a block device, and thousands of jobs may open
//! their devices one after the other.
//!
//! # Protocol
//! 1. Whoever asks wants to know what is in use from then on. If nothing has changed since the last look began, by all that the
//!    kernel tells ([`Moment`]), that one says it, for a second at most: a loop device whose offset is set after it was attached
//!    tells nobody.
//! 2. Else he wants a look that begins after he has asked. If none is under way he looks himself, and all who asked before he began
//!    have what he saw.
//! 3. Else he waits for the end of the one under way, and goes back to 2.
//! 4. One that takes long may hang with a device: nobody waits longer for it than [`PATIENCE`], then he looks by himself.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::holders::Holders;
use super::settled::{self, FRESH};
use crate::error::Result;
use crate::os::mounts::Mounts;

/// How long the look of another is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// What changes whenever something begins or ends to be in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// As [`settled::events`] has it.
    events: u64,
    /// The text of /proc/swaps.
    swaps: Option<Vec<u8>>,
    mounts: Mounts,
}

impl Moment {
    /// `None` where the system does not tell.
    pub(super) fn now() -> Option<Self> {
        Some(Self { events: settled::events()?, swaps: swaps(), mounts: Mounts::read().ok()? })
    }
}

/// The text of /proc/swaps, as far as that tells whether it has changed.
fn swaps() -> Option<Vec<u8>> {
    static SWAPS: OnceLock<Option<File>> = OnceLock::new();
    let file = SWAPS.get_or_init(|| File::open("/proc/swaps").ok()).as_ref()?;
    let mut text = vec![0; 4096];
    let length = file.read_at(&mut text, 0).ok()?;
    text.truncate(length);
    Some(text)
}

/// A look.
#[derive(Clone, Debug)]
struct Look {
    number: u64,
    began: Instant,
    /// Before it began.
    moment: Option<Moment>,
    holders: Arc<Holders>,
}

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
    /// The last that has ended.
    last: Option<Look>,
}

impl SharedLook {
    /// What is in use from here on. `moment` is [`Moment::now`], `read` is [`Holders::read`].
    pub(super) fn holders(
        &self,
        moment: impl Fn() -> Option<Moment>,
        read: impl Fn() -> Result<Holders>,
    ) -> Result<Arc<Holders>> {
        let (now, asked) = (moment(), Instant::now());
        let mut state = self.state.lock();
        let wanted = state.begun + 1;
        loop {
            if let Some(look) =
                state.last.as_ref().filter(|look| look.number >= wanted || look.is_good(asked, now.as_ref()))
            {
                return Ok(Arc::clone(&look.holders));
            }
            if !state.is_under_way {
                break;
            }
            if self.ended.wait_until(&mut state, asked + PATIENCE).timed_out() {
                drop(state);
                return read().map(Arc::new);
            }
        }
        state.begun += 1;
        state.is_under_way = true;
        let number = state.begun;
        drop(state);
        let (moment, began) = (moment(), Instant::now());
        let seen = read().map(Arc::new);
        let mut state = self.state.lock();
        state.is_under_way = false;
        state.last = seen.as_ref().ok().map(|seen| Look { number, began, moment, holders: Arc::clone(seen) });
        drop(state);
        self.ended.notify_all();
        seen
    }
}

impl Look {
    /// Whether it says what is in use from `asked` on, when the system told of `now`.
    fn is_good(&self, asked: Instant, now: Option<&Moment>) -> bool {
        now.is_some() && self.moment.as_ref() == now && asked.saturating_duration_since(self.began) < FRESH
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    use super::*;

    fn nothing_told() -> Option<Moment> {
        None
    }

    #[test]
    fn a_look_is_good_until_something_changes() {
        let (look, looks) = (SharedLook::default(), AtomicU64::new(0));
        let ask = |events: u64, swaps: &str, mounts: &Mounts| {
            let moment = Moment { events, swaps: Some(swaps.into()), mounts: mounts.clone() };
            let read = || {
                looks.fetch_add(1, Ordering::SeqCst);
                Holders::read()
            };
            look.holders(|| Some(moment.clone()), read).unwrap();
            looks.load(Ordering::SeqCst)
        };
        let mounts = ["", "1 1 8:1 / / rw - ext4 /dev/sda1 rw"].map(|text| Mounts::parse(text.as_bytes()));
        let begun = Instant::now();
        let counts = [
            ask(7, "none", &mounts[0]),
            ask(7, "none", &mounts[0]),
            ask(8, "none", &mounts[0]),
            ask(8, "one", &mounts[0]),
            ask(8, "one", &mounts[1]),
        ];
        assert_eq!(counts[2..], [counts[1] + 1, counts[1] + 2, counts[1] + 3]);
        assert!(counts[1] == 1 || begun.elapsed() >= FRESH, "{counts:?}");
        let Some(last) = look.state.lock().last.clone() else { panic!("no look") };
        assert!(last.is_good(last.began, last.moment.as_ref()));
        assert!(!last.is_good(last.began + FRESH, last.moment.as_ref()), "it is too old");
        assert!(!Look { moment: None, ..last.clone() }.is_good(last.began, None), "the system does not tell");
    }

    #[test]
    fn many_at_once_share_looks_that_began_after_they_asked() {
        let (look, looks, barrier) = (SharedLook::default(), AtomicU64::new(0), Barrier::new(32));
        thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| {
                    barrier.wait();
                    let before = looks.load(Ordering::SeqCst);
                    look.holders(nothing_told, || {
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
                let hung = look.holders(nothing_told, || {
                    barrier.wait();
                    hangs.wait();
                    Holders::read()
                });
                hung.unwrap();
            });
            barrier.wait();
            look.holders(nothing_told, Holders::read).unwrap();
            hangs.wait();
        });
        let gone = || Err(crate::error::Error::new(crate::error::ErrorKind::Busy, "no /proc"));
        assert!(look.holders(nothing_told, gone).is_err());
        look.holders(nothing_told, Holders::read).unwrap();
    }
}
