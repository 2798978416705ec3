//! What administrators have set outlives the daemon: limits of the whole engine, clients and their pages.

use std::fs;

use kcopyfs_support::{Daemon, Fault, FaultDisk, LoopDevice, Op, need};

use crate::kit::daemon;

const SIZE: u64 = 1 << 20;

/// Files, and what they read back.
const SET: [(&str, &str); 4] = [
    ("clients/bulk/pages", "200\n"),
    ("clients/default/pages", "320\n"),
    ("throttle", "93\n"),
    ("speed_max", "50331648\n"),
];

fn assert_as_set(daemon: &Daemon, when: &str) {
    for (file, value) in SET {
        assert_eq!(daemon.read(file).unwrap(), value, "{file} {when}");
    }
    let mut clients: Vec<_> =
        fs::read_dir(daemon.path("clients")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    clients.sort();
    assert_eq!(clients, ["bulk", "default"], "{when}");
}

#[test]
fn clients_and_limits_outlive_a_stop_and_a_kill_with_and_without_live_jobs() {
    if !need::fault_disk() {
        return;
    }
    for has_job in [false, true] {
        for is_killed in [false, true] {
            let when = format!("after a {}, live jobs: {has_job}", if is_killed { "kill" } else { "stop" });
            let (source, dest) = (LoopDevice::new(SIZE, 512), FaultDisk::builder(SIZE).start());
            source.fill(1);
            let mut daemon = daemon().option("client_pages=256").start();
            for client in ["bulk", "gone"] {
                fs::create_dir(daemon.path(format!("clients/{client}"))).unwrap();
            }
            fs::remove_dir(daemon.path("clients/gone")).unwrap();
            for (file, value) in SET {
                daemon.write(file, value).unwrap();
            }
            let spec = format!("from={} to={} client=bulk", source.path().display(), dest.path().display());
            let job = has_job.then(|| {
                dest.rule(Op::Write, SIZE / 2.., Fault::Hang);
                let id = daemon.job(&spec).unwrap();
                dest.wait_parked(1);
                id
            });
            // the second start reads what the first one left
            for _ in 0..2 {
                if is_killed {
                    daemon.kill9();
                } else {
                    daemon.terminate();
                    dest.release();
                    daemon.stop();
                }
                daemon.restart();
                assert_as_set(&daemon, &when);
            }
            dest.clear();
            dest.release();
            let id = job.unwrap_or_else(|| daemon.job(&spec).unwrap());
            assert_eq!(daemon.wait(id).state(), "done");
            assert_eq!(dest.check(1), Ok(()));
            fs::remove_dir(daemon.path("clients/bulk")).unwrap();
            daemon.kill9();
            daemon.restart();
            assert!(!daemon.path("clients/bulk").exists(), "{when}: it was removed");
        }
    }
}
