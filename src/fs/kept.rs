//! What open files keep in memory: texts, shared among readers who ask at the same moment, and listings; all of it counted
//! and bounded.
//!
//! # Invariants
//! A text is shared only while nothing that was written to the tree, and no change of a job's state, lies between the moment
//! at which it was made and the read. What a [`Charge`] has counted is given back when it is dropped.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::inode::Key;

/// For how long a text is made again for nobody. Figures that grow are no older than this.
const SHARED_FOR: Duration = Duration::from_millis(100);
/// Shorter texts are always made anew: most files are so short, and who reads one after the other sees figures grow.
const SHARED_MIN: usize = 4096;
/// Most bytes that are kept for all open files when another user asks for more: a small part of what the daemon may use.
const OTHERS_MAX: usize = 8 << 20;
/// The same when the owner asks, whom other users are not to shut out.
const OWNER_MAX: usize = 64 << 20;

/// A text that open files share.
#[derive(Debug)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    _charge: Charge,
}

impl Kept {
    /// The text.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// More is kept than may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Everything that is kept for open files.
#[derive(Debug, Default)]
pub(super) struct Store {
    recent: Mutex<HashMap<Key, Recent>>,
    /// Counts what makes a text of before untrue.
    changes: AtomicU64,
    account: Arc<Account>,
}

#[derive(Debug)]
struct Recent {
    made: Instant,
    changes: u64,
    text: Weak<Kept>,
}

impl Store {
    /// Texts that were made until now are not shared any more.
    pub(super) fn outdate(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// The text of a file: one that another open file was given a moment ago, or what `make` makes; `None` where it cannot
    /// be made.
    ///
    /// # Errors
    /// [`Full`] where that is more than may be kept.
    pub(super) fn text(
        &self,
        key: Key,
        now: Instant,
        by_owner: bool,
        make: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Result<Option<Arc<Kept>>, Full> {
        // Before the text is made, so that a change in the meantime counts.
        let changes = self.changes.load(Ordering::Acquire);
        let fresh = |recent: &Recent| recent.changes == changes && now < recent.made + SHARED_FOR;
        if let Some(text) = self.recent.lock().get(&key).filter(|recent| fresh(recent)).and_then(|it| it.text.upgrade())
        {
            return Ok(Some(text));
        }
        let Some(bytes) = make() else { return Ok(None) };
        let charge = self.charge(bytes.len(), by_owner)?;
        let is_shared = bytes.len() >= SHARED_MIN;
        let text = Arc::new(Kept { bytes, _charge: charge });
        if is_shared {
            let mut recent = self.recent.lock();
            recent.retain(|_, recent| recent.text.strong_count() > 0);
            recent.insert(key, Recent { made: now, changes, text: Arc::downgrade(&text) });
        }
        Ok(Some(text))
    }

    /// Counts `bytes` more.
    ///
    /// # Errors
    /// [`Full`] where more is kept already than may be. One thing is always kept, however large.
    pub(super) fn charge(&self, bytes: usize, by_owner: bool) -> Result<Charge, Full> {
        let most = if by_owner { OWNER_MAX } else { OTHERS_MAX };
        let account = &self.account;
        let before = account.bytes.fetch_add(bytes, Ordering::AcqRel);
        // From here on its drop gives back.
        let charge = Charge { account: Arc::clone(account), bytes };
        if before > 0 && before.saturating_add(bytes) > most {
            drop(charge);
            // Once for each time that it fills up: a reader must not fill the log too.
            if !account.told.swap(true, Ordering::AcqRel) {
                log::warn!("open files keep {before} bytes: readers are refused until some are closed");
            }
            return Err(Full);
        }
        account.told.store(false, Ordering::Release);
        Ok(charge)
    }
}

#[derive(Debug, Default)]
struct Account {
    bytes: AtomicUsize,
    /// That readers are refused was logged.
    told: AtomicBool,
}

/// Bytes that are counted as kept.
#[derive(Debug)]
pub(super) struct Charge {
    account: Arc<Account>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Key = Key { row: 3, sub: 0, id: 0 };

    fn text(store: &Store, now: Instant, letter: u8, len: usize) -> Arc<Kept> {
        store.text(FILE, now, false, || Some(vec![letter; len])).unwrap().unwrap()
    }

    #[test]
    fn readers_of_one_moment_share_a_text() {
        let (store, now) = (Store::default(), Instant::now());
        let first = text(&store, now, b'a', SHARED_MIN);
        let second = text(&store, now + SHARED_FOR / 2, b'b', SHARED_MIN);
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(store.account.bytes.load(Ordering::Relaxed), SHARED_MIN);
        assert_eq!(text(&store, now + SHARED_FOR, b'c', SHARED_MIN).bytes()[0], b'c');
        drop((first, second));
        assert_eq!(store.account.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_was_written_is_seen_at_once_and_short_texts_always() {
        let (store, now) = (Store::default(), Instant::now());
        let _first = text(&store, now, b'a', SHARED_MIN);
        store.outdate();
        assert_eq!(text(&store, now, b'b', SHARED_MIN).bytes()[0], b'b');
        let (store, now) = (Store::default(), Instant::now());
        let _first = text(&store, now, b'a', SHARED_MIN - 1);
        assert_eq!(text(&store, now, b'b', SHARED_MIN - 1).bytes()[0], b'b');
        assert!(store.text(FILE, now, false, || None).unwrap().is_none());
    }

    #[test]
    fn no_reader_can_take_all_memory_nor_shut_the_owner_out() {
        let store = Store::default();
        let others: Vec<_> = std::iter::from_fn(|| store.charge(1 << 20, false).ok()).take(1000).collect();
        assert_eq!(others.len(), OTHERS_MAX >> 20);
        let owners: Vec<_> = std::iter::from_fn(|| store.charge(1 << 20, true).ok()).take(1000).collect();
        assert_eq!(owners.len(), (OWNER_MAX - OTHERS_MAX) >> 20);
        assert_eq!(store.charge(0, false).unwrap_err(), Full);
        drop((others, owners));
        // a tree of very many jobs can still be read
        drop(store.charge(2 * OWNER_MAX, false).unwrap());
        assert_eq!(store.account.bytes.load(Ordering::Relaxed), 0);
    }
}
