//! A table of commands, and the runner.
//!
//! A row's command finds the mount in `M` and the scratch directory, where it starts, in `S`. There are `a`, a source of
//! 64 KiB of text, and the destinations `b`, `c`, `cut` and `cutting` of the same size. The functions below are there too.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{fs, process::Command};

use kcopyfs_support::{Daemon, daemon::Builder, need};

/// One command.
pub(crate) struct Row {
    /// Who runs it.
    pub(crate) shell: &'static str,
    /// What is typed.
    pub(crate) command: &'static str,
    /// How it ends.
    pub(crate) status: i32,
    /// What it says, on both streams.
    pub(crate) said: Said,
    /// How many jobs it makes.
    pub(crate) made: u64,
    /// What bash must find true afterwards; nothing where it is empty.
    pub(crate) after: &'static str,
}

/// What a command says.
#[derive(Debug)]
pub(crate) enum Said {
    /// This and nothing else.
    Is(&'static str),
    /// All of these.
    Has(&'static [&'static str]),
    /// Whatever it likes.
    Any,
}

/// Bytes of each image.
const IMAGE: usize = 64 << 10;

/// What every script can use. `last`: the newest job's number. `state ID`. `ended ID`: waits for its end. `fresh FILE`:
/// zeros. `slow NAME`: makes a job of 1 byte a second, which runs for 18 hours. `line DEST CUT AT`: a spec whose first AT bytes end in CUT.
const PRELUDE: &str = r#"
cd "$S" || exit 99
last() { ls "$M/jobs" | grep -v new | sort -n | tail -n 1; }
state() { sed -n 's/^state //p' "$M/jobs/$1/status"; }
ended() { cat "$M/wait/$1" > /dev/null 2>&1; ! test -e "$M/state/running/$1"; }
fresh() { dd if=/dev/zero of="$S/$1" bs=64K count=1 2> /dev/null; }
slow() { fresh "slow.$1"; echo "from=$S/a to=$S/slow.$1 name=$1 speed_max=1" > "$M/jobs/new"; }
line() { printf "%-$(($3 - 3 - ${#S} - 1 - ${#2}))sto=%s" "from=$S/a" "$S/$1"; }
"#;

/// A mounted tree, and a scratch directory.
pub(crate) struct Bench {
    // First, so that the tree is gone before the files that it works on.
    pub(crate) daemon: Daemon,
    scratch: tempfile::TempDir,
}

impl Bench {
    /// A bench with `options`, or `None` where the machine has no FUSE, or lacks one of `programs` (name and package).
    pub(crate) fn new(options: &[&str], programs: &[(&str, &str)]) -> Option<Self> {
        if !need::fuse() || !programs.iter().all(|(program, package)| need::program(program, package)) {
            return None;
        }
        let scratch = tempfile::Builder::new().prefix("kcopyfs-shell-").tempdir().expect("a scratch directory");
        // Other users are to be refused by the tree, not by the way to it.
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let text: Vec<u8> = b"kcopyfs copies this line\n".iter().copied().cycle().take(IMAGE).collect();
        fs::write(scratch.path().join("a"), text).expect("a source");
        for image in ["b", "c", "cut", "cutting"] {
            fs::write(scratch.path().join(image), vec![0; IMAGE]).expect("a destination");
        }
        let mount = scratch.path().join("tree");
        fs::create_dir(&mount).expect("a mount point");
        let builder = Daemon::builder(program()).mount_at(&mount).option("state=none");
        let daemon = options.iter().fold(builder, |builder: Builder, option| builder.option(*option)).start();
        Some(Self { daemon, scratch })
    }

    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Runs every row, and tells of all that are not as they should be.
    pub(crate) fn run(&self, rows: &[Row]) {
        let wrong: Vec<String> = rows.iter().filter_map(|row| self.wrong(row)).collect();
        assert!(wrong.is_empty(), "{} of {} commands:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    }

    fn wrong(&self, row: &Row) -> Option<String> {
        let before = self.made();
        let output = self.script(row.shell, row.command);
        let said = format!("{}{}", output.stdout, output.stderr);
        let mut wrong = Vec::new();
        if output.code() != row.status {
            wrong.push(format!("exit status {}, not {}", output.code(), row.status));
        }
        let is_said = match &row.said {
            Said::Is(text) => said == *text,
            Said::Has(parts) => parts.iter().all(|part| said.contains(part)),
            Said::Any => true,
        };
        if !is_said {
            wrong.push(format!("said other than {:?}", row.said));
        }
        let made = self.made() - before;
        if made != row.made {
            wrong.push(format!("{made} jobs, not {}", row.made));
        }
        if wrong.is_empty() && !row.after.is_empty() {
            let after = self.script("bash", &format!("set -e -o pipefail\n{}", row.after));
            if after.code() != 0 {
                wrong.push(format!("afterwards not so: {} ({}{})", row.after, after.stdout, after.stderr));
            }
        }
        let tail = said.len().saturating_sub(2000);
        let end = said.get(tail..).unwrap_or(&said);
        (!wrong.is_empty()).then(|| format!("{}: {}\n  {}\n  it said: {end}", row.shell, row.command, wrong.join("; ")))
    }

    /// Runs a script with all that a row finds.
    pub(crate) fn script(&self, shell: &str, script: &str) -> kcopyfs_support::daemon::Output {
        let place = self.scratch().display();
        let program = program().display().to_string();
        self.daemon.sh(shell, &format!("export S='{place}' K='{program}'{PRELUDE}{script}"))
    }

    /// How many jobs were made since the daemon began.
    fn made(&self) -> u64 {
        let metrics = self.daemon.read("metrics").expect("read metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix("kcopyfs_jobs_made_total "));
        line.and_then(|count| count.parse().ok()).expect("a count of jobs")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // What a row mounted beside the tree; a daemon in the background ends with its mount.
        for entry in fs::read_dir(self.scratch()).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name() != "tree" && path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'm') {
                let _ = Command::new("umount").args(["-l", "-q"]).arg(&path).output();
            }
        }
    }
}

/// The program under test.
pub(crate) fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_kcopyfs").into()
}
