//! The table's promises, and lists as people and mount(8) write them.

use super::*;
use std::os::unix::ffi::OsStringExt;

fn parse(list: &str) -> Result<Options> {
    Options::parse(&[OsString::from(list)])
}

fn good(list: &str) -> Options {
    parse(list).unwrap_or_else(|error| panic!("{list}: {error}"))
}

/// The message of a refusal.
fn bad(list: &str) -> String {
    let error = parse(list).expect_err(list);
    assert_eq!(error.kind(), ErrorKind::Invalid, "{list}");
    error.to_string()
}

#[test]
fn defaults_are_what_the_table_says() {
    for option in &OPTIONS {
        match option.name {
            "allow_other" => assert_eq!(option.default, "off"),
            "state" => assert!(option.default.starts_with("/var/lib/kcopyfs")),
            name => assert_eq!(good(&format!("{name}={}", option.default)), Options::default(), "{name}"),
        }
    }
    assert_eq!(good(""), Options::default());
}

#[test]
fn names_are_there_once() {
    let known = |name: &str| OPTIONS.iter().filter(|option| option.name == name).count();
    for option in &OPTIONS {
        assert_eq!(known(option.name), 1);
        assert_eq!(option.value.is_none(), matches!(option.field, Field::Flag(_)));
    }
    for name in IGNORED.split(' ').chain(REFUSED.iter().map(|(name, _)| *name)) {
        assert_eq!(known(name), 0, "{name}");
    }
}

#[test]
fn numbers_are_taken_within_their_bounds_alone() {
    for option in &OPTIONS {
        let Some(range) = option.range() else { continue };
        let (name, start, end) = (option.name, *range.start(), *range.end());
        // Alone, so that only the number's own bounds are met.
        let set = |number: u64| option.set(&mut Options::default(), Some(OsStr::new(&number.to_string())));
        assert!(set(start).is_ok() && set(end).is_ok(), "{name}");
        assert!(set(end + 1).unwrap_err().contains("out of range"), "{name}");
        assert!(start == 0 || set(start - 1).is_err(), "{name}");
        for text in ["", "x", "-1", "1.5", "0x10", "99999999999999999999"] {
            let text = bad(&format!("{name}={text}"));
            assert!(text.contains(name) && text.contains(&format!("{start} to {end}")), "{text}");
        }
        assert!(bad(name).contains(&option.usage()));
    }
}

#[test]
fn values_reach_their_fields() {
    let options = good(
        "pages=1024,client_pages=512,subjob_kb=256,subjobs=4,throttle=50,state=/srv/k,keep=7,max_jobs=9,active=2,\
         io=threads,allow_other,gid=12,mode=0660",
    );
    let expected = Options {
        pages: 1024,
        client_pages: 512,
        subjob_kb: 256,
        subjobs: Some(4),
        throttle: 50,
        state: StateDir::Dir("/srv/k".into()),
        keep: 7,
        max_jobs: 9,
        active: 2,
        io: Io::Threads,
        allow_other: true,
        gid: 12,
        mode: 0o660,
    };
    assert_eq!(options, expected);
}

#[test]
fn the_last_of_two_wins() {
    let lists = ["pages=256,pages=512", "pages=1024"].map(OsString::from);
    assert_eq!(Options::parse(&lists).unwrap().pages, 1024);
}

#[test]
fn pool_client_and_sub_job_fit_each_other() {
    assert_eq!(good("pages=256").client_pages, 256);
    assert_eq!(good("pages=4096").client_pages, 1024);
    assert_eq!(good("client_pages=4096").client_pages, 4096);
    assert!(bad("pages=256,client_pages=257").contains("client_pages: 257"));
    assert!(bad("client_pages=127").contains("client_pages: 127"));
    assert_eq!(good("client_pages=127,subjob_kb=256").client_pages, 127);
    assert!(bad("pages=128,subjob_kb=1024").contains("pages: 128"));
    assert!(bad("subjob_kb=48").contains("power of two"));
}

#[test]
fn what_mount_adds_is_ignored() {
    let list =
        "rw,dev,suid,noauto,nofail,_netdev,x-systemd.requires=/srv,X-mount.mkdir,user=joe,comment=a b,,relatime,";
    assert_eq!(good(list), Options::default());
}

#[test]
fn what_changes_the_mount_is_refused_with_the_reason() {
    assert!(bad("rw,ro").contains("cannot be read-only; drop `ro`"));
    assert!(bad("remount,ro").contains("cannot be remounted"));
    assert!(bad("page=512").contains("did you mean pages=N?"));
    assert!(bad("foo").contains("`foo` is unknown; kcopyfs --help"));
    assert!(bad("umask=077").contains("`umask` is unknown; kcopyfs --help"));
    assert!(bad("allow_other=1").contains("allow_other: takes no value"));
    assert!(bad("io=aio").contains("`aio` is not a backend"));
}

#[test]
fn groups_go_by_number_or_name() {
    assert_eq!(good("gid=root").gid, 0);
    assert_eq!(good("gid=6").gid, 6);
    for group in ["no-such-group-here", "4294967295", "4294967296", ""] {
        assert!(bad(&format!("gid={group}")).contains("there is no group"), "{group}");
    }
}

#[test]
fn modes_are_octal_and_never_let_others_write() {
    assert_eq!(good("mode=640").mode, 0o640);
    assert_eq!(good("mode=0664").mode, 0o664);
    for mode in ["", "9", "0x1ff", "00600", "rw"] {
        assert!(bad(&format!("mode={mode}")).contains("octal"), "{mode}");
    }
    for mode in ["0666", "0700", "4600"] {
        assert!(bad(&format!("mode={mode}")).contains("others never write"), "{mode}");
    }
}

#[test]
fn a_backslash_keeps_a_comma() {
    assert_eq!(good(r"state=/srv/a\,b\\c\d,pages=256").state, StateDir::Dir(r"/srv/a,b\c\d".into()));
    let odd = OsString::from_vec(b"state=/srv/\xff".to_vec());
    let expected = StateDir::Dir(OsString::from_vec(b"/srv/\xff".to_vec()).into());
    assert_eq!(Options::parse(&[odd]).unwrap().state, expected);
}

#[test]
fn jobs_are_kept_where_the_user_keeps_state() {
    let home = || Some(OsString::from("/home/joe"));
    let dir = |state: StateDir, uid, xdg: Option<&str>, home| state.resolve_in(uid, xdg.map(OsString::from), home);
    let standard = |uid, xdg, home| dir(StateDir::Standard, uid, xdg, home).unwrap().unwrap();
    assert_eq!(standard(0, Some("/x"), home()), Path::new("/var/lib/kcopyfs"));
    assert_eq!(standard(7, Some("/x"), home()), Path::new("/x/kcopyfs"));
    assert_eq!(standard(7, Some("relative"), home()), Path::new("/home/joe/.local/state/kcopyfs"));
    assert_eq!(standard(7, None, home()), Path::new("/home/joe/.local/state/kcopyfs"));
    assert_eq!(dir(StateDir::Standard, 7, None, None).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(dir(good("state=none").state, 7, None, None).unwrap(), None);
    assert_eq!(dir(good("state=/s").state, 7, None, None).unwrap(), Some("/s".into()));
}

#[test]
fn the_help_has_every_option_with_its_default() {
    let help = help();
    for option in &OPTIONS {
        assert!(help.contains(&option.usage()) && help.contains(&format!("default {}", option.default)));
    }
    assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
}
