//! The program under test, in the foreground on a fresh mount point.
//!
//! ```no_run
//! use kcopyfs_support::Daemon;
//!
//! # let program = "";
//! // in a test of the package: env!("CARGO_BIN_EXE_kcopyfs")
//! let mut daemon = Daemon::builder(program).option("state=none").start();
//! let id = daemon.job("from=/dev/loop0 to=/dev/loop1").unwrap();
//! assert_eq!(daemon.wait(id).state(), "done");
//! daemon.stop();
//! ```
//!
//! # Start
//! 1. A datagram socket in the scratch directory is the child's `NOTIFY_SOCKET`.
//! 2. The child starts; we wait for `READY=1` or its end, whichever comes first.
//! 3. `version` must answer then, at once.
//!
//! Everything that asks the tree has a limit; past it the daemon is killed and the test fails. Let disks be declared
//! before the daemon that uses them, so that they are dropped after it.

mod events;
mod shell;
mod status;
mod watchdog;

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use tempfile::TempDir;

use self::watchdog::Watchdog;
pub use self::{
    events::{Event, Events},
    shell::{Output, SCRIPT_LIMIT},
    status::{BadRange, Dest, STATES, STATUS_KEYS, Status},
};
use crate::{
    mounts,
    process::{self, Pidfd},
};

/// How long the daemon may take until its tree answers.
pub const START_LIMIT: Duration = Duration::from_secs(10);

/// How long it may take to end after SIGTERM.
pub const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How long reading or writing a file of the tree may take.
pub const FILE_LIMIT: Duration = Duration::from_secs(10);

/// How long a job may take.
pub const JOB_LIMIT: Duration = Duration::from_secs(60);

/// How a daemon is to be started.
#[derive(Debug)]
pub struct Builder {
    program: PathBuf,
    options: Vec<String>,
    environment: Vec<(OsString, OsString)>,
    mount: Option<PathBuf>,
}

impl Builder {
    /// Adds an option of `-o`, as `pages=1024`. Without one of `state=` the state is a scratch directory that lasts as
    /// long as the [`Daemon`], restarts included.
    #[must_use]
    pub fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Mounts at `point`, which must exist, in place of a fresh directory.
    #[must_use]
    pub fn mount_at(mut self, point: impl Into<PathBuf>) -> Self {
        self.mount = Some(point.into());
        self
    }

    /// Starts it and waits until its tree answers.
    ///
    /// # Panics
    /// If it does not, with what it wrote to stderr.
    pub fn start(self) -> Daemon {
        self.try_start().unwrap_or_else(|refused| panic!("the daemon did not start: {refused:?}"))
    }

    /// Starts it and waits until its tree answers.
    ///
    /// # Errors
    /// How it ended, if it did instead.
    pub fn try_start(mut self) -> Result<Daemon, Refused> {
        let scratch = tempfile::Builder::new().prefix("kcopyfs-daemon-").tempdir().expect("a scratch directory");
        let mount = self.mount.take().unwrap_or_else(|| {
            let mount = scratch.path().join("mount");
            fs::create_dir(&mount).expect("a mount point");
            mount
        });
        if !self.options.iter().any(|option| option.starts_with("state=")) {
            let state = scratch.path().join("state");
            fs::create_dir(&state).expect("a state directory");
            self.options.push(format!("state={}", state.display()));
        }
        let mut daemon = Daemon { plan: self, mount, run: None, told: 0, scratch };
        daemon.launch().map(|()| daemon)
    }
}

