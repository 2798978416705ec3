//! The table of claims, without any device.

use std::ops::Range;

use proptest::prelude::*;

use super::*;

fn at(dev: u64, bytes: Range<u64>) -> Vec<Extent> {
    named("/dev/x", dev, bytes)
}

fn named(path: &str, dev: u64, bytes: Range<u64>) -> Vec<Extent> {
    vec![Extent {
        place: Place::Disk { dev },
        bytes,
        exact: true,
        at: Some(0),
        mapped: false,
        path: Arc::from(Path::new(path)),
    }]
}

fn loose(mut extents: Vec<Extent>) -> Vec<Extent> {
    for extent in &mut extents {
        extent.exact = false;
    }
    extents
}

#[test]
fn readers_share_and_writers_do_not() {
    let claims = Claims::default();
    let _one = claims.claim(1, at(8, 0..100), at(9, 0..100)).unwrap();
    let _two = claims.claim(2, at(8, 50..150), at(9, 100..200)).unwrap();
    for (reads, writes, owner, text) in [
        (at(7, 0..9), at(8, 120..121), 2, "/dev/x is being read by job 2"),
        (at(9, 99..100), at(7, 0..9), 1, "/dev/x is being written by job 1"),
        (vec![], at(9, 100..101), 2, "/dev/x is being written by job 2"),
    ] {
        let conflict = claims.claim(3, reads, writes).unwrap_err();
        assert_eq!((conflict.owner, conflict.error("it").kind()), (owner, ErrorKind::Busy));
        assert_eq!(conflict.to_string(), text);
    }
    assert!(claims.conflicts_with(1, &at(9, 0..100), &at(8, 0..50)).is_none());
}

#[test]
fn the_other_name_is_told() {
    let claims = Claims::default();
    let _one = claims.claim(7, vec![], named("/dev/sdb", 8, 0..100)).unwrap();
    let conflict = claims.claim(8, named("/dev/sdb1", 8, 10..20), vec![]).unwrap_err();
    assert_eq!(conflict.to_string(), "/dev/sdb1 is being written by job 7, by the name /dev/sdb");
}

#[test]
fn a_refused_claim_leaves_nothing_and_a_dropped_one_neither() {
    let claims = Claims::default();
    let one = claims.claim(1, vec![], at(8, 0..10)).unwrap();
    claims.claim(2, at(5, 0..10), [at(6, 0..10), at(8, 9..10)].concat()).unwrap_err();
    let three = claims.claim(3, vec![], [at(5, 0..10), at(6, 0..10)].concat()).unwrap();
    drop(one);
    let two = claims.claim(2, vec![], at(8, 0..10)).unwrap();
    drop((two, three));
    assert!(claims.is_empty());
}

#[test]
fn empty_extents_claim_nothing() {
    let claims = Claims::default();
    let _one = claims.claim(1, vec![], at(8, 0..10)).unwrap();
    let _two = claims.claim(2, at(8, 5..5), at(8, 7..7)).unwrap();
}

#[test]
fn volumes_share_a_disk_that_nobody_may_write() {
    let claims = Claims::default();
    let _one = claims.claim(1, loose(at(8, 0..100)), loose(at(8, 0..100))).unwrap();
    let _two = claims.claim(2, vec![], loose(at(8, 50..100))).unwrap();
    assert_eq!(claims.claim(3, vec![], at(8, 10..20)).unwrap_err().owner, 1);
    assert_eq!(claims.claim(3, at(8, 10..20), vec![]).unwrap_err().owner, 1);
}

#[test]
fn a_job_is_compared_with_itself() {
    let dests = |a, b| vec![at(1, 0..10), at(2, a), at(2, b)];
    assert_eq!(overlap_within(&at(3, 0..10), &dests(0..5, 5..9)), None);
    assert_eq!(overlap_within(&at(3, 0..10), &dests(0..6, 5..9)), Some((2, Some(1))));
    assert_eq!(overlap_within(&at(2, 5..6), &dests(0..6, 5..9)), Some((1, None)));
    assert_eq!(overlap_within(&[], &[]), None);
}

#[test]
fn ten_thousand_jobs_of_64_destinations_are_told_apart() {
    const JOBS: u64 = 10_000;
    const DESTS: u64 = 64;
    let claims = Claims::default();
    let job = |job: u64| {
        let writes = (0..DESTS).flat_map(|dest| at(dest, job * 10..job * 10 + 10)).collect();
        claims.claim(job, at(DESTS, 0..u64::MAX), writes)
    };
    let held: Vec<_> = (0..JOBS).map(|number| job(number).unwrap()).collect();
    let conflict = claims.claim(JOBS, vec![], at(63, 77_775..77_776)).unwrap_err();
    assert_eq!(conflict.owner, 7777);
    drop(held);
    assert!(claims.is_empty());
}

proptest! {
    #[test]
    fn agrees_with_comparing_each_with_each(
        jobs in prop::collection::vec((0u64..2, 0u64..40, 1u64..10, any::<bool>(), any::<bool>()), 1..40),
    ) {
        let claims = Claims::default();
        let mut held: Vec<(Extent, bool, Claim)> = Vec::new();
        for (owner, (dev, start, length, writes, exact)) in (0u64..).zip(jobs) {
            let mut extent = at(dev, start..start + length);
            extent[0].exact = exact;
            let free = !held.iter().any(|(other, theirs, _)| (writes || *theirs) && other.overlaps(&extent[0]));
            let (reads, written) = if writes { (vec![], extent.clone()) } else { (extent.clone(), vec![]) };
            let claim = claims.claim(owner, reads, written);
            prop_assert_eq!(claim.is_ok(), free);
            if let Ok(claim) = claim {
                held.push((extent.remove(0), writes, claim));
            }
            if start % 5 == 0 && !held.is_empty() {
                drop(held.swap_remove(0));
            }
        }
    }
}
