//! What the system tells, and the standard library does not read.

pub(crate) mod mounts;
pub(crate) mod parallel;
pub(crate) mod process;