/// A daemon that ended instead of mounting.
#[derive(Clone, Debug)]
pub struct Refused {
    /// How it ended; `None` if it did neither that nor answer, and was killed.
    pub status: Option<ExitStatus>,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// A spec that was refused.
#[derive(Debug)]
pub struct RefusedSpec {
    /// What write(2) said.
    pub errno: i32,
    /// What the same open file said when it was read: the reason, without `error: `.
    pub reason: String,
}

/// What reading `wait/ID` gave.
#[derive(Clone, Debug)]
pub struct Waited {
    /// The lines of progress.
    pub progress: Vec<String>,
    /// The status at the end.
    pub status: Status,
    /// The errno that read(2) failed with at the end, if it did.
    pub errno: Option<i32>,
}

/// One run of the program.
#[derive(Debug)]
struct Run {
    child: Child,
    pidfd: Arc<Pidfd>,
    /// The process that does the work, once it is ready: its number, and the process.
    worker: Option<(u32, Pidfd)>,
    watchdog: Watchdog,
    /// Read, since the daemon tells how its jobs stand.
    drain: Option<Drain>,
}

/// Reads a socket for nobody, until it is dropped.
#[derive(Debug)]
struct Drain(UnixDatagram);

impl Drain {
    fn start(socket: UnixDatagram) -> Self {
        socket.set_nonblocking(false).expect("a socket that blocks");
        let reader = socket.try_clone().expect("a second descriptor");
        thread::spawn(move || while reader.recv(&mut [0; 4096]).is_ok_and(|length| length > 0) {});
        Self(socket)
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// The program under test; dropping it kills it and takes its mount away.
#[derive(Debug)]
pub struct Daemon {
    plan: Builder,
    mount: PathBuf,
    run: Option<Run>,
    /// Bytes of `events` from before this run.
    told: u64,
    scratch: TempDir,
}

impl Daemon {
    /// A daemon of `program`, which is `env!("CARGO_BIN_EXE_kcopyfs")`, to be shaped and started.
    pub fn builder(program: impl Into<PathBuf>) -> Builder {
        Builder { program: program.into(), options: Vec::new(), environment: Vec::new(), mount: None }
    }

    /// Where the tree is.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// A file of the tree.
    pub fn path(&self, file: impl AsRef<Path>) -> PathBuf {
        self.mount.join(file)
    }

    /// The process number of the running daemon, as whoever started it knows it.
    pub fn pid(&self) -> u32 {
        self.running().child.id()
    }

    /// The process that does the work: the child of [`pid`](Self::pid).
    pub fn worker(&self) -> u32 {
        self.running().worker.as_ref().expect("it is ready").0
    }

    /// What it wrote to stderr, over all its runs.
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The text of a file of the tree.
    pub fn read(&self, file: impl AsRef<Path>) -> io::Result<String> {
        let path = self.path(file);
        self.within(FILE_LIMIT, &path, || fs::read_to_string(&path))
    }

    /// Writes `text` to a file of the tree, by one write(2).
    pub fn write(&self, file: impl AsRef<Path>, text: &str) -> io::Result<()> {
        let path = self.path(file);
        self.within(FILE_LIMIT, &path, || write_once(&mut OpenOptions::new().write(true).open(&path)?, text))
    }

    /// Makes the job of one line of spec and returns its number.
    ///
    /// # Errors
    /// What write(2) said.
    pub fn job(&self, spec: &str) -> io::Result<u64> {
        let path = self.path("jobs/new");
        self.within(FILE_LIMIT, &path, || {
            let mut new = OpenOptions::new().read(true).write(true).open(&path)?;
            write_once(&mut new, &format!("{spec}\n"))?;
            let answer = read_once(&mut new)?;
            let id = answer.strip_suffix('\n').and_then(|id| id.parse().ok());
            Ok(id.unwrap_or_else(|| panic!("jobs/new made a job and answered {answer:?}")))
        })
    }

    /// Writes a spec that must be refused.
    ///
    /// # Panics
    /// If it is not, or the reason is not told.
    pub fn refused(&self, spec: &str) -> RefusedSpec {
        self.refused_by("jobs/new", spec)
    }

    /// The same for `check`, or any other file that takes specs.
    ///
    /// # Panics
    /// If it is not refused.
    pub fn refused_by(&self, file: &str, spec: &str) -> RefusedSpec {
        let path = self.path(file);
        self.within(FILE_LIMIT, &path, || {
            let mut new = OpenOptions::new().read(true).write(true).open(&path).expect("open the file");
            let error = write_once(&mut new, &format!("{spec}\n")).expect_err("this spec should have been refused");
            let answer = read_once(&mut new).expect("read the reason");
            let reason = answer.strip_prefix("error: ").and_then(|rest| rest.strip_suffix('\n'));
            let reason = reason.unwrap_or_else(|| panic!("{file} refused and answered {answer:?}")).to_owned();
            RefusedSpec { errno: error.raw_os_error().expect("an errno"), reason }
        })
    }

    /// Writes a spec to `check` and reads what it says.
    ///
    /// # Errors
    /// Why the spec is refused.
    pub fn check(&self, spec: &str) -> io::Result<String> {
        let path = self.path("check");
        self.within(FILE_LIMIT, &path, || {
            let mut check = OpenOptions::new().read(true).write(true).open(&path)?;
            write_once(&mut check, &format!("{spec}\n"))?;
            let mut text = String::new();
            check.read_to_string(&mut text).map(|_| text)
        })
    }

    /// Writes a verb to a job's `control`.
    pub fn control(&self, id: u64, verb: &str) -> io::Result<()> {
        self.write(format!("jobs/{id}/control"), &format!("{verb}\n"))
    }

    /// A job's `status`.
    pub fn status(&self, id: u64) -> Status {
        Status::parse(&self.read(format!("jobs/{id}/status")).expect("read status"))
    }

    /// A job's `dests`.
    pub fn dests(&self, id: u64) -> Vec<Dest> {
        Dest::parse_all(&self.read(format!("jobs/{id}/dests")).expect("read dests"))
    }

    /// A job's `errors`.
    pub fn errors(&self, id: u64) -> Vec<BadRange> {
        BadRange::parse_all(&self.read(format!("jobs/{id}/errors")).expect("read errors"))
    }

    /// Waits for a job to end and returns its status then, however it ended.
    pub fn wait(&self, id: u64) -> Status {
        self.wait_to_end(id).status
    }

    /// Reads `wait/ID` to its end.
    ///
    /// # Panics
    /// If the job takes longer than [`JOB_LIMIT`], the file cannot be read, or it ends with anything but a status.
    pub fn wait_to_end(&self, id: u64) -> Waited {
        let path = self.path(format!("wait/{id}"));
        let (text, errno) = self.within(JOB_LIMIT, &path, || read_to_failure(&path));
        let lines: Vec<_> = text.lines().collect();
        let Some(at) = lines.len().checked_sub(STATUS_KEYS.len()) else {
            panic!("wait/{id} ended ({errno:?}) without a status:\n{text}");
        };
        let (progress, status) = lines.split_at(at);
        let status = Status::parse(&(status.join("\n") + "\n"));
        assert!(status.is_ended(), "wait/{id} ended before the job:\n{status}");
        Waited { progress: progress.iter().map(|line| (*line).to_owned()).collect(), status, errno }
    }

    /// Runs `script` by `shell -c`, with the mount point in `M`.
    ///
    /// # Panics
    /// If it takes longer than [`SCRIPT_LIMIT`].
    pub fn sh(&self, shell: &str, script: &str) -> Output {
        let run = self.running();
        let output = shell::run(shell, script, &self.mount, || {
            eprintln!("the script is stuck in the tree; killing the daemon");
            run.pidfd.signal(libc::SIGKILL);
            let _ = mounts::unmount_now(&self.mount);
        });
        output.unwrap_or_else(|| panic!("{shell} took longer than {SCRIPT_LIMIT:?}:\n{script}\n{}", self.log()))
    }

    /// Asks it to end, by SIGTERM, and does not wait.
    pub fn terminate(&self) {
        self.running().pidfd.signal(libc::SIGTERM);
    }

    /// Stops it as an administrator would, by SIGTERM.
    ///
    /// # Panics
    /// If it does not exit with 0 within [`STOP_LIMIT`], or leaves its mount behind.
    pub fn stop(&mut self) {
        let run = self.running();
        run.pidfd.signal(libc::SIGTERM);
        assert!(run.pidfd.wait(STOP_LIMIT), "still there {STOP_LIMIT:?} after SIGTERM:\n{}", self.log());
        let status = self.reap();
        assert!(status.success(), "{status} after SIGTERM:\n{}", self.log());
        assert!(!mounts::is_mounted(&self.mount), "the mount is left behind:\n{}", self.log());
    }

    /// Kills it as a crash would; its dead mount stays, for [`Daemon::restart`] to find.
    ///
    /// # Panics
    /// If it does not end: threads of it are stuck in devices.
    pub fn kill9(&mut self) {
        self.running().pidfd.signal(libc::SIGKILL);
        assert!(self.running().is_gone_within(STOP_LIMIT), "still there {STOP_LIMIT:?} after SIGKILL");
        self.reap();
    }

    /// Starts it again, the same way on the same mount point, after [`Daemon::stop`] or [`Daemon::kill9`].
    ///
    /// # Panics
    /// If its tree does not answer.
    pub fn restart(&mut self) {
        assert!(self.run.is_none(), "it still runs");
        self.launch().unwrap_or_else(|refused| panic!("the daemon did not start again: {refused:?}"));
    }

    fn launch(&mut self) -> Result<(), Refused> {
        let state = self.plan.options.iter().find_map(|option| option.strip_prefix("state="));
        let events = state.map(|state| Path::new(state).join("events"));
        self.told = events.and_then(|events| fs::metadata(events).ok()).map_or(0, |meta| meta.len());
        let notify = self.scratch.path().join("notify");
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).expect("a notify socket");
        let stderr = OpenOptions::new().create(true).append(true).open(self.log_path()).expect("a log");
        let before = stderr.metadata().expect("the log's size").len();
        let child = Command::new(&self.plan.program)
            .args(["-f", "-o", &self.plan.options.join(",")])
            .arg(&self.mount)
            .env("NOTIFY_SOCKET", &notify)
            .envs(self.plan.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.plan.program.display()));
        let pidfd = Arc::new(Pidfd::open(child.id()).expect("pidfd_open"));
        let watchdog = Watchdog::start(Arc::clone(&pidfd), self.mount.clone());
        let run = self.run.insert(Run { child, pidfd, worker: None, watchdog, drain: None });
        let pidfd = Arc::clone(&run.pidfd);
        if is_ready(&socket, &pidfd) {
            run.drain = Some(Drain::start(socket));
            run.worker = process::children(run.child.id()).find_map(|pid| Some((pid, Pidfd::open(pid).ok()?)));
            let version = self.read("version");
            assert!(version.is_ok(), "ready, but version says {version:?}:\n{}", self.log());
            return Ok(());
        }
        let ended = pidfd.wait(Duration::ZERO);
        pidfd.signal(libc::SIGKILL);
        let status = self.reap();
        let log = self.log().into_bytes();
        let stderr = log.get(usize::try_from(before).expect("a length")..).unwrap_or_default();
        Err(Refused { status: ended.then_some(status), stderr: String::from_utf8_lossy(stderr).into_owned() })
    }

