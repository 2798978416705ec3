//! Specs that are refused: the errno of write(2), the reason on the same open file, its entry in `error_log` with the
//! caret under the word that is to blame, and the proof that no device, no file and no list of jobs has changed.
//!
//! Needs FUSE and root.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::{
        fs::{MetadataExt as _, OpenOptionsExt as _, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
};

use kcopyfs::spec::{Kind, words};
use kcopyfs_support::{Daemon, LoopDevice, need, stamp, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kcopyfs");

/// Bytes and sectors of each disk.
const SIZE: u64 = 256 << 10;
const SECTORS: u64 = SIZE / 512;

fn start(options: &[&str]) -> Daemon {
    let builder = Daemon::builder(PROGRAM).option("state=none").option("pages=256");
    options.iter().fold(builder, |builder, option| builder.option(*option)).start()
}

fn can_run() -> bool {
    need::loops() && need::fuse() && need::program("mkfs.ext4", "e2fsprogs")
}

fn command(line: &[&str]) {
    let output = Command::new(line[0]).args(&line[1..]).output().unwrap_or_else(|error| panic!("{line:?}: {error}"));
    assert!(output.status.success(), "{line:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A file system mounted for a test.
struct Mounted(PathBuf);

impl Mounted {
    fn new(line: &[&str], point: PathBuf) -> Self {
        fs::create_dir(&point).expect("a mount point");
        command(&[line, &[point.to_str().expect("UTF-8")]].concat());
        Self(point)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A file with another mounted on it.
struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A program that runs, so that nobody may write its file.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file that goes with the test.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Everything that a spec can name.
struct World {
    // what is used by others goes first
    _running: Running,
    _read_only_fs: Mounted,
    _mount: Mounted,
    _exclusive: fs::File,
    _socket: UnixListener,
    in_dev: Removed,
    /// Blocks of 512 bytes.
    from: LoopDevice,
    to: LoopDevice,
    /// Blocks of 4096 bytes.
    coarse: LoopDevice,
    read_only: LoopDevice,
    mounted: LoopDevice,
    held: LoopDevice,
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kcopyfs-refusals-").tempdir().expect("a scratch directory");
        let path = |name: &str| dir.path().join(name);
        let disk = |block, seed| {
            let disk = LoopDevice::new(SIZE, block);
            disk.fill(seed);
            disk
        };
        let (from, to, coarse, held) = (disk(512, 1), disk(512, 2), disk(4096, 3), disk(512, 4));

        // without a journal and lazy work, so that it does not change by itself
        let mounted = LoopDevice::new(2 << 20, 512);
        let options = "lazy_itable_init=0,nodiscard";
        let device = mounted.path().to_str().expect("UTF-8").to_owned();
        command(&["mkfs.ext4", "-q", "-O", "^has_journal", "-E", options, &device]);
        let mount = Mounted::new(&["mount", "-o", "noatime", &device], path("mounted"));
        fs::write(mount.0.join("file"), "held by a file system").expect("write to the file system");
        command(&["sync", "-f", mount.0.to_str().expect("UTF-8")]);
        let read_only_fs = Mounted::new(&["mount", "-t", "tmpfs", "-o", "ro,size=64k", "none"], path("read-only"));

        fs::write(path("image"), stamp::stamped(5, 0, 64)).expect("an image");
        fs::write(path("odd"), [7; 1000]).expect("an image");
        fs::hard_link(path("image"), path("same image")).expect("a hard link");
        symlink(from.path(), path("link")).expect("a symbolic link");
        symlink(path("nothing"), path("dangling")).expect("a symbolic link");
        symlink(path("circle"), path("circle")).expect("a symbolic link");
        fs::create_dir(path("directory")).expect("a directory");
        command(&["mkfifo", path("fifo").to_str().expect("UTF-8")]);
        let device = fs::metadata(from.path()).expect("the disk's node").rdev();
        let (major, minor) = (libc::major(device).to_string(), libc::minor(device).to_string());
        command(&["mknod", path("node").to_str().expect("UTF-8"), "b", &major, &minor]);
        let socket = UnixListener::bind(path("socket")).expect("a socket");
        let in_dev =
            Removed(PathBuf::from(format!("/dev/kcopyfs-test-{}", from.path().file_name().expect("a name").display())));
        fs::write(&in_dev.0, stamp::stamped(6, 0, 64)).expect("a file among the devices");

        // By another process: a fork of ours in another thread would keep it open for writing, and too busy to run.
        command(&["cp", "/bin/sleep", path("running").to_str().expect("UTF-8")]);
        let running = Running(Command::new(path("running")).arg("1000").spawn().expect("run it"));
        let exclusive =
            OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(held.path()).expect("hold a disk");
        Self {
            _running: running,
            _read_only_fs: read_only_fs,
            _mount: mount,
            _exclusive: exclusive,
            _socket: socket,
            in_dev,
            from,
            to,
            coarse,
            read_only: LoopDevice::read_only(SIZE, 512, 7),
            mounted,
            held,
            dir,
        }
    }

    /// Puts paths in place of the names in braces.
    fn fill_in(&self, text: &str) -> String {
        let mut text = text.to_owned();
        let disks = [
            ("{from}", &self.from),
            ("{to}", &self.to),
            ("{coarse}", &self.coarse),
            ("{read_only}", &self.read_only),
            ("{mounted}", &self.mounted),
            ("{held}", &self.held),
        ];
        for (name, disk) in disks {
            text = text.replace(name, disk.path().to_str().expect("UTF-8"));
        }
        let in_dev = self.in_dev.0.to_str().expect("UTF-8");
        text.replace("{dir}", self.dir.path().to_str().expect("UTF-8")).replace("{in_dev}", in_dev)
    }

    /// All bytes of all disks and files, the names of everything else, and the jobs.
    fn snapshot(&self, daemon: &Daemon) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        for disk in [&self.from, &self.to, &self.coarse, &self.read_only, &self.mounted, &self.held] {
            all.insert(disk.path().to_owned(), disk.read(0..disk.size()));
        }
        add_files(self.dir.path(), &mut all);
        all.insert(self.in_dev.0.clone(), fs::read(&self.in_dev.0).expect("the file among the devices"));
        for entry in fs::read_dir(daemon.path("jobs")).expect("jobs") {
            all.insert(entry.expect("a job").path(), Vec::new());
        }
        all.insert(daemon.path("events"), daemon.read("events").expect("events").into_bytes());
        all
    }
}

fn add_files(dir: &Path, all: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let entry = entry.expect("an entry");
        let (path, kind) = (entry.path(), entry.file_type().expect("its type"));
        if kind.is_dir() {
            add_files(&path, all);
        }
        let bytes = if kind.is_file() { fs::read(&path).expect("a file") } else { Vec::new() };
        all.insert(path, bytes);
    }
}

/// Says what differs, without its megabytes.
fn assert_unchanged(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>, spec: &str) {
    let names = |all: &BTreeMap<PathBuf, Vec<u8>>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(after), "{spec}");
    for (path, bytes) in before {
        assert!(after[path] == *bytes, "{} has changed after {spec}", path.display());
    }
}

/// An entry of `error_log`.
#[derive(Debug)]
struct Entry {
    pid: String,
    uid: String,
    file: String,
    errno: String,
    why: String,
    /// The text as shown.
    line: String,
    /// What of it has carets beneath.
    marked: String,
}

impl Entry {
    fn parse_all(text: &str) -> Vec<Self> {
        let lines: Vec<_> = text.lines().collect();
        lines.chunks(3).map(|entry| Self::parse(entry).unwrap_or_else(|| panic!("not an entry: {entry:#?}"))).collect()
    }

    fn parse(entry: &[&str]) -> Option<Self> {
        let [head, line, carets] = entry else { return None };
        let (line, carets) = (line.strip_prefix("  ")?, carets.strip_prefix("  ")?);
        let mut words = head.splitn(6, ' ');
        let time = words.next()?;
        let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
        let (pid, uid, file, errno) = (value("pid")?, value("uid")?, value("file")?, value("errno")?);
        let first = carets.find('^')?;
        if time.len() != "2000-01-01T00:00:00Z".len() || !carets[first..].bytes().all(|byte| byte == b'^') {
            return None;
        }
        Some(Self {
            pid,
            uid,
            file,
            errno,
            why: words.next()?.to_owned(),
            line: line.to_owned(),
            marked: line.chars().skip(first).take(carets.len() - first).collect(),
        })
    }
}

fn error_log(daemon: &Daemon) -> Vec<Entry> {
    Entry::parse_all(&daemon.read("error_log").expect("error_log"))
}

fn number(errno: &str) -> i32 {
    match errno {
        "EINVAL" => libc::EINVAL,
        "ENOENT" => libc::ENOENT,
        "ENOTBLK" => libc::ENOTBLK,
        "ENOSPC" => libc::ENOSPC,
        "EBUSY" => libc::EBUSY,
        "EEXIST" => libc::EEXIST,
        "EROFS" => libc::EROFS,
        "EACCES" => libc::EACCES,
        "E2BIG" => libc::E2BIG,
        "ELOOP" => libc::ELOOP,
        "ENOTDIR" => libc::ENOTDIR,
        "ENAMETOOLONG" => libc::ENAMETOOLONG,
        _ => panic!("no number for {errno}"),
    }
}

/// Stands for the end of the line, where something is missing.
const END: &str = "";
/// Where no word of the line is to blame.
const ANY: &str = "*";

/// A spec with names in braces, its errno, a piece of the reason, and what the carets stand under.
type Row = (&'static str, &'static str, &'static str, &'static str);

const SYNTAX: &[Row] = &[
    ("frm={from} to={to}", "EINVAL", "unknown word `frm`; did you mean `from", "frm"),
    ("from={from} too={to}", "EINVAL", "did you mean `to", "too"),
    ("from={from} to={to} fsync", "EINVAL", "unknown word `fsync`", "fsync"),
    ("copy", "EINVAL", "no source", END),
    ("to={to}", "EINVAL", "no source", END),
    ("from={from}", "EINVAL", "no destination", END),
    ("from={from} to={to} to", "EINVAL", "`to` needs a value", "to"),
    ("from={from} to=", "EINVAL", "a path is missing", END),
    ("from={from} to={to} name", "EINVAL", "`name` needs a value", "name"),
    ("from={from} to=,8", "EINVAL", "a path is missing", ","),
    ("from={from} to=disk", "EINVAL", "`disk` is relative", "disk"),
    ("from=../{from} to={to}", "EINVAL", "is relative", "../{from}"),
    ("{from} {to}", "EINVAL", "needs from= or to=", "{from}"),
    ("from={from},x to={to}", "EINVAL", "`x` as SECTOR", "x"),
    ("from={from},-1 to={to}", "EINVAL", "`-1` as SECTOR: not a number", "-1"),
    ("from={from},0x10 to={to}", "EINVAL", "`0x10` as SECTOR", "0x10"),
    ("from={from},0,1k to={to}", "EINVAL", "unknown unit", "1k"),
    ("from={from},0,1.5K to={to}", "EINVAL", "unknown unit", "1.5K"),
    ("from={from},0, to={to}", "EINVAL", "a number is missing", " "),
    ("from={from},0,8,9 to={to}", "EINVAL", "more than PATH,SECTOR,COUNT", "9"),
    ("from={from},99999999999999999999 to={to}", "EINVAL", "too large", "99999999999999999999"),
    (
        "from={from},0,8 to={to},0,16",
        "EINVAL",
        "COUNT 16 differs from the earlier 8; all regions of a job must be equally long",
        "{to},0,16",
    ),
    ("from={from} from={from} to={to}", "EINVAL", "`from` is given twice", "from"),
    ("from={from} to={to} paused paused", "EINVAL", "`paused` is given twice", "paused"),
    ("from={from} to={to} paused=1", "EINVAL", "`paused` takes no value", "1"),
    ("from={from} copy to={to}", "EINVAL", "write it first", "copy"),
    ("copy zero to={to},0,8", "EINVAL", "only one such word", "zero"),
    ("zero from={from} to={to},0,8", "EINVAL", "`zero` reads nothing", "{from}"),
    ("zero to={to}", "EINVAL", "needs SECTOR and COUNT", "{to}"),
    ("zero to={to},8", "EINVAL", "needs SECTOR and COUNT", "{to},8"),
    ("from={from} to='{to}", "EINVAL", "quote", ANY),
    ("from={from} to=\"{to}", "EINVAL", "quote", ANY),
    ("from={from} to={to}\\", "EINVAL", "backslash", "\\"),
    ("from={from} to={to} name=", "EINVAL", "a name is missing", END),
    ("from={from} to={to} name=a/b", "EINVAL", "`a/b` has other characters than ASCII letters", "a/b"),
    ("from={from} to={to} name=..", "EINVAL", "cannot be a file's name", ".."),
    ("from={from} to={to} client=a:b", "EINVAL", "`a:b` has other characters than", "a:b"),
    ("from={from} to={to} speed_max=0", "EINVAL", "never ends", "0"),
    ("from={from} to={to} speed_max=fast", "EINVAL", "write bytes per second", "fast"),
    ("from={from} to={to} on_read_error=maybe", "EINVAL", "stop, zero, skip", "maybe"),
    ("from={from} to={to} on_write_error=skip", "EINVAL", "drop, stop", "skip"),
    ("from={from} to={to} on_read_error=Skip", "EINVAL", "stop, zero, skip", "Skip"),
    ("from={from} to={to} on_write_error=", "EINVAL", "drop, stop", END),
    ("from={from} to={to} retries", "EINVAL", "`retries` needs a value; write retries=N", "retries"),
    ("from={from} to={to} retries=-1", "EINVAL", "not a number", "-1"),
    ("from={from} to={to} retries=x", "EINVAL", "not a number", "x"),
    ("from={from} to={to} retries=4294967296", "EINVAL", "too large; at most 4294967295", "4294967296"),
    ("from={from} to={to} client=", "EINVAL", "a name is missing", END),
    ("from={from} to={to} client=.. ", "EINVAL", "cannot be a file's name", ".."),
    ("from={from} to={to} after=0", "EINVAL", "no job 0", "0"),
    ("from={from} to={to} after=a/b", "EINVAL", "name a job by its ID", "a/b"),
    ("from={from} to={to} once", "EINVAL", "add name=LABEL", "once"),
    ("from={from} to={to} map=disk.map", "EINVAL", "`disk.map` is relative", "disk.map"),
    ("from={from} to={to} map=", "EINVAL", "a path is missing", END),
    ("from={from} to={to} map=/m after=1", "EINVAL", "drop after=", "map=/m"),
    ("zero to={to},0,8 map=/m", "EINVAL", "`map` is for a copy", "map=/m"),
    ("verify from={from} to={to} changed", "EINVAL", "`changed` is for a copy", "changed"),
    ("test from={from} to={to}", "EINVAL", "`test` makes up what it writes", "{from}"),
    ("test to={to} verify", "EINVAL", "drop verify", "verify"),
    ("test to={to} on_read_error=zero", "EINVAL", "`test` has no source", "on_read_error=zero"),
    ("from={from} to={to} after=1 after=2", "EINVAL", "`after` is given twice", "after"),
    ("from={from} to={to} digest", "EINVAL", "`digest` needs a value", "digest"),
    ("from={from} to={to} digest=md5", "EINVAL", "sha256, blake3", "md5"),
    ("from={from} to={to} digest=sha256,md5", "EINVAL", "`md5` is not one of: sha256, blake3", "sha256,md5"),
    ("from={from} to={to} digest=sha256,sha256", "EINVAL", "`sha256` is given twice", "sha256,sha256"),
    ("from={from} to={to} digest=sha256:00ff", "EINVAL", "has 4 digits; a sum has 64", "sha256:00ff"),
    ("verify from={from}", "EINVAL", "nothing to compare with; add to=PATH, or a sum: digest=sha256:HEX", END),
    ("verify from={from} digest=sha256", "EINVAL", "nothing to compare with; add to=PATH, or a sum", END),
    ("from={from} digest=sha256", "EINVAL", "no destination; add to=PATH", END),
    ("zero to={to},0,8 digest=sha256", "EINVAL", "there is no digest", ANY),
    ("from={from} to={to} sparse=yes", "EINVAL", "`sparse` takes no value", "yes"),
    ("from={from} to={to} queue=1", "EINVAL", "`queue` takes no value", "1"),
    ("from={from} to={to} verify=sha256", "EINVAL", "`verify` takes no value", "sha256"),
    ("from={from} to={to} verify verify", "EINVAL", "`verify` is given twice", "verify"),
    ("verify to={to}", "EINVAL", "no source", END),
    ("verify from={from},0,8 to={to},0,16", "EINVAL", "COUNT 16 differs from the earlier 8", "{to},0,16"),
    ("from={from} to={to},0,8 to={coarse},0,16", "EINVAL", "COUNT 16 differs from the earlier 8", "{coarse},0,16"),
    ("verify zero to={to},0,8", "EINVAL", "only one such word", "zero"),
    ("from={from} to={to} force", "EINVAL", "`force` needs a value; write force=mounted", "force"),
    ("from={from} to={to} force=yes", "EINVAL", "mounted", "yes"),
    ("from={from} to={to} force=mounted,held", "EINVAL", "mounted", "mounted,held"),
    ("from={from},0,8 to={to},18014398509481983", "ENOSPC", "beyond the end of any device", "{to},18014398509481983"),
];

const DEVICES: &[Row] = &[
    ("from={dir}/nothing to={to}", "ENOENT", "{dir}/nothing", "{dir}/nothing"),
    ("from={from} to={dir}/nothing", "ENOENT", "{dir}/nothing", "{dir}/nothing"),
    ("from={from} to=/dev/nothing,8", "ENOENT", "/dev/nothing", "/dev/nothing,8"),
    ("from={from} to={dir}/nowhere/image create", "ENOENT", "{dir}/nowhere/image", "{dir}/nowhere/image"),
    ("from={from} to={dir}/dangling", "ENOENT", "{dir}/dangling", "{dir}/dangling"),
    ("from={from} to={dir}/dangling create", "ENOENT", "{dir}/dangling", "{dir}/dangling"),
    ("from={from} to={dir}/circle", "ELOOP", "{dir}/circle", "{dir}/circle"),
    ("from={dir}/image/0 to={to}", "ENOTDIR", "{dir}/image/0", "{dir}/image/0"),
    ("from={dir}/directory to={to}", "ENOTBLK", "neither a block device nor a regular file", "{dir}/directory"),
    ("from={from} to={dir}/directory", "ENOTBLK", "neither a block device", "{dir}/directory"),
    ("from={from} to={dir}/directory create", "ENOTBLK", "neither a block device", "{dir}/directory"),
    ("from={dir}/fifo to={to}", "ENOTBLK", "neither a block device", "{dir}/fifo"),
    ("from={from} to={dir}/fifo", "ENOTBLK", "neither a block device", "{dir}/fifo"),
    ("from={from} to={dir}/socket", "ENOTBLK", "neither a block device", "{dir}/socket"),
    ("from={from} to=/dev/null", "ENOTBLK", "/dev/null is neither", "/dev/null"),
    ("from=/dev/zero,0,8 to={to}", "ENOTBLK", "/dev/zero is neither", "/dev/zero,0,8"),
    ("from={from} to=/dev/full", "ENOTBLK", "/dev/full is neither", "/dev/full"),
    ("zero to=/dev/full,0,8", "ENOTBLK", "/dev/full is neither", "/dev/full,0,8"),
    ("from={from} to={in_dev}", "ENOTBLK", "is the name mistyped?", "{in_dev}"),
    ("from={in_dev} to={to}", "ENOTBLK", "is the name mistyped?", "{in_dev}"),
    ("from={from} to={in_dev}x create", "ENOTBLK", "is the name mistyped?", "{in_dev}x"),
    ("from={from} to={read_only}", "EROFS", "is read-only", "{read_only}"),
    ("zero to={read_only},8,8", "EROFS", "is read-only", "{read_only},8,8"),
    ("from={from} to={dir}/read-only/image create", "EROFS", "{dir}/read-only/image", "{dir}/read-only/image"),
    ("from={from} to={mounted}", "EBUSY", "mounted", "{mounted}"),
    ("zero to={mounted},4000,8", "EBUSY", "mounted", "{mounted},4000,8"),
    ("from={from} to={held}", "EBUSY", "opened exclusively", "{held}"),
    ("from={from},0,8 to={dir}/running", "EBUSY", "a program that runs", "{dir}/running"),
    ("from={from} to={to},1", "ENOSPC", "beyond its end, it has 512 sectors", "{to},1"),
    ("from={from},0,8 to={to},505", "ENOSPC", "8 sectors from 505", "{to},505"),
    ("from={from},0,8 to={to},513", "ENOSPC", "beyond its end", "{to},513"),
    ("from={from},505,8 to={to}", "ENOSPC", "beyond its end", "{from},505,8"),
    ("from={from},513 to={to}", "ENOSPC", "sector 513 is beyond its end", "{from},513"),
    ("from={from},0,1T to={to}", "ENOSPC", "beyond its end", "{from},0,1T"),
    ("from={dir}/image,60,8 to={to}", "ENOSPC", "beyond its end, it has 64 sectors", "{dir}/image,60,8"),
    ("zero to={to},0,513", "ENOSPC", "beyond its end", "{to},0,513"),
    ("from={coarse},1,8 to={to}", "EINVAL", "SECTOR 1 is not a multiple", "{coarse},1,8"),
    ("from={coarse},8,9 to={to}", "EINVAL", "COUNT 9 is not a multiple", "{coarse},8,9"),
    ("from={from},0,8 to={coarse},4", "EINVAL", "SECTOR 4 is not a multiple", "{coarse},4"),
    ("from={from},0,7 to={coarse},8", "EINVAL", "COUNT 7 is not a multiple", "{coarse},8"),
    ("zero to={coarse},8,4", "EINVAL", "COUNT 4 is not a multiple", "{coarse},8,4"),
    ("from={dir}/odd to={to}", "EINVAL", "its last 488 bytes are no whole sector", "{dir}/odd"),
    ("from={from} to={from}", "EINVAL", "overlaps the source", "{from}"),
    ("from={from},0,8 to={from},7", "EINVAL", "overlaps the source", "{from},7"),
    ("from={from},8,8 to={from},1", "EINVAL", "overlaps the source", "{from},1"),
    ("from={from},0,8 to={dir}/link,4", "EINVAL", "overlaps the source", "{dir}/link,4"),
    ("from={dir}/node,0,8 to={from},4", "EINVAL", "overlaps the source", "{from},4"),
    ("from={dir}/image to={dir}/image", "EINVAL", "overlaps the source", "{dir}/image"),
    ("from={dir}/image,0,8 to='{dir}/same image',7", "EINVAL", "overlaps the source", "'{dir}/same image',7"),
    ("from={from} to={to} to={to}", "EINVAL", "overlaps destination 0", "{to}"),
    ("from={from},0,8 to={to},8 to={coarse} to={to},15", "EINVAL", "overlaps destination 0", "{to},15"),
    ("verify from={from} to={from}", "EINVAL", "overlaps the source", "{from}"),
    ("verify from={from},0,8 to={dir}/link,4", "EINVAL", "overlaps the source", "{dir}/link,4"),
    ("verify from={from},0,8 to={to},8 to={to},15", "EINVAL", "overlaps destination 0", "{to},15"),
    ("zero to={to},0,8 to={to},0,8", "EINVAL", "overlaps destination 0", "{to},0,8"),
    ("from={from} to={to} client=nobody", "ENOENT", "no client `nobody`: mkdir clients/nobody", "client=nobody"),
    ("from={from} to={to} after=1", "ENOENT", "no job 1 to start after", "after=1"),
    ("from={from} to={to} after=nightly", "ENOENT", "no job named nightly to start after", "after=nightly"),
    ("from={from} to={to} after=18446744073709551615 queue", "ENOENT", "no job", "after=18446744073709551615"),
    // `queue` waits for busy destinations, and for nothing else
    ("from={from} to={dir}/nothing queue", "ENOENT", "{dir}/nothing", "{dir}/nothing"),
    ("from={from} to={to},1 queue", "ENOSPC", "beyond its end", "{to},1"),
    ("from={from} to={read_only} queue", "EROFS", "is read-only", "{read_only}"),
    ("from={from} to={dir}/link queue", "EINVAL", "overlaps the source", "{dir}/link"),
    ("from={dir}/nothing to={mounted} queue", "ENOENT", "{dir}/nothing", "{dir}/nothing"),
    // `force=mounted` lifts what it says, and nothing else
    ("from={from} to={read_only} force=mounted", "EROFS", "is read-only", "{read_only}"),
    ("from={from} to={to},1 force=mounted", "ENOSPC", "beyond its end", "{to},1"),
    ("zero to={mounted},4000,128 force=mounted", "ENOSPC", "beyond its end", "{mounted},4000,128"),
    ("from={from},0,8 to={coarse},4 force=mounted", "EINVAL", "SECTOR 4 is not a multiple", "{coarse},4"),
    ("from={from},0,8 to={dir}/link,4 force=mounted", "EINVAL", "overlaps the source", "{dir}/link,4"),
    ("zero to={held},0,8 to={held},7,8 force=mounted", "EINVAL", "overlaps destination 0", "{held},7,8"),
    ("from={from} to={dir}/fifo force=mounted", "ENOTBLK", "neither a block device", "{dir}/fifo"),
    ("from={from} to={in_dev} force=mounted", "ENOTBLK", "is the name mistyped?", "{in_dev}"),
    ("from={from} to=/dev/nothing force=mounted", "ENOENT", "/dev/nothing", "/dev/nothing"),
    ("from={from},0,8 to={dir}/running force=mounted", "EBUSY", "a program that runs", "{dir}/running"),
    // nothing that `create` made stays behind
    ("from={from} to={dir}/new to={dir}/nothing/new create", "ENOENT", "{dir}/nothing/new", "{dir}/nothing/new"),
    ("from={from} to={dir}/new to={dir}/new create", "EINVAL", "overlaps destination 0", "{dir}/new"),
    ("from={from} to={dir}/new to={mounted} create", "EBUSY", "mounted", "{mounted}"),
    ("from={from} to={dir}/new to={to},8 create", "ENOSPC", "beyond its end", "{to},8"),
];

/// Good lines and bad ones in one write: the bad one is told, and none becomes a job.
const MIXED: &[Row] = &[
    ("from={from} to={to}\nfrom={from} to={to} fsync", "EINVAL", "unknown word", "fsync"),
    ("frm={from}\nfrom={from} to={to}", "EINVAL", "unknown word", "frm"),
    ("from={from} to={to}\n# to be sure\n\nfrom={from} to={dir}/nothing", "ENOENT", "nothing", "{dir}/nothing"),
    (
        "from={from} to={dir}/a create\nfrom={from} to={dir}/b create\nzero to=/dev/null,0,8",
        "ENOTBLK",
        "null",
        "/dev/null,0,8",
    ),
    ("zero to={to},0,8\nzero to={to},8,8\nzero to={to},512,8", "ENOSPC", "beyond its end", "{to},512,8"),
    ("zero to={to},0,8 name=x\nzero to={to},8,8 name=x once", "EEXIST", "an earlier line of this write", "once"),
    ("zero to={to},0,8\nzero to={mounted},8,8\nzero to={to},16,8", "EBUSY", "mounted", "{mounted},8,8"),
];

/// Writes the specs, each of which must be refused, and looks at all that follows.
fn refuse(world: &World, daemon: &Daemon, rows: &[Row]) {
    let before = world.snapshot(daemon);
    for (spec, errno, why, marked) in rows {
        let (spec, why, marked) = (world.fill_in(spec), world.fill_in(why), world.fill_in(marked));
        refuse_one(daemon, &spec, errno, &why, &marked);
        assert_unchanged(&before, &world.snapshot(daemon), &spec);
    }
}

fn refuse_one(daemon: &Daemon, spec: &str, errno: &str, why: &str, marked: &str) {
    let checked = daemon.refused_by("check", spec);
    let checked_entry = error_log(daemon).pop().expect("an entry");
    let refused = daemon.refused(spec);
    // Where the kernel cuts a write that is too long depends on the writer's memory.
    let is_cut = spec.len() > 1 << 20;
    let plain =
        |text: &str| if is_cut { text.replace(|letter: char| letter.is_ascii_digit(), "") } else { text.to_owned() };
    let said = [&checked, &refused].map(|refused| (refused.errno, plain(&refused.reason)));
    assert_eq!(said[0], said[1], "check says the same");
    assert_eq!(refused.errno, number(errno), "{spec}: {}", refused.reason);
    assert!(refused.reason.contains(why), "{spec}: {} (not {why})", refused.reason);
    let log = error_log(daemon);
    let entry = log.last().expect("an entry");
    let is_ours = entry.pid == std::process::id().to_string();
    assert!(is_ours && entry.uid == "0" && entry.file == "jobs/new", "{spec}: {entry:?}");
    assert_eq!((entry.errno.as_str(), &entry.why), (errno, &refused.reason), "{spec}");
    assert_eq!(checked_entry.file, "check", "{spec}");
    let shown = |entry: &Entry| (entry.errno.clone(), plain(&entry.why), entry.line.clone(), entry.marked.clone());
    assert_eq!(shown(&checked_entry), shown(entry), "check logs the same");
    if marked == END {
        assert!(entry.marked.is_empty(), "{spec}: {entry:?}");
    } else if marked != ANY {
        assert_eq!(entry.marked, marked, "{spec}: {entry:?}");
    }
}

#[test]
fn what_is_not_in_the_language_changes_nothing() {
    if can_run() {
        refuse(&World::new(), &start(&[]), SYNTAX);
    }
}

#[test]
fn what_no_device_can_do_changes_nothing() {
    if can_run() {
        assert_eq!(SECTORS, 512, "the rows count on it");
        for io in ["io=uring", "io=threads"] {
            refuse(&World::new(), &start(&[io]), DEVICES);
        }
    }
}

/// A kcopyfs is driven by its files: a disk's content must never become specs or verbs, nor a status a disk's.
#[test]
fn files_of_a_control_tree_are_no_disks() {
    if !can_run() {
        return;
    }
    let (world, daemon, other) = (World::new(), start(&["throttle=70"]), start(&["throttle=60"]));
    assert_eq!(daemon.job(&world.fill_in("from={from} to={to} paused")).unwrap(), 1);
    symlink(daemon.path("throttle"), world.dir.path().join("to throttle")).expect("a symbolic link");
    let bound = world.dir.path().join("bound");
    fs::write(&bound, "").expect("a file to mount on");
    command(&["mount", "--bind", other.path("throttle").to_str().unwrap(), bound.to_str().unwrap()]);
    let _bound = Bound(bound);
    let before = world.snapshot(&daemon);
    let (ours, others) = (daemon.mount().display().to_string(), other.mount().display().to_string());
    for (spec, marked) in [
        ("from={from} to={ours}/throttle", "{ours}/throttle"),
        ("from={from} to={ours}/jobs/new", "{ours}/jobs/new"),
        ("from={from} to={ours}/speed_max force=mounted", "{ours}/speed_max"),
        ("from={from} to={ours}/throttle create", "{ours}/throttle"),
        ("from={from} to={ours}/jobs/1/control queue", "{ours}/jobs/1/control"),
        ("zero to={ours}/throttle,0,1", "{ours}/throttle,0,1"),
        ("from={ours}/summary to={to}", "{ours}/summary"),
        ("from={ours}/summary,0,0 to={to}", "{ours}/summary,0,0"),
        ("from={ours}/events to={to}", "{ours}/events"),
        ("from={ours}/jobs/new to={to}", "{ours}/jobs/new"),
        ("from={ours}/wait/1 to={to}", "{ours}/wait/1"),
        ("from={ours}/jobs/1/control to={to}", "{ours}/jobs/1/control"),
        ("verify from={from},0,0 to={ours}/summary", "{ours}/summary"),
        ("from={from} to={others}/throttle", "{others}/throttle"),
        ("from={others}/metrics to={to}", "{others}/metrics"),
        ("from={others}/wait/1 to={to}", ANY),
        ("from={from} to='{dir}/to throttle'", "'{dir}/to throttle'"),
        ("from={dir}/bound to={to}", "{dir}/bound"),
    ] {
        let fill = |text: &str| world.fill_in(text).replace("{ours}", &ours).replace("{others}", &others);
        let (spec, marked) = (fill(spec), fill(marked));
        // In the other one there is no job.
        let is_missing = spec.contains(&format!("{others}/wait"));
        let (errno, why) = if is_missing { ("ENOENT", "wait/1") } else { ("ENOTBLK", "is a file of a kcopyfs") };
        refuse_one(&daemon, &spec, errno, why, &marked);
        assert_unchanged(&before, &world.snapshot(&daemon), &spec);
    }
    assert_eq!((daemon.read("throttle").unwrap(), other.read("throttle").unwrap()), ("70\n".into(), "60\n".into()));
}

/// What the daemon itself writes to or reads from: its log, its own pipes, and where jobs are kept.
#[test]
fn what_the_daemon_has_open_is_no_disk() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let state = world.dir.path().join("state");
    fs::create_dir(&state).expect("a state directory");
    let state = state.to_str().expect("UTF-8");
    let builder = Daemon::builder(PROGRAM).option(format!("state={state}")).option("pages=256");
    let daemon = builder.env("RUST_LOG", "error").start();
    let kept = fs::read_dir(state).expect("the state directory").next().expect("a file").expect("a file").path();
    let kept = kept.to_str().expect("UTF-8");
    // It says nothing after its start, so that its log can be compared.
    assert_eq!(daemon.log(), "");
    let worker = daemon.worker();
    let before = world.snapshot(&daemon);
    for (spec, errno, why) in [
        ("from={from} to=/dev/stderr", "ENOTBLK", "standard error"),
        ("from={from} to=/proc/self/fd/2 force=mounted", "ENOTBLK", "standard error"),
        ("zero to={log},0,8", "ENOTBLK", "standard error"),
        ("from=/dev/stderr to={to}", "ENOTBLK", "standard error"),
        ("from=/proc/{worker}/fd/2,0,0 to={to}", "ENOTBLK", "standard error"),
        ("from=/dev/stdin,0,8 to={to}", "ENOTBLK", "neither a block device nor a regular file"),
        ("from={from} to={kept}", "EBUSY", "in the state directory"),
        ("from={kept},0,0 to={to}", "EBUSY", "in the state directory"),
        ("verify from={kept},0,0 to={to}", "EBUSY", "in the state directory"),
        ("verify from={from},0,0 to={kept}", "EBUSY", "in the state directory"),
    ] {
        let spec = world.fill_in(spec).replace("{kept}", kept).replace("{worker}", &worker.to_string());
        let spec = spec.replace("{log}", daemon.log_path().to_str().expect("UTF-8"));
        refuse_one(&daemon, &spec, errno, why, ANY);
        assert_unchanged(&before, &world.snapshot(&daemon), &spec);
    }
    for number in 0..64 {
        let path = format!("/proc/{worker}/fd/{number}");
        let Ok(leads_to) = fs::read_link(&path) else { continue };
        if leads_to.starts_with("/dev") || leads_to.starts_with(state) || leads_to.to_str().unwrap().contains(':') {
            let refused = daemon.refused(&world.fill_in(&format!("from={{from}} to={path}")));
            assert!([libc::ENOTBLK, libc::EBUSY].contains(&refused.errno), "{path} {leads_to:?}: {refused:?}");
        }
    }
    assert_unchanged(&before, &world.snapshot(&daemon), "its descriptors");
    assert_eq!(daemon.log(), "");
}

