//! A state directory that is full, read-only, or fails: running jobs pause and say why, new ones are refused, and when it is
//! mended all goes on by itself.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use kcopyfs_support::{Daemon, Fault, FaultDisk, LoopDevice, MountPoint, Op, Rng, mounted::make_ext4, need};

use crate::kit::{assert_nothing_torn, daemon, torture, until, until_reason, until_state};

const SIZE: u64 = 1 << 20;
const STATE_SIZE: u64 = 8 << 20;
const SEED: u64 = 3;

/// A source, and a destination that can be made to wait.
struct Pair {
    source: LoopDevice,
    dest: FaultDisk,
}

impl Pair {
    fn new() -> Self {
        let source = LoopDevice::new(SIZE, 512);
        source.fill(SEED);
        Self { source, dest: FaultDisk::builder(SIZE).start() }
    }

    fn spec(&self) -> String {
        format!("from={} to={}", self.source.path().display(), self.dest.path().display())
    }

    /// Lets the copy go half way.
    fn stop_half_way(&self) {
        self.dest.rule(Op::Write, SIZE / 2..SIZE / 2 + 512, Fault::Hang);
    }
}

fn with_state(point: &MountPoint) -> Daemon {
    daemon().option(format!("state={}", point.path().join("state").display())).start()
}

/// Has a running job write a record, which fails: it pauses and says why.
fn fail_a_record(daemon: &Daemon, id: u64, why: &str) {
    daemon.control(id, "pause").unwrap();
    daemon.control(id, "resume").unwrap();
    let reason = until_reason(daemon, id, "waits for the state directory");
    assert!(reason.contains(why), "{reason}");
    until_state(daemon, id, "paused");
    let reason = daemon.status(id).error().map(str::to_owned).unwrap_or_default();
    assert!(reason.contains("state directory") && reason.contains(why), "{reason}");
    let events = daemon.read("events").unwrap();
    let told = events.lines().any(|line| line.contains(" running paused ") && line.contains(why));
    assert!(told, "no event says why:\n{events}");
}

fn assert_refused(daemon: &Daemon, pair: &Pair, errno: i32) {
    let refused = daemon.refused(&format!("zero to={},0,8 paused queue", pair.dest.path().display()));
    assert_eq!(refused.errno, errno, "{}", refused.reason);
}

fn assert_goes_on(daemon: &Daemon, id: u64, pair: &Pair) {
    until("it goes on by itself", || {
        let status = daemon.status(id);
        (status.state() == "running" || status.is_ended()).then_some(())
    });
    pair.dest.release();
    let status = daemon.wait(id);
    assert_eq!((status.state(), status.durable(), status.error()), ("done", SIZE, None), "\n{status}");
    assert_eq!(pair.dest.check(SEED), Ok(()));
    assert_nothing_torn(daemon);
}

/// Fills a file system, by blocks or by inodes; says what it made.
fn fill_up(point: &Path) -> Vec<std::path::PathBuf> {
    let names = (0..10_000).map(|number| point.join(format!("ballast.{number}")));
    names.take_while(|name| fs::write(name, [1; 4096]).is_ok()).collect()
}

#[test]
fn a_full_state_directory_pauses_jobs_until_there_is_room() {
    if !need::fault_disk() {
        return;
    }
    for options in ["size=128k,mode=700", "nr_inodes=12,mode=700"] {
        let pair = Pair::new();
        let point = MountPoint::new().unwrap();
        point.mount("tmpfs", "kcopyfs-test", options);
        let mut daemon = with_state(&point);
        pair.stop_half_way();
        let id = daemon.job(&pair.spec()).unwrap();
        pair.dest.wait_parked(1);
        let mut ballast = fill_up(point.path());
        // the file that did not fit whole is there, too
        ballast.push(point.path().join(format!("ballast.{}", ballast.len())));
        fail_a_record(&daemon, id, "No space left on device");
        assert_refused(&daemon, &pair, libc::ENOSPC);
        // a verb is taken all the same
        daemon.control(id, "pause").unwrap();
        daemon.control(id, "resume").unwrap();
        until_state(&daemon, id, "paused");
        // nor does it keep the daemon from stopping, or starting
        daemon.stop();
        daemon.restart();
        pair.dest.release();
        let status = daemon.status(id);
        assert!(!status.is_ended(), "\n{status}");
        for file in ballast {
            let _ = fs::remove_file(file);
        }
        assert_goes_on(&daemon, id, &pair);
        daemon.job(&format!("zero to={},0,8", pair.dest.path().display())).unwrap();
    }
}

