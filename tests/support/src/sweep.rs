//! What a killed test process left behind, and taking it away.
//!
//! A live process cleans up after itself. One that was killed leaves dead mounts and scratch images, and perhaps threads
//! that wait for ever on the disk that they themselves served; aborting the mount frees those. Everything of ours carries
//! the process's number in its name, and only what belongs to a dead one is touched.

use std::{ffi::OsStr, fs, path::Path, sync::Once};

use crate::{looping, mounts};

/// The type of our mounts in the kernel's list.
pub(crate) const MOUNT_KIND: &str = "fuse.faultdisk";

/// The name of the thread that serves a disk: as long as it lives, the disk does. At most 15 bytes, as the kernel keeps.
pub(crate) const SESSION_THREAD: &str = "fault-session";

/// Where scratch images lie: in memory.
pub(crate) const IMAGE_DIR: &str = "/dev/shm";

/// What the name of a scratch image begins with; then come the process's number and a dash.
const IMAGE_PREFIX: &str = "kcopyfs-test-";

/// What the name of a mount point begins with; then come the process's number and a dash.
const POINT_PREFIX: &str = "kcopyfs-mounted-";

/// What this process's mounts have as their source.
pub(crate) fn mount_source() -> String {
    format!("faultdisk:{}", std::process::id())
}

/// What the names of this process's scratch images and directories begin with.
pub(crate) fn scratch_prefix() -> String {
    format!("{IMAGE_PREFIX}{}-", std::process::id())
}

/// What the names of this process's mount points begin with.
pub(crate) fn point_prefix() -> String {
    format!("{POINT_PREFIX}{}-", std::process::id())
}

/// Sweeps, the first time it is called in this process.
pub(crate) fn sweep_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(sweep);
}

/// Takes away the mounts, loop devices and scratch images of dead test processes.
pub fn sweep() {
    for mount in mounts::list() {
        // first, since they may lie on disks that go below
        if owner_in(mount.point.file_name(), POINT_PREFIX).is_some_and(|owner| !is_there(owner)) {
            let _ = mounts::unmount_now(&mount.point);
            let _ = fs::remove_dir(&mount.point);
        }
    }
    for mount in mounts::list() {
        let owner = mount.source.strip_prefix("faultdisk:").and_then(|pid| pid.parse().ok());
        let Some(owner) = owner else { continue };
        if mount.kind == MOUNT_KIND && !serves(owner) {
            let devices = looping::devices_over(&mount.point);
            // another process may sweep at the same time: whoever is second finds nothing, which is as good
            let _ = mounts::unmount_now(&mount.point);
            for device in devices {
                let _ = looping::clear(&device);
            }
            let _ = fs::remove_dir(&mount.point);
        }
    }
    for entry in fs::read_dir(IMAGE_DIR).into_iter().flatten().flatten() {
        if owner_in(Some(&entry.file_name()), IMAGE_PREFIX).is_some_and(|owner| !is_there(owner)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The number of the process whose name this is.
fn owner_in(name: Option<&OsStr>, prefix: &str) -> Option<u32> {
    name?.to_str()?.strip_prefix(prefix)?.split_once('-')?.0.parse().ok()
}

fn is_there(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Whether process `pid` still has a thread that serves a disk. A killed process has none, even while others of its
/// threads are stuck in the kernel.
fn serves(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok())
        .any(|name| name.trim_end() == SESSION_THREAD)
}
