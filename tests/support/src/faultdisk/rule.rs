//! Rules: which requests meet which fault, and how often. Pure.

use std::{ops::Range, time::Duration};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reads a range.
    Read,
    /// Writes a range; zeroing comes as writes, too.
    Write,
    /// Makes all earlier writes durable. It has no range: every rule for it matches.
    Flush,
}

/// What happens to a request that meets a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this errno; a loop device makes EIO of it for every flush, and of some for reads and writes. Of a
    /// write, the blocks before the rule's range reach the medium, as on a real disk.
    Err(i32),
    /// It waits until `release`, then goes on as if nothing had been.
    Hang,
    /// It waits that long, or until `release`.
    Delay(Duration),
    /// One bit of the first byte in the rule's range is flipped: of a read in the answer, of a write on the medium.
    Corrupt,
    /// It is acknowledged and not done (writes and flushes): a disk that lies.
    Drop,
    /// It ends after that many bytes, as its answer says (reads and writes). After a short read the loop device asks
    /// for the rest; a short write fails there with EIO, its first bytes on the medium.
    Short(usize),
    /// It goes elsewhere (reads and writes): moved as if the rule's range began at this byte.
    Misdirect(u64),
}

impl Fault {
    /// Whether it only makes a request wait, before anything is done.
    pub(super) const fn is_wait(&self) -> bool {
        matches!(self, Self::Hang | Self::Delay(_))
    }

    /// Whether it can happen to such a request.
    pub(crate) const fn fits(&self, op: Op) -> bool {
        match self {
            Self::Err(_) | Self::Hang | Self::Delay(_) => true,
            Self::Corrupt | Self::Short(_) | Self::Misdirect(_) => matches!(op, Op::Read | Op::Write),
            Self::Drop => matches!(op, Op::Write | Op::Flush),
        }
    }
}

/// A rule that was met: what to do, and the range it was set for.
#[derive(Clone, Debug)]
pub(super) struct Hit {
    pub(super) fault: Fault,
    pub(super) start: u64,
}

#[derive(Debug)]
struct Rule {
    id: u64,
    op: Op,
    range: Range<u64>,
    fault: Fault,
    /// How many requests it still lets pass.
    spare: u64,
    limit: Option<u64>,
    hits: u64,
}

/// The rules of a disk, oldest first: of several that match, the oldest fires.
#[derive(Debug, Default)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    last_id: u64,
}

impl Rules {
    /// Adds a rule and returns its number.
    ///
    /// # Panics
    /// If no such request can meet such a fault, or the range is empty.
    pub(super) fn add(&mut self, op: Op, range: Range<u64>, fault: Fault) -> u64 {
        assert!(fault.fits(op), "{fault:?} is nothing that can happen to a {op:?}");
        assert!(!range.is_empty(), "a rule for no byte never fires");
        self.last_id += 1;
        self.rules.push(Rule { id: self.last_id, op, range, fault, spare: 0, limit: None, hits: 0 });
        self.last_id
    }

    /// Lets rule `id` fire `limit` times in all.
    pub(super) fn limit(&mut self, id: u64, limit: u64) {
        if let Some(rule) = self.rules.iter_mut().find(|rule| rule.id == id) {
            rule.limit = Some(limit);
        }
    }

    /// Lets the next `count` requests pass rule `id` before it fires.
    pub(super) fn spare(&mut self, id: u64, count: u64) {
        if let Some(rule) = self.rules.iter_mut().find(|rule| rule.id == id) {
            rule.spare = count;
        }
    }

    /// How often rule `id` has fired; `None` once it was removed.
    pub(super) fn hits(&self, id: u64) -> Option<u64> {
        self.rules.iter().find(|rule| rule.id == id).map(|rule| rule.hits)
    }

    /// Keeps the rules that `keep` wants, by number and fault.
    pub(super) fn retain(&mut self, keep: impl Fn(u64, &Fault) -> bool) {
        self.rules.retain(|rule| keep(rule.id, &rule.fault));
    }

    /// The first rule for `op` that touches `range` and whose fault is `wanted`; it fires.
    pub(super) fn hit(&mut self, op: Op, range: &Range<u64>, wanted: impl Fn(&Fault) -> bool) -> Option<Hit> {
        for rule in &mut self.rules {
            let touches = op == Op::Flush || (range.start < rule.range.end && rule.range.start < range.end);
            let fires = rule.limit.is_none_or(|limit| rule.hits < limit);
            if rule.op == op && touches && fires && wanted(&rule.fault) {
                if rule.spare == 0 {
                    rule.hits += 1;
                    return Some(Hit { fault: rule.fault.clone(), start: rule.range.start });
                }
                rule.spare -= 1;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_touch_only_where_they_share_a_byte() {
        let mut rules = Rules::default();
        rules.add(Op::Read, 512..1024, Fault::Err(5));
        assert!(rules.hit(Op::Read, &(0..512), |_| true).is_none());
        assert!(rules.hit(Op::Read, &(1024..2048), |_| true).is_none());
        assert!(rules.hit(Op::Write, &(512..1024), |_| true).is_none());
        assert!(rules.hit(Op::Read, &(0..513), |_| true).is_some());
    }

    #[test]
    fn a_limited_rule_fires_that_often_and_then_the_next_one_does() {
        let mut rules = Rules::default();
        let first = rules.add(Op::Flush, 0..u64::MAX, Fault::Err(5));
        let second = rules.add(Op::Flush, 0..u64::MAX, Fault::Drop);
        rules.limit(first, 2);
        for _ in 0..3 {
            assert!(rules.hit(Op::Flush, &(0..0), |_| true).is_some());
        }
        assert_eq!((rules.hits(first), rules.hits(second)), (Some(2), Some(1)));
    }

    #[test]
    fn a_rule_may_let_some_pass_first() {
        let mut rules = Rules::default();
        let id = rules.add(Op::Write, 0..512, Fault::Err(5));
        rules.spare(id, 2);
        let mut fires = |range| rules.hit(Op::Write, &range, |_| true).is_some();
        assert_eq!([fires(0..512), fires(512..1024), fires(0..512), fires(0..512)], [false, false, false, true]);
    }
}
