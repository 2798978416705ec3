//! Nothing is overwritten by mistake: what others hold, and what jobs read and write, is refused by whatever name. With
//! `queue` a job waits until it is free, with `after=` until another job is done.
//!
//! Needs FUSE and root.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, symlink},
    path::Path,
    process::Command,
};

use kcopyfs_support::{Daemon, Fault, FaultDisk, LoopDevice, Op, need, stamp};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kcopyfs");

/// Bytes of a disk: enough for a small file system in a partition, and another partition beside it.
const SIZE: u64 = 8 << 20;

/// The partitions of a disk: first sector and sectors.
const PARTS: [(u64, u64); 2] = [(2048, 4096), (8192, 4096)];

/// Sectors of a job here.
const COUNT: u64 = 64;

fn can_run() -> bool {
    let programs = [("mkfs.ext4", "e2fsprogs"), ("addpart", "util-linux-extra"), ("losetup", "mount")];
    need::loops() && need::fuse() && programs.iter().all(|(program, package)| need::program(program, package))
}

fn start(options: &[&str]) -> Daemon {
    let builder = Daemon::builder(PROGRAM).option("state=none").option("pages=256").option("subjob_kb=4");
    options.iter().fold(builder, |builder, option| builder.option(*option)).start()
}

fn run(words: &[&str]) -> String {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|error| panic!("{words:?}: {error}"));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

fn disk(seed: u64) -> LoopDevice {
    let disk = LoopDevice::new(SIZE, 512);
    disk.fill(seed);
    disk
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    kcopyfs_support::until(what, || is_so().then_some(()));
}

/// A scratch directory, and what was made beside it. Undone in reverse order.
struct Place {
    undo: Vec<Vec<String>>,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kcopyfs-claims-").tempdir().expect("a scratch directory");
        Self { undo: Vec::new(), dir }
    }

    fn path(&self, name: &str) -> String {
        text(&self.dir.path().join(name))
    }

    fn undo_by(&mut self, words: &[&str]) {
        self.undo.push(words.iter().map(|word| (*word).to_owned()).collect());
    }

    /// A file of a job's size.
    fn file(&self, name: &str, seed: u64) -> String {
        let path = self.path(name);
        fs::write(&path, stamped(seed, 0)).expect("a file");
        path
    }

    /// Makes a partition known to the kernel, without a table.
    fn partition(&mut self, disk: &LoopDevice, index: usize) -> String {
        let ((first, sectors), number) = (PARTS[index], (index + 1).to_string());
        let path = text(disk.path());
        run(&["addpart", &path, &number, &first.to_string(), &sectors.to_string()]);
        self.undo_by(&["delpart", &path, &number]);
        format!("{path}p{number}")
    }

    /// Mounts a new file system, which does not change by itself.
    fn mount(&mut self, device: &str, name: &str) {
        run(&["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=0,nodiscard", device]);
        let point = self.path(name);
        fs::create_dir(&point).expect("a mount point");
        run(&["mount", "-o", "noatime", device, &point]);
        self.undo_by(&["umount", &point]);
        run(&["sync", "-f", &point]);
    }

    fn link(&self, to: &str, name: &str) -> String {
        let path = self.path(name);
        symlink(to, &path).expect("a symbolic link");
        path
    }

    /// A second node of a device.
    fn node(&self, device: &str, name: &str) -> String {
        let (path, number) = (self.path(name), fs::metadata(device).expect("the device").rdev());
        run(&["mknod", &path, "b", &libc::major(number).to_string(), &libc::minor(number).to_string()]);
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for words in self.undo.drain(..).rev() {
            let status = Command::new(&words[0]).args(&words[1..]).status();
            if !status.is_ok_and(|status| status.success()) {
                eprintln!("left behind: {words:?} failed");
            }
        }
    }
}

/// What a job of `COUNT` sectors writes, as part of a disk that is stamped from its first sector on.
fn stamped(seed: u64, sector: u64) -> Vec<u8> {
    stamp::stamped(seed, sector, usize::try_from(COUNT).expect("small"))
}

/// Opens a device as mkfs and mdadm do.
fn exclusively(path: &str) -> File {
    OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(path).expect("hold a device")
}

fn refused(daemon: &Daemon, spec: &str, why: &str) {
    let refused = daemon.refused(spec);
    assert_eq!(refused.errno, libc::EBUSY, "{spec}: {}", refused.reason);
    assert!(refused.reason.contains(why), "{spec}: {} (not {why})", refused.reason);
}

