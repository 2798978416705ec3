//! A job that broke half way and is retried copies again whatever another job has written since: under any name, however that
//! one ended, and whether or not anybody still knows of it. It then has all that it copies, and no mixture.

use std::process::Command;

use kcopyfs_support::{Daemon, Fault, FaultDisk, LoopDevice, Op, need, stamp};

use crate::kit::{daemon, until};

const SIZE: u64 = 2 << 20;
const HALF: u64 = SIZE / 2;
const SECTORS: u64 = SIZE / 512;
const SEED: u64 = 71;
const LATER: u64 = 72;

/// Where the partition, and the loop device with an offset, begin: in sectors. They have so many.
const BEGIN: u64 = 64;
const PART: u64 = 512;

/// A job that has half of its destination, and could go on now.
struct Half {
    daemon: Daemon,
    source: FaultDisk,
    other: LoopDevice,
    dest: LoopDevice,
    id: u64,
}

impl Half {
    fn new(block: u32) -> Option<Self> {
        if !need::fault_disk() {
            return None;
        }
        let source = FaultDisk::builder(SIZE).block(block).start();
        source.fill(SEED);
        let [other, dest] = [LATER, 73].map(|seed| {
            let disk = LoopDevice::new(SIZE, 512);
            disk.fill(seed);
            disk
        });
        source.rule(Op::Read, HALF.., Fault::Err(libc::EIO));
        let daemon = daemon().start();
        let id = daemon.job(&format!("from={} to={}", source.path().display(), dest.path().display())).unwrap();
        let status = daemon.wait(id);
        assert_eq!(status.state(), "failed", "{status}");
        assert!(status.copied() > HALF / 2, "{status}");
        source.clear();
        Some(Self { daemon, source, other, dest, id })
    }

    fn other(&self) -> String {
        self.other.path().display().to_string()
    }

    fn dest(&self) -> String {
        self.dest.path().display().to_string()
    }

    /// Another job, to its end.
    fn ends(&self, spec: &str, state: &str) -> u64 {
        let id = self.daemon.job(spec).unwrap_or_else(|error| panic!("{spec}: {error}"));
        let status = self.daemon.wait(id);
        assert!(state.split('|').any(|one| one == status.state()), "{spec}: wanted {state}\n{status}");
        id
    }

    fn retry(&self) {
        self.daemon.control(self.id, "retry").unwrap();
        let status = self.daemon.wait(self.id);
        assert_eq!(status.state(), "done", "{status}");
        assert_eq!(status.copied(), SIZE, "{status}");
    }

    /// It is whole when it says so.
    fn mended(&self) {
        assert!(self.dest.check(SEED).is_err(), "nothing was written over it");
        self.retry();
        self.dest.check(SEED).unwrap();
    }
}

#[test]
fn by_a_job_that_was_dismissed() {
    let Some(half) = Half::new(512) else { return };
    let id = half.ends(&format!("from={} to={}", half.other(), half.dest()), "done");
    half.daemon.sh("sh", &format!("rmdir $M/jobs/{id}")).ok();
    half.mended();
}

#[test]
fn by_a_job_that_was_dismissed_and_before_a_restart() {
    let Some(mut half) = Half::new(512) else { return };
    let id = half.ends(&format!("from={} to={}", half.other(), half.dest()), "done");
    half.daemon.sh("sh", &format!("rmdir $M/jobs/{id}")).ok();
    half.daemon.kill9();
    half.daemon.restart();
    half.mended();
}

#[test]
fn by_a_job_that_was_killed_before_its_first_checkpoint_and_cancelled() {
    let Some(mut half) = Half::new(512) else { return };
    let id = half.daemon.job(&format!("from={} to={} speed_max=512K", half.other(), half.dest())).unwrap();
    until("it has written", || (half.daemon.status(id).copied() > 0).then_some(()));
    half.daemon.kill9();
    half.daemon.restart();
    half.daemon.control(id, "cancel").unwrap();
    assert_eq!(half.daemon.wait(id).state(), "cancelled");
    half.mended();
}

