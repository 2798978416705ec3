//! A restart with devices renamed, swapped, replaced, missing or busy: a job goes on with the devices that it began with,
//! wherever they are now, and with no others unless somebody has looked.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kcopyfs_support::{Daemon, LoopDevice, need, stamp};

use crate::kit::{
    assert_nothing_torn, daemon, durable_map, hold, point, rounds, scratch, until, until_reason, until_state,
};

const SIZE: u64 = 1 << 20;
const SEED: u64 = 21;
const OLD: u64 = 30;

/// A job with two destinations, half done, by names that can be changed; the daemon is down.
struct Half {
    daemon: Daemon,
    names: [PathBuf; 3],
    dests: [LoopDevice; 2],
    source: LoopDevice,
    id: u64,
    _scratch: tempfile::TempDir,
}

impl Half {
    fn new() -> Self {
        let scratch = scratch();
        let source = LoopDevice::new(SIZE, 512);
        source.fill(SEED);
        let dests = [0, 1].map(|number| {
            let dest = LoopDevice::new(SIZE, 512);
            dest.fill(OLD + number);
            dest
        });
        let names = ["from", "to.0", "to.1"].map(|name| scratch.path().join(name));
        for (name, device) in names.iter().zip([&source, &dests[0], &dests[1]]) {
            point(name, device.path());
        }
        let mut daemon = daemon().start();
        let [from, first, second] = &names;
        let (from, first, second) = (from.display(), first.display(), second.display());
        let id = daemon.job(&format!("from={from} to={first} to={second} speed_max=1")).unwrap();
        until("progress", || (daemon.status(id).copied() > 0).then_some(()));
        daemon.control(id, "pause").unwrap();
        until("a checkpoint", || (daemon.status(id).durable() > 0).then_some(()));
        daemon.write(format!("jobs/{id}/speed_max"), "max\n").unwrap();
        // it is alive when the daemon dies: held must not be a matter of a pause
        hold_back(&daemon, id);
        daemon.kill9();
        Self { daemon, names, dests, source, id, _scratch: scratch }
    }

    fn contents(&self) -> [Vec<u8>; 2] {
        [0, 1].map(|dest: usize| self.dests[dest].read(0..SIZE))
    }

    /// It is held, says why, and nothing was written.
    fn assert_held(&mut self, path: &Path, why: &str) {
        let before = self.contents();
        self.daemon.restart();
        until_state(&self.daemon, self.id, "held");
        let status = self.daemon.status(self.id);
        let reason = status.error().unwrap_or_default();
        assert!(reason.contains(&path.display().to_string()) && reason.contains(why), "{reason}");
        assert!(self.daemon.read("events").unwrap().contains(&format!("{} queued held", self.id)));
        // neither a pause nor time changes that
        assert!(self.daemon.control(self.id, "pause").is_err());
        assert_eq!(self.daemon.status(self.id).state(), "held");
        assert!(self.contents() == before, "a held job has written");
        let listed = fs::symlink_metadata(self.daemon.path(format!("state/held/{}", self.id)));
        assert!(listed.is_ok(), "{listed:?}");
    }

    fn assert_done(&self) {
        let status = self.daemon.wait(self.id);
        assert_eq!((status.state(), status.durable()), ("done", SIZE), "\n{status}");
        assert_nothing_torn(&self.daemon);
    }

    fn assert_equal(&self) {
        for dest in &self.dests {
            dest.check(SEED).unwrap();
        }
    }
}

/// Makes it a running job again that gets nowhere.
fn hold_back(daemon: &Daemon, id: u64) {
    daemon.write(format!("jobs/{id}/speed_max"), "512\n").unwrap();
    daemon.control(id, "resume").unwrap();
    until_state(daemon, id, "running");
}

fn state(daemon: &Daemon) -> PathBuf {
    daemon.mount().parent().expect("the scratch directory").join("state")
}

#[test]
fn a_device_with_another_name_is_the_same() {
    if !need::fault_disk() {
        return;
    }
    let mut half = Half::new();
    let durable = durable_of_record(&half);
    // the same file by another loop device: /dev/loopN is only a name
    let aliases = [half.source.alias(0), half.dests[0].alias(0), half.dests[1].alias(0)];
    for (name, alias) in half.names.iter().zip(&aliases) {
        point(name, alias.path());
    }
    half.daemon.restart();
    let _ = half.daemon.write(format!("jobs/{}/speed_max", half.id), "max\n");
    assert!(half.daemon.status(half.id).durable() >= durable && durable > 0);
    half.assert_done();
    drop(aliases);
    half.assert_equal();
}

