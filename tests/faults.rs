//! Disks that fail: what the job says of it, which bytes are there, and which must be untouched. Needs FUSE and root.
//!
//! A job copies 32 pieces of 64 KiB from the middle of one disk to the middle of others. Afterwards each piece of a
//! destination is a letter: `n` new, `o` old, `z` zeros, `x` a mixture. Sectors outside must be old in every test.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use kcopyfs_support::{
    Daemon, Fault, FaultDisk, Op, Rng,
    daemon::{STATUS_KEYS, Status, Waited},
    need, stamp, until,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kcopyfs");

const SIZE: u64 = 4 << 20;
const PIECE: u64 = 64 << 10;
const PIECES: u64 = 32;

/// Where the source's region and the destinations' begin, in bytes.
const FROM: u64 = 1 << 20;
const TO: u64 = 512 << 10;

/// The stamps of the source; those of destination i are `OLD + i`.
const NEW: u64 = 1;
const OLD: u64 = 10;

/// Both backends, both sizes of block.
const WAYS: [(&str, u32); 2] = [("io=uring", 512), ("io=threads", 4096)];

/// A source and destinations, stamped.
struct Disks {
    from: FaultDisk,
    to: Vec<FaultDisk>,
}

impl Disks {
    fn new(block: u32, dests: u64) -> Self {
        Self::shaped(dests, || FaultDisk::builder(SIZE).block(block).start())
    }

    fn shaped(dests: u64, start: impl Fn() -> FaultDisk) -> Self {
        let disks = Self { from: start(), to: (0..dests).map(|_| start()).collect() };
        disks.set_merging(false);
        disks.stamp();
        disks
    }

    /// Whether the kernel may make one request of neighbours: then a bad block fails them all.
    fn set_merging(&self, merge: bool) {
        for disk in self.to.iter().chain([&self.from]) {
            let (path, value) = (disk.path(), if merge { "0" } else { "2" });
            if let Ok(name) = path.strip_prefix("/dev") {
                let file = Path::new("/sys/block").join(name).join("queue/nomerges");
                fs::write(&file, value).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            }
        }
    }

    /// Everything as at the start, without rules.
    fn stamp(&self) {
        self.from.fill(NEW);
        for (seed, disk) in (OLD..).zip(&self.to) {
            disk.fill(seed);
        }
        self.from.clear();
        self.to.iter().for_each(FaultDisk::clear);
    }

    fn spec(&self, words: &str) -> String {
        format!("from={},1M,2M{} {words}", self.from.path().display(), self.to("512K"))
    }

    /// The destinations of a spec, each with `region`.
    fn to(&self, region: &str) -> String {
        let mut words = String::new();
        for disk in &self.to {
            let _ = write!(words, " to={},{region}", disk.path().display());
        }
        words
    }

    /// A letter for each piece of destination `index`; what lies outside is old.
    fn pieces(&self, index: usize) -> String {
        let (disk, seed) = (&self.to[index], OLD + index as u64);
        let outside = [(0, TO), (TO + PIECES * PIECE, SIZE)];
        for (start, end) in outside {
            let old = stamp::check(&disk.contents_of(start..end), seed, start / 512);
            old.unwrap_or_else(|mismatch| panic!("destination {index}, outside of the region: {mismatch}"));
        }
        (0..PIECES).map(|piece| letter(&disk.contents_of(piece_at(TO, piece)), seed, piece)).collect()
    }

    fn assert_new(&self, index: usize) {
        assert_eq!(self.pieces(index), all('n'), "destination {index}");
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        // a loop device keeps it for its next user
        self.set_merging(true);
    }
}

/// The bytes of a piece of a region that begins at `start`.
fn piece_at(start: u64, piece: u64) -> std::ops::Range<u64> {
    start + piece * PIECE..start + (piece + 1) * PIECE
}

fn letter(data: &[u8], old: u64, piece: u64) -> char {
    let is_stamped = |seed, region| stamp::check(data, seed, (region + piece * PIECE) / 512).is_ok();
    match () {
        () if is_stamped(NEW, FROM) => 'n',
        () if is_stamped(old, TO) => 'o',
        () if data.iter().all(|byte| *byte == 0) => 'z',
        () => 'x',
    }
}

