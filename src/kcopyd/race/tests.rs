use super::*;

const PIECE: u64 = 1 << 20;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Plays destinations that each take a piece in so many milliseconds (0: never), until one is left behind or time is over. What waits
/// for the slowest holds the job up.
fn play(millis: &[u64], until: u64) -> Option<(u64, ErrorBits, Lag)> {
    let mut race = Race::new(millis.len());
    let live = ErrorBits::first(millis.len());
    for dest in 0..millis.len() {
        race.owes(dest, at(0));
        race.owes(dest, at(0));
    }
    let slowest = *millis.iter().map(|millis| if *millis == 0 { &u64::MAX } else { millis }).max().unwrap();
    for now in 1..until {
        for (dest, millis) in millis.iter().enumerate().filter(|(_, millis)| **millis > 0) {
            if now.is_multiple_of(*millis) {
                race.ended(dest, PIECE, at(now));
                race.owes(dest, at(now));
            }
        }
        if race.is_due(at(now)) {
            let waits = |dests: ErrorBits| {
                let has_slowest = |dest: usize| millis[dest] == 0 || millis[dest] == slowest;
                let all = (0..millis.len()).filter(|dest| has_slowest(*dest)).all(|dest| dests.contains(dest));
                (if all { 8 } else { 0 }, 10)
            };
            if let Some((dests, lag)) = race.look(live, at(now), Some(&waits)) {
                return Some((now, dests, lag));
            }
        }
    }
    None
}

#[test]
fn equals_and_those_not_much_slower_keep_up() {
    assert_eq!(play(&[10, 10, 10], 20_000), None);
    assert_eq!(play(&[10, 30, 12], 20_000), None);
    assert_eq!(play(&[10, 35], 20_000), None);
}

#[test]
fn one_that_is_far_slower_falls_behind_soon() {
    for (millis, slow) in [(&[10, 10, 50][..], 1 << 2), (&[100, 5], 1), (&[50, 10, 60, 10], 0b101)] {
        let (now, dests, lag) = play(millis, 20_000).unwrap();
        assert_eq!((dests.bits(), lag), (slow, Lag::Slow), "{millis:?}");
        assert!((500..=1500).contains(&now), "{millis:?}: {now}");
    }
}

#[test]
fn one_that_hangs_falls_behind_as_soon_as_pages_run_out() {
    let (now, dests, lag) = play(&[10, 0, 10], 20_000).unwrap();
    assert_eq!((dests.bits(), lag), (0b10, Lag::Slow));
    assert!(now <= 1500, "{now}");
}

#[test]
fn one_that_answers_nothing_while_another_does_has_stalled() {
    let mut race = Race::new(3);
    let live = ErrorBits::first(3);
    for dest in 0..2 {
        race.owes(dest, at(0));
    }
    // It has enough pages: nobody is held up.
    race.ended(0, PIECE, at(10));
    assert_eq!(race.look(live, at(4900), None), None);
    let found = race.look(live, at(5000), None).map(|(dests, lag)| (dests.bits(), lag));
    assert_eq!(found, Some((0b10, Lag::Stalled)));
}

#[test]
fn nobody_stalls_where_nobody_answers() {
    let mut race = Race::new(2);
    race.owes(0, at(0));
    race.owes(1, at(0));
    assert_eq!(race.look(ErrorBits::first(2), at(60_000), None), None);
}

#[test]
fn one_that_had_to_wait_for_others_is_not_slow() {
    // It takes a piece in 10 ms, and has one only every 100 ms.
    let mut race = Race::new(2);
    let live = ErrorBits::first(2);
    race.owes(1, at(0));
    for now in 1..10_000 {
        if now % 100 == 0 {
            race.owes(0, at(now));
        }
        if now % 100 == 10 && now > 10 {
            race.ended(0, PIECE, at(now));
        }
        if now % 20 == 0 {
            race.ended(1, PIECE, at(now));
            race.owes(1, at(now));
        }
        if race.is_due(at(now)) {
            assert_eq!(race.look(live, at(now), Some(&|_| (10, 10))), None, "{now}");
        }
    }
}
