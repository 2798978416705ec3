//! Destinations of coarser blocks than the source's: what is lost is what the source forces, and not a sector more.

use std::{fs, ops::Range, path::Path, process::Command};

use kcopyfs_support::{Daemon, Fault, FaultDisk, Op, Rng, need};

use crate::{
    NEW, OLD, assert_same, at, disk, end, image, join, len, listed, map, mapped, rounds, spec, stamped, start,
};

const SIZE: u64 = 2 << 20;
const SECTORS: u64 = SIZE / 512;

/// Makes some sectors of the source bad, many of them alone in a block of 4096 bytes, and returns where.
fn fail_some(from: &FaultDisk, rng: &mut Rng) -> Vec<Range<u64>> {
    let mut bad = Vec::new();
    for _ in 0..rng.within(2..9) {
        let first = rng.below(SECTORS - 20);
        bad.push(first * 512..(first + rng.within(1..12)) * 512);
    }
    bad.push(if rng.one_in(2) { 0..512 } else { SIZE - 512..SIZE });
    let bad = join(bad);
    for range in &bad {
        from.rule(Op::Read, range.clone(), Fault::Err(libc::EIO));
    }
    bad
}

fn expected(bad: &[Range<u64>], old: &[u8], zeros: bool) -> Vec<u8> {
    let mut expected = image(SIZE, NEW);
    for range in bad {
        let range = at(range.start)..at(range.end);
        if zeros {
            expected[range].fill(0);
        } else {
            expected[range.clone()].copy_from_slice(&old[range]);
        }
    }
    expected
}

#[test]
fn a_hole_is_no_larger_than_the_source_forces() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(41);
    for io in ["io=uring", "io=threads"] {
        let (from, fine) = (disk(SIZE, 512, NEW), disk(SIZE, 512, OLD));
        let to = [disk(SIZE, 4096, OLD + 1), fine, disk(SIZE, 4096, OLD + 2)];
        for policy in ["zero", "skip"] {
            for words in ["", "write_seq", "digest=sha256", "retries=1", "verify"] {
                for _ in 0..rounds(1, 20) {
                    let daemon = start(&["state=none", "subjob_kb=64", io]);
                    let bad = fail_some(&from, &mut rng);
                    let old: Vec<_> = to.iter().map(FaultDisk::contents).collect();
                    let id = daemon.job(&spec(&from, &to, &format!("on_read_error={policy} {words}"))).unwrap();
                    let status = end(&daemon, id, "degraded");
                    assert_eq!((status.bad_bytes(), status.write_err()), (len(&bad), 0), "{words}\n{status}");
                    assert_eq!(listed(&daemon.errors(id), None), bad, "{policy} {words}");
                    assert_eq!((status.copied(), status.durable()), (SIZE - len(&bad), SIZE - len(&bad)), "\n{status}");
                    for (index, disk) in to.iter().enumerate() {
                        let expected = expected(&bad, &old[index], policy == "zero");
                        assert_same(&disk.contents(), &expected, &format!("{policy} {words}, destination {index}"));
                        assert_eq!(mapped(&map(&daemon, id, index), '-'), bad);
                        assert_eq!(daemon.dests(id)[index].state, "done");
                    }
                    if words.contains("digest") {
                        let digest = sha256(&expected(&bad, &image(SIZE, OLD), true));
                        assert_eq!(status.digest(), Some(digest.as_str()), "{policy}");
                    }
                    // and a retry completes it
                    from.clear();
                    daemon.control(id, "retry").unwrap();
                    end(&daemon, id, "done");
                    assert!(to.iter().all(|disk| disk.check(NEW).is_ok()));
                    to.iter().zip(OLD..).for_each(|(disk, seed)| disk.fill(seed));
                }
            }
        }
        // whoever stops names the sector
        let daemon = start(&["state=none", "subjob_kb=64", io]);
        let bad = 300 * 512..301 * 512;
        from.rule(Op::Read, bad.clone(), Fault::Err(libc::EIO));
        let id = daemon.job(&spec(&from, &to, "")).unwrap();
        end(&daemon, id, "failed");
        assert_eq!(listed(&daemon.errors(id), None), std::slice::from_ref(&bad));
        from.clear();
    }
}

fn sha256(data: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), data).unwrap();
    let output = Command::new("sha256sum").arg(file.path()).output().expect("run sha256sum");
    let text = String::from_utf8(output.stdout).expect("text");
    format!("sha256:{}", text.split_whitespace().next().expect("a digest"))
}