fn cancel(daemon: &Daemon, id: u64) {
    daemon.control(id, "cancel").unwrap();
    assert_eq!(daemon.wait(id).state(), "cancelled");
}

/// It is no conflict: the job is made, and goes before it did anything.
fn taken(daemon: &Daemon, spec: &str) {
    let id = daemon.job(spec).unwrap_or_else(|error| panic!("{spec}: {error}: {}", daemon.read("error_log").unwrap()));
    cancel(daemon, id);
}

/// Swap on a device, where the system lets us.
fn swap_on(place: &mut Place, device: &str) -> bool {
    run(&["mkswap", "-q", device]);
    let output = Command::new("swapon").arg(device).output().expect("swapon");
    if !output.status.success() {
        return need::skip(&format!("no swap here: {}", String::from_utf8_lossy(&output.stderr)));
    }
    place.undo_by(&["swapoff", device]);
    true
}

#[test]
fn what_others_hold_is_refused_by_every_name_and_forced_at_will() {
    if !can_run() {
        return;
    }
    let source = disk(1);
    let (parted, whole, held, under, paged) = (disk(2), disk(3), disk(4), disk(5), disk(6));
    let mut place = Place::new();
    let path = |disk: &LoopDevice| text(disk.path());

    let [first, second] = [0, 1].map(|index| place.partition(&parted, index));
    place.mount(&first, "in a partition");
    let (parted_again, in_first) = (parted.alias(0), parted.alias(PARTS[0].0 * 512));
    let whole_part = place.partition(&whole, 0);
    place.mount(&path(&whole), "on a disk");
    let whole_again = whole.alias(0);
    let held_part = place.partition(&held, 0);
    let opener = exclusively(&held_part);
    let under_part = place.partition(&under, 0);
    let over = run(&["losetup", "--find", "--show", &path(&under)]);
    place.undo_by(&["losetup", "--detach", &over]);
    let paged_again = paged.alias(0);
    let has_swap = swap_on(&mut place, &path(&paged));

    let mounted = "is mounted at";
    let mut rows = vec![
        (first.clone(), mounted),
        (path(&parted), mounted),
        (place.link(&first, "link"), mounted),
        (place.node(&first, "node"), mounted),
        (place.node(&path(&parted), "node of the disk"), mounted),
        (path(&parted_again), mounted),
        (path(&in_first), mounted),
        (text(&parted.image()), "is in use"),
        (path(&whole), mounted),
        (whole_part, mounted),
        (path(&whole_again), mounted),
        (held_part.clone(), "opened exclusively"),
        (path(&held), "opened exclusively"),
        (path(&under), "is attached to it"),
        (under_part, "is attached to it"),
    ];
    let last = rows.len();
    if has_swap {
        rows.extend([(path(&paged), "is swap"), (path(&paged_again), "is swap")]);
    }
    let daemon = start(&[]);
    let from = path(&source);
    // of swap the first page alone stays as it is
    let contents = || {
        let disks = [&parted, &whole, &held, &under].map(|disk| fs::read(disk.image()).expect("the image"));
        (disks, paged.read(0..4096))
    };
    let before = contents();
    for (to, why) in &rows {
        refused(&daemon, &format!("from={from},0,{COUNT} to='{to}'"), why);
        // where nobody's data are, all the same
        refused(&daemon, &format!("zero to='{to}',3000,8"), why);
        refused(&daemon, &format!("from={from},0,{COUNT} to={from},64 to='{to}' create sparse"), why);
        assert!(contents() == before, "{to} has changed");
    }
    // what is beside it is free, and who only reads is in nobody's way
    taken(&daemon, &format!("from={from},0,{COUNT} to={second} paused"));
    taken(&daemon, &format!("verify from={from},0,{COUNT} to={first} paused"));
    taken(&daemon, &format!("from={first},0,{COUNT} to={from},64 paused"));
    for (to, _) in &rows {
        taken(&daemon, &format!("from={from},0,{COUNT} to='{to}' force=mounted paused"));
    }
    assert!(contents() == before, "nothing has run");

    for (index, (to, _)) in (1..).zip(&rows[..last]) {
        let bytes = match fs::metadata(to).expect("it is there") {
            meta if meta.is_file() => meta.len(),
            _ => run(&["blockdev", "--getsize64", to]).parse().expect("a size"),
        };
        // at the end, where no file system has anything yet
        let sector = bytes / 512 - index * COUNT;
        let id = daemon.job(&format!("from={from},0,{COUNT} to='{to}',{sector} force=mounted")).unwrap();
        assert_eq!(daemon.wait(id).state(), "done", "{to}");
        assert_eq!(daemon.wait(daemon.job(&verify(&from, to, sector)).unwrap()).state(), "done", "{to}");
    }
    // it does not lift what a job has
    daemon.job(&format!("from={from},0,{COUNT} to={},{} force=mounted paused", path(&held), PARTS[0].0)).unwrap();
    refused(&daemon, &format!("zero to={held_part},0,8 force=mounted"), "is being written by job");
    drop(opener);
}

