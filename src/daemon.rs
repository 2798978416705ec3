//! The daemon: rooms put together, served until the end.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::herald;
use kcopyfs::cli::{Event, Io, Line, Options, Signals, Waker, limits};
use kcopyfs::fs::{Mount, Tree, TreeConfig};
use kcopyfs::io::BackendKind;
use kcopyfs::jobs::{Config, Jobs};
use kcopyfs::{Error, ErrorKind, Result};

/// Of the 5 s that a stop may take, what devices get to end their I/O and to flush. The rest is for the mount and for closing all
/// that is open, which takes seconds where the machine is busy: a daemon that is killed before that keeps its state directory from
/// the next one for as long as a device hangs.
const STOP_IO: Duration = Duration::from_secs(2);

/// Mounts the tree at `mountpoint` and serves it until `signals` say stop or the mount ends.
///
/// The end, in the order that loses nothing: no new I/O, a flush of what was written, the mount, the process. What a
/// device still holds then is left to it, not waited for.
pub(crate) fn run(
    options: &Options,
    mountpoint: &Path,
    source: &str,
    signals: &Signals,
    line: &mut Line,
) -> Result<()> {
    limits::raise_open_files();
    let mount = Mount::new(mountpoint, source, options.allow_other)?;
    let jobs = Arc::new(Jobs::new(config(options)?)?);
    herald::start(&jobs)?;
    let serving = Tree::serve(mount, Arc::clone(&jobs), tree_config(options)?)?;
    let unmounted = Waker::new()?;
    let waker = unmounted.clone();
    serving.on_end(Box::new(move || waker.wake()));
    line.ready()?;
    match signals.wait(Some(unmounted.as_fd()), None)? {
        Some(Event::Signal(signal)) => log::info!("stopping: signal {signal}"),
        _ => log::info!("stopping: unmounted"),
    }
    line.stopping();
    jobs.stop(STOP_IO);
    serving.stop();
    // Its drop would wait for devices that may never answer; the system takes everything back when the process ends.
    std::mem::forget(jobs);
    Ok(())
}

/// Who we are: the owner of our own entry in /proc.
fn uid() -> Result<u32> {
    let meta = std::fs::metadata("/proc/self").map_err(|error| Error::os("/proc/self", error))?;
    Ok(meta.uid())
}

fn tree_config(options: &Options) -> Result<TreeConfig> {
    let mode = u16::try_from(options.mode).map_err(|_| Error::new(ErrorKind::Invalid, "mode= is too large"))?;
    Ok(TreeConfig { uid: uid()?, gid: options.gid, mode, allow_other: options.allow_other })
}

fn config(options: &Options) -> Result<Config> {
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let small = |name: &str, number: u64| {
        u32::try_from(number).map_err(|_| Error::new(ErrorKind::Invalid, format!("{name}={number} is too large")))
    };
    Ok(Config {
        pages: small("pages", options.pages)?,
        client_pages: small("client_pages", options.client_pages)?,
        subjob_bytes: small("subjob_kb", options.subjob_kb * 1024)?,
        subjobs: options.subjobs,
        throttle: small("throttle", options.throttle)?,
        backend: match options.io {
            Io::Auto => BackendKind::Auto,
            Io::Uring => BackendKind::Uring,
            Io::Threads => BackendKind::Threads,
        },
        state: options.state.resolve(uid()?)?,
        active: count(options.active),
        keep: count(options.keep),
        max_jobs: count(options.max_jobs),
    })
}
