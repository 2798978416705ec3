//! Which backend is used.

use std::sync::Arc;

use super::sim::Sim;
use super::threads::Threads;
use super::uring::Uring;
use super::{Backend, PagePool};
use crate::error::{Error, Result};

/// The backends to choose from.
#[derive(Clone, Debug, Default)]
pub enum BackendKind {
    /// The ring, or threads where the kernel refuses it.
    #[default]
    Auto,
    /// The kernel's ring (`io_uring(7)`).
    Uring,
    /// pread and pwrite on threads.
    Threads,
    /// The simulation: in virtual time, with its faults.
    Sim(Sim),
}

/// A backend, and why it is not the one first tried.
pub struct Opened {
    /// The backend.
    pub backend: Box<dyn Backend>,
    /// Why the ring was not to be had, where `Auto` fell back.
    pub fallback: Option<String>,
}

/// Opens a backend. Call it on the thread that will use it. `depth`: how many transfers of one kind its user wants in flight to one
/// device; threads are kept for twice as many.
pub fn open(kind: &BackendKind, pool: &Arc<PagePool>, depth: usize) -> Result<Opened> {
    let ring = || Uring::new(pool).map_err(|error| Error::os("io_uring", error));
    let plain = |backend: Box<dyn Backend>| Opened { backend, fallback: None };
    Ok(match kind {
        BackendKind::Uring => plain(Box::new(ring()?)),
        BackendKind::Threads => plain(Box::new(Threads::new(depth))),
        BackendKind::Sim(sim) => plain(Box::new(sim.backend())),
        BackendKind::Auto => match ring() {
            Ok(ring) => plain(Box::new(ring)),
            Err(error) => Opened { backend: Box::new(Threads::new(depth)), fallback: Some(error.to_string()) },
        },
    })
}
