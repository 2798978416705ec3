//! The system calls by which a device is measured. Nothing is decided here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

/// `BLKSSZGET`, `BLKGETSIZE64` and `BLKROGET` of linux/fs.h, which libc does not name on every target.
const BLKSSZGET: libc::Ioctl = 0x1268;
const BLKGETSIZE64: libc::Ioctl = 0x8008_1272;
const BLKROGET: libc::Ioctl = 0x125e;

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

/// What direct I/O on this descriptor asks of memory and of offsets, in bytes; `None` where the file system does not say.
pub(super) fn direct_alignment(file: &File) -> Option<(u32, u32)> {
    let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is an empty C string and the buffer has room for one statx; both live until the call is back.
    let result = unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, stat.as_mut_ptr())
    };
    check(result).ok()?;
    // SAFETY: statx is plain numbers, all bytes of which were set to zero above.
    let stat = unsafe { stat.assume_init() };
    let known = stat.stx_mask & libc::STATX_DIOALIGN != 0 && stat.stx_dio_offset_align > 0;
    known.then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

/// A file in memory without a name, for the simulation and for tests.
pub(super) fn memory_file(bytes: u64) -> io::Result<File> {
    // SAFETY: the name is a C string that lives until the call is back.
    let fd = unsafe { libc::memfd_create(c"kcopyfs".as_ptr(), libc::MFD_CLOEXEC) };
    check(fd)?;
    // SAFETY: the descriptor was made just now and nobody else has it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(bytes)?;
    Ok(file)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The status flags of an open file (`F_GETFL`).
pub(super) fn status_flags(file: &File) -> io::Result<libc::c_int> {
    // SAFETY: F_GETFL takes no argument and touches no memory of ours.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    check(flags)?;
    Ok(flags)
}

/// Sets the status flags of an open file (`F_SETFL`).
pub(super) fn set_status_flags(file: &File, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: F_SETFL takes a number and touches no memory of ours.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) })
}
