//! Disks for tests of the store: one in memory that can lose its power, and one whose steps fail on demand.

mod faults;
mod model;

pub(crate) use faults::{Fault, Faulty, Mistake};
pub(crate) use model::Model;

use super::disk::Disk;
use super::{DAMAGED, Opened, Store, opening};
use crate::error::Result;

impl<D: Disk> Store<D> {
    /// Opens a state directory on any disk.
    pub(crate) fn open_on(disk: D, time: u64) -> Result<Opened<D>> {
        opening::open(disk, time)
    }
}
