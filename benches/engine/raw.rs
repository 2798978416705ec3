//! The least code that copies by ring: what the engine is measured against.
//!
//! One thread, one ring, fixed buffers in one locked mapping of huge pages; as many pieces in flight, of the same size,
//! as a job of the engine has. A piece is one read, then a write to every destination. Any error ends it.
//!
//! # Invariants
//! * A piece's buffer is used by its read or by its writes, never by both, and by no other piece.
//! * The buffers are never unmapped: whatever is in flight when an error ends the loop has memory to land in.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::types::Fd;
use io_uring::{IoUring, opcode, squeue};
use kcopyfs::kcopyd::SUBJOB_BYTES;

/// Pieces in flight.
const SUBJOBS: usize = 8;

/// The alignment of a huge page.
const HUGE_PAGE: usize = 2 << 20;
/// Room for every piece's writes to every destination.
const QUEUE_SIZE: u32 = 128;

pub(crate) struct Raw {
    ring: IoUring,
    /// Where the buffers begin: [`SUBJOBS`] of them, [`SUBJOB_BYTES`] each.
    buffers: *mut u8,
}

/// A part of the source on its way.
#[derive(Clone, Copy, Default)]
struct Piece {
    position: u64,
    length: u32,
    /// Writes that have not ended; 0 while it is read.
    writes_left: usize,
}

impl Raw {
    pub(crate) fn new() -> io::Result<Self> {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(QUEUE_SIZE)?;
        let length = SUBJOBS * SUBJOB_BYTES as usize;
        let buffers = map_buffers(length)?;
        let vector = libc::iovec { iov_base: buffers.cast(), iov_len: length };
        // SAFETY: the vector describes the mapping, which is never unmapped.
        unsafe { ring.submitter().register_buffers(&[vector]) }?;
        Ok(Self { ring, buffers })
    }

    /// Copies `length` bytes to every destination and flushes them.
    pub(crate) fn copy(&mut self, from: &File, to: &[File], length: u64) -> io::Result<()> {
        let mut pieces = [Piece::default(); SUBJOBS];
        let mut next = 0;
        let mut flying = 0;
        for (slot, piece) in pieces.iter_mut().enumerate() {
            flying += usize::from(self.read_next(slot, piece, from, &mut next, length));
        }
        let mut ended = Vec::with_capacity(QUEUE_SIZE as usize);
        while flying > 0 {
            self.ring.submit_and_wait(1)?;
            ended.extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result())));
            for (slot, result) in ended.drain(..) {
                let slot = usize::try_from(slot).expect("a slot's number");
                let piece = &mut pieces[slot];
                if u32::try_from(result) != Ok(piece.length) {
                    let what = format!("{result} at byte {} of {} bytes", piece.position, piece.length);
                    return Err(io::Error::other(what));
                }
                if piece.writes_left == 0 {
                    piece.writes_left = to.len();
                    self.write(slot, *piece, to);
                    continue;
                }
                piece.writes_left -= 1;
                if piece.writes_left == 0 {
                    flying -= usize::from(!self.read_next(slot, piece, from, &mut next, length));
                }
            }
        }
        to.iter().try_for_each(File::sync_all)
    }

    /// Reads the next piece, if there is one.
    fn read_next(&mut self, slot: usize, piece: &mut Piece, from: &File, next: &mut u64, end: u64) -> bool {
        let length = u32::try_from(u64::from(SUBJOB_BYTES).min(end - *next)).expect("a piece's length");
        *piece = Piece { position: *next, length, writes_left: 0 };
        *next += u64::from(length);
        if length > 0 {
            let read = opcode::ReadFixed::new(Fd(from.as_raw_fd()), self.buffer(slot), length, 0);
            self.push(slot, &read.offset(piece.position).build());
        }
        length > 0
    }

    fn write(&mut self, slot: usize, piece: Piece, to: &[File]) {
        for dest in to {
            let write = opcode::WriteFixed::new(Fd(dest.as_raw_fd()), self.buffer(slot), piece.length, 0);
            self.push(slot, &write.offset(piece.position).build());
        }
    }

    fn buffer(&self, slot: usize) -> *mut u8 {
        self.buffers.wrapping_add(slot * SUBJOB_BYTES as usize)
    }

    fn push(&mut self, slot: usize, entry: &squeue::Entry) {
        let entry = entry.clone().user_data(slot as u64);
        // SAFETY: the entry points into the mapping, which is never unmapped; the files live until the loop has ended.
        unsafe { self.ring.submission().push(&entry) }.expect("the queue has room for all that can be in flight");
    }
}

/// `length` bytes of present, locked memory in huge pages, for ever.
fn map_buffers(length: usize) -> io::Result<*mut u8> {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new anonymous mapping at an address of the kernel's choice overlaps nothing.
    let room = unsafe { libc::mmap(std::ptr::null_mut(), length + HUGE_PAGE, prot, flags, -1, 0) };
    if room == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let start = room.wrapping_byte_add(room.align_offset(HUGE_PAGE));
    for advice in [libc::MADV_HUGEPAGE, libc::MADV_POPULATE_WRITE] {
        // SAFETY: advice on the new mapping, which nobody else has yet.
        let result = unsafe { libc::madvise(start, length, advice) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: locking the new mapping changes no content.
    let result = unsafe { libc::mlock(start, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(start.cast()) }
}
