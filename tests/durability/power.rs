//! Power cuts: the destination and the disk with the state directory (ext4) lose what they had not flushed, at once. Two
//! disks, since the flush of a shared one would hide that another is missing.
//!
//! The state's file system is mounted without the kernel's help for programs that forget to sync (`noauto_da_alloc`, no
//! commits by time).

use std::{thread, time::Duration};

use kcopyfs_support::{
    Daemon, Fault, FaultDisk, LoopDevice, MountPoint, Op, PowerCut, Rng,
    faultdisk::log::{Event, Logged},
    mounted::make_ext4,
    need,
};

use crate::kit::{
    assert_nothing_torn, assert_on_medium, checkpoint, daemon, durable_map, hold, rounds, torture, until, until_reason,
};

const SIZE: u64 = 4 << 20;
const STATE_SIZE: u64 = 8 << 20;
const SOURCE: u64 = 1;
const OLD: u64 = 2;
const OPTIONS: &str = "noauto_da_alloc,commit=300";

fn state_disk(contents: Option<&[u8]>) -> FaultDisk {
    let disk = FaultDisk::builder(STATE_SIZE).volatile(true).log(true).start();
    match contents {
        Some(contents) => disk.load(0, contents),
        None => make_ext4(&disk.path(), "has_journal"),
    }
    disk
}

/// Two disks, a source that is safe, and a daemon.
struct Rig {
    // the daemon goes first, then the mount, then the disks
    daemon: Daemon,
    point: MountPoint,
    state: FaultDisk,
    source: LoopDevice,
    dest: FaultDisk,
}

impl Rig {
    fn new(write: Duration) -> Self {
        let source = LoopDevice::new(SIZE, 512);
        source.fill(SOURCE);
        let dest = FaultDisk::builder(SIZE).volatile(true).log(true).start();
        dest.fill(OLD);
        dest.rule(Op::Write, .., Fault::Delay(write));
        let state = state_disk(None);
        let point = MountPoint::new().unwrap();
        point.mount("ext4", state.path(), OPTIONS);
        let daemon = daemon().option(format!("state={}", point.path().join("kcopyfs").display())).start();
        Self { daemon, point, state, source, dest }
    }

    fn copy(&self) -> u64 {
        let (from, to) = (self.source.path().display(), self.dest.path());
        self.daemon.job(&format!("from={from} to={}", to.display())).unwrap()
    }

    /// A job that only has to be there.
    fn bystander(&self) -> u64 {
        self.daemon.job(&format!("zero to={},0,8 paused queue", self.source.path().display())).unwrap()
    }

    /// What its map shows is on the medium, and it has what was said before.
    fn assert_true(&self, id: u64, said: u64) {
        let durable = durable_map(&self.daemon, id, 0);
        assert_on_medium(&self.dest.contents(), &durable, SOURCE, &format!("map.0 of job {id}"));
        let status = self.daemon.status(id);
        assert!(status.durable() >= said, "{said} bytes were durable before the cut:\n{status}");
    }

    /// The machine loses its power and starts again. Returns with the destination held, so that nothing moves yet.
    fn cut(&mut self, mode: impl Fn(u64) -> PowerCut) -> std::fs::File {
        // the state first: what the daemon makes of a dead destination must not be kept
        self.state.powercut(mode(1));
        self.dest.powercut(mode(2));
        self.daemon.kill9();
        self.point.unmount();
        self.state = state_disk(Some(&self.state.contents()));
        self.point.mount("ext4", self.state.path(), OPTIONS);
        self.dest.revive();
        let held = hold(&self.dest.path());
        self.daemon.restart();
        assert_nothing_torn(&self.daemon);
        held
    }
}