#[test]
fn good_lines_beside_a_bad_one_change_nothing() {
    if can_run() {
        refuse(&World::new(), &start(&[]), MIXED);
    }
}

#[test]
fn what_is_too_long_changes_nothing() {
    if !can_run() {
        return;
    }
    let (world, daemon) = (World::new(), start(&[]));
    let before = world.snapshot(&daemon);
    let mut to = String::new();
    for number in 0..65 {
        let _ = write!(to, " to={},{number}", world.to.path().display());
    }
    let last = world.fill_in("{to},64");
    refuse_one(&daemon, &world.fill_in(&format!("from={{from}},0,1{to}")), "E2BIG", "more than 64 destinations", &last);
    let long_name = format!("{}/{}", world.dir.path().display(), "x".repeat(256));
    refuse_one(&daemon, &world.fill_in(&format!("from={{from}} to={long_name} create")), "ENAMETOOLONG", "xxx", ANY);
    // one line of more than 64 KiB, alone and among others
    let long_line = world.fill_in(&format!("from={{from}} to={{to}} {}", " ".repeat(64 << 10)));
    refuse_one(&daemon, &long_line, "E2BIG", "a line of more than 65536 bytes", ANY);
    let among = world.fill_in("zero to={to},0,8") + "\n" + &long_line;
    refuse_one(&daemon, &among, "E2BIG", "a line of more than 65536 bytes", ANY);
    // more than the kernel hands over at once
    let many = world.fill_in("zero to={to},0,8\n").repeat(100_000);
    refuse_one(&daemon, &many, "E2BIG", "in one write", ANY);
    assert_unchanged(&before, &world.snapshot(&daemon), "what is too long");
}

