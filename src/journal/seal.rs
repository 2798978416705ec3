//! The envelope of every file of the store: a header that names kind and version, lines of text, and a checksum.
//!
//! ```text
//! kcopyfs job 1
//! ...
//! sum 1a2b3c4d
//! ```
//! The sum is the CRC-32 of IEEE 802.3 (as in gzip and zlib) over all that stands before its line. Whatever is cut off
//! or flipped within 32 neighbouring bits is found. Pure.

use std::fmt;

/// The version that is written; the only one that is read.
pub(super) const VERSION: u32 = 1;

/// What every header begins with.
const MAGIC: &str = "kcopyfs";

/// `sum `, eight digits, a newline.
const SUM_LENGTH: usize = 13;

/// Why a file is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Torn, flipped, or never ours.
    Damaged(String),
    /// Whole, and in a format of this number.
    Version(u32),
}

/// What was in a file, or why it is not what it should be.
pub(super) type Reading<T> = std::result::Result<T, Flaw>;

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(what) => write!(f, "damaged: {what}"),
            Self::Version(number) => write!(f, "its format is version {number}, this kcopyfs reads version {VERSION}"),
        }
    }
}

/// The file for `body`, which is empty or ends in a newline.
pub(super) fn seal(kind: &str, body: &str) -> Vec<u8> {
    seal_as(kind, VERSION, body)
}

/// The same as a kcopyfs of another version would write it.
pub(super) fn seal_as(kind: &str, version: u32, body: &str) -> Vec<u8> {
    debug_assert!(body.is_empty() || body.ends_with('\n'));
    let mut text = format!("{MAGIC} {kind} {version}\n{body}").into_bytes();
    let sum = sum_line(&text);
    text.extend_from_slice(sum.as_bytes());
    text
}

/// The body of a file that [`seal`] made.
pub(super) fn unseal<'a>(kind: &str, bytes: &'a [u8]) -> Reading<&'a str> {
    let damaged = |what: &str| Flaw::Damaged(what.to_owned());
    let cut = bytes.len().checked_sub(SUM_LENGTH).ok_or_else(|| damaged("it is cut off"))?;
    let (text, sum) = bytes.split_at(cut);
    if sum != sum_line(text).as_bytes() {
        return Err(damaged("its checksum does not fit"));
    }
    let text = str::from_utf8(text).map_err(|_| damaged("it is no text"))?;
    let (header, body) = text.split_once('\n').ok_or_else(|| damaged("it has no header"))?;
    let version = header.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(' ')?.strip_prefix(kind));
    match version.and_then(|rest| rest.strip_prefix(' ')?.parse().ok()) {
        Some(VERSION) => Ok(body),
        Some(other) => Err(Flaw::Version(other)),
        None => Err(damaged(&format!("its header is not that of `{kind}`"))),
    }
}

fn sum_line(text: &[u8]) -> String {
    format!("sum {:08x}\n", crc32fast::hash(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_gzip() {
        assert_eq!(crc32fast::hash(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32fast::hash(b""), 0);
    }

    #[test]
    fn kind_and_version_are_told_apart() {
        let sealed = seal("next", "id 7\n");
        assert_eq!(unseal("next", &sealed), Ok("id 7\n"));
        assert!(matches!(unseal("job", &sealed), Err(Flaw::Damaged(_))));
        assert_eq!(unseal("next", &seal_as("next", 2, "id 7\n")), Err(Flaw::Version(2)));
        let bare = unseal("next", b"kcopyfs next 2\nid 7\n");
        assert!(matches!(bare, Err(Flaw::Damaged(_))), "without a sum no version is believed");
    }

    #[test]
    fn every_cut_and_every_flip_is_found() {
        let sealed = seal("next", "id 1234567\n");
        for length in 0..sealed.len() {
            assert!(unseal("next", &sealed[..length]).is_err(), "cut to {length}");
        }
        for at in 0..sealed.len() {
            for value in (0..=255).filter(|value| *value != sealed[at]) {
                let mut flipped = sealed.clone();
                flipped[at] = value;
                assert!(matches!(unseal("next", &flipped), Err(Flaw::Damaged(_))), "byte {at} is {value}");
            }
        }
    }
}
