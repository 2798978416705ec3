//! The program as a service: what it tells the service manager, and what it writes to the journal.
//!
//! The manager is a socket in `NOTIFY_SOCKET`; the journal is a file that `JOURNAL_STREAM` names by device and inode. Needs FUSE,
//! and for a slow state directory root and loop devices.

use std::os::unix::fs::FileExt as _;
use std::{
    fs::{self, File},
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use kcopyfs_support::{Fault, FaultDisk, MountPoint, Op, daemon::STOP_LIMIT, mounted::make_ext4, need, stamp, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kcopyfs");

/// How long a message of the daemon may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The program in the foreground, as a service manager starts it.
struct Service {
    child: Child,
    manager: UnixDatagram,
    dir: tempfile::TempDir,
    mount: MountPoint,
}

/// Where the standard error of a service goes.
#[derive(Clone, Copy, PartialEq)]
enum Stderr {
    /// To the journal, whose stream the manager names.
    Journal,
    /// To a file, beside a stream of the journal that is another one, as after `2>file` in a unit's script.
    File,
}

impl Service {
    fn start(options: &str, stderr: Stderr) -> Self {
        let dir = tempfile::Builder::new().prefix("kcopyfs-service-").tempdir().expect("a scratch directory");
        let mount = MountPoint::new().expect("a mount point");
        let manager = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        manager.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let log = File::create(dir.path().join("log")).expect("a log");
        let named = match stderr {
            Stderr::Journal => log.metadata(),
            Stderr::File => dir.path().metadata(),
        };
        let named = named.expect("its device and inode");
        let mut command = Command::new(PROGRAM);
        command.args(["-f", "-o", options]).arg(mount.path()).stdin(Stdio::null()).stderr(log);
        command.env("NOTIFY_SOCKET", dir.path().join("notify"));
        command.env("JOURNAL_STREAM", format!("{}:{}", named.dev(), named.ino()));
        let child = command.env_remove("RUST_LOG").spawn().expect("start it");
        Self { child, manager, dir, mount }
    }

    /// All messages up to one that begins like that, and that one.
    fn hear(&self, begin: &str) -> Vec<String> {
        let late = Instant::now() + LIMIT;
        let mut heard = Vec::new();
        while Instant::now() < late {
            let mut message = [0; 4096];
            let Ok(length) = self.manager.recv(&mut message) else { continue };
            heard.push(String::from_utf8_lossy(&message[..length]).into_owned());
            if heard.last().is_some_and(|message| message.starts_with(begin)) {
                return heard;
            }
        }
        panic!("no {begin}: {heard:?}\n{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).expect("the log")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Has a job made, and waits until it has ended.
    fn job(&self, spec: &str) {
        let before = fs::read_dir(self.mount.path().join("jobs")).expect("jobs").count();
        fs::write(self.mount.path().join("jobs/new"), format!("{spec}\n")).expect("the spec is taken");
        // `new` is an entry, too: the job has the number of entries that there were.
        let wait = self.mount.path().join("wait").join(before.to_string());
        // A job that fails ends the read with an error.
        let _ = fs::read(wait);
    }

    fn image(&self, name: &str) -> String {
        let path = self.path(name);
        fs::write(&path, stamp::stamped(1, 0, 2048)).expect("an image");
        path.display().to_string()
    }

    fn stop(&mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        self.ended(STOP_LIMIT)
    }

    fn ended(&mut self, limit: Duration) -> ExitStatus {
        let late = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status;
            }
            assert!(Instant::now() < late, "it does not end: {}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The daemon ends with the process that was started.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A message of the journal: its severity as sd-daemon(3) writes it, and the text.
fn entries(log: &str) -> Vec<(u8, &str)> {
    let entry = |line| {
        let parts = str::strip_prefix(line, "<").and_then(|rest| rest.split_once('>'));
        let (severity, text) = parts.unwrap_or_else(|| panic!("a line without a severity: {line}\n{log}"));
        (severity.parse().unwrap_or_else(|_| panic!("no severity: {line}")), text)
    };
    log.lines().map(entry).collect()
}

const OPTIONS: &str = "state=none,pages=256,client_pages=128";

#[test]
fn the_manager_is_told_how_jobs_stand_from_the_start() {
    if !need::fuse() {
        return;
    }
    let mut service = Service::start(OPTIONS, Stderr::Journal);
    // Either may come first: two processes tell them.
    let told = |service: &Service, one: &str, other: &str| {
        let mut heard = service.hear(one);
        if !heard.iter().any(|message| message.starts_with(other)) {
            heard.extend(service.hear(other));
        }
        heard
    };
    let heard = told(&service, "READY=1", "STATUS=");
    assert!(heard.contains(&"STATUS=no job under way".to_owned()), "{heard:?}");
    let (from, to) = (service.image("from"), service.path("to").display().to_string());
    fs::write(service.mount.path().join("jobs/new"), format!("from={from} to={to} create paused\n")).expect("a job");
    service.hear("STATUS=1 paused");
    assert_eq!(service.stop().code(), Some(0));
    // A start that was quick asked for no time, and nothing is asked for after it.
    let rest = service.hear("STOPPING=1");
    assert!(heard.iter().chain(&rest).all(|message| !message.starts_with("EXTEND")), "{heard:?} {rest:?}");
}

#[test]
fn a_slow_state_directory_asks_the_manager_for_time_until_the_tree_answers() {
    if !need::fault_disk() {
        return;
    }
    let disk = FaultDisk::builder(16 << 20).start();
    make_ext4(&disk.path(), "^has_journal");
    let state = MountPoint::new().expect("a mount point");
    state.mount("ext4", disk.path(), "rw");
    disk.rule(Op::Read, .., Fault::Hang);
    disk.rule(Op::Write, .., Fault::Hang);
    let mut service = Service::start(
        &format!("pages=256,client_pages=128,state={}", state.path().join("new").display()),
        Stderr::Journal,
    );
    disk.wait_parked(1);
    // Each asks for longer than the next one takes to come.
    for _ in 0..2 {
        assert_eq!(service.hear("EXTEND_TIMEOUT_USEC="), ["EXTEND_TIMEOUT_USEC=15000000"]);
    }
    disk.clear();
    disk.release();
    let heard = service.hear("READY=1");
    let others: Vec<_> = heard.iter().filter(|message| !message.starts_with("EXTEND_TIMEOUT_USEC=")).collect();
    assert!(others.iter().all(|message| *message == "READY=1" || message.starts_with("STATUS=")), "{heard:?}");
    until("its tree answers", || service.mount.path().join("version").exists().then_some(()));
    assert_eq!(service.stop().code(), Some(0));
    let rest = service.hear("STOPPING=1");
    assert!(rest.iter().all(|message| !message.starts_with("EXTEND")), "{rest:?}");
}

#[test]
fn the_journal_has_a_severity_a_line_and_no_second_time_stamp() {
    if !need::fuse() {
        return;
    }
    let mut service = Service::start(OPTIONS, Stderr::Journal);
    service.hear("READY=1");
    let (from, to) = (service.image("from"), service.path("to").display().to_string());
    service.job(&format!("from={from} to={to} create name=nightly"));
    File::options().write(true).open(&to).and_then(|file| file.write_all_at(b"another", 4096)).expect("change it");
    fs::write(service.mount.path().join("jobs/new"), format!("verify from={from} to={to}\n")).unwrap();
    let _ = fs::read(service.mount.path().join("wait/2"));
    // A refused spec is somebody's mistake, and logged.
    fs::write(service.mount.path().join("jobs/new"), "from=/nonexistent to=/nonexistent\n").expect_err("refused");
    assert_eq!(service.stop().code(), Some(0));

    let log = service.log();
    let entries = entries(&log);
    let severity = |begin: &str| {
        let found = entries.iter().find(|(_, text)| text.starts_with(begin));
        found.unwrap_or_else(|| panic!("no `{begin}`:\n{log}")).0
    };
    assert_eq!(severity(&format!("job 1 (nightly) starts: copy from={from}")), 6, "information:\n{log}");
    assert_eq!(severity("job 1 (nightly) is done"), 6, "information:\n{log}");
    assert_eq!(severity("job 2 is failed: "), 4, "a warning:\n{log}");
    let (_, failed) = entries.iter().find(|(_, text)| text.starts_with("job 2 is failed")).expect("seen above");
    assert!(failed.contains(&to) && failed.contains("sector 8"), "path and sector:\n{log}");
    // The journal has the time and the unit.
    for (_, text) in &entries {
        assert!(!text.contains("kcopyfs::") && !text.contains("INFO") && !text.contains("WARN"), "{text}");
    }
}

#[test]
fn a_file_in_place_of_the_journal_has_times_and_no_severities() {
    if !need::fuse() {
        return;
    }
    let mut service = Service::start(OPTIONS, Stderr::File);
    service.hear("READY=1");
    let (from, to) = (service.image("from"), service.path("to").display().to_string());
    service.job(&format!("from={from} to={to} create"));
    assert_eq!(service.stop().code(), Some(0));
    let log = service.log();
    let line = log.lines().find(|line| line.contains("job 1 is done")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.starts_with("[20") && line.contains(" INFO  "), "{line}");
}

#[test]
fn a_start_that_fails_is_an_error_in_the_journal() {
    if !need::fuse() {
        return;
    }
    for (options, code, named) in [("pages=1", 1, "pages"), ("state=/proc/none/here", 32, "/proc/none")] {
        let mut service = Service::start(options, Stderr::Journal);
        assert_eq!(service.ended(LIMIT).code(), Some(code), "{options}: {}", service.log());
        let log = service.log();
        let errors: Vec<_> = entries(&log).into_iter().filter(|(severity, _)| *severity == 3).collect();
        assert!(
            errors.iter().any(|(_, text)| text.starts_with("kcopyfs: ") && text.contains(named)),
            "{options}: {log}"
        );

        let mut service = Service::start(options, Stderr::File);
        service.ended(LIMIT);
        assert!(service.log().lines().any(|line| line.starts_with("kcopyfs: ")), "{options}: {}", service.log());
    }
}

#[test]
fn an_option_in_vain_is_a_warning_in_the_journal() {
    if !need::fuse() {
        return;
    }
    let mut service = Service::start(&format!("{OPTIONS},mode=0660,gid=65534"), Stderr::Journal);
    service.hear("READY=1");
    service.stop();
    let log = service.log();
    let is_warned = |(severity, text): &(u8, &str)| *severity == 4 && text.contains("without allow_other");
    assert!(entries(&log).iter().any(is_warned), "{log}");
}

/// At boot a line of fstab may be served before anybody has loaded the module, and a mount that fails there brings the machine to
/// its emergency shell.
#[test]
fn root_loads_the_module_where_dev_fuse_is_missing() {
    if !(need::root() && need::fuse()) {
        return;
    }
    let dir = tempfile::tempdir().expect("a scratch directory");
    let script = |modprobe: &str| {
        // /dev without the device, in a name space of our own; a `modprobe` that does what the kernel does then.
        let text = format!(
            "mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mkdir -p $D/mount $D/bin
             printf '#!/bin/sh\\n[ \"$*\" = fuse ] && {modprobe}\\n' > $D/bin/modprobe && chmod +x $D/bin/modprobe
             PATH=$D/bin:$PATH $K -o state=none,pages=256,client_pages=128 $D/mount || exit
             test -e $D/mount/version; code=$?
             umount $D/mount; exit $code"
        );
        let mut command = Command::new("timeout");
        command.args(["60", "unshare", "-m", "--propagation", "private", "bash", "-c", &text]);
        command.env("K", PROGRAM).env("D", dir.path()).stdin(Stdio::null()).output().expect("bash")
    };
    let made = script("exec mknod /dev/fuse c 10 229");
    assert!(made.status.success(), "{made:?}");
    let missing = script("exit 1");
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(missing.status.code(), Some(32), "{said}");
    assert!(said.contains("open /dev/fuse") && said.contains("modprobe fuse"), "{said}");
}
