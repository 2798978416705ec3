//! `kcopyfs demo`: the main job on scratch images, shown as the commands that a person would type.
//!
//! Every line behind a `#` prompt is run by sh as it stands, in the scratch folder, and what stands below it is what it
//! printed. The broken destination is real too: no file of this daemon may grow beyond the size of the disk, so a copy
//! that begins in the middle of a file fails half way, as on a disk that dies there.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kcopyfs::cli::Signals;
use kcopyfs::{Error, ErrorKind, Result};

/// Bytes of a scratch image.
const IMAGE: usize = 96 << 20;
/// What the daemon runs under: no file grows beyond so many blocks of 512 bytes (EFBIG).
const LIMITED: &str = "ulimit -f \"$1\"; shift; exec \"$@\"";
/// The engine may do I/O in so many percent of the time: on scratch images in memory it would end before it is seen.
const THROTTLE: u32 = 5;

/// Runs the demo; whatever happens, nothing stays behind.
pub(crate) fn run() -> Result<()> {
    let signals = Signals::block()?;
    let scratch = Scratch::new()?;
    let folder = scratch.path.clone();
    // Ctrl-C: the daemon unmounts by itself, being told too; the folder goes here.
    std::thread::spawn(move || {
        if signals.wait(None, None).is_ok() {
            clean(&folder);
            std::process::exit(130);
        }
    });
    let mut show = Show { folder: scratch.path.clone(), failed: 0 };
    show.everything()?;
    drop(scratch);
    if show.failed > 0 {
        let what = format!("demo: {} of its commands did not do what it says", show.failed);
        return Err(Error::new(ErrorKind::Os(libc::EIO), what));
    }
    println!("\nUnmounted and removed: nothing is left behind. Now with your own disks:");
    farewell()
}

