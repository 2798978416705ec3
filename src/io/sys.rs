//! The system calls of this room. Nothing is decided here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::ptr::NonNull;

use super::{Op, Segment};

/// `BLKDISCARD` of linux/fs.h.
const BLKDISCARD: libc::Ioctl = 0x1277;

/// An anonymous mapping that is unmapped when it goes.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is plain memory of the process; it is owned here and its address may be used from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; who reads or writes through the address answers for the access.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `length` bytes, aligned to `align`, readable, and writable where said.
    pub(super) fn new(length: usize, align: usize, writable: bool) -> io::Result<Self> {
        let prot = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let room = length + align;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), room, prot, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let head = start.align_offset(align);
        let unmap = |from: usize, bytes: usize| {
            if bytes > 0 {
                let from = start.wrapping_byte_add(from);
                // SAFETY: this part of the new mapping lies outside what is kept, and nobody has its address.
                unsafe { libc::munmap(from, bytes) };
            }
        };
        unmap(0, head);
        unmap(head + length, room - head - length);
        let start = NonNull::new(start.wrapping_byte_add(head).cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { start, length })
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Asks for huge pages; the kernel may not have them.
    pub(super) fn advise_huge(&self) {
        // SAFETY: advice on memory that is ours; it changes no content.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, libc::MADV_HUGEPAGE) };
    }

    /// Makes every page present.
    pub(super) fn touch(&self) -> io::Result<()> {
        // SAFETY: populating memory that is ours; it changes no content.
        let result = unsafe { libc::madvise(self.start.as_ptr().cast(), self.length, libc::MADV_POPULATE_WRITE) };
        check(result)
    }

    /// Keeps every page in memory.
    pub(super) fn lock(&self) -> io::Result<()> {
        // SAFETY: locking memory that is ours; it changes no content.
        check(unsafe { libc::mlock(self.start.as_ptr().cast(), self.length) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody can reach it once its owner goes.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// The kernel's description of pieces of memory.
pub(super) fn io_vectors(pieces: &[Segment]) -> Vec<libc::iovec> {
    pieces.iter().map(|piece| libc::iovec { iov_base: piece.start.as_ptr().cast(), iov_len: piece.length }).collect()
}

/// Does one transfer and waits for it.
///
/// # Safety
/// The pieces are valid, and for a read nobody else touches them, until the call is back.
pub(super) unsafe fn transfer(fd: RawFd, op: Op, position: u64, length: u64, pieces: &[Segment]) -> Result<u64, i32> {
    let vectors = io_vectors(pieces);
    let count = i32::try_from(vectors.len()).map_err(|_| libc::EINVAL)?;
    let position = i64::try_from(position).map_err(|_| libc::EINVAL)?;
    let moved = match op {
        // SAFETY: the vectors describe the caller's pieces, which are valid.
        Op::Read => unsafe { libc::preadv(fd, vectors.as_ptr(), count, position) },
        // SAFETY: the vectors describe the caller's pieces, which are valid.
        Op::Write => unsafe { libc::pwritev(fd, vectors.as_ptr(), count, position) },
        Op::Zero | Op::Punch => {
            let length = i64::try_from(length).map_err(|_| libc::EINVAL)?;
            // SAFETY: no memory of ours is touched.
            (unsafe { libc::fallocate(fd, zero_mode(op), position, length) }) as isize
        }
        Op::Discard => {
            let range = [position.unsigned_abs(), length];
            // SAFETY: BLKDISCARD reads two numbers through the pointer, which live until the call is back.
            (unsafe { libc::ioctl(fd, BLKDISCARD, range.as_ptr()) }) as isize
        }
        // SAFETY: no memory of ours is touched.
        Op::Flush => (unsafe { libc::fsync(fd) }) as isize,
    };
    if moved < 0 {
        return Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO));
    }
    Ok(if matches!(op, Op::Zero | Op::Punch | Op::Discard) { length } else { moved.unsigned_abs() as u64 })
}

/// How fallocate(2) makes zeros: in place, on a device by write-zeroes; or by a hole, on a device by a discard that is
/// sure to read as zeros.
pub(super) const fn zero_mode(op: Op) -> libc::c_int {
    match op {
        Op::Punch => libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE,
        _ => libc::FALLOC_FL_ZERO_RANGE,
    }
}

/// An event counter that a ring or a poll can wait for.
pub(super) fn event_counter() -> io::Result<File> {
    // SAFETY: no memory of ours is touched.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    check(fd)?;
    // SAFETY: the descriptor was made just now and nobody else has it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Adds one to an event counter.
pub(super) fn signal(counter: &File) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: the eight bytes live until the call is back. A full counter is a wake already there.
    unsafe { libc::write(counter.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

/// The I/O priority of whoever gives way to all others: `IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0)`.
pub(super) const IDLE_PRIORITY: u16 = 3 << 13;
/// `IOPRIO_WHO_PROCESS`: one thread, as the kernel has it.
const ONE_THREAD: libc::c_long = 1;

/// Gives this thread idle I/O priority, or the usual one. A kernel without priorities treats all alike.
pub(super) fn set_idle_priority(is_idle: bool) {
    let priority = if is_idle { libc::c_long::from(IDLE_PRIORITY) } else { 0 };
    // SAFETY: no memory of ours is touched.
    unsafe { libc::syscall(libc::SYS_ioprio_set, ONE_THREAD, 0 as libc::c_long, priority) };
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
