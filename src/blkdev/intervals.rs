//! A set of ranges that may overlap, asked which of them meet another range: a treap with the furthest end below each
//! node.
//!
//! Ranges are kept by start and by a number that the caller never uses twice; priorities come from that number, so that
//! equal histories make equal trees. Every operation takes time by the logarithm of how many there are.
//!
//! # Invariants
//! A node's key lies between those of its children, its priority is at least theirs, `reach` is the greatest end in its
//! subtree.

use std::ops::Range;

type Link<T> = Option<Box<Node<T>>>;
type Key = (u64, u64);

#[derive(Debug)]
struct Node<T> {
    key: Key,
    end: u64,
    reach: u64,
    priority: u64,
    value: T,
    left: Link<T>,
    right: Link<T>,
}

/// Ranges of bytes, each with a value.
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
    pub(super) fn insert(&mut self, bytes: Range<u64>, number: u64, value: T) {
        let key = (bytes.start, number);
        let (left, right) = split(self.root.take(), key);
        let (end, priority) = (bytes.end, mix(number));
        let node = Box::new(Node { key, end, reach: end, priority, value, left: None, right: None });
        self.root = merge(merge(left, Some(node)), right);
    }

    /// Takes out a range by its start and number; false where it is not there.
    pub(super) fn remove(&mut self, start: u64, number: u64) -> bool {
        let (left, rest) = split(self.root.take(), (start, number));
        let (found, right) = split(rest, (start, number + 1));
        self.root = merge(left, right);
        found.is_some()
    }

    /// The first range that meets `bytes` and is wanted.
    pub(super) fn find(&self, bytes: &Range<u64>, wanted: &impl Fn(&T) -> bool) -> Option<&T> {
        find(self.root.as_deref(), bytes, wanted)
    }
}

impl<T> Node<T> {
    fn update(&mut self) {
        let reach = |link: &Link<T>| link.as_ref().map_or(0, |node| node.reach);
        self.reach = self.end.max(reach(&self.left)).max(reach(&self.right));
    }
}

fn find<'a, T>(node: Option<&'a Node<T>>, bytes: &Range<u64>, wanted: &impl Fn(&T) -> bool) -> Option<&'a T> {
    let node = node.filter(|node| node.reach > bytes.start)?;
    if let Some(value) = find(node.left.as_deref(), bytes, wanted) {
        return Some(value);
    }
    if node.key.0 >= bytes.end {
        return None;
    }
    if node.end > bytes.start && wanted(&node.value) {
        return Some(&node.value);
    }
    find(node.right.as_deref(), bytes, wanted)
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
            if left.priority >= right.priority {
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
    use proptest::prelude::*;

    use super::*;

    fn depth<T>(node: Option<&Node<T>>) -> usize {
        node.map_or(0, |node| 1 + depth(node.left.as_deref()).max(depth(node.right.as_deref())))
    }

    #[test]
    fn many_in_ascending_order_stay_shallow() {
        let mut set = Intervals::default();
        (0..100_000).for_each(|number| set.insert(number..number + 10, number, ()));
        assert!(depth(set.root.as_deref()) < 60);
        assert!((0..100_000).all(|number| set.remove(number, number)));
        assert!(set.is_empty());
    }

    proptest! {
        #[test]
        fn agrees_with_a_list(steps in prop::collection::vec((0u64..64, 0u64..16, any::<bool>()), 1..200)) {
            let (mut set, mut list) = (Intervals::default(), Vec::<(Range<u64>, u64)>::new());
            for (number, (start, length, removes)) in (0u64..).zip(steps) {
                if removes && !list.is_empty() {
                    let (bytes, number) = list.swap_remove(usize::try_from(start).unwrap() % list.len());
                    prop_assert!(set.remove(bytes.start, number));
                    prop_assert!(!set.remove(bytes.start, number));
                } else {
                    set.insert(start..start + length + 1, number, number);
                    list.push((start..start + length + 1, number));
                }
                let asked = length..length + 5;
                let odd = |number: &u64| number % 2 == 1;
                let expected = list.iter().any(|(bytes, number)| {
                    odd(number) && bytes.start < asked.end && asked.start < bytes.end
                });
                prop_assert_eq!(set.find(&asked, &odd).is_some(), expected);
                prop_assert_eq!(set.is_empty(), list.is_empty());
            }
        }
    }
}