fn verify(from: &str, to: &str, sector: u64) -> String {
    format!("verify from={from},0,{COUNT} to='{to}',{sector}")
}

/// A name of something, with the sector at which the bytes are that all its names share.
type Name = (String, u64);

/// Every pair of names, by a job that has the bytes and one that wants them. Nobody runs, so nothing changes.
fn collide(daemon: &Daemon, place: &Place, names: &[Name], read_only: &[Name]) {
    let (mine, yours) = (place.file("mine", 8), place.file("yours", 9));
    let write = |(name, sector): &Name| format!("zero to='{name}',{sector},{COUNT}");
    let read = |(name, sector): &Name, to: &str| format!("from='{name}',{sector},{COUNT} to={to}");
    let compare = |(name, sector): &Name| format!("verify from={},0,{COUNT} to='{name}',{sector}", place.path("yours"));
    let readable: Vec<_> = names.iter().chain(read_only).collect();
    for owner in names {
        let id = daemon.job(&format!("{} paused", write(owner))).unwrap();
        let why = format!("is being written by job {id}");
        for other in names {
            refused(daemon, &write(other), &why);
        }
        for other in &readable {
            refused(daemon, &read(other, &yours), &why);
            refused(daemon, &compare(other), &why);
        }
        cancel(daemon, id);
        for other in names {
            taken(daemon, &format!("{} paused", write(other)));
        }
    }
    for owner in &readable {
        let id = daemon.job(&format!("{} paused", read(owner, &mine))).unwrap();
        for other in names {
            refused(daemon, &write(other), &format!("is being read by job {id}"));
            let (name, sector) = other;
            // the last sector of it, and the first behind it
            refused(daemon, &format!("zero to='{name}',{},8", sector + COUNT - 1), "is being read by job");
            taken(daemon, &format!("zero to='{name}',{},8 paused", sector + COUNT));
        }
        for other in &readable {
            taken(daemon, &format!("{} paused", read(other, &yours)));
        }
        cancel(daemon, id);
    }
}

#[test]
fn a_disk_that_a_job_has_is_refused_by_every_name() {
    if !can_run() {
        return;
    }
    let disk = disk(1);
    let (again, behind) = (disk.alias(0), disk.alias(PARTS[0].0 * 512));
    let mut place = Place::new();
    let (path, first) = (text(disk.path()), PARTS[0].0);
    let part = place.partition(&disk, 0);
    let names = [
        (path.clone(), first),
        (place.link(&path, "link"), first),
        (place.node(&path, "node"), first),
        (text(again.path()), first),
        (text(behind.path()), 0),
    ];
    // a loop device is attached to it, so nobody writes it by this name
    let image = (text(&disk.image()), first);
    let daemon = start(&[]);
    collide(&daemon, &place, &names, &[image, (part.clone(), 0)]);

    // the kernel lets nobody hold a disk and its partition at once
    for (owner, other) in [((&path, first), (&part, 0)), ((&part, 0), (&path, first))] {
        let id = daemon.job(&format!("zero to={},{},{COUNT} paused", owner.0, owner.1)).unwrap();
        refused(
            &daemon,
            &format!("zero to={},{},{COUNT}", other.0, other.1),
            &format!("in use: job {id} writes to {}", owner.0),
        );
        refused(&daemon, &format!("from={},{},{COUNT} to={}", other.0, other.1, place.path("mine")), "written by job");
        cancel(&daemon, id);
    }
    assert_eq!(disk.check(1), Ok(()));
}

#[test]
fn a_disk_and_its_partition_in_one_job_are_refused_as_its_own() {
    if !can_run() {
        return;
    }
    let disk = disk(1);
    let mut place = Place::new();
    let (path, part) = (text(disk.path()), place.partition(&disk, 0));
    let daemon = start(&[]);
    for (first, second, what) in [(&part, &path, "is the disk of"), (&path, &part, "is a partition of")] {
        let refused = daemon.refused(&format!("zero to={first},0,{COUNT} to={second},1000,{COUNT}"));
        let why = format!("{second} {what} {first}, this job's destination 0");
        assert_eq!(refused.errno, libc::EINVAL, "{}", refused.reason);
        assert!(refused.reason.contains(&why), "{} (not {why})", refused.reason);
    }
    assert_eq!(disk.check(1), Ok(()));
}

