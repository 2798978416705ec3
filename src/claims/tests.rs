//! Claims without any device: by hand, and against a model that compares each with each.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::blkdev::Place as Disk;
use crate::error::ErrorKind;
use crate::spec::Place;

const SECTORS: u64 = 8;

/// One region, as places and by lasting names: medium `m` is disk `m`.
type Both = (Vec<Extent>, Vec<LastingExtent>);

fn named(path: &str, dev: u64, bytes: Range<u64>) -> Both {
    let path = Arc::from(Path::new(path));
    let extent =
        Extent { place: Disk::Disk { dev }, bytes: bytes.clone(), exact: true, at: Some(0), mapped: false, path };
    (vec![extent], vec![LastingExtent { medium: format!("m{dev}").into(), bytes, exact: true, at: Some(0) }])
}

fn at(dev: u64, bytes: Range<u64>) -> Both {
    named("/dev/x", dev, bytes)
}

fn nothing() -> Both {
    (Vec::new(), Vec::new())
}

/// Somewhere in there, as the slaves of a volume are.
fn loose((mut extents, mut lasting): Both) -> Both {
    for extent in &mut extents {
        (extent.exact, extent.at) = (false, None);
    }
    for extent in &mut lasting {
        (extent.exact, extent.at) = (false, None);
    }
    (extents, lasting)
}

fn both(a: Both, b: Both) -> Both {
    ([a.0, b.0].concat(), [a.1, b.1].concat())
}

fn job(source: Both, dests: Vec<Both>, writes: bool) -> Footprint {
    let (dests, lasting): (Vec<_>, Vec<_>) = dests.into_iter().unzip();
    Footprint::new(source.0, dests, Lasting { source: source.1, dests: lasting, writes, sectors: SECTORS })
}

fn copy(source: Both, dest: Both) -> Footprint {
    job(source, vec![dest], true)
}

fn lost(id: JobId, region: Region, sectors: Range<u64>) -> Overwritten {
    Overwritten { id, region, sectors }
}

const TO: Region = Region::Dest(0);

#[test]
fn a_destination_is_let_go_alone() {
    let mut claims = Claims::default();
    let mut footprint = job(at(8, 0..9), vec![at(9, 0..9), at(10, 0..9)], true);
    claims.claim(1, &footprint).unwrap();
    claims.release_dest(1, 1);
    claims.claim(2, &copy(at(7, 0..9), at(10, 0..9))).unwrap();
    assert!(claims.claim(3, &copy(at(7, 0..9), at(9, 0..9))).is_err() && claims.has_claim(1));
    claims.release(2);
    claims.release(1);
    // What is kept for a job that comes back is less, too.
    claims.reserve(1, footprint.lasting(), Rank::Begun);
    footprint.leave_out(1);
    claims.keep_only(1, footprint.lasting());
    claims.keep_only(2, footprint.lasting());
    claims.claim(3, &copy(at(7, 0..9), at(10, 0..9))).unwrap();
    assert!(claims.claim(4, &copy(at(6, 0..9), at(9, 0..9))).is_err());
    claims.release(1);
    claims.release(3);
    assert!(claims.is_empty());
}

#[test]
fn readers_share_and_writers_do_not() {
    let mut claims = Claims::default();
    claims.claim(1, &copy(at(8, 0..100), at(9, 0..100))).unwrap();
    claims.claim(2, &copy(at(8, 50..150), at(9, 100..200))).unwrap();
    for (footprint, owner, place, text) in [
        (copy(at(7, 0..9), at(8, 120..121)), 2, Place::To(0), "/dev/x is being read by job 2"),
        (copy(at(9, 99..100), at(7, 0..9)), 1, Place::From, "/dev/x is being written by job 1"),
        (job(nothing(), vec![at(6, 0..1), at(9, 100..101)], true), 2, Place::To(1), "/dev/x is being written by job 2"),
        (job(at(6, 0..1), vec![at(9, 0..1)], false), 1, Place::To(0), "/dev/x is being written by job 1"),
    ] {
        let conflict = claims.claim(3, &footprint).unwrap_err();
        assert_eq!((conflict.owner, conflict.place, conflict.error("it").kind()), (owner, place, ErrorKind::Busy));
        assert_eq!(conflict.to_string(), text);
        assert_eq!(claims.conflict(3, &footprint), Some(conflict));
    }
    claims.claim(4, &job(at(8, 0..9), vec![at(8, 0..9)], false)).unwrap();
    assert_eq!(claims.writer_of(&at(9, 150..151).0), Some(2));
    assert_eq!(claims.writer_of(&at(8, 0..9).0), None);
    assert_eq!(claims.conflict(1, &copy(at(9, 0..100), at(9, 0..50))), None, "not in its own way");
}