    fn running(&self) -> &Run {
        self.run.as_ref().expect("the daemon runs")
    }

    /// Takes the end of a run that has ended or will very soon.
    fn reap(&mut self) -> ExitStatus {
        let mut run = self.run.take().expect("the daemon runs");
        run.child.wait().expect("wait")
    }

    fn within<T>(&self, limit: Duration, path: &Path, work: impl FnOnce() -> T) -> T {
        self.running().watchdog.within(limit, &path.display().to_string(), work)
    }

    /// The file that is its stderr.
    pub fn log_path(&self) -> PathBuf {
        self.scratch.path().join("log")
    }
}

impl Run {
    /// Waits for the end of both processes.
    fn is_gone_within(&self, limit: Duration) -> bool {
        self.pidfd.wait(limit) && self.worker.as_ref().is_none_or(|(_, worker)| worker.wait(limit))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the daemon's log\n{}---", self.log());
        }
        if let Some(mut run) = self.run.take() {
            run.pidfd.signal(libc::SIGKILL);
            // frees readers, and threads of the daemon that wait for its own tree
            let _ = mounts::unmount_now(&self.mount);
            if run.is_gone_within(STOP_LIMIT) {
                let _ = run.child.wait();
            } else {
                eprintln!("process {} is stuck in a device and stays behind", run.child.id());
            }
        }
        while mounts::is_mounted(&self.mount) && mounts::unmount_now(&self.mount).is_ok() {}
    }
}

