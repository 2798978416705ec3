//! Records as text.

use proptest::prelude::*;

use super::format::{parse, print};
use super::record::RANGES_MAX;
use super::seal::{Flaw, seal, unseal};
use super::*;

fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::vec((any::<u64>(), any::<u32>()), 0..4).prop_map(|list| {
        list.into_iter().map(|(start, count)| (start, start.saturating_add(u64::from(count)))).collect()
    })
}

fn sector() -> impl Strategy<Value = Sector> {
    (0..=Sector::MAX.get()).prop_map(|number| Sector::new(number).unwrap())
}

fn side() -> impl Strategy<Value = Side> {
    let first_error = proptest::option::of((any::<i32>(), sector()));
    let names = (any::<String>(), any::<String>(), any::<String>());
    let sets = (ranges(), ranges(), ranges(), ranges());
    (names, sets, any::<u64>(), first_error, any::<(bool, bool, bool)>(), any::<u64>()).prop_map(
        |(
            (identity, card, bytes),
            (durable, taken, overwritten, zeroed),
            errors,
            first_error,
            (failed, dropped, doubted),
            copied,
        )| {
            Side {
                identity,
                card,
                bytes,
                overwritten,
                durable,
                errors,
                first_error,
                failed,
                dropped,
                doubted,
                copied,
                taken,
                zeroed,
            }
        },
    )
}

fn bad() -> impl Strategy<Value = BadRange> {
    (proptest::option::of(any::<usize>()), sector(), sector(), proptest::option::of(any::<i32>()))
        .prop_filter("within the positions there are", |(_, at, count, _)| at.checked_add(*count).is_some())
        .prop_map(|(dest, sector, count, errno)| match errno {
            Some(errno) if errno != libc::EBADMSG => BadRange { dest, kind: BadKind::Failed, sector, count, errno },
            _ => {
                let dest = dest.or(Some(0));
                BadRange { dest, kind: BadKind::Differs, sector, count, errno: libc::EBADMSG }
            }
        })
}

fn any_record() -> impl Strategy<Value = Record> {
    let time = || (0..1_u64 << 40, 0..1_000_000_000_u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos));
    let text = || proptest::option::of(any::<String>());
    let head = (
        any::<u64>(),
        (time(), time(), proptest::option::of(time()), proptest::option::of(time())),
        any::<Vec<u8>>(),
        0..State::ALL.len(),
        text(),
        text(),
        any::<(bool, bool, bool, bool)>(),
        any::<(Option<u64>, Option<u64>)>(),
    );
    let figures = (any::<(u64, u64, u64, u64, u64, u64, u64)>(), time(), ranges(), ranges());
    let sides = (proptest::option::of(side()), proptest::collection::vec(side(), 0..4));
    let bad = (proptest::collection::vec(bad(), 0..4), ranges());
    (head, figures, sides, bad).prop_map(|(head, figures, (source, dests), (bad, unreadable))| {
        let (
            id,
            (created, progressed, started, ended),
            spec,
            state,
            error,
            digest,
            (read_err, verified, followed, claimed),
            (leader, seed),
        ) = head;
        let ((write_err, total, durable, bad_bytes, final_speed, read_errors, verified_bytes), elapsed, common, same) =
            figures;
        let (created, state) = (UNIX_EPOCH + created, State::ALL[state]);
        Record {
            id,
            created,
            progressed: UNIX_EPOCH + progressed,
            started: started.map(|time| UNIX_EPOCH + time),
            ended: ended.map(|time| UNIX_EPOCH + time),
            spec,
            state,
            error,
            read_err,
            write_err,
            followed,
            leader,
            claimed,
            total,
            common,
            durable,
            bad_bytes,
            read_errors,
            verified_bytes,
            same,
            seed,
            elapsed,
            final_speed,
            speeds: speeds_of(final_speed, elapsed),
            digest,
            verified,
            source,
            dests,
            bad,
            unreadable,
        }
    })
}

/// The speeds of a job that moved so much in so long; of some none are known.
fn speeds_of(bytes: u64, elapsed: Duration) -> Speeds {
    let mut speeds = Speeds::default();
    (0..bytes % 5).for_each(|part| speeds.add(elapsed / 4 * u32::try_from(part).unwrap(), bytes >> part));
    // What is open is kept as it is in the record.
    let (span, samples) = speeds.parts();
    Speeds::recorded(span, samples.to_vec()).unwrap()
}

proptest! {
    /// `parse(print(x)) == x`, in lines that any editor shows.
    #[test]
    fn parsing_undoes_printing(record in any_record()) {
        let text = print(&record);
        prop_assert!(text.iter().all(|byte| *byte == b'\n' || (b' '..=b'~').contains(byte)));
        prop_assert_eq!(parse(&text), Ok(record));
    }

    /// Any lines under a seal that fits are a record or a flaw.
    #[test]
    fn nothing_panics_the_parser(lines in proptest::collection::vec("[a-z.0-9]{1,8} [ -~]{0,20}\n", 0..30)) {
        let _ = parse(&seal("job", &lines.concat()));
        let own = String::from_utf8(print(&record(1, 1))).unwrap();
        let kept = own.split_inclusive('\n').skip(1).take(lines.len());
        let body: String = kept.chain(lines.iter().map(String::as_str)).collect();
        let _ = parse(&seal("job", &body));
    }
}

