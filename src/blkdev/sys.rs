//! The system calls by which a device is measured. Nothing is decided here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::zones::{REPORT_HEADER, REPORT_ZONE};

/// `BLKSSZGET`, `BLKGETSIZE64` and `BLKROGET` of linux/fs.h, which libc does not name on every target.
const BLKSSZGET: libc::Ioctl = 0x1268;
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272_u32 as libc::Ioctl;
const BLKROGET: libc::Ioctl = 0x125e;
/// `BLKREPORTZONE` of linux/blkzoned.h.
const BLKREPORTZONE: libc::Ioctl = 0xc010_1282_u32 as libc::Ioctl;
/// Zones that are asked for at once: 64 KiB of memory.
const ZONES: usize = 1024;
/// `LOOP_GET_STATUS64` of linux/loop.h.
const LOOP_GET_STATUS64: libc::Ioctl = 0x4c05;
/// Small numbers, in the type of their fields.
#[allow(clippy::cast_possible_truncation)]
const F_WRLCK: libc::c_short = libc::F_WRLCK as libc::c_short;
#[allow(clippy::cast_possible_truncation)]
const F_UNLCK: libc::c_short = libc::F_UNLCK as libc::c_short;
#[allow(clippy::cast_possible_truncation)]
const SEEK_SET: libc::c_short = libc::SEEK_SET as libc::c_short;

/// Size of a block device in bytes.
pub(super) fn block_size_bytes(file: &File) -> io::Result<u64> {
    let mut bytes: u64 = 0;
    // SAFETY: BLKGETSIZE64 writes one u64 through the pointer, which lives until the call is back.
    check(unsafe { libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &raw mut bytes) })?;
    Ok(bytes)
}

/// Logical block of a block device in bytes.
pub(super) fn logical_block(file: &File) -> io::Result<u32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: BLKSSZGET writes one int through the pointer, which lives until the call is back.
    check(unsafe { libc::ioctl(file.as_raw_fd(), BLKSSZGET, &raw mut bytes) })?;
    u32::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Whether a block device is set read-only.
pub(super) fn is_read_only(file: &File) -> io::Result<bool> {
    let mut flag: libc::c_int = 0;
    // SAFETY: BLKROGET writes one int through the pointer, which lives until the call is back.
    check(unsafe { libc::ioctl(file.as_raw_fd(), BLKROGET, &raw mut flag) })?;
    Ok(flag != 0)
}

/// The zones from the one with `sector` on, as the kernel reports them: a header, and zones.
pub(super) fn report_zones(file: &File, sector: u64) -> io::Result<Vec<u8>> {
    let mut report = vec![0_u8; REPORT_HEADER + ZONES * REPORT_ZONE];
    report[..8].copy_from_slice(&sector.to_ne_bytes());
    report[8..12].copy_from_slice(&u32::try_from(ZONES).expect("few").to_ne_bytes());
    // SAFETY: BLKREPORTZONE reads a header from the pointer and writes it, and as many zones as that says, for which there is
    // room; the memory lives until the call is back.
    check(unsafe { libc::ioctl(file.as_raw_fd(), BLKREPORTZONE, report.as_mut_ptr()) })?;
    Ok(report)
}

/// What a lock lets others do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lock {
    /// All.
    None,
    /// No more than to look.
    Write,
}

/// Locks `count` bytes of a file from `start` on for this open file alone, until the last who uses it lets go: also the kernel,
/// for a request of a process that is gone. False if another open file has them locked.
pub(super) fn lock_range(file: &File, lock: Lock, start: u64, count: u64) -> io::Result<bool> {
    let number = |bytes: u64| libc::off_t::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
    let range = libc::flock {
        l_type: match lock {
            Lock::None => F_UNLCK,
            Lock::Write => F_WRLCK,
        },
        l_whence: SEEK_SET,
        l_start: number(start)?,
        l_len: number(count)?,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range)) {
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        result => Ok(result.map(|_| true)?),
    }
}

/// Whether another open file has a part of those bytes locked.
pub(super) fn is_range_locked(file: &File, start: u64, count: u64) -> io::Result<bool> {
    // SAFETY: flock is plain numbers, for which zeros are a value.
    let mut range = unsafe { std::mem::zeroed::<libc::flock>() };
    (range.l_type, range.l_whence) = (F_WRLCK, SEEK_SET);
    let number = |bytes: u64| libc::off_t::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL));
    (range.l_start, range.l_len) = (number(start)?, number(count)?);
    // SAFETY: F_OFD_GETLK reads and writes one flock through the pointer, which lives until the call is back.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut range) })?;
    Ok(range.l_type != F_UNLCK)
}

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct LoopInfo {
    /// File system of the backing file, as the kernel packs a number: `st_dev` has the same bits.
    pub(super) device: u64,
    pub(super) inode: u64,
    /// The number of the block device that backs it, 0 for a file.
    pub(super) rdevice: u64,
    pub(super) offset: u64,
    /// 0: no limit.
    pub(super) sizelimit: u64,
    numbers: [u32; 4],
    names: [u8; 64 + 64 + 32],
    init: [u64; 2],
}