/// Waits for `READY=1`; false if the daemon ends first, or neither happens in time: as a service manager does, which grants
/// the time that a daemon asks for.
fn is_ready(socket: &UnixDatagram, daemon: &Pidfd) -> bool {
    let mut until = std::time::Instant::now() + START_LIMIT;
    socket.set_nonblocking(true).expect("a socket that does not block");
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        let readable = process::wait_readable(&[socket.as_fd(), daemon.as_fd()], left);
        let mut message = [0; 4096];
        while let Ok(len) = socket.recv(&mut message) {
            let said = String::from_utf8_lossy(&message[..len]);
            if said.lines().any(|line| line == "READY=1") {
                return true;
            }
            let more = said.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC=")?.parse().ok());
            until = until.max(std::time::Instant::now() + Duration::from_micros(more.unwrap_or(0)));
        }
        if readable[1] || left.is_zero() {
            return false;
        }
    }
}

/// One write(2) of all of `text`: jobs are made by single writes.
fn write_once(file: &mut File, text: &str) -> io::Result<()> {
    let len = file.write(text.as_bytes())?;
    assert_eq!(len, text.len(), "a control file took only a part of {text:?}");
    Ok(())
}

/// One read(2).
fn read_once(file: &mut File) -> io::Result<String> {
    let mut buf = vec![0; 1 << 16];
    let len = file.read(&mut buf)?;
    Ok(String::from_utf8_lossy(&buf[..len]).into_owned())
}

/// All that can be read of `path`, and the errno at its end if it was not a plain one.
fn read_to_failure(path: &Path) -> (String, Option<i32>) {
    let mut file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut text = Vec::new();
    let mut buf = vec![0; 1 << 16];
    let errno = loop {
        match file.read(&mut buf) {
            Ok(0) => break None,
            Ok(len) => text.extend_from_slice(&buf[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => match error.raw_os_error() {
                Some(errno @ (libc::EIO | libc::ECANCELED)) => break Some(errno),
                _ => panic!("{}: {error}", path.display()),
            },
        }
    };
    (String::from_utf8_lossy(&text).into_owned(), errno)
}
