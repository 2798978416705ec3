//! The walk over topologies made by hand.

use std::collections::HashMap;

use super::*;
use crate::blkdev::dm::{On, Piece};

/// Devices by number; what is not in it has nothing below.
#[derive(Default)]
pub(in crate::blkdev) struct Fake(HashMap<u64, Below>);

impl Fake {
    pub(in crate::blkdev) fn with(mut self, dev: u64, below: Below) -> Self {
        self.0.insert(dev, below);
        self
    }
}

impl Topology for Fake {
    fn below(&self, dev: u64) -> Below {
        self.0.get(&dev).cloned().unwrap_or(Below::Nothing)
    }
}

pub(in crate::blkdev) fn loop_over(backing: Backing, offset: u64) -> Below {
    Below::Loop { backing, offset, limit: u64::MAX }
}

pub(in crate::blkdev) fn file(ino: u64) -> Place {
    Place::File { dev: 99, ino }
}

pub(in crate::blkdev) fn walk(topology: &Fake, dev: u64, bytes: Range<u64>) -> Vec<Extent> {
    let mut walk = Walk::new(topology, Path::new("/dev/x"));
    walk.block(dev, bytes).unwrap();
    walk.found
}

fn plain(extents: &[Extent]) -> Vec<(Place, Range<u64>, bool)> {
    extents.iter().map(|extent| (extent.place.clone(), extent.bytes.clone(), extent.exact)).collect()
}

const SDA: u64 = 80;
const SDA1: u64 = 81;
const SDA2: u64 = 82;
const LOOP0: u64 = 70;
const LOOP0P1: u64 = 71;
const LOOP1: u64 = 72;
const DM0: u64 = 90;
const DM1: u64 = 91;

fn disk() -> Fake {
    Fake::default()
        .with(SDA1, Below::Partition { disk: SDA, start: 1000, size: 500 })
        .with(SDA2, Below::Partition { disk: SDA, start: 1500, size: 500 })
}

#[test]
fn a_partition_is_a_range_of_its_disk() {
    let found = walk(&disk(), SDA1, 10..20);
    assert_eq!(plain(&found), [(Place::Disk { dev: SDA }, 1010..1020, true)]);
    let whole = walk(&disk(), SDA, 0..u64::MAX);
    assert!(found[0].overlaps(&whole[0]));
    assert!(!walk(&disk(), SDA1, 0..u64::MAX)[0].overlaps(&walk(&disk(), SDA2, 0..u64::MAX)[0]));
}

#[test]
fn a_partition_of_a_loop_reaches_the_file_through_both() {
    let topology = Fake::default()
        .with(LOOP0P1, Below::Partition { disk: LOOP0, start: 1000, size: 500 })
        .with(LOOP0, loop_over(Backing::File(file(7)), 4096));
    let expected = [(Place::Disk { dev: LOOP0 }, 1010..1020, true), (file(7), 5106..5116, true)];
    assert_eq!(plain(&walk(&topology, LOOP0P1, 10..20)), expected);
}

#[test]
fn a_loop_over_a_loop_over_a_partition_reaches_the_disk() {
    let topology =
        disk().with(LOOP1, loop_over(Backing::Block(LOOP0), 8)).with(LOOP0, loop_over(Backing::Block(SDA1), 16));
    let levels = [(LOOP1, 0..4), (LOOP0, 8..12), (SDA, 1024..1028)];
    let expected = levels.map(|(dev, bytes)| (Place::Disk { dev }, bytes, true));
    assert_eq!(plain(&walk(&topology, LOOP1, 0..4)), expected);
}

#[test]
fn a_loops_size_limit_keeps_neighbours_apart() {
    let topology = Fake::default()
        .with(LOOP0, Below::Loop { backing: Backing::File(file(7)), offset: 0, limit: 100 })
        .with(LOOP1, loop_over(Backing::File(file(7)), 100));
    let (first, second) = (walk(&topology, LOOP0, 0..u64::MAX), walk(&topology, LOOP1, 0..u64::MAX));
    assert_eq!(first[1].bytes, 0..100);
    assert!(!first.iter().any(|a| second.iter().any(|b| a.overlaps(b))));
}

#[test]
fn volumes_of_one_disk_are_apart_but_not_from_the_disk() {
    let topology = disk().with(DM0, Below::Slaves(vec![SDA1])).with(DM1, Below::Slaves(vec![SDA1, SDA1]));
    let (zero, one) = (walk(&topology, DM0, 0..8), walk(&topology, DM1, 0..8));
    assert_eq!(plain(&one), [(Place::Disk { dev: DM1 }, 0..8, true), (Place::Disk { dev: SDA }, 1000..1500, false)]);
    assert!(!zero.iter().any(|a| one.iter().any(|b| a.overlaps(b))));
    let over = |dev, bytes| walk(&topology, dev, bytes).iter().any(|a| one.iter().any(|b| a.overlaps(b)));
    assert!(over(SDA, 0..2000) && over(SDA1, 499..500) && over(DM1, 7..9));
    assert!(!over(SDA2, 0..500) && !over(SDA, 0..1000));
}

#[test]
fn a_map_tells_where_each_part_of_a_region_is() {
    let on = |dev, start| On::Linear { dev, start };
    let stripe = |dev, index| On::Stripe { dev, start: 100, index, count: 2, chunk: 8 };
    let topology = disk()
        .with(
            DM0,
            Below::Map(vec![
                Piece { bytes: 0..100, on: vec![on(SDA1, 400), on(LOOP0, 0)] },
                Piece { bytes: 100..200, on: vec![on(SDA1, 0)] },
                Piece { bytes: 200..300, on: vec![On::Somewhere { dev: LOOP1 }] },
            ]),
        )
        .with(DM1, Below::Map(vec![Piece { bytes: 0..64, on: vec![stripe(LOOP0, 0), stripe(LOOP1, 1)] }]));
    let found = |dev, bytes| -> Vec<_> {
        walk(&topology, dev, bytes)
            .into_iter()
            .map(|Extent { place, bytes, exact, at, mapped, .. }| match place {
                Place::Disk { dev } => (dev, bytes, exact, at, mapped),
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(
        found(DM0, 90..210),
        [
            (DM0, 90..210, true, Some(0), false),
            (SDA, 1490..1500, true, Some(0), true),
            (LOOP0, 90..100, true, Some(0), true),
            (SDA, 1000..1100, true, Some(10), true),
            (LOOP1, 0..u64::MAX, false, None, true),
        ]
    );
    assert_eq!(
        found(DM1, 4..18),
        [(DM1, 4..18, true, Some(0), false), (LOOP0, 104..110, true, None, true), (LOOP1, 100..108, true, None, true),]
    );
    assert_eq!(found(DM1, 0..4).len(), 2, "one stripe alone is touched");
}

#[test]
fn nothing_is_reached_by_nothing_or_beyond_the_end() {
    assert!(walk(&disk(), SDA1, 5..5).is_empty());
    assert!(walk(&disk(), SDA1, 500..600).is_empty());
}

#[test]
fn a_topology_that_turns_in_a_circle_ends() {
    let topology = Fake::default().with(DM0, Below::Slaves(vec![DM1])).with(DM1, Below::Slaves(vec![DM0]));
    assert_eq!(walk(&topology, DM0, 0..1).len(), 3);
    let topology = Fake::default().with(LOOP0, loop_over(Backing::Block(LOOP0), 1));
    let mut walk = Walk::new(&topology, Path::new("/dev/x"));
    assert_eq!(walk.block(LOOP0, 0..9).unwrap_err().kind(), ErrorKind::Invalid);
}
