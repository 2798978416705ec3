//! `engine` shows the pace of each device in use.

use std::time::Duration;

use kcopyfs_support::{Daemon, Fault, FaultDisk, Op, need};

use crate::kit::{PROGRAM, until};

/// The figures of a device's line in `engine`.
fn pace(engine: &str, direction: &str, path: &str) -> Option<[u64; 4]> {
    let line = engine.lines().find(|line| {
        line.starts_with(&format!("pace direction={direction} ")) && line.ends_with(&format!(" path={path}"))
    })?;
    let value = |key: &str| {
        let word = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no {key}: {line}"))
    };
    Some(["window", "in_flight", "rate", "latency_usec"].map(value))
}

#[test]
fn engine_shows_window_rate_and_latency_of_each_device_in_use() {
    if !need::fault_disk() {
        return;
    }
    let disks = [Op::Read, Op::Write].map(|op| {
        let disk = FaultDisk::builder(64 << 20).start();
        disk.rule(op, .., Fault::Delay(Duration::from_millis(100)));
        disk
    });
    let [from, to] = disks.each_ref().map(|disk| disk.path().display().to_string());
    let mut daemon = Daemon::builder(PROGRAM).option("state=none").option("subjob_kb=64").start();
    let id = daemon.job(&format!("from={from} to={to}")).unwrap();
    let engine = until("both have a rate", || {
        let engine = daemon.read("engine").unwrap();
        let has_rate = |direction, path| pace(&engine, direction, path).is_some_and(|[_, _, rate, _]| rate > 0);
        assert!(!daemon.status(id).is_ended(), "{engine}");
        (has_rate("read", &from) && has_rate("write", &to)).then_some(engine)
    });
    for (direction, path) in [("read", &from), ("write", &to)] {
        let [window, in_flight, _, latency] = pace(&engine, direction, path).unwrap();
        assert!(window >= 2 * (64 << 10) && in_flight <= window, "{engine}");
        assert!(latency >= 100_000, "it takes 100 ms: {engine}");
        let metrics = daemon.read("metrics").unwrap();
        assert!(
            metrics.lines().any(|line| line.contains("device_window") && line.contains(path.as_str())),
            "{metrics}"
        );
    }
    assert_eq!(pace(&engine, "write", &from), None);
    daemon.control(id, "cancel").unwrap();
    daemon.wait(id);
    let engine = daemon.read("engine").unwrap();
    assert!(!engine.contains("pace "), "nobody uses them any more: {engine}");
    daemon.stop();
}