#[test]
fn the_other_name_is_told() {
    let mut claims = Claims::default();
    claims.claim(7, &copy(nothing(), named("/dev/sdb", 8, 0..100))).unwrap();
    let conflict = claims.claim(8, &copy(named("/dev/sdb1", 8, 10..20), at(9, 0..10))).unwrap_err();
    assert_eq!(conflict.to_string(), "/dev/sdb1 is being written by job 7, by the name /dev/sdb");
    assert!(conflict.error("an earlier line").to_string().contains("written by an earlier line, by the name"));
}

#[test]
fn a_refused_claim_leaves_nothing_and_a_released_one_neither() {
    let mut claims = Claims::default();
    claims.claim(1, &copy(nothing(), at(8, 0..10))).unwrap();
    claims.remember(9, copy(at(5, 0..10), nothing()).lasting());
    claims.claim(2, &job(at(4, 0..10), vec![at(5, 0..10), at(8, 9..10)], true)).unwrap_err();
    assert!(!claims.has_claim(2));
    let told = claims.claim(3, &job(nothing(), vec![at(5, 0..10), at(4, 0..10)], true)).unwrap();
    assert_eq!(told, [lost(9, Region::Source, 0..1)], "the refused one has taken nothing from job 9");
    claims.release(1);
    claims.claim(2, &copy(nothing(), at(8, 0..10))).unwrap();
    claims.release(2);
    claims.release(2);
    claims.release(3);
    assert!(claims.is_empty());
}

#[test]
fn empty_extents_claim_nothing() {
    let mut claims = Claims::default();
    claims.claim(1, &copy(nothing(), at(8, 0..10))).unwrap();
    claims.claim(2, &copy(at(8, 5..5), at(8, 7..7))).unwrap();
    claims.reserve(3, copy(at(8, 5..5), at(7, 7..7)).lasting(), Rank::Begun);
    claims.remember(3, copy(at(8, 5..5), at(7, 7..7)).lasting());
    claims.release(1);
    claims.release(2);
    claims.release(3);
    assert!(claims.is_empty());
}

#[test]
fn volumes_share_a_disk_that_nobody_may_write() {
    let mut claims = Claims::default();
    claims.claim(1, &copy(loose(at(8, 0..100)), loose(at(8, 0..100)))).unwrap();
    claims.claim(2, &copy(nothing(), loose(at(8, 50..100)))).unwrap();
    assert_eq!(claims.claim(3, &copy(nothing(), at(8, 10..20))).unwrap_err().owner, 1);
    assert_eq!(claims.claim(3, &copy(at(8, 10..20), nothing())).unwrap_err().owner, 1);
}

#[test]
fn a_job_is_compared_with_itself() {
    let overlap = |source, a, b| job(source, vec![at(1, 0..10), at(2, a), at(2, b)], true).overlap_within();
    assert_eq!(overlap(at(3, 0..10), 0..5, 5..9), None);
    assert_eq!(overlap(at(3, 0..10), 0..6, 5..9), Some((2, Some(1))));
    assert_eq!(overlap(at(2, 5..6), 0..6, 5..9), Some((1, None)));
    assert_eq!(job(nothing(), vec![], true).overlap_within(), None);
}

