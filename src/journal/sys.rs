//! The system calls of this room that std does not have. Nothing is decided here.
#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;

/// Who this process is, by its effective user.
pub(super) fn user() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Lets the system begin to write a file out, and does not wait for it. A hint: whether it succeeds, fsync will tell.
pub(super) fn start_writing(file: &File) {
    // SAFETY: no memory of ours is touched.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}
