//! Holes of a source file are not read, and become holes of the destinations.

use std::{
    fs::{self, File},
    io::{BufReader, Read as _},
    ops::Range,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kcopyfs_support::{LoopDevice, Rng, need};

use super::{OLD, at, end, start, until};

const MIB: u64 = 1 << 20;
/// Mebibytes of the sources.
const WIDE: u64 = 160;
const CRASHED: u64 = 200;

/// A file of that size with a byte of its own in each mebibyte of its data, and holes elsewhere.
fn thin(path: &Path, size: u64, data: &[Range<u64>]) {
    let file = File::create(path).expect("a file");
    file.set_len(size).expect("a long file");
    for mib in data.iter().cloned().flatten() {
        let byte = 1 + u8::try_from(mib % 251).expect("a byte");
        file.write_all_at(&vec![byte; at(MIB)], mib * MIB).expect("write data");
    }
}

/// Whether two files are the same, without either in memory.
fn same(a: &Path, b: &Path) -> bool {
    let open = |path| BufReader::with_capacity(1 << 20, File::open(path).expect("a file"));
    let (mut a, mut b) = (open(a), open(b));
    let (mut one, mut other) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = a.read(&mut one).expect("read it");
        if count == 0 {
            return b.read(&mut other).expect("read it") == 0;
        }
        b.read_exact(&mut other[..count]).expect("as long");
        if one[..count] != other[..count] {
            return false;
        }
    }
}

fn sum(path: &Path) -> String {
    let output = std::process::Command::new("sha256sum").arg(path).output().expect("run sha256sum");
    let text = String::from_utf8(output.stdout).expect("text");
    format!("sha256:{}", text.split_whitespace().next().expect("a sum"))
}

fn room(path: &Path) -> u64 {
    fs::metadata(path).expect("a file").blocks() * 512
}

fn to(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!(" to={}", path.display())).collect::<Vec<_>>().concat()
}

#[test]
fn two_terabytes_of_hole_take_no_time() {
    if !need::fuse() {
        return;
    }
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (from, made) = (dir.path().join("from"), dir.path().join("made"));
    thin(&from, 2 << 40, &[0..1, 1_000_000..1_000_002, (2 << 20) - 1..2 << 20]);
    for words in ["", "write_seq"] {
        let daemon = start(&["state=none"]);
        let begun = Instant::now();
        let id = daemon.job(&format!("from={} to={} create sparse {words}", from.display(), made.display())).unwrap();
        let status = end(&daemon, id, "done");
        eprintln!("{:?} {words}", begun.elapsed());
        // To read it would take ten times as long on a machine with nothing else to do.
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert_eq!((status.copied(), status.durable()), (2 << 40, 2 << 40));
        assert!(room(&made) <= 8 * MIB);
        let file = File::open(&made).expect("a file");
        for mib in [0, 1_000_000, 1_000_001, (2 << 20) - 1] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, mib * MIB + 77).expect("read it");
            assert_eq!(u64::from(byte[0]), 1 + mib % 251);
        }
        fs::remove_file(&made).expect("remove it");
    }
}

#[test]
fn destinations_hold_zeros_where_the_source_has_holes() {
    if !need::loops() || !need::fuse() {
        return;
    }
    let mut rng = Rng::from_env_or(31);
    for (io, block, words) in [
        ("io=uring", 512, "digest=sha256"),
        ("io=threads", 4096, "verify"),
        ("io=uring", 4096, "write_seq digest=sha256"),
    ] {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let [from, made, full] = ["from", "made", "full"].map(|name| dir.path().join(name));
        // Holes that are large enough, and some that are not.
        let first = rng.within(1..30);
        let data = [first..first + 1, first + 3..first + 4, 60..62, 100..100 + rng.within(1..40)];
        thin(&from, WIDE * MIB, &data);
        // Everywhere something else.
        fs::write(&full, vec![0xee; at(WIDE * MIB)]).expect("a file");
        let device = LoopDevice::new(WIDE * MIB, block);
        device.fill(OLD);
        let daemon = start(&["state=none", io]);
        let dests = to(&[made.clone(), full.clone(), device.path().to_path_buf()]);
        let id = daemon.job(&format!("from={}{dests} sparse create {words}", from.display())).unwrap();
        let status = end(&daemon, id, "done");
        for path in [&made, &full, &device.path().to_path_buf()] {
            assert!(same(&from, path), "{} with {words:?}", path.display());
            eprintln!("{}: {} bytes", path.display(), room(path));
        }
        assert!(room(&made) < 60 * MIB && room(&full) < 60 * MIB);
        if words.contains("digest") {
            assert_eq!(status.digest(), Some(sum(&from).as_str()));
        }
        // A part that begins and ends in holes.
        let part = format!("from={},40M,61M to={} sparse digest=sha256", from.display(), device.path().display());
        let id = daemon.job(&part).unwrap();
        end(&daemon, id, "done");
        let wanted: Vec<u8> = [61, 62].map(|byte| vec![byte; at(MIB)]).concat();
        assert!(device.read(20 * MIB..22 * MIB) == wanted);
        assert!(device.read(0..20 * MIB).iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_sparse_copy_goes_on_after_a_crash() {
    if !need::fuse() {
        return;
    }
    let dir = tempfile::tempdir().expect("a scratch directory");
    let [from, full] = ["from", "full"].map(|name| dir.path().join(name));
    thin(&from, CRASHED * MIB, &[20..24, 60..64, 100..140, 199..200]);
    fs::write(&full, vec![0xee; at(CRASHED * MIB)]).expect("a file");
    let mut daemon = start(&[]);
    let spec = format!("from={}{} sparse digest=sha256 speed_max=8M", from.display(), to(std::slice::from_ref(&full)));
    let id = daemon.job(&spec).unwrap();
    until("progress", || (daemon.status(id).durable() > 8 * MIB).then_some(()));
    daemon.kill9();
    daemon.restart();
    assert!(daemon.status(id).durable() > 0);
    daemon.write(format!("jobs/{id}/speed_max"), "max").unwrap();
    let status = end(&daemon, id, "done");
    assert_eq!(status.digest(), Some(sum(&from).as_str()));
    assert!(same(&from, &full) && room(&full) < 80 * MIB);
}
