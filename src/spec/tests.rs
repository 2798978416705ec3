//! The language from outside: good lines, bad lines with their carets, and that printing undoes parsing.

use std::os::unix::ffi::{OsStrExt, OsStringExt};

use proptest::prelude::*;

use super::*;

/// The canonical form of a line.
fn canonical(line: &str) -> String {
    String::from_utf8(parse(line.as_bytes()).expect(line).spec.to_line()).unwrap()
}

fn spec(line: &str) -> Spec {
    parse(line.as_bytes()).expect(line).spec
}

#[test]
fn good_lines_have_one_canonical_form() {
    let table = [
        ("from=/a to=/b", "copy from=/a to=/b"),
        ("copy from=/a to=/b", "copy from=/a to=/b"),
        ("  to=/b\t from=/a ", "copy from=/a to=/b"),
        ("from=/a,0 to=/b,0", "copy from=/a to=/b"),
        ("from=/a,1M,64K to=/b,8", "copy from=/a,2048,128 to=/b,8"),
        ("from=/a,0,128 to=/b,8,64K", "copy from=/a,0,128 to=/b,8,128"),
        ("from=/a,0,0 to=/b", "copy from=/a,0,0 to=/b"),
        ("from=/a to=/b,0,8 to=/c", "copy from=/a,0,8 to=/b,0,8 to=/c"),
        ("from=/a to=/b to=/c,0,8", "copy from=/a,0,8 to=/b to=/c,0,8"),
        ("verify from=/a,4 to=/b,0,8", "verify from=/a,4,8 to=/b,0,8"),
        ("zero to=/a,0,8 to=/b,16,8", "zero to=/a,0,8 to=/b,16,8"),
        ("verify from=/a,0,8 to=/b,9", "verify from=/a,0,8 to=/b,9"),
        ("from=/a to=/b verify", "copy from=/a to=/b verify"),
        ("paused from=/a to=/b", "copy from=/a to=/b paused"),
        ("from=/a to=/b write_seq ignore_error", "copy from=/a to=/b ignore_error write_seq"),
        ("from=/a to=/b client=default retries=0 speed_max=max", "copy from=/a to=/b"),
        ("from=/a to=/b on_read_error=stop on_write_error=drop", "copy from=/a to=/b"),
        ("from=/a to=/b speed_max=1K client=c", "copy from=/a to=/b client=c speed_max=1024"),
        (
            "create force=mounted sparse digest=blake3 verify once queue after=7 paused name=n retries=3 \
             on_write_error=stop on_read_error=skip to=/b from=/a",
            "copy from=/a to=/b on_read_error=skip on_write_error=stop retries=3 name=n paused after=7 queue once \
             verify digest=blake3 sparse create force=mounted",
        ),
        ("from=/a to=/b after=nightly", "copy from=/a to=/b after=nightly"),
        ("from='/a b',8 to=\"/c,d\",16", "copy from='/a b',8 to='/c,d',16"),
        (r"from=/a\ b\,c to=/it\'s", r#"copy from='/a b,c' to="/it's""#),
        (r#"from="/a\"b\\c\$d\`e" to='/f\g'"#, r#"copy from='/a"b\c$d`e' to='/f\g'"#),
        ("'from=/a b' to=/c=d", "copy from='/a b' to=/c=d"),
        ("from=/ä to=/b", "copy from=/ä to=/b"),
    ];
    for (line, expected) in table {
        assert_eq!(canonical(line), expected, "{line}");
        assert_eq!(canonical(expected), expected);
    }
}

#[test]
fn fields_are_what_the_line_says() {
    let spec = spec("from=/a,2,16 to=/b,4 to=/c ignore_error name=x create");
    let source = spec.from.as_ref().unwrap();
    assert_eq!((source.path.to_str(), source.sector.get()), (Some("/a"), 2));
    assert_eq!(source.count.map(Sector::get), Some(16));
    assert_eq!(spec.to.iter().map(|dest| dest.sector.get()).collect::<Vec<_>>(), [4, 0]);
    assert!(spec.ignore_error && spec.create && !spec.write_seq && !spec.paused);
    assert_eq!((spec.name.as_deref(), spec.client), (Some("x"), None));
}

#[test]
fn paths_are_any_bytes() {
    let parsed = parse(b"from=/\xff\xfe to='/\x01\t'").unwrap();
    assert_eq!(parsed.spec.from.as_ref().unwrap().path.as_bytes(), b"/\xff\xfe");
    assert_eq!(parsed.spec.to[0].path.as_bytes(), b"/\x01\t");
    assert_eq!(parse(&parsed.spec.to_line()).unwrap().spec, parsed.spec);
}

#[test]
fn spans_are_those_of_the_values() {
    let line = b"copy from='/a b',8 to=/c to=/d paused";
    let spans = parse(line).unwrap().spans;
    assert_eq!(&line[spans.of(Place::From)], b"'/a b',8");
    assert_eq!(&line[spans.of(Place::To(1))], b"/d");
    assert_eq!(spans.of(Place::Line), 0..line.len());
    assert_eq!(spans.of(Place::To(2)), 0..line.len());
    assert_eq!(parse(b"zero to=/a,0,8").unwrap().spans.of(Place::From), 0..14);
}

#[test]
fn comments_and_blanks_pass() {
    for line in ["", " \t", "#", "# from=/a to=/b", "  # x"] {
        assert!(is_blank(line.as_bytes()), "{line}");
    }
    for line in ["from=/a", "'#'", "\r"] {
        assert!(!is_blank(line.as_bytes()), "{line}");
    }
}

/// Bad lines: the kind, where the caret stands, and what the message names.
#[rustfmt::skip]
const BAD: &[(&str, ErrorKind, usize, &str)] = &[
    // words
    ("form=/a to=/b", ErrorKind::Syntax, 0, "`from=PATH"),
    ("from=/a too=/b", ErrorKind::Syntax, 8, "did you mean `to=PATH"),
    ("from=/a to=/b pause", ErrorKind::Syntax, 14, "did you mean `paused`"),
    ("from=/a to=/b frobnicate", ErrorKind::Syntax, 14, "the words are: copy"),
    ("from=/a to=/b ''", ErrorKind::Syntax, 14, "unknown word ``"),
    ("from=/a to=/b =x", ErrorKind::Syntax, 14, "unknown word ``"),
    ("from=/a to=/b # comment", ErrorKind::Syntax, 14, "unknown word `#`"),
    ("/dev/sda to=/b", ErrorKind::Syntax, 0, "needs from= or to="),
    ("from=/a copy to=/b", ErrorKind::Syntax, 8, "`copy` says what is done; write it first"),
    ("copy zero to=/b,0,8", ErrorKind::Syntax, 5, "`zero`"),
    ("COPY from=/a to=/b", ErrorKind::Syntax, 0, "unknown word `COPY`; did you mean `copy`?"),
    ("copy=1 from=/a to=/b", ErrorKind::Syntax, 5, "takes no value"),
    ("from=/a to=/b paused=1", ErrorKind::Syntax, 21, "`paused` takes no value"),
    ("from=/a to=/b name", ErrorKind::Syntax, 14, "name=LABEL"),
    ("from to=/b", ErrorKind::Syntax, 0, "from=PATH[,SECTOR[,COUNT]]"),
    ("from=/a from=/c to=/b", ErrorKind::Syntax, 8, "`from` is given twice"),
    ("from=/a to=/b paused paused", ErrorKind::Syntax, 21, "`paused` is given twice"),
    ("from=/a to=/b client=default client=x", ErrorKind::Syntax, 29, "`client` is given twice"),
    // quotes and bytes
    ("from='/a to=/b", ErrorKind::Syntax, 5, "single quote is not closed"),
    ("from=/a to=\"/b", ErrorKind::Syntax, 11, "double quote is not closed"),
    ("from=/a to=/b\\", ErrorKind::Syntax, 13, "backslash"),
    ("from=/a\0 to=/b", ErrorKind::Syntax, 7, "NUL"),
    ("from='/a\0' to=/b", ErrorKind::Syntax, 8, "NUL"),
    ("from=/a to=/b\r", ErrorKind::Syntax, 13, "carriage return"),
    ("from=/a\nto=/b", ErrorKind::Syntax, 7, "newline"),
    // paths and regions
    ("from=a to=/b", ErrorKind::Syntax, 5, "`a` is relative; write an absolute path"),
    ("from= to=/b", ErrorKind::Syntax, 5, "a path is missing"),
    ("from=/a to=,8", ErrorKind::Syntax, 11, "a path is missing"),
    ("from=/a,x to=/b", ErrorKind::Syntax, 8, "`x` as SECTOR: not a number"),
    ("from=/a, to=/b", ErrorKind::Syntax, 8, "a number is missing"),
    ("from=/a,8, to=/b", ErrorKind::Syntax, 10, "COUNT: a number is missing"),
    ("from=/a,0,8,9 to=/b", ErrorKind::Syntax, 12, "quote the path"),
    ("from=/a,-1 to=/b", ErrorKind::Syntax, 8, "not a number"),
    ("from=/a,8k to=/b", ErrorKind::Syntax, 8, "K, M, G or T"),
    ("from=/a,1000B to=/b", ErrorKind::Syntax, 8, "unknown unit"),
    ("from=/a,18014398509481984 to=/b", ErrorKind::Syntax, 8, "too large"),
    ("from=/a,99999999999999999999999 to=/b", ErrorKind::Syntax, 8, "too large"),
    ("from=/a,8388608T to=/b", ErrorKind::Syntax, 8, "too large"),
    ("from='/a b',x to=/b", ErrorKind::Syntax, 12, "`x` as SECTOR"),
    ("from=/a,18014398509481983,1 to=/b", ErrorKind::BeyondEnd, 5, "beyond the end of any device"),
    ("from=/a,0,2 to=/b to=/c,18014398509481982", ErrorKind::BeyondEnd, 21, "beyond the end of any device"),
    // the job as a whole
    ("paused", ErrorKind::Syntax, 6, "from=PATH"),
    ("copy to=/b", ErrorKind::Syntax, 10, "no source"),
    ("from=/a", ErrorKind::Syntax, 7, "no destination"),
    ("zero", ErrorKind::Syntax, 4, "no destination"),
    ("zero from=/a to=/b,0,8", ErrorKind::Syntax, 10, "`zero` reads nothing"),
    ("zero to=/b", ErrorKind::Syntax, 8, "needs SECTOR and COUNT"),
    ("zero to=/b,0,8 to=/c,8", ErrorKind::Syntax, 18, "needs SECTOR and COUNT"),
    ("zero to=/b,0,8 to=/c,8,9", ErrorKind::Syntax, 18, "COUNT 9 differs from the earlier 8; all regions"),
    ("zero to=/b,0,8 digest=sha256", ErrorKind::Syntax, 0, "no digest"),
    ("verify from=/a,0,8 to=/b,0,9", ErrorKind::Syntax, 22, "COUNT 9 differs from the earlier 8"),
    ("from=/a,0,8 to=/b,0,9", ErrorKind::Syntax, 15, "COUNT 9 differs from the earlier 8"),
    ("from=/a to=/b,0,8 to=/c,0,9", ErrorKind::Syntax, 21, "COUNT 9 differs from the earlier 8"),
    // values
    ("from=/a to=/b name=", ErrorKind::Syntax, 19, "name: a name is missing"),
    ("from=/a to=/b name=..", ErrorKind::Syntax, 19, "cannot be a file's name"),
    ("from=/a to=/b name=a/b", ErrorKind::Syntax, 19, "`a/b` has other characters than"),
    ("from=/a to=/b client='a b'", ErrorKind::Syntax, 21, "`a b` has other characters than"),
    ("from=/a to=/b retries=many", ErrorKind::Syntax, 22, "`many`: not a number"),
    ("from=/a to=/b retries=4294967296", ErrorKind::Syntax, 22, "too large"),
    ("from=/a to=/b speed_max=0", ErrorKind::Syntax, 24, "paused"),
    ("from=/a to=/b speed_max=9k", ErrorKind::Syntax, 24, "bytes per second"),
    ("from=/a to=/b after=0", ErrorKind::Syntax, 20, "count from 1"),
    ("from=/a to=/b after=a/b", ErrorKind::Syntax, 20, "or by its name"),
    ("from=/a to=/b once paused", ErrorKind::Syntax, 14, "add name=LABEL"),
    ("zero to=/b,0,8 once", ErrorKind::Syntax, 15, "add name=LABEL"),
    ("from=/a to=/b digest=md5", ErrorKind::Syntax, 21, "not one of: sha256, blake3"),
    ("from=/a to=/b force=held", ErrorKind::Syntax, 20, "`held` is not one of: mounted"),
    ("from=/a to=/b on_read_error=drop", ErrorKind::Syntax, 28, "not one of: stop, zero, skip"),
    ("from=/a to=/b on_write_error=zero", ErrorKind::Syntax, 29, "not one of: drop, stop"),
];

#[test]
fn bad_lines_are_refused_with_a_caret() {
    for (line, kind, column, names) in BAD {
        let refused = parse(line.as_bytes()).expect_err(line);
        let text = refused.to_string();
        assert_eq!((refused.error.kind(), refused.span.start), (*kind, *column), "{line:?}: {text}");
        assert!(refused.span.end <= line.len(), "{line:?}");
        assert!(text.contains(names), "{line:?}: {text}");
        assert!(!text.contains(char::is_control), "{line:?}: {text}");
    }
}

#[test]
fn limits_are_where_they_are_said_to_be() {
    let dests = |count: usize| format!("from=/a{}", " to=/b".repeat(count));
    assert_eq!(spec(&dests(64)).to.len(), 64);
    let refused = parse(dests(65).as_bytes()).unwrap_err();
    assert_eq!((refused.error.kind(), refused.span.start), (ErrorKind::TooBig, 7 + 64 * 6 + 4));

    let line = |len: usize| format!("copy from=/a to=/{}", "b".repeat(len - 17));
    assert!(parse(line(MAX_LINE).as_bytes()).is_ok());
    let refused = parse(line(MAX_LINE + 1).as_bytes()).unwrap_err();
    assert_eq!((refused.error.kind(), refused.span), (ErrorKind::TooBig, MAX_LINE..MAX_LINE + 1));

    // Short as written, too long to be written again.
    let long = format!("from=/a to=\"'\"'/{}'", r"\".repeat(40_000));
    assert_eq!(parse(long.as_bytes()).unwrap_err().error.kind(), ErrorKind::Syntax);
    let long = format!("from=/a to=/\"'\"'{}'", r"\".repeat(40_000));
    assert_eq!(parse(long.as_bytes()).unwrap_err().error.kind(), ErrorKind::TooBig);
}

#[test]
fn messages_stay_short() {
    let long = format!("from=/a to=/b {}", "x".repeat(60_000));
    assert!(parse(long.as_bytes()).unwrap_err().to_string().len() < 400);
}

/// A path of any bytes that a line can say, in every length of interest.
fn path() -> impl Strategy<Value = OsString> {
    let odd = prop::sample::select(b" \t,'\"\\$`#=*\r\x7f\xff".to_vec());
    let byte = prop_oneof![any::<u8>().prop_filter("in no path", |byte| !matches!(byte, 0 | b'\n')), odd];
    prop::collection::vec(byte, 0..40).prop_map(|mut bytes| {
        bytes.insert(0, b'/');
        OsString::from_vec(bytes)
    })
}

fn sector() -> impl Strategy<Value = Sector> {
    prop_oneof![Just(0), 0..100_u64, 0..=Sector::MAX.get() / 2].prop_map(|number| Sector::new(number).unwrap())
}

fn label() -> impl Strategy<Value = String> {
    "[A-Za-z0-9._-]{1,64}".prop_filter("no label of its own", |name| !matches!(&**name, "." | ".." | "default"))
}

/// Regions that a job of that action may have, all of one length.
fn regions() -> impl Strategy<Value = (Action, Option<RegionSpec>, Vec<RegionSpec>)> {
    let action = prop::sample::select(vec![Action::Copy, Action::Zero, Action::Verify, Action::Test]);
    let dest = (path(), sector(), any::<bool>());
    (action, path(), sector(), sector(), any::<bool>(), prop::collection::vec(dest, 1..=MAX_DESTS)).prop_map(
        |(action, path, sector, length, counted, dests)| {
            // A COUNT of a destination is the source's too.
            let count = (counted || dests.iter().any(|(_, _, counted)| *counted)).then_some(length);
            let has_source = matches!(action, Action::Copy | Action::Verify);
            let from = has_source.then_some(RegionSpec { path, sector, count });
            let dests = dests.into_iter().map(|(path, sector, counted)| {
                let counted = action == Action::Zero || counted;
                RegionSpec { path, sector, count: counted.then_some(length) }
            });
            (action, from, dests.collect())
        },
    )
}

fn after() -> impl Strategy<Value = After> {
    let named = label().prop_filter("a number is a job's", |name| !name.bytes().all(|byte| byte.is_ascii_digit()));
    prop_oneof![(1_u64..).prop_map(After::Job), named.prop_map(After::Name)]
}

fn digests() -> impl Strategy<Value = Digests> {
    let one = (prop::sample::select(vec!["sha256", "blake3"]), prop::option::of("[0-9a-f]{64}"));
    prop::collection::vec(one, 0..3).prop_map(|each| {
        let each = each.into_iter().map(|(name, sum)| sum.map_or(name.to_owned(), |sum| format!("{name}:{sum}")));
        Digests::parse(each.collect::<Vec<_>>().join(",").as_bytes()).unwrap_or_default()
    })
}

fn any_spec() -> impl Strategy<Value = Spec> {
    let words = (
        prop::sample::select(vec![OnReadError::Stop, OnReadError::Zero, OnReadError::Skip]),
        prop::sample::select(vec![OnWriteError::Drop, OnWriteError::Stop]),
        prop_oneof![Just(0), any::<u32>()],
        prop::option::of(label()),
        prop::option::of(label()),
        prop::option::of(1_u64..),
        prop::option::of(after()),
        digests(),
    );
    (regions(), words, any::<[bool; 11]>(), prop::option::of(path())).prop_map(
        |((action, from, to), words, flags, map)| {
            let (on_read_error, on_write_error, retries, client, name, speed_max, after, digests) = words;
            let [
                ignore_error,
                write_seq,
                paused,
                queue,
                verify,
                sparse,
                create,
                force_mounted,
                once,
                changed,
                background,
            ] = flags;
            // What contradicts the action or another word is refused.
            let digests = if matches!(action, Action::Zero | Action::Test) { Digests::default() } else { digests };
            // A source may be compared with its sums alone.
            let to = if action == Action::Verify && digests.expects() && queue { Vec::new() } else { to };
            let verify = verify && !matches!(action, Action::Zero | Action::Test);
            let sparse = sparse && action != Action::Test;
            let on_read_error = if action == Action::Test { OnReadError::Stop } else { on_read_error };
            let create = create && action != Action::Verify;
            let map = map.filter(|_| action == Action::Copy && after.is_none());
            let changed = changed && action == Action::Copy;
            let once = once && name.is_some();
            let ignore_error = ignore_error && action != Action::Test && on_read_error == OnReadError::Stop;
            Spec {
                action,
                from,
                to,
                ignore_error,
                write_seq,
                on_read_error,
                on_write_error,
                retries,
                map,
                changed,
                client,
                name,
                speed_max,
                paused,
                background,
                after,
                queue,
                once,
                verify,
                digests,
                sparse,
                create,
                force_mounted,
            }
        },
    )
}

proptest! {
    /// `parse(print(x)) == x`.
    #[test]
    fn printing_undoes_parsing(spec in any_spec()) {
        let line = spec.to_line();
        prop_assert!(!line.contains(&b'\n'));
        let parsed = parse(&line).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(&parsed.spec, &spec);
        prop_assert_eq!(parsed.spec.to_line(), line);
    }

    /// Any bytes are a job or an error with a caret within the line.
    #[test]
    fn no_bytes_are_a_surprise(line in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(refused) = parse(&line) {
            prop_assert!(refused.span.start <= refused.span.end && refused.span.end <= line.len());
        }
    }

    /// The same near the language, where it is easier to trip.
    #[test]
    fn nearly_words_are_no_surprise(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "copy", "zero", "verify", "from=", "to=", "/a", ",", "8", "1M", "'", "\"", "\\", " ", "=", "name=",
                "paused", "retries=", "digest=sha256", "speed_max=max", ":00",
            ]),
            0..12,
        ),
    ) {
        let line = words.concat().into_bytes();
        match parse(&line) {
            Ok(parsed) => prop_assert_eq!(parse(&parsed.spec.to_line()).unwrap().spec, parsed.spec),
            Err(refused) => prop_assert!(refused.span.start <= refused.span.end && refused.span.end <= line.len()),
        }
    }
}
