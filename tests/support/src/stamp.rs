//! Data that says where it belongs.
//!
//! Every sector of 512 bytes carries its own number, the seed, and a pseudo-random tail made of both. A block that went
//! to the wrong place, came from the wrong disk, or was damaged on the way is therefore told apart from one that never
//! came. All randomness of the tests comes from [`Rng`], whose seed is printed and can be set.

use std::{fmt, ops::Range};

/// Bytes of a stamped sector.
pub const SECTOR: usize = 512;

/// Bytes of the head: the sector's number and the seed, little endian.
const HEAD: usize = 16;

/// The environment variable that sets the seed of [`Rng::from_env_or`].
pub const SEED_VARIABLE: &str = "KCOPYFS_SEED";

/// Stamps every sector of `buf`, whose first sector is number `first_sector`.
///
/// # Panics
/// If `buf` is not whole sectors.
pub fn fill(buf: &mut [u8], seed: u64, first_sector: u64) {
    assert!(buf.len().is_multiple_of(SECTOR), "{} bytes are not whole sectors", buf.len());
    for (index, sector) in (0..).zip(buf.chunks_exact_mut(SECTOR)) {
        // what is read back may claim any number
        let number = first_sector.wrapping_add(index);
        sector[..8].copy_from_slice(&number.to_le_bytes());
        sector[8..HEAD].copy_from_slice(&seed.to_le_bytes());
        Rng::new(seed ^ number.wrapping_mul(0xd134_2543_de82_ef95)).fill(&mut sector[HEAD..]);
    }
}

/// `sectors` stamped sectors from number `first_sector` on.
pub fn stamped(seed: u64, first_sector: u64, sectors: usize) -> Vec<u8> {
    let mut buf = vec![0; sectors * SECTOR];
    fill(&mut buf, seed, first_sector);
    buf
}

/// Compares `buf` with what [`fill`] would have put there.
///
/// # Errors
/// The first sector that differs, and what is there instead.
pub fn check(buf: &[u8], seed: u64, first_sector: u64) -> Result<(), Mismatch> {
    assert!(buf.len().is_multiple_of(SECTOR), "{} bytes are not whole sectors", buf.len());
    let mut expected = [0; SECTOR];
    for (number, sector) in (first_sector..).zip(buf.chunks_exact(SECTOR)) {
        fill(&mut expected, seed, number);
        if sector != expected {
            return Err(Mismatch { sector: number, seed, found: Found::identify(sector, &expected) });
        }
    }
    Ok(())
}

/// The first sector that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The number of the sector.
    pub sector: u64,
    /// The seed it should carry.
    pub seed: u64,
    /// What is there instead.
    pub found: Found,
}

/// What a sector holds that is not the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Zeros only.
    Zeros,
    /// A whole sector of another place or another seed.
    Misplaced {
        /// The seed it carries.
        seed: u64,
        /// The number it carries.
        sector: u64,
    },
    /// The right sector, but for bytes from this one on.
    Damaged {
        /// The first byte that differs.
        byte: usize,
    },
    /// Nothing that was ever stamped.
    Foreign,
}

impl Found {
    fn identify(sector: &[u8], expected: &[u8]) -> Self {
        if sector.iter().all(|byte| *byte == 0) {
            return Self::Zeros;
        }
        let number = u64::from_le_bytes(sector[..8].try_into().expect("8 bytes"));
        let seed = u64::from_le_bytes(sector[8..HEAD].try_into().expect("8 bytes"));
        if stamped(seed, number, 1) == sector {
            return Self::Misplaced { seed, sector: number };
        }
        let differing = sector.iter().zip(expected).filter(|(a, b)| a != b).count();
        match sector.iter().zip(expected).position(|(a, b)| a != b) {
            // two unrelated sectors agree in about 2 bytes of 512
            Some(byte) if differing < SECTOR / 2 => Self::Damaged { byte },
            _ => Self::Foreign,
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {} of seed {:#x} ", self.sector, self.seed)?;
        match &self.found {
            Found::Zeros => write!(f, "is zeros"),
            Found::Misplaced { seed, sector } => write!(f, "holds sector {sector} of seed {seed:#x}"),
            Found::Damaged { byte } => write!(f, "is damaged from byte {byte} on"),
            Found::Foreign => write!(f, "holds something that was never stamped"),
        }
    }
}

impl std::error::Error for Mismatch {}

/// A seeded generator (splitmix64): the same numbers for the same seed, on every machine.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The generator of that seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The generator of the seed in `KCOPYFS_SEED`, else of `seed`; prints which, so that a failure can be replayed.
    pub fn from_env_or(seed: u64) -> Self {
        let seed = match std::env::var(SEED_VARIABLE) {
            Ok(text) => text.trim().parse().unwrap_or_else(|_| panic!("{SEED_VARIABLE}={text} is not a number")),
            Err(_) => seed,
        };
        eprintln!("{SEED_VARIABLE}={seed}");
        Self::new(seed)
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`; the slight bias of a large limit does not matter to tests.
    ///
    /// # Panics
    /// If `limit` is 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        assert!(limit > 0, "nothing is below 0");
        self.next_u64() % limit
    }

    /// A number of `range`.
    pub const fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// True once in `n` times.
    pub const fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = self.below(items.len() as u64);
        &items[usize::try_from(index).expect("an index")]
    }

    /// Fills `buf`.
    pub fn fill(&mut self, buf: &mut [u8]) {
        for chunk in buf.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}