#[test]
fn power_cuts_lose_nothing_that_was_told() {
    if !need::fault_disk() || !need::program("mkfs.ext4", "e2fsprogs") {
        return;
    }
    let mut rng = Rng::from_env_or(5);
    let mut rig = Rig::new(Duration::from_millis(12));
    let mut id = rig.copy();
    let (mut kept, mut lost, mut bystanders) = (0, 0, Vec::new());
    for round in 0..rounds(6) {
        thread::sleep(Duration::from_micros(rng.below(100_000)));
        match rng.below(3) {
            0 => checkpoint(&rig.daemon, id),
            // what is told while it is paused is cut off right after
            1 if rig.daemon.control(id, "pause").is_ok() => until("a checkpoint", || {
                let status = rig.daemon.status(id);
                (status.is_ended() || status.durable() == status.copied()).then_some(())
            }),
            _ => {}
        }
        if rng.one_in(2) {
            bystanders.push(rig.bystander());
        }
        let said = rig.daemon.status(id);
        let seed = rng.next_u64();
        let held =
            if round % 2 == 0 { rig.cut(|_| PowerCut::Drop) } else { rig.cut(|disk| PowerCut::Random(seed ^ disk)) };
        eprintln!("round {round}: {} durable bytes, {}", said.durable(), said.state());
        rig.assert_true(id, said.durable());
        assert!(!said.is_ended() || rig.daemon.status(id).state() == said.state());
        for bystander in &bystanders {
            assert_eq!(rig.daemon.status(*bystander).state(), "paused", "job {bystander}");
        }
        kept += said.durable();
        lost += said.copied() - said.durable();
        drop(held);
        // it looks again at once, and not in a second
        let _ = rig.daemon.control(id, "pause");
        let _ = rig.daemon.control(id, "resume");
        if said.is_ended() || rng.one_in(3) {
            assert_eq!(rig.daemon.wait(id).state(), "done");
            rig.assert_true(id, SIZE);
            rig.dest.fill(OLD);
            let next = rig.copy();
            assert!(next > id);
            id = next;
        }
    }
    assert_eq!(rig.daemon.wait(id).state(), "done");
    rig.assert_true(id, SIZE);
    assert_eq!(rig.dest.check(SOURCE), Ok(()));
    eprintln!("{kept} durable bytes were kept, {lost} others were at stake; {} bystanders", bystanders.len());
}

/// What had been told by when.
struct Told {
    tick: u64,
    id: u64,
    durable: u64,
}

fn tell(rig: &Rig, told: &mut Vec<Told>, id: u64) {
    let durable = rig.daemon.status(id).durable();
    rig.state.mark("told");
    let tick = rig.state.logged().last().expect("a mark").tick;
    told.push(Told { tick, id, durable });
}

/// What the destination's medium held at a tick, had nothing else of its cache survived.
fn medium_at(dest: &FaultDisk, log: &[Logged], tick: u64) -> Vec<u8> {
    let flushed = log.iter().rev().find(|entry| entry.event == Event::Flush && entry.tick < tick);
    dest.replay(flushed.map_or(0, |entry| entry.order + 1))
}

#[test]
fn every_prefix_of_what_the_state_disk_wrote_is_a_state_that_opens() {
    if !need::fault_disk() || !need::program("mkfs.ext4", "e2fsprogs") {
        return;
    }
    let mut rng = Rng::from_env_or(6);
    let mut rig = Rig::new(Duration::from_millis(4));
    let mut told = Vec::new();
    // what made the file system is none of ours
    let made = rig.state.logged().len();
    let id = rig.copy();
    tell(&rig, &mut told, id);
    for _ in 0..4 {
        let before = rig.daemon.status(id);
        until("progress", || {
            let status = rig.daemon.status(id);
            (status.copied() > before.copied() || status.is_ended()).then_some(())
        });
        checkpoint(&rig.daemon, id);
        tell(&rig, &mut told, id);
        let bystander = rig.bystander();
        tell(&rig, &mut told, bystander);
    }
    assert_eq!(rig.daemon.wait(id).state(), "done");
    tell(&rig, &mut told, id);
    rig.daemon.stop();
    let (log, dest_log) = (rig.state.logged(), rig.dest.logged());
    let held = hold(&rig.dest.path());

    let all: Vec<usize> = (made..=log.len()).filter(|prefix| log[prefix - 1].event == Event::Write).collect();
    let sample: Vec<usize> = if torture().is_some() { all } else { (0..10).map(|_| *rng.pick(&all)).collect() };
    eprintln!("{} prefixes of {} entries", sample.len(), log.len());
    for prefix in sample {
        let image = LoopDevice::new(STATE_SIZE, 512);
        std::fs::write(image.image(), rig.state.replay(prefix)).unwrap();
        let point = MountPoint::new().unwrap();
        point.mount("ext4", image.path(), OPTIONS);
        let daemon = daemon().option(format!("state={}", point.path().join("kcopyfs").display())).start();
        assert_nothing_torn(&daemon);
        let tick = log.get(prefix).map_or(u64::MAX, |entry| entry.tick);
        for told in told.iter().filter(|told| told.tick < tick) {
            let status = daemon.status(told.id);
            assert!(status.durable() >= told.durable, "prefix {prefix}: {} bytes were told:\n{status}", told.durable);
        }
        if let Ok(status) = daemon.read(format!("jobs/{id}/status")) {
            let medium = medium_at(&rig.dest, &dest_log, tick);
            let durable = durable_map(&daemon, id, 0);
            assert_on_medium(&medium, &durable, SOURCE, &format!("prefix {prefix}"));
            if !status.starts_with("state done") {
                let _ = daemon.control(id, "resume");
                until_reason(&daemon, id, "in use");
            }
        }
        drop((daemon, point, image));
    }
    drop(held);
}