#[test]
fn a_file_that_a_job_has_is_refused_by_every_name() {
    if !can_run() {
        return;
    }
    let mut place = Place::new();
    let file = place.path("file");
    let content = stamp::stamped(1, 0, 1024);
    fs::write(&file, &content).unwrap();
    let (hard, bound) = (place.path("hard link"), place.path("bound"));
    fs::hard_link(&file, &hard).unwrap();
    fs::write(&bound, "").unwrap();
    run(&["mount", "--bind", &file, &bound]);
    place.undo_by(&["umount", &bound]);
    let held = File::open(&file).unwrap();
    let open = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&held));
    let round = format!("{}/./../{}/file", text(place.dir.path()), place.dir.path().file_name().unwrap().display());
    let names = [file.clone(), place.link(&file, "link"), hard, bound, open, round].map(|name| (name, 128));
    let daemon = start(&[]);
    collide(&daemon, &place, &names, &[]);
    assert!(fs::read(&file).unwrap() == content);
}

#[test]
fn a_job_has_its_bytes_in_every_state_that_lives() {
    if !can_run() {
        return;
    }
    let (from, to, beside) = (disk(1), disk(2), disk(3));
    let again = to.alias(0);
    let path = |disk: &LoopDevice| text(disk.path());
    let daemon = start(&["active=1"]);
    let slow = format!("from={},0,{COUNT} to={} speed_max=1", path(&from), path(&to));
    let wanted = format!("zero to={},8,8", path(&again));
    // of one write the second is in the way of the first, and neither is made
    refused(&daemon, &format!("{slow}\n{wanted}"), "is being written by an earlier line of this write, by the name");

    let id = daemon.job(&slow).unwrap();
    until("running", || daemon.status(id).state() == "running");
    refused(&daemon, &wanted, &format!("is being written by job {id}, by the name {}", path(&to)));
    let waiting = format!("from={},0,{COUNT} to={}", path(&from), path(&beside));
    let queued = daemon.job(&waiting).unwrap();
    assert_eq!(daemon.status(queued).state(), "queued");
    let why = format!("is being written by job {queued}; add `queue` to wait for it");
    refused(&daemon, &format!("zero to={},8,8", path(&beside)), &why);
    refused(&daemon, &format!("zero to={},8,8", path(&from)), "is being read by job");
    daemon.control(id, "pause").unwrap();
    assert_eq!(daemon.status(id).state(), "paused");
    refused(&daemon, &wanted, &format!("is being written by job {id}"));
    cancel(&daemon, id);
    assert_eq!(daemon.wait(queued).state(), "done");
    // and no longer
    assert_eq!(daemon.wait(daemon.job(&wanted).unwrap()).state(), "done");
    assert_eq!(daemon.wait(daemon.job(&format!("zero to={},8,8", path(&beside))).unwrap()).state(), "done");
}

/// Makes a job that must wait, lets what is in its way go, and sees it run.
fn waits(daemon: &Daemon, spec: &str, why: &str, unchanged: impl Fn() -> bool, let_go: impl FnOnce()) -> u64 {
    let id = daemon.job(&format!("{spec} queue")).unwrap_or_else(|error| panic!("{spec}: {error}"));
    until(why, || {
        let status = daemon.status(id);
        assert_eq!(
            status.state(),
            "queued",
            "{spec}:
{status}"
        );
        status.error().is_some_and(|error| error.starts_with("waits: ") && error.contains(why))
    });
    assert!(unchanged(), "{spec} has begun");
    let_go();
    let status = daemon.wait(id);
    assert_eq!(
        (status.state(), status.error()),
        ("done", None),
        "{spec}:
{status}"
    );
    id
}

