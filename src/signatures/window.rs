//! The bytes of a device or of a partition, read in pieces that are kept, and numbers in them.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Read;

/// Bytes that are read at once.
const PIECE: u64 = 64 << 10;
/// Pieces that are read of one window at most: what a superblock points at may be anywhere, and often.
const PIECES_MAX: usize = 256;

/// A part of a device.
pub(super) struct Window<'a, 'r> {
    bytes: Range<u64>,
    read: &'a mut Read<'r>,
    pieces: BTreeMap<u64, Option<Vec<u8>>>,
}

impl<'a, 'r> Window<'a, 'r> {
    pub(super) fn new(bytes: Range<u64>, read: &'a mut Read<'r>) -> Self {
        Self { bytes, read, pieces: BTreeMap::new() }
    }

    /// Bytes in it.
    pub(super) fn size(&self) -> u64 {
        self.bytes.end - self.bytes.start
    }

    /// `count` bytes at `offset`; `None` beyond the end and where they cannot be read.
    pub(super) fn get(&mut self, offset: u64, count: usize) -> Option<Bytes> {
        let end = offset.checked_add(count as u64).filter(|end| *end <= self.size())?;
        let mut found = Vec::with_capacity(count);
        let mut at = offset;
        while at < end {
            let first = at / PIECE * PIECE;
            let piece = self.piece(first)?;
            let from = usize::try_from(at - first).ok()?;
            let to = usize::try_from((end - first).min(PIECE)).ok()?;
            found.extend_from_slice(piece.get(from..to)?);
            at = first + PIECE;
        }
        Some(Bytes(found))
    }

    /// Whether those bytes are there.
    pub(super) fn has(&mut self, offset: u64, magic: &[u8]) -> bool {
        self.get(offset, magic.len()).is_some_and(|bytes| bytes.0 == magic)
    }

    fn piece(&mut self, first: u64) -> Option<&Vec<u8>> {
        if !self.pieces.contains_key(&first) {
            if self.pieces.len() >= PIECES_MAX {
                return None;
            }
            let count = usize::try_from(PIECE.min(self.size() - first)).ok()?;
            let bytes = (self.read)(self.bytes.start.checked_add(first)?, count).filter(|bytes| bytes.len() == count);
            self.pieces.insert(first, bytes);
        }
        self.pieces.get(&first)?.as_ref()
    }
}

/// Some bytes. A number that is not all in them is 0, a slice that is not is empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Bytes {
    pub(super) fn slice(&self, at: usize, count: usize) -> &[u8] {
        at.checked_add(count).and_then(|end| self.0.get(at..end)).unwrap_or_default()
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.slice(at, N).try_into().unwrap_or([0; N])
    }

    pub(super) fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    pub(super) fn le16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub(super) fn be16(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.array(at))
    }

    pub(super) fn le32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub(super) fn be32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    pub(super) fn le64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    pub(super) fn be64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.array(at))
    }
}