#[test]
fn every_word_with_a_value_has_a_row_with_a_bad_one() {
    for word in words().iter().filter(|word| word.kind() == Kind::Value) {
        let key = format!(" {}=", word.name);
        assert!(SYNTAX.iter().any(|(spec, ..)| spec.contains(&key)), "no row for {}", word.usage());
    }
}

#[test]
fn more_jobs_than_may_be_held_are_refused_together() {
    if !can_run() {
        return;
    }
    let (world, daemon) = (World::new(), start(&["max_jobs=2"]));
    let before = world.snapshot(&daemon);
    let three = world.fill_in("zero to={dir}/new,0,8 create\n").repeat(2) + &world.fill_in("zero to={to},0,8");
    refuse_one(&daemon, &three.replacen("/new,", "/newer,", 1), "ENOSPC", "2 jobs are the most", ANY);
    assert_unchanged(&before, &world.snapshot(&daemon), "three jobs");
    for (id, sector) in [(1, 0), (2, 16)] {
        let spec = world.fill_in(&format!("from={{from}},0,8 to={{to}},{sector} paused"));
        assert_eq!(daemon.job(&spec).unwrap(), id);
    }
    let before = world.snapshot(&daemon);
    refuse_one(&daemon, &world.fill_in("zero to={to},8,8"), "ENOSPC", "2 jobs are the most", ANY);
    assert_unchanged(&before, &world.snapshot(&daemon), "a third job");
}

