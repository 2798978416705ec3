//! What people look at.
//!
//! Everything from outside (paths, names, serial numbers, messages) goes through `fit`.

pub(super) mod device;
pub(super) mod fit;
