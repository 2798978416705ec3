//! The log of what reached the disk, in order, and its replay: every prefix is a state that an ordered disk could be in.
//!
//! An entry in the file is a letter (`W` write, `F` flush, `M` mark, `L` load), offset and length as little-endian
//! numbers of 64 bits, then the data. Loads are not the host's doing: they have no place in the order, are not counted,
//! and are always replayed where they stand.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::sweep;

/// The letter, the offset and the length.
const HEAD: u64 = 17;

/// What an entry records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A write that the disk took; dropped ones are not in the log, misdirected ones stand where they went.
    Write,
    /// A flush that the disk did.
    Flush,
    /// A note of the test.
    Mark,
}

/// One entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its place in the order, from 0.
    pub order: usize,
    /// What it was.
    pub event: Event,
    /// Where a write went, in bytes.
    pub offset: u64,
    /// How many bytes it wrote; of a mark, the length of its text.
    pub len: u64,
    /// Its place among the entries of all disks of this process: smaller is earlier.
    pub tick: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    letter: u8,
    offset: u64,
    len: u64,
    /// Where its data begins in the file.
    data: u64,
    tick: u64,
}

/// The next tick.
fn tick() -> u64 {
    static TICKS: AtomicU64 = AtomicU64::new(0);
    TICKS.fetch_add(1, Ordering::Relaxed)
}

impl Entry {
    fn event(self) -> Option<Event> {
        match self.letter {
            b'W' => Some(Event::Write),
            b'F' => Some(Event::Flush),
            b'M' => Some(Event::Mark),
            _ => None,
        }
    }
}

/// A log, in a file.
#[derive(Debug)]
pub struct Log {
    file: File,
    end: u64,
    entries: Vec<Entry>,
}

impl Log {
    /// An empty log in memory.
    pub(super) fn in_memory() -> io::Result<Self> {
        let file = tempfile::tempfile_in(sweep::IMAGE_DIR).or_else(|_| tempfile::tempfile())?;
        Ok(Self::empty(file))
    }

    /// An empty log in `file`, which must be empty and open for reading and writing.
    pub(super) const fn empty(file: File) -> Self {
        Self { file, end: 0, entries: Vec::new() }
    }

    /// Reads the log in `file`; an entry that was cut off ends it.
    pub fn open(mut file: File) -> io::Result<Self> {
        let (mut end, mut entries) = (0, Vec::new());
        let size = file.seek(SeekFrom::End(0))?;
        while end + HEAD <= size {
            let mut head = [0; 17];
            file.seek(SeekFrom::Start(end))?;
            file.read_exact(&mut head)?;
            let offset = u64::from_le_bytes(head[1..9].try_into().expect("8 bytes"));
            let len = u64::from_le_bytes(head[9..17].try_into().expect("8 bytes"));
            let data = end + HEAD;
            let Some(next) = data.checked_add(len).filter(|next| *next <= size) else { break };
            entries.push(Entry { letter: head[0], offset, len, data, tick: tick() });
            end = next;
        }
        Ok(Self { file, end, entries })
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.append(b'W', offset, data)
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.append(b'F', 0, &[])
    }

    pub(super) fn mark(&mut self, text: &str) -> io::Result<()> {
        self.append(b'M', 0, text.as_bytes())
    }

    pub(super) fn load(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.append(b'L', offset, data)
    }

    /// Forgets all; what is in the file is written over.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.end = 0;
    }

    fn append(&mut self, letter: u8, offset: u64, data: &[u8]) -> io::Result<()> {
        let len = data.len() as u64;
        let mut entry = Vec::with_capacity(data.len() + 17);
        entry.push(letter);
        entry.extend(offset.to_le_bytes());
        entry.extend(len.to_le_bytes());
        entry.extend(data);
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(&entry)?;
        self.entries.push(Entry { letter, offset, len, data: self.end + HEAD, tick: tick() });
        self.end += HEAD + len;
        Ok(())
    }

    /// Its entries, loads left out.
    pub fn entries(&self) -> Vec<Logged> {
        let counted = self.entries.iter().filter_map(|entry| entry.event().map(|event| (entry, event)));
        let logged = |(order, (entry, event)): (usize, (&Entry, Event))| Logged {
            order,
            event,
            offset: entry.offset,
            len: entry.len,
            tick: entry.tick,
        };
        counted.enumerate().map(logged).collect()
    }

    /// The text of mark `order`.
    pub fn text(&self, order: usize) -> io::Result<String> {
        let entry = self.entries.iter().filter(|entry| entry.event().is_some()).nth(order).expect("an entry");
        self.data(entry).map(|data| String::from_utf8_lossy(&data).into_owned())
    }

    /// Hands every write and load among the first `prefix` entries to `write`, in order.
    pub fn replay(&self, prefix: usize, mut write: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut left = prefix;
        for entry in &self.entries {
            if entry.event().is_some() {
                if left == 0 {
                    return Ok(());
                }
                left -= 1;
            }
            if matches!(entry.letter, b'W' | b'L') {
                write(entry.offset, &self.data(entry)?)?;
            }
        }
        Ok(())
    }

    fn data(&self, entry: &Entry) -> io::Result<Vec<u8>> {
        let mut data = vec![0; usize::try_from(entry.len).expect("a length")];
        self.file.read_exact_at(&mut data, entry.data)?;
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_reads_back_and_a_prefix_counts_no_loads() {
        let mut log = Log::in_memory().unwrap();
        log.load(0, &[9; 4]).unwrap();
        log.write(1, &[1]).unwrap();
        log.flush().unwrap();
        log.mark("here").unwrap();
        log.write(2, &[2]).unwrap();
        let log = Log::open(log.file.try_clone().unwrap()).unwrap();
        let last = log.entries()[3];
        assert_eq!((last.order, last.event, last.offset, last.len), (3, Event::Write, 2, 1));
        assert!(last.tick > log.entries()[2].tick);
        assert_eq!(log.text(2).unwrap(), "here");
        for (prefix, expected) in [(0, [9, 9, 9, 9]), (1, [9, 1, 9, 9]), (3, [9, 1, 9, 9]), (4, [9, 1, 2, 9])] {
            let mut image = [0; 4];
            let write = |offset, data: &[u8]| {
                image[usize::try_from(offset).unwrap()..][..data.len()].copy_from_slice(data);
                Ok(())
            };
            log.replay(prefix, write).unwrap();
            assert_eq!(image, expected, "prefix {prefix}");
        }
    }
}
