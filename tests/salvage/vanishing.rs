//! Devices that go away in mid-copy: an error soon, and the others finish.

use std::{
    fs::{self, OpenOptions},
    time::{Duration, Instant},
};

use kcopyfs_support::{Daemon, Fault, FaultDisk, LoopDevice, Op, Rng, need, stamp};

use crate::{NEW, OLD, disk, end, len, map, mapped, spec, start, until};

const SIZE: u64 = 4 << 20;
const PIECE: u64 = 64 << 10;

/// How soon the error must be known.
const SOON: Duration = Duration::from_secs(2);

const WAYS: [(&str, u32); 2] = [("io=uring", 512), ("io=threads", 4096)];

/// Waits until destination `index` has failed, and returns how long that took.
fn failed_after(daemon: &Daemon, id: u64, index: usize, since: Instant) -> Duration {
    until("the error", || (daemon.status(id).write_err() == 1 << index).then_some(()));
    since.elapsed()
}

/// Every sector of it is old or new.
fn assert_torn(disk: &FaultDisk, old: u64) {
    for (sector, data) in (0..).zip(disk.contents().chunks(512)) {
        let sound = stamp::check(data, NEW, sector).is_ok() || stamp::check(data, old, sector).is_ok();
        assert!(sound, "sector {sector} is neither old nor new");
    }
}

#[test]
fn a_destination_that_vanishes_or_shrinks_is_known_soon_and_the_others_finish() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(71);
    for (io, block) in WAYS {
        for (shrinks, words) in [(false, ""), (true, ""), (false, "retries=3"), (true, "write_seq"), (false, "verify")]
        {
            let bad = usize::try_from(rng.below(3)).unwrap();
            let (from, to) = (disk(SIZE, block, NEW), [0, 1, 2].map(|index| disk(SIZE, block, OLD + index)));
            let daemon = start(&["state=none", "subjob_kb=64", io]);
            let place = rng.within(8..48) * PIECE;
            // so that it is in the middle when the disk goes, and far from its end when that is known
            from.rule(Op::Read, place.., Fault::Hang);
            to[bad].rule(Op::Write, place / 2.., Fault::Hang);
            let id = daemon.job(&spec(&from, &to, words)).unwrap();
            to[bad].wait_parked(1);
            let began = Instant::now();
            if shrinks {
                to[bad].resize(place / 2 - PIECE / 2);
                to[bad].release();
            } else {
                to[bad].dead(libc::ENODEV);
            }
            if words.contains("retries") {
                // a block is tried again when all others were tried
                from.release();
            }
            let took = failed_after(&daemon, id, bad, began);
            assert!(took < SOON, "{io}, {words:?}: after {took:?}");
            from.release();
            let status = end(&daemon, id, "degraded");
            assert_eq!((status.write_err(), status.read_err()), (1 << bad, false), "\n{status}");
            let dests = daemon.dests(id);
            for index in (0..3).filter(|index| *index != bad) {
                assert_eq!(to[index].check(NEW), Ok(()), "destination {index}");
                assert_eq!(dests[index].state, "done");
            }
            assert_eq!(dests[bad].state, "failed");
            assert_torn(&to[bad], OLD + bad as u64);
            if !shrinks {
                to[bad].revive();
                to[bad].clear();
                daemon.control(id, "retry").unwrap();
                end(&daemon, id, "done");
                assert_eq!(to[bad].check(NEW), Ok(()));
            }
        }
    }
}

#[test]
fn a_source_that_vanishes_or_shrinks_is_known_soon() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(72);
    for (io, block) in WAYS {
        for (shrinks, words) in [(false, ""), (true, ""), (false, "on_read_error=zero"), (true, "on_read_error=skip")] {
            let (from, to) = (disk(SIZE, block, NEW), [disk(SIZE, block, OLD)]);
            let daemon = start(&["state=none", "subjob_kb=64", io]);
            let place = rng.within(8..48) * PIECE;
            from.rule(Op::Read, place.., Fault::Hang);
            let id = daemon.job(&spec(&from, &to, words)).unwrap();
            from.wait_parked(1);
            let began = Instant::now();
            if shrinks {
                from.resize(place);
                from.release();
            } else {
                from.dead(libc::ENODEV);
            }
            until("the error", || daemon.status(id).read_err().then_some(()));
            assert!(began.elapsed() < SOON, "{io}, {words:?}: after {:?}", began.elapsed());
            let status = daemon.wait(id);
            // One that shrinks is a bad block where it was merged with another request.
            let is_gone = !shrinks || ["ENODEV", "ENXIO"].contains(&daemon.errors(id)[0].errno.as_str());
            assert_eq!(status.state(), if words.is_empty() || is_gone { "failed" } else { "degraded" }, "\n{status}");
            assert!(
                !is_gone || status.error().is_some_and(|error| error.contains("ENODEV") || error.contains("ENXIO")),
                "\n{status}"
            );
            assert!(status.copied() <= place && status.write_err() == 0, "\n{status}");
            let there = mapped(&map(&daemon, id, 0), '+');
            assert!(len(&there) == status.durable() && len(&there) > 0, "{there:?}\n{status}");
            for range in there {
                assert_eq!(stamp::check(&to[0].contents_of(range.clone()), NEW, range.start / 512), Ok(()));
            }
            let rest = to[0].contents_of(place..);
            assert_eq!(stamp::check(&rest, OLD, place / 512), Ok(()), "what a source that is gone has is not zeros");
        }
    }
}

