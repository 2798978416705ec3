//! Copies between disks of both block sizes, and images: every byte arrives, and no byte outside the regions changes.
//!
//! Each disk has a model of what it must hold. A job is carried out on the models too; then every disk is compared with
//! its model as a whole. At the start every sector is stamped with its disk and its number, so that what is misplaced is
//! told apart from what never came. Needs FUSE, and root for disks.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use kcopyfs_support::{Daemon, LoopDevice, daemon::Status, need, stamp};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kcopyfs");

const MIB: u64 = 1 << 20;

/// Sectors of 512 bytes in a block of 4096.
const BLOCK: u64 = 8;

/// A loop device and what it must hold.
struct Disk {
    device: LoopDevice,
    model: Vec<u8>,
}

impl Disk {
    fn new(bytes: u64, block: u32, seed: u64) -> Self {
        let mut disk = Self { device: LoopDevice::new(bytes, block), model: Vec::new() };
        disk.stamp(seed);
        disk
    }

    fn stamp(&mut self, seed: u64) {
        self.device.fill(seed);
        self.model = stamp::stamped(seed, 0, index(self.device.size() / 512));
    }

    fn path(&self) -> String {
        self.device.path().display().to_string()
    }

    fn sectors(&self) -> u64 {
        self.device.size() / 512
    }

    /// What the model has in `count` sectors from `sector` on.
    fn region(&self, sector: u64, count: u64) -> Vec<u8> {
        self.model[index(sector * 512)..index((sector + count) * 512)].to_vec()
    }

    /// A job is to write `data` from `sector` on.
    fn expect(&mut self, sector: u64, data: &[u8]) {
        self.model[index(sector * 512)..][..data.len()].copy_from_slice(data);
    }

    fn check(&self) {
        same(&self.path(), &self.device.read(0..self.device.size()), &self.model);
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("an index")
}

/// Compares by sector, and says whose sector stands where another should.
fn same(what: &str, found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len(), "the size of {what}");
    let differs =
        found.chunks(512).zip(expected.chunks(512)).enumerate().find(|(_, (found, expected))| found != expected);
    if let Some((sector, (found, expected))) = differs {
        panic!("{what}: sector {sector} holds {}, not {}", claim(found), claim(expected));
    }
}

