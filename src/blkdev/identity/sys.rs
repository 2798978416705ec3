//! The system calls by which a device is recognised. Nothing is decided here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use nix::sys::{statfs, statvfs};

/// `FS_IOC_GETVERSION` and `FS_IOC_GETFSUUID` of linux/fs.h; the latter is there since Linux 6.9.
const FS_IOC_GETVERSION: libc::Ioctl = 0x8008_7601_u32 as libc::Ioctl;
const FS_IOC_GETFSUUID: libc::Ioctl = 0x8011_1500_u32 as libc::Ioctl;

/// `struct fsuuid2` of linux/fs.h.
#[repr(C)]
struct FsUuid2 {
    length: u8,
    uuid: [u8; 16],
}

/// The number that tells a file from an earlier one with the same inode.
pub(super) fn generation(file: &File) -> io::Result<libc::c_int> {
    // The kernel writes an int; the long of the definition is room enough for either.
    let mut number: [libc::c_int; 2] = [0; 2];
    // SAFETY: FS_IOC_GETVERSION writes at most one long through the pointer, which lives until the call is back.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETVERSION, number.as_mut_ptr()) })?;
    Ok(number[0])
}

/// The UUID of the file system that a file is on.
pub(super) fn file_system_uuid(file: &File) -> io::Result<Vec<u8>> {
    let mut answer = FsUuid2 { length: 0, uuid: [0; 16] };
    // SAFETY: FS_IOC_GETFSUUID writes one fsuuid2 through the pointer, which lives until the call is back.
    check(unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETFSUUID, &raw mut answer) })?;
    let uuid = answer.uuid.get(..usize::from(answer.length)).unwrap_or_default();
    if uuid.iter().all(|byte| *byte == 0) {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(uuid.to_vec())
}

/// The magic number and the id of the file system that a file is on.
// Their widths differ between machines.
#[allow(clippy::unnecessary_cast)]
pub(super) fn file_system(file: &File) -> io::Result<(i64, u64)> {
    let magic = statfs::fstatfs(file)?.filesystem_type().0;
    let id = statvfs::fstatvfs(file)?.filesystem_id();
    Ok((magic as i64, id as u64))
}

/// The number of the mount that a file was opened by, which no other mount gets until the machine restarts. `None` before
/// Linux 6.8.
pub(super) fn mount_id(file: &File) -> Option<u64> {
    let mut stat = MaybeUninit::<libc::statx>::zeroed();
    let wanted = libc::STATX_MNT_ID_UNIQUE;
    // SAFETY: the path is an empty C string and the buffer has room for one statx; both live until the call is back.
    let result = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, wanted, stat.as_mut_ptr()) };
    check(result).ok()?;
    // SAFETY: statx is plain numbers, all bytes of which were set to zero above.
    let stat = unsafe { stat.assume_init() };
    (stat.stx_mask & wanted != 0).then_some(stat.stx_mnt_id)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
