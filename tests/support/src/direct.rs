//! `O_DIRECT` reads and writes of whole blocks, from plain vectors.
//!
//! Buffers are aligned here, so that callers need not care. One call is one request: nothing is retried or split, so a
//! test sees exactly what the device answered.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// Fits every logical block size that a loop device takes.
const ALIGNMENT: usize = 4096;

/// A file or device, open with `O_DIRECT`.
#[derive(Debug)]
pub struct Direct(File);

impl Direct {
    /// Opens `path` for reading and writing.
    pub fn open(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path).map(Self)
    }

    /// Opens `path` for reading.
    pub fn open_read_only(path: &Path) -> io::Result<Self> {
        OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).map(Self)
    }

    /// One read of `len` bytes at `offset`; shorter where the device was.
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut memory = vec![0; len + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        let count = self.0.read_at(&mut memory[start..start + len], offset)?;
        Ok(memory[start..start + count].to_vec())
    }

    /// One write of `data` at `offset`; returns how many bytes the device took.
    pub fn write(&self, offset: u64, data: &[u8]) -> io::Result<usize> {
        let mut memory = vec![0; data.len() + ALIGNMENT];
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        memory[start..start + data.len()].copy_from_slice(data);
        self.0.write_at(&memory[start..start + data.len()], offset)
    }

    /// Flushes the device's cache.
    pub fn flush(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    /// The open file itself.
    pub const fn file(&self) -> &File {
        &self.0
    }
}