fn repeat(letter: char, count: u64) -> String {
    (0..count).map(|_| letter).collect()
}

fn all(letter: char) -> String {
    repeat(letter, PIECES)
}

/// With a fixed number of sub-jobs in flight: tests count on where a job stands when one of its requests hangs.
fn start(options: &[&str]) -> Daemon {
    let daemon = Daemon::builder(PROGRAM).option("state=none").option("pages=1024");
    let builder = daemon.option("subjob_kb=64").option("subjobs=8");
    options.iter().fold(builder, |builder, option| builder.option(*option)).start()
}

/// What must be true of every end, and that wait/ID says the same as status.
fn end(daemon: &Daemon, id: u64, state: &str) -> Status {
    let Waited { status, errno, .. } = daemon.wait_to_end(id);
    assert_eq!(status.state(), state, "\n{status}{}", daemon.read(format!("jobs/{id}/dests")).unwrap());
    let expected = match state {
        "done" => None,
        "cancelled" => Some(libc::ECANCELED),
        _ => Some(libc::EIO),
    };
    assert_eq!(errno, expected, "the end of wait/{id}");
    assert_eq!(daemon.status(id), status, "status is not what wait/{id} ended with");
    if matches!(state, "degraded" | "failed") {
        assert!(status.error().is_some(), "nothing says why:\n{status}");
    }
    for (index, dest) in daemon.dests(id).iter().enumerate() {
        let failed = status.write_err() & (1 << index) != 0;
        assert!(!failed || matches!(dest.state.as_str(), "failed" | "mismatch"), "bit {index} is set:\n{dest:?}");
        assert_eq!(failed, dest.errors > 0 && dest.errno.is_some(), "{dest:?}");
        assert!(dest.durable <= dest.copied && dest.copied <= status.total(), "{dest:?}");
        assert!(dest.state != "done" || dest.durable + status.bad_bytes() >= status.total(), "{dest:?}");
    }
    status
}

/// Whether `errors` has that sector as bad.
fn is_listed(daemon: &Daemon, id: u64, dest: Option<usize>, byte: u64) -> bool {
    let sector = byte / 512;
    let ranges = daemon.errors(id);
    assert!(ranges.iter().all(|range| range.count > 0 && range.count <= PIECE / 512), "{ranges:?}");
    ranges.iter().any(|range| range.dest == dest && (range.sector..range.sector + range.count).contains(&sector))
}

/// A bad block of `block` bytes somewhere in the middle of a piece.
fn block_in(start: u64, piece: u64, block: u32) -> std::ops::Range<u64> {
    let first = start + piece * PIECE + PIECE / 2;
    first..first + u64::from(block)
}

#[test]
fn a_read_error_ends_the_job_and_its_piece_is_written_nowhere() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        let disks = Disks::new(block, 2);
        let daemon = start(&[io]);
        let bad = block_in(FROM, 16, block);
        disks.from.rule(Op::Read, bad.clone(), Fault::Err(libc::ENODATA));
        // what comes after it is under way when it fails, and waits until that is known
        disks.from.rule(Op::Read, FROM + 17 * PIECE.., Fault::Hang);
        let id = daemon.job(&disks.spec("")).unwrap();
        until("read_err", || Some(()).filter(|()| daemon.status(id).read_err()));
        disks.from.release();
        let status = end(&daemon, id, "failed");
        assert_eq!((status.read_err(), status.write_err(), status.bad_bytes()), (true, 0, u64::from(block)));
        let why = status.error().unwrap();
        let (path, sector) = (disks.from.path().display().to_string(), bad.start / 512);
        let named = [path, "ENODATA".into(), format!("sector{} {sector}", if block > 512 { "s from" } else { "" })];
        assert!(named.iter().all(|part| why.contains(part)), "{why}");
        let [listed] = &daemon.errors(id)[..] else { panic!("{:?}", daemon.errors(id)) };
        assert_eq!((listed.dest, listed.sector, listed.count), (None, sector, u64::from(block) / 512));
        let map = daemon.read(format!("jobs/{id}/map.0")).unwrap();
        assert!(map.contains(&format!("0x{:08X}  0x{block:08X}  -", bad.start)), "{map}");

        for index in 0..2 {
            let pieces = disks.pieces(index);
            let finished = pieces[17..].chars().take_while(|letter| *letter == 'n').count() as u64;
            // of 8 in flight one failed
            assert!(finished <= 7, "{pieces}");
            let expected = repeat('n', 16) + "o" + &repeat('n', finished) + &repeat('o', PIECES - 17 - finished);
            assert_eq!(pieces, expected);
            assert_eq!((status.copied(), status.durable()), ((16 + finished) * PIECE, (16 + finished) * PIECE));
        }
        // nothing failed on them
        assert!(daemon.dests(id).iter().all(|dest| dest.state == "dropped"));
        assert_eq!(disks.from.check(NEW), Ok(()));
    }
}

