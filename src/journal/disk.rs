//! What the store asks of a directory: one step each, so that a test can fail or end the world at any of them.

use std::fmt::Debug;
use std::io;
use std::path::Path;

/// A directory of small files.
///
/// # Invariants
/// What [`sync_file`](Disk::sync_file) and [`sync`](Disk::sync) have answered survives a power cut: the first a file's
/// content, the second every name in the directory. Nothing else is promised, in any order.
pub(crate) trait Disk: Debug + Send + Sync {
    /// A file that was made just now.
    type File;

    /// Where it is, for messages.
    fn path(&self) -> &Path;

    /// The names in it. Names that are not UTF-8 are not the store's.
    fn names(&self) -> io::Result<Vec<String>>;

    /// A whole file.
    ///
    /// # Errors
    /// `InvalidData` where the name leads to something that can be no file of the store.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Makes a file of these bytes, in place of one of that name.
    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<Self::File>;

    /// Makes a file's content durable.
    fn sync_file(&self, file: &Self::File) -> io::Result<()>;

    /// Renames a file, in place of one that has the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes every name durable.
    fn sync(&self) -> io::Result<()>;

    /// Moves a file out of the way, to `to` within the folder `damaged`, and makes its new name durable. `to` may begin
    /// with the name of a folder of its own.
    ///
    /// # Errors
    /// `AlreadyExists` where `to` is taken.
    fn set_aside(&self, name: &str, to: &str) -> io::Result<()>;
}