#[test]
fn who_queues_waits_until_it_is_free_and_says_for_what() {
    if !can_run() {
        return;
    }
    let (from, to, other) = (disk(1), disk(2), disk(3));
    let again = to.alias(0);
    let mut place = Place::new();
    let daemon = start(&[]);
    let path = |disk: &LoopDevice| text(disk.path());
    let is_old = || to.check(2).is_ok();
    let is_new = || to.read(0..COUNT * 512) == stamped(1, 0);
    let spec = format!("from={},0,{COUNT} to={}", path(&from), path(&to));

    let writer = daemon.job(&format!("zero to={},8,8 paused", path(&again))).unwrap();
    let why = format!("{} is being written by job {writer}, by the name {}", path(&to), path(&again));
    waits(&daemon, &spec, &why, is_old, || cancel(&daemon, writer));
    assert!(is_new());

    to.fill(2);
    let reader = daemon.job(&format!("from={},0,8 to={} paused", path(&again), path(&other))).unwrap();
    waits(&daemon, &spec, &format!("is being read by job {reader}"), is_old, || cancel(&daemon, reader));
    assert!(is_new());

    // what it reads is being written
    to.fill(2);
    let writer = daemon.job(&format!("zero to={},8,8 paused", path(&from))).unwrap();
    waits(&daemon, &spec, &format!("is being written by job {writer}"), is_old, || cancel(&daemon, writer));
    assert!(is_new());

    to.fill(2);
    let opener = exclusively(&path(&to));
    waits(&daemon, &spec, "opened exclusively", is_old, || drop(opener));
    assert!(is_new());

    place.mount(&path(&other), "mounted");
    let point = place.path("mounted");
    let before = fs::read(other.image()).unwrap();
    let is_old = || fs::read(other.image()).unwrap() == before;
    let spec = format!("from={},0,{COUNT} to={}", path(&from), path(&other));
    waits(&daemon, &spec, &format!("is mounted at {point}"), is_old, || {
        place.undo.pop();
        run(&["umount", &point]);
    });
    assert!(other.read(0..COUNT * 512) == stamped(1, 0));
}

#[test]
fn those_that_queue_run_one_after_the_other_or_are_cancelled() {
    if !can_run() {
        return;
    }
    let (first, second, to) = (disk(1), disk(2), disk(3));
    let daemon = start(&[]);
    let path = |disk: &LoopDevice| text(disk.path());
    let holder = daemon.job(&format!("zero to={},0,{COUNT} paused", path(&to))).unwrap();
    let queue =
        |from: &LoopDevice| daemon.job(&format!("from={},0,{COUNT} to={} queue", path(from), path(&to))).unwrap();
    let queued = [queue(&first), queue(&second), queue(&first)];
    cancel(&daemon, queued[2]);
    assert_eq!(to.check(3), Ok(()));
    cancel(&daemon, holder);
    for id in &queued[..2] {
        assert_eq!(daemon.wait(*id).state(), "done");
    }
    assert!(to.read(0..COUNT * 512) == stamped(2, 0), "the first came last");
    let events = daemon.read("events").unwrap();
    let place_of = |id: u64, change: &str| {
        let change = format!(" {id} {change}");
        events.lines().position(|line| line.contains(&change)).unwrap_or_else(|| {
            panic!(
                "no {change}:
{events}"
            )
        })
    };
    assert!(
        place_of(queued[0], "flushing done") < place_of(queued[1], "queued running"),
        "
{events}"
    );

    // not so long that nobody can stop it
    let opener = exclusively(&path(&to));
    let id = queue(&first);
    assert_eq!(daemon.status(id).state(), "queued");
    cancel(&daemon, id);
    drop(opener);
    assert!(to.read(0..COUNT * 512) == stamped(2, 0));
}

/// The text of `status` of a job that waits for another.
fn assert_follows(daemon: &Daemon, id: u64, after: u64) {
    let status = daemon.status(id);
    assert_eq!(
        (status.state(), status.error()),
        ("queued", Some(format!("waits for job {after}").as_str())),
        "{status}"
    );
}

#[test]
fn a_chain_runs_in_order() {
    if !need::fuse() {
        return;
    }
    // also where nobody remembers how the one before has ended
    for keep in ["keep=1000", "keep=0"] {
        let place = Place::new();
        let [a, b, c, d] = [("a", 1), ("b", 2), ("c", 3), ("d", 4)].map(|(name, seed)| place.file(name, seed));
        let daemon = start(&[keep]);
        let head = daemon.job(&format!("from={a} to={b} paused")).unwrap();
        let second = daemon.job(&format!("from={b} to={c} after={head}")).unwrap();
        let third = daemon.job(&format!("from={c} to={d} after={second}")).unwrap();
        assert_follows(&daemon, second, head);
        assert_follows(&daemon, third, second);
        assert!([&b, &c, &d].iter().zip(2..).all(|(file, seed)| fs::read(file).unwrap() == stamped(seed, 0)));
        daemon.control(head, "resume").unwrap();
        until("the end of the chain", || fs::read(&d).unwrap() == stamped(1, 0));
        if keep == "keep=1000" {
            assert_eq!([head, second, third].map(|id| daemon.wait(id).state().to_owned()), ["done", "done", "done"]);
            // one that is done already lets it start at once
            let late = daemon.job(&format!("from={a} to={c} after={head}")).unwrap();
            assert_eq!(daemon.wait(late).state(), "done");
            daemon.sh("sh", &format!("rmdir $M/jobs/{head}")).ok();
            let gone = daemon.refused(&format!("from={a} to={c} after={head}"));
            assert_eq!(gone.errno, libc::ENOENT, "{}", gone.reason);
        }
    }
}