#[test]
fn another_user_with_our_open_file_is_refused() {
    if !can_run() || !need::program("setpriv", "util-linux") {
        return;
    }
    let (world, daemon) = (World::new(), start(&[]));
    let before = world.snapshot(&daemon);
    let spec = world.fill_in("from={from} to={to}");
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let script = format!(
        "exec 3<>$M/jobs/new; {nobody} sh -c 'echo {spec} >&3' && echo taken; read -r answer <&3; echo \"$answer\""
    );
    let output = daemon.sh("bash", &script);
    assert!(output.stdout.starts_with("error: only the owner of the mount"), "{output:?}");
    let log = error_log(&daemon);
    let entry = log.last().unwrap();
    let told = (entry.uid.as_str(), entry.errno.as_str(), &entry.line);
    assert_eq!(told, ("65534", "EACCES", &spec), "{entry:?}");
    // and by path it does not even get in
    let output = daemon.sh("bash", &format!("{nobody} sh -c 'echo {spec} > $M/jobs/new'"));
    assert!(output.code() != 0 && output.stderr.contains("Permission denied"), "{output:?}");
    assert_unchanged(&before, &world.snapshot(&daemon), "another user");
}

#[test]
fn a_line_that_may_be_cut_is_never_run() {
    if !can_run() {
        return;
    }
    let (world, daemon) = (World::new(), start(&[]));
    let before = world.snapshot(&daemon);
    // as dd or stdio would write the first half of a longer line
    let line = format!("{:512}", world.fill_in("from={from} to={to}"));
    let mut new = OpenOptions::new().write(true).open(daemon.path("jobs/new")).unwrap();
    assert_eq!(new.write(line.as_bytes()).unwrap(), 512);
    drop(new);
    // the kernel tells of a close, but waits for no answer
    let log = until("the refusal is logged", || Some(error_log(&daemon)).filter(|log| !log.is_empty()));
    assert!(log[0].why.contains("not run") && log[0].errno == "EINVAL", "{log:?}");
    assert_unchanged(&before, &world.snapshot(&daemon), &line);
}