/// What a sector says of itself.
fn claim(sector: &[u8]) -> String {
    let number = |at: usize| sector.get(at..at + 8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes")));
    match (number(0), number(8)) {
        _ if sector.iter().all(|byte| *byte == 0) => "zeros".to_owned(),
        (Some(sector), Some(seed)) => format!("sector {sector} of seed {seed}"),
        _ => format!("{sector:?}"),
    }
}

fn start(options: &[&str]) -> Daemon {
    let builder = options.iter().fold(Daemon::builder(PROGRAM), |builder, option| builder.option(*option));
    builder.option("state=none").start()
}

fn can_run() -> bool {
    need::loops() && need::fuse()
}

/// Makes a job that must be taken.
fn job(daemon: &Daemon, spec: &str) -> u64 {
    daemon.job(spec).unwrap_or_else(|error| panic!("{spec}: {error}\n{}", daemon.read("error_log").unwrap_or_default()))
}

/// Waits for a job that must end well, and looks at all of its figures.
fn done(daemon: &Daemon, id: u64, bytes: u64) -> Status {
    let waited = daemon.wait_to_end(id);
    let status = waited.status;
    assert_eq!((status.state(), waited.errno), ("done", None), "job {id}:\n{status}");
    assert_eq!((status.total(), status.copied(), status.durable()), (bytes, bytes, bytes), "job {id}:\n{status}");
    assert_eq!((status.read_err(), status.write_err(), status.bad_bytes()), (false, 0, 0), "job {id}:\n{status}");
    assert_eq!((status.get("percent"), status.error()), ("100.00", None), "job {id}:\n{status}");
    assert_eq!(daemon.errors(id), []);
    for dest in daemon.dests(id) {
        assert_eq!(
            (dest.state.as_str(), dest.copied, dest.durable, dest.errors),
            ("done", bytes, bytes, 0),
            "{dest:?}"
        );
    }
    status
}

fn run(daemon: &Daemon, spec: &str, bytes: u64) -> Status {
    done(daemon, job(daemon, spec), bytes)
}

/// Disks whose block sizes alternate. The first eight are larger.
const DISKS: u64 = 64;
const LARGE: u64 = 8;

/// Where each of the jobs that run at once has its region on every disk, so that none meets another.
const TO_ALL: u64 = 8;
const ONE_EACH: u64 = 1056;
const TO_EIGHT: u64 = 2056;
const TO_THREE: u64 = 7120;
const TO_ONE: u64 = 7701;
const ZEROED: u64 = 7840;

/// A copy of `count` sectors: makes the job, and does it on the models.
fn copy(daemon: &Daemon, (from, sector): (&Disk, u64), count: u64, to: &mut [(&mut Disk, u64)]) -> (u64, u64) {
    let mut spec = format!("from={},{sector},{count}", from.path());
    let data = from.region(sector, count);
    for (disk, sector) in to {
        let _ = write!(spec, " to={},{sector}", disk.path());
        disk.expect(*sector, &data);
    }
    (job(daemon, &spec), count * 512)
}

/// On one set of disks, with the smallest pool and with the smallest and the largest sub-jobs: one job each to 1, 3, 8
/// and 64 destinations, a zeroing, and 64 jobs more, all at once.
fn on_64_disks(io: &str) {
    if !can_run() {
        return;
    }
    let mut fine = Disk::new(4 * MIB, 512, 1);
    let mut coarse = Disk::new(4 * MIB, 4096, 2);
    let size = |number| if number < LARGE { 4 * MIB } else { MIB };
    let block = |number| if number % 2 == 0 { 512 } else { 4096 };
    let mut disks: Vec<_> = (0..DISKS).map(|number| Disk::new(size(number), block(number), 100 + number)).collect();
    for (round, options) in (0..).zip(["pages=128", "pages=256,subjob_kb=4", "pages=256,subjob_kb=1024"]) {
        // else the second round would write what is already there
        fine.stamp(10 + round);
        coarse.stamp(20 + round);
        let mut daemon = start(&[io, options]);
        let backend = io.strip_prefix("io=").expect("io=");
        assert!(daemon.read("engine").unwrap().contains(&format!("backend {backend}\n")));

        let mut jobs = Vec::new();
        let mut all: Vec<_> = (0..).zip(&mut disks).map(|(number, disk)| (disk, TO_ALL + number % 5 * BLOCK)).collect();
        jobs.push(copy(&daemon, (&coarse, 800), 1000, &mut all));
        let mut eight: Vec<_> =
            (0..LARGE).zip(&mut disks).map(|(number, disk)| (disk, TO_EIGHT + number * BLOCK)).collect();
        jobs.push(copy(&daemon, (&fine, 1001), 5000, &mut eight));
        let coarse_ones = disks.iter_mut().skip(1).step_by(2);
        let mut three: Vec<_> =
            (0..3).zip(coarse_ones).map(|(number, disk)| (disk, TO_THREE + number * BLOCK)).collect();
        jobs.push(copy(&daemon, (&coarse, 16), 496, &mut three));
        jobs.push(copy(&daemon, (&fine, 7 + round), 137, &mut [(&mut disks[0], TO_ONE)]));
        for (number, disk) in (0..).zip(&mut disks) {
            jobs.push(copy(&daemon, (&fine, 33 + number), 200, &mut [(disk, ONE_EACH + number % 3 * BLOCK)]));
        }
        let mut zero = "zero".to_owned();
        for disk in &mut disks[..3] {
            let _ = write!(zero, " to={},{ZEROED},104", disk.path());
            disk.expect(ZEROED, &vec![0; 104 * 512]);
        }
        jobs.push((job(&daemon, &zero), 104 * 512));

        for (id, bytes) in jobs {
            done(&daemon, id, bytes);
        }
        daemon.stop();
        disks.iter().chain([&fine, &coarse]).for_each(Disk::check);
    }
}

#[test]
fn regions_in_the_middle_of_64_disks_with_io_uring() {
    on_64_disks("io=uring");
}

#[test]
fn regions_in_the_middle_of_64_disks_with_threads() {
    on_64_disks("io=threads");
}

#[test]
fn whole_disks_and_their_ends() {
    if !can_run() {
        return;
    }
    for io in ["io=uring", "io=threads"] {
        let daemon = start(&[io]);
        for (from_block, to_block) in [(512, 512), (512, 4096), (4096, 512), (4096, 4096)] {
            let from = Disk::new(3 * MIB, from_block, 1);
            // one of the same size, and one that is longer
            let (mut same, mut longer) = (Disk::new(3 * MIB, to_block, 2), Disk::new(4 * MIB, to_block, 3));
            run(&daemon, &format!("from={} to={} to={}", from.path(), same.path(), longer.path()), 3 * MIB);
            same.expect(0, &from.model);
            longer.expect(0, &from.model);
            [&from, &same, &longer].into_iter().for_each(Disk::check);

            // the last blocks alone, to the last blocks
            let rest = 5 * BLOCK;
            let (at, end) = (from.sectors() - rest, longer.sectors() - rest);
            run(&daemon, &format!("from={},{at} to={},{end}", from.path(), longer.path()), rest * 512);
            longer.expect(end, &from.region(at, rest));
            [&from, &same, &longer].into_iter().for_each(Disk::check);
        }
    }
}

#[test]
fn one_disk_to_another_place_of_itself() {
    if !can_run() {
        return;
    }
    let daemon = start(&[]);
    for block in [512, 4096] {
        let mut disk = Disk::new(3 * MIB, block, 1);
        run(&daemon, &format!("from={0},0,1M to={0},1M to={0},2M", disk.path()), MIB);
        let data = disk.region(0, 2048);
        disk.expect(2048, &data);
        disk.expect(4096, &data);
        disk.check();
    }
}

#[test]
fn partitions_by_their_first_sector() {
    if !can_run() {
        return;
    }
    let daemon = start(&[]);
    // where fdisk begins the first partition today, and where it did for CHS
    for (block, first) in [(512, 2048), (512, 63), (4096, 2048), (4096, 64)] {
        let (from, mut to) = (Disk::new(4 * MIB, block, 1), Disk::new(4 * MIB, block, 2));
        // a device that begins there, as the partition's node does
        let (from_part, to_part) = (from.device.alias(first * 512), to.device.alias(first * 512));
        let in_part = |device: &LoopDevice, sector: u64| format!("{},{sector}", device.path().display());

        // by the disk's sectors, into the partition's
        let spec = format!("from={},{first},1000 to={}", from.path(), in_part(&to_part, 0));
        run(&daemon, &spec, 1000 * 512);
        to.expect(first, &from.region(first, 1000));
        // by the partition's sectors, onto the disk's
        let spec = format!("from={},1000 to={},{}", in_part(&from_part, 3000), to.path(), first + 3000);
        run(&daemon, &spec, 1000 * 512);
        to.expect(first + 3000, &from.region(first + 3000, 1000));
        [&from, &to].into_iter().for_each(Disk::check);
    }
}

#[test]
fn sectors_and_units_say_the_same() {
    if !can_run() {
        return;
    }
    let daemon = start(&["pages=256"]);
    let (from, mut to) = (Disk::new(2 * MIB, 512, 1), Disk::new(2 * MIB, 4096, 2));
    let (a, b) = (from.path(), to.path());
    let canonical = format!("copy from={a},512,128 to={b},1024\n");
    for spec in [
        format!("from={a},512,128 to={b},1024"),
        format!("copy from={a},256K,64K to={b},512K,64K"),
        format!("  to={b},512K\t from='{a}',512,64K  "),
        format!(r#"to="{b}",1024 from={a}\,512,128"#).replace(r"\,", ","),
    ] {
        let id = job(&daemon, &spec);
        done(&daemon, id, 128 * 512);
        assert_eq!(daemon.read(format!("jobs/{id}/spec")).unwrap(), canonical, "{spec}");
    }
    // and what is told runs again
    let last =
        daemon.sh("sh", "cat $M/jobs/1/spec > $M/jobs/new && ls $M/jobs | grep -v new | sort -n | tail -n 1").ok();
    done(&daemon, last.trim().parse().unwrap(), 128 * 512);
    to.expect(1024, &from.region(512, 128));
    [&from, &to].into_iter().for_each(Disk::check);

    run(&daemon, &format!("zero to={b},1M,4K"), 4096);
    to.expect(2048, &[0; 4096]);
    to.check();
}

#[test]
fn a_count_given_with_any_region_is_the_length_of_the_job() {
    if !can_run() {
        return;
    }
    let daemon = start(&["pages=256"]);
    let (mut one, mut two, from) =
        (Disk::new(2 * MIB, 512, 1), Disk::new(2 * MIB, 4096, 2), Disk::new(2 * MIB, 512, 3));
    let (a, b, c) = (from.path(), one.path(), two.path());
    for (round, spec) in (0..).zip([
        format!("from={a} to={b},0,64K to={c}"),
        format!("from={a},1024 to={b},1024 to={c},1024,128"),
        format!("from={a},2048 to={b},2048,128 to={c},2048,64K queue"),
    ]) {
        let id = job(&daemon, &spec);
        done(&daemon, id, 64 << 10);
        for disk in [&mut one, &mut two] {
            disk.expect(round * 1024, &from.region(round * 1024, 128));
            disk.check();
        }
        // a comparison is as long as that too: what follows differs, and is not looked at
        let compare = spec.replacen("from=", "verify from=", 1).replace(" queue", "");
        let id = job(&daemon, &compare);
        done(&daemon, id, 64 << 10);
    }
    from.check();
}

#[test]
fn a_job_of_0_sectors_is_done_at_once_and_changes_nothing() {
    if !can_run() {
        return;
    }
    let daemon = start(&["pages=256"]);
    for block in [512, 4096] {
        let (from, to) = (Disk::new(MIB, block, 1), Disk::new(MIB, block, 2));
        let (a, b, end) = (from.path(), to.path(), from.sectors());
        for spec in [
            format!("from={a},0,0 to={b}"),
            format!("from={a},{end} to={b},{end}"),
            format!("zero to={b},8,0"),
            format!("from={a},0,0 to={b} ignore_error"),
            format!("from={a},0,0 to={b} write_seq"),
        ] {
            let status = run(&daemon, &spec, 0);
            assert_eq!(status.state(), "done", "{spec}");
        }
        [&from, &to].into_iter().for_each(Disk::check);
    }
}

/// An image in `dir`, stamped.
fn image(dir: &Path, name: &str, sectors: u64, seed: u64) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, stamp::stamped(seed, 0, index(sectors))).expect("write an image");
    path
}

