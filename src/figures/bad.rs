//! The bad ranges of a job, as `errors` lists them. Pure.

use crate::sector::Sector;

/// Ranges that are listed at most: some 5 MiB in memory and 3 MiB in a record. Beyond them a range is only counted; the
/// figures and the maps are whole all the same.
pub(crate) const LISTED_MAX: usize = 1 << 17;

/// What is wrong with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BadKind {
    /// It could not be read, or not be written, or not be read back.
    Failed,
    /// It reads back differently.
    Differs,
}

/// A range that could not be read, could not be written to one destination, or is different there. Sectors of the device
/// it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRange {
    /// `None` for the source, else the destination's number.
    pub dest: Option<usize>,
    /// What is wrong.
    pub kind: BadKind,
    /// First bad sector on that device.
    pub sector: Sector,
    /// How many.
    pub count: Sector,
    /// Why; of a range that differs `EBADMSG`.
    pub errno: i32,
}

impl BadRange {
    fn end(&self) -> Option<Sector> {
        self.sector.checked_add(self.count)
    }

    fn touches(&self, next: &Self) -> bool {
        let alike = (self.dest, self.kind, self.errno) == (next.dest, next.kind, next.errno);
        alike && self.end() == Some(next.sector)
    }
}

/// Enters a range, as part of its neighbours where they are alike. `false` if the list is full.
pub(super) fn enter(list: &mut Vec<BadRange>, mut new: BadRange) -> bool {
    let longer = |a: Sector, b: Sector| a.checked_add(b).unwrap_or(a);
    let place = list.partition_point(|old| (old.dest, old.sector) < (new.dest, new.sector));
    if list.get(place).is_some_and(|next| new.touches(next)) {
        new.count = longer(new.count, list.remove(place).count);
    }
    let is_full = list.len() >= LISTED_MAX;
    match place.checked_sub(1).and_then(|before| list.get_mut(before)) {
        Some(before) if before.touches(&new) => before.count = longer(before.count, new.count),
        _ if is_full => return false,
        _ => list.insert(place, new),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_list_takes_no_more_but_its_ranges_still_grow() {
        let sector = |number| Sector::new(number).unwrap();
        let range = |at| BadRange { dest: None, kind: BadKind::Failed, sector: sector(at), count: sector(1), errno: 5 };
        let mut list = Vec::new();
        for index in 0..LISTED_MAX as u64 {
            assert!(enter(&mut list, range(index * 4)));
        }
        assert!(!enter(&mut list, range(2)) && enter(&mut list, range(5)) && enter(&mut list, range(3)));
        assert_eq!((list.len(), list[0].count.get()), (LISTED_MAX, 1));
        assert_eq!((list[1].sector.get(), list[1].count.get()), (3, 3));
        assert!(enter(&mut list, range(1)) && enter(&mut list, range(2)), "two become one");
        assert!(list.len() == LISTED_MAX - 1 && enter(&mut list, range(10)), "there is room again");
    }
}