#[test]
fn in_order_all_that_comes_before_a_bad_sector_is_copied() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        let disks = Disks::new(block, 2);
        let daemon = start(&[io]);
        for piece in [1, 5, 20] {
            disks.stamp();
            disks.from.rule(Op::Read, block_in(FROM, piece, block), Fault::Err(libc::EIO));
            let id = daemon.job(&disks.spec("write_seq")).unwrap();
            let status = end(&daemon, id, "failed");
            assert_eq!((status.copied(), status.bad_bytes()), (piece * PIECE, u64::from(block)), "\n{status}");
            let expected = repeat('n', piece) + &repeat('o', PIECES - piece);
            assert_eq!([disks.pieces(0), disks.pieces(1)], [expected.clone(), expected]);
        }
    }
}

#[test]
fn ignored_errors_of_both_sides_leave_no_old_bytes() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        let disks = Disks::new(block, 2);
        let daemon = start(&[io]);
        // sixteen pieces in a row, and one block of a destination in the third of them
        disks.from.rule(Op::Read, FROM..FROM + 16 * PIECE, Fault::Err(libc::EIO));
        let bad = block_in(TO, 2, block);
        disks.to[0].rule(Op::Write, bad.clone(), Fault::Err(libc::EIO));
        let id = daemon.job(&disks.spec("ignore_error")).unwrap();
        let status = end(&daemon, id, "degraded");
        assert_eq!((status.bad_bytes(), status.write_err()), (16 * PIECE, 1), "\n{status}");
        let zeros = repeat('z', 16) + &repeat('n', 16);
        assert_eq!(disks.pieces(0), zeros.replacen("zzz", "zzx", 1));
        assert_eq!(disks.pieces(1), zeros);
        let left = disks.to[0].contents_of(bad.clone());
        assert_eq!(stamp::check(&left, OLD, bad.start / 512), Ok(()), "the block that it does not take");
        let errors = daemon.errors(id);
        let told: Vec<_> = errors.iter().filter(|range| range.dest == Some(0)).collect();
        assert!(
            matches!(told[..], [range] if (range.sector, range.count * 512) == (bad.start / 512, u64::from(block)))
        );
    }
}

#[test]
fn what_verify_has_refuted_counts_for_nothing() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        let disks = Disks::new(block, 1);
        let daemon = start(&[io]);
        for piece in [30, 7, 19] {
            let first = block_in(TO, piece, block).start;
            disks.to[0].rule(Op::Write, first..=first, Fault::Corrupt).times(1);
        }
        let id = daemon.job(&disks.spec("verify")).unwrap();
        let status = end(&daemon, id, "failed");
        assert_eq!((status.copied(), status.durable(), status.percent()), (0, 0, 0.0), "\n{status}");
        let first = block_in(TO, 7, block).start / 512;
        assert!(
            status.error().is_some_and(|why| why.contains(&format!(" {first}"))),
            "the first on the disk:\n{status}"
        );
        let dest = &daemon.dests(id)[0];
        assert_eq!((dest.state.as_str(), dest.sector), ("mismatch", Some(first)), "{dest:?}");
        let lines = daemon.read(format!("jobs/{id}/errors")).unwrap();
        assert!(lines.lines().count() == 3 && lines.lines().all(|line| line.starts_with("differs 0 ")), "{lines}");
    }
}

