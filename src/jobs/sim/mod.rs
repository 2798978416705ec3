//! A whole daemon in one thread, from one seed, in virtual time.
//!
//! ```text
//! admin ── acts ──> world ── events ──> Core (the real one) ── effects ──> hands ──┬─> engine: the real kcopyd worker, by turns
//!   by number          │ <──────────────────── answers, later ─────────────────────┼─> journal: the real store, on a disk in memory
//! random               └─> model: what must be true                                └─> disks: io::sim, with caches and faults
//! ```
//! `KCOPYFS_SIM=N` plays so many schedules, `KCOPYFS_SIM_SEED=N` that one, and tells its story.
//! A schedule that fails is made shorter: what people did is left out where it fails all the same.
//! Wrong builds spoil what goes between the owner and the world ([`wrong`]); each must be found.

mod admin;
mod behind;
mod disks;
mod hands;
mod journal;
mod model;
mod random;
mod story;
mod world;
mod wrong;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use disks::Bank;
use random::Random;
use world::World;
use wrong::Wrong;

use super::job::Job;
use super::state::may_become;
use super::view::{State, Verb};
use crate::io::{MIN_PAGES, PagePool};

/// Schedules that every run of the tests plays. They make every change of state that the table has.
const SCHEDULES: u64 = 3000;
/// A wrong build is found within so many; those that are known, within [`SCHEDULES`].
const ENOUGH: u64 = 20_000;

/// Schedules that have found a defect of the program, and what it was. Every run plays them first.
const MENDED: [(u64, &str); 7] = [
    (8969, "resumed with another device, a job took bytes that were kept for one that had begun"),
    (
        14275,
        "a job that was cancelled before it had its bytes back, and retried, was recorded as one that has its claim",
    ),
    (2342, "a record that was read at a start was an older one after a power cut"),
    (852, "a job went on with other devices, where nothing lasting was known of those that it began with"),
    (455_411, "a claim was recorded by a verb, and given back for a locked file, and its record still told of it"),
    (113_459, "after a restart a job counted as equal what was not durable on its destinations"),
    (
        818_813,
        "after a restart one that only waited took the bytes of one that had begun, while that opened its devices",
    ),
];

/// Failures that are told.
const MOST_FAILURES: u64 = 20;

type Coverage = [[u64; 10]; 10];

/// What many runs share.
struct Stage {
    bank: Bank,
    pool: Arc<PagePool>,
}

/// How a run is played.
#[derive(Clone, Default)]
struct Play {
    seed: u64,
    wrong: Option<Wrong>,
    without: BTreeSet<u64>,
    tells: bool,
}

impl Stage {
    fn new() -> Self {
        Self { bank: Bank::new(), pool: PagePool::new(MIN_PAGES).expect("memory") }
    }

    /// Plays one schedule. The acts, and what went wrong.
    fn play(&mut self, play: &Play, coverage: &mut Coverage) -> (u64, Result<(), String>, Vec<String>) {
        let free = self.pool.figures().free;
        let mut random = Random::new(play.seed ^ 0x51a7);
        let acts = 4 + random.below(26);
        let mut world = World::new(play.seed, &self.bank, &self.pool, play.wrong, play.tells);
        let outcome = catch_unwind(AssertUnwindSafe(|| live(&mut world, play, acts, free, &mut random)));
        let result = outcome.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Err(text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default())
        });
        for (sums, counts) in coverage.iter_mut().zip(&world.model.coverage) {
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        let story = world.story.take().unwrap_or_default();
        if result.is_err() {
            // Whatever it holds is not needed any more.
            std::mem::forget(world);
            self.pool = PagePool::new(MIN_PAGES).expect("memory");
        } else {
            world.leave();
        }
        (acts, result, story)
    }

    /// Leaves out what is not needed for a failure, and tells the rest.
    fn explain(&mut self, mut play: Play, acts: u64) -> String {
        let mut unused = Coverage::default();
        for act in (0..acts).rev() {
            play.without.insert(act);
            if self.play(&play, &mut unused).1.is_ok() {
                play.without.remove(&act);
            }
        }
        play.tells = true;
        let (_, result, story) = self.play(&play, &mut unused);
        let kept = acts - play.without.len() as u64;
        format!("{}\n{:?}\nseed {}, {kept} acts of {acts}", story.join("\n"), result.err(), play.seed)
    }
}