#[test]
fn a_chain_that_breaks_is_cancelled_and_says_why() {
    if !need::fault_disk() {
        return;
    }
    let source = FaultDisk::builder(1 << 20).start();
    source.fill(1);
    source.rule(Op::Read, .., Fault::Err(libc::EIO));
    let place = Place::new();
    let [a, b, c, d] = [("a", 1), ("b", 2), ("c", 3), ("d", 4)].map(|(name, seed)| place.file(name, seed));
    let daemon = start(&[]);
    let good = format!("from={a} to={b} paused");
    let bad = format!("from={},0,{COUNT} to={b} paused", source.path().display());
    for (spec, verb, state) in [(&good, "cancel", "cancelled"), (&bad, "resume", "failed")] {
        let head = daemon.job(spec).unwrap();
        let second = daemon.job(&format!("from={a} to={c} after={head}")).unwrap();
        let third = daemon.job(&format!("from={a} to={d} after={second}")).unwrap();
        assert_follows(&daemon, third, second);
        daemon.control(head, verb).unwrap();
        assert_eq!(daemon.wait(head).state(), state);
        // one that comes too late too
        let late = daemon.job(&format!("from={a} to={c} after={head}")).unwrap();
        for (id, after, how) in [(second, head, state), (third, second, "cancelled"), (late, head, state)] {
            let status = daemon.wait(id);
            let how = if how == "cancelled" { "was cancelled" } else { how };
            let why = format!("not started: job {after}, which it was waiting for, {how}");
            assert_eq!((status.state(), status.error()), ("cancelled", Some(why.as_str())), "{status}");
            let told = format!(" {id} queued cancelled {why}");
            until(&told, || daemon.read("events").unwrap().lines().any(|line| line.ends_with(&told)));
        }
        assert!(fs::read(&c).unwrap() == stamped(3, 0) && fs::read(&d).unwrap() == stamped(4, 0), "it was started");
    }
}

#[test]
fn a_disk_whose_server_is_stopped_holds_up_nobody() {
    if !need::fault_disk() {
        return;
    }
    let sick = FaultDisk::builder(1 << 20).start();
    let place = Place::new();
    let [from, to, other] = [("from", 1), ("to", 2), ("other", 3)].map(|(name, seed)| place.file(name, seed));
    let path = sick.path().display().to_string();
    let mut daemon = Daemon::builder(PROGRAM).start();
    let stopped = sick.stop_answering();
    // nothing of it has to be asked: it is a block device that is attached
    let jobs = [
        format!("from={from},0,{COUNT} to={path} paused"),
        format!("from={path},64,{COUNT} to={other} paused"),
        format!("verify from={path},512,{COUNT} to={path},1024 paused"),
    ];
    let mut ids = jobs.each_ref().map(|spec| daemon.job(spec).unwrap()).to_vec();
    ids.push(daemon.job(&format!("from={from} to={to}")).unwrap());
    assert_eq!(daemon.wait(ids[3]).state(), "done");
    daemon.kill9();
    daemon.restart();
    for id in &ids[..3] {
        assert_eq!(daemon.status(*id).state(), "paused", "{}", daemon.status(*id));
    }
    let again = daemon.job(&format!("from={from} to={to}")).unwrap();
    assert_eq!(daemon.wait(again).state(), "done");
    refused(&daemon, &format!("zero to={path},0,8"), &format!("job {}", ids[0]));
    drop(stopped);
    for id in &ids[..3] {
        daemon.control(*id, "resume").unwrap();
    }
    assert_eq!(
        ids[..3].iter().map(|id| daemon.wait(*id).state().to_owned()).collect::<Vec<_>>(),
        ["done", "done", "done"]
    );
}