#[test]
fn destinations_of_a_cancelled_job_have_not_failed() {
    if !need::fault_disk() {
        return;
    }
    let (disks, daemon) = (Disks::new(512, 2), start(&[]));
    disks.from.rule(Op::Read, FROM + 20 * PIECE.., Fault::Hang);
    let id = daemon.job(&disks.spec("")).unwrap();
    disks.from.wait_parked(1);
    daemon.control(id, "cancel").unwrap();
    disks.from.release();
    let status = end(&daemon, id, "cancelled");
    assert_eq!(status.write_err(), 0);
    assert!(daemon.dests(id).iter().all(|dest| dest.state == "dropped" && dest.errors == 0));
}

#[test]
fn a_read_error_that_is_ignored_is_written_as_zeros_to_the_end_of_its_piece() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        let disks = Disks::new(block, 2);
        let daemon = start(&[io]);
        for piece in [0, 16, 31] {
            disks.stamp();
            let bad = block_in(FROM, piece, block);
            disks.from.rule(Op::Read, bad.clone(), Fault::Err(libc::EIO));
            let id = daemon.job(&disks.spec("ignore_error")).unwrap();
            let status = end(&daemon, id, "degraded");
            // what lies before it in its piece is copied
            let kept = PIECE / 2;
            let lost = PIECE - kept;
            assert_eq!((status.read_err(), status.write_err(), status.bad_bytes()), (true, 0, lost), "\n{status}");
            assert_eq!(status.copied(), status.total() - lost, "\n{status}");
            assert!(is_listed(&daemon, id, None, bad.start));
            let expected = repeat('n', piece) + "x" + &repeat('n', PIECES - 1 - piece);
            assert_eq!([disks.pieces(0), disks.pieces(1)], [expected.clone(), expected]);
            for to in &disks.to {
                let held = to.contents_of(piece_at(TO, piece));
                let from = disks.from.contents_of(piece_at(FROM, piece));
                let kept = usize::try_from(kept).unwrap();
                assert!(held[..kept] == from[..kept] && held[kept..].iter().all(|byte| *byte == 0));
            }
            assert_eq!(disks.from.check(NEW), Ok(()));
        }
    }
}

/// A piece whose write failed at `bad`: up to there it may be new, and from there on it is old. Where errors are ignored only
/// the bad block is old.
fn assert_torn(disks: &Disks, index: usize, piece: u64, bad: &std::ops::Range<u64>, ignored: bool) {
    let at = piece_at(TO, piece);
    let data = disks.to[index].contents_of(at.clone());
    for (sector, data) in (at.start / 512..).zip(data.chunks(512)) {
        let is_old = stamp::check(data, OLD + index as u64, sector).is_ok();
        let is_new = stamp::check(data, NEW, sector + FROM / 512 - TO / 512).is_ok();
        let good = if ignored {
            if (bad.start / 512..bad.end / 512).contains(&sector) { is_old } else { is_new }
        } else {
            is_old || is_new && sector < bad.start / 512
        };
        assert!(good, "destination {index}, sector {sector}");
    }
}