/// Scratch directories of a file system with blocks, and of one in memory.
fn scratch_directories() -> [tempfile::TempDir; 2] {
    let memory = Path::new("/dev/shm");
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("kcopyfs-copies-");
        builder
    };
    let in_memory = if memory.is_dir() { builder().tempdir_in(memory) } else { builder().tempdir() };
    [builder().tempdir().expect("a scratch directory"), in_memory.expect("a scratch directory")]
}

#[test]
fn images_to_disks_and_back() {
    if !can_run() {
        return;
    }
    for io in ["io=uring", "io=threads"] {
        let daemon = start(&[io]);
        for dir in scratch_directories() {
            for block in [512, 4096] {
                let mut disk = Disk::new(4 * MIB, block, 1);
                let b = disk.path();
                // 3 sectors more than whole blocks, where the disk takes them
                let odd = if block == 512 { 3 } else { 0 };
                let sectors = 3000 + odd;
                let from = image(dir.path(), "from.img", sectors, 2);
                let stamped = fs::read(&from).unwrap();

                run(&daemon, &format!("from={} to={b},104", from.display()), sectors * 512);
                disk.expect(104, &stamped);
                disk.check();

                // back into an image that is there: its other bytes stay, and it grows
                let back = image(dir.path(), "back.img", 2000, 3);
                run(&daemon, &format!("from={b},104,{sectors} to={},1000", back.display()), sectors * 512);
                let mut expected = stamp::stamped(3, 0, 1000);
                expected.extend(&stamped);
                same("back.img", &fs::read(&back).unwrap(), &expected);
                assert_eq!(fs::read(&from).unwrap(), stamped);
                disk.check();
            }
        }
    }
}

