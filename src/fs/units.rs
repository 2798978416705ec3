//! Figures as people read them: bytes in units that grow, times of day, counts.

use std::time::Duration;

/// A unit: its name, and how many bits of a number of bytes are below it.
type Unit = (&'static str, u32);

/// The largest unit of which `bytes` are at least one.
const fn unit(bytes: u64) -> Unit {
    match bytes {
        1..0x400 => ("B", 0),
        0x400..0x10_0000 => ("KiB", 10),
        0x4000_0000..0x100_0000_0000 => ("GiB", 30),
        0x100_0000_0000.. => ("TiB", 40),
        _ => ("MiB", 20),
    }
}

/// Bytes with one decimal, rounded down.
fn number(bytes: u64, (_, bits): Unit) -> String {
    let tenths = (u128::from(bytes) * 10) >> bits;
    if bits == 0 { bytes.to_string() } else { format!("{}.{}", tenths / 10, tenths % 10) }
}

/// `1.8 GiB`.
pub(super) fn amount(bytes: u64) -> String {
    let unit = unit(bytes);
    format!("{} {}", number(bytes, unit), unit.0)
}

/// So much of that much, in one unit: `0.5 of 1.8 GiB`.
pub(super) fn part(bytes: u64, all: u64) -> String {
    let unit = unit(all);
    format!("{} of {} {}", number(bytes, unit), number(all, unit), unit.0)
}

/// The same, with a second decimal where a tenth takes long, or is much of the whole: `12.34 of 20.00 TiB`.
pub(super) fn part_wide(bytes: u64, all: u64) -> String {
    let unit = unit(all);
    if unit.1 == 0 || (unit.1 < 40 && all >> unit.1 >= 10) {
        return part(bytes, all);
    }
    let number = |bytes: u64| {
        let hundredths = (u128::from(bytes) * 100) >> unit.1;
        format!("{}.{:02}", hundredths / 100, hundredths % 100)
    };
    format!("{} of {} {}", number(bytes), number(all), unit.0)
}

/// `1:02:03`; of a hundred hours and more `4d 04h`.
pub(super) fn span(time: Duration) -> String {
    let hours = time.as_secs() / 3600;
    if hours < 100 { clock(time) } else { format!("{}d {:02}h", hours / 24, hours % 24) }
}

/// `1:02:03`.
pub(super) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// `1 error`, `2 errors`.
pub(super) fn count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// So many of `columns` as `bytes` are of `all`, rounded down: full only when all is done.
pub(super) fn columns(bytes: u64, all: u64, columns: usize) -> usize {
    if bytes >= all {
        return columns;
    }
    let share = u128::from(bytes) * columns as u128 / u128::from(all);
    usize::try_from(share).unwrap_or(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_told_in_the_unit_that_suits_them() {
        let table = [
            (0, "0.0 MiB"),
            (5, "5 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (3 << 19, "1.5 MiB"),
            (1 << 30, "1.0 GiB"),
            (3 << 39, "1.5 TiB"),
            (u64::MAX, "16777215.9 TiB"),
        ];
        for (bytes, text) in table {
            assert_eq!(amount(bytes), text);
        }
        assert_eq!(part(1 << 29, 3 << 29), "0.5 of 1.5 GiB");
        assert_eq!(
            [part_wide(1 << 29, 3 << 29), part_wide(1 << 29, 30 << 30), part_wide(3 << 39, 20 << 40), part_wide(5, 7)],
            ["0.50 of 1.50 GiB", "0.5 of 30.0 GiB", "1.50 of 20.00 TiB", "5 of 7 B"]
        );
    }

    #[test]
    fn times_and_counts() {
        assert_eq!(clock(Duration::from_millis(3_723_900)), "1:02:03");
        assert_eq!([span(Duration::from_secs(359_999)), span(Duration::from_secs(360_000))], ["99:59:59", "4d 04h"]);
        assert_eq!((count(0, "error"), count(1, "error")), ("0 errors".to_owned(), "1 error".to_owned()));
    }

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        assert_eq!((columns(0, 0, 9), columns(0, 100, 9), columns(99, 100, 9), columns(100, 100, 9)), (9, 0, 8, 9));
        assert_eq!(columns(u64::MAX - 1, u64::MAX, 9), 8);
    }
}