/// Sets a bad block on each destination of the set `bits`, runs a job and looks at all that follows from it.
fn write_errors(disks: &Disks, daemon: &Daemon, bits: u64, words: &str, block: u32, rng: &mut Rng) {
    disks.stamp();
    let bad: Vec<_> = (0..disks.to.len())
        .map(|index| {
            let piece = rng.below(PIECES);
            let block = block_in(TO, piece, block);
            if bits & (1 << index) != 0 {
                disks.to[index].rule(Op::Write, block.clone(), Fault::Err(libc::EREMOTEIO));
            }
            (piece, block)
        })
        .collect();
    let id = daemon.job(&disks.spec(words)).unwrap();
    let ignored = words.contains("ignore_error");
    let everyone = bits == (1 << disks.to.len()) - 1;
    let status = end(daemon, id, if everyone { "failed" } else { "degraded" });
    assert_eq!((status.write_err(), status.read_err(), status.bad_bytes()), (bits, false, 0), "\n{status}");
    let dests = daemon.dests(id);
    for (index, (piece, bad)) in bad.iter().enumerate() {
        let (dest, pieces) = (&dests[index], disks.pieces(index));
        if bits & (1 << index) == 0 {
            assert_eq!(pieces, all('n'), "destination {index} is good");
            assert_eq!((dest.state.as_str(), dest.copied), ("done", status.total()), "{dest:?}");
            continue;
        }
        assert_eq!(dest.errno.as_deref(), Some("EREMOTEIO"), "{dest:?}");
        assert_eq!(
            dest.sector.map(|sector| sector / (PIECE / 512)),
            Some(piece_at(TO, *piece).start / PIECE),
            "{dest:?}"
        );
        assert!(is_listed(daemon, id, Some(index), bad.start), "{:?}", daemon.errors(id));
        assert_torn(disks, index, *piece, bad, ignored);
        let before = usize::try_from(*piece).unwrap();
        let others = pieces[..before].to_owned() + &pieces[before + 1..];
        if ignored {
            assert_eq!(others, repeat('n', PIECES - 1), "only the bad blocks are missing on destination {index}");
            assert_eq!(
                (dest.copied, dest.sector),
                (status.total() - u64::from(block), Some(bad.start / 512)),
                "{dest:?}"
            );
            continue;
        }
        // given up: what was written is whole
        assert!(others.chars().all(|letter| "no".contains(letter)), "destination {index}: {pieces}");
        let new = pieces.matches('n').count() as u64;
        assert!(dest.copied <= new * PIECE, "{dest:?}: {pieces}");
    }
    let good = if everyone { 0 } else { status.total() };
    if ignored {
        assert!(status.copied() < status.total(), "a block is missing:\n{status}");
    } else {
        assert!(everyone || (status.copied(), status.durable()) == (good, good), "\n{status}");
    }
    assert_eq!(disks.from.check(NEW), Ok(()));
}

#[test]
fn a_write_error_on_the_first_the_middle_and_the_last_of_three() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(3);
    for (io, block) in WAYS {
        let disks = Disks::new(block, 3);
        let daemon = start(&[io]);
        for words in ["", "ignore_error"] {
            for bits in [0x1, 0x2, 0x4, 0x7] {
                eprintln!("{io}, blocks of {block}, {words:?}: {bits:#x}");
                write_errors(&disks, &daemon, bits, words, block, &mut rng);
            }
        }
    }
}

#[test]
fn write_errors_on_a_random_subset_of_16() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(16);
    for (io, block) in WAYS {
        let disks = Disks::new(block, 16);
        let daemon = start(&[io]);
        for words in ["", "ignore_error"] {
            let bits = rng.within(1..(1 << 16) - 1);
            eprintln!("{io}, blocks of {block}, {words:?}: {bits:#x}");
            write_errors(&disks, &daemon, bits, words, block, &mut rng);
        }
    }
}

#[test]
fn zeroing_has_the_same_bits() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        let disks = Disks::new(block, 3);
        let daemon = start(&[io]);
        for words in ["", "ignore_error"] {
            disks.stamp();
            disks.to[1].rule(Op::Write, block_in(TO, 9, block), Fault::Err(libc::EIO));
            let id = daemon.job(&format!("zero{} {words}", disks.to("512K,2M"))).unwrap();
            let status = end(&daemon, id, "degraded");
            assert_eq!((status.write_err(), status.read_err()), (0x2, false), "\n{status}");
            assert_eq!([disks.pieces(0), disks.pieces(2)], [all('z'), all('z')]);
            let broken = disks.pieces(1);
            assert!(matches!(broken.as_bytes()[9], b'x' | b'o'), "{broken}");
        }
    }
}

