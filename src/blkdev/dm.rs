//! Device-mapper tables: which bytes of a map lie where. Pure; the table is asked for in [`super::sys`].
//!
//! What is known of a target is what its documentation says of its parameters (the kernel's admin-guide/device-mapper). A write
//! to such a range changes those bytes below and no others, so that two maps over the same sectors meet, and volumes of one
//! group do not:
//!
//! | targets | where the bytes are |
//! |---|---|
//! | `linear`, `crypt`, `flakey`, `delay`, `dust`, `ebs` | on the device, from the offset on |
//! | `mirror` | on every leg, from its offset on |
//! | `multipath` | on every path |
//! | `striped` | on all stripes, by chunks |
//! | `snapshot-origin` | on the origin |
//! | `snapshot`, `snapshot-merge` | read from the origin where they are not in the store: both are taken, so neither is written under the other |
//! | `cache` | on the origin, or somewhere in the cache |
//! | any other | somewhere on the devices that it names |
//!
//! A table may hold a key (`crypt`); it is read where it lies and not kept.

use std::ops::Range;

use crate::os::mounts::parse_dev;
use crate::sector::SECTOR_SIZE;

/// A range of a map, and what it lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) bytes: Range<u64>,
    pub(super) on: Vec<On>,
}

/// Where the bytes of a piece are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// On a device from a byte on, in order.
    Linear { dev: u64, start: u64 },
    /// On a device from a byte on: every `count`th chunk, the first of them the piece's chunk `index`.
    Stripe { dev: u64, start: u64, index: u64, count: u64, chunk: u64 },
    /// Somewhere on a device.
    Somewhere { dev: u64 },
}

impl On {
    pub(super) fn dev(&self) -> u64 {
        let (Self::Linear { dev, .. } | Self::Stripe { dev, .. } | Self::Somewhere { dev }) = self;
        *dev
    }

    /// Where `bytes` of the piece, counted from its beginning, are on the device; and whether they are there in order.
    pub(super) fn below(&self, bytes: &Range<u64>) -> Option<(Range<u64>, bool)> {
        match *self {
            Self::Linear { start, .. } => Some((start.checked_add(bytes.start)?..start.checked_add(bytes.end)?, true)),
            Self::Somewhere { .. } => None,
            Self::Stripe { start, index, count, chunk, .. } => {
                let (first, last) = (bytes.start / chunk, (bytes.end - 1) / chunk);
                let mine_from = first + (index + count - first % count) % count;
                let mine_to = last.checked_sub((last % count + count - index) % count).filter(|to| mine_from <= *to);
                let Some(mine_to) = mine_to else { return Some((start..start, true)) };
                let begin = if mine_from == first { bytes.start % chunk } else { 0 };
                let end = if mine_to == last { (bytes.end - 1) % chunk + 1 } else { chunk };
                let at = |number: u64, rest: u64| start.saturating_add(number / count * chunk).saturating_add(rest);
                Some((at(mine_from, begin)..at(mine_to, end), count == 1))
            }
        }
    }
}

/// The pieces of a map, from the answer to `DM_TABLE_STATUS`: a `struct dm_ioctl` and what follows. `None` where it is not
/// understood.
pub(super) fn pieces(answer: &[u8]) -> Option<Vec<Piece>> {
    let piece = |target: Target<'_>| Piece { bytes: target.bytes, on: places(target.kind, target.parameters) };
    Some(targets(answer)?.into_iter().map(piece).collect())
}

/// The pool of a map that is a thin volume: a block of it that is discarded whole reads as zeros. One with an external origin
/// shows that instead.
pub(super) fn thin_pool(answer: &[u8]) -> Option<u64> {
    let targets = targets(answer)?;
    let [Target { kind: "thin", parameters, .. }] = targets[..] else { return None };
    let mut words = parameters.split_ascii_whitespace();
    let (pool, _, None) = (words.next()?, words.next()?, words.next()) else { return None };
    parse_dev(pool)
}

