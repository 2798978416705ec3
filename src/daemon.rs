//! The daemon: rooms put together, served until the end. Not assembled yet.

use std::path::Path;

use kcopyfs::cli::{Background, Options, Signals};
use kcopyfs::{Error, ErrorKind, Result};

/// Mounts the tree at `mountpoint` and serves it until `signals` say stop or the mount ends.
///
/// Calls [`Background::ready`] once the tree answers, [`Background::stopping`] when the end begins.
pub(crate) fn run(
    _options: &Options,
    mountpoint: &Path,
    _source: &str,
    _signals: &Signals,
    _background: &mut Background,
) -> Result<()> {
    let text = format!("mount point {}: this version does not mount yet; use the library", mountpoint.display());
    Err(Error::new(ErrorKind::Unsupported, text))
}

/// Makes scratch images, mounts, copies, shows the files, cleans up.
pub(crate) fn demo() -> Result<()> {
    Err(Error::new(ErrorKind::Unsupported, "demo: this version has none yet; mount a tree instead"))
}