/// Reads that come back in disorder.
fn shuffle_reads(disk: &FaultDisk) {
    for piece in (0..PIECES).filter(|piece| piece % 3 != 2) {
        let delay = Duration::from_millis(if piece % 3 == 0 { 12 } else { 5 });
        disk.rule(Op::Read, piece_at(FROM, piece), Fault::Delay(delay));
    }
}

/// The writes that a disk took ascend, without a gap or an overlap, from the beginning of the region; returns how many
/// bytes they are.
fn ascending(disk: &FaultDisk) -> u64 {
    let mut at = TO;
    for write in disk.written() {
        assert_eq!(write.offset, at, "write {} of {}", write.order, disk.written().len());
        at += write.len;
    }
    at - TO
}

#[test]
fn write_seq_writes_in_ascending_order() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        let disks = Disks::shaped(3, || FaultDisk::builder(SIZE).block(block).log(true).start());
        let daemon = start(&[io]);
        shuffle_reads(&disks.from);
        // a slow disk, which must not let the others overtake themselves
        disks.to[1].rule(Op::Write, TO..TO + 9 * PIECE, Fault::Delay(Duration::from_millis(3)));
        let id = daemon.job(&disks.spec("write_seq")).unwrap();
        end(&daemon, id, "done");
        for index in 0..3 {
            assert_eq!(ascending(&disks.to[index]), PIECES * PIECE);
            disks.assert_new(index);
        }
    }
}

#[test]
fn write_seq_ends_at_a_read_error() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        // write_seq cancels ignore_error
        for words in ["write_seq", "write_seq ignore_error"] {
            let disks = Disks::shaped(2, || FaultDisk::builder(SIZE).block(block).log(true).start());
            let daemon = start(&[io]);
            shuffle_reads(&disks.from);
            disks.from.rule(Op::Read, block_in(FROM, 20, block), Fault::Err(libc::EIO));
            let id = daemon.job(&disks.spec(words)).unwrap();
            let status = end(&daemon, id, "failed");
            assert_eq!((status.read_err(), status.write_err()), (true, 0), "\n{status}");
            for index in 0..2 {
                let written = ascending(&disks.to[index]);
                assert!(written <= 20 * PIECE && written.is_multiple_of(PIECE), "{written}");
                let pieces = disks.pieces(index);
                assert_eq!(pieces, repeat('n', written / PIECE) + &repeat('o', PIECES - written / PIECE));
                assert!(status.copied() <= written, "\n{status}");
            }
        }
    }
}

#[test]
fn write_seq_gives_up_a_bad_destination_and_goes_on_in_order() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        let disks = Disks::shaped(2, || FaultDisk::builder(SIZE).block(block).log(true).start());
        let daemon = start(&[io]);
        shuffle_reads(&disks.from);
        disks.to[0].rule(Op::Write, block_in(TO, 11, block), Fault::Err(libc::EIO));
        let id = daemon.job(&disks.spec("write_seq")).unwrap();
        let status = end(&daemon, id, "degraded");
        assert_eq!(status.write_err(), 0x1, "\n{status}");
        assert_eq!(ascending(&disks.to[1]), PIECES * PIECE);
        disks.assert_new(1);
        // nothing is written behind the bad block
        assert_eq!(disks.pieces(0), repeat('n', 11) + "x" + &repeat('o', PIECES - 12));
        assert_torn(&disks, 0, 11, &block_in(TO, 11, block), false);
    }
}

/// Transfers that end after `short` bytes, of files: a loop device would go on by itself, or make EIO of it.
fn end_short(short: usize) {
    if !need::fault_disk() {
        return;
    }
    for io in ["io=uring", "io=threads"] {
        let disks = Disks::shaped(2, || FaultDisk::builder(SIZE).file_only().start());
        let daemon = start(&[io]);
        let read = disks.from.rule(Op::Read, .., Fault::Short(short)).times(7);
        // the kernel makes EIO of a short write to a FUSE file, unless somebody waits in it
        if io == "io=threads" {
            disks.to[0].rule(Op::Write, .., Fault::Short(short)).times(5);
        }
        let id = daemon.job(&disks.spec("")).unwrap();
        end(&daemon, id, "done");
        disks.assert_new(0);
        disks.assert_new(1);
        assert_eq!(read.hits(), 7);
    }
}