/// A thin pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pool {
    /// Sectors in a block of it.
    pub(super) block: u64,
    /// A block that is new in a volume is zeros.
    pub(super) zeroes: bool,
}

/// A map that is a thin pool: metadata, data, block, low water, features.
pub(super) fn pool(answer: &[u8]) -> Option<Pool> {
    let targets = targets(answer)?;
    let [Target { kind: "thin-pool", parameters, .. }] = targets[..] else { return None };
    let words: Vec<_> = parameters.split_ascii_whitespace().collect();
    let block = words.get(2)?.parse().ok().filter(|block| (1..1 << 32).contains(block))?;
    Some(Pool { block, zeroes: !words.contains(&"skip_block_zeroing") })
}

/// A target of a map.
struct Target<'a> {
    bytes: Range<u64>,
    kind: &'a str,
    parameters: &'a str,
}

fn targets(answer: &[u8]) -> Option<Vec<Target<'_>>> {
    let number = |at: usize| Some(u32::from_ne_bytes(answer.get(at..at + 4)?.try_into().ok()?));
    let specs = answer.get(usize::try_from(number(16)?).ok()?..)?;
    let mut targets = Vec::new();
    let mut at = 0;
    for _ in 0..number(20)? {
        let (target, next) = target(specs, at)?;
        targets.push(target);
        at = next;
    }
    Some(targets)
}

/// One `struct dm_target_spec` with its parameters, and where the next one is.
fn target(specs: &[u8], at: usize) -> Option<(Target<'_>, usize)> {
    const HEADER: usize = 40;
    let spec = specs.get(at..)?;
    let wide =
        |at: usize| u64::from_ne_bytes(spec[at..at + 8].try_into().expect("eight bytes")).checked_mul(SECTOR_SIZE);
    let text = |bytes: &'_ [u8]| bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (header, rest) = spec.split_at_checked(HEADER)?;
    let (start, length) = (wide(0)?, wide(8)?);
    let next = u32::from_ne_bytes(header[20..24].try_into().ok()?);
    let kind = std::str::from_utf8(&header[24..24 + text(&header[24..])]).ok()?;
    let parameters = std::str::from_utf8(&rest[..text(rest)]).ok()?;
    let bytes = start..start.checked_add(length)?;
    Some((Target { bytes, kind, parameters }, usize::try_from(next).ok()?))
}

/// Where the bytes of a target are. What is not understood is somewhere on what it names.
fn places(kind: &str, parameters: &str) -> Vec<On> {
    let words: Vec<&str> = parameters.split_ascii_whitespace().collect();
    let known = match kind {
        "linear" | "flakey" | "dust" | "ebs" => linear(&words),
        "crypt" => words.get(3..).and_then(linear),
        "delay" => legs(&words, 3),
        "snapshot-origin" => words.first().and_then(|dev| on(dev, 0)).map(|on| vec![on]),
        "snapshot" | "snapshot-merge" => on_and_somewhere(&words, 0),
        "cache" => on_and_somewhere(&words, 2),
        "multipath" => {
            let paths = devices(&words).map(|dev| On::Linear { dev, start: 0 }).collect::<Vec<_>>();
            (!paths.is_empty()).then_some(paths)
        }
        "mirror" => mirror(&words),
        "striped" => striped(&words),
        _ => None,
    };
    known.unwrap_or_else(|| devices(&words).map(|dev| On::Somewhere { dev }).collect())
}

/// `DEV OFFSET ...`
fn linear(words: &[&str]) -> Option<Vec<On>> {
    Some(vec![leg(words)?])
}

fn leg(words: &[&str]) -> Option<On> {
    on(words.first()?, sectors(words.get(1)?)?)
}

/// Legs that begin every `step` words.
fn legs(words: &[&str], step: usize) -> Option<Vec<On>> {
    words.chunks_exact(step).map(leg).collect::<Option<Vec<_>>>().filter(|legs| !legs.is_empty())
}

