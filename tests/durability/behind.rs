//! Nobody waits for the slowest: the others of a job are through while one hangs, and `status` says what a job waits for.

use std::time::Duration;

use kcopyfs_support::{Daemon, Fault, FaultDisk, LoopDevice, Op, need};

use crate::kit::{PROGRAM, daemon, until};

const SIZE: u64 = 2 << 20;
const SEED: u64 = 21;
const COUNT: usize = 8;
const SICK: usize = 7;

struct Rig {
    source: LoopDevice,
    dests: Vec<FaultDisk>,
}

impl Rig {
    /// Writes to the second half of the last destination hang.
    fn new() -> Self {
        let source = LoopDevice::new(SIZE, 512);
        source.fill(SEED);
        let dests: Vec<_> = (0..COUNT).map(|_| FaultDisk::builder(SIZE).start()).collect();
        dests[SICK].rule(Op::Write, SIZE / 2.., Fault::Hang);
        Self { source, dests }
    }

    fn spec(&self) -> String {
        let to: Vec<_> = self.dests.iter().map(|disk| format!("to={}", disk.path().display())).collect();
        format!("from={} {} verify", self.source.path().display(), to.join(" "))
    }

    fn path(&self) -> String {
        self.dests[SICK].path().display().to_string()
    }

    /// Waits until seven have all, for good, and were compared; and until it is seen who has not.
    fn until_seven_are_through(&self, daemon: &Daemon, id: u64) {
        until("seven are through", || {
            let (status, dests) = (daemon.status(id), daemon.dests(id));
            let is_through = |index: &usize| dests[*index].durable == SIZE;
            let all = (0..SICK).all(|index| is_through(&index)) && status.get("verified") == SIZE.to_string();
            (all && dests[SICK].state == "stalled").then_some(())
        });
        let (status, dests) = (daemon.status(id), daemon.dests(id));
        assert_eq!(status.state(), "running", "\n{status}");
        assert!(dests[SICK].copied < SIZE && dests[..SICK].iter().all(|dest| dest.state == "active"), "{dests:?}");
        let error = status.error().expect("it says for whom it waits").to_owned();
        assert!(error.contains(&self.path()) && error.contains("drop 7"), "{error}");
        assert_eq!((status.write_err(), status.eta_usec()), (0, None));
        for disk in &self.dests[..SICK] {
            assert_eq!(disk.check(SEED), Ok(()));
        }
        let log = daemon.log();
        let line = log.lines().find(|line| line.contains("caught up later")).unwrap_or_else(|| panic!("{log}"));
        assert!(line.contains("destination 7") && line.contains(&self.path()) && line.contains("WARN"), "{line}");
    }
}

#[test]
fn seven_of_eight_are_complete_durable_and_compared_while_one_hangs_and_it_is_caught_up() {
    if !need::fault_disk() {
        return;
    }
    for io in ["io=uring", "io=threads"] {
        let rig = Rig::new();
        let mut daemon = daemon().option("state=none").option(io).start();
        let id = daemon.job(&rig.spec()).unwrap();
        rig.until_seven_are_through(&daemon, id);
        rig.dests[SICK].release();
        let status = daemon.wait(id);
        assert_eq!((status.state(), status.durable(), status.get("verified")), ("done", SIZE, "2097152"), "\n{status}");
        assert_eq!(rig.dests[SICK].check(SEED), Ok(()));
        daemon.stop();
    }
}

#[test]
fn one_that_hangs_is_dropped_and_its_disk_is_nobodys_until_it_answers() {
    if !need::fault_disk() {
        return;
    }
    let rig = Rig::new();
    let mut daemon = daemon().start();
    let id = daemon.job(&rig.spec()).unwrap();
    rig.until_seven_are_through(&daemon, id);
    daemon.control(id, "drop 7").unwrap();
    let status = daemon.wait(id);
    assert_eq!((status.state(), status.durable(), status.write_err()), ("degraded", SIZE, 0), "\n{status}");
    let seen: Vec<_> = daemon.dests(id).into_iter().map(|dest| dest.state).collect();
    assert_eq!(seen, [&["done"; SICK][..], &["dropped"]].concat());
    let refused = daemon.refused(&format!("zero to={},0,8", rig.path()));
    assert_eq!(refused.errno, libc::EBUSY, "{}", refused.reason);
    rig.dests[SICK].release();
    until("it is free", || daemon.job(&format!("zero to={},0,8", rig.path())).ok());
    daemon.stop();
}