#[test]
fn short_transfers_are_finished() {
    for short in [4096, 12 << 10, (20 << 10) + 1000] {
        end_short(short);
    }
}

#[test]
fn transfers_that_end_within_a_block_are_finished() {
    for short in [512, 1000, 1] {
        end_short(short);
    }
}

#[test]
fn a_short_write_of_a_disk_is_its_error() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        let disks = Disks::new(block, 2);
        let daemon = start(&[io]);
        // the loop device makes EIO of it
        disks.to[0].rule(Op::Write, piece_at(TO, 5), Fault::Short(8192)).times(1);
        disks.from.rule(Op::Read, .., Fault::Short(4096)).times(9);
        let id = daemon.job(&disks.spec("")).unwrap();
        let status = end(&daemon, id, "degraded");
        assert_eq!((status.write_err(), status.read_err()), (0x1, false), "\n{status}");
        disks.assert_new(1);
        assert!(matches!(disks.pieces(0).as_bytes()[5], b'x'), "{}", disks.pieces(0));
    }
}

#[test]
fn a_destination_that_vanishes_in_the_middle_is_given_up() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        for words in ["", "ignore_error"] {
            let disks = Disks::new(block, 3);
            let daemon = start(&[io]);
            // so that it is in the middle, with writes in flight, when it goes
            disks.to[1].rule(Op::Write, TO + 10 * PIECE.., Fault::Hang);
            let id = daemon.job(&disks.spec(words)).unwrap();
            disks.to[1].wait_parked(1);
            disks.to[1].dead(libc::ENODEV);
            let status = end(&daemon, id, "degraded");
            assert_eq!((status.write_err(), status.read_err()), (0x2, false), "\n{status}");
            disks.assert_new(0);
            disks.assert_new(2);
            let pieces = disks.pieces(1);
            assert!(!pieces[10..].contains(['n', 'x', 'z']), "{pieces}");
            assert!(pieces.contains('n'), "{pieces}");
        }
    }
}

#[test]
fn a_source_that_vanishes_or_shrinks_in_the_middle_fails_the_job() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        for shrinks in [false, true] {
            let disks = Disks::new(block, 1);
            let daemon = start(&[io]);
            disks.from.rule(Op::Read, FROM + 16 * PIECE.., Fault::Hang);
            let id = daemon.job(&disks.spec("")).unwrap();
            disks.from.wait_parked(1);
            if shrinks {
                // at or beyond its end a device reads nothing, without an error
                disks.from.resize(FROM + 20 * PIECE);
                disks.from.release();
            } else {
                disks.from.dead(libc::EIO);
            }
            let status = end(&daemon, id, "failed");
            assert_eq!((status.read_err(), status.write_err()), (true, 0), "\n{status}");
            let pieces = disks.pieces(0);
            let last = if shrinks { 20 } else { 16 };
            assert_eq!(pieces[last..], repeat('o', PIECES - last as u64), "{pieces}");
            assert!(!pieces.contains(['x', 'z']) && pieces.contains('n'), "{pieces}");
            assert!(status.copied() <= pieces.matches('n').count() as u64 * PIECE, "\n{status}");
        }
    }
}

