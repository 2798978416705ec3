//! A job with a destination that hangs, from the first step to its end: what others see of the others meanwhile, and what becomes of it.

use std::time::Duration;

use super::super::view::{DestState, State, Verb};
use super::disks::SIZE;
use super::random::Random;
use super::world::World;
use super::{Stage, Wrong};
use crate::io::Op;
use crate::io::sim::Fault;

const BYTES: u64 = SIZE * 512;
/// The disk that hangs, and its number among the destinations.
const SICK: (usize, usize) = (4, 3);
const LINE: &str = "from=/dev/a,0,96 to=/dev/b to=/dev/c to=/dev/d to=/dev/e";
const WORDS: [&str; 5] = ["", " verify", " verify digest=sha256", " write_seq verify", " client=other retries=2"];

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Plays a job whose fourth destination does that with writes to its second half, for a minute. `None` where the start failed.
fn play<'a>(stage: &'a Stage, seed: u64, words: &str, op: Op, fault: Fault) -> Option<World<'a>> {
    let mut world = World::new(seed, &stage.bank, &stage.pool, None::<Wrong>, false);
    let half = if op == Op::Flush { 0..1 } else { SIZE / 2..SIZE };
    world.disks.sim.fault(&world.disks.devices[SICK.0], op, half, fault, Some(64));
    world.submit_lines(&[format!("{LINE}{words}")], &mut Random::new(seed));
    world.run(seconds(60)).unwrap();
    // A lock that failed.
    let state = world.state(1);
    if state.is_none_or(State::is_ended) || state == Some(State::Queued) {
        world.leave();
        return None;
    }
    Some(world)
}

/// Three have everything, for good, and were compared if that was asked for.
fn assert_three_are_through(world: &World<'_>, words: &str) {
    let job = &world.daemon.core.jobs[&1];
    assert_eq!(job.state(), State::Running, "{words}");
    for (index, dest) in job.progress.dests.iter().enumerate() {
        let all = (dest.taken.bytes(), dest.durable.bytes()) == (BYTES, BYTES);
        assert_eq!(all, index != SICK.1, "{words}: {index} {dest:?}");
    }
    assert_eq!(job.progress.dest_state(SICK.1, false), DestState::Behind);
    let view = job.card.view(world.clock().instant);
    assert_eq!(view.dests[SICK.1].state, DestState::Stalled, "{words}");
    assert_eq!((view.course.verified == BYTES, view.eta), (words.contains("verify"), None), "{words}");
    assert!(view.stalled >= seconds(40), "{:?}", view.stalled);
    let error = view.error.unwrap();
    assert!(error.contains("/dev/e") && error.contains("drop 3"), "{error}");
}

fn each(mut then: impl FnMut(&mut World<'_>, &str), fault: Fault) {
    let mut stage = Stage::new();
    for words in WORDS {
        let mut played = 0;
        for seed in 0..12 {
            if let Some(mut world) = play(&stage, seed, words, Op::Write, fault) {
                assert_three_are_through(&world, words);
                then(&mut world, words);
                played += 1;
                world.leave();
            }
        }
        assert!(played > 2, "{words}: {played} of 12");
        // What hung has pages.
        stage = Stage::new();
    }
}

#[test]
fn three_of_four_are_through_while_the_fourth_hangs_and_it_is_caught_up_when_it_answers() {
    each(
        |world, words| {
            world.run(seconds(40_000)).unwrap();
            let job = &world.daemon.core.jobs[&1];
            assert_eq!(job.state(), State::Done, "{words}: {:?}", job.card.view(world.clock().instant).error);
            assert!(!words.contains("verify") || job.progress.verified == BYTES);
            assert_eq!(job.digest.is_some(), words.contains("digest"), "{words}");
        },
        Fault::Delay(seconds(600)),
    );
}

#[test]
fn one_that_hangs_for_ever_is_dropped_by_hand_and_keeps_its_disk_until_it_answers() {
    each(
        |world, words| {
            world.control(1, Verb::Drop(SICK.1)).unwrap();
            world.run(seconds(90)).unwrap();
            assert_eq!(world.state(1), Some(State::Degraded), "{words}");
            assert!(world.daemon.core.claims.has_late(1), "a write is still under way there");
            world.submit_lines(&["zero to=/dev/e,64,8".to_owned()], &mut Random::new(1));
            world.run(seconds(120)).unwrap();
            assert_eq!(world.state(2), None, "nobody else writes there");
            // Nor does the job itself.
            world.control(1, Verb::Retry(crate::spec::Policy::SAME)).unwrap();
            world.run(seconds(150)).unwrap();
            assert_eq!(world.state(1), Some(State::Queued), "{words}");
            let error = world.daemon.core.jobs[&1].card.view(world.clock().instant).error.unwrap();
            assert!(error.contains("/dev/e") && error.contains("has not ended"), "{error}");
        },
        Fault::Hang,
    );
}

#[test]
fn pause_resume_a_kill_and_cancel_work_with_one_behind() {
    each(
        |world, words| {
            world.control(1, Verb::Pause).unwrap();
            world.run(seconds(70)).unwrap();
            assert_eq!(world.state(1), Some(State::Paused), "{words}");
            world.check_paused().unwrap();
            world.control(1, Verb::Resume).unwrap();
            world.run(seconds(80)).unwrap();
            assert_eq!(world.state(1), Some(State::Running), "{words}");
            if words.contains("write_seq") {
                world.control(1, Verb::Cancel).unwrap();
                world.run(seconds(90)).unwrap();
                let error = world.daemon.core.jobs[&1].card.view(world.clock().instant).error.unwrap();
                assert!(world.state(1) == Some(State::Running) && error.contains("in flight"), "{error}");
                world.run(seconds(700)).unwrap();
                assert_eq!(world.state(1), Some(State::Cancelled), "{words}");
            } else if world.keeps {
                world.disks.sim.clear();
                world.count_down(Some(false)).unwrap();
                world.run(seconds(300)).unwrap();
                if world.state(1) == Some(State::Held) {
                    // It has a disk that nobody can recognise.
                    world.control(1, Verb::Resume).unwrap();
                    world.run(seconds(600)).unwrap();
                }
                assert_eq!(world.state(1), Some(State::Done), "{words}");
            }
        },
        Fault::Delay(seconds(600)),
    );
}

#[test]
fn one_that_hangs_in_its_flush_alone_is_not_waited_for() {
    let stage = Stage::new();
    let mut played = 0;
    for seed in 0..12 {
        let Some(mut world) = play(&stage, seed, " verify", Op::Flush, Fault::Delay(seconds(600))) else { continue };
        let job = &world.daemon.core.jobs[&1];
        assert_eq!((job.state(), job.progress.verified), (State::Running, BYTES));
        assert!(job.progress.dests[..SICK.1].iter().all(|dest| dest.durable.bytes() == BYTES));
        assert_eq!(job.progress.dests[SICK.1].durable.bytes(), 0);
        world.run(seconds(3000)).unwrap();
        assert_eq!(world.state(1), Some(State::Done));
        world.leave();
        played += 1;
    }
    assert!(played > 2, "{played}");
}
