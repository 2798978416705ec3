//! Clients and their pages, and how many jobs are held.

use std::fs;

use kcopyfs_support::{Fault, FaultDisk, Op, need};

use crate::bench::{Bench, IMAGE};

/// A figure of a client.
fn stat(bench: &Bench, client: &str, key: &str) -> u64 {
    let text = bench.daemon.read(format!("clients/{client}/stat")).expect("read stat");
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {key}:\n{text}"))
}

#[test]
fn a_job_uses_the_pages_of_its_client_needs_root() {
    if !need::fault_disk() {
        return;
    }
    let Some(bench) = Bench::new(&["state=none", "pages=768"]) else { return };
    assert_eq!(bench.mkdir("clients/bulk"), 0);
    assert_eq!(bench.mkdir("clients/bulk"), libc::EEXIST);
    // One sub-job's pages, as kcopyd has it.
    assert_eq!((stat(&bench, "bulk", "pages"), stat(&bench, "bulk", "pages_used")), (128, 0));

    let disk = FaultDisk::builder(IMAGE as u64).start();
    disk.rule(Op::Write, .., Fault::Hang);
    let spec = format!("from={} to={} client=bulk", bench.path("a").display(), disk.path().display());
    let id = bench.daemon.job(&spec).unwrap();
    disk.wait_parked(1);
    assert_eq!((stat(&bench, "bulk", "pages_used"), stat(&bench, "default", "pages_used")), (16, 0));
    assert_eq!((stat(&bench, "bulk", "jobs_live"), stat(&bench, "default", "jobs_live")), (1, 0));
    assert_eq!(bench.rmdir("clients/bulk"), libc::EBUSY);
    // What one client waits for does not keep another waiting.
    let other = bench.daemon.job(&bench.copy("b", "")).unwrap();
    assert_eq!(bench.daemon.wait(other).state(), "done");

    disk.clear();
    disk.release();
    assert_eq!(bench.daemon.wait(id).state(), "done");
    assert_eq!((stat(&bench, "bulk", "pages_used"), stat(&bench, "bulk", "jobs_live")), (0, 0));
    // All the pool has, and one more.
    bench.daemon.write("clients/bulk/pages", "256").unwrap();
    assert_eq!(stat(&bench, "bulk", "pages"), 256);
    let refused = bench.daemon.write("clients/bulk/pages", "257").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENOMEM));
    assert_eq!(bench.mkdir("clients/more"), libc::ENOMEM);
    assert_eq!(bench.rmdir("clients/bulk"), 0);
    assert_eq!(bench.rmdir("clients/bulk"), libc::ENOENT);
    assert_eq!(bench.mkdir("clients/more"), 0, "the pages are back");
    let refused = bench.daemon.refused(&spec);
    assert_eq!(refused.errno, libc::ENOENT, "{}", refused.reason);
}

#[test]
fn a_client_stays_while_it_has_jobs_in_whatever_state_needs_fuse() {
    let Some(bench) = Bench::new(&["state=none", "active=1"]) else { return };
    assert_eq!(bench.mkdir("clients/bulk"), 0);
    let first = bench.slow("b", "");
    // Running, queued for its turn, for a device and for a job, paused: none of them loses its client.
    let spec = format!("from={} to={} client=bulk", bench.path("a").display(), bench.path("b").display());
    let waiting = [
        bench.slow("c", "client=bulk"),
        bench.daemon.job(&format!("{spec} queue")).unwrap(),
        bench.slow("d", &format!("client=bulk after={first}")),
        bench.slow("e", "client=bulk paused"),
    ];
    for id in waiting {
        assert_eq!(bench.rmdir("clients/bulk"), libc::EBUSY, "job {id} is {}", bench.daemon.status(id).state());
        bench.daemon.control(id, "cancel").unwrap();
        assert_eq!(bench.daemon.wait(id).state(), "cancelled");
    }
    assert_eq!(bench.rmdir("clients/bulk"), 0);
    // One that comes from an ended job finds no client, and says so.
    bench.daemon.control(waiting[3], "retry").unwrap();
    bench.daemon.control(first, "cancel").unwrap();
    let mut events = bench.daemon.events();
    events.until_state(waiting[3], "held");
    assert!(bench.why(waiting[3]).contains("mkdir clients/bulk first"), "{}", bench.why(waiting[3]));
    assert_eq!(bench.mkdir("clients/bulk"), 0);
    bench.daemon.control(waiting[3], "resume").unwrap();
    events.until_state(waiting[3], "running");
}

