//! What is installed beside the program: man pages, the unit, examples; judged by the programs that will read them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use kcopyfs_support::{Daemon, need, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kcopyfs");
/// Bytes of the station's image.
const SIZE: u64 = 8 << 20;

/// A file of contrib.
fn contrib(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib").join(file)
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn man_pages_are_well_formed() {
    if !need::program("groff", "groff") || !need::program("mandoc", "mandoc") {
        return;
    }
    for page in ["kcopyfs.8", "kcopyfs-spec.5"] {
        let file = contrib(page);
        let groff = run(Command::new("groff").args(["-ww", "-man", "-Tutf8", "-z"]).arg(&file));
        assert!(groff.status.success() && groff.stderr.is_empty(), "{page}: {}", text(&groff.stderr));
        let mandoc = run(Command::new("mandoc").args(["-Tlint", "-Wwarning"]).arg(&file));
        assert!(mandoc.status.success(), "{page}: {}", text(&mandoc.stdout));
    }
}

/// The lines of the unit that set `key`.
fn unit(key: &str) -> Vec<String> {
    let unit = fs::read_to_string(contrib("kcopyfs.service")).unwrap();
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
    unit.lines().filter_map(value).collect()
}

#[test]
fn the_units_are_understood_and_ours_is_exposed_little() {
    if !need::program("systemd-analyze", "systemd") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let units = ["kcopyfs.service", "examples/kcopyfs-nightly.service", "examples/kcopyfs-nightly.timer"];
    for name in units.into_iter().chain(["examples/station/kcopyfs-station@.service"]) {
        let unit = fs::read_to_string(contrib(name)).unwrap();
        // they are verified where they are not installed
        let unit = unit.replace("/usr/sbin/kcopyfs", PROGRAM);
        let examples = contrib("examples").display().to_string();
        let unit = unit.replace("/usr/share/doc/kcopyfs/examples", &examples);
        fs::write(folder.path().join(Path::new(name).file_name().unwrap()), unit).unwrap();
    }
    let at = |name: &str| folder.path().join(name);
    for name in ["kcopyfs.service", "kcopyfs-nightly.timer", "kcopyfs-station@sdb.service"] {
        let file = at(&name.replace("@sdb", "@"));
        let named = at(name);
        if file != named {
            symlink(&file, &named).unwrap();
        }
        let verify = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&named));
        let told = text(&verify.stderr);
        let ours: Vec<_> = told.lines().filter(|line| line.contains("kcopyfs")).collect();
        assert!(verify.status.success() && ours.is_empty(), "{name}: {told}");
    }
    let security = ["security", "--offline=true", "--threshold=40", "--no-pager"];
    let security = run(Command::new("systemd-analyze").args(security).arg(at("kcopyfs.service")));
    assert!(security.status.success(), "{}{}", text(&security.stdout), text(&security.stderr));
    // in a mount name space of the service nobody would see the tree
    let unit = fs::read_to_string(contrib("kcopyfs.service")).unwrap();
    for key in [
        "PrivateTmp=",
        "PrivateDevices=",
        "ProtectSystem=",
        "ProtectHome=",
        "ProtectKernel",
        "ProtectProc=",
        "ReadOnlyPaths=",
    ] {
        assert!(!unit.lines().any(|line| line.starts_with(key)), "{key}");
    }
}

/// The system calls that the unit's filter lets through.
fn allowed() -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for line in unit("SystemCallFilter") {
        let (names, denies) = line.strip_prefix('~').map_or((&*line, false), |names| (names, true));
        for name in names.split(' ') {
            let mut calls = BTreeSet::new();
            expand(name, &mut calls);
            if denies {
                allowed.retain(|call| !calls.contains(call));
            } else {
                allowed.extend(calls);
            }
        }
    }
    // what systemd itself needs to start a program, and every filter has
    expand("@default", &mut allowed);
    allowed
}

fn expand(name: &str, calls: &mut BTreeSet<String>) {
    if !name.starts_with('@') {
        calls.insert(name.to_owned());
        return;
    }
    let list = run(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", name]));
    assert!(list.status.success(), "{name}: {}", text(&list.stderr));
    for line in
        text(&list.stdout).lines().skip(1).map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        expand(line, calls);
    }
}

/// A daemon as the unit runs it: with its capabilities and no others, and every system call written down.
struct Confined {
    strace: Child,
    mount: PathBuf,
}