fn durable_of_record(half: &Half) -> u64 {
    crate::kit::bytes(&crate::kit::recorded(&state(&half.daemon), half.id, 2)[0])
}

#[test]
fn two_destinations_that_changed_places_are_held() {
    if !need::fault_disk() {
        return;
    }
    let mut half = Half::new();
    point(&half.names[1], half.dests[1].path());
    point(&half.names[2], half.dests[0].path());
    let name = half.names[1].clone();
    half.assert_held(&name, "may not be the same device");
    // wherever they are now, nobody else writes them meanwhile
    let other = LoopDevice::new(SIZE, 512);
    for dest in &half.dests {
        let spec = format!("from={} to={}", other.path().display(), dest.path().display());
        let refused = half.daemon.refused(&spec);
        let names = format!("kept for job {}", half.id);
        assert!(refused.errno == libc::EBUSY && refused.reason.contains(&names), "{refused:?}");
    }
    // held again by a restart
    half.daemon.kill9();
    half.assert_held(&name, "may not be the same device");
    // somebody looks, and puts them right
    point(&half.names[1], half.dests[0].path());
    point(&half.names[2], half.dests[1].path());
    half.daemon.control(half.id, "resume").unwrap();
    half.daemon.write(format!("jobs/{}/speed_max", half.id), "max\n").unwrap();
    half.assert_done();
    half.assert_equal();
}

#[test]
fn a_device_that_was_replaced_is_held_until_somebody_has_looked() {
    if !need::fault_disk() {
        return;
    }
    let mut half = Half::new();
    // the new one has all that the old one had: somebody has copied it
    let new = LoopDevice::new(SIZE, 512);
    fs::copy(half.dests[0].image(), new.image()).unwrap();
    let old = half.contents();
    point(&half.names[1], new.path());
    let name = half.names[1].clone();
    half.assert_held(&name, "may not be the same device");
    let before = new.read(0..SIZE);
    assert!(before == old[0], "a held job has written to the new device");
    half.daemon.control(half.id, "resume").unwrap();
    half.daemon.write(format!("jobs/{}/speed_max", half.id), "max\n").unwrap();
    half.assert_done();
    new.check(SEED).unwrap();
    half.dests[1].check(SEED).unwrap();
    assert!(half.dests[0].read(0..SIZE) == old[0], "the old one is not written any more");
}

#[test]
fn a_source_that_was_replaced_is_held() {
    if !need::fault_disk() {
        return;
    }
    let mut half = Half::new();
    let new = LoopDevice::new(SIZE, 512);
    new.fill(SEED + 1);
    point(&half.names[0], new.path());
    let name = half.names[0].clone();
    half.assert_held(&name, "may not be the same device");
    half.daemon.control(half.id, "cancel").unwrap();
    assert_eq!(half.daemon.wait(half.id).state(), "cancelled");
    // taken up again it is looked at anew
    half.daemon.control(half.id, "retry").unwrap();
    until_state(&half.daemon, half.id, "held");
}

#[test]
fn a_missing_device_is_held_and_goes_on_when_it_is_back() {
    if !need::fault_disk() {
        return;
    }
    let mut half = Half::new();
    let name = half.names[2].clone();
    fs::remove_file(&name).unwrap();
    half.assert_held(&name, "No such file");
    // nobody loses it by being too early
    let follower = half.daemon.job(&format!("zero to={},0,8 after={}", half.names[0].display(), half.id)).unwrap();
    half.daemon.control(half.id, "resume").unwrap();
    until_reason(&half.daemon, half.id, "No such file");
    until_state(&half.daemon, half.id, "held");
    assert_eq!(half.daemon.status(follower).state(), "queued");
    half.daemon.control(follower, "cancel").unwrap();
    point(&name, half.dests[1].path());
    half.daemon.control(half.id, "resume").unwrap();
    half.daemon.write(format!("jobs/{}/speed_max", half.id), "max\n").unwrap();
    half.assert_done();
    half.assert_equal();
}