/// `LOG #ARGS [ARG]... #LEGS [DEV OFFSET]... ...`
fn mirror(words: &[&str]) -> Option<Vec<On>> {
    let arguments: usize = words.get(1)?.parse().ok()?;
    let rest = words.get(arguments.checked_add(2)?..)?;
    let count: usize = rest.first()?.parse().ok()?;
    legs(rest.get(1..count.checked_mul(2)?.checked_add(1)?)?, 2)
}

/// `#STRIPES CHUNK [DEV OFFSET]...`
fn striped(words: &[&str]) -> Option<Vec<On>> {
    let count: usize = words.first()?.parse().ok()?;
    let chunk = sectors(words.get(1)?).filter(|chunk| *chunk > 0)?;
    let legs = legs(words.get(2..count.checked_mul(2)?.checked_add(2)?)?, 2)?;
    let stripe = |(index, on): (u64, On)| match on {
        On::Linear { dev, start } => On::Stripe { dev, start, index, count: count as u64, chunk },
        other => other,
    };
    Some((0..).zip(legs).map(stripe).collect())
}

/// On the device that is word `origin`, and somewhere on the others.
fn on_and_somewhere(words: &[&str], origin: usize) -> Option<Vec<On>> {
    let exact = on(words.get(origin)?, 0)?;
    let others = devices(words).filter(|dev| *dev != exact.dev()).map(|dev| On::Somewhere { dev }).collect::<Vec<_>>();
    Some([vec![exact], others].concat())
}

fn on(dev: &str, start: u64) -> Option<On> {
    Some(On::Linear { dev: parse_dev(dev)?, start })
}

fn sectors(word: &str) -> Option<u64> {
    word.parse::<u64>().ok()?.checked_mul(SECTOR_SIZE)
}