#[test]
fn by_a_job_that_wrote_only_zeros() {
    let Some(half) = Half::new(512) else { return };
    half.ends(&format!("zero to={},0,{}", half.dest(), SECTORS / 4), "done");
    half.mended();
}

#[test]
fn by_a_job_whose_other_destination_failed() {
    let Some(half) = Half::new(512) else { return };
    let sick = FaultDisk::builder(SIZE).start();
    sick.rule(Op::Write, .., Fault::Err(libc::EIO));
    let spec = format!("from={} to={} to={}", half.other(), half.dest(), sick.path().display());
    half.ends(&spec, "failed|degraded");
    half.mended();
}

#[test]
fn by_a_job_that_failed_half_way() {
    let Some(half) = Half::new(512) else { return };
    let other = FaultDisk::builder(SIZE).start();
    other.fill(LATER);
    other.rule(Op::Read, HALF / 2.., Fault::Err(libc::EIO));
    half.ends(&format!("from={} to={}", other.path().display(), half.dest()), "failed");
    half.mended();
}

#[test]
fn by_a_job_that_failed_its_verification() {
    let Some(half) = Half::new(512) else { return };
    let liar = FaultDisk::builder(SIZE).start();
    liar.rule(Op::Write, .., Fault::Drop);
    let spec = format!("from={} to={} to={} verify", half.other(), half.dest(), liar.path().display());
    half.ends(&spec, "failed|degraded|mismatch");
    half.mended();
}

#[test]
fn through_a_partition() {
    if !need::program("addpart", "util-linux-extra") {
        return;
    }
    let Some(half) = Half::new(512) else { return };
    let part = Partition::of(&half.dest());
    half.ends(&format!("from={},0,{PART} to={}", half.other(), part.path()), "done");
    drop(part);
    half.mended();
}

#[test]
fn through_a_loop_device_with_an_offset() {
    let Some(half) = Half::new(512) else { return };
    let alias = half.dest.alias(BEGIN * 512);
    half.ends(&format!("from={},0,{PART} to={}", half.other(), alias.path().display()), "done");
    half.mended();
}

#[test]
fn through_a_second_loop_device_that_is_gone() {
    let Some(mut half) = Half::new(512) else { return };
    let alias = half.dest.alias(0);
    half.ends(&format!("from={},0,{PART} to={}", half.other(), alias.path().display()), "done");
    drop(alias);
    half.daemon.stop();
    half.daemon.restart();
    half.mended();
}

#[test]
fn on_its_source() {
    let Some(half) = Half::new(512) else { return };
    half.ends(&format!("from={},0,{PART} to={}", half.other(), half.source.path().display()), "done");
    half.retry();
    stamp::check(&half.dest.read(0..PART * 512), LATER, 0).unwrap();
    stamp::check(&half.dest.read(PART * 512..SIZE), SEED, PART).unwrap();
}

#[test]
fn at_edges_finer_than_its_blocks() {
    let Some(half) = Half::new(4096) else { return };
    half.ends(&format!("zero to={},3,5", half.dest()), "done");
    half.ends(&format!("zero to={},801,1", half.dest()), "done");
    half.mended();
}

/// A partition without a table, gone when it is dropped.
struct Partition(String);

impl Partition {
    fn of(disk: &str) -> Self {
        let status = Command::new("addpart").args([disk, "1", &BEGIN.to_string(), &PART.to_string()]).status();
        assert!(status.expect("addpart").success());
        Self(disk.to_owned())
    }

    fn path(&self) -> String {
        format!("{}p1", self.0)
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        if !Command::new("delpart").args([&self.0, "1"]).status().is_ok_and(|status| status.success()) {
            eprintln!("left behind: {}", self.path());
        }
    }
}
