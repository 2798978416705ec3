//! The memory of a transfer, as raw pieces.
#![allow(unsafe_code)]

use std::ptr::NonNull;

/// A piece of memory. Who makes one keeps the memory alive, as [`Backend::submit`](super::Backend::submit) asks.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// First byte.
    pub start: NonNull<u8>,
    /// Bytes.
    pub length: usize,
    /// Which fixed buffer it lies in, if it is the page pool's.
    pub fixed: Option<u16>,
}

// SAFETY: a segment is an address and a length; whoever goes through it answers for the access, in an unsafe block.
unsafe impl Send for Segment {}

/// The memory of a transfer: mostly one piece, which takes no allocation.
#[derive(Clone, Debug, Default)]
pub enum Segments {
    /// None: a flush, or a zero.
    #[default]
    None,
    /// One run.
    One(Segment),
    /// Several, in order.
    Many(Vec<Segment>),
}

impl Segments {
    /// From pieces in order; empty ones are left out.
    pub fn collect(pieces: impl IntoIterator<Item = Segment>) -> Self {
        let mut all = Self::None;
        for piece in pieces {
            if piece.length > 0 {
                all.push(piece);
            }
        }
        all
    }

    fn push(&mut self, piece: Segment) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(piece),
            Self::One(first) => Self::Many(vec![first, piece]),
            Self::Many(mut pieces) => {
                pieces.push(piece);
                Self::Many(pieces)
            }
        };
    }

    /// The pieces, in order.
    pub fn as_slice(&self) -> &[Segment] {
        match self {
            Self::None => &[],
            Self::One(piece) => std::slice::from_ref(piece),
            Self::Many(pieces) => pieces,
        }
    }

    /// Bytes in all.
    pub fn length(&self) -> usize {
        self.as_slice().iter().map(|piece| piece.length).sum()
    }

    /// The part of `length` bytes that begins `skip` bytes in.
    #[must_use]
    pub fn slice(&self, skip: usize, length: usize) -> Self {
        let mut skip = skip;
        let mut left = length;
        let pieces = self.as_slice().iter().map(move |piece| {
            let cut = skip.min(piece.length);
            skip -= cut;
            let take = left.min(piece.length - cut);
            left -= take;
            // SAFETY: `cut` is at most the piece's length, so the result is inside it or one past its end.
            let start = unsafe { piece.start.add(cut) };
            Segment { start, length: take, fixed: piece.fixed }
        });
        Self::collect(pieces)
    }
}

/// An address `bytes` further on.
pub(super) fn offset(start: NonNull<u8>, bytes: usize) -> NonNull<u8> {
    NonNull::new(start.as_ptr().wrapping_add(bytes)).unwrap_or(start)
}

/// Shows the bytes of pieces.
///
/// # Safety
/// The pieces are valid memory, and nobody writes to it meanwhile.
pub(super) unsafe fn show(pieces: &Segments, see: &mut dyn FnMut(&[u8])) {
    for piece in pieces.as_slice() {
        // SAFETY: as the caller promises.
        see(unsafe { std::slice::from_raw_parts(piece.start.as_ptr(), piece.length) });
    }
}

/// Copies bytes into pieces of as many bytes.
///
/// # Safety
/// The pieces are valid memory that nobody else reaches meanwhile.
pub(super) unsafe fn copy_in(pieces: &Segments, bytes: &[u8]) {
    let mut rest = bytes;
    for piece in pieces.as_slice() {
        let (now, later) = rest.split_at(piece.length);
        // SAFETY: as the caller promises; `now` is as long as the piece.
        unsafe { piece.start.copy_from_nonoverlapping(NonNull::from(now).cast(), now.len()) };
        rest = later;
    }
}

/// Copies bytes out of pieces of as many bytes.
///
/// # Safety
/// The pieces are valid memory, and nobody writes to it meanwhile.
pub(super) unsafe fn copy_out(pieces: &Segments, bytes: &mut [u8]) {
    let mut rest = bytes;
    for piece in pieces.as_slice() {
        let (now, later) = rest.split_at_mut(piece.length);
        // SAFETY: as the caller promises; `now` is as long as the piece.
        unsafe { piece.start.copy_to_nonoverlapping(NonNull::from(now).cast(), piece.length) };
        rest = later;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_keeps_order_and_length() {
        let mut bytes = [0_u8; 30];
        let base = NonNull::from(&mut bytes[0]);
        let piece = |at: usize| {
            // SAFETY: 20 is the largest offset, inside the 30 bytes.
            let start = unsafe { base.add(at) };
            Segment { start, length: 10, fixed: None }
        };
        let all = Segments::collect([piece(20), piece(0), piece(10)]);
        assert_eq!(all.length(), 30);
        for skip in 0..30 {
            for length in 0..=30 - skip {
                let part = all.slice(skip, length);
                assert_eq!(part.length(), length);
                if let Some(first) = part.as_slice().first() {
                    let order = [20, 0, 10][skip / 10] + skip % 10;
                    assert_eq!(first.start.as_ptr() as usize - base.as_ptr() as usize, order);
                }
            }
        }
    }
}
