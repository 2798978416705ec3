//! A set of ranges that may overlap, asked which of them meet another range: a treap that knows, below each node, the
//! furthest end and the least rank.
//!
//! Ranges are kept by start and by a number that the caller never uses twice; priorities come from that number, so that
//! equal histories make equal trees. Every operation takes time by the logarithm of how many there are, and a search also by
//! how many it finds.
//!
//! # Invariants
//! A node's key lies between those of its children, its priority is at least theirs, `reach` is the greatest end and `least`
//! the least rank in its subtree.

use std::ops::Range;

type Link<T> = Option<Box<Node<T>>>;
type Key = (u64, u64);

#[derive(Debug)]
struct Node<T> {
    key: Key,
    end: u64,
    reach: u64,
    rank: u64,
    least: u64,
    value: T,
    left: Link<T>,
    right: Link<T>,
}

/// Ranges of bytes, each with a rank and a value.
#[derive(Debug)]
pub(super) struct Intervals<T> {
    root: Link<T>,
}

impl<T> Default for Intervals<T> {
    fn default() -> Self {
        Self { root: None }
    }
}

impl<T> Intervals<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Takes in a range. `number` is used once, for all time.
    pub(super) fn insert(&mut self, bytes: Range<u64>, number: u64, rank: u64, value: T) {
        let key = (bytes.start, number);
        let (left, right) = split(self.root.take(), key);
        let end = bytes.end;
        let node = Box::new(Node { key, end, reach: end, rank, least: rank, value, left: None, right: None });
        self.root = merge(merge(left, Some(node)), right);
    }

    /// Takes out a range by its start and number; false where it is not there.
    pub(super) fn remove(&mut self, start: u64, number: u64) -> bool {
        let (left, rest) = split(self.root.take(), (start, number));
        let (found, right) = split(rest, (start, number + 1));
        self.root = merge(left, right);
        found.is_some()
    }

    /// The first range that meets `bytes`, has a rank below `below`, and is wanted.
    pub(super) fn find(&self, bytes: &Range<u64>, below: u64, wanted: &impl Fn(&T) -> bool) -> Option<&T> {
        find(self.root.as_deref(), bytes, below, wanted)
    }

    /// Shows every range that meets `bytes`, with its number.
    pub(super) fn each(&self, bytes: &Range<u64>, visit: &mut impl FnMut(Range<u64>, u64, &T)) {
        each(self.root.as_deref(), bytes, visit);
    }
}

impl<T> Node<T> {
    fn priority(&self) -> u64 {
        mix(self.key.1)
    }

    fn meets(&self, bytes: &Range<u64>) -> bool {
        self.key.0 < bytes.end && self.end > bytes.start
    }

    fn update(&mut self) {
        (self.reach, self.least) = (self.end, self.rank);
        for child in [&self.left, &self.right].into_iter().flatten() {
            self.reach = self.reach.max(child.reach);
            self.least = self.least.min(child.least);
        }
    }
}

fn find<'a, T>(
    node: Option<&'a Node<T>>,
    bytes: &Range<u64>,
    below: u64,
    wanted: &impl Fn(&T) -> bool,
) -> Option<&'a T> {
    let node = node.filter(|node| node.reach > bytes.start && node.least < below)?;
    if let Some(value) = find(node.left.as_deref(), bytes, below, wanted) {
        return Some(value);
    }
    if node.key.0 >= bytes.end {
        return None;
    }
    if node.meets(bytes) && node.rank < below && wanted(&node.value) {
        return Some(&node.value);
    }
    find(node.right.as_deref(), bytes, below, wanted)
}

fn each<T>(node: Option<&Node<T>>, bytes: &Range<u64>, visit: &mut impl FnMut(Range<u64>, u64, &T)) {
    let Some(node) = node.filter(|node| node.reach > bytes.start) else { return };
    each(node.left.as_deref(), bytes, visit);
    if node.key.0 >= bytes.end {
        return;
    }
    if node.meets(bytes) {
        visit(node.key.0..node.end, node.key.1, &node.value);
    }
    each(node.right.as_deref(), bytes, visit);
}