/// Jobs that copy, of which none ends before it is let.
struct Four {
    disks: Vec<Pair>,
    ids: Vec<u64>,
}

impl Four {
    fn start(daemon: &Daemon) -> Self {
        let disks: Vec<_> = (0..4).map(|_| Pair::new()).collect();
        let ids = disks.iter().map(|pair| daemon.job(&format!("{} speed_max=64K", pair.spec())).unwrap()).collect();
        let four = Self { disks, ids };
        for id in &four.ids {
            until("a checkpoint", || (daemon.status(*id).durable() > 0).then_some(()));
        }
        four
    }

    /// All pause by themselves, and say why: those too whose record was not the one that failed.
    fn pause_for(&self, daemon: &Daemon, why: &str) {
        for id in &self.ids {
            let reason = until_reason(daemon, *id, "waits for the state directory");
            assert!(reason.contains(why), "{reason}");
            until_state(daemon, *id, "paused");
        }
        let paused = |id: &u64| -> u64 {
            let own = format!(" {id} running paused ");
            let line = until("an event says why it paused", || {
                let events = daemon.read("events").unwrap();
                events.lines().find(|line| line.contains(&own) && line.contains(why)).map(str::to_owned)
            });
            line.split(' ').next().unwrap().parse().expect("a time")
        };
        let times: Vec<_> = self.ids.iter().map(paused).collect();
        // the next try, a second later, is not waited for
        let apart = times.iter().max().unwrap() - times.iter().min().unwrap();
        assert!(apart < 500_000, "not at once: {times:?}");
    }

    fn go_on(&self, daemon: &Daemon) {
        for id in &self.ids {
            until_state(daemon, *id, "running");
            daemon.write(format!("jobs/{id}/speed_max"), "max\n").unwrap();
        }
        for (id, pair) in self.ids.iter().zip(&self.disks) {
            let status = daemon.wait(*id);
            assert_eq!((status.state(), status.durable(), status.error()), ("done", SIZE, None), "\n{status}");
            assert_eq!(pair.dest.check(SEED), Ok(()));
        }
        assert_nothing_torn(daemon);
    }
}

#[test]
fn four_running_jobs_pause_while_the_state_directory_is_full() {
    if !need::fault_disk() {
        return;
    }
    let point = MountPoint::new().unwrap();
    point.mount("tmpfs", "kcopyfs-test", "size=256k,mode=700");
    let daemon = with_state(&point);
    let four = Four::start(&daemon);
    let mut ballast = fill_up(point.path());
    ballast.push(point.path().join(format!("ballast.{}", ballast.len())));
    four.pause_for(&daemon, "No space left on device");
    for file in ballast {
        let _ = fs::remove_file(file);
    }
    four.go_on(&daemon);
}

#[test]
fn four_running_jobs_pause_while_the_state_directory_fails() {
    if !need::fault_disk() || !need::program("mkfs.ext4", "e2fsprogs") {
        return;
    }
    let disk = FaultDisk::builder(STATE_SIZE).start();
    // without a journal it goes on after an error
    make_ext4(&disk.path(), "^has_journal");
    let point = MountPoint::new().unwrap();
    point.mount("ext4", disk.path(), "errors=continue");
    let daemon = with_state(&point);
    let four = Four::start(&daemon);
    disk.rule(Op::Write, .., Fault::Err(libc::EIO));
    four.pause_for(&daemon, "Input/output error");
    disk.clear();
    four.go_on(&daemon);
}

#[test]
fn a_read_only_state_directory_pauses_jobs_until_it_is_writable() {
    if !need::fault_disk() {
        return;
    }
    let pair = Pair::new();
    let point = MountPoint::new().unwrap();
    point.mount("tmpfs", "kcopyfs-test", "size=1m,mode=700");
    let mut daemon = with_state(&point);
    pair.stop_half_way();
    let id = daemon.job(&pair.spec()).unwrap();
    pair.dest.wait_parked(1);
    daemon.kill9();
    point.remount("ro");
    daemon.restart();
    pair.dest.release();
    pair.stop_half_way();
    until_state(&daemon, id, "running");
    fail_a_record(&daemon, id, "Read-only file system");
    assert_refused(&daemon, &pair, libc::EROFS);
    point.remount("rw");
    assert_goes_on(&daemon, id, &pair);
}

