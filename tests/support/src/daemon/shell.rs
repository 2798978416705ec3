//! Scripts against the tree, with a limit.

use std::{
    fs::File,
    io::{Read as _, Seek as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use crate::process::{self, Pidfd};

/// How long a script may run.
pub const SCRIPT_LIMIT: Duration = Duration::from_secs(30);

/// How long a killed script may take to be gone; longer, and it is stuck in the tree.
const KILL_LIMIT: Duration = Duration::from_secs(2);

/// What a script did.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Output {
    /// Its exit code; 128 and the signal if one killed it.
    pub fn code(&self) -> i32 {
        self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal)).expect("it has ended")
    }

    /// What it printed, if all went well.
    ///
    /// # Panics
    /// If it exited with anything but 0.
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{}\n{}{}", self.status, self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs `script` by `shell -c`, with the mount point in `M`, in a process group of its own, of which nothing is left
/// afterwards. `None` if it took longer than [`SCRIPT_LIMIT`]; `on_stuck` is called if even then it cannot be killed.
pub(super) fn run(shell: &str, script: &str, mount: &Path, on_stuck: impl FnOnce()) -> Option<Output> {
    // files, not pipes: nobody has to empty them while the script runs
    let (mut stdout, mut stderr) = (scratch(), scratch());
    let mut child = Command::new(shell)
        .args(["-c", script])
        .env("M", mount)
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().expect("dup"))
        .stderr(stderr.try_clone().expect("dup"))
        .process_group(0)
        .spawn()
        .unwrap_or_else(|error| panic!("{shell}: {error}"));
    let pidfd = Pidfd::open(child.id()).expect("pidfd_open");
    let in_time = pidfd.wait(SCRIPT_LIMIT);
    // before it is reaped, so that the group's number is still its own
    process::kill_group(child.id());
    if !pidfd.wait(KILL_LIMIT) {
        on_stuck();
    }
    let status = child.wait().expect("wait");
    in_time.then(|| Output { status, stdout: contents(&mut stdout), stderr: contents(&mut stderr) })
}

fn scratch() -> File {
    tempfile::tempfile().expect("a scratch file")
}

fn contents(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read");
    String::from_utf8_lossy(&bytes).into_owned()
}
