//! Stamps tell what went wrong, and seeds replay.

use kcopyfs_support::{
    Rng,
    stamp::{Found, Mismatch, check, fill, stamped},
};

#[test]
fn a_stamp_says_what_is_there_instead() {
    let good = stamped(7, 100, 4);
    check(&good, 7, 100).unwrap();
    let found = |change: fn(&mut [u8])| {
        let mut bad = good.clone();
        change(&mut bad[512..1024]);
        let mismatch = check(&bad, 7, 100).unwrap_err();
        assert_eq!((mismatch.sector, mismatch.seed), (101, 7));
        mismatch.found
    };
    assert_eq!(found(|sector| sector.fill(0)), Found::Zeros);
    assert_eq!(found(|sector| fill(sector, 7, 3)), Found::Misplaced { seed: 7, sector: 3 });
    assert_eq!(found(|sector| fill(sector, 8, 101)), Found::Misplaced { seed: 8, sector: 101 });
    assert_eq!(found(|sector| sector[300] ^= 1), Found::Damaged { byte: 300 });
    assert_eq!(found(|sector| sector.fill(0xff)), Found::Foreign);
    let text = Mismatch { sector: 5, seed: 7, found: Found::Misplaced { seed: 8, sector: 9 } }.to_string();
    assert_eq!(text, "sector 5 of seed 0x7 holds sector 9 of seed 0x8");
}

#[test]
fn a_seed_gives_the_same_numbers_again() {
    let numbers = |seed| {
        let mut rng = Rng::new(seed);
        [rng.next_u64(), rng.below(10), rng.within(5..6)]
    };
    assert_eq!(numbers(3), numbers(3));
    assert_ne!(numbers(3)[0], numbers(4)[0]);
    assert_eq!(numbers(3)[2], 5);
    // the published first number of splitmix64 for seed 0
    assert_eq!(Rng::new(0).next_u64(), 0xe220_a839_7b1d_cdaf);
}
