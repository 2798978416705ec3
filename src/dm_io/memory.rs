//! The three kinds of memory that an I/O takes.
//!
//! Memory in flight belongs to the engine: it is moved in and comes back in the callback. So no caller can free or read
//! what a device still writes to, and no borrow has to be trusted.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::io::{PageList, Segment, Segments};

/// The data buffer of an I/O.
#[derive(Debug)]
pub enum Memory {
    /// A list of pages and an offset into the first (`dm_io_sync`, `dm_io_async`).
    Pages {
        /// The pages.
        list: PageList,
        /// Bytes of the first page that are passed over.
        offset: usize,
    },
    /// Pages that several I/Os read from at once.
    Shared {
        /// The pages.
        list: Arc<PageList>,
        /// Bytes of the first page that are passed over.
        offset: usize,
    },
    /// Bio vectors, in order (`dm_io_sync_bvec`, `dm_io_async_bvec`).
    Bvec(Vec<BioVec>),
    /// Plain memory (`dm_io_sync_vm`, `dm_io_async_vm`).
    Vm(Vec<u8>),
}

/// A piece of a buffer (`struct bio_vec`): the part of `buffer` that takes part in the I/O.
#[derive(Debug)]
pub struct BioVec {
    /// The buffer.
    pub buffer: Vec<u8>,
    /// First byte that takes part.
    pub offset: usize,
    /// How many.
    pub length: usize,
}

impl BioVec {
    /// All of a buffer.
    pub fn new(buffer: Vec<u8>) -> Self {
        let length = buffer.len();
        Self { buffer, offset: 0, length }
    }
}

impl Memory {
    /// Bytes that take part.
    pub fn length(&self) -> usize {
        match self {
            Self::Pages { list, offset } => list.length().saturating_sub(*offset),
            Self::Shared { list, offset } => list.length().saturating_sub(*offset),
            Self::Bvec(vectors) => vectors.iter().map(|vector| vector.length).sum(),
            Self::Vm(bytes) => bytes.len(),
        }
    }

    /// Its first `length` bytes, as segments that are valid as long as `self` is neither changed nor dropped.
    ///
    /// # Panics
    /// If it has fewer, or a bio vector reaches beyond its buffer.
    pub(super) fn segments(&mut self, length: usize) -> Segments {
        assert!(length <= self.length(), "an I/O of {length} bytes needs as much memory");
        match self {
            Self::Pages { list, offset } => list.segments(*offset, length),
            Self::Shared { list, offset } => list.segments(*offset, length),
            Self::Bvec(vectors) => {
                let parts = vectors.iter_mut().map(|vector| &mut vector.buffer[vector.offset..][..vector.length]);
                Segments::collect(parts.filter_map(plain)).slice(0, length)
            }
            Self::Vm(bytes) => Segments::collect(plain(bytes)).slice(0, length),
        }
    }
}

fn plain(bytes: &mut [u8]) -> Option<Segment> {
    let length = bytes.len();
    bytes.first_mut().map(|first| Segment { start: NonNull::from(first), length, fixed: None })
}

/// Whether all pieces lie at multiples of `align` bytes, as direct I/O asks.
pub(super) fn is_aligned(memory: &Segments, align: u32) -> bool {
    let align = align as usize;
    memory
        .as_slice()
        .iter()
        .all(|piece| (piece.start.as_ptr() as usize).is_multiple_of(align) && piece.length.is_multiple_of(align))
}

/// Memory that fits every device, for I/O whose own does not.
#[derive(Debug)]
pub(super) struct Bounce {
    bytes: Vec<u8>,
    skip: usize,
    length: usize,
}

/// Alignment of a bounce buffer: more than any device asks.
const BOUNCE_ALIGN: usize = 4096;

impl Bounce {
    pub(super) fn new(length: usize) -> Self {
        let bytes = vec![0; length + BOUNCE_ALIGN];
        let skip = bytes.as_ptr().align_offset(BOUNCE_ALIGN);
        Self { bytes, skip, length }
    }