#[test]
fn what_had_begun_goes_first_and_the_rest_in_order() {
    let mut claims = Claims::default();
    let to_b = copy(at(1, 0..9), at(2, 0..9));
    claims.reserve(2, to_b.lasting(), Rank::Waiting);
    claims.reserve(3, to_b.lasting(), Rank::Begun);
    let owner = |claims: &Claims, id| claims.conflict(id, &to_b).map(|conflict| conflict.owner);
    assert_eq!([2, 3].map(|id| owner(&claims, id)), [Some(3), None]);
    assert!(owner(&claims, 4).is_some());
    claims.has_asked(3);
    assert_eq!(owner(&claims, 2), Some(3), "it had begun: it keeps its bytes when it is held, too");
    claims.release(3);
    assert_eq!([1, 2, 4].map(|id| owner(&claims, id)), [None, None, Some(2)]);
    let text = claims.conflict(4, &to_b).unwrap().to_string();
    assert_eq!(text, "/dev/x is first for job 2, which waits for its turn");
    assert_eq!(claims.conflict_at_once(4, &to_b), None, "who does not wait passes those that wait");
    claims.has_asked(2);
    assert_eq!(owner(&claims, 4), None);
    assert!(claims.is_empty());
}

#[test]
fn those_that_had_begun_are_not_in_each_others_way() {
    let mut claims = Claims::default();
    for id in [1, 2] {
        claims.reserve(id, copy(at(1, 0..9), at(2, 0..9)).lasting(), Rank::Begun);
    }
    claims.claim(1, &copy(at(1, 0..9), at(2, 0..5))).unwrap();
    claims.claim(2, &copy(at(1, 0..9), at(2, 5..9))).unwrap();
    assert_eq!(claims.claim(3, &copy(at(2, 8..9), at(3, 0..1))).unwrap_err().owner, 2);
}

#[test]
fn who_would_disturb_a_kept_job_is_told_why() {
    let mut claims = Claims::default();
    claims.reserve(1, copy(at(1, 1000..1100), at(2, 2000..2100)).lasting(), Rank::Begun);
    for (footprint, place) in [
        (copy(at(9, 0..1), at(2, 2099..2100)), Some(Place::To(0))),
        (copy(at(9, 0..1), at(2, 2100..2200)), None),
        (copy(at(9, 0..1), at(2, 1900..2000)), None),
        (copy(at(9, 0..1), at(1, 1050..1051)), Some(Place::To(0))),
        (copy(at(1, 1050..1051), at(9, 0..1)), None),
        (copy(at(2, 2050..2051), at(9, 0..1)), Some(Place::From)),
        (job(at(1, 1050..1051), vec![at(9, 0..1), at(2, 0..2001)], false), Some(Place::To(1))),
        (copy(at(9, 0..1), loose(at(2, 0..u64::MAX))), Some(Place::To(0))),
    ] {
        let conflict = claims.conflict_at_once(5, &footprint);
        assert_eq!(conflict.as_ref().map(|conflict| conflict.place), place, "{footprint:?}");
        if let Some(conflict) = conflict {
            let text = "/dev/x is kept for job 1, which had it before the daemon was started again: let that go on, or cancel it";
            assert_eq!((conflict.owner, conflict.to_string().as_str()), (1, text));
        }
    }
    claims.reserve(1, job(at(1, 0..9), vec![at(2, 0..9)], false).lasting(), Rank::Begun);
    assert_eq!(claims.conflict(5, &copy(at(2, 0..9), at(9, 0..9))), None, "a comparison only reads");
    assert!(claims.conflict(5, &copy(at(9, 0..9), at(2, 8..20))).is_some());
}

#[test]
fn a_claim_ends_what_was_kept_and_remembered_of_a_job() {
    let mut claims = Claims::default();
    let footprint = copy(at(1, 0..9), at(2, 0..9));
    claims.reserve(1, footprint.lasting(), Rank::Begun);
    claims.remember(1, footprint.lasting());
    assert_eq!(claims.claim(1, &footprint).unwrap(), []);
    assert!(claims.has_claim(1));
    claims.release(1);
    assert!(claims.is_empty());
}

