//! Jobs that wait hold no descriptors: far more of them than the daemon may have files open.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use kcopyfs_support::{Daemon, LoopDevice, need};

use crate::kit::{scratch, until};

/// Descriptors that the daemon may have.
const LIMIT: u64 = 300;
/// Jobs that wait; `KCOPYFS_WAITING=100000` makes more.
const JOBS: u64 = 3000;
/// Jobs that have begun, and are paused.
const BEGUN: u64 = 90;

/// A program that starts the daemon with so few descriptors.
fn limited(folder: &Path, limit: u64) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let program = folder.join("limited");
    let text = format!("#!/bin/sh\nulimit -n {limit}\nexec {} \"$@\"\n", crate::kit::PROGRAM);
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    program
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Descriptors of the daemon that lead into a directory.
fn open_in(daemon: &Daemon, folder: &Path) -> usize {
    let all = fs::read_dir(format!("/proc/{}/fd", daemon.worker())).unwrap();
    let targets = all.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(folder)).count()
}

#[test]
fn more_jobs_wait_than_files_may_be_open() {
    if !need::fuse() {
        return;
    }
    let (jobs, limit) = (number("KCOPYFS_WAITING", JOBS), number("KCOPYFS_WAITING_LIMIT", LIMIT));
    let folder = scratch();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let from = data.join("from");
    fs::write(&from, vec![7; 4096]).unwrap();
    let program = limited(folder.path(), limit);
    let mut daemon =
        Daemon::builder(program).option("active=2").option("keep=200000").option("max_jobs=200000").start();
    // Most of them paused, a tenth of them behind two that do not end.
    let long = data.join("long");
    fs::write(&long, vec![7; 1 << 20]).unwrap();
    let slow = |index: u64| {
        let to = data.join(format!("slow{index}"));
        daemon.job(&format!("from={} to={} create speed_max=1", long.display(), to.display())).unwrap()
    };
    let slow = [slow(0), slow(1)];
    let is_queued = |index: u64| index % 10 == 9;
    let mut lines = String::new();
    for index in 0..jobs {
        let to = data.join(format!("to{index}"));
        let word = if is_queued(index) { "" } else { "paused" };
        let _ = writeln!(lines, "from={} to={} create {word}", from.display(), to.display());
        // Many a write, and some alone.
        if lines.len() > 15_000 || index % 1000 < 20 || index + 1 == jobs {
            daemon.write("jobs/new", &lines).unwrap();
            lines.clear();
        }
    }
    let waiting = fs::read_dir(daemon.path("state/queued")).unwrap().count();
    let paused = fs::read_dir(daemon.path("state/paused")).unwrap().count();
    assert_eq!((waiting + paused) as u64, jobs);
    // The two that run have their source and their destination open.
    until("descriptors are closed", || (open_in(&daemon, &data) <= 4).then_some(()));
    if std::env::var_os("KCOPYFS_WAITING_RESTART").is_some() {
        // It looks at all their devices, which takes its time on a machine that is busy.
        daemon.stop();
        daemon.restart();
        until("descriptors are closed", || (open_in(&daemon, &data) <= 4).then_some(()));
    }
    for id in slow {
        daemon.control(id, "cancel").unwrap();
    }
    let last = slow[1] + jobs;
    assert_eq!(daemon.wait(last).state(), "done");
    daemon.control(last - 1, "resume").unwrap();
    assert_eq!(daemon.wait(last - 1).state(), "done");
    until("all that were queued are done", || {
        (fs::read_dir(daemon.path("state/done")).unwrap().count() as u64 > jobs / 10).then_some(())
    });
    for index in (0..jobs).filter(|index| is_queued(*index)) {
        assert_eq!(fs::read(data.join(format!("to{index}"))).unwrap(), vec![7; 4096], "{index}");
    }
    assert_eq!(open_in(&daemon, &data), 0);
}