/// What happens in a run: a job that is made, paused, resumed, ends and is dismissed, and another.
struct Story {
    made: Vec<u64>,
    refused: Vec<i32>,
}

fn run_story(daemon: &Daemon, pair: &Pair) -> Story {
    let mut story = Story { made: Vec::new(), refused: Vec::new() };
    for _ in 0..2 {
        match daemon.job(&format!("{} queue", pair.spec())) {
            Ok(id) => story.made.push(id),
            Err(error) => {
                story.refused.push(error.raw_os_error().unwrap());
                continue;
            }
        }
        let id = story.made[story.made.len() - 1];
        let _ = daemon.control(id, "pause");
        let _ = daemon.control(id, "resume");
        // to its end, or to where it waits for the state directory
        until("an end", || {
            let status = daemon.status(id);
            let waits = status.error().is_some_and(|error| error.starts_with("waits"));
            (status.is_ended() || waits).then_some(())
        });
    }
    story
}

/// An ext4 as it was made, mounted on a disk that will fail.
fn mounted(image: &[u8], options: &str) -> (FaultDisk, MountPoint) {
    let disk = FaultDisk::builder(STATE_SIZE).start();
    disk.load(0, image);
    let point = MountPoint::new().unwrap();
    point.mount("ext4", disk.path(), options);
    // in this order they are dropped from the last to the first
    (disk, point)
}

/// Fails I/O number `number` of the state's disk, and looks at all that follows.
fn fail_one(image: &[u8], journal: bool, op: Op, number: u64) {
    let pair = Pair::new();
    pair.dest.rule(Op::Write, .., Fault::Delay(Duration::from_millis(1)));
    let (disk, point) = mounted(image, if journal { "errors=remount-ro" } else { "errors=continue" });
    let mut daemon = with_state(&point);
    let rule = disk.rule(op, .., Fault::Err(libc::EIO)).times(1).after(number);
    let story = run_story(&daemon, &pair);
    let met = rule.hits() > 0;
    disk.clear();
    for errno in &story.refused {
        assert!([libc::EIO, libc::EROFS].contains(errno), "{op:?} {number}: errno {errno}");
    }
    assert!(met || story.refused.is_empty());
    let is_alive = fs::write(point.path().join("probe"), [0]).is_ok();
    if !is_alive {
        // an ext4 with a journal stays read-only until it is mounted again
        daemon.stop();
        point.unmount();
        point.mount("ext4", disk.path(), "errors=remount-ro");
        daemon.restart();
        // of a pause and a resume the first may have been recorded last
        story.made.iter().for_each(|id| drop(daemon.control(*id, "resume")));
    }
    for id in &story.made {
        until("an end without help", || daemon.status(*id).is_ended().then_some(()));
        let status = daemon.status(*id);
        assert_eq!((status.state(), status.durable()), ("done", SIZE), "{op:?} {number}, alive {is_alive}:\n{status}");
    }
    assert!(story.made.is_empty() || pair.dest.check(SEED).is_ok());
    // A spec was refused when its record could neither be made durable nor be taken back any more: it may be there.
    let listed =
        fs::read_dir(daemon.path("jobs")).unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let others: Vec<u64> = listed.filter_map(|name| name.parse().ok()).filter(|id| !story.made.contains(id)).collect();
    assert!(others.is_empty() || !is_alive, "{op:?} {number}: jobs {others:?} were refused and are there");
    for id in &others {
        daemon.wait(*id);
    }
    daemon.job(&pair.spec()).unwrap();
    daemon.kill9();
    daemon.restart();
    for id in &story.made {
        assert_eq!(daemon.status(*id).state(), "done");
    }
    assert_nothing_torn(&daemon);
    let refused = story.refused.len();
    eprintln!(
        "{op:?} {number}, journal {journal}: met {met}, refused {refused}, of these there {}, still writable {is_alive}",
        others.len()
    );
}