#[test]
fn the_text_is_the_documented_one() {
    let text = String::from_utf8(print(&Record { dests: Vec::new(), ..record(7, 3) })).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let head = [
        "kcopyfs job 1",
        "id 7",
        "created 1763612345.678000000",
        "progressed 1763612357.500000000",
        "started 1763612346.000000000",
        "state flushing",
        r"spec copy from=/dev/sda,0,4096 to='/srv/a b\xff\x5c',0,4096",
        "followed 1",
        "claimed 0",
        "total 3",
        "common 0+3",
        "durable 1536",
        "read_err 1",
        "write_err 0x8000000000000001",
        "bad_bytes 4096",
        "read_errors 3",
        "verified_bytes 512",
        "same 0+8",
        "seed 18446744073709551615",
        "elapsed 1.234567890",
        "final_speed 5000000",
        "speeds 250:00070000000000002800",
        "verified 1",
        "digest sha256:00ff",
        "error write /dev/sdb: EIO in the 8 sectors from 1008",
        "source.identity ",
        "source.durable ",
        "source.errors 0",
        "source.failed 0",
        "source.copied 0",
        "source.taken ",
        "dests 0",
        "bad -:8+8:5",
        "unreadable 8+8",
    ];
    assert_eq!(lines[..head.len()], head);
    assert!(lines[head.len()].starts_with("sum ") && lines.len() == head.len() + 1);
}

#[test]
fn older_records_say_by_an_errno_that_a_range_is_different() {
    let text = print(&record(7, 3));
    let body = unseal("job", &text).unwrap().replace("bad -:8+8:5", "bad -:8+8:74 1:9+1:74 1:20+2:5");
    let kinds: Vec<_> = parse(&seal("job", &body)).unwrap().bad.iter().map(|bad| (bad.kind, bad.errno)).collect();
    assert_eq!(kinds, [(BadKind::Failed, 74), (BadKind::Differs, libc::EBADMSG), (BadKind::Failed, 5)]);
}

#[test]
fn every_cut_and_every_flip_of_a_record_is_found() {
    let text = print(&record(7, 3));
    for length in 0..text.len() {
        assert!(matches!(parse(&text[..length]), Err(Flaw::Damaged(_))), "cut to {length}");
    }
    for at in 0..text.len() {
        for flip in 1..=255 {
            let mut flipped = text.clone();
            flipped[at] ^= flip;
            assert!(matches!(parse(&flipped), Err(Flaw::Damaged(_))), "byte {at} flipped by {flip:#x}");
        }
    }
}

#[test]
fn keys_of_later_versions_are_passed_over_and_missing_ones_are_not() {
    let text = print(&record(7, 3));
    let body = unseal("job", &text).unwrap();
    let longer = format!("{body}priority 5\ndest.0.zone 7\n");
    assert_eq!(parse(&seal("job", &longer)), Ok(record(7, 3)));

    let optional = [
        "started",
        "source.card",
        "dest.0.card",
        "dest.1.card",
        "dest.0.bytes",
        "dest.1.bytes",
        "dest.0.overwritten",
        "dest.1.overwritten",
        "error",
        "digest",
        "claimed",
        "dest.0.first_error",
        "dest.1.first_error",
        "source.identity",
        "read_errors",
        "verified_bytes",
        "speeds",
        "same",
        "seed",
        "dest.0.doubted",
        "dest.1.doubted",
        "dest.0.zeroed",
        "dest.1.zeroed",
    ];
    for line in body.lines() {
        let key = line.split_once(' ').unwrap().0;
        let without = body.replacen(&format!("{line}\n"), "", 1);
        assert_eq!(parse(&seal("job", &without)).is_ok(), optional.contains(&key), "without `{key}`");
    }
    let twice = format!("{body}id 8\n");
    assert!(matches!(parse(&seal("job", &twice)), Err(Flaw::Damaged(_))));
}

#[test]
fn a_record_of_any_job_is_a_file_that_is_read_again() {
    // the longest numbers there are, and of all destinations that a job may have
    let at = |index: u64| (1 << 50) + index * 1000;
    let ranges = |count: u64, length: u64| (0..count).map(|index| (at(index), at(index) + length)).collect::<Vec<_>>();
    let side =
        Side { overwritten: ranges(9000, 1), durable: ranges(9000, 8), taken: ranges(9000, 8), ..Side::default() };
    let mut many = Record {
        state: State::Paused,
        bad_bytes: 40_000 * 3 * 512 + 512,
        common: ranges(9000, 8),
        unreadable: ranges(40_000, 3),
        dests: vec![side; 64],
        ..record(7, 1)
    };
    many.dests[63].zeroed = vec![(5, 5 + (1 << 40))];
    many.bound();
    let text = print(&many);
    assert!(text.len() <= MAX_FILE, "{} bytes", text.len());
    assert_eq!(parse(&text).unwrap(), many);
    let kept = |set: &Vec<(u64, u64)>| set.len();
    let sides = many.dests.iter().map(|side| kept(&side.durable) + kept(&side.taken) + kept(&side.zeroed));
    let all = sides.sum::<usize>() + kept(&many.common) + kept(&many.unreadable);
    assert!((RANGES_MAX - 3 * 64..=RANGES_MAX).contains(&all), "{all}");
    assert!(many.dests.iter().all(|side| side.durable == side.taken), "what one set forgets all do");
    assert_eq!(many.dests[63].zeroed.len(), 1, "the longest stay");
    assert_eq!((many.unreadable.len(), many.bad_bytes), (0, 512), "the shortest go");
    assert!(
        many.dests.iter().all(|side| side.overwritten == [(at(0), at(8999) + 1)]),
        "nothing written by others is lost"
    );
    let mut few = record(7, 1);
    few.bound();
    assert_eq!(few, record(7, 1));
}