/// Those below `key`, and the others.
fn split<T>(link: Link<T>, key: Key) -> (Link<T>, Link<T>) {
    let Some(mut node) = link else { return (None, None) };
    if node.key < key {
        let (left, right) = split(node.right.take(), key);
        node.right = left;
        node.update();
        (Some(node), right)
    } else {
        let (left, right) = split(node.left.take(), key);
        node.left = right;
        node.update();
        (left, Some(node))
    }
}

/// Both in one; every key of `left` is below every key of `right`.
fn merge<T>(left: Link<T>, right: Link<T>) -> Link<T> {
    match (left, right) {
        (None, link) | (link, None) => link,
        (Some(mut left), Some(mut right)) => {
            if left.priority() >= right.priority() {
                left.right = merge(left.right.take(), Some(right));
                left.update();
                Some(left)
            } else {
                right.left = merge(Some(left), right.left.take());
                right.update();
                Some(right)
            }
        }
    }
}

/// Scatters neighbouring numbers over all of u64 (the finalizer of splitmix64).
fn mix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    const ANY: u64 = u64::MAX;

    fn depth<T>(node: Option<&Node<T>>) -> usize {
        node.map_or(0, |node| 1 + depth(node.left.as_deref()).max(depth(node.right.as_deref())))
    }

    #[test]
    fn many_in_ascending_order_stay_shallow() {
        let mut set = Intervals::default();
        (0..100_000).for_each(|number| set.insert(number..number + 10, number, 0, ()));
        assert!(depth(set.root.as_deref()) < 60);
        assert!((0..100_000).all(|number| set.remove(number, number)));
        assert!(set.is_empty());
    }

    #[test]
    fn a_search_by_rank_does_not_walk_over_the_others() {
        let mut set = Intervals::default();
        (1..=100_000).for_each(|rank| set.insert(0..10, rank, rank, rank));
        let looks = Cell::new(0);
        let look = |_: &u64| {
            looks.set(looks.get() + 1);
            true
        };
        assert_eq!(set.find(&(5..6), 1, &look), None);
        assert_eq!(set.find(&(5..6), 2, &look), Some(&1));
        assert_eq!(looks.get(), 1);
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(
            steps in prop::collection::vec((0u64..64, 0u64..16, 0u64..8, any::<bool>()), 1..200),
        ) {
            let (mut set, mut list) = (Intervals::default(), Vec::<(Range<u64>, u64, u64)>::new());
            for (number, (start, length, rank, removes)) in (0u64..).zip(steps) {
                if removes && !list.is_empty() {
                    let (bytes, number, _) = list.swap_remove(usize::try_from(start).unwrap() % list.len());
                    prop_assert!(set.remove(bytes.start, number));
                    prop_assert!(!set.remove(bytes.start, number));
                } else {
                    set.insert(start..start + length + 1, number, rank, number);
                    list.push((start..start + length + 1, number, rank));
                }
                let asked = length..length + 5;
                let meets = |bytes: &Range<u64>| bytes.start < asked.end && asked.start < bytes.end;
                let odd = |number: &u64| number % 2 == 1;
                for below in [rank, ANY] {
                    let expected = list.iter().any(|(bytes, number, rank)| {
                        odd(number) && meets(bytes) && *rank < below
                    });
                    prop_assert_eq!(set.find(&asked, below, &odd).is_some(), expected);
                }
                let mut seen = Vec::new();
                set.each(&asked, &mut |bytes, number, _| seen.push((number, bytes)));
                let mut expected: Vec<_> =
                    list.iter().filter(|(bytes, ..)| meets(bytes)).map(|(bytes, number, _)| (*number, bytes.clone())).collect();
                seen.sort_by_key(|(number, _)| *number);
                expected.sort_by_key(|(number, _)| *number);
                prop_assert_eq!(seen, expected);
                prop_assert_eq!(set.is_empty(), list.is_empty());
            }
        }
    }
}
