//! Kills and power cuts, turn by turn: what was flushed stays, whatever else does.

use super::*;
use crate::kcopyd::Stepped;

const SIZE: u64 = 800;

/// Gives a client its turns until it has nothing due, or `end` says so.
fn drive(stepped: &mut Stepped, now: &mut Duration, end: impl Fn() -> bool) {
    loop {
        let turn = stepped.turn(*now);
        if end() {
            return;
        }
        match turn.next {
            Some(next) => *now = next.max(*now),
            None if stepped.is_woken() => {}
            None => return,
        }
    }
}

#[test]
fn what_was_flushed_before_a_power_cut_is_there_after_it() {
    let mut lost = 0;
    for seed in 0..60 {
        let sim = Sim::stepped(seed);
        let pool = PagePool::new(MIN_PAGES).unwrap();
        let mut stepped = Stepped::new(&pool, 0, small(&sim), &sim).unwrap();
        let (from, dest) = (disk(1, SIZE), disk(9, SIZE));
        sim.behave(&dest, Behaviour { cache: true, ..Behaviour::default() });
        let (log, mut now) = (Log::default(), Duration::ZERO);
        let observer: Option<Box<dyn Observer>> = Some(Box::new(log.clone()));
        let request = Request { observer, ..plain(Work::Copy(whole(&from)), &[Arc::clone(&dest)]) };
        let handle = stepped.client.submit(request, (), |_, ()| {}).unwrap();
        let pieces = |log: &Log| log.0.lock().len();
        drive(&mut stepped, &mut now, || pieces(&log) >= 30);
        handle.pause();
        drive(&mut stepped, &mut now, || *log.1.lock() > 0);
        let flushed: Vec<Entry> = log.0.lock().clone();
        let done = Arc::new(Mutex::new(None));
        let theirs = Arc::clone(&done);
        stepped.client.flush(Arc::clone(&dest), move |result| *theirs.lock() = Some(result));
        drive(&mut stepped, &mut now, || done.lock().is_some());
        assert_eq!(*done.lock(), Some(Ok(())), "seed {seed}");
        handle.resume();
        let more = flushed.len() + 20;
        drive(&mut stepped, &mut now, || pieces(&log) >= more);
        stepped.kill();
        assert!(sim.orphans(&dest) > 0, "seed {seed}: something was in flight");
        sim.power_cut();
        assert_eq!((sim.orphans(&dest), pool.figures().free), (0, MIN_PAGES), "seed {seed}");
        for (at, count, ..) in &flushed {
            assert_eq!(bytes_at(&dest, *at, *count), stamp(1, *at, *count), "seed {seed}: what was flushed");
        }
        for sector in 0..SIZE {
            let now = bytes_at(&dest, sector, 1);
            assert!(now == stamp(1, sector, 1) || now == stamp(9, sector, 1), "seed {seed}: sector {sector}");
        }
        let told = log.0.lock();
        lost += told.iter().filter(|piece| bytes_at(&dest, piece.0, piece.1) != stamp(1, piece.0, piece.1)).count();
    }
    assert!(lost > 60, "what was not flushed is not sure: {lost}");
}

#[test]
fn writes_of_a_killed_client_arrive_later() {
    let sim = Sim::stepped(5);
    let pool = PagePool::new(MIN_PAGES).unwrap();
    let mut stepped = Stepped::new(&pool, 0, small(&sim), &sim).unwrap();
    let (from, dest) = (disk(1, SIZE), disk(9, SIZE));
    sim.fault(&dest, Op::Write, 0..8, Fault::Hang, None);
    let ended = Arc::new(Mutex::new(false));
    let told = Arc::clone(&ended);
    let region = [whole(&dest)];
    stepped.client.copy(&whole(&from), &region, Flags::NONE, (), move |_, ()| *told.lock() = true).unwrap();
    let mut now = Duration::ZERO;
    drive(&mut stepped, &mut now, || false);
    assert!(stepped.turn(now).has_work, "the first piece hangs");
    stepped.kill();
    assert!(!*ended.lock() && bytes_at(&dest, 0, 8) == stamp(9, 0, 8));
    assert_eq!(sim.orphans(&dest), 1);
    sim.land_orphans(&dest);
    assert!(sim.orphans(&dest) == 0 && bytes_at(&dest, 0, SIZE) == stamp(1, 0, SIZE));
}
