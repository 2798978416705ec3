//! What a test needs from the machine. A skip is loud; under `CI=true` it is a failure.
//!
//! ```no_run
//! use kcopyfs_support::need;
//!
//! fn a_bad_sector_costs_one_block() {
//!     if !need::fault_disk() || !need::program("ddrescuelog", "gddrescue") {
//!         return;
//!     }
//! }
//! ```

use std::{env, fs::OpenOptions, io::Write as _, path::Path, thread};

use crate::sweep;

/// Whether we are root.
pub fn root() -> bool {
    // /proc/self belongs to the effective user
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0);
    is_root || skip("must be run by root")
}

/// Whether /dev/fuse opens.
pub fn fuse() -> bool {
    can_open("/dev/fuse", "load the module fuse")
}

/// Whether there are loop devices.
pub fn loops() -> bool {
    root() && can_open("/dev/loop-control", "load the module loop")
}

/// Whether a [`crate::FaultDisk`] can be had.
pub fn fault_disk() -> bool {
    loops() && fuse()
}

/// Whether `program` is in the PATH; `package` is where Debian has it.
pub fn program(program: &str, package: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    // a user's PATH often lacks the administrator's directories
    let extra = ["/usr/sbin", "/sbin"].map(Into::into);
    let found = env::split_paths(&path).chain(extra).any(|dir| dir.join(program).is_file());
    found || skip(&format!("{program} is not installed (Debian package {package})"))
}

fn can_open(path: &str, remedy: &str) -> bool {
    match OpenOptions::new().read(true).write(true).open(Path::new(path)) {
        Ok(_) => {
            sweep::sweep_once();
            true
        }
        Err(error) => skip(&format!("{path}: {error}; {remedy}")),
    }
}

/// Says on the real stderr, which the test harness does not capture, that this test is skipped.
///
/// # Panics
/// Under `CI=true`: there, a test that does not run is a failure.
pub fn skip(reason: &str) -> bool {
    let thread = thread::current();
    let name = thread.name().unwrap_or("test");
    assert!(env::var("CI").as_deref() != Ok("true"), "SKIPPED: {name}: {reason}; under CI=true nothing may be skipped");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {reason}");
    false
}
