//! The digests of a job's source, made from what is read anyway, in order.

use std::ops::Range;

use sha2::Digest as _;

use crate::kcopyd::Bytes;
use crate::sector::SECTOR_SIZE;
use crate::spec::{Digest, Digests, Sum};

/// Zeros are hashed in pieces of this size.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Digests under way. They belong to whoever shows it the data: while a step of its job runs, to the engine's observer.
///
/// # Invariants
/// It has seen the sectors before `at`, each once, in order; unreadable ones as zeros.
pub(crate) struct Hashing {
    hashers: Vec<Hasher>,
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
    /// `None` where there are none to be made.
    pub(crate) fn new(digests: &Digests) -> Option<Self> {
        let hasher = |digest| match digest {
            Digest::Sha256 => Hasher::Sha256(Box::default()),
            Digest::Blake3 => Hasher::Blake3(Box::default()),
        };
        let hashers: Vec<_> = digests.iter().map(hasher).collect();
        (!hashers.is_empty()).then_some(Self { hashers, at: 0 })
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
        for hasher in &mut self.hashers {
            match hasher {
                Hasher::Sha256(hasher) => hasher.update(bytes),
                Hasher::Blake3(hasher) => _ = hasher.update(bytes),
            }
        }
    }

    /// What the digests of all that it has seen are.
    pub(crate) fn sums(&self) -> Vec<(Digest, Sum)> {
        let sum = |hasher: &Hasher| match hasher {
            Hasher::Sha256(hasher) => (Digest::Sha256, Sum::new(hasher.clone().finalize().into())),
            Hasher::Blake3(hasher) => (Digest::Blake3, Sum::new(*hasher.finalize().as_bytes())),
        };
        self.hashers.iter().map(sum).collect()
    }
}

/// `sha256:HEX`, `blake3:HEX`, or both with a comma between them.
pub(crate) fn sums_text(sums: &[(Digest, Sum)]) -> String {
    let each = sums.iter().map(|(digest, sum)| format!("{}:{sum}", digest.as_str()));
    each.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn is_movable<T: Send + 'static>() {}
    const _: () = is_movable::<Hashing>();

    fn hashing(word: &str) -> Hashing {
        let spec = crate::spec::parse(format!("from=/a to=/b digest={word}").as_bytes()).unwrap().spec;
        Hashing::new(&spec.digests).unwrap()
    }

    #[test]
    fn what_comes_twice_counts_once() {
        let bytes: Vec<u8> = (0..10 * 512_u32).map(|at| (at / 7) as u8).collect();
        for digest in ["sha256", "blake3", "sha256,blake3"] {
            let mut whole = hashing(digest);
            whole.see(0, &|see| see(&bytes));
            let mut parts = hashing(digest);
            for (from, to) in [(0, 3), (2, 3), (1, 7), (6, 10)] {
                parts.see(from, &|see| bytes[from as usize * 512..to * 512].chunks(700).for_each(&mut *see));
            }
            assert_eq!((parts.at(), parts.sums()), (10, whole.sums()));
        }
        let mut empty = hashing("sha256");
        empty.see_zeros(&(0..1));
        let (mut many, mut one) = (hashing("blake3"), hashing("blake3"));
        many.see_zeros(&(0..1000));
        one.see(0, &|see| (0..1000).for_each(|_| see(&[0; 512])));
        assert_eq!((many.at(), many.sums()), (1000, one.sums()));
        let zeros = "sha256:076a27c79e5ace2a3d47f9dd2e83e4ff6ea8872b3c2218f66c92b89b55f36560";
        assert_eq!(sums_text(&empty.sums()), zeros);
        let mut both = hashing("blake3,sha256");
        both.see_zeros(&(0..1));
        let text = sums_text(&both.sums());
        assert!(text.starts_with(&format!("{zeros},blake3:")) && text.len() == 2 * zeros.len() + 1);
        assert!(Hashing::new(&Digests::default()).is_none());
    }
}
