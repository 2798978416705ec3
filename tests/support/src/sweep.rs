//! What a killed test process left behind, and taking it away.
//!
//! A live process cleans up after itself. One that was killed leaves dead mounts and scratch images, and perhaps threads
//! that wait for ever on the disk that they themselves served; aborting the mount frees those. Everything of ours carries
//! the process's number in its name, and only what belongs to a dead one is touched.

use std::{fs, path::Path, sync::Once};

use crate::{looping, mounts};

/// The type of our mounts in the kernel's list.
pub(crate) const MOUNT_KIND: &str = "fuse.faultdisk";

/// The name of the thread that serves a disk: as long as it lives, the disk does. At most 15 bytes, as the kernel keeps.
pub(crate) const SESSION_THREAD: &str = "fault-session";

/// Where scratch images lie: in memory.
pub(crate) const IMAGE_DIR: &str = "/dev/shm";

/// What the name of a scratch image begins with; then come the process's number and a dash.
const IMAGE_PREFIX: &str = "kcopyfs-test-";

/// What this process's mounts have as their source.
pub(crate) fn mount_source() -> String {
    format!("faultdisk:{}", std::process::id())
}

/// What the names of this process's scratch images and directories begin with.
pub(crate) fn scratch_prefix() -> String {
    format!("{IMAGE_PREFIX}{}-", std::process::id())
}

/// Sweeps, the first time it is called in this process.
pub(crate) fn sweep_once() {
    static ONCE: Once = Once::new();
    ONCE.call_once(sweep);
}

/// Takes away the mounts, loop devices and scratch images of dead test processes.
pub fn sweep() {
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
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix(IMAGE_PREFIX)).and_then(|rest| rest.split_once('-'));
        let Some((owner, _)) = owner else { continue };
        if owner.parse::<u32>().is_ok() && !Path::new("/proc").join(owner).exists() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether process `pid` still has a thread that serves a disk. A killed process has none, even while others of its
/// threads are stuck in the kernel.
fn serves(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok())
        .any(|name| name.trim_end() == SESSION_THREAD)
}