/// Every word that is a device.
fn devices<'a>(words: &'a [&str]) -> impl Iterator<Item = u64> + 'a {
    words.iter().filter_map(|word| parse_dev(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: u64 = libc::makedev(8, 16);
    const B: u64 = libc::makedev(8, 32);

    fn on_a(start: u64) -> On {
        On::Linear { dev: A, start: start * 512 }
    }

    #[test]
    fn targets_are_understood_by_their_documentation() {
        let (b, somewhere) = (On::Linear { dev: B, start: 7 * 512 }, |dev| On::Somewhere { dev });
        for (kind, parameters, expected) in [
            ("linear", "8:16 2048", vec![on_a(2048)]),
            ("crypt", "aes-xts-plain64 :64:logon:x 0 8:16 4096 1 allow_discards", vec![on_a(4096)]),
            ("delay", "8:16 5 100 8:32 7 200", vec![on_a(5), b.clone()]),
            ("mirror", "core 2 1024 nosync 2 8:16 5 8:32 7 1 handle_errors", vec![on_a(5), b]),
            (
                "multipath",
                "0 0 1 1 service-time 0 2 2 8:16 1 1 8:32 1 1",
                vec![on_a(0), On::Linear { dev: B, start: 0 }],
            ),
            ("snapshot-origin", "8:16", vec![on_a(0)]),
            ("snapshot", "8:16 8:32 P 8", vec![on_a(0), somewhere(B)]),
            ("cache", "8:32 8:32 8:16 512 0 smq 0", vec![on_a(0), somewhere(B), somewhere(B)]),
            ("thin", "8:16 1", vec![somewhere(A)]),
            ("raid", "raid1 3 0 region_size 1024 2 8:16 8:32 - -", vec![somewhere(A), somewhere(B)]),
            ("linear", "8:16", vec![somewhere(A)]),
            ("striped", "2 0 8:16 0 8:32 0", vec![somewhere(A), somewhere(B)]),
            ("mirror", "core 99 1024", vec![]),
            ("zero", "", vec![]),
        ] {
            assert_eq!(places(kind, parameters), expected, "{kind} {parameters}");
        }
    }

    fn answer(targets: &[(u64, u64, &str, &str)]) -> Vec<u8> {
        let mut answer = vec![0; 312];
        answer[16..20].copy_from_slice(&312_u32.to_ne_bytes());
        answer[20..24].copy_from_slice(&u32::try_from(targets.len()).unwrap().to_ne_bytes());
        for (start, length, kind, parameters) in targets {
            let mut spec = [start.to_ne_bytes(), length.to_ne_bytes()].concat();
            let end = (answer.len() - 312 + 40 + parameters.len() + 1).next_multiple_of(8);
            spec.extend([[0; 4], u32::try_from(end).unwrap().to_ne_bytes()].concat());
            spec.extend(kind.bytes().chain(std::iter::repeat(0)).take(16));
            spec.extend(parameters.bytes());
            answer.extend(spec);
            answer.resize(312 + end, 0);
        }
        answer
    }

    #[test]
    fn a_table_is_read_target_by_target() {
        let table = answer(&[(0, 8, "linear", "8:16 100"), (8, 4, "error", ""), (12, 8, "linear", "8:16 0")]);
        let found = pieces(&table).unwrap();
        let expected = [(0..4096, vec![on_a(100)]), (4096..6144, vec![]), (6144..10240, vec![on_a(0)])];
        assert_eq!(found, expected.map(|(bytes, on)| Piece { bytes, on }));
        assert_eq!(pieces(&table[..400]), None);
    }

    #[test]
    fn a_thin_volume_and_its_pool_are_known() {
        for (targets, expected) in [
            (&[(0, 8, "thin", "8:16 7")][..], Some(A)),
            (&[(0, 8, "thin", "8:16 7 8:32")], None),
            (&[(0, 8, "thin", "8:16 7"), (8, 8, "linear", "8:16 0")], None),
            (&[(0, 8, "thin-pool", "8:16 8:32 128 0")], None),
            (&[], None),
        ] {
            assert_eq!(thin_pool(&answer(targets)), expected, "{targets:?}");
        }
        for (parameters, expected) in [
            ("8:16 8:32 128 0", Some(Pool { block: 128, zeroes: true })),
            ("8:16 8:32 128 0 1 no_discard_passdown", Some(Pool { block: 128, zeroes: true })),
            ("8:16 8:32 384 0 2 skip_block_zeroing read_only", Some(Pool { block: 384, zeroes: false })),
            ("8:16 8:32 0 0", None),
            ("8:16", None),
        ] {
            assert_eq!(pool(&answer(&[(0, 8, "thin-pool", parameters)])), expected, "{parameters}");
        }
        assert_eq!(pool(&answer(&[(0, 8, "thin", "8:16 7 384")])), None);
    }

    proptest! {
        #[test]
        fn no_answer_confuses_it(mut table in prop::collection::vec(any::<u8>(), 0..400), count in 0u32..4) {
            if table.len() >= 24 {
                table[16..20].copy_from_slice(&24_u32.to_ne_bytes());
                table[20..24].copy_from_slice(&count.to_ne_bytes());
            }
            pieces(&table);
        }

        #[test]
        fn stripes_are_where_each_byte_is(
            (count, chunk) in (1u64..5, 1u64..5), (start, length) in (0u64..40, 1u64..40), base in 0u64..9,
        ) {
            for index in 0..count {
                let stripe = On::Stripe { dev: A, start: base, index, count, chunk };
                let bytes = (start..start + length).filter(|byte| byte / chunk % count == index);
                let places: Vec<u64> = bytes.map(|byte| base + byte / chunk / count * chunk + byte % chunk).collect();
                let (found, in_order) = stripe.below(&(start..start + length)).unwrap();
                prop_assert_eq!(found.collect::<Vec<_>>(), places);
                prop_assert_eq!(in_order, count == 1 || found_is_empty(&stripe, start, length));
            }
        }
    }

    fn found_is_empty(stripe: &On, start: u64, length: u64) -> bool {
        stripe.below(&(start..start + length)).unwrap().0.is_empty()
    }
}
