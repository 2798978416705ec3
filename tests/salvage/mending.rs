//! `retry` after the fault is mended: the job completes, and only what is missing is copied.

use std::ops::Range;

use kcopyfs_support::{Daemon, Fault, FaultDisk, Op, Rng, need};

use crate::{NEW, OLD, disk, end, join, len, map, mapped, spec, stamped, start, until};

const SIZE: u64 = 2 << 20;
const PIECE: u64 = 64 << 10;

const WAYS: [(&str, u32); 2] = [("io=uring", 512), ("io=threads", 4096)];

fn logged(block: u32, seed: u64) -> FaultDisk {
    stamped(FaultDisk::builder(SIZE).block(block).log(true).merging(false), seed)
}

/// What was written since `mark`, in bytes.
fn written_since(disk: &FaultDisk, mark: usize) -> Vec<Range<u64>> {
    let written = disk.written().into_iter().filter(|entry| entry.order >= mark);
    join(written.map(|entry| entry.offset..entry.offset + entry.len).collect())
}

/// What map.K does not say to be on the destination.
fn missing(daemon: &Daemon, id: u64, index: usize) -> Vec<Range<u64>> {
    let map = map(daemon, id, index);
    join([mapped(&map, '?'), mapped(&map, '-')].concat())
}

/// Retries a job that must become `done`, and looks at what that wrote.
fn mend(daemon: &Daemon, id: u64, to: &[FaultDisk]) -> Vec<u64> {
    let before: Vec<_> = (0..to.len()).map(|index| missing(daemon, id, index)).collect();
    let marks: Vec<_> = to.iter().map(|disk| disk.logged().len()).collect();
    daemon.control(id, "retry").unwrap();
    let status = end(daemon, id, "done");
    assert_eq!((status.read_err(), status.write_err(), status.bad_bytes()), (false, 0, 0), "\n{status}");
    assert_eq!((status.copied(), status.durable(), status.error()), (SIZE, SIZE, None), "\n{status}");
    assert_eq!(daemon.errors(id), []);
    for (index, disk) in to.iter().enumerate() {
        assert_eq!(disk.check(NEW), Ok(()), "destination {index}");
        assert_eq!(daemon.dests(id)[index].state, "done");
        assert_eq!(written_since(disk, marks[index]), before[index], "what was missing on destination {index}");
        assert_eq!(len(&mapped(&map(daemon, id, index), '+')), SIZE);
    }
    before.iter().map(|ranges| len(ranges)).collect()
}

#[test]
fn blocks_that_can_be_read_again_are_all_that_is_copied() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(91);
    for (io, block) in WAYS {
        let (from, to) = (disk(SIZE, block, NEW), [logged(block, OLD), logged(block, OLD + 1)]);
        let daemon = start(&["state=none", "subjob_kb=64", io]);
        for words in ["on_read_error=zero", "on_read_error=skip", "on_read_error=zero verify", "ignore_error"] {
            to[0].fill(OLD);
            to[1].fill(OLD + 1);
            let size = u64::from(block);
            let bad: Vec<_> = (0..5).map(|_| rng.below(SIZE / size) * size).map(|at| at..at + size).collect();
            for range in &bad {
                from.rule(Op::Read, range.clone(), Fault::Err(libc::EIO));
            }
            let id = daemon.job(&spec(&from, &to, words)).unwrap();
            end(&daemon, id, "degraded");
            from.clear();
            let copied = mend(&daemon, id, &to);
            if !words.contains("ignore") {
                let lost = len(&join(bad));
                assert_eq!(copied, [lost, lost], "{words}");
            }
        }
    }
}

