//! The digest of a job's source, made from what is read anyway, in order.

use std::fmt::Write as _;
use std::ops::Range;

use sha2::Digest as _;

use crate::kcopyd::Bytes;
use crate::sector::SECTOR_SIZE;
use crate::spec::Digest;

/// Zeros are hashed in pieces of this size.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// A digest under way. It belongs to whoever shows it the data: while a step of its job runs, to the engine's observer.
///
/// # Invariants
/// It has seen the sectors before `at`, each once, in order; unreadable ones as zeros.
pub(crate) struct Hashing {
    hasher: Hasher,
    at: u64,
}

enum Hasher {
    Sha256(Box<sha2::Sha256>),
    Blake3(Box<blake3::Hasher>),
}

impl std::fmt::Debug for Hashing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hashing at {}", self.at)
    }
}

impl Hashing {
    pub(crate) fn new(digest: Digest) -> Self {
        let hasher = match digest {
            Digest::Sha256 => Hasher::Sha256(Box::default()),
            Digest::Blake3 => Hasher::Blake3(Box::default()),
        };
        Self { hasher, at: 0 }
    }

    /// The first sector that it has not seen.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Sees the sectors from `start`; those that it has seen already are passed over.
    ///
    /// # Panics
    /// If it is not their turn.
    pub(crate) fn see(&mut self, start: u64, show: &Bytes<'_>) {
        assert!(start <= self.at, "the data comes in order");
        let mut skip = usize::try_from((self.at - start) * SECTOR_SIZE).unwrap_or(usize::MAX);
        let mut seen = 0;
        show(&mut |run| {
            let new = &run[skip.min(run.len())..];
            skip -= skip.min(run.len());
            seen += new.len() as u64;
            self.update(new);
        });
        self.at += seen / SECTOR_SIZE;
    }

    /// Sees zeros for what cannot be read. It takes its time: callers give it slices.
    pub(crate) fn see_zeros(&mut self, range: &Range<u64>) {
        let sectors = range.end.saturating_sub(self.at.max(range.start));
        let mut left = sectors * SECTOR_SIZE;
        while left > 0 {
            let part = left.min(ZEROS.len() as u64);
            self.update(&ZEROS[..usize::try_from(part).unwrap_or(ZEROS.len())]);
            left -= part;
        }
        self.at += sectors;
    }

    fn update(&mut self, bytes: &[u8]) {
        match &mut self.hasher {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Blake3(hasher) => _ = hasher.update(bytes),
        }
    }

    /// `sha256:HEX` or `blake3:HEX`.
    pub(crate) fn finish(&self) -> String {
        match &self.hasher {
            Hasher::Sha256(hasher) => {
                let mut text = "sha256:".to_owned();
                for byte in hasher.clone().finalize() {
                    _ = write!(text, "{byte:02x}");
                }
                text
            }
            Hasher::Blake3(hasher) => format!("blake3:{}", hasher.finalize().to_hex()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn is_movable<T: Send + 'static>() {}
    const _: () = is_movable::<Hashing>();

    #[test]
    fn what_comes_twice_counts_once() {
        let bytes: Vec<u8> = (0..10 * 512_u32).map(|at| (at / 7) as u8).collect();
        for digest in [Digest::Sha256, Digest::Blake3] {
            let mut whole = Hashing::new(digest);
            whole.see(0, &|see| see(&bytes));
            let mut parts = Hashing::new(digest);
            for (from, to) in [(0, 3), (2, 3), (1, 7), (6, 10)] {
                parts.see(from, &|see| bytes[from as usize * 512..to * 512].chunks(700).for_each(&mut *see));
            }
            assert_eq!((parts.at(), parts.finish()), (10, whole.finish()));
        }
        let mut empty = Hashing::new(Digest::Sha256);
        empty.see_zeros(&(0..1));
        let (mut many, mut one) = (Hashing::new(Digest::Blake3), Hashing::new(Digest::Blake3));
        many.see_zeros(&(0..1000));
        one.see(0, &|see| (0..1000).for_each(|_| see(&[0; 512])));
        assert_eq!((many.at(), many.finish()), (1000, one.finish()));
        let zeros = "sha256:076a27c79e5ace2a3d47f9dd2e83e4ff6ea8872b3c2218f66c92b89b55f36560";
        assert_eq!(empty.finish(), zeros);
    }
}