impl Confined {
    fn start(folder: &Path, io: &str, calls: &Path) -> Self {
        let mount = folder.join("mount");
        fs::create_dir_all(&mount).unwrap();
        let kept = unit("CapabilityBoundingSet").join(" ").to_lowercase();
        let kept: Vec<String> = kept.split(' ').map(|cap| cap.replace("cap_", "+")).collect();
        let bounds = format!("-all,{}", kept.join(","));
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o"])
            .arg(calls)
            .args(["setpriv", "--bounding-set", &bounds, "--no-new-privs", PROGRAM, "-f", "-o"])
            .arg(format!("pages=512,client_pages=256,io={io},state={}/state", folder.display()))
            .arg(&mount)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let confined = Self { strace, mount };
        until("the tree", || confined.mount.join("version").exists().then_some(()));
        confined
    }

    fn job(&self, spec: &str) -> String {
        let new = self.mount.join("jobs/new");
        let script =
            format!("exec 3<>{}; echo \"$0\" >&3; read id <&3; cat {}/wait/$id", new.display(), self.mount.display());
        let output = run(Command::new("sh").args(["-c", &script, spec]));
        text(&output.stdout)
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        // it ends with its mount
        let _ = Command::new("umount").arg(&self.mount).status();
        let _ = self.strace.wait();
    }
}

#[test]
fn the_unit_leaves_the_daemon_what_it_needs() {
    let tools =
        [("systemd-analyze", "systemd"), ("strace", "strace"), ("setpriv", "util-linux"), ("flock", "util-linux")];
    if !need::fault_disk() || !tools.iter().all(|(program, package)| need::program(program, package)) {
        return;
    }
    let allowed = allowed();
    for io in ["uring", "threads"] {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let calls = folder.path().join("calls");
        let (source, dest) =
            (kcopyfs_support::LoopDevice::new(4 << 20, 512), kcopyfs_support::LoopDevice::new(4 << 20, 512));
        source.fill(1);
        let (from, to) = (source.path().display().to_string(), dest.path().display().to_string());
        let image = folder.path().join("image");
        // somebody else's, whom root may read
        fs::write(&image, vec![5; 1 << 20]).unwrap();
        std::os::unix::fs::chown(&image, Some(1234), Some(1234)).unwrap();
        fs::set_permissions(&image, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        {
            let daemon = Confined::start(folder.path(), io, &calls);
            for spec in [
                format!("from={from} to={to} to={}/new create sparse verify digest=sha256", folder.path().display()),
                format!("from={} to={to} on_read_error=zero retries=1", image.display()),
                format!("verify from={from} to={}/new", folder.path().display()),
                format!("zero to={to},0,1M sparse"),
            ] {
                let told = daemon.job(&spec);
                assert!(told.contains("\nstate done\n") || told.contains("state done\n"), "io={io} {spec}: {told}");
            }
            fs::write(daemon.mount.join("speed_max"), "50M\n").unwrap();
            fs::create_dir(daemon.mount.join("clients/other")).unwrap();
            for file in ["summary", "engine", "metrics", "events", "README"] {
                assert!(!fs::read_to_string(daemon.mount.join(file)).unwrap().is_empty(), "{file}");
            }
        }
        let calls = fs::read_to_string(&calls).unwrap();
        // `PID NAME(...`, or `PID <... NAME resumed>...`
        let name = |line: &str| {
            let (_, call) = line.split_once(' ')?;
            let (name, _) = call.trim_start().split_once('(')?;
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_').then(|| name.to_owned())
        };
        let begin = format!("execve(\"{PROGRAM}\"");
        let program = calls.lines().skip_while(|line| !line.contains(&begin));
        let used: BTreeSet<String> = program.filter_map(name).collect();
        assert!(used.contains("mount") && used.len() > 30, "{used:?}");
        let denied: Vec<_> = used.difference(&allowed).collect();
        assert!(denied.is_empty(), "io={io}: the filter of the unit denies {denied:?}");
        let families = unit("RestrictAddressFamilies").join(" ");
        let sockets = calls.lines().filter(|line| line.contains(" socket(") || line.contains(" socketpair("));
        for line in sockets {
            let family = line.split_once('(').and_then(|(_, rest)| rest.split([',', ')']).next()).unwrap_or_default();
            assert!(families.split(' ').any(|allowed| allowed == family), "io={io}: {line}");
        }
        // memory that is written is never run
        let both = calls.lines().find(|line| line.contains("PROT_WRITE|PROT_EXEC"));
        assert!(both.is_none(), "io={io}: {both:?}");
    }
}

#[test]
fn alerts_fire_when_they_should() {
    if !need::program("promtool", "prometheus") {
        return;
    }
    let folder = contrib("examples/prometheus");
    let tested = run(Command::new("promtool").args(["test", "rules", "kcopyfs.rules.test.yml"]).current_dir(&folder));
    assert!(tested.status.success(), "{}{}", text(&tested.stdout), text(&tested.stderr));
}

#[test]
fn alerts_and_dashboard_ask_for_figures_that_are_there() {
    let scratch = tempfile::tempdir().unwrap();
    let daemon = Daemon::builder(PROGRAM).option("pages=512,client_pages=256").start();
    let file = scratch.path().join("file");
    fs::write(&file, vec![1; 4096]).unwrap();
    daemon.job(&format!("zero to={},0,8 paused", file.display())).unwrap();
    let metrics = daemon.read("metrics.prom").unwrap();
    let known: BTreeSet<&str> =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for file in ["examples/prometheus/kcopyfs.rules.yml", "examples/prometheus/grafana-dashboard.json"] {
        let mut asked = String::new();
        File::open(contrib(file)).unwrap().read_to_string(&mut asked).unwrap();
        let names: BTreeSet<&str> = asked
            .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'))
            .filter(|word| word.starts_with("kcopyfs_"))
            .collect();
        assert!(names.len() >= 5, "{file}: {names:?}");
        let unknown: Vec<_> = names.difference(&known).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}\n{known:?}");
    }
    if need::program("python3", "python3") {
        let dashboard = contrib("examples/prometheus/grafana-dashboard.json");
        let read = "import json,sys; d=json.load(open(sys.argv[1])); ids=[p['id'] for p in d['panels']]; \
                    assert len(ids)==len(set(ids))>5 and all(t['expr'] for p in d['panels'] for t in p['targets'])";
        let read = run(Command::new("python3").args(["-c", read]).arg(dashboard));
        assert!(read.status.success(), "{}", text(&read.stderr));
    }
}

