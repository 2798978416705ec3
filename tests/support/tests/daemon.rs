//! The daemon's fixture against a stand-in that only claims to be ready, and its parsers against the contract's texts.

use std::{fs, path::PathBuf};

use kcopyfs_support::{
    Daemon,
    daemon::{BadRange, Dest, Status},
    need,
};

const STAND_IN: &str = r#"#!/usr/bin/env python3
import os, signal, socket, sys
assert sys.argv[1:3] == ["-f", "-o"] and "state=" in sys.argv[3]
if "refuse" in sys.argv[3]:
    sys.exit("refuse: no such option")
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
version = os.path.join(sys.argv[4], "version")
with open(version, "w") as file:
    file.write("stand-in\n")
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"STATUS=up\nREADY=1\n", os.environ["NOTIFY_SOCKET"])
signal.sigwait({signal.SIGTERM})
os.remove(version)
"#;

fn stand_in(scratch: &tempfile::TempDir) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let program = scratch.path().join("stand-in");
    fs::write(&program, STAND_IN).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

#[test]
fn a_daemon_starts_stops_dies_and_starts_again() {
    if !need::program("python3", "python3") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::builder(stand_in(&scratch)).option("pages=512").start();
    assert_eq!(daemon.read("version").unwrap(), "stand-in\n");
    let output = daemon.sh("sh", "cat $M/version; cat $M/nothing");
    assert_eq!((output.code(), output.stdout.as_str()), (1, "stand-in\n"));
    assert!(output.stderr.contains("nothing"));
    assert_eq!(daemon.sh("bash", "sleep 1000 & echo started").ok(), "started\n");
    daemon.stop();
    assert!(!daemon.path("version").exists());
    daemon.restart();
    daemon.kill9();
    daemon.restart();
    let mount = daemon.mount().to_path_buf();
    drop(daemon);
    assert!(!mount.exists());
}

#[test]
fn a_daemon_that_ends_instead_tells_why() {
    if !need::program("python3", "python3") {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let refused = Daemon::builder(stand_in(&scratch)).option("refuse").try_start().unwrap_err();
    assert_eq!(refused.status.unwrap().code(), Some(1));
    assert_eq!(refused.stderr, "refuse: no such option\n");
}

const STATUS: &str = "\
state running
read_err 0
write_err 0x2
total 107374182400
copied 45281234944
durable 44023414784
percent 42.17
speed 1932735283
eta_usec none
elapsed_usec 23431201
stalled_usec 0
bad_bytes 0
client default
name -
digest -
error /dev/sdb: sector 8: EIO
phase copy
verified 0
read_errors 0
suspect_bytes 0
same 0
started 1790000000000000
ended -
limited_by source
";

#[test]
fn a_status_parses_to_typed_values() {
    let status = Status::parse(STATUS);
    assert_eq!((status.state(), status.is_ended(), status.read_err()), ("running", false, false));
    assert_eq!((status.write_err(), status.copied(), status.eta_usec()), (2, 45_281_234_944, None));
    assert_eq!((status.name(), status.error()), (None, Some("/dev/sdb: sector 8: EIO")));
    assert!((status.percent() - 42.17).abs() < 1e-9);
}

#[test]
fn a_status_of_another_shape_fails_the_test() {
    let bad = [
        STATUS.replace("bad_bytes 0\n", ""),
        STATUS.replace("name -\ndigest -\n", "digest -\nname -\n"),
        STATUS.replace("state running", "state busy"),
        STATUS.replace("0x2", "2"),
        STATUS.replace("42.17", "42.1"),
        STATUS.replace("42.17", "100.00"),
        STATUS.replace("durable 4", "durable 9"),
        STATUS.trim_end().to_owned(),
    ];
    for text in bad {
        assert!(std::panic::catch_unwind(|| Status::parse(&text)).is_err(), "taken:\n{text}");
    }
}

#[test]
fn dests_and_errors_parse() {
    let dests = Dest::parse_all(
        "0 state=active copied=10 durable=5 errors=0 errno=- sector=- path=/dev/sdb\n\
         1 state=failed copied=0 durable=0 errors=2 errno=EIO sector=16 path=/mnt/a b\n",
    );
    assert_eq!((dests[0].copied, dests[0].sector, dests[0].errno.as_deref()), (10, None, None));
    assert_eq!((dests[1].sector, dests[1].errno.as_deref()), (Some(16), Some("EIO")));
    assert_eq!(dests[1].path, PathBuf::from("/mnt/a b"));

    let errors = BadRange::parse_all("read 8 1 EIO\nwrite 2 16 8 ENOSPC\n");
    assert_eq!(errors[0], BadRange { dest: None, sector: 8, count: 1, errno: "EIO".to_owned() });
    assert_eq!(errors[1].dest, Some(2));
}
