//! What stays as it is until the kernel tells of an event of a device: the devices of thousands of jobs are asked for it again and
//! again. The kernel counts these events, and reading their number asks no device.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::fs::File;
use std::hash::Hash;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

/// How long something is taken for true without an event at most.
pub(super) const FRESH: Duration = Duration::from_secs(1);
/// Values that are remembered at once. A job has 65 devices at most, and some ten things of each are asked for.
const REMEMBERED: usize = 1 << 12;

/// How many events of devices the kernel has told of: attached, assembled, partitioned, changed, removed. `None` where it does not say.
pub(super) fn events() -> Option<u64> {
    static COUNT: OnceLock<Option<File>> = OnceLock::new();
    let file = COUNT.get_or_init(|| File::open("/sys/kernel/uevent_seqnum").ok()).as_ref()?;
    let mut text = [0; 24];
    let length = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.trim().parse().ok()
}

/// Values as they were read since an event.
pub(super) struct Settled<K, V>(RwLock<Option<Known<K, V>>>);

struct Known<K, V> {
    events: u64,
    since: Instant,
    values: HashMap<K, V>,
}

impl<K, V> Known<K, V> {
    fn is_good(&self, events: u64) -> bool {
        self.events == events && self.since.elapsed() < FRESH && self.values.len() < REMEMBERED
    }
}

impl<K: Eq + Hash, V: Clone> Settled<K, V> {
    /// Nothing is known.
    pub(super) const fn new() -> Self {
        Self(RwLock::new(None))
    }

    /// A value as it was read last; else as `read` finds it: an `Err` is what is known now, and is not remembered.
    pub(super) fn get<Q>(&self, key: &Q, read: impl FnOnce() -> Result<V, V>) -> V
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        self.get_at(events(), key, read)
    }

    fn get_at<Q>(&self, events: Option<u64>, key: &Q, read: impl FnOnce() -> Result<V, V>) -> V
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let Some(events) = events else { return read().unwrap_or_else(|value| value) };
        let is_good = |known: &&Known<K, V>| known.is_good(events);
        if let Some(value) = self.0.read().as_ref().filter(is_good).and_then(|known| known.values.get(key)) {
            return value.clone();
        }
        // What it finds counts from here on: it may be long in coming.
        let since = Instant::now();
        let value = match read() {
            Ok(value) => value,
            Err(value) => return value,
        };
        let mut known = self.0.write();
        match known.as_mut().filter(|known| known.is_good(events)) {
            Some(known) if since.elapsed() < FRESH => _ = known.values.insert(key.to_owned(), value.clone()),
            Some(_) => {}
            None => *known = Some(Known { events, since, values: HashMap::from([(key.to_owned(), value.clone())]) }),
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_again_after_an_event_and_after_a_while() {
        let known = Settled::<String, u32>::new();
        let begun = Instant::now();
        let get = |events, value| known.get_at(events, "name", || Ok(value));
        let values =
            [get(Some(7), 1), get(Some(7), 2), get(Some(8), 3), get(Some(8), 4), get(None, 5), get(Some(7), 6)];
        assert_eq!((values[2], values[4], values[5]), (3, 5, 6));
        assert!((values[1], values[3]) == (1, 3) || begun.elapsed() >= FRESH, "{values:?}");
        let old = |known: &mut Known<String, u32>| known.since -= FRESH;
        old(known.0.write().as_mut().unwrap());
        assert_eq!(get(Some(7), 7), 7);
        assert_eq!(known.get_at(Some(7), "another", || Err(8)), 8);
        assert_eq!(known.get_at(Some(7), "another", || Ok(9)), 9, "an error is not remembered");
    }

    #[test]
    fn what_was_long_in_coming_is_not_remembered_for_long() {
        let known = Settled::<String, u32>::new();
        let slow = || {
            std::thread::sleep(FRESH);
            Ok(1)
        };
        assert_eq!(known.get_at(Some(7), "name", slow), 1);
        assert_eq!(known.get_at(Some(7), "name", || Ok(2)), 2);
    }
}