fn live(world: &mut World<'_>, play: &Play, acts: u64, free: u32, random: &mut Random) -> Result<(), String> {
    for act in 0..acts {
        let until = world.now + admin::pause(random);
        world.run(until)?;
        let mut own = Random::new(play.seed.wrapping_mul(64) + act);
        if play.without.contains(&act) {
            continue;
        }
        for _ in 0..100 {
            if world.daemon.restored {
                break;
            }
            world.run(world.now + Duration::from_millis(50))?;
        }
        world.act(&mut own)?;
    }
    world.heal()?;
    world.run(world.now + Duration::from_secs(120))?;
    world.check_paused()?;
    // One that ends may let another go that is then held: one after the other, at the worst.
    for round in 0..40 {
        let stands = |state: State| matches!(state, State::Paused | State::Held);
        let jobs = world.daemon.core.jobs.values();
        let ids: Vec<u64> = jobs.filter(|job| stands(job.state())).map(Job::id).collect();
        if round > 5 && ids.is_empty() {
            break;
        }
        for id in ids {
            if world.state(id).is_some_and(stands) {
                // One that names a disk twice by now never runs.
                world.control(id, if round < 4 { Verb::Resume } else { Verb::Cancel })?;
            }
        }
        world.run(world.now + Duration::from_secs(300))?;
    }
    world.check_end(free)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Legal changes of state that no schedule has made, and all with their counts.
fn report(coverage: &Coverage) -> (Vec<String>, String) {
    let mut missing = Vec::new();
    let mut table = String::new();
    for (row, old) in State::ALL.iter().enumerate() {
        for (column, new) in State::ALL.iter().enumerate().filter(|(_, new)| may_become(*old, **new)) {
            let line = format!("{} {}", old.as_str(), new.as_str());
            let _ = writeln!(table, "{:>10} {line}", coverage[row][column]);
            if coverage[row][column] == 0 {
                missing.push(line);
            }
        }
    }
    (missing, table)
}

#[test]
fn a_daemon_keeps_its_promises_whatever_happens() {
    let mut stage = Stage::new();
    let mut coverage = Coverage::default();
    if let Some(seed) = number("KCOPYFS_SIM_SEED") {
        let play = Play { seed, tells: true, ..Play::default() };
        let (acts, result, story) = stage.play(&play, &mut coverage);
        println!("{}", story.join("\n"));
        let explained = result.map_err(|_| stage.explain(Play { seed, ..Play::default() }, acts));
        return explained.unwrap_or_else(|story| panic!("{story}"));
    }
    let schedules = number("KCOPYFS_SIM").unwrap_or(SCHEDULES);
    let first = number("KCOPYFS_SIM_FIRST").unwrap_or(0);
    let began = Instant::now();
    let mut failures = Vec::new();
    for seed in MENDED.iter().map(|(seed, _)| *seed).chain(first..first + schedules) {
        let play = Play { seed, ..Play::default() };
        let (acts, result, _) = stage.play(&play, &mut coverage);
        if let Err(what) = result {
            eprintln!("KCOPYFS_SIM_SEED={seed} plays it again: {what}");
            failures.push((play, acts));
            if failures.len() as u64 == MOST_FAILURES {
                break;
            }
        }
    }
    if let Some((play, acts)) = failures.first() {
        panic!("{}", stage.explain(play.clone(), *acts));
    }
    let (missing, table) = report(&coverage);
    let rate = u128::from(schedules) * 1000 / began.elapsed().as_millis().max(1);
    println!("{schedules} schedules, {rate} a second\n{table}never: {missing:?}");
    assert!(schedules < SCHEDULES || missing.is_empty(), "no schedule has made these changes: {missing:?}");
}

#[test]
fn every_wrong_build_is_found() {
    let mut stage = Stage::new();
    let mut missed = Vec::new();
    for wrong in Wrong::ALL {
        let found = (0..ENOUGH).find_map(|seed| {
            let play = Play { seed, wrong: Some(wrong), ..Play::default() };
            let what = stage.play(&play, &mut Coverage::default()).1.err()?;
            // It counts only where the right build has nothing.
            let right = stage.play(&Play { wrong: None, ..play }, &mut Coverage::default()).1;
            right.is_ok().then_some((seed + 1, what))
        });
        match found {
            Some((count, what)) => println!("{wrong:?}: found after {count} schedules: {what}"),
            None => missed.push(wrong),
        }
    }
    assert!(missed.is_empty(), "not found in {ENOUGH} schedules: {missed:?}");
}