/// To a write beyond its end a device answers that there is no space, and a read is empty: neither is what has happened.
#[test]
fn a_device_that_is_gone_or_shorter_is_told_as_that_and_not_as_full() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        for (left, errno, why) in [(0, "ENODEV", "gone"), (SIZE / 4, "ENXIO", "cut")] {
            for words in ["", "sparse", "ignore_error", "write_seq retries=2"] {
                let (from, good, bad) = (disk(SIZE, block, NEW), disk(SIZE, block, OLD), LoopDevice::new(SIZE, block));
                let daemon = start(&["state=none", "subjob_kb=64", io]);
                from.rule(Op::Read, SIZE / 2.., Fault::Hang);
                let to = format!("to={} to={} {words}", bad.path().display(), good.path().display());
                let id = daemon.job(&format!("from={} {to}", from.path().display())).unwrap();
                from.wait_parked(1);
                stands_still(&daemon, id);
                bad.resize(left);
                from.release();
                let status = daemon.wait(id);
                let (dests, error) = (daemon.dests(id), status.error().unwrap_or_default());
                assert_eq!(dests[0].errno.as_deref(), Some(errno), "{io}, {words:?}\n{status}");
                assert!(error.contains(errno) && error.contains(why), "{error}");
                assert!(daemon.errors(id).iter().all(|range| range.errno == errno), "{io}, {words:?}\n{status}");
            }
            let (from, to) = (disk(SIZE, block, NEW), disk(SIZE, block, OLD));
            let daemon = start(&["state=none", "subjob_kb=64", io]);
            from.rule(Op::Read, SIZE / 2.., Fault::Hang);
            let id = daemon.job(&format!("from={} to={}", from.path().display(), to.path().display())).unwrap();
            from.wait_parked(1);
            stands_still(&daemon, id);
            from.resize(left);
            from.release();
            let error = daemon.wait(id).error().unwrap_or_default().to_owned();
            assert!(error.contains(errno) && error.contains(why), "{error}");
        }
    }
}

/// Nothing of the job ends any more: a write that is still on its way would make a file that was cut longer again.
fn stands_still(daemon: &Daemon, id: u64) {
    until("a stall", || (daemon.status(id).stalled_usec() > 300_000).then_some(()));
}

/// A loop device cannot be taken from who has it open: the kernel waits for the last close. Its file can be cut.
#[test]
fn a_loop_device_that_is_detached_or_whose_file_is_cut_never_makes_a_false_done() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        for cut in [false, true] {
            let (from, good) = (disk(SIZE, block, NEW), disk(SIZE, block, OLD));
            let bad = LoopDevice::new(SIZE, block);
            let image = OpenOptions::new().read(true).write(true).open(bad.image()).expect("the image");
            let daemon = start(&["state=none", "subjob_kb=64", io]);
            from.rule(Op::Read, SIZE / 2.., Fault::Hang);
            let words = format!("to={} to={} verify", bad.path().display(), good.path().display());
            let id = daemon.job(&format!("from={} {words}", from.path().display())).unwrap();
            from.wait_parked(1);
            if cut {
                bad.resize(SIZE / 4);
            } else {
                let status = std::process::Command::new("losetup").arg("-d").arg(bad.path()).status();
                assert!(status.expect("run losetup").success());
            }
            let began = Instant::now();
            from.release();
            let status = daemon.wait(id);
            assert!(began.elapsed() < SOON, "{io}: after {:?}", began.elapsed());
            let dests = daemon.dests(id);
            assert_eq!((dests[1].state.as_str(), good.check(NEW)), ("done", Ok(())));
            if cut {
                assert_eq!((status.state(), status.write_err()), ("degraded", 1), "\n{status}");
                assert_ne!(dests[0].state, "done");
            } else {
                assert_eq!(status.state(), "done", "\n{status}");
                let mut data = vec![0; usize::try_from(SIZE).unwrap()];
                std::os::unix::fs::FileExt::read_exact_at(&image, &mut data, 0).expect("read the image");
                assert_eq!(stamp::check(&data, NEW, 0), Ok(()));
            }
        }
    }
}