/// Runs an example over a daemon's tree.
fn example(daemon: &Daemon, script: &str, arguments: &[&str], variables: &[(&str, String)]) -> Output {
    let mut command = Command::new(contrib("examples").join(script));
    run(command
        .args(arguments)
        .env("KCOPYFS", daemon.mount())
        .envs(variables.iter().map(|(name, value)| (name, value))))
}

#[test]
fn copy_and_wait_tells_how_it_went() {
    let scratch = tempfile::tempdir().unwrap();
    let daemon = Daemon::builder(PROGRAM).option("pages=512,client_pages=256").start();
    let (source, dest) = (scratch.path().join("source"), scratch.path().join("it's a copy"));
    fs::write(&source, vec![7; 64 << 10]).unwrap();
    let from = format!("from={}", source.display());
    let to = format!("to='{}'", dest.display().to_string().replace('\'', "'\\''"));
    let done = example(&daemon, "copy-and-wait", &[&from, &to, "create", "verify"], &[]);
    assert!(done.status.success() && done.stdout.is_empty() && done.stderr.is_empty(), "{done:?}");
    assert_eq!(fs::read(&dest).unwrap(), vec![7; 64 << 10]);

    let refused = example(&daemon, "copy-and-wait", &[&from, "to=/nowhere"], &[]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("/nowhere"), "{refused:?}");

    fs::write(&dest, vec![8; 64 << 10]).unwrap();
    let failed = example(&daemon, "copy-and-wait", &["verify", &from, &to], &[]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(text(&failed.stdout).contains("differs 0 0 128"), "{failed:?}");

    // over a stand-in for ssh: a shell of its own, which gets the script on its standard input
    fs::remove_file(&dest).unwrap();
    let ssh = scratch.path().join("ssh");
    fs::write(&ssh, "#!/bin/sh\nshift\nexec \"$@\"\n").unwrap();
    fs::set_permissions(&ssh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let ssh = [("SSH", ssh.display().to_string())];
    let done = example(&daemon, "copy-over-ssh", &["root@there", &from, &to, "create"], &ssh);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(fs::read(&dest).unwrap(), vec![7; 64 << 10]);
}

#[test]
fn notify_at_end_runs_a_command_for_each_end() {
    let scratch = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::builder(PROGRAM).option("pages=512,client_pages=256").start();
    let (file, told) = (scratch.path().join("file"), scratch.path().join("told"));
    fs::write(&file, vec![1; 4096]).unwrap();
    let spec = format!("zero to={},0,8", file.display());
    let before = daemon.job(&spec).unwrap();
    daemon.wait(before);
    let script = format!("echo \"$1 $2 $3\" >> {}", told.display());
    let mut notify = Command::new("setsid")
        .arg(contrib("examples/notify-at-end"))
        .args(["sh", "-c", &script, "sh"])
        .env("KCOPYFS", daemon.mount())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // tail looks once a second, and begins some time from now
    let until_told = |what: &str| {
        until(what, || fs::read_to_string(&told).unwrap_or_default().lines().any(|line| line == what).then_some(()));
    };
    let mut id = 0;
    until("the first one that is told", || {
        id = daemon.job(&format!("{spec} name=first")).unwrap();
        daemon.wait(id);
        fs::read_to_string(&told).is_ok_and(|told| told.contains(" done name=first")).then_some(())
    });
    let cancelled = daemon.job(&format!("{spec} paused")).unwrap();
    daemon.control(cancelled, "cancel").unwrap();
    until_told(&format!("{cancelled} cancelled "));
    daemon.stop();
    daemon.restart();
    let after = daemon.job(&format!("{spec} paused name=after")).unwrap();
    daemon.control(after, "cancel").unwrap();
    until_told(&format!("{after} cancelled name=after"));
    let told = fs::read_to_string(&told).unwrap();
    let is_told = |id: u64| told.lines().any(|line| line.starts_with(&format!("{id} done")));
    assert!(!is_told(before), "only what ends from then on:\n{told}");
    let mut once: Vec<_> = told.lines().collect();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), told.lines().count(), "nothing is told twice, also after a restart:\n{told}");
    let group = format!("-{}", notify.id());
    Command::new("kill").args(["-TERM", "--", &group]).status().unwrap();
    notify.wait().unwrap();
}

