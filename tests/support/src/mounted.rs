//! File systems that a test mounts: a small tmpfs, or ext4 on a disk with faults.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{mounts, sweep};

/// A directory to mount at; dropping it takes away what is mounted there, whoever uses it.
#[derive(Debug)]
pub struct MountPoint(PathBuf);

impl MountPoint {
    /// A fresh one, with nothing mounted.
    pub fn new() -> io::Result<Self> {
        sweep::sweep_once();
        let dir = tempfile::Builder::new().prefix(&sweep::point_prefix()).tempdir()?;
        Ok(Self(dir.keep()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Mounts `source`, of type `kind`, with these options of mount(8).
    pub fn mount(&self, kind: &str, source: impl AsRef<Path>, options: &str) {
        run(Command::new("mount").args(["-t", kind, "-o", options]).arg(source.as_ref()).arg(&self.0));
    }

    /// Mounts it again with other options.
    pub fn remount(&self, options: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0));
    }

    /// Unmounts it, as at a shutdown: nobody may use it any more.
    pub fn unmount(&self) {
        run(Command::new("umount").arg(&self.0));
    }
}

impl Drop for MountPoint {
    fn drop(&mut self) {
        while mounts::is_mounted(&self.0) && mounts::unmount_now(&self.0).is_ok() {}
        let _ = fs::remove_dir(&self.0);
    }
}

/// Makes an ext4 on `device`, whole at once, so that nothing is written behind the test's back.
pub fn make_ext4(device: &Path, features: &str) {
    let whole = "lazy_itable_init=0,lazy_journal_init=0,nodiscard";
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-O", features, "-E", whole]).arg(device));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
