//! The program as a process: how it starts, what it refuses, how it ends whatever the devices do, what it costs.
//!
//! Needs FUSE, and root for devices and for other users.

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::{
        fs::{OpenOptionsExt as _, PermissionsExt as _, chown, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use kcopyfs_support::{
    Daemon, Fault, FaultDisk, MountPoint, Op, daemon::STOP_LIMIT, mounted::make_ext4, need, stamp, until,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kcopyfs");

/// Seconds that a script may take.
const SCRIPT_LIMIT: &str = "60";

/// The user `nobody`.
const NOBODY: u32 = 65534;
const AS_NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// A directory to mount at, with images beside it. Whatever is left there when it goes is taken away.
struct Place {
    dir: tempfile::TempDir,
    mount: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("kcopyfs-place-").tempdir().expect("a scratch directory");
        let mount = dir.path().join("mount");
        fs::create_dir(&mount).expect("a mount point");
        fs::write(dir.path().join("from"), stamp::stamped(1, 0, 2048)).expect("an image");
        Self { dir, mount }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs a script with the program as `K`, the mount point as `M`, and the images' directory as `D`.
    fn script(&self, text: &str) -> Output {
        self.command("timeout").args([SCRIPT_LIMIT, "bash", "-c", text]).output().expect("bash")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("K", PROGRAM).env("M", &self.mount).env("D", self.dir.path()).stdin(Stdio::null());
        command
    }

    /// How many mounts are at the mount point, in our name space.
    fn mounts(&self) -> usize {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        mounts.lines().filter(|line| line.split(' ').nth(4) == self.mount.to_str()).count()
    }

    /// The processes of the program that have the mount point as an argument.
    fn processes(&self) -> Vec<u32> {
        let is_ours = |pid: &u32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = command.split(|byte| *byte == 0);
            let is_program = words.next().is_some_and(|word| word.ends_with(b"kcopyfs"));
            is_program && words.any(|word| Some(word) == self.mount.to_str().map(str::as_bytes))
        };
        processes().filter(is_ours).collect()
    }

    /// Waits until no process serves the mount point.
    fn until_no_process(&self) {
        self.until(|| self.processes().is_empty());
    }

    /// Waits until nothing is at the mount point.
    fn until_gone(&self) {
        self.until(|| self.processes().is_empty() && self.mounts() == 0);
    }

    fn until(&self, is_so: impl Fn() -> bool) {
        let late = Instant::now() + STOP_LIMIT;
        while !is_so() {
            assert!(Instant::now() < late, "still there: {:?}, {} mounts", self.processes(), self.mounts());
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for pid in self.processes() {
            eprintln!("process {pid} was left behind");
            send(pid, "KILL");
        }
        while self.mounts() > 0 && run(Command::new("umount").arg("-l").arg(&self.mount)).status.success() {
            eprintln!("a mount was left behind");
        }
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn send(pid: u32, signal: &str) {
    let _ = run(Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()));
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a script printed, if all went well.
fn ok(output: &Output) -> String {
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}\n{stdout}{stderr}", output.status);
    stdout
}

/// A child that does not outlive its test.
struct Process(Child);

impl Process {
    fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let late = Instant::now() + limit;
        loop {
            match self.0.try_wait().expect("wait") {
                Some(status) => return Some(status),
                None if Instant::now() >= late => return None,
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The program in the foreground, once its tree answers.
fn foreground(place: &Place, options: &str) -> Process {
    let mut command = place.command(PROGRAM);
    command.args(["-f", "-o", options]).arg(&place.mount);
    let log = fs::File::create(place.path("log")).expect("a log");
    let process = Process(command.stderr(log).spawn().expect("start it"));
    until("the tree answers", || place.mount.join("version").exists().then_some(()));
    process
}

const OPTIONS: &str = "state=none,pages=256";
const SPEC: &str = "from=$D/from to=$D/to create";

#[test]
fn a_background_start_does_not_race() {
    if !need::fuse() {
        return;
    }
    for _ in 0..10 {
        let place = Place::new();
        let script = format!(
            "$K -o state=none,pages=256 $M && echo {SPEC} > $M/jobs/new && cat $M/wait/1 > $D/status && cmp $D/from $D/to"
        );
        ok(&place.script(&script));
        assert_eq!((place.mounts(), place.processes().len()), (1, 1), "the caller has gone, the daemon stays");
        // from outside, as an administrator does
        ok(&place.script("umount $M"));
        place.until_gone();
    }
}

#[test]
fn a_background_start_holds_nothing_of_its_caller() {
    if !need::fuse() {
        return;
    }
    let place = Place::new();
    // a pipe, a lock and a directory of the script: each would wait for the daemon's end
    let script = "
        cd $D; exec 9> $D/lock; flock 9
        said=$($K -o state=none,pages=256 $M 2>&1) || exit 1
        exec 9>&-; flock -n $D/lock true || exit 2
        echo \"said: $said\"";
    assert_eq!(ok(&place.script(script)), "said: \n");
    let daemon = place.processes()[0];
    assert_eq!(fs::read_link(format!("/proc/{daemon}/cwd")).unwrap(), Path::new("/"));
    for stream in 0..=2 {
        assert_eq!(fs::read_link(format!("/proc/{daemon}/fd/{stream}")).unwrap(), Path::new("/dev/null"));
    }
    send(daemon, "TERM");
    place.until_gone();
}

#[test]
fn signals_and_umount_end_it_with_0() {
    if !need::fuse() {
        return;
    }
    for end in ["TERM", "INT", "umount"] {
        let place = Place::new();
        let mut daemon = foreground(&place, OPTIONS);
        if end == "umount" {
            ok(&place.script("umount $M"));
        } else {
            send(daemon.0.id(), end);
        }
        let status = daemon.wait(STOP_LIMIT).unwrap_or_else(|| panic!("still there after {end}"));
        assert_eq!(status.code(), Some(0), "{end}");
        assert_eq!(place.mounts(), 0, "{end}");
    }
}

#[test]
fn sighup_and_a_lost_terminal_change_nothing() {
    if !need::fuse() {
        return;
    }
    let place = Place::new();
    let mut daemon = foreground(&place, OPTIONS);
    for signal in ["HUP", "PIPE", "HUP"] {
        send(daemon.0.id(), signal);
    }
    ok(&place.script(&format!("echo {SPEC} > $M/jobs/new && cat $M/wait/1 && cmp $D/from $D/to")));
    assert_eq!(daemon.0.try_wait().unwrap(), None);
    send(daemon.0.id(), "TERM");
    assert_eq!(daemon.wait(STOP_LIMIT).unwrap().code(), Some(0));
}

/// Eight disks to be copied to, and one to copy from.
fn nine_disks() -> (FaultDisk, Vec<FaultDisk>) {
    let disk = || FaultDisk::builder(4 << 20).start();
    let from = disk();
    from.fill(1);
    (from, (0..8).map(|_| disk()).collect())
}

fn copy_to_all(daemon: &Daemon, from: &FaultDisk, to: &[FaultDisk], words: &str) {
    for disk in to {
        daemon.job(&format!("from={} to={} {words}", from.path().display(), disk.path().display())).unwrap();
    }
}

fn small(io: &str) -> Daemon {
    // So few at once that what hangs leaves pages for the others.
    let builder =
        Daemon::builder(PROGRAM).option("state=none").option("pages=1024").option("subjob_kb=32").option("subjobs=8");
    builder.option(io).start()
}

/// Children of ours that nobody waited for.
fn zombies() -> Vec<u32> {
    let us = std::process::id().to_string();
    let is_zombie = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
        fields.next() == Some("Z") && fields.next() == Some(&us) && stat.contains("(kcopyfs)")
    };
    processes().filter(is_zombie).collect()
}

/// Those of other tests that run beside are waited for soon.
fn no_zombie_stays() {
    until("no child is left that nobody waits for", || zombies().is_empty().then_some(()));
}

#[test]
fn sigterm_in_the_middle_of_8_copies() {
    if !need::fault_disk() {
        return;
    }
    for io in ["io=uring", "io=threads"] {
        let (from, to) = nine_disks();
        for disk in &to {
            disk.rule(Op::Write, .., Fault::Delay(Duration::from_millis(20)));
        }
        let mut daemon = small(io);
        // Those that are ahead do not end before the last has begun.
        copy_to_all(&daemon, &from, &to, "speed_max=128K");
        for disk in &to {
            disk.wait_until(|stat| stat.writes >= 10);
        }
        daemon.stop();
        no_zombie_stays();
        for disk in &to {
            // what was written lies where it belongs
            let contents = disk.contents();
            let there = (0..).zip(contents.chunks(512)).filter(|(_, data)| data.iter().any(|byte| *byte != 0));
            for (sector, data) in there.clone() {
                assert_eq!(stamp::check(data, 1, sector), Ok(()));
            }
            assert!(there.count() < contents.len() / 512, "the copy was over");
        }
    }
}

#[test]
fn sigterm_with_reads_and_writes_that_hang() {
    if !need::fault_disk() {
        return;
    }
    let (from, to) = nine_disks();
    from.rule(Op::Read, 3 << 19.., Fault::Hang);
    for disk in &to[..4] {
        disk.rule(Op::Write, 1 << 20.., Fault::Hang);
    }
    let mut daemon = small("io=uring");
    copy_to_all(&daemon, &from, &to, "");
    for disk in &to[..4] {
        disk.wait_parked(1);
    }
    from.wait_parked(1);
    daemon.stop();
    no_zombie_stays();
    assert!(to[0].stat().parked > 0, "the disk still hangs");

    // Only what hangs is held, and only as long as it does.
    let is_held: Vec<bool> = to.iter().map(|disk| exclusive(disk).is_err()).collect();
    assert_eq!(is_held, [true, true, true, true, false, false, false, false]);
    for disk in &to[..4] {
        disk.clear();
        disk.release();
    }
    from.clear();
    from.release();
    for disk in &to {
        until("nobody holds the disk", || exclusive(disk).ok());
    }
}

/// Opens a disk as whoever wants it for himself.
fn exclusive(disk: &FaultDisk) -> std::io::Result<fs::File> {
    fs::OpenOptions::new().write(true).custom_flags(libc::O_EXCL).open(disk.path())
}

/// A flush, and without `io_uring` a read or write, is carried out by a thread of a process, which no signal ends as long
/// as the device hangs. Whoever waits for the daemon does not wait for that thread, and only what hangs is held.
fn ends_though_a_thread_is_stuck(io: &str, hang: impl Fn(&FaultDisk)) {
    if !need::fault_disk() {
        return;
    }
    let (from, to) = nine_disks();
    hang(&to[0]);
    let mut daemon = Daemon::builder(PROGRAM).option("pages=1024").option("subjob_kb=32").option(io).start();
    copy_to_all(&daemon, &from, &to, "");
    to[0].wait_parked(1);
    let worker = daemon.worker();
    daemon.stop();
    no_zombie_stays();
    assert!(to[0].stat().parked > 0, "the disk still hangs");
    assert!(daemon.log().contains(&format!("process {worker} stays until a device answers")), "{}", daemon.log());
    for disk in &to[1..] {
        assert!(exclusive(disk).is_ok(), "{} is still held", disk.path().display());
    }
    // Neither is the state directory, so that the next one can start. It waits for that one disk alone.
    daemon.restart();
    to[0].clear();
    to[0].release();
    for id in 1..=8 {
        assert_eq!(daemon.wait(id).state(), "done", "{id}");
    }
}

#[test]
fn sigterm_with_a_flush_that_hangs() {
    for io in ["io=uring", "io=threads"] {
        ends_though_a_thread_is_stuck(io, |disk| _ = disk.rule(Op::Flush, .., Fault::Hang));
    }
}

#[test]
fn sigterm_with_threads_that_hang() {
    ends_though_a_thread_is_stuck("io=threads", |disk| _ = disk.rule(Op::Write, 1 << 20.., Fault::Hang));
}

#[test]
fn sigterm_while_the_state_directory_hangs() {
    if !need::fault_disk() {
        return;
    }
    let disk = FaultDisk::builder(16 << 20).start();
    make_ext4(&disk.path(), "^has_journal");
    let (place, state) = (Place::new(), MountPoint::new().expect("a mount point"));
    state.mount("ext4", disk.path(), "rw");
    disk.rule(Op::Read, .., Fault::Hang);
    disk.rule(Op::Write, .., Fault::Hang);
    let mut command = place.command(PROGRAM);
    command.args(["-f", "-o", &format!("pages=256,state={}", state.path().join("new").display())]).arg(&place.mount);
    let log = fs::File::create(place.path("log")).expect("a log");
    let mut daemon = Process(command.stderr(log).spawn().expect("start it"));
    disk.wait_parked(1);
    send(daemon.0.id(), "TERM");
    let status = daemon.wait(STOP_LIMIT + Duration::from_millis(500)).expect("it ends");
    let log = fs::read_to_string(place.path("log")).unwrap();
    assert!(status.code() == Some(32) && log.contains("did not stop in time"), "{status}: {log}");
    disk.clear();
    disk.release();
    place.until_no_process();
    ok(&place.script("umount -l $M || test $? = 32"));
}

#[test]
fn a_second_mount_is_refused_and_harms_nothing() {
    if !need::fuse() {
        return;
    }
    let place = Place::new();
    let mut daemon = foreground(&place, OPTIONS);
    for more in [&[][..], &["-f"]] {
        let output = run(place.command(PROGRAM).args(more).args(["-o", "state=none"]).arg(&place.mount));
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(32), "{said}");
        assert!(said.starts_with("kcopyfs: ") && said.contains("already mounted"), "{said}");
        assert!(said.contains(place.mount.to_str().unwrap()) && said.contains("umount"), "{said}");
        assert_eq!(place.mounts(), 1);
    }
    ok(&place.script(&format!("echo {SPEC} > $M/jobs/new && cat $M/wait/1 && cmp $D/from $D/to")));
    send(daemon.0.id(), "TERM");
    assert_eq!(daemon.wait(STOP_LIMIT).unwrap().code(), Some(0));
}

#[test]
fn the_mount_of_a_killed_daemon_is_cleared() {
    if !need::fuse() {
        return;
    }
    let place = Place::new();
    for more in ["", "-f > $D/log 2>&1 &"] {
        let mut daemon = foreground(&place, OPTIONS);
        daemon.0.kill().unwrap();
        daemon.0.wait().unwrap();
        let script = format!("$K -o state=none,pages=256 $M {more}\nuntil ls $M/jobs 2> $D/log; do sleep 0.01; done");
        assert_eq!(ok(&place.script(&script)), "new\n");
        assert_eq!(place.mounts(), 1);
        // killed too, so that the next one clears it
        place.processes().into_iter().for_each(|pid| send(pid, "KILL"));
    }
    ok(&place.script("$K -o state=none,pages=256 $M && umount $M"));
    place.until_gone();
}

#[test]
fn in_the_foreground_both_processes_end_together() {
    if !need::fuse() {
        return;
    }
    for (signal, code) in [("TERM", Some(0)), ("KILL", Some(32))] {
        let place = Place::new();
        let mut daemon = foreground(&place, OPTIONS);
        let worker = place.processes().into_iter().find(|pid| *pid != daemon.0.id()).expect("a worker");
        send(worker, signal);
        assert_eq!(daemon.wait(STOP_LIMIT).expect("it ends").code(), code, "{signal}");
        assert_eq!(place.processes(), []);
        let log = fs::read_to_string(place.path("log")).unwrap();
        assert_eq!(log.contains("the daemon was killed by signal 9"), signal == "KILL", "{log}");
    }
    let place = Place::new();
    let daemon = foreground(&place, OPTIONS);
    send(daemon.0.id(), "KILL");
    let late = Instant::now() + STOP_LIMIT;
    while fs::read_dir(&place.mount).err().and_then(|error| error.raw_os_error()) != Some(libc::ENOTCONN) {
        assert!(Instant::now() < late, "it answers, or hangs");
    }
}

#[test]
fn what_cannot_be_mounted_is_said_with_its_exit_code() {
    let place = Place::new();
    let mount = place.mount.to_str().unwrap();
    let image = place.path("from");
    let rows: &[(&[&str], i32, &str)] = &[
        (&[], 1, "MOUNTPOINT"),
        (&["-x", mount], 1, "-x"),
        (&["a", "b", "c"], 1, "c"),
        (&["-o", "page=512", mount], 1, "page"),
        (&["-o", "pages=127", mount], 1, "127"),
        (&["-o", "pages=many", mount], 1, "many"),
        (&["-o", "subjob_kb=48", mount], 1, "power of two"),
        (&["-o", "io=posix", mount], 1, "auto, uring or threads"),
        (&["-o", "mode=0666", mount], 1, "others never write"),
        (&["-o", "rw,remount", mount], 1, "remount"),
        (&["-o", "ro", mount], 1, "ro"),
        (&["-o", "state=none", "/nonexistent/mount"], 32, "/nonexistent/mount"),
        (&["-o", "state=none", image.to_str().unwrap()], 32, "not a directory"),
    ];
    for (arguments, code, named) in rows {
        for foreground in [false, true] {
            let flag = if foreground { &["-f"][..] } else { &[] };
            let output = run(Command::new(PROGRAM).args(flag).args(*arguments));
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {said}");
            assert!(said.starts_with("kcopyfs: ") && said.contains(named), "{arguments:?}: {said}");
            assert!(output.stdout.is_empty());
        }
    }
    assert_eq!((place.mounts(), place.processes().len()), (0, 0));
    for (argument, named) in [("--help", "kcopyfs demo"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let output = run(Command::new(PROGRAM).arg(argument));
        assert!(ok(&output).contains(named) && output.stderr.is_empty());
    }
}

#[test]
fn an_option_in_vain_is_said() {
    if !need::fuse() {
        return;
    }
    for (options, said) in
        [("gid=65534,mode=0660", true), ("gid=65534,mode=0660,allow_other", false), ("mode=0600", false)]
    {
        let place = Place::new();
        let output = place.script(&format!("$K -o state=none,pages=256,{options} $M"));
        assert_eq!(text(&output.stderr).contains("without allow_other"), said, "{output:?}");
        ok(&output);
        ok(&place.script("umount $M"));
        place.until_gone();
    }
}

/// A place that `nobody` owns, with the program in it, as the target directory may be closed to others.
fn place_of_nobody() -> (Place, PathBuf) {
    let place = Place::new();
    let program = place.path("kcopyfs");
    fs::copy(PROGRAM, &program).expect("copy the program");
    for path in [place.dir.path(), &place.mount, &place.path("from")] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("chmod");
        chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
    }
    (place, program)
}

#[test]
fn an_ordinary_user_mounts_by_fusermount3() {
    if !(need::root()
        && need::fuse()
        && need::program("fusermount3", "fuse3")
        && need::program("setpriv", "util-linux"))
    {
        return;
    }
    let (place, program) = place_of_nobody();
    // /dev/fuse as most systems have it, in a name space of our own
    let private = "mknod $D/fuse c 10 229 && chmod 666 $D/fuse && mount --bind $D/fuse /dev/fuse";
    let unshared = |script: &str| {
        let mut command = place.command("timeout");
        command.args([SCRIPT_LIMIT, "unshare", "-m", "--propagation", "private", "bash", "-c", script]);
        run(command.env("K", &program))
    };
    let output = unshared(&format!("{private} && setpriv {} bash -c ': <> /dev/fuse'", AS_NOBODY.join(" ")));
    if !output.status.success() {
        need::skip(&format!("no /dev/fuse for a user: {}", text(&output.stderr)));
        return;
    }
    let user = format!(
        "set -e; $K -o state=none,pages=256 $M; echo {SPEC} > $M/jobs/new; cat $M/wait/1 > $D/status; cmp $D/from $D/to
         stat -c %u $M/jobs/new $D/to; grep \" $M \" /proc/self/mounts; fusermount3 -u $M"
    );
    let output = unshared(&format!("rm $D/fuse; {private} && exec setpriv {} bash -c '{user}'", AS_NOBODY.join(" ")));
    let said = ok(&output);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[..2], ["65534", "65534"], "the user owns the tree and what it makes:\n{said}");
    for option in ["fuse.kcopyfs", "nosuid", "nodev", "noexec", "user_id=65534"] {
        assert!(lines[2].contains(option), "{option}:\n{said}");
    }
    place.until_gone();
}

#[test]
fn a_user_without_fusermount3_is_told_so() {
    if !(need::root() && need::fuse() && need::program("setpriv", "util-linux")) {
        return;
    }
    let (place, program) = place_of_nobody();
    let mut command = place.command("setpriv");
    command.args(AS_NOBODY).arg(&program).args(["-o", "state=none,pages=256"]).arg(&place.mount);
    let setpriv =
        env::split_paths(&env::var_os("PATH").unwrap()).map(|dir| dir.join("setpriv")).find(|path| path.is_file());
    let mut command_without_path = Command::new(setpriv.expect("setpriv"));
    command_without_path.args(command.get_args()).env("PATH", "/nonexistent");
    let output = run(&mut command_without_path);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(32), "{said}");
    assert!(said.contains("fusermount3") && said.contains("install fuse3"), "{said}");
}

/// The program under the name that mount(8) looks for.
struct Helper(PathBuf);

impl Helper {
    /// Waits for another test run that has its own there; takes over what a killed one left.
    fn install() -> Option<Self> {
        let path = PathBuf::from("/sbin/mount.fuse.kcopyfs");
        let late = Instant::now() + STOP_LIMIT;
        if fs::read_link(&path).is_ok_and(|program| program == Path::new(PROGRAM) || !program.exists()) {
            let _ = fs::remove_file(&path);
        }
        loop {
            match symlink(PROGRAM, &path) {
                Ok(()) => return Some(Self(path)),
                Err(_) if Instant::now() < late => thread::sleep(Duration::from_millis(50)),
                Err(error) => {
                    need::skip(&format!("{}: {error}", path.display()));
                    return None;
                }
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn mount_8_mounts_it() {
    if !(need::root() && need::fuse()) {
        return;
    }
    let place = Place::new();
    let Some(helper) = Helper::install() else { return };
    ok(&place.script("mount -t fuse.kcopyfs none $M -o pages=256,state=none,noatime,nofail,_netdev,x-test.any=1"));
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.contains(place.mount.to_str().unwrap())).expect("it is mounted");
    assert!(line.starts_with("none ") && line.contains(" fuse.kcopyfs rw,nosuid,nodev,noexec"), "{line}");
    assert!(fs::read_to_string(place.mount.join("engine")).unwrap().contains("\npages 256\n"));
    ok(&place.script(&format!("echo {SPEC} > $M/jobs/new && cat $M/wait/1 && cmp $D/from $D/to")));
    let remount = place.script("mount -o remount,noatime $M");
    assert!(!remount.status.success() && text(&remount.stderr).contains("remount"), "{remount:?}");
    ok(&place.script("test \"$(cat $M/jobs/1/status | head -n 1)\" = 'state done' && umount $M"));
    place.until_gone();
    // what it refuses, mount(8) hands on
    let output = place.script("mount -t fuse.kcopyfs none $M -o pages=1");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    drop(helper);
}

/// The threads of processes.
fn threads(pids: [u32; 2]) -> Vec<String> {
    let tasks = pids.into_iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).expect("its threads"));
    tasks.map(|task| task.expect("a thread").file_name().into_string().expect("a number")).collect()
}

/// System calls that `pids` made in that time, but for those that go on from before. Then `poke` must cause some.
fn system_calls(pids: [u32; 2], time: Duration, poke: impl FnOnce()) -> Vec<String> {
    let trace = tempfile::NamedTempFile::new().expect("a file for the trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-ttt", "-o"]).arg(trace.path()).args(pids.map(|pid| format!("-p{pid}")));
    let mut strace = Process(command.stderr(Stdio::piped()).process_group(0).spawn().expect("strace"));
    // it says when it has the threads
    let mut attached = String::new();
    let mut said = BufReader::new(strace.0.stderr.take().expect("stderr"));
    said.read_line(&mut attached).expect("strace's word");
    assert!(attached.contains("attached"), "strace: {attached}");
    // threads that were stopped go back to sleep: each tells what in
    let seen = || fs::read_to_string(trace.path()).expect("the trace");
    until("every thread sleeps again", || {
        let seen = seen();
        let traced: Vec<&str> = seen.lines().filter_map(|line| line.split_whitespace().next()).collect();
        threads(pids).iter().all(|thread| traced.contains(&thread.as_str())).then_some(())
    });
    let before = seen().lines().count();
    thread::sleep(time);
    // detaching wakes each thread once more
    let after = seen();
    poke();
    until("strace sees something", || (seen().len() > after.len()).then_some(()));
    send(strace.0.id(), "INT");
    let mut rest = String::new();
    let _ = said.read_to_string(&mut rest);
    assert!(strace.wait(STOP_LIMIT).is_some(), "strace does not end");
    assert!(before > 0, "nothing traced: {attached}{rest}");
    after.lines().skip(before).map(str::to_owned).collect()
}

#[test]
fn idle_it_does_nothing_at_all() {
    if !(need::fuse() && need::program("strace", "strace")) {
        return;
    }
    let long = env::var("KCOPYFS_LONG").as_deref() == Ok("1");
    let time = Duration::from_secs(if long { 10 } else { 3 });
    let place = Place::new();
    for io in ["io=uring", "io=threads"] {
        let daemon = Daemon::builder(PROGRAM).option("state=none").option("pages=256").option(io).start();
        let poke = || assert!(daemon.read("engine").is_ok());
        assert_eq!(system_calls([daemon.pid(), daemon.worker()], time, poke), Vec::<String>::new(), "{io}: mounted");

        if !long {
            continue;
        }
        // nor with files open, after a job, and with one that is paused
        let open = ["events", "jobs/new", "engine"].map(|file| fs::File::open(daemon.path(file)).unwrap());
        let spec = format!("from={} to={} create", place.path("from").display(), place.path(io).display());
        let id = daemon.job(&spec).unwrap();
        assert_eq!(daemon.wait(id).state(), "done");
        daemon.job(&format!("{spec} paused")).unwrap();
        // the checkpoint that was due while the job ran
        thread::sleep(Duration::from_secs(6));
        assert_eq!(
            system_calls([daemon.pid(), daemon.worker()], time, poke),
            Vec::<String>::new(),
            "{io}: after a job"
        );
        drop(open);
    }
}

/// A figure of /proc/PID/status, in bytes.
fn memory(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the daemon's status");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("the key");
    let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

#[test]
fn memory_is_the_pool_and_16_mib() {
    if !need::fuse() {
        return;
    }
    let place = Place::new();
    for io in ["io=uring", "io=threads"] {
        let daemon = Daemon::builder(PROGRAM).option("state=none").option("pages=2048").option(io).start();
        for number in 0..100 {
            let to = place.path(&format!("{io}{number}"));
            daemon.job(&format!("from={} to={} create", place.path("from").display(), to.display())).unwrap();
        }
        for id in 1..=100 {
            assert_eq!(daemon.wait(id).state(), "done");
        }
        let pool = 2048 * 4096;
        // the process that was started hands on signals, and that is all
        assert!(memory(daemon.pid(), "VmRSS") < 8 << 20);
        // the kernel does not count huge pages of its own pool
        let beside = |key: &str| memory(daemon.worker(), key).saturating_sub(pool);
        let (used, most) = (beside("VmRSS"), beside("VmHWM"));
        eprintln!("{io}: {} KiB beside the pool, {} KiB at most", used >> 10, most >> 10);
        assert!(used <= (16 << 20) + 100 * (2 << 10), "{used} bytes beside the pool");
    }
}

/// A socket in place of the service manager's.
struct Manager(std::os::unix::net::UnixDatagram);

impl Manager {
    /// Waits for a message that begins like that, and returns its rest.
    fn hear(&self, begin: &str) -> String {
        let late = Instant::now() + STOP_LIMIT;
        let mut seen = Vec::new();
        while Instant::now() < late {
            let mut message = [0; 4096];
            let Ok(length) = self.0.recv(&mut message) else { continue };
            let message = text(&message[..length]);
            if let Some(rest) = message.strip_prefix(begin) {
                return rest.to_owned();
            }
            seen.push(message);
        }
        panic!("no {begin}: {seen:?}");
    }
}

#[test]
fn a_service_manager_is_told_how_the_jobs_stand_needs_fuse() {
    if !need::fuse() {
        return;
    }
    let place = Place::new();
    let manager = Manager(std::os::unix::net::UnixDatagram::bind(place.path("notify")).expect("a socket"));
    manager.0.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let mut command = place.command(PROGRAM);
    command.args(["-f", "-o", "state=none"]).arg(&place.mount).stderr(Stdio::null());
    command.env("NOTIFY_SOCKET", place.path("notify")).env("WATCHDOG_USEC", "200000");
    let mut daemon = Process(command.spawn().expect("the program"));
    manager.hear("READY=1");
    manager.hear("WATCHDOG=1");
    for (spec, status) in [("paused", "1 paused"), ("paused", "2 paused")] {
        ok(&place.script(&format!("echo from=$D/from to=$D/{spec}$RANDOM create paused > $M/jobs/new")));
        while manager.hear("STATUS=") != status {}
    }
    send(daemon.0.id(), "TERM");
    manager.hear("STOPPING=1");
    assert!(daemon.wait(STOP_LIMIT).is_some_and(|status| status.success()));
}

#[test]
fn the_log_tells_the_life_of_jobs_needs_fuse() {
    if !need::fuse() {
        return;
    }
    let daemon = Daemon::builder(PROGRAM).option("state=none").start();
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("from"), stamp::stamped(1, 0, 2048)).expect("an image");
    let good = daemon.job(&format!("from={} to={} create name=nightly", path("from"), path("to"))).expect("a job");
    daemon.wait(good);
    let other = daemon.job(&format!("from={} to={} create paused", path("from"), path("other"))).expect("a job");
    daemon.control(other, "cancel").expect("cancel");
    daemon.wait(other);
    let log = daemon.log();
    for line in [
        format!("INFO  kcopyfs::jobs::job] job {good} (nightly) starts: copy from={}", path("from")),
        format!("INFO  kcopyfs::jobs::job] job {good} (nightly) is done"),
        format!("WARN  kcopyfs::jobs::job] job {other} is cancelled"),
    ] {
        assert!(log.contains(&line), "{line}\n{log}");
    }
}
