//! Ranges of bytes by what they are a part of: where they meet.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::hash::Hash;
use std::ops::Range;

use super::intervals::Intervals;

/// What is done to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// How an extent is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) access: Access,
    /// As [`Extent::exact`](crate::blkdev::Extent::exact): two that are not do not meet.
    pub(super) exact: bool,
}

/// Extents by key: a place, or a medium's lasting name.
#[derive(Debug)]
pub(super) struct Index<K, V> {
    keys: HashMap<K, [Intervals<V>; 4]>,
    /// Numbers given to extents so far.
    numbers: u64,
}

/// Where an extent is in its index. Not a hold: whoever has it takes it out with [`Index::leave`].
#[derive(Debug)]
pub(super) struct Entry<K> {
    key: K,
    list: u8,
    start: u64,
    number: u64,
}

impl<K, V> Default for Index<K, V> {
    fn default() -> Self {
        Self { keys: HashMap::new(), numbers: 0 }
    }
}

impl<K: Hash + Eq + Clone, V> Index<K, V> {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn enter(&mut self, key: &K, bytes: Range<u64>, kind: Kind, rank: u64, value: V) -> Entry<K> {
        let slot = self.keys.entry(key.clone());
        let key = match &slot {
            Slot::Occupied(slot) => slot.key().clone(),
            Slot::Vacant(slot) => slot.key().clone(),
        };
        let entry = Entry { key, list: list(kind), start: bytes.start, number: self.numbers };
        self.numbers += 1;
        slot.or_default()[usize::from(entry.list)].insert(bytes, entry.number, rank, value);
        entry
    }

    pub(super) fn leave(&mut self, entry: &Entry<K>) {
        let lists = self.keys.get_mut(&entry.key).expect("the key of an entry is in the index");
        assert!(lists[usize::from(entry.list)].remove(entry.start, entry.number), "an entry is in the index");
        if lists.iter().all(Intervals::is_empty) {
            self.keys.remove(&entry.key);
        }
    }

    /// One that meets `bytes`, is kept for `access`, has a rank below `below`, and is wanted.
    pub(super) fn find<Q: Hash + Eq + ?Sized>(
        &self,
        (key, bytes, exact): (&Q, &Range<u64>, bool),
        access: Access,
        below: u64,
        wanted: &impl Fn(&V) -> bool,
    ) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let lists = self.keys.get(key).filter(|_| !bytes.is_empty())?;
        let mut lists = met_by(exact).map(|exact| &lists[usize::from(list(Kind { access, exact }))]);
        lists.find_map(|list| list.find(bytes, below, wanted))
    }

    /// Shows all that meet `bytes` and are kept for `access`: their bytes, [`Entry::number`] and value.
    pub(super) fn each<Q: Hash + Eq + ?Sized>(
        &self,
        (key, bytes, exact): (&Q, &Range<u64>, bool),
        access: Access,
        mut visit: impl FnMut(Range<u64>, u64, &V),
    ) where
        K: Borrow<Q>,
    {
        let Some(lists) = self.keys.get(key).filter(|_| !bytes.is_empty()) else { return };
        met_by(exact).for_each(|exact| lists[usize::from(list(Kind { access, exact }))].each(bytes, &mut visit));
    }
}

impl<K> Entry<K> {
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

/// The exactness of what an extent may meet.
fn met_by(exact: bool) -> impl Iterator<Item = bool> {
    [true, false].into_iter().take(1 + usize::from(exact))
}

const fn list(kind: Kind) -> u8 {
    kind.access as u8 * 2 + kind.exact as u8
}