#[test]
fn the_station_overwrites_what_is_blank_or_its_own_and_nothing_else() {
    let tools = [("blkid", "util-linux"), ("blockdev", "util-linux"), ("mkfs.ext4", "e2fsprogs")];
    if !need::loops() || !tools.iter().all(|(program, package)| need::program(program, package)) {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let daemon = Daemon::builder(PROGRAM).option("pages=512,client_pages=256").start();
    let image = scratch.path().join("master.img");
    File::create(&image).unwrap().set_len(SIZE).unwrap();
    assert!(run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image)).status.success());
    let settings = |most: u64| {
        [
            ("IMAGE", image.display().to_string()),
            ("MAX_BYTES", most.to_string()),
            ("STATION_CONF", "/nonexistent".to_owned()),
        ]
    };
    let station =
        |disk: &Path, most: u64| example(&daemon, "station/station", &[&disk.display().to_string()], &settings(most));

    let disk = kcopyfs_support::LoopDevice::new(SIZE, 512);
    let refused = station(disk.path(), SIZE - 512);
    assert!(!refused.status.success() && text(&refused.stderr).contains("more than"), "{refused:?}");
    let cloned = station(disk.path(), SIZE);
    assert!(cloned.status.success(), "{cloned:?}");
    assert!(fs::read(disk.path()).unwrap() == fs::read(&image).unwrap());
    // it is its own now
    let again = station(disk.path(), SIZE);
    assert!(again.status.success(), "{again:?}");

    let other = kcopyfs_support::LoopDevice::new(SIZE, 512);
    assert!(run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(other.path())).status.success());
    let before = fs::read(other.path()).unwrap();
    let refused = station(other.path(), SIZE);
    assert!(!refused.status.success() && text(&refused.stderr).contains("something else is on it"), "{refused:?}");
    assert!(fs::read(other.path()).unwrap() == before, "not one byte of it");

    let small = kcopyfs_support::LoopDevice::new(SIZE / 2, 512);
    let refused = station(small.path(), SIZE);
    assert!(!refused.status.success() && text(&refused.stderr).contains("the image has"), "{refused:?}");
}