#[test]
fn a_hung_write_stalls_its_job_alone_and_cancel_waits_for_it() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        let (hung, good) = (Disks::new(block, 2), Disks::new(block, 2));
        let daemon = start(&[io]);
        hung.to[0].rule(Op::Write, TO + 12 * PIECE.., Fault::Hang);
        let id = daemon.job(&hung.spec("")).unwrap();
        hung.to[0].wait_parked(1);

        // it grows
        let stalled = until("stalled_usec", || Some(daemon.status(id).stalled_usec()).filter(|usec| *usec > 100_000));
        until("more of it", || Some(()).filter(|()| daemon.status(id).stalled_usec() > 2 * stalled));
        let status = daemon.status(id);
        assert_eq!((status.state(), status.write_err()), ("running", 0), "\n{status}");

        // others go on
        let other = daemon.job(&good.spec("")).unwrap();
        let status = end(&daemon, other, "done");
        assert_eq!(status.stalled_usec(), 0, "\n{status}");
        good.assert_new(0);
        good.assert_new(1);

        // a cancel is told, and waits
        daemon.control(id, "cancel").unwrap();
        let status = daemon.status(id);
        assert!(!status.is_ended() && status.error().is_some_and(|why| why.contains("wait")), "\n{status}");
        daemon.control(id, "cancel").expect("a second one changes nothing");
        assert!(!daemon.status(id).is_ended());
        let busy = std::fs::remove_dir(daemon.path(format!("jobs/{id}"))).unwrap_err();
        assert_eq!(busy.raw_os_error(), Some(libc::EBUSY));
        hung.to[0].release();
        let status = end(&daemon, id, "cancelled");
        assert_eq!((status.read_err(), status.write_err(), status.stalled_usec()), (false, 0, 0), "\n{status}");
        for index in 0..2 {
            let pieces = hung.pieces(index);
            assert!(!pieces.contains(['x', 'z']) && (index == 1 || pieces.ends_with('o')), "{pieces}");
            assert!(daemon.dests(id)[index].copied <= pieces.matches('n').count() as u64 * PIECE);
        }
    }
}

#[test]
fn a_failed_flush_is_that_destinations_error() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        let volatile = || FaultDisk::builder(SIZE).block(block).volatile(true).start();
        for words in ["", "ignore_error"] {
            let disks = Disks::shaped(3, volatile);
            let daemon = start(&[io]);
            disks.to[2].rule(Op::Flush, .., Fault::Err(libc::EIO));
            let id = daemon.job(&disks.spec(words)).unwrap();
            let status = end(&daemon, id, "degraded");
            let total = status.total();
            assert_eq!((status.write_err(), status.read_err(), status.copied()), (0x4, false, total), "\n{status}");
            let dests = daemon.dests(id);
            assert_eq!([0, 1, 2].map(|index: usize| dests[index].durable), [total, total, 0], "{dests:?}");
            assert_eq!(dests[2].errno.as_deref(), Some("EIO"));
            // ignore_error goes on to every destination: then what one lacks counts
            let durable = if words.is_empty() { total } else { 0 };
            assert_eq!(status.durable(), durable, "\n{status}");
            // what the flush brought to the medium
            disks.assert_new(0);
            disks.assert_new(1);
            assert_eq!(disks.pieces(2), all('o'));
        }
        let disks = Disks::shaped(1, volatile);
        let daemon = start(&[io]);
        disks.to[0].rule(Op::Flush, .., Fault::Err(libc::EIO));
        let id = daemon.job(&disks.spec("")).unwrap();
        let status = end(&daemon, id, "failed");
        assert_eq!((status.write_err(), status.durable()), (0x1, 0), "\n{status}");
        assert!(status.error().unwrap().contains("flush"), "\n{status}");
    }
}

#[test]
fn a_flush_that_hangs_is_flushing_until_it_ends() {
    if !need::fault_disk() {
        return;
    }
    for (io, block) in WAYS {
        let disks = Disks::shaped(1, || FaultDisk::builder(SIZE).block(block).volatile(true).start());
        let daemon = start(&[io]);
        disks.to[0].rule(Op::Flush, .., Fault::Hang);
        let id = daemon.job(&disks.spec("")).unwrap();
        disks.to[0].wait_parked(1);
        let status = daemon.status(id);
        assert_eq!((status.state(), status.durable()), ("flushing", 0), "\n{status}");
        assert_eq!(status.copied(), status.total(), "\n{status}");
        assert_eq!(daemon.dests(id)[0].state, "active");
        assert_eq!(disks.pieces(0), all('o'));
        disks.to[0].release();
        let status = end(&daemon, id, "done");
        assert_eq!(status.durable(), status.total());
        disks.assert_new(0);
        assert_eq!(daemon.read(format!("jobs/{id}/status")).unwrap().lines().count(), STATUS_KEYS.len());
    }
}