#[test]
fn a_client_of_jobs_that_wait_for_a_device_stays_needs_root() {
    if !need::loops() {
        return;
    }
    let Some(bench) = Bench::new(&["state=none"]) else { return };
    assert_eq!(bench.mkdir("clients/bulk"), 0);
    let disk = kcopyfs_support::LoopDevice::new(IMAGE as u64, 512);
    let exclusive = {
        use std::os::unix::fs::OpenOptionsExt as _;
        fs::OpenOptions::new().write(true).custom_flags(libc::O_EXCL).open(disk.path()).expect("open it exclusively")
    };
    let spec = format!("from={} to={} client=bulk queue", bench.path("a").display(), disk.path().display());
    let id = bench.daemon.job(&spec).unwrap();
    assert_eq!(bench.daemon.status(id).state(), "queued");
    assert!(bench.why(id).starts_with("waits: "), "{}", bench.why(id));
    assert_eq!(bench.rmdir("clients/bulk"), libc::EBUSY);
    drop(exclusive);
    assert_eq!(bench.daemon.wait(id).state(), "done");
    assert_eq!(bench.rmdir("clients/bulk"), 0);
}

#[test]
fn the_oldest_ended_jobs_make_room_needs_fuse() {
    let Some(mut bench) = Bench::new(&["keep=3", "max_jobs=5"]) else { return };
    let done = |bench: &Bench, name: &str| {
        let id = bench.daemon.job(&bench.copy(name, "")).unwrap();
        assert_eq!(bench.daemon.wait(id).state(), "done");
        id
    };
    let jobs = ["b0", "b1", "b2"].map(|name| done(&bench, name));
    // The oldest end goes first, not the oldest job.
    bench.daemon.control(jobs[0], "verify").unwrap();
    bench.daemon.events().until("compared", |events| {
        let own = events.iter().filter(|event| event.job == jobs[0] && event.new == "done");
        (own.count() == 2).then_some(())
    });
    let there = |bench: &Bench| {
        let entries = fs::read_dir(bench.daemon.path("jobs")).expect("list jobs").flatten();
        let mut ids: Vec<u64> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        ids.sort_unstable();
        ids
    };
    let fourth = done(&bench, "b3");
    assert_eq!(there(&bench), [jobs[0], jobs[2], fourth]);
    assert_eq!(bench.verb(jobs[1], "verify"), libc::ENOENT, "it is gone");

    let live = ["c0", "c1"].map(|name| bench.slow(name, "paused"));
    let refused = bench.daemon.refused(&bench.copy("d", ""));
    assert_eq!(refused.errno, libc::ENOSPC);
    assert!(refused.reason.contains("max_jobs=") && refused.reason.contains("rmdir"), "{}", refused.reason);
    assert_eq!(bench.rmdir(&format!("jobs/{}", live[0])), libc::EBUSY);
    assert_eq!(bench.rmdir(&format!("jobs/{}", jobs[0])), 0);
    let last = bench.slow("d", "paused");
    // What was dismissed stays so.
    let before = there(&bench);
    assert_eq!(before, [jobs[2], fourth, live[0], live[1], last]);
    bench.daemon.stop();
    bench.daemon.restart();
    assert_eq!(there(&bench), before);
    assert_eq!(bench.daemon.job(&bench.copy("e", "")).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
}
