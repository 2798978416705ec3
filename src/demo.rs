//! `kcopyfs demo`: the main job on scratch images, shown as the commands that a person would type.
//!
//! Every line behind a `#` prompt is run by sh as it stands, in the scratch folder. The broken disk is real too: a file
//! that the kernel refuses to let grow, so that writes beyond its half fail as on a disk that dies there.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kcopyfs::cli::Signals;
use kcopyfs::{Error, ErrorKind, Result};

/// Bytes of a scratch image.
const IMAGE: usize = 96 << 20;
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
    println!("    kcopyfs /run/kcopyfs && cat /run/kcopyfs/README");
    Ok(())
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

/// A disk that dies at its half: a file in memory that may not grow, found under `/proc` as long as this process lives.
fn broken_disk(folder: &Path) -> Result<File> {
    let failed = |error| Error::os("a scratch disk that breaks", error);
    let disk = sealed::half_file(IMAGE as u64 / 2).map_err(failed)?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&disk);
    let target = format!("/proc/{}/fd/{number}", std::process::id());
    std::os::unix::fs::symlink(target, folder.join("broken.img")).map_err(failed)?;
    Ok(disk)
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
        let mut child = Command::new(program)
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
        let disk = broken_disk(&self.folder)?;
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
        self.bar(1)?;
        self.sh("cat ctl/jobs/1/status", true);
        Self::say("ls tells something too: a job's size is the bytes copied, its time the last progress.");
        self.sh("ls -l ctl/jobs", true);
        self.sh("cmp disk.img one.img && cmp disk.img two.img && echo both are equal", true);

        Self::say("Now the second destination breaks half way. It is given up, the other one gets everything.");
        self.sh("echo \"copy from=$PWD/disk.img to=$PWD/one.img to=$PWD/broken.img\" > ctl/jobs/new", true);
        self.bar(2)?;
        self.sh("cat ctl/wait/2 > /dev/null && echo all is well || echo something is not: see status", true);
        self.sh("grep -E '^(state|read_err|write_err|percent|error) ' ctl/jobs/2/status", true);
        self.sh("cat ctl/jobs/2/dests ctl/jobs/2/errors", true);
        self.sh("cmp disk.img one.img && echo the other destination is equal", true);
        self.sh("grep -qx 'write_err 0x2' ctl/jobs/2/status && echo bit 1 is set: destination 1 failed", true);

        Self::say("What cannot be right is refused before anything is touched, and says why.");
        self.sh("echo \"copy from=$PWD/disk.img to=/dev/sdzz\" > ctl/jobs/new", false);
        self.sh("cat ctl/error_log", true);

        Self::say("Unmount.");
        println!("# umount ctl");
        drop((daemon, disk));
        Ok(())
    }

    fn say(text: &str) {
        println!("\n== {text}");
    }

    /// Shows a command, runs it, shows what it prints; counts it if it ends otherwise than `well`.
    fn sh(&mut self, command: &str, well: bool) {
        println!("# {command}");
        let _ = io::stdout().flush();
        let output = Command::new("sh").arg("-c").arg(command).current_dir(&self.folder).output();
        match output {
            Ok(output) => {
                print!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                self.failed += u32::from(output.status.success() != well);
            }
            Err(error) => {
                println!("sh: {error}");
                self.failed += 1;
            }
        }
    }

    /// `cat wait/ID`, drawn.
    fn bar(&self, id: u64) -> Result<()> {
        println!("# cat ctl/wait/{id}");
        let failed = |error| Error::os(format!("wait/{id}"), error);
        let screen = io::stdout().is_terminal();
        let status = self.folder.join(format!("ctl/jobs/{id}/status"));
        let waiting = BufReader::new(File::open(self.folder.join(format!("ctl/wait/{id}"))).map_err(failed)?);
        let drawn = std::thread::spawn(move || {
            // Its progress lines come once a second; on a screen the bar moves with the status file in between.
            let mut last = -1.0_f64;
            loop {
                let text = std::fs::read_to_string(&status).unwrap_or_default();
                let value =
                    |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("").trim().to_owned();
                let percent: f64 = value("percent ").parse().unwrap_or(0.0);
                let state = value("state ");
                let over = !matches!(&*state, "running" | "queued" | "flushing");
                if screen || over || percent - last >= 25.0 {
                    draw(percent, &value("speed "), &state, screen && !over);
                    last = percent;
                }
                if over {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        });
        // Read to the end; a job that did not end well fails the last read, as it should.
        waiting.lines().map_while(std::result::Result::ok).for_each(drop);
        drawn.join().map_err(|_| Error::new(ErrorKind::Os(libc::EIO), "demo: the bar broke"))
    }
}

fn draw(percent: f64, speed: &str, state: &str, stay: bool) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let full = (percent / 2.5) as usize;
    let bar: String = (0..40).map(|at| if at < full { '#' } else { '.' }).collect();
    let speed = speed.parse::<u64>().unwrap_or(0) >> 20;
    let end = if stay { "\r" } else { "\n" };
    print!("[{bar}] {percent:6.2} %  {speed:5} MiB/s  {state:9}{end}");
    let _ = io::stdout().flush();
}

/// The one system call that std does not have.
mod sealed {
    #![allow(unsafe_code)]

    use std::fs::File;
    use std::io;
    use std::os::fd::FromRawFd;

    /// A file of `bytes` bytes in memory that the kernel lets nobody make larger.
    pub(super) fn half_file(bytes: u64) -> io::Result<File> {
        // SAFETY: the name is a C string that lives until the call is back.
        let fd = unsafe { libc::memfd_create(c"kcopyfs-demo".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was made just now and nobody else has it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(bytes)?;
        // SAFETY: F_ADD_SEALS takes a number and touches no memory of ours.
        let sealed = unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_GROW) };
        if sealed < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
    }
}