#[test]
fn images_to_images_with_and_without_create() {
    if !need::fuse() {
        return;
    }
    let daemon = start(&["pages=256"]);
    for dir in scratch_directories() {
        let path = |name: &str| dir.path().join(name);
        let from = image(dir.path(), "from.img", 3001, 1);
        let stamped = fs::read(&from).unwrap();
        let there = image(dir.path(), "there.img", 4000, 2);
        // created: its first sectors were never written
        let spec = |to: &str| format!("from={} to={} to={to},77 create", from.display(), there.display());
        let made = path("made.img");
        run(&daemon, &spec(&made.display().to_string()), 3001 * 512);
        let mut expected = vec![0; 77 * 512];
        expected.extend(&stamped);
        same("made.img", &fs::read(&made).unwrap(), &expected);
        assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o7777, 0o600);
        let tail = stamp::stamped(2, 3001, 999);
        same("there.img", &fs::read(&there).unwrap(), &[stamped.clone(), tail].concat());

        // `create` leaves what is there: mode, and what lies outside
        fs::set_permissions(&made, fs::Permissions::from_mode(0o640)).unwrap();
        run(&daemon, &format!("from={},5,1 to={},5 create", from.display(), made.display()), 512);
        expected[5 * 512..6 * 512].copy_from_slice(&stamped[5 * 512..6 * 512]);
        same("made.img", &fs::read(&made).unwrap(), &expected);
        assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o7777, 0o640);

        run(
            &daemon,
            &format!("zero to={},1000,9 to={},1,9 create", there.display(), path("zeros.img").display()),
            9 * 512,
        );
        same("zeros.img", &fs::read(path("zeros.img")).unwrap(), &[0; 10 * 512]);
        let mut expected = [stamped.clone(), stamp::stamped(2, 3001, 999)].concat();
        expected[1000 * 512..1009 * 512].fill(0);
        same("there.img", &fs::read(&there).unwrap(), &expected);
        same("from.img", &fs::read(&from).unwrap(), &stamped);
    }
}

