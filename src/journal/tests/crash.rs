//! Faults at every step: what was acknowledged is there, whole, and no number comes again.

use std::collections::{BTreeMap, BTreeSet};

use super::double::{Fault, Faulty, Mistake, Model};
use super::*;

/// What a daemon does with its store.
#[derive(Clone, Debug)]
enum Step {
    /// Jobs and their generations.
    Save(Vec<(JobId, u64)>),
    Remove(JobId),
}

/// A place that a store can be opened in again and again.
trait Ground {
    type Disk: Disk;
    fn disk(&self) -> Self::Disk;
    /// What becomes of it when the daemon is gone.
    fn crash(&self, random: &mut Random);
}

impl Ground for Model {
    type Disk = Self;

    fn disk(&self) -> Self {
        self.clone()
    }

    fn crash(&self, random: &mut Random) {
        self.power_cut(|limit| random.below(limit));
    }
}

impl Ground for tempfile::TempDir {
    type Disk = Dir;

    fn disk(&self) -> Dir {
        Dir::open(self.path()).unwrap()
    }

    fn crash(&self, _: &mut Random) {}
}

/// What a daemon was told.
#[derive(Debug, Default)]
struct Told {
    /// The records that it may rely on.
    sure: BTreeMap<JobId, u64>,
    /// Where a step failed: what may be there instead.
    maybe: BTreeMap<JobId, BTreeSet<Option<u64>>>,
    /// The highest number that was acknowledged.
    used: JobId,
}

impl Told {
    fn step<D: Disk>(&mut self, store: &Store<D>, step: &Step) {
        let (changes, result): (Vec<(JobId, Option<u64>)>, _) = match step {
            Step::Save(jobs) => {
                let records: Vec<Record> = jobs.iter().map(|(id, generation)| record(*id, *generation)).collect();
                let changes = jobs.iter().map(|(id, generation)| (*id, Some(*generation)));
                (changes.collect(), store.save(&records))
            }
            Step::Remove(id) => (vec![(*id, None)], store.remove(*id)),
        };
        if result.is_err() {
            for (id, to) in changes {
                self.maybe.entry(id).or_insert_with(|| [self.sure.get(&id).copied()].into()).insert(to);
            }
            return;
        }
        for (id, to) in changes {
            self.maybe.remove(&id);
            match to {
                Some(generation) => self.sure.insert(id, generation),
                None => self.sure.remove(&id),
            };
            if to.is_some() {
                self.used = self.used.max(id);
            }
        }
        // A store that works again has removed what it refused.
        let sure = &self.sure;
        self.maybe.retain(|id, _| sure.contains_key(id));
    }

    fn check<D: Disk>(&self, opened: &Opened<D>) -> std::result::Result<(), String> {
        let found: BTreeMap<JobId, &Record> = opened.records.iter().map(|record| (record.id, record)).collect();
        let ids: BTreeSet<JobId> = found.keys().chain(self.sure.keys()).chain(self.maybe.keys()).copied().collect();
        for id in &ids {
            let is = found.get(id).map(|found| generation(found));
            let must = self.sure.get(id).copied();
            let fits = self.maybe.get(id).map_or(is == must, |may| may.contains(&is));
            if !fits {
                return Err(format!("job {id} is {is:?}, acknowledged was {must:?}, {:?}", self.maybe));
            }
        }
        if opened.next_id <= self.used || ids.last().is_some_and(|id| found.contains_key(id) && opened.next_id <= *id) {
            return Err(format!("number {} comes again", opened.next_id));
        }
        if !opened.set_aside.is_empty() {
            return Err(format!("{:?}", opened.set_aside));
        }
        Ok(())
    }
}

