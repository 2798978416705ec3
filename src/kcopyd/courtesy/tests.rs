use super::*;

fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

/// A device that works on `servers` pieces at once, each for a millisecond, beside `others` requests that are always there. Plays
/// so many pieces, one round after the other; the time that it took.
fn play(courtesy: &mut Courtesy, servers: u64, others: u64, pieces: u64, mut now: Duration) -> Duration {
    let mut left = pieces;
    while left > 0 {
        now = now.max(courtesy.rests_until());
        let depth = courtesy.pieces().min(left);
        let took = micros((1000 * (depth + others) / servers).max(1000));
        now += took;
        (0..depth).for_each(|_| courtesy.ended(now, took));
        left -= depth;
    }
    now
}

#[test]
fn alone_it_fills_the_device() {
    for servers in [1, 4, 32] {
        let mut courtesy = Courtesy::new();
        let start = play(&mut courtesy, servers, 0, 2000, Duration::ZERO);
        assert!(
            courtesy.pieces() >= servers && courtesy.pieces() <= servers * 3 / 2 + 2,
            "{servers}: {}",
            courtesy.pieces()
        );
        let took = play(&mut courtesy, servers, 0, 6400, start).saturating_sub(start);
        assert!(took * 10 <= micros(1000 * 6400 / servers) * 11, "{servers}: {took:?}");
    }
}

#[test]
fn beside_others_it_is_down_to_one_piece_and_rests_and_it_comes_back() {
    let mut courtesy = Courtesy::new();
    let alone = play(&mut courtesy, 1, 0, 500, Duration::ZERO);
    let busy = play(&mut courtesy, 1, 4, 30, alone);
    assert_eq!(courtesy.pieces(), 1);
    let later = play(&mut courtesy, 1, 4, 20, busy);
    let (at_work, took) = (micros(1000 * 20), later.saturating_sub(busy));
    assert!(took > at_work * 100, "one of a hundred at most meets it: {took:?}");
    // The others have gone.
    let back = play(&mut courtesy, 1, 0, 200, later);
    let fast = play(&mut courtesy, 1, 0, 1000, back).saturating_sub(back);
    assert!(fast * 10 <= micros(1000 * 1000) * 11, "{fast:?}");
}