#[test]
fn who_ended_is_told_what_was_written_since() {
    let mut claims = Claims::default();
    let done = |claims: &mut Claims| claims.remember(1, copy(at(1, 0..4096), at(2, 4096..8192)).lasting());
    let write = |claims: &mut Claims, dest| {
        let told = claims.claim(2, &copy(at(9, 0..1), dest)).unwrap();
        claims.release(2);
        told
    };
    done(&mut claims);
    assert_eq!(write(&mut claims, at(2, 0..4096)), []);
    assert_eq!(write(&mut claims, at(2, 0..4097)), [lost(1, TO, 0..1)]);
    assert_eq!(write(&mut claims, at(2, 5000..5700)), [lost(1, TO, 1..4)], "rounded outward");
    assert_eq!(write(&mut claims, both(at(2, 5000..5700), at(2, 5700..6144))), [lost(1, TO, 1..4)]);
    assert_eq!(write(&mut claims, both(at(2, 4096..4608), at(2, 8191..9000))), [lost(1, TO, 0..1), lost(1, TO, 7..8)]);
    assert_eq!(write(&mut claims, at(1, 512..1024)), [lost(1, Region::Source, 1..2)]);
    assert_eq!(write(&mut claims, at(2, 0..u64::MAX)), [lost(1, TO, 0..8)]);
    assert_eq!(write(&mut claims, at(2, 0..u64::MAX)), [], "it is told once");
    assert_eq!(write(&mut claims, at(1, 0..4096)), [lost(1, Region::Source, 0..8)]);
    assert!(claims.is_empty());
    done(&mut claims);
    claims.forget(1);
    assert!(claims.is_empty());
}

#[test]
fn where_a_byte_is_not_known_the_whole_region_is_lost() {
    let mut claims = Claims::default();
    let volume = |dev, bytes| both(at(dev, bytes), loose(at(3, 0..u64::MAX)));
    claims.remember(1, copy(nothing(), volume(2, 0..4096)).lasting());
    assert_eq!(claims.claim(2, &copy(nothing(), volume(4, 0..512))).unwrap(), [], "a volume of the same group");
    claims.release(2);
    assert_eq!(claims.claim(2, &copy(nothing(), at(3, 0..512))).unwrap(), [lost(1, TO, 0..8)], "its disk");
    assert!(claims.memory.is_empty(), "at no level is anything left");
    claims.release(2);
    claims.remember(1, copy(nothing(), at(3, 1024..5120)).lasting());
    assert_eq!(claims.claim(2, &copy(nothing(), volume(2, 0..512))).unwrap(), [lost(1, TO, 0..8)], "by a volume");
}

#[test]
fn who_only_reads_takes_nothing() {
    let mut claims = Claims::default();
    claims.remember(1, copy(at(1, 0..4096), at(2, 0..4096)).lasting());
    assert_eq!(claims.claim(2, &job(at(1, 0..4096), vec![at(2, 0..4096)], false)).unwrap(), []);
}

#[test]
fn ten_thousand_jobs_of_one_disk_are_cheap() {
    let mut claims = Claims::default();
    let footprint = copy(at(1, 0..4096), at(2, 0..4096));
    for id in 1..=10_000 {
        claims.remember(id, footprint.lasting());
        claims.reserve(id, footprint.lasting(), Rank::Waiting);
    }
    let kept = size_of::<Had>() + size_of::<(RegionCode, Entry<Arc<str>>)>();
    assert!(kept <= 72, "{kept} bytes an extent beside its node");
    for id in 1..=10_000 {
        assert_eq!(claims.conflict(id + 1, &footprint).map(|conflict| conflict.owner), Some(id));
        let told = claims.claim(id, &footprint).unwrap();
        // The first takes it from all others, and they have nothing more to lose.
        assert_eq!(told.len(), if id == 1 { 9_999 } else { 0 });
        claims.release(id);
    }
    (1..=10_000).for_each(|id| claims.forget(id));
    assert!(claims.is_empty());
}

#[test]
fn ten_thousand_jobs_of_64_destinations_are_told_apart() {
    const JOBS: u64 = 10_000;
    const DESTS: u64 = 64;
    let mut claims = Claims::default();
    let footprint = |number: u64| {
        let range = number * 10..number * 10 + 10;
        job(at(DESTS, 0..u64::MAX), (0..DESTS).map(|dest| at(dest, range.clone())).collect(), true)
    };
    for number in 0..JOBS {
        claims.claim(number, &footprint(number)).unwrap();
    }
    assert_eq!(claims.claim(JOBS, &copy(nothing(), at(63, 77_775..77_776))).unwrap_err().owner, 7777);
    (0..JOBS).for_each(|number| claims.release(number));
    assert!(claims.is_empty());
}