#[test]
fn a_job_with_one_behind_goes_on_after_a_kill() {
    if !need::fault_disk() {
        return;
    }
    let rig = Rig::new();
    let mut daemon = daemon().start();
    let id = daemon.job(&rig.spec()).unwrap();
    rig.until_seven_are_through(&daemon, id);
    daemon.kill9();
    rig.dests[SICK].clear();
    rig.dests[SICK].release();
    let before = rig.dests[0].stat().writes;
    daemon.restart();
    let status = daemon.wait(id);
    assert_eq!((status.state(), status.durable()), ("done", SIZE), "\n{status}");
    assert_eq!(rig.dests[0].stat().writes, before, "what was durable is not written again");
    assert_eq!(rig.dests[SICK].check(SEED), Ok(()));
}

/// What a job of so many MiB is limited by where reads and writes take so many milliseconds.
fn limit(option: &str, words: &str, mib: u64, reads: u64, writes: &[u64]) -> String {
    let slow = |op, millis| {
        let disk = FaultDisk::builder(mib << 20).start();
        if millis > 0 {
            disk.rule(op, .., Fault::Delay(Duration::from_millis(millis)));
        }
        disk
    };
    let source = slow(Op::Read, reads);
    let dests: Vec<_> = writes.iter().map(|millis| slow(Op::Write, *millis)).collect();
    let mut daemon = Daemon::builder(PROGRAM).option("state=none").option(option).start();
    let to: Vec<_> = dests.iter().map(|disk| format!("to={}", disk.path().display())).collect();
    let id = daemon.job(&format!("from={} {} {words}", source.path().display(), to.join(" "))).unwrap();
    let mut seen = Vec::new();
    let end = until("its end", || {
        let status = daemon.status(id);
        seen.extend(Some(status.get("limited_by").to_owned()).filter(|limit| limit != "-"));
        status.is_ended().then_some(status)
    });
    assert_eq!((end.state(), end.get("limited_by")), ("done", "-"), "\n{end}");
    daemon.stop();
    // At first nothing is known: what is said when the job has gone on for a while counts.
    seen.last().unwrap_or_else(|| panic!("it says nothing")).clone()
}

#[test]
fn a_job_says_what_it_waits_for_most() {
    if !need::fault_disk() {
        return;
    }
    assert_eq!(limit("subjob_kb=64", "", 4, 0, &[0, 400]), "dest 1");
    assert_eq!(limit("subjob_kb=64", "", 4, 400, &[0]), "source");
    assert_eq!(limit("subjob_kb=64", "speed_max=2M", 4, 0, &[0]), "speed_max");
    assert_eq!(limit("throttle=5", "", 48, 0, &[0]), "throttle");
    // One piece takes all the pages there are.
    assert_eq!(limit("pages=128,client_pages=128", "", 4, 200, &[200]), "pages");
}

#[test]
fn a_job_whose_pages_are_with_one_that_hangs_says_so() {
    if !need::fault_disk() {
        return;
    }
    let source = LoopDevice::new(SIZE, 512);
    source.fill(SEED);
    let (good, sick) = (FaultDisk::builder(SIZE).start(), FaultDisk::builder(SIZE).start());
    sick.rule(Op::Write, .., Fault::Hang);
    // Eight pieces are all there is, and all eight hang.
    let options = ["state=none", "pages=128", "client_pages=128", "subjob_kb=64", "subjobs=8"];
    let builder = options.iter().fold(Daemon::builder(PROGRAM), |builder, option| builder.option(*option));
    let mut daemon = builder.start();
    let (from, good_path, sick_path) = (source.path().display(), good.path(), sick.path());
    let spec = format!("from={from} to={} to={}", good_path.display(), sick_path.display());
    let id = daemon.job(&spec).unwrap();
    let error = crate::kit::until_reason(&daemon, id, "waits for pages");
    assert!(error.contains(&sick_path.display().to_string()) && error.contains("clients/default/pages"), "{error}");
    sick.release();
    assert_eq!(daemon.wait(id).state(), "done");
    assert_eq!((good.check(SEED), sick.check(SEED)), (Ok(()), Ok(())));
    daemon.stop();
}