/// What a loop device, or the loop device of an open partition, lies on. The kernel asks the backing file's file system
/// for its attributes: over FUSE or a network this can block for ever.
pub(super) fn loop_info(file: &File) -> io::Result<LoopInfo> {
    let mut info = std::mem::MaybeUninit::<LoopInfo>::zeroed();
    // SAFETY: LOOP_GET_STATUS64 writes one loop_info64 through the pointer, which lives until the call is back.
    check(unsafe { libc::ioctl(file.as_raw_fd(), LOOP_GET_STATUS64, info.as_mut_ptr()) })?;
    // SAFETY: LoopInfo is plain numbers, all bytes of which were set to zero above.
    Ok(unsafe { info.assume_init() })
}

/// `DM_TABLE_STATUS` of linux/dm-ioctl.h, the size of its header, and where the header has what.
const DM_TABLE_STATUS: libc::Ioctl = 0xc138_fd0c_u32 as libc::Ioctl;
const DM_HEADER: usize = 312;
const DM_DATA_SIZE: usize = 12;
const DM_DATA_START: usize = 16;
const DM_FLAGS: usize = 28;
const DM_DEV: usize = 40;
/// `DM_STATUS_TABLE_FLAG`, `DM_NOFLUSH_FLAG` and `DM_SECURE_DATA_FLAG`: the table, of a device that may be sick, with keys in it.
const DM_WANTED: u32 = 1 << 4 | 1 << 11 | 1 << 15;
const DM_BUFFER_FULL: u32 = 1 << 8;
/// A table of ten thousand segments.
const DM_LARGEST: usize = 1 << 20;

/// The answer to `DM_TABLE_STATUS`, which may hold a key: it is wiped.
pub(super) struct DmTable(pub(super) Vec<u8>);

impl Drop for DmTable {
    fn drop(&mut self) {
        self.0.fill(0);
        std::hint::black_box(&self.0);
    }
}

/// The table of the dm device of that number.
pub(super) fn dm_table(dev: u64) -> io::Result<DmTable> {
    let control = File::open("/dev/mapper/control")?;
    let mut size = 16 << 10;
    loop {
        let mut answer = DmTable(vec![0; size]);
        let mut put = |at: usize, bytes: &[u8]| answer.0[at..at + bytes.len()].copy_from_slice(bytes);
        // Of all versions with this layout.
        put(0, &4_u32.to_ne_bytes());
        put(DM_DATA_SIZE, &u32::try_from(size).expect("at most a MiB").to_ne_bytes());
        put(DM_DATA_START, &u32::try_from(DM_HEADER).expect("small").to_ne_bytes());
        put(DM_FLAGS, &DM_WANTED.to_ne_bytes());
        put(DM_DEV, &dev.to_ne_bytes());
        // SAFETY: the header says how long the buffer is; the kernel writes within it, and it lives until the call is back.
        check(unsafe { libc::ioctl(control.as_raw_fd(), DM_TABLE_STATUS, answer.0.as_mut_ptr()) })?;
        let flags = answer.0[DM_FLAGS..DM_FLAGS + 4].try_into().map_or(0, u32::from_ne_bytes);
        if flags & DM_BUFFER_FULL == 0 {
            return Ok(answer);
        }
        size *= 4;
        if size > DM_LARGEST {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
    }
}

/// Names and bytes of a file, as the system knows them: no server is asked, so that this does not wait.
pub(super) fn names_and_bytes(file: &File) -> Option<(u32, u64)> {
    let mask = libc::STATX_NLINK | libc::STATX_SIZE;
    let stat = statx(file, libc::AT_STATX_DONT_SYNC, mask).filter(|stat| stat.stx_mask & mask == mask)?;
    Some((stat.stx_nlink, stat.stx_size))
}

/// What direct I/O on this descriptor asks of memory and of offsets, in bytes; `None` where the file system does not
/// say.
pub(super) fn direct_alignment(file: &File) -> Option<(u32, u32)> {
    let stat = statx(file, 0, libc::STATX_DIOALIGN)?;
    let known = stat.stx_mask & libc::STATX_DIOALIGN != 0 && stat.stx_dio_offset_align > 0;
    known.then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

/// What statx(2) tells of an open file.
fn statx(file: &File, flags: libc::c_int, mask: libc::c_uint) -> Option<libc::statx> {
    let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | flags;
    // SAFETY: the path is an empty C string and the buffer has room for one statx; both live until the call is back.
    let result = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, mask, stat.as_mut_ptr()) };
    check(result).ok()?;
    // SAFETY: statx is plain numbers, all bytes of which were set to zero above.
    Some(unsafe { stat.assume_init() })
}

/// A file in memory without a name, for the simulation and for tests.
pub(super) fn memory_file(bytes: u64) -> io::Result<File> {
    let file = File::from(memfd_create(c"kcopyfs", MFdFlags::MFD_CLOEXEC)?);
    file.set_len(bytes)?;
    Ok(file)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