#[test]
fn a_job_that_stopped_goes_on_with_another_policy_and_reads_nothing_again() {
    if !need::fault_disk() {
        return;
    }
    let bad = SIZE / 2 + 4096..SIZE / 2 + 8192;
    for (io, block) in WAYS {
        let (from, to) = (disk(SIZE, block, NEW), [logged(block, OLD)]);
        let mut daemon = start(&["subjob_kb=64", io]);
        from.rule(Op::Read, bad.clone(), Fault::Err(libc::EIO));
        let id = daemon.job(&spec(&from, &to, "retries=1")).unwrap();
        let status = end(&daemon, id, "failed");
        let why = status.error().unwrap_or_default().to_owned();
        let remedy = "; `retry on_read_error=zero` (or skip), written to control, saves the rest";
        assert!(why.contains(": EIO in ") && why.ends_with(remedy), "{why}");
        // What else is said changes nothing.
        for wrong in ["retry on_read_error=never", "retry verify", "retry name=x", "retry retries", "pause retries=3"] {
            assert_eq!(daemon.control(id, wrong).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{wrong}");
        }
        assert_eq!(daemon.status(id).text(), status.text());
        assert!(daemon.read("error_log").unwrap().contains("`retry` takes on_read_error= on_write_error= retries="));

        // Whoever reads again what is there already meets an error.
        for range in mapped(&map(&daemon, id, 0), '+') {
            from.rule(Op::Read, range, Fault::Err(libc::EREMOTEIO));
        }
        daemon.control(id, "retry on_read_error=zero retries=0").unwrap();
        let status = end(&daemon, id, "degraded");
        assert_eq!(
            (status.bad_bytes(), status.durable()),
            (bad.end - bad.start, SIZE - (bad.end - bad.start)),
            "\n{status}"
        );
        assert!(daemon.errors(id).iter().all(|range| range.errno == "EIO"), "{:?}", daemon.errors(id));
        assert!(!status.error().unwrap().contains("retry"), "\n{status}");
        let words = |daemon: &Daemon| daemon.read(format!("jobs/{id}/spec")).unwrap();
        assert!(words(&daemon).ends_with(" on_read_error=zero\n"), "{}", words(&daemon));
        // The record has it, and so has each further retry.
        daemon.kill9();
        daemon.restart();
        assert!(words(&daemon).ends_with(" on_read_error=zero\n"), "{}", words(&daemon));
        daemon.control(id, "retry").unwrap();
        end(&daemon, id, "degraded");
        from.clear();
        daemon.control(id, "retry retries=3").unwrap();
        end(&daemon, id, "done");
        assert_eq!(to[0].check(NEW), Ok(()));
        assert!(words(&daemon).ends_with(" on_read_error=zero retries=3\n"), "{}", words(&daemon));
    }
}

#[test]
fn what_another_job_has_written_over_is_copied_again() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        let (from, other, to) =
            (logged(block, NEW), logged(block, OLD + 5), [0, 1].map(|index| logged(block, OLD + index)));
        let mut daemon = Daemon::builder(env!("CARGO_BIN_EXE_kcopyfs")).option("subjob_kb=64").option(io).start();
        let id = daemon.job(&spec(&from, &to, "paused")).unwrap();
        from.rule(Op::Read, 24 * PIECE.., Fault::Hang);
        daemon.control(id, "resume").unwrap();
        from.wait_parked(1);
        until("copied", || (daemon.status(id).copied() >= 16 * PIECE).then_some(()));
        daemon.control(id, "cancel").unwrap();
        from.release();
        from.clear();
        end(&daemon, id, "cancelled");
        // the second destination gets something else in its middle, under another name
        let alias = daemon.mount().with_file_name("alias");
        std::os::unix::fs::symlink(to[1].path(), &alias).unwrap();
        let over = format!("from={},0,{2} to={1},{2}", other.path().display(), alias.display(), 8 * PIECE / 512);
        assert_eq!(daemon.wait(daemon.job(&over).unwrap()).state(), "done");
        daemon.stop();
        daemon.restart();
        let mark = to[0].logged().len();
        daemon.control(id, "retry").unwrap();
        end(&daemon, id, "done");
        assert_eq!([to[0].check(NEW), to[1].check(NEW)], [Ok(()), Ok(())]);
        assert!(len(&written_since(&to[0], mark)) <= SIZE - 16 * PIECE, "only where something was missing");
    }
}

#[test]
fn a_destination_that_was_given_up_gets_what_it_had_not_made_durable() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(92);
    for (io, block) in WAYS {
        for words in ["", "on_write_error=stop", "write_seq", "digest=sha256"] {
            let (from, to) = (disk(SIZE, block, NEW), [0, 1, 2].map(|index| logged(block, OLD + index)));
            let daemon = start(&["state=none", "subjob_kb=64", io]);
            let id = daemon.job(&spec(&from, &to, &format!("{words} paused"))).unwrap();
            // a pause in the middle makes durable what there is
            let place = rng.within(6..14) * PIECE;
            from.rule(Op::Read, place.., Fault::Hang);
            daemon.control(id, "resume").unwrap();
            from.wait_parked(1);
            until("copied", || (daemon.status(id).copied() >= place).then_some(()));
            daemon.control(id, "pause").unwrap();
            from.release();
            until("durable", || (daemon.status(id).durable() >= place).then_some(()));
            let bad = usize::try_from(rng.below(3)).unwrap();
            to[bad].rule(Op::Write, 28 * PIECE..29 * PIECE, Fault::Err(libc::EIO));
            daemon.control(id, "resume").unwrap();
            let status = end(&daemon, id, if words.contains("stop") { "failed" } else { "degraded" });
            assert_eq!(status.write_err(), 1 << bad, "\n{status}");
            to[bad].clear();
            let copied = mend(&daemon, id, &to);
            for (index, copied) in copied.iter().enumerate() {
                let most = SIZE - place;
                assert!(*copied <= most, "{words}: {copied} bytes again to destination {index} of {most}");
                assert!(index == bad || words.contains("stop") || *copied == 0, "{words}: destination {index} had all");
            }
        }
    }
}

#[test]
fn the_command_in_a_map_finishes_the_job() {
    if !need::fault_disk() || !need::program("ddrescue", "gddrescue") {
        return;
    }
    let (from, to) = (disk(SIZE, 512, NEW), [disk(SIZE, 512, OLD)]);
    from.rule(Op::Read, 9 << 10..11 << 10, Fault::Err(libc::EIO));
    for words in ["on_read_error=zero", "on_read_error=skip", "on_read_error=stop"] {
        let daemon = start(&["state=none", "subjob_kb=64"]);
        to[0].fill(OLD);
        let id = daemon.job(&spec(&from, &to, words)).unwrap();
        assert_ne!(daemon.wait(id).state(), "done");
        let text = map(&daemon, id, 0);
        drop(daemon);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("map");
        std::fs::write(&file, &text).unwrap();
        let (_, command) = text.lines().find_map(|line| line.split_once("by hand: ")).expect("the command");
        let command = command.replace("MAPFILE", &format!("'{}'", file.display()));
        from.clear();
        let output = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        assert_eq!(to[0].check(NEW), Ok(()), "{command}");
        from.rule(Op::Read, 9 << 10..11 << 10, Fault::Err(libc::EIO));
    }
}