#[test]
fn a_job_goes_on_only_with_the_devices_that_it_was_made_for() {
    if !need::fuse() {
        return;
    }
    let folder = scratch();
    let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
    fs::write(&from, vec![1; 8192]).unwrap();
    fs::write(&to, vec![2; 8192]).unwrap();
    let daemon = Daemon::builder(crate::kit::PROGRAM).option("state=none").start();
    let spec = format!("from={} to={} paused", from.display(), to.display());
    let id = daemon.job(&spec).unwrap();
    until("its files are closed", || (open_in(&daemon, folder.path()) == 0).then_some(()));
    // Another file takes the destination's name.
    fs::rename(&to, folder.path().join("old")).unwrap();
    fs::write(&to, vec![3; 8192]).unwrap();
    daemon.control(id, "resume").unwrap();
    until("held", || (daemon.status(id).state() == "held").then_some(()));
    let status = daemon.status(id);
    assert!(status.error().is_some_and(|why| why.contains("may not be the same") && why.contains("inode")), "{status}");
    assert_eq!(fs::read(&to).unwrap(), vec![3; 8192]);
    // Who looks at it may go on with it.
    daemon.control(id, "resume").unwrap();
    assert_eq!(daemon.wait(id).state(), "done");
    assert_eq!(fs::read(&to).unwrap(), vec![1; 8192]);
    assert_eq!(fs::read(folder.path().join("old")).unwrap(), vec![2; 8192]);
    // A source that went away.
    let id = daemon.job(&spec).unwrap();
    until("its files are closed", || (open_in(&daemon, folder.path()) == 0).then_some(()));
    fs::remove_file(&from).unwrap();
    daemon.control(id, "resume").unwrap();
    until("held", || (daemon.status(id).state() == "held").then_some(()));
    daemon.control(id, "cancel").unwrap();
    assert_eq!(daemon.wait(id).state(), "cancelled");
}

#[test]
fn many_paused_jobs_that_have_begun_let_go_and_go_on() {
    if !need::fuse() {
        return;
    }
    let folder = scratch();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let from = data.join("from");
    let content: Vec<u8> = (0..1_u32 << 20).map(|at| (at / 4096 % 251) as u8).collect();
    fs::write(&from, &content).unwrap();
    let daemon =
        Daemon::builder(crate::kit::PROGRAM).option("subjob_kb=64").option("active=200").option("subjobs=2").start();
    let to = |index: u64| data.join(format!("to{index}"));
    let words = ["", "digest=sha256", "write_seq", "verify"];
    let ids: Vec<u64> = (0..BEGUN)
        .map(|index| {
            let words = words[usize::try_from(index).unwrap() % words.len()];
            let line = format!("from={} to={} create speed_max=2K {words}", from.display(), to(index).display());
            daemon.job(&line).unwrap()
        })
        .collect();
    for id in &ids {
        until("it has begun", || (daemon.status(*id).copied() > 0).then_some(()));
        daemon.control(*id, "pause").unwrap();
    }
    // 64 of them may keep theirs.
    until("descriptors are closed", || (open_in(&daemon, &data) <= 2 * 64).then_some(()));
    for id in &ids {
        daemon.write(format!("jobs/{id}/speed_max"), "max").unwrap();
        daemon.control(*id, "resume").unwrap();
    }
    for (index, id) in (0..).zip(&ids) {
        let status = daemon.wait(*id);
        assert_eq!(status.state(), "done", "\n{status}");
        assert!(fs::read(to(index)).unwrap() == content, "job {id}");
    }
}

#[test]
fn a_device_that_a_job_waits_to_write_is_kept_from_others() {
    if !need::loops() || !need::fuse() {
        return;
    }
    let folder = scratch();
    let from = folder.path().join("from");
    fs::write(&from, vec![1; 1 << 20]).unwrap();
    let device = LoopDevice::new(1 << 20, 512);
    let daemon = Daemon::builder(crate::kit::PROGRAM).option("state=none").start();
    let id = daemon.job(&format!("from={} to={} paused", from.display(), device.path().display())).unwrap();
    until("its source is closed", || (open_in(&daemon, folder.path()) == 0).then_some(()));
    let exclusive = || {
        use std::os::unix::fs::OpenOptionsExt as _;
        fs::OpenOptions::new().write(true).custom_flags(libc::O_EXCL).open(device.path())
    };
    assert_eq!(exclusive().unwrap_err().raw_os_error(), Some(libc::EBUSY));
    daemon.control(id, "cancel").unwrap();
    assert_eq!(daemon.wait(id).state(), "cancelled");
    exclusive().unwrap();
}
