//! Waiting for what no event tells: figures of the tree, above all.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long something may take to come true.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Polls until `find` finds it.
///
/// # Panics
/// If that takes longer than [`LIMIT`].
pub fn until<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let late = Instant::now() + LIMIT;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < late, "waited {LIMIT:?} in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
