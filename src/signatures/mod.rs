//! What lies on a device, told by its bytes: partition tables, file systems, members of volumes, swap.
//!
//! Pure: the bytes are handed in by whoever may read them, and nothing that they say is believed. Every position, length and
//! count that comes from them is checked before it is used, and lists have a limit. The words for kinds are blkid(8)'s.
//!
//! What is looked at: the first 2 MiB, the last 512 KiB, and for a label or a table what the superblock points at. A partition is
//! looked at as a device of its own, but for tables in it.

use std::ops::Range;

mod boot;
mod members;
mod optical;
mod simple;
mod tables;
mod window;

use window::Window;

/// What a signature stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Usage {
    /// A partition table.
    Table,
    /// A file system, or the journal of one.
    FileSystem,
    /// A part of something larger: LVM, md, ZFS, bcache.
    Member,
    /// Ciphertext.
    Crypto,
    /// Swap, or a machine's memory that sleeps there.
    Swap,
}

/// A signature that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is, in the word that blkid(8) has for it: `ext4`, `gpt`, `LVM2_member`.
    pub kind: &'static str,
    /// What it stands for.
    pub usage: Usage,
    /// Where its superblock or header begins, in bytes.
    pub offset: u64,
    /// The label, as it is.
    pub label: Option<String>,
    /// The UUID, as blkid(8) prints it.
    pub uuid: Option<String>,
    /// Of a partition table: its partitions, in the order of their numbers.
    pub partitions: Vec<Partition>,
    /// It is a second copy of one that was found at its own place.
    pub is_backup: bool,
}

/// An entry of a partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// Its bytes on the device.
    pub bytes: Range<u64>,
    /// Its type: a GUID, or two hexadecimal digits.
    pub kind: String,
    /// Its name, where the table has one.
    pub name: Option<String>,
    /// Its own UUID.
    pub uuid: Option<String>,
    /// What lies in it.
    pub content: Vec<Found>,
}

impl Found {
    fn new(kind: &'static str, usage: Usage, offset: u64) -> Self {
        Self { kind, usage, offset, label: None, uuid: None, partitions: Vec::new(), is_backup: false }
    }
}

/// Gives bytes of a device, exactly as many as asked for; `None` where they cannot be read.
pub type Read<'a> = dyn FnMut(u64, usize) -> Option<Vec<u8>> + 'a;

/// What lies on a device of `size` bytes, in the order of the places. Never panics, whatever the bytes are.
///
/// # Examples
/// ```
/// use kcopyfs::signatures::probe;
///
/// let mut disk = vec![0; 1 << 20];
/// disk[4086..4096].copy_from_slice(b"SWAPSPACE2");
/// disk[1024] = 1;
/// let mut read = |at: u64, count: usize| disk.get(at as usize..at as usize + count).map(<[u8]>::to_vec);
/// let found = probe(1 << 20, &mut read);
/// assert_eq!((found.len(), found[0].kind), (1, "swap"));
/// ```
pub fn probe(size: u64, read: &mut Read<'_>) -> Vec<Found> {
    let mut window = Window::new(0..size, read);
    let mut found = contents(&mut window);
    let has_boot_sector = found.iter().any(|one| one.offset == 0 && boot::KINDS.contains(&one.kind));
    let mut tables = tables::find(&mut window, has_boot_sector);
    for partition in tables.iter_mut().flat_map(|table| &mut table.partitions) {
        let bytes = partition.bytes.start.min(size)..partition.bytes.end.min(size);
        // What holds other partitions has an entry, and no content of its own.
        if !tables::is_container(partition) && bytes.start > 0 && !bytes.is_empty() {
            partition.content = contents(&mut Window::new(bytes, read));
        }
    }
    found.extend(tables);
    found.sort_by_key(|one| one.offset);
    found
}

/// All but tables.
fn contents(window: &mut Window<'_, '_>) -> Vec<Found> {
    let mut found = simple::find(window);
    found.extend(members::find(window));
    found.extend(boot::find(window));
    found.extend(optical::find(window));
    found.sort_by_key(|one| one.offset);
    found
}

/// Sixteen bytes as a UUID; `None` for zeros.
fn uuid(bytes: &[u8]) -> Option<String> {
    let bytes = <[u8; 16]>::try_from(bytes).ok()?;
    if bytes == [0; 16] {
        return None;
    }
    let hex = hex(&bytes);
    Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// Two digits a byte.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

/// A text of fixed length, up to its first zero, without the blanks behind it; `None` where nothing is left.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The same in UTF-16.
fn wide_text(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).take_while(|unit| *unit != 0);
    let text: String = char::decode_utf16(units).map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