/// Goes through the steps with a fault at disk step `at`; `Ok(false)` where there are fewer.
fn run<G: Ground>(
    ground: &G,
    steps: &[Step],
    (at, fault, mistake): (u64, Fault, Mistake),
    random: &mut Random,
) -> std::result::Result<bool, String> {
    let disk = Faulty::new(ground.disk(), mistake);
    disk.meet(at, fault);
    let hit = disk.hit();
    let mut told = Told::default();
    let opened = opening::open(disk, 1).map_err(|error| error.to_string())?;
    for step in steps {
        told.step(&opened.store, step);
    }
    drop(opened);
    ground.crash(random);

    let opened = opening::open(ground.disk(), 2).map_err(|error| error.to_string())?;
    told.check(&opened)?;
    // And it works again.
    let mut told = Told { used: told.used, ..Told::default() };
    told.sure.extend(opened.records.iter().map(|record| (record.id, record.total)));
    told.step(&opened.store, &Step::Save(vec![(opened.next_id, 1)]));
    drop(opened);
    told.check(&opening::open(ground.disk(), 3).map_err(|error| error.to_string())?)?;
    Ok(hit())
}

/// The same with a fault at every step there is.
fn run_all<G: Ground>(
    new: impl Fn() -> G,
    steps: &[Step],
    fault: Fault,
    mistake: Mistake,
    random: &mut Random,
) -> std::result::Result<u64, String> {
    for at in 0.. {
        match run(&new(), steps, (at, fault, mistake), random) {
            Ok(true) => {}
            Ok(false) => return Ok(at),
            Err(why) => return Err(format!("{fault:?} at step {at}: {why}")),
        }
    }
    unreachable!()
}

fn story() -> Vec<Step> {
    use Step::{Remove, Save};
    vec![
        Save(vec![(1, 1), (2, 1), (3, 1)]),
        Save(vec![(2, 2)]),
        Save(vec![(1, 2), (4, 1), (5, 1)]),
        Remove(5),
        Remove(1),
        Save(vec![(2, 3), (3, 2), (4, 2)]),
        Save(vec![(6, 1)]),
        Remove(6),
        Remove(2),
        Save(vec![(4, 3)]),
        Remove(3),
        Remove(4),
    ]
}

/// Any steps that a daemon might take.
fn random_story(random: &mut Random) -> Vec<Step> {
    let (mut live, mut next) = (Vec::new(), 1);
    let steps = 4 + random.below(8);
    let mut story = Vec::new();
    for time in 1..=steps as u64 {
        if !live.is_empty() && random.below(3) == 0 {
            story.push(Step::Remove(live.swap_remove(random.below(live.len()))));
            continue;
        }
        let mut jobs: Vec<(JobId, u64)> = live.iter().filter(|_| random.below(2) == 0).map(|id| (*id, time)).collect();
        for _ in 0..=random.below(2) {
            jobs.push((next, time));
            live.push(next);
            next += 1;
        }
        story.push(Step::Save(jobs));
    }
    story
}

const FAULTS: [Fault; 6] =
    [Fault::Die, Fault::Fail(1), Fault::Fail(4), Fault::Fail(40), Fault::DoneAndFail(1), Fault::DoneAndFail(3)];

#[test]
fn killed_or_failing_at_every_step_on_a_real_disk() {
    for fault in [Fault::Die, Fault::Fail(1)] {
        let new = || tempfile::tempdir().unwrap();
        let steps = run_all(new, &story(), fault, Mistake::None, &mut Random(1)).unwrap();
        assert!(steps > 50, "{steps} steps are not the whole story");
    }
}

#[test]
fn power_is_cut_at_every_step() {
    for seed in 0..40 {
        let random = &mut Random(seed);
        let steps = if seed == 0 { story() } else { random_story(random) };
        for fault in FAULTS {
            let result = run_all(Model::default, &steps, fault, Mistake::None, random);
            assert!(result.is_ok(), "seed {seed}: {result:?} in {steps:?}");
        }
    }
}