/// Writing to a file goes on well when it is deleted, and makes it long again when it is cut.
#[test]
fn an_image_that_is_deleted_or_cut_is_never_done() {
    if !need::fault_disk() {
        return;
    }
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    // how long it is before the job, which makes it longer
    let (none, short, whole) = (None, Some(SIZE / 16), Some(SIZE));
    for (io, block) in WAYS {
        for (cut, before, words) in [
            (false, whole, ""),
            (true, whole, ""),
            (false, none, "create"),
            (true, none, "create"),
            (true, none, "create sparse"),
            (true, short, ""),
            (true, short, "write_seq"),
            (true, whole, "verify"),
            (true, whole, "on_write_error=stop"),
        ] {
            let (from, good) = (disk(SIZE, block, NEW), disk(SIZE, block, OLD));
            let image = scratch.path().join("image");
            if let Some(before) = before {
                fs::File::create(&image).unwrap().set_len(before).unwrap();
            }
            let daemon = start(&["state=none", "subjob_kb=64", io]);
            from.rule(Op::Read, SIZE / 2.., Fault::Hang);
            let to = format!("to={} to={} {words}", image.display(), good.path().display());
            let id = daemon.job(&format!("from={} {to}", from.path().display())).unwrap();
            from.wait_parked(1);
            stands_still(&daemon, id);
            if cut {
                fs::File::options().write(true).open(&image).unwrap().set_len(SIZE / 8).unwrap();
            } else {
                fs::remove_file(&image).unwrap();
            }
            from.release();
            let status = daemon.wait(id);
            let (state, why) =
                (if words.contains("stop") { "failed" } else { "degraded" }, if cut { "cut" } else { "deleted" });
            assert_eq!((status.state(), status.write_err()), (state, 1), "{before:?} {words}\n{status}");
            let error = status.error().unwrap_or_default();
            let path = image.display().to_string();
            assert!(error.contains(why) && error.contains(&path), "{error}");
            let dest = &daemon.dests(id)[0];
            assert!(dest.state == "failed" && dest.sector.is_some(), "{dest:?}");
            assert!(!cut || error.contains("sector"), "{error}");
            if !words.contains("stop") {
                assert_eq!(good.check(NEW), Ok(()));
            }
            let _ = fs::remove_file(&image);
        }
    }
}

#[test]
fn an_image_that_grows_while_it_is_written_is_done() {
    if !need::fault_disk() {
        return;
    }
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    for (io, block) in WAYS {
        for (before, words) in [(None, "create verify"), (Some(SIZE / 16), ""), (Some(2 * SIZE), "sparse")] {
            let from = disk(SIZE, block, NEW);
            let image = scratch.path().join("image");
            if let Some(before) = before {
                fs::File::create(&image).unwrap().set_len(before).unwrap();
            }
            let daemon = start(&["state=none", "subjob_kb=64", io]);
            // one job makes the first half, another the second
            let half = |at: u64| {
                let (from, to) = (from.path().display().to_string(), image.display());
                format!("from={from},{at},{0} to={to},{at} {words}", SIZE / 2 / 512)
            };
            let ids = [half(0), half(SIZE / 2 / 512)].map(|spec| daemon.job(&spec).unwrap());
            for id in ids {
                end(&daemon, id, "done");
            }
            let data = fs::read(&image).unwrap();
            assert_eq!(data.len() as u64, before.unwrap_or(0).max(SIZE), "{words}");
            assert_eq!(stamp::check(&data[..usize::try_from(SIZE).unwrap()], NEW, 0), Ok(()));
            fs::remove_file(&image).unwrap();
        }
    }
}

/// What it had is gone, and is copied again.
#[test]
fn an_image_that_is_cut_while_its_job_does_not_run_is_made_whole() {
    if !need::fault_disk() {
        return;
    }
    let scratch = tempfile::tempdir_in("/dev/shm").unwrap();
    let cut = |image: &std::path::Path| {
        fs::File::options().write(true).open(image).unwrap().set_len(SIZE / 8 + 100).unwrap();
    };
    for again in ["restart", "retry"] {
        let (from, image) = (disk(SIZE, 512, NEW), scratch.path().join(again));
        let mut daemon = start(&["subjob_kb=64"]);
        from.rule(Op::Read, SIZE / 2.., Fault::Hang);
        let spec = format!("from={} to={} create", from.path().display(), image.display());
        let id = daemon.job(&spec).unwrap();
        from.wait_parked(1);
        stands_still(&daemon, id);
        daemon.control(id, "pause").unwrap();
        from.release();
        until("a checkpoint", || {
            let status = daemon.status(id);
            (status.durable() == status.copied() && status.durable() > SIZE / 4).then_some(())
        });
        if again == "retry" {
            daemon.control(id, "cancel").unwrap();
            end(&daemon, id, "cancelled");
            cut(&image);
        } else {
            daemon.stop();
            cut(&image);
            daemon.restart();
        }
        daemon.control(id, if again == "retry" { "retry" } else { "resume" }).unwrap();
        end(&daemon, id, "done");
        assert_eq!(stamp::check(&fs::read(&image).unwrap(), NEW, 0), Ok(()), "{again}");
    }
}
