//! What the jobs of a daemon may use.

use std::path::PathBuf;

use crate::io::BackendKind;

/// Most jobs at once: each holds open descriptors and a place in every ring.
pub const ACTIVE_MAX: usize = 4096;

/// Limits and sizes; the daemon's options say them.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pages in the shared pool.
    pub pages: u32,
    /// Pages that the client `default` has set aside.
    pub client_pages: u32,
    /// Bytes of a sub-job.
    pub subjob_bytes: u32,
    /// Sub-jobs of one job in flight.
    pub subjobs: Option<usize>,
    /// Percent of time in which the engine does I/O.
    pub throttle: u32,
    /// How devices are reached.
    pub backend: BackendKind,
    /// Where jobs are kept; `None`: nowhere.
    pub state: Option<PathBuf>,
    /// Jobs that run at once.
    pub active: usize,
    /// Ended jobs that are kept.
    pub keep: usize,
    /// Jobs held at all.
    pub max_jobs: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pages: 8192,
            client_pages: 1024,
            subjob_bytes: crate::kcopyd::SUBJOB_BYTES,
            subjobs: None,
            throttle: 100,
            backend: BackendKind::Auto,
            state: None,
            active: 64,
            keep: 1000,
            max_jobs: 100_000,
        }
    }
}
