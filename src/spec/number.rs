//! Numbers as people write them: plain, in bytes with a unit, or in sectors.
//!
//! Only decimal digits and the units K M G T (of 1024) are numbers here. No sign, no fraction, no hexadecimal: a number
//! that two readers may take for two positions has no place in a line that overwrites disks.

use std::fmt;

use crate::sector::{SECTOR_SIZE, Sector};

/// The units, in bytes. Each is a whole number of sectors, so bytes with a unit always are.
const UNITS: [(u8, u64); 4] = [(b'K', 1 << 10), (b'M', 1 << 20), (b'G', 1 << 30), (b'T', 1 << 40)];

/// Why a text is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// Nothing is there.
    Empty,
    /// Something else than decimal digits.
    NotDigits,
    /// Digits, then something that is none of the units.
    Unit,
    /// Beyond what the thing counted can be.
    TooLarge,
    /// Bytes that do not make whole sectors.
    NotWhole,
}

impl fmt::Display for NumberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a number is missing",
            Self::NotDigits => "not a number: write decimal digits",
            Self::Unit => "unknown unit: use K, M, G or T (powers of 1024)",
            Self::TooLarge => "too large",
            Self::NotWhole => "not a multiple of 512 bytes",
        })
    }
}

impl std::error::Error for NumberError {}

/// A plain number: `12`.
pub fn plain(text: &[u8]) -> Result<u64, NumberError> {
    if text.is_empty() {
        return Err(NumberError::Empty);
    }
    text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10).ok_or(NumberError::NotDigits)?;
        sum.checked_mul(10).and_then(|sum| sum.checked_add(u64::from(digit))).ok_or(NumberError::TooLarge)
    })
}

/// A number with or without a unit: `12`, `64K`. Control files take these.
pub fn scaled(text: &[u8]) -> Result<u64, NumberError> {
    match split_unit(text)? {
        (digits, None) => plain(digits),
        (digits, Some(unit)) => plain(digits)?.checked_mul(unit).ok_or(NumberError::TooLarge),
    }
}

/// Sectors: a plain number counts them, one with a unit counts bytes (`1M` is sector 2048).
pub fn sectors(text: &[u8]) -> Result<Sector, NumberError> {
    match split_unit(text)? {
        (digits, None) => Sector::new(plain(digits)?).ok_or(NumberError::TooLarge),
        (digits, Some(unit)) => {
            let bytes = plain(digits)?.checked_mul(unit).ok_or(NumberError::TooLarge)?;
            // Cannot be with the units of today; a smaller one would be met here.
            if !bytes.is_multiple_of(SECTOR_SIZE) {
                return Err(NumberError::NotWhole);
            }
            Sector::from_bytes(bytes).ok_or(NumberError::TooLarge)
        }
    }
}

/// The digits, and the bytes of the unit behind them.
fn split_unit(text: &[u8]) -> Result<(&[u8], Option<u64>), NumberError> {
    let end = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, unit) = text.split_at(end);
    match unit {
        [] => Ok((digits, None)),
        _ if digits.is_empty() => Err(NumberError::NotDigits),
        [letter] => match UNITS.iter().find(|(unit, _)| unit == letter) {
            Some((_, bytes)) => Ok((digits, Some(*bytes))),
            None => Err(NumberError::Unit),
        },
        _ => Err(NumberError::Unit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_numbers_are_digits_alone() {
        assert_eq!(plain(b"0"), Ok(0));
        assert_eq!(plain(b"007"), Ok(7));
        assert_eq!(plain(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(plain(b"18446744073709551616"), Err(NumberError::TooLarge));
        for text in ["+1", "-1", "0x10", "1_000", " 1", "1 ", "1.5", "K"] {
            assert_eq!(plain(text.as_bytes()), Err(NumberError::NotDigits), "{text}");
        }
    }

    #[test]
    fn units_are_of_1024() {
        assert_eq!(scaled(b"64K"), Ok(65_536));
        assert_eq!(scaled(b"1M"), Ok(1 << 20));
        assert_eq!(scaled(b"2G"), Ok(2 << 30));
        assert_eq!(scaled(b"3T"), Ok(3 << 40));
        assert_eq!(scaled(b"16777216T"), Err(NumberError::TooLarge));
        for text in ["64k", "1KiB", "1.5G", "1P", "1 K"] {
            assert_eq!(scaled(text.as_bytes()), Err(NumberError::Unit), "{text}");
        }
        assert_eq!(scaled(b"K"), Err(NumberError::NotDigits));
        assert_eq!(scaled(b""), Err(NumberError::Empty));
    }

    #[test]
    fn sectors_end_where_file_offsets_do() {
        assert_eq!(sectors(b"64K").map(Sector::get), Ok(128));
        assert_eq!(sectors(b"64").map(Sector::get), Ok(64));
        assert_eq!(sectors(Sector::MAX.to_string().as_bytes()), Ok(Sector::MAX));
        assert_eq!(sectors((Sector::MAX.get() + 1).to_string().as_bytes()), Err(NumberError::TooLarge));
        assert_eq!(sectors(b"8388608T"), Err(NumberError::TooLarge));
        assert_eq!(sectors(b"8388607T").map(Sector::bytes), Ok(8_388_607 << 40));
    }
}
