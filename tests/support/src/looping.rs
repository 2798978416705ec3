//! Loop devices by ioctl: attach a file to a free one, tell it the file's new size, detach it.
//!
//! # Invariants
//! - A device is set to clear itself at its last close (`LO_FLAGS_AUTOCLEAR`), and an [`Attached`] keeps it open. So a
//!   test process that is killed leaves no loop device behind.
//! - The device is locked with flock(2) while it is attached, so that no other test process takes it. Later it is not: the
//!   program under test locks it, to keep udev away.
#![allow(unsafe_code)]

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::fd::{AsRawFd, RawFd},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

const LOOP_CLR_FD: libc::Ioctl = 0x4c01;
const LOOP_SET_CAPACITY: libc::Ioctl = 0x4c07;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// How long to go on asking for a free device while others take them from under us.
const ATTACH_LIMIT: Duration = Duration::from_secs(10);

/// How long a device may stay in use by others after its fixture let go of it.
const DETACH_LIMIT: Duration = Duration::from_secs(5);

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// How a file is attached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Logical block in bytes.
    pub(crate) block: u32,
    /// Fail where requests cannot be passed through as they are, but only by way of the page cache.
    pub(crate) must_be_direct: bool,
    /// Refuse writes.
    pub(crate) read_only: bool,
    /// Where in the file the device begins, in bytes.
    pub(crate) offset: u64,
}

/// A file attached to a loop device; dropping it detaches.
#[derive(Debug)]
pub(crate) struct Attached {
    hold: Option<File>,
    number: u32,
    path: PathBuf,
}

impl Attached {
    /// Attaches `backing`, whatever device is free.
    pub(crate) fn new(backing: &File, shape: Shape) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let until = Instant::now() + ATTACH_LIMIT;
        loop {
            // GET_FREE only looks: another process may take the same device before LOOP_CONFIGURE, which then says EBUSY
            let number = ioctl(&control, LOOP_CTL_GET_FREE, 0)?;
            let number = u32::try_from(number).expect("a device number");
            match Self::take(number, backing, shape) {
                Ok(attached) => return Ok(attached),
                Err(error) if is_race(&error) && Instant::now() < until => thread::sleep(Duration::from_millis(1)),
                Err(error) => return Err(error),
            }
        }
    }

    fn take(number: u32, backing: &File, shape: Shape) -> io::Result<Self> {
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let hold = File::open(&path)?;
        hold.try_lock().map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))?;
        // the device is writable only if it is configured through a writable descriptor, which need not last
        let door = OpenOptions::new().read(true).write(!shape.read_only).open(&path)?;
        configure(&door, backing.as_raw_fd(), shape)?;
        let attached = Self { hold: Some(hold), number, path };
        if shape.must_be_direct && attached.attribute("dio")? != "1" {
            return Err(io::Error::other("the loop device does not pass direct I/O through to its file"));
        }
        attached.forget_partitions()?;
        attached.hold.as_ref().expect("attached").unlock()?;
        Ok(attached)
    }

    /// Partitions outlive their device where a test that was killed had made them.
    fn forget_partitions(&self) -> io::Result<()> {
        for entry in fs::read_dir(format!("/sys/block/loop{}", self.number))? {
            let name = entry?.file_name();
            if let Some(partition) = name.to_string_lossy().strip_prefix(&format!("loop{}p", self.number)) {
                Command::new("delpart").arg(&self.path).arg(partition).status()?;
            }
        }
        Ok(())
    }

    /// `/dev/loopN`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes over the size that the file has now.
    pub(crate) fn update_size(&self) -> io::Result<()> {
        let hold = self.hold.as_ref().expect("attached");
        ioctl(hold, LOOP_SET_CAPACITY, 0).map(drop)
    }

    /// Whether the kernel may make one request of neighbours. The number keeps it for its next user, who sets it again.
    pub(crate) fn set_merging(&self, merging: bool) -> io::Result<()> {
        fs::write(format!("/sys/block/loop{}/queue/nomerges", self.number), if merging { "0" } else { "2" })
    }

    fn attribute(&self, name: &str) -> io::Result<String> {
        let text = fs::read_to_string(format!("/sys/block/loop{}/loop/{name}", self.number))?;
        Ok(text.trim_end().to_owned())
    }

    /// Lets go of the device and waits, for a while, until nobody has it. False if somebody still does; it then goes at
    /// their last close.
    pub(crate) fn detach(&mut self) -> bool {
        let Some(hold) = self.hold.take() else { return true };
        let backing = self.attribute("backing_file").ok();
        // the last close detaches before it returns
        drop(hold);
        let until = Instant::now() + DETACH_LIMIT;
        loop {
            match self.attribute("backing_file") {
                // gone, or already another's
                Err(_) => return true,
                now if now.as_ref().ok() != backing.as_ref() => return true,
                _ if Instant::now() >= until => return false,
                // there is no event for another process's close
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if !self.detach() {
            eprintln!("{}: still in use by another; it detaches at the last close", self.path.display());
        }
    }
}

/// The loop devices whose files lie below `dir`.
pub(crate) fn devices_over(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            fs::read_to_string(entry.path().join("loop/backing_file"))
                .is_ok_and(|file| Path::new(file.trim_end()).starts_with(dir))
        })
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .collect()
}

/// Detaches a device that no fixture owns any more.
pub(crate) fn clear(device: &Path) -> io::Result<()> {
    ioctl(&File::open(device)?, LOOP_CLR_FD, 0).map(drop)
}

/// Whether it only means that another was faster.
fn is_race(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENXIO | libc::ENOENT | libc::ENODEV | libc::EAGAIN))
}

fn configure(device: &File, backing: RawFd, shape: Shape) -> io::Result<()> {
    let mut flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    if shape.read_only {
        flags |= LO_FLAGS_READ_ONLY;
    }
    let config = LoopConfig {
        fd: u32::try_from(backing).expect("a descriptor"),
        block_size: shape.block,
        info: LoopInfo {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: shape.offset,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: `config` has the layout of struct loop_config and lives through the call, which only reads it.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A loop ioctl whose argument is a number, not memory.
fn ioctl(file: &File, request: libc::Ioctl, argument: libc::c_ulong) -> io::Result<libc::c_int> {
    // SAFETY: the requests of this file that come here take a number and touch no memory.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
