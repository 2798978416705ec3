//! Devices on their way to be closed. What they hold, as the lock on a file, is gone only when they are; the job that had them may be
//! ended by then, and another one want it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, ErrorKind};

/// So long one is waited for. It may hang.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, Default)]
pub(super) struct Closings(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    count: Mutex<Count>,
    one_ended: Condvar,
}

#[derive(Debug, Default)]
struct Count {
    under_way: usize,
    ended: u64,
}

/// One that is under way, until this is dropped.
pub(super) struct Closing(Closings);

impl Closings {
    pub(super) fn begin(&self) -> Closing {
        self.0.count.lock().under_way += 1;
        Closing(self.clone())
    }

    /// Tries to lock something, and once more after each closing while it is busy.
    pub(super) fn lock<T, E>(
        &self,
        mut attempt: impl FnMut() -> Result<T, E>,
        why: impl Fn(&E) -> &Error,
    ) -> Result<T, E> {
        let until = Instant::now() + PATIENCE;
        loop {
            let seen = self.0.count.lock().ended;
            let result = attempt();
            let is_busy = result.as_ref().is_err_and(|error| why(error).kind() == ErrorKind::Busy);
            if !is_busy || !self.wait(seen, until) {
                return result;
            }
        }
    }

    /// Waits for one to end that had not when `seen` had. False where none does.
    fn wait(&self, seen: u64, until: Instant) -> bool {
        let mut count = self.0.count.lock();
        while count.ended == seen {
            if count.under_way == 0 || self.0.one_ended.wait_until(&mut count, until).timed_out() {
                return false;
            }
        }
        true
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let mut count = self.0.0.count.lock();
        count.under_way -= 1;
        count.ended += 1;
        self.0.0.one_ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn busy() -> Error {
        Error::new(ErrorKind::Busy, "locked")
    }

    #[test]
    fn what_is_busy_is_tried_again_when_something_was_closed() {
        let closings = Closings::default();
        let (one, tries) = (Cell::new(Some(closings.begin())), Cell::new(0));
        let held = closings.begin();
        let attempt = || {
            tries.set(tries.get() + 1);
            // What is in the way goes after the second attempt.
            let is_free = tries.get() == 3;
            one.take();
            if tries.get() == 2 {
                drop(closings.begin());
            }
            if is_free { Ok(()) } else { Err(busy()) }
        };
        closings.lock(attempt, |error| error).unwrap();
        assert_eq!(tries.get(), 3);
        drop(held);
    }

    #[test]
    fn nobody_waits_where_nothing_is_closed() {
        let closings = Closings::default();
        drop(closings.begin());
        let tries = Cell::new(0);
        let attempt = || {
            tries.set(tries.get() + 1);
            Err::<(), _>(busy())
        };
        closings.lock(attempt, |error| error).unwrap_err();
        assert_eq!(tries.get(), 1);
    }

    #[test]
    fn one_that_hangs_is_not_waited_for_for_ever() {
        let closings = Closings::default();
        let hangs = closings.begin();
        closings.lock(|| Err::<(), _>(busy()), |error| error).unwrap_err();
        drop(hangs);
    }
}
