//! The formats, to the letter.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::fs::keys::{dests, errors, event, status};
use crate::jobs::{BadKind, BadRange, Change, DestState, DestView, State};
use crate::sector::Sector;

fn view() -> View {
    View {
        id: 7,
        state: State::Running,
        read_err: false,
        write_err: 0,
        total: 107_374_182_400,
        copied: 45_281_234_944,
        durable: 44_023_414_784,
        speed: 1_932_735_283,
        eta: Some(Duration::from_millis(32_126)),
        elapsed: Duration::from_micros(23_431_201),
        stalled: Duration::ZERO,
        bad_bytes: 0,
        client: "default".to_owned(),
        name: None,
        digest: None,
        error: None,
        source: Some("/dev/sda".into()),
        dests: vec![dest(b"/dev/sdb")],
        progressed: UNIX_EPOCH,
        course: crate::jobs::Course { phase: Some("copy"), ..Default::default() },
        limited_by: None,
    }
}

fn dest(path: &[u8]) -> DestView {
    DestView {
        state: DestState::Active,
        copied: 45_281_234_944,
        durable: 44_023_414_784,
        errors: 0,
        first_error: None,
        path: OsString::from_vec(path.to_vec()),
    }
}

fn string(text: Vec<u8>) -> String {
    String::from_utf8(text).unwrap()
}

#[test]
fn status_has_its_keys_in_order() {
    let expected = "state running\nread_err 0\nwrite_err 0x0\ntotal 107374182400\ncopied 45281234944\n\
        durable 44023414784\npercent 42.17\nspeed 1932735283\neta_usec 32126000\nelapsed_usec 23431201\n\
        stalled_usec 0\nbad_bytes 0\nclient default\nname -\ndigest -\nerror -\nphase copy\nverified 0\nread_errors 0\n\
        suspect_bytes 0\nsame 0\nstarted -\nended -\nlimited_by -\n";
    assert_eq!(string(status(&view())), expected);
    let course = crate::jobs::Course {
        started: Some(UNIX_EPOCH + Duration::from_micros(1_763_980_000_000_001)),
        ..view().course
    };
    let text = string(status(&View { course, limited_by: Some(crate::jobs::Limit::SpeedMax), ..view() }));
    assert!(text.ends_with("same 0\nstarted 1763980000000001\nended -\nlimited_by speed_max\n"), "{text}");
}

#[test]
fn status_never_breaks_a_line() {
    let bad = View {
        write_err: 0x2,
        eta: None,
        name: Some("a\nb".to_owned()),
        error: Some("open /dev/x\nstate done".to_owned()),
        ..view()
    };
    let text = string(status(&bad));
    assert_eq!(text.lines().count(), 24);
    assert!(text.contains("write_err 0x2\n") && text.contains("eta_usec none\n") && text.contains("name a\\012b\n"));
    assert!(text.contains("\nerror open /dev/x\\012state done\nphase copy\n"));
}

#[test]
fn percent_is_100_only_when_all_is_copied() {
    for (copied, total, expected) in [
        (0, 10, "0.00"),
        (1, 3, "33.33"),
        (u64::MAX - 1, u64::MAX, "99.99"),
        (999_999, 1_000_000, "99.99"),
        (5, 5, "100.00"),
        (0, 0, "100.00"),
    ] {
        assert_eq!(percent(&View { total, copied, ..view() }), expected);
    }
}

#[test]
fn a_destination_is_a_line_whatever_its_path() {
    let expected = "0 state=active copied=45281234944 durable=44023414784 errors=0 errno=- sector=- path=/dev/sdb\n";
    assert_eq!(string(dests(&view())), expected);

    let mut odd = dest(b"/tmp/a b\nc\\d\t\xff");
    odd.state = DestState::Failed;
    odd.errors = 2;
    odd.first_error = Some((libc::EIO, Sector::new(100).unwrap()));
    let text = dests(&View { dests: vec![odd], ..view() });
    let expected = b"0 state=failed copied=45281234944 durable=44023414784 errors=2 errno=EIO sector=100 \
        path=/tmp/a b\\012c\\134d\\011\xff\n";
    assert_eq!(text, expected);
}

#[test]
fn errors_name_the_side() {
    let (sector, count) = (Sector::new(100).unwrap(), Sector::new(8).unwrap());
    let ranges = [
        BadRange { dest: None, kind: BadKind::Failed, sector, count, errno: libc::EIO },
        BadRange { dest: Some(3), kind: BadKind::Failed, sector, count, errno: libc::ENOSPC },
        BadRange { dest: Some(4), kind: BadKind::Differs, sector, count, errno: libc::EBADMSG },
    ];
    assert_eq!(string(errors(&ranges)), "read 100 8 EIO\nwrite 3 100 8 ENOSPC\ndiffers 4 100 8\n");
}

#[test]
fn an_event_is_a_line() {
    let mut change = Change {
        time: UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001),
        id: 7,
        name: None,
        old: None,
        new: State::Queued,
        reason: None,
    };
    assert_eq!(string(event(&change)), "1700000000000001 7 - queued\n");
    change.old = Some(State::Running);
    change.new = State::Failed;
    change.reason = Some("read\n/dev/sda".to_owned());
    assert_eq!(string(event(&change)), "1700000000000001 7 running failed read\\012/dev/sda\n");
    change.name = Some("nightly".to_owned());
    assert_eq!(string(event(&change)), "1700000000000001 7 running failed name=nightly read\\012/dev/sda\n");
}

#[test]
fn moments_are_civil() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_782_399, "2000-02-28T23:59:59Z"),
        (951_782_400, "2000-02-29T00:00:00Z"),
        (1_709_251_200, "2024-03-01T00:00:00Z"),
        (4_102_444_799, "2099-12-31T23:59:59Z"),
    ] {
        assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
    }
}