#[test]
fn one_failing_request_of_the_state_disk_tears_no_record() {
    if !need::fault_disk() || !need::program("mkfs.ext4", "e2fsprogs") {
        return;
    }
    let mut rng = Rng::from_env_or(8);
    for journal in [false, true] {
        let image = {
            let disk = FaultDisk::builder(STATE_SIZE).start();
            make_ext4(&disk.path(), if journal { "has_journal" } else { "^has_journal" });
            disk.contents()
        };
        let (disk, point) = mounted(&image, "errors=continue");
        let counts = {
            let daemon = with_state(&point);
            let before = disk.stat();
            let story = run_story(&daemon, &Pair::new());
            assert_eq!((story.made.len(), story.refused.len()), (2, 0));
            let after = disk.stat();
            [(Op::Write, after.writes - before.writes), (Op::Flush, after.flushes - before.flushes)]
        };
        drop(point);
        drop(disk);
        for (op, count) in counts {
            eprintln!("{op:?}: {count}, journal {journal}");
            if torture().is_some() {
                (0..count).for_each(|number| fail_one(&image, journal, op, number));
            } else {
                fail_one(&image, journal, op, rng.below(count));
            }
        }
    }
}

/// The sum of a record is the CRC-32 of gzip over what stands before it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 })
    })
}

/// Changes a record by hand: the values of some keys.
fn change_record(path: &Path, changes: &[(&str, &str)]) {
    let text = fs::read_to_string(path).unwrap();
    let mut new = String::new();
    for line in text.lines().filter(|line| !line.starts_with("sum ")) {
        let (key, value) = line.split_once(' ').unwrap();
        let value = changes.iter().find(|(changed, _)| *changed == key).map_or(value, |(_, value)| value);
        writeln!(new, "{key} {value}").unwrap();
    }
    let sum = crc32(new.as_bytes());
    writeln!(new, "sum {sum:08x}").unwrap();
    fs::write(path, new).unwrap();
}

/// It would be a file of 80 MB, which nobody would read again.
#[test]
fn a_job_of_very_many_ranges_ends_and_no_other_waits_for_its_record() {
    const RANGES: u64 = 2_700_000;
    if !need::fault_disk() {
        return;
    }
    let scratch = crate::kit::scratch();
    let [from, to] = ["from", "to"].map(|name| scratch.path().join(name));
    for file in [&from, &to] {
        fs::File::create(file).unwrap().set_len(2 * RANGES * 512).unwrap();
    }
    let pair = Pair::new();
    let state = scratch.path().join("state");
    let mut daemon = daemon().option(format!("state={}", state.display())).start();
    let id = daemon.job(&format!("from={} to={} paused", from.display(), to.display())).unwrap();
    daemon.stop();
    // every second sector, and a longer stretch
    let mut durable = "0+9".to_owned();
    (5..RANGES).for_each(|at| write!(durable, " {}+1", 2 * at).unwrap());
    change_record(
        &state.join(format!("{id}.job")),
        &[("dest.0.durable", &durable), ("dest.0.taken", &durable), ("claimed", "1")],
    );
    daemon.restart();
    assert_nothing_torn(&daemon);
    let had = (RANGES + 4) * 512;
    assert_eq!(daemon.status(id).durable(), had);

    let other = daemon.job(&pair.spec()).unwrap();
    daemon.control(id, "cancel").unwrap();
    assert_eq!(daemon.wait(id).state(), "cancelled");
    assert_eq!(daemon.wait(other).state(), "done");
    assert_eq!(daemon.status(id).durable(), had);
    daemon.kill9();
    daemon.restart();
    assert_nothing_torn(&daemon);
    let status = daemon.status(id);
    // what it has forgotten it would copy again
    assert!(status.state() == "cancelled" && (1 << 20..had).contains(&status.durable()), "\n{status}");
    assert!(daemon.read(format!("jobs/{id}/map.0")).unwrap().contains("0x00000000  0x00001200  +"));
}

#[test]
fn nothing_is_copied_into_it() {
    if !need::fault_disk() {
        return;
    }
    let source = LoopDevice::new(SIZE, 512);
    let daemon = daemon().start();
    let state = daemon.mount().with_file_name("state");
    let link = daemon.mount().with_file_name("link");
    std::os::unix::fs::symlink(&state, &link).unwrap();
    let before: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    for to in [state.join("lock"), link.join("new.job")] {
        let refused = daemon.refused(&format!("from={} to={} create", source.path().display(), to.display()));
        assert!(refused.errno == libc::EBUSY && refused.reason.contains("state directory"), "{refused:?}");
    }
    let after: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(after, before);
}