#[test]
fn a_device_that_shrank_or_grew_is_held() {
    if !need::fault_disk() {
        return;
    }
    for size in [SIZE / 2, SIZE * 2] {
        let mut half = Half::new();
        half.dests[0].resize(size);
        half.daemon.restart();
        until_state(&half.daemon, half.id, "held");
    }
}

#[test]
fn a_busy_device_is_waited_for() {
    if !need::fault_disk() {
        return;
    }
    let mut half = Half::new();
    let held = hold(half.dests[1].path());
    let before = half.contents();
    half.daemon.restart();
    let reason = until_reason(&half.daemon, half.id, "waits");
    assert!(reason.contains(&half.names[2].display().to_string()) && reason.contains("in use"), "{reason}");
    assert_eq!(half.daemon.status(half.id).state(), "queued");
    assert!(half.contents() == before, "it writes although it waits");
    let map = durable_map(&half.daemon, half.id, 0);
    stamp::check(&before[0][..crate::kit::index(map[0].end)], SEED, 0).unwrap();
    drop(held);
    half.daemon.write(format!("jobs/{}/speed_max", half.id), "max\n").unwrap();
    half.assert_done();
    half.assert_equal();
}

#[test]
fn a_job_that_was_paused_while_it_waited_is_still_looked_after() {
    if !need::fault_disk() {
        return;
    }
    for _ in 0..rounds(3) {
        let mut half = Half::new();
        let held = hold(half.dests[1].path());
        half.daemon.restart();
        until_reason(&half.daemon, half.id, "waits");
        let before = half.daemon.status(half.id).durable();
        // openers of devices under way, of each resume one
        let mut held = Some(held);
        for number in 0..40 {
            half.daemon.control(half.id, "pause").unwrap();
            half.daemon.control(half.id, "resume").unwrap();
            if number == 20 {
                drop(held.take());
            }
        }
        half.daemon.write(format!("jobs/{}/speed_max", half.id), "128K\n").unwrap();
        let copied = until("progress", || {
            let status = half.daemon.status(half.id);
            (status.copied() > before && status.state() == "running").then(|| status.copied())
        });
        // a stop makes durable what running jobs have
        half.daemon.stop();
        let durable = durable_of_record(&half);
        assert!(durable >= copied, "{durable} bytes are recorded of {copied}");
        half.daemon.restart();
        half.daemon.write(format!("jobs/{}/speed_max", half.id), "max\n").unwrap();
        half.assert_done();
        half.assert_equal();
    }
}

#[test]
fn a_file_that_was_replaced_under_its_name_is_held() {
    if !need::fault_disk() {
        return;
    }
    let scratch = scratch();
    let source = LoopDevice::new(SIZE, 512);
    source.fill(SEED);
    let names = ["a", "b"].map(|name| scratch.path().join(name));
    for name in &names {
        fs::write(name, vec![0; usize::try_from(SIZE).unwrap()]).unwrap();
    }
    let mut daemon = daemon().start();
    let to = format!("to={} to={}", names[0].display(), names[1].display());
    let id = daemon.job(&format!("from={} {to} speed_max=1", source.path().display())).unwrap();
    until("progress", || (daemon.status(id).copied() > 0).then_some(()));
    daemon.kill9();
    // the files change places
    let third = scratch.path().join("c");
    fs::rename(&names[0], &third).unwrap();
    fs::rename(&names[1], &names[0]).unwrap();
    fs::rename(&third, &names[1]).unwrap();
    let contents = || names.each_ref().map(|name| fs::read(name).unwrap());
    let before = contents();
    daemon.restart();
    until_state(&daemon, id, "held");
    daemon.kill9();
    // one is made anew, byte by byte the same
    fs::rename(&names[0], &third).unwrap();
    fs::rename(&names[1], &names[0]).unwrap();
    fs::copy(&third, &names[1]).unwrap();
    daemon.restart();
    until_state(&daemon, id, "held");
    let reason = daemon.status(id).error().unwrap_or_default().to_owned();
    assert!(reason.contains(&names[1].display().to_string()), "{reason}");
    assert!(contents() == [before[1].clone(), before[0].clone()], "a held job has written");
    // as it was
    fs::rename(&third, &names[1]).unwrap();
    daemon.control(id, "resume").unwrap();
    daemon.write(format!("jobs/{id}/speed_max"), "max\n").unwrap();
    assert_eq!(daemon.wait(id).state(), "done");
    for data in contents() {
        stamp::check(&data, SEED, 0).unwrap();
    }
}
