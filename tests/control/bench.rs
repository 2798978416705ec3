//! A mounted tree, and images to copy: `a`, a source of 64 KiB, and whatever else a test asks for.

use std::fs;
use std::path::PathBuf;

use kcopyfs_support::{Daemon, need, stamp};

/// Bytes of each image.
pub(crate) const IMAGE: usize = 64 << 10;
/// What the source is stamped with.
const SEED: u64 = 7;

pub(crate) struct Bench {
    // First, so that the tree is gone before the files that it works on.
    pub(crate) daemon: Daemon,
    scratch: tempfile::TempDir,
}

impl Bench {
    /// A tree with `options`, or `None` where the machine has no FUSE.
    pub(crate) fn new(options: &[&str]) -> Option<Self> {
        if !need::fuse() {
            return None;
        }
        let scratch = tempfile::Builder::new().prefix("kcopyfs-control-").tempdir().expect("a scratch directory");
        fs::write(scratch.path().join("a"), source()).expect("a source");
        let builder = Daemon::builder(env!("CARGO_BIN_EXE_kcopyfs")).option("pages=1024").option("client_pages=512");
        let daemon = options.iter().fold(builder, |builder, option| builder.option(*option)).start();
        Some(Self { daemon, scratch })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// An image of zeros.
    pub(crate) fn image(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, vec![0; IMAGE]).expect("an image");
        path
    }

    /// The spec of a copy of `a` to a fresh image.
    pub(crate) fn copy(&self, to: &str, words: &str) -> String {
        format!("from={} to={} {words}", self.path("a").display(), self.image(to).display())
    }

    /// Makes a copy of `a` to a fresh image that takes 16 seconds.
    pub(crate) fn slow(&self, to: &str, words: &str) -> u64 {
        self.daemon.job(&self.copy(to, &format!("speed_max=4K {words}"))).expect("a slow job")
    }

    /// Whether an image has all of the source.
    pub(crate) fn is_whole(&self, name: &str) -> bool {
        fs::read(self.path(name)).expect("an image") == source()
    }

    /// A verb's errno; 0 where it was taken.
    pub(crate) fn verb(&self, id: u64, verb: &str) -> i32 {
        errno(&self.daemon.control(id, verb))
    }

    pub(crate) fn rmdir(&self, dir: &str) -> i32 {
        errno(&fs::remove_dir(self.daemon.path(dir)))
    }

    pub(crate) fn mkdir(&self, dir: &str) -> i32 {
        errno(&fs::create_dir(self.daemon.path(dir)))
    }

    /// What `status` says of why a job waits or has failed.
    pub(crate) fn why(&self, id: u64) -> String {
        self.daemon.status(id).error().unwrap_or_default().to_owned()
    }
}

fn source() -> Vec<u8> {
    stamp::stamped(SEED, 0, IMAGE / stamp::SECTOR)
}

fn errno(result: &std::io::Result<()>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().expect("an errno"),
    }
}