/// Bytes, in steps of half a sector.
const STEP: u64 = 256;

fn one_extent() -> impl Strategy<Value = Both> {
    let kinds = prop_oneof![4 => Just((true, true)), 1 => Just((true, false)), 1 => Just((false, false))];
    (0u64..2, 0u64..24, 0..=2 * SECTORS, kinds).prop_map(|(dev, start, length, (exact, known))| {
        let mut both = at(dev, start * STEP..(start + length) * STEP);
        let known = known.then_some(0);
        (both.0[0].exact, both.1[0].exact, both.0[0].at, both.1[0].at) = (exact, exact, known, known);
        both
    })
}

fn footprint() -> impl Strategy<Value = Footprint> {
    let region = || prop_oneof![1 => Just(nothing()), 6 => one_extent(), 2 => (one_extent(), one_extent()).prop_map(|(a, b)| both(a, b))];
    (region(), prop::collection::vec(region(), 1..3), prop::bool::weighted(0.8))
        .prop_map(|(source, dests, writes)| job(source, dests, writes))
}

#[derive(Clone, Debug)]
enum Act {
    Claim(Footprint),
    ClaimAtOnce(Footprint),
    Reserve(Footprint, Rank),
    Remember(Footprint),
    HasAsked,
    Release,
    Forget,
}

fn act() -> impl Strategy<Value = (JobId, Act)> {
    let act = prop_oneof![
        4 => footprint().prop_map(Act::Claim),
        2 => footprint().prop_map(Act::ClaimAtOnce),
        2 => (footprint(), prop::bool::ANY)
            .prop_map(|(one, begun)| Act::Reserve(one, if begun { Rank::Begun } else { Rank::Waiting })),
        3 => footprint().prop_map(Act::Remember),
        1 => Just(Act::HasAsked),
        3 => Just(Act::Release),
        1 => Just(Act::Forget),
    ];
    (1..8u64, act)
}

/// What is remembered of a job, and which sectors of it were told lost since.
#[derive(Debug)]
struct Ended {
    lasting: Lasting,
    told: BTreeSet<(Region, u64)>,
}

/// The same by comparing each with each.
#[derive(Debug, Default)]
struct Model {
    live: BTreeMap<JobId, Footprint>,
    kept: BTreeMap<JobId, (Lasting, Rank)>,
    ended: BTreeMap<JobId, Ended>,
}

fn meet(a: &LastingExtent, b: &LastingExtent) -> bool {
    let overlap = a.bytes.start < b.bytes.end && b.bytes.start < a.bytes.end;
    a.medium == b.medium && (a.exact || b.exact) && overlap && !a.bytes.is_empty() && !b.bytes.is_empty()
}

/// In these tests the lasting names say the same as the places.
fn disturb(a: &Lasting, b: &Lasting) -> bool {
    a.extents().any(|(_, access, mine)| {
        b.extents().any(|(_, theirs, other)| (access == Access::Write || theirs == Access::Write) && meet(mine, other))
    })
}

impl Model {
    fn owners_in_the_way(&self, id: JobId, footprint: &Footprint, waits: bool) -> BTreeSet<JobId> {
        let lasting = footprint.lasting();
        let live = self.live.iter().filter(|(other, theirs)| **other != id && disturb(lasting, theirs.lasting()));
        let mut owners: BTreeSet<_> = live.map(|(other, _)| *other).collect();
        if owners.is_empty() && !self.kept.get(&id).is_some_and(|(_, rank)| *rank == Rank::Begun) {
            owners.extend(self.kept.iter().filter_map(|(other, (theirs, rank))| {
                let first = *rank == Rank::Begun || waits && *other < id;
                (*other != id && first && disturb(lasting, theirs)).then_some(*other)
            }));
        }
        owners
    }

