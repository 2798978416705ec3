//! `digest=`: which digests of the source are made, and what they must be.
//!
//! # Invariants
//! Each digest is there at most once, in the order of the table: two jobs that mean the same say the same.

use std::fmt::{self, Write as _};

use super::shown;

/// A digest of the source stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Digest {
    /// SHA-256, FIPS 180-4.
    Sha256,
    /// BLAKE3.
    Blake3,
}

const DIGESTS: [(&str, Digest); 2] = [("sha256", Digest::Sha256), ("blake3", Digest::Blake3)];

impl Digest {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        DIGESTS.iter().find(|(_, digest)| *digest == self).map_or("", |(name, _)| name)
    }
}

/// What a digest of some bytes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum([u8; Sum::BYTES]);

impl Sum {
    /// Bytes of a sum, of whichever digest.
    pub const BYTES: usize = 32;

    /// A sum of these bytes.
    pub fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads hexadecimal digits.
    fn parse(text: &[u8]) -> Result<Self, String> {
        let digits = 2 * Self::BYTES;
        if text.len() != digits {
            return Err(format!("{} has {} digits; a sum has {digits}", shown(text), text.len()));
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut bytes = [0; Self::BYTES];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks(2)) {
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else {
                return Err(format!("{} is no hexadecimal number", shown(text)));
            };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The digests of a job's source, and the sums that are expected of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests(Vec<(Digest, Option<Sum>)>);

impl Digests {
    /// `NAME[:HEX][,NAME[:HEX]]...`, with the reason where it is bad.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let mut digests = Vec::new();
        for part in text.split(|byte| *byte == b',') {
            let (name, sum) = match part.iter().position(|byte| *byte == b':') {
                Some(at) => (&part[..at], Some(Sum::parse(&part[at + 1..])?)),
                None => (part, None),
            };
            let Some((_, digest)) = DIGESTS.iter().find(|(word, _)| word.as_bytes() == name) else {
                let names: Vec<&str> = DIGESTS.iter().map(|(name, _)| *name).collect();
                return Err(format!("{} is not one of: {}", shown(name), names.join(", ")));
            };
            if digests.iter().any(|(other, _)| other == digest) {
                return Err(format!("`{}` is given twice; drop one", digest.as_str()));
            }
            digests.push((*digest, sum));
        }
        digests.sort_by_key(|(digest, _)| *digest);
        digests.shrink_to_fit();
        Ok(Self(digests))
    }

    /// As [`Digests::parse`] reads it, or `None` where there are none.
    pub(super) fn said(&self) -> Option<String> {
        let each = self.0.iter().map(|(digest, sum)| match sum {
            Some(sum) => format!("{}:{sum}", digest.as_str()),
            None => digest.as_str().to_owned(),
        });
        Some(each.collect::<Vec<_>>().join(",")).filter(|text| !text.is_empty())
    }

    /// Whether none is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that are to be made.
    pub fn iter(&self) -> impl Iterator<Item = Digest> {
        self.0.iter().map(|(digest, _)| *digest)
    }

    /// Whether a sum is expected of one.
    pub fn expects(&self) -> bool {
        self.0.iter().any(|(_, sum)| sum.is_some())
    }

    /// What is wrong with the sums that were made, in words that say both.
    pub fn objection(&self, made: &[(Digest, Sum)]) -> Option<String> {
        let mut text = String::new();
        for (digest, want) in self.0.iter().filter_map(|(digest, sum)| Some((*digest, (*sum)?))) {
            let is = made.iter().find(|(other, _)| *other == digest).map(|(_, sum)| *sum);
            if let Some(is) = is.filter(|is| *is != want) {
                let between = if text.is_empty() { "" } else { ", and " };
                let _ = write!(text, "{between}its {} is {is}, not {want} as the spec says", digest.as_str());
            }
        }
        Some(text).filter(|text| !text.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(byte: u8) -> String {
        Sum([byte; Sum::BYTES]).to_string()
    }

    #[test]
    fn digests_are_said_as_they_are_read() {
        let said = |text: &str| Digests::parse(text.as_bytes()).map(|digests| digests.said().unwrap());
        let sum = hex(0xa7);
        assert_eq!(said("sha256"), Ok("sha256".into()));
        assert_eq!(said("blake3,sha256"), Ok("sha256,blake3".into()));
        assert_eq!(said(&format!("sha256:{}", sum.to_uppercase())), Ok(format!("sha256:{sum}")));
        assert_eq!(said(&format!("blake3:{sum},sha256")), Ok(format!("sha256,blake3:{sum}")));
        assert_eq!(Digests::default().said(), None);
        for (bad, why) in [
            ("", "is not one of: sha256, blake3"),
            ("md5", "`md5` is not one of"),
            ("sha256,", "is not one of"),
            ("sha256,sha256", "`sha256` is given twice"),
            ("sha256:", "has 0 digits; a sum has 64"),
            ("sha256:abc", "has 3 digits; a sum has 64"),
            (&format!("sha256:{}", "x".repeat(64)), "is no hexadecimal number"),
        ] {
            let error = said(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn a_wrong_sum_is_told_with_the_right_one() {
        let digests = Digests::parse(format!("sha256:{},blake3:{}", hex(1), hex(2)).as_bytes()).unwrap();
        let made = |sha256, blake3| [(Digest::Sha256, Sum([sha256; 32])), (Digest::Blake3, Sum([blake3; 32]))];
        assert_eq!(digests.objection(&made(1, 2)), None);
        let wrong = digests.objection(&made(1, 3)).unwrap();
        assert_eq!(wrong, format!("its blake3 is {}, not {} as the spec says", hex(3), hex(2)));
        assert!(digests.objection(&made(3, 3)).unwrap().contains(", and its blake3"));
        assert!(digests.expects() && !Digests::parse(b"blake3").unwrap().expects());
        assert_eq!(Digests::parse(b"blake3").unwrap().objection(&made(1, 1)), None);
    }
}