    fn part(&mut self) -> &mut [u8] {
        &mut self.bytes[self.skip..][..self.length]
    }

    pub(super) fn segments(&mut self) -> Segments {
        Segments::collect(plain(self.part()))
    }

    /// Whether it holds zeros alone.
    pub(super) fn is_zero(&mut self) -> bool {
        self.part().iter().all(|byte| *byte == 0)
    }

    /// Whether it holds what the memory does.
    ///
    /// # Safety
    /// The memory is valid, has as many bytes, and nobody writes to it meanwhile.
    pub(super) unsafe fn equals(&mut self, memory: &Segments) -> bool {
        let mut rest = &*self.part();
        memory.as_slice().iter().all(|piece| {
            let (now, later) = rest.split_at(piece.length);
            rest = later;
            // SAFETY: as the caller promises.
            now == unsafe { std::slice::from_raw_parts(piece.start.as_ptr(), piece.length) }
        })
    }

    /// Brings what will be written.
    ///
    /// # Safety
    /// The memory is valid, has as many bytes, and nobody writes to it meanwhile.
    pub(super) unsafe fn fill_from(&mut self, memory: &Segments) {
        let mut rest = self.part();
        for piece in memory.as_slice() {
            let (now, later) = rest.split_at_mut(piece.length);
            // SAFETY: as the caller promises; the bounce buffer is other memory.
            unsafe { piece.start.copy_to_nonoverlapping(NonNull::from(&mut now[0]), piece.length) };
            rest = later;
        }
    }

    /// Takes away what was read.
    ///
    /// # Safety
    /// The memory is valid, has as many bytes, and nobody else reaches it meanwhile.
    pub(super) unsafe fn drain_to(&mut self, memory: &Segments) {
        let mut rest = &*self.part();
        for piece in memory.as_slice() {
            let (now, later) = rest.split_at(piece.length);
            // SAFETY: as the caller promises; the bounce buffer is other memory.
            unsafe { piece.start.copy_from_nonoverlapping(NonNull::from(&now[0]), piece.length) };
            rest = later;
        }
    }
}

/// Puts zeros where a failed read brought nothing.
///
/// # Safety
/// The memory is valid, and nobody else reaches it meanwhile.
pub(super) unsafe fn zero_fill(memory: &Segments) {
    for piece in memory.as_slice() {
        // SAFETY: as the caller promises.
        unsafe { piece.start.write_bytes(0, piece.length) };
    }
}

/// What of a destination is judged at once, and zeroed whole where it is not zeros: the smallest chunk that thin devices have.
const CHUNK: usize = 64 << 10;

static ZEROES: [u8; CHUNK] = [0; CHUNK];

/// The chunks that hold something but zeros, merged. The memory holds what a device has from `position` on.
///
/// # Safety
/// The memory is valid, and nobody writes to it meanwhile.
pub(super) unsafe fn not_zero(memory: &Segments, position: u64) -> VecDeque<Range<u64>> {
    let mut runs: VecDeque<Range<u64>> = VecDeque::new();
    let mut at = position;
    for piece in memory.as_slice() {
        // SAFETY: as the caller promises.
        let mut rest = unsafe { std::slice::from_raw_parts(piece.start.as_ptr(), piece.length) };
        while !rest.is_empty() {
            let chunk = at - at % CHUNK as u64;
            let skip = usize::try_from(at - chunk).expect("less than a chunk");
            let (now, later) = rest.split_at(rest.len().min(CHUNK - skip));
            let end = at + now.len() as u64;
            let goes_on = runs.back_mut().filter(|run| run.end == at);
            // Of a chunk in two pieces of memory the whole is taken, so that runs begin and end at multiples of any block.
            let begun = goes_on.is_some() && skip > 0;
            match goes_on {
                _ if !begun && *now == ZEROES[..now.len()] => {}
                Some(run) => run.end = end,
                None => runs.push_back(chunk.max(position)..end),
            }
            (at, rest) = (end, later);
        }
    }
    runs
}