#[test]
fn names_that_need_a_quote() {
    if !need::fuse() {
        return;
    }
    let daemon = start(&["pages=256"]);
    let dir = tempfile::tempdir().unwrap();
    for name in
        ["a disk", "one,8,8", "it's", r#"a "quote""#, r"back\slash", "$HOME", "#hash", "gr\u{fc}n", "to=x", "~", "*"]
    {
        let from = image(dir.path(), name, 24, 5);
        let to = dir.path().join(format!("{name} (copy), 2"));
        // as sh would write it
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        let id = job(&daemon, &format!("from={},8 to={} create", quoted(&from), quoted(&to)));
        done(&daemon, id, 16 * 512);
        same(name, &fs::read(&to).unwrap(), &stamp::stamped(5, 8, 16));
        assert_eq!(fs::read_link(daemon.path(format!("jobs/{id}/source"))).unwrap(), from);
        assert_eq!(fs::read_link(daemon.path(format!("jobs/{id}/dest.0"))).unwrap(), to);
        fs::remove_file(&to).unwrap();
        // the canonical form says the same path
        let script = format!("cat $M/jobs/{id}/spec > $M/jobs/new");
        daemon.sh("dash", &script).ok();
        done(&daemon, id + 1, 16 * 512);
        same(name, &fs::read(&to).unwrap(), &stamp::stamped(5, 8, 16));
    }
}

#[test]
fn several_lines_are_several_jobs() {
    if !can_run() {
        return;
    }
    let daemon = start(&["pages=256"]);
    let from = Disk::new(MIB, 512, 1);
    let mut to: Vec<_> = (2..5).map(|seed| Disk::new(MIB, 512, seed)).collect();
    let lines: Vec<_> = to.iter().map(|disk| format!("from={},8,100 to={},16\n", from.path(), disk.path())).collect();
    let text = format!("# a comment, and a blank line\n\n{}", lines.concat());
    // the last line without its newline
    daemon.write("jobs/new", text.trim_end()).unwrap();
    for (id, disk) in (1..).zip(&mut to) {
        done(&daemon, id, 100 * 512);
        disk.expect(16, &from.region(8, 100));
        disk.check();
    }
    assert!(!daemon.path("jobs/4").exists());
}