#[test]
fn verbs_that_are_none_change_nothing() {
    if !can_run() {
        return;
    }
    let (world, daemon) = (World::new(), start(&[]));
    let id = daemon.job(&world.fill_in("from={from} to={to} paused")).unwrap();
    let control = format!("jobs/{id}/control");
    let before = world.snapshot(&daemon);
    for verb in ["", "stop", "Pause", "pause resume", "pause\nresume", "cancel now", "0", "cancel\0"] {
        let error = daemon.write(&control, &format!("{verb}\n")).expect_err(verb);
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{verb:?}");
        let log = error_log(&daemon);
        let entry = log.last().unwrap();
        assert_eq!((entry.file.as_str(), entry.errno.as_str()), (control.as_str(), "EINVAL"), "{entry:?}");
        assert!(entry.why.contains("pause resume cancel"), "{entry:?}");
        assert_eq!(daemon.status(id).state(), "paused");
    }
    assert_unchanged(&before, &world.snapshot(&daemon), "no verb");
    daemon.control(id, "cancel").unwrap();
    for verb in ["pause", "resume", "cancel"] {
        let error = daemon.control(id, verb).expect_err(verb);
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{verb:?}");
        assert!(error_log(&daemon).last().unwrap().why.contains("has ended"));
    }
    assert_eq!(daemon.status(id).state(), "cancelled");
}