#[test]
fn a_destination_that_fails_in_the_middle_of_it_is_told() {
    if !need::fault_disk() {
        return;
    }
    let (from, to) = (disk(SIZE, 512, NEW), [disk(SIZE, 4096, OLD), disk(SIZE, 4096, OLD + 1)]);
    let bad = 300 * 512..301 * 512;
    from.rule(Op::Read, bad.clone(), Fault::Err(libc::EIO));
    for policy in ["zero", "skip"] {
        let block = 296 * 512..304 * 512;
        to[0].rule(Op::Write, block.clone(), Fault::Err(libc::ENOSPC));
        let daemon = start(&["state=none", "subjob_kb=64"]);
        let id = daemon.job(&spec(&from, &to, &format!("on_read_error={policy} retries=1"))).unwrap();
        let status = end(&daemon, id, "degraded");
        assert_eq!((status.write_err(), status.bad_bytes()), (1, 512), "\n{status}");
        assert_eq!(listed(&daemon.errors(id), Some(0)), std::slice::from_ref(&block));
        assert_eq!(daemon.dests(id)[1].state, "done");
        to[0].clear();
        // that destination alone is completed, but for the sector
        daemon.control(id, "retry").unwrap();
        end(&daemon, id, "degraded");
        let old = image(SIZE, OLD);
        assert_same(&to[0].contents(), &expected(std::slice::from_ref(&bad), &old, policy == "zero"), policy);
        to.iter().zip(OLD..).for_each(|(disk, seed)| disk.fill(seed));
    }
}

/// As ddrescue makes one, of the job's own map.
fn rescue(source: &Path, image: &Path, map: &str, directory: &Path) {
    let file = directory.join("map");
    fs::write(&file, map).unwrap();
    let run = Command::new("ddrescue").args(["-q", "-f", "-d", "-r1", "-b512"]).args([source, image, &file]).status();
    assert!(run.expect("run ddrescue").success());
}

#[test]
fn what_ddrescue_has_saved_meanwhile_stays() {
    if !need::fault_disk() || !need::program("ddrescue", "gddrescue") {
        return;
    }
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    for state in ["state", "none"] {
        for (words, to) in [
            ("on_read_error=zero create", directory.path().join("image")),
            ("ignore_error create", directory.path().join("image")),
            ("on_read_error=zero", disk_path(&directory)),
        ] {
            let from = stamped(FaultDisk::builder(SIZE).block(512).merging(false), NEW);
            let bad = [100_u64, 101, 102, 2000];
            for sector in bad {
                from.rule(Op::Read, sector * 512..(sector + 1) * 512, Fault::Err(libc::EIO));
            }
            let builder = Daemon::builder(env!("CARGO_BIN_EXE_kcopyfs")).option("pages=1024").option("subjob_kb=64");
            let builder = if state == "none" { builder.option("state=none") } else { builder };
            let mut daemon = builder.start();
            let id = daemon.job(&format!("from={} to={} {words}", from.path().display(), to.display())).unwrap();
            end(&daemon, id, "degraded");
            // ddrescue is luckier with two of the sectors, and so is nobody after it
            from.clear();
            for sector in [100, 102] {
                from.rule(Op::Read, sector * 512..(sector + 1) * 512, Fault::Err(libc::EIO));
            }
            rescue(&from.path(), &to, &map(&daemon, id, 0), directory.path());
            from.clear();
            for sector in bad {
                from.rule(Op::Read, sector * 512..(sector + 1) * 512, Fault::Err(libc::EIO));
            }
            if state != "none" {
                daemon.stop();
                daemon.restart();
            }
            let contents = fs::read(&to).unwrap();
            daemon.control(id, "retry").unwrap();
            let status = end(&daemon, id, "degraded");
            assert_same(&fs::read(&to).unwrap(), &contents, &format!("{words}, {state}\n{status}"));
            let saved = |sector: u64| contents[at(sector * 512)..at(sector * 512) + 512].iter().any(|byte| *byte != 0);
            assert_eq!(bad.map(saved), [false, true, false, true], "{words}");
            from.clear();
            daemon.control(id, "retry").unwrap();
            end(&daemon, id, "done");
            assert_same(&fs::read(&to).unwrap(), &image(SIZE, NEW), words);
            drop(daemon);
            fs::remove_file(&to).unwrap();
        }
    }
}

/// An image that is there already.
fn disk_path(directory: &tempfile::TempDir) -> std::path::PathBuf {
    let path = directory.path().join("made-before");
    fs::File::create(&path).unwrap().set_len(SIZE).unwrap();
    path
}
