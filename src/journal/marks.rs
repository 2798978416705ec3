//! The numbers that removed jobs had: the `next` file and its copy.
//!
//! Two files, because one that is damaged would let numbers come back. They are written one after the other, each whole,
//! and the directory is synced before a record goes that they stand for.

use super::disk::Disk;
use super::seal::{Flaw, Reading, seal, unseal};
use super::{JobId, Shelf};
use crate::error::Result;

/// The file and its copy.
pub(super) const MARKS: [&str; 2] = ["next", "next.copy"];

const KIND: &str = "next";

/// The file that says that no removed job had a number from `next` on.
fn print(next: JobId) -> Vec<u8> {
    seal(KIND, &format!("id {next}\n"))
}

/// What such a file says.
pub(super) fn parse(bytes: &[u8]) -> Reading<JobId> {
    let number = unseal(KIND, bytes)?.strip_prefix("id ").and_then(|text| text.lines().next()?.parse().ok());
    number.ok_or_else(|| Flaw::Damaged("it has no number".to_owned()))
}

impl<D: Disk> Shelf<D> {
    /// Makes durable that every number up to the highest was a job's.
    pub(super) fn raise_mark(&mut self) -> Result<()> {
        for name in MARKS {
            self.put(name, &print(self.highest.saturating_add(1)))?;
        }
        self.sync()?;
        self.mark = self.highest.saturating_add(1);
        Ok(())
    }

    /// The same for one of the two files.
    pub(super) fn put_mark(&self, name: &str) -> Result<()> {
        self.put(name, &print(self.highest.saturating_add(1)))?;
        self.sync()
    }
}