/// What to type next, on this machine as it is: the program need not be installed.
fn farewell() -> Result<()> {
    let program = std::env::current_exe().map_err(|error| Error::os("the path of this program", error))?;
    let user = nix::unistd::geteuid();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let point = if user.is_root() { PathBuf::from("/run/kcopyfs") } else { runtime.join("kcopyfs") };
    let (program, point) = (quoted(&program), quoted(&point));
    println!("    mkdir -p {point}\n    {program} {point}\n    cat {point}/README\n    watch -n1 cat {point}/summary");
    Ok(())
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+".contains(letter);
    if text.chars().all(is_plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// A folder for images and the mount.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new() -> Result<Self> {
        let memory = Path::new("/dev/shm");
        let parent = if is_roomy(memory) { memory.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("kcopyfs-demo.{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| Error::os(format!("create {}", path.display()), error))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        clean(&self.path);
    }
}

fn clean(folder: &Path) {
    if let Err(error) = std::fs::remove_dir_all(folder) {
        eprintln!("kcopyfs: demo: {} cannot be removed: {error}", folder.display());
    }
}

/// Whether three images fit there with room to spare, by what df(1) says.
fn is_roomy(folder: &Path) -> bool {
    let df = Command::new("df").arg("--output=avail").arg("-B1").arg(folder).stderr(Stdio::null()).output();
    let Ok(df) = df else { return false };
    let text = String::from_utf8_lossy(&df.stdout);
    let free = text.lines().last().and_then(|line| line.trim().parse::<usize>().ok());
    free.is_some_and(|free| free > 4 * IMAGE)
}

/// A source that no two blocks of are alike.
fn make_source(path: &Path) -> io::Result<()> {
    let mut bytes = vec![0_u8; IMAGE];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for word in bytes.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    std::fs::write(path, bytes)
}

/// The daemon, in the foreground as our child.
struct Daemon {
    child: Child,
}

impl Daemon {
    fn start(folder: &Path) -> Result<Self> {
        let failed = |error| Error::os("start the daemon", error);
        let program = std::env::current_exe().map_err(failed)?;
        let mut child = Command::new("sh")
            .args(["-c", LIMITED, "sh", &(IMAGE / 512).to_string()])
            .arg(program)
            .args(["-f", "-o", &format!("state=none,throttle={THROTTLE}")])
            .arg(folder.join("ctl"))
            .env("RUST_LOG", "error")
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        while !folder.join("ctl/version").exists() {
            if child.try_wait().map_err(failed)?.is_some() {
                let mut said = String::new();
                if let Some(mut stderr) = child.stderr.take() {
                    io::Read::read_to_string(&mut stderr, &mut said).map_err(failed)?;
                }
                return Err(Error::new(ErrorKind::Os(libc::EIO), format!("demo: {}", said.trim())));
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Ok(Self { child })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // As an administrator would: kill(1) sends SIGTERM, and the daemon unmounts.
        let told = Command::new("kill").arg(self.child.id().to_string()).status();
        if !told.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// What the person sees.
struct Show {
    folder: PathBuf,
    failed: u32,
}

impl Show {
    fn everything(&mut self) -> Result<()> {
        println!("kcopyfs: block-copy jobs as files. A disk is copied to two others, then one of them breaks.");
        println!("Scratch folder: {}\n", self.folder.display());
        let failed = |error| Error::os("scratch images", error);
        make_source(&self.folder.join("disk.img")).map_err(failed)?;
        std::fs::create_dir(self.folder.join("ctl")).map_err(failed)?;

        Self::say("Mount the control tree (slowed down for this demo, so that there is something to see).");
        println!("# kcopyfs -o throttle={THROTTLE} ctl");
        let daemon = Daemon::start(&self.folder)?;
        self.sh("ls ctl ctl/jobs", true);

        Self::say(
            "A line written to jobs/new is a job: one source, up to 64 destinations. The shell gets its number back.",
        );
        self.sh(
            "exec 3<>ctl/jobs/new; echo \"copy from=$PWD/disk.img to=$PWD/one.img to=$PWD/two.img create name=demo\" >&3; \
             read id <&3; echo job $id",
            true,
        );
        Self::say(
            "wait/1 tells how the job stands until it ends, and then its status; reading it fails unless all went well.",
        );
        self.sh("cat ctl/wait/1 && echo all is well", true);
        Self::say("ls tells something too: a job's size is the bytes copied, its time the last progress.");
        self.sh("ls -l ctl/jobs", true);
        self.sh("cmp disk.img one.img && cmp disk.img two.img && echo both are equal", true);

        Self::say(
            "Now the second destination breaks half way (in this demo no file may grow beyond 96 MiB).
   \
             It is dropped, and the first one gets everything.",
        );
        self.sh("echo \"copy from=$PWD/disk.img to=$PWD/one.img to=$PWD/two.img,48M\" > ctl/jobs/new", true);
        self.sh("cat ctl/wait/2 && echo all is well", false);
        self.sh("cat ctl/jobs/2/dests ctl/jobs/2/errors", true);
        self.sh("cat ctl/jobs/2/picture", true);
        self.sh("cmp disk.img one.img && echo the first destination is equal", true);
        self.sh("grep -qx 'write_err 0x2' ctl/jobs/2/status && echo bit 1 is set: destination 1 failed", true);

        Self::say("What cannot be right is refused before anything is touched, and says why.");
        self.sh("echo \"copy from=$PWD/disk.img to=/dev/sdzz\" > ctl/jobs/new", false);
        self.sh("cat ctl/error_log", true);

        Self::say("Unmount.");
        println!("# umount ctl");
        drop(daemon);
        Ok(())
    }

    fn say(text: &str) {
        println!("\n== {text}");
    }

    /// Shows a command, runs it, with what it prints below it as it comes; counts it if it ends otherwise than `well`.
    fn sh(&mut self, command: &str, well: bool) {
        println!("# {command}");
        let ended = io::stdout().flush().and_then(|()| {
            // Errors belong where the person looks.
            let errors = io::stdout().as_fd().try_clone_to_owned()?;
            Command::new("sh").arg("-c").arg(command).current_dir(&self.folder).stderr(errors).status()
        });
        match ended {
            Ok(status) => self.failed += u32::from(status.success() != well),
            Err(error) => {
                println!("sh: {error}");
                self.failed += 1;
            }
        }
    }
}