    /// Every sector of `theirs` whose bytes a write of `writer` may change.
    fn changed(writer: &Lasting, theirs: &Lasting) -> BTreeSet<(Region, u64)> {
        let mut changed = BTreeSet::new();
        for (_, access, extent) in writer.extents().filter(|_| writer.writes) {
            for (region, _, had) in theirs.extents().filter(|(.., had)| access == Access::Write && meet(extent, had)) {
                let hit = |sector: &u64| {
                    had.at.is_none_or(|at| {
                        let mut bytes = (sector * 512..(sector + 1) * 512).filter(|byte| *byte >= at);
                        bytes.any(|byte| {
                            let there = had.bytes.start + (byte - at);
                            had.bytes.contains(&there) && extent.bytes.contains(&there)
                        })
                    })
                };
                changed.extend((0..theirs.sectors).filter(hit).map(|sector| (region, sector)));
            }
        }
        changed
    }
}

fn check_claim(
    claims: &mut Claims,
    model: &mut Model,
    (id, footprint, waits): (JobId, Footprint, bool),
) -> std::result::Result<(), TestCaseError> {
    let owners = model.owners_in_the_way(id, &footprint, waits);
    let asked = if waits { claims.conflict(id, &footprint) } else { claims.conflict_at_once(id, &footprint) };
    let answer = if waits { claims.claim(id, &footprint) } else { claims.claim_at_once(id, &footprint) };
    prop_assert_eq!(asked.as_ref(), answer.as_ref().err());
    let told = match answer {
        Err(conflict) => {
            prop_assert!(owners.contains(&conflict.owner), "{} is not among {:?}", conflict.owner, owners);
            return Ok(());
        }
        Ok(told) => told,
    };
    prop_assert!(owners.is_empty(), "{:?} are in the way", owners);
    model.kept.remove(&id);
    model.ended.remove(&id);
    let mut lost = BTreeMap::<JobId, BTreeSet<_>>::new();
    for Overwritten { id, region, sectors } in told {
        prop_assert!(!sectors.is_empty());
        lost.entry(id).or_default().extend(sectors.map(|sector| (region, sector)));
    }
    for (other, ended) in &mut model.ended {
        let told = lost.remove(other).unwrap_or_default();
        let changed = Model::changed(footprint.lasting(), &ended.lasting);
        prop_assert!(told.is_subset(&changed), "job {}: more is told than was lost", other);
        ended.told.extend(told);
        prop_assert!(changed.is_subset(&ended.told), "job {}: {:?} is lost and {:?} told", other, changed, ended.told);
    }
    prop_assert!(lost.is_empty(), "told to nobody: {:?}", lost);
    model.live.insert(id, footprint);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_comparing_each_with_each(acts in prop::collection::vec(act(), 1..60)) {
        let (mut claims, mut model) = (Claims::default(), Model::default());
        for (id, act) in acts {
            let is_live = model.live.contains_key(&id);
            match act {
                Act::Claim(one) if !is_live => check_claim(&mut claims, &mut model, (id, one, true))?,
                Act::ClaimAtOnce(one) if !is_live => check_claim(&mut claims, &mut model, (id, one, false))?,
                Act::Reserve(one, rank) if !is_live => {
                    claims.reserve(id, one.lasting(), rank);
                    model.kept.insert(id, (one.lasting.clone(), rank));
                }
                Act::Remember(one) if !is_live => {
                    claims.remember(id, one.lasting());
                    model.ended.insert(id, Ended { lasting: one.lasting, told: BTreeSet::new() });
                }
                Act::HasAsked => {
                    claims.has_asked(id);
                    model.kept.retain(|other, (_, rank)| *other != id || *rank == Rank::Begun);
                }
                Act::Release => {
                    claims.release(id);
                    model.live.remove(&id);
                    model.kept.remove(&id);
                }
                Act::Forget => {
                    claims.forget(id);
                    model.ended.remove(&id);
                }
                Act::Claim(_) | Act::ClaimAtOnce(_) | Act::Reserve(..) | Act::Remember(_) => {}
            }
            prop_assert_eq!(claims.has_claim(id), model.live.contains_key(&id));
        }
        for id in 1..8 {
            claims.release(id);
            claims.forget(id);
        }
        prop_assert!(claims.is_empty() && claims.live.is_empty() && claims.kept.is_empty() && claims.memory.is_empty());
    }
}