#[test]
fn what_a_start_has_found_is_found_after_a_power_cut() {
    for (at, seed) in (0..60).flat_map(|at| (0..8).map(move |seed| (at, seed))) {
        let (model, random) = (Model::default(), &mut Random(seed));
        let disk = Faulty::new(model.clone(), Mistake::None);
        disk.meet(at, Fault::Die);
        let store = opening::open(disk, 1).unwrap().store;
        for step in &story() {
            Told::default().step(&store, step);
        }
        let found = opening::open(model.clone(), 2).unwrap().records;
        model.power_cut(|limit| random.below(limit));
        assert_eq!(opening::open(model.clone(), 3).unwrap().records, found, "killed at step {at}, seed {seed}");
    }
}

/// The test is worth something: it finds builds that leave out a sync.
#[test]
fn a_store_that_does_not_sync_is_found_out() {
    for mistake in [Mistake::NoFileSync, Mistake::NoDirSync] {
        let found = (0..10).any(|seed| {
            let random = &mut Random(seed);
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                run_all(Model::default, &story(), Fault::Die, mistake, random).is_err()
            }))
            .unwrap_or(true)
        });
        assert!(found, "{mistake:?} went unnoticed");
    }
}

/// A directory in which something is wrong, and the jobs in it.
fn spoilt(what: &str) -> Model {
    let model = Model::default();
    let opened = opening::open(model.clone(), 1).unwrap();
    opened.store.save(&[record(1, 1), record(2, 1), record(3, 1), record(4, 1)]).unwrap();
    opened.store.remove(4).unwrap();
    opened.store.save(&[record(5, 1)]).unwrap();
    drop(opened);
    let flipped = |name: &str| {
        let mut bytes = model.files()[name].clone();
        bytes[20] ^= 1;
        bytes
    };
    match what {
        "record" => model.put("5.job", &flipped("5.job")),
        "next" => model.put("next", &flipped("next")),
        "copy" => model.put("next.copy", &flipped("next.copy")),
        "version" => model.put(VERSION, &flipped(VERSION)),
        "later" => model.put(VERSION, &seal::seal_as("state", 2, "")),
        _ => unreachable!(),
    }
    model.put("17.tmp", b"half");
    model
}

/// Opens a spoilt directory with a fault at disk step `at`, cuts the power, and opens it again. Says whether the fault was
/// met, and how much was told then.
fn open_twice(what: &str, at: u64, fault: Fault, random: &mut Random) -> (bool, usize) {
    let model = spoilt(what);
    let before = model.files();
    let disk = Faulty::new(model.clone(), Mistake::None);
    disk.meet(at, fault);
    let hit = disk.hit();
    let first = opening::open(disk, 1000).unwrap();
    assert!(first.next_id > 5, "number {} comes again", first.next_id);
    drop(first);
    model.power_cut(|limit| random.below(limit));
    let second = opening::open(model.clone(), 2000).unwrap();
    assert!(second.next_id > 5, "number {} comes again at the second start", second.next_id);
    if what != "later" {
        assert_eq!(second.records.len(), 4 - usize::from(what == "record"));
    }
    second.store.save(&[record(second.next_id, 1)]).unwrap();
    let after: Vec<Vec<u8>> = model.files().into_values().collect();
    for (name, bytes) in before.iter().filter(|(name, _)| id_in(name, ".job").is_some()) {
        assert!(after.contains(bytes), "{name} is neither there nor set aside");
    }
    (hit(), second.set_aside.len())
}

#[test]
fn opening_a_spoilt_directory_may_be_killed_or_fail_at_every_step() {
    for what in ["record", "next", "copy", "version", "later"] {
        let mut told = 0;
        for (fault, seed) in FAULTS.into_iter().flat_map(|fault| (0..8).map(move |seed| (fault, seed))) {
            let random = &mut Random(seed);
            for at in 0.. {
                println!("{what}: {fault:?} at step {at}, seed {seed}");
                let (hit, more) = open_twice(what, at, fault, random);
                told += more;
                if !hit {
                    break;
                }
            }
        }
        assert!(told > 0, "{what}: nothing was told");
    }
}
