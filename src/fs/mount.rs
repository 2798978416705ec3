//! Mounting and unmounting the tree: mount(2) on our own, or fusermount3 for an ordinary user.
//!
//! fuser's own mounting is not used: it unmounts whatever is at the mount point when it ends, shows the type `fuse`, and
//! cannot mount over a dead mount. It is handed the open /dev/fuse instead.
//!
//! # Invariants
//! Only our own mount is unmounted, known by its device number wherever it was moved to. A dropped [`Mount`] is detached.
#![allow(unsafe_code)] // a descriptor that was received has no safe form

use std::env;
use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{SysconfVar, getegid, geteuid, sysconf};

use super::fusermount;
use super::mountpoint::{self, Found};
use crate::error::{Error, ErrorKind, Result};
use crate::os::mounts::KCOPYFS as FS_TYPE;

const DEVICE: &str = "/dev/fuse";

/// Dead mounts stacked on one mount point that are cleared; more is not an accident of ours.
const DEAD_MAX: usize = 16;

/// For how long a mount that answers may be that of a daemon that was just killed.
const DYING: Duration = Duration::from_millis(500);

/// How often such a mount is looked at.
const DYING_LOOK: Duration = Duration::from_millis(10);

/// Our mount. Detached when dropped.
#[derive(Debug)]
pub struct Mount {
    point: PathBuf,
    /// The device number the kernel gave it.
    id: Option<u64>,
    device: Option<OwnedFd>,
}

impl Mount {
    /// Mounts at `mountpoint`, shown with `source` in /proc/self/mounts. Nothing answers there before
    /// [`Tree::serve`](super::Tree::serve) does. The mount of a killed daemon is cleared first.
    ///
    /// # Errors
    /// Busy where a kcopyfs is there already; what the system says, with the remedy, where it refuses.
    pub fn new(mountpoint: &Path, source: &str, allow_other: bool) -> Result<Self> {
        let point = find(mountpoint)?;
        clear_dead(&point)?;
        let device = match mount_directly(&point, source, allow_other)? {
            Some(device) => device,
            None => fusermount::mount(&point, source, allow_other)?,
        };
        let mut mount = Self { point, id: None, device: Some(device) };
        let mounts = mountpoint::mounts()?;
        mount.id = mounts.top_at(&mount.point).filter(|top| top.fs == FS_TYPE).map(|top| top.dev);
        Ok(mount)
    }

    /// Where it was mounted: an absolute path without symbolic links.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// The open /dev/fuse, once.
    pub(super) fn take_device(&mut self) -> Option<OwnedFd> {
        self.device.take()
    }

    /// The mount is gone already. Its device number may be another mount's by now, and that is not ours to take away.
    pub(super) fn forget(&mut self) {
        self.id = None;
    }

    /// Takes the mount out of the name space, where it is still there. Files that are open stay open.
    pub(super) fn detach(&mut self) {
        let Some(id) = self.id.take() else { return };
        let mounts = mountpoint::mounts().unwrap_or_default();
        for mount in mounts.iter().filter(|mount| mount.dev == id && mount.fs == FS_TYPE) {
            let point = mount.point.display();
            if mounts.top_at(&mount.point) != Some(mount) {
                log::warn!("{point}: covered by another mount, left for `umount {point}`");
            } else if let Err(error) = detach_at(&mount.point) {
                log::warn!("{error}");
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.detach();
    }
}

/// The absolute path of the mount point, also where an abandoned mount of ours hides it.
fn find(mountpoint: &Path) -> Result<PathBuf> {
    mountpoint::answered(mountpoint, mountpoint::resolve).or_else(|error| {
        let beside = mountpoint::answered(mountpoint, mountpoint::resolve_beside);
        beside.ok().filter(|point| mountpoint::is_abandoned(point)).ok_or(error)
    })
}

/// Clears dead mounts of ours, and makes sure that what is beneath can be mounted on.
fn clear_dead(point: &Path) -> Result<()> {
    for _ in 0..DEAD_MAX {
        match look_patiently(point)? {
            Found::Free => return Ok(()),
            Found::Dead => {
                log::info!("{}: clearing the mount of a daemon that is gone", point.display());
                abort_at(point)?;
            }
        }
    }
    Err(Error::new(ErrorKind::Busy, format!("{}: too many dead mounts (clear them: umount -l)", point.display())))
}

/// Looks again at a mount that is in use, for as long as its daemon may be dying.
fn look_patiently(point: &Path) -> Result<Found> {
    let late = Instant::now() + DYING;
    loop {
        // Before each look, which may take long, and after it: its daemon may have been on its way out.
        if mountpoint::is_abandoned(point) {
            return Ok(Found::Dead);
        }
        match mountpoint::answered(point, mountpoint::look) {
            Err(_) if mountpoint::is_abandoned(point) => return Ok(Found::Dead),
            Err(error) if error.errno() == libc::EBUSY && Instant::now() < late => thread::sleep(DYING_LOOK),
            result => return result,
        }
    }
}

/// Mounts without help, or `None` where this user needs fusermount3.
fn mount_directly(point: &Path, source: &str, allow_other: bool) -> Result<Option<OwnedFd>> {
    let device = match open_device() {
        Ok(device) => device,
        Err(error) if is_refusal(&error) && !geteuid().is_root() => return Ok(None),
        Err(error) => {
            let hint = if is_missing(&error) { " (load the module: modprobe fuse)" } else { "" };
            return Err(Error::os(format!("open {DEVICE}{hint}"), error));
        }
    };
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        geteuid(),
        getegid()
    );
    if allow_other {
        data.push_str(",allow_other");
    }
    match mount(mountpoint::source_name(source), point, &data) {
        Ok(()) => Ok(Some(device)),
        Err(error) if is_refusal(&error) => Ok(None),
        Err(error) => {
            let hint = match error.raw_os_error() {
                Some(libc::ENODEV) => " (load the module: modprobe fuse)",
                _ => "",
            };
            Err(Error::os(format!("mount {FS_TYPE} at {}{hint}", point.display()), error))
        }
    }
}

/// Opens /dev/fuse. At boot a mount of fstab may come before anybody has loaded the module; root then loads it.
fn open_device() -> io::Result<OwnedFd> {
    let open = || File::options().read(true).write(true).open(DEVICE).map(OwnedFd::from);
    match open() {
        Err(error) if is_missing(&error) && geteuid().is_root() && load_module() => open(),
        result => result,
    }
}

/// Whether the kernel has loaded its FUSE, and with it made the device.
fn load_module() -> bool {
    // mount(8) and a service may have a short PATH.
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    let mut modprobe = Command::new("modprobe");
    modprobe.arg("fuse").env("PATH", path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    modprobe.status().is_ok_and(|status| status.success())
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ENXIO))
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES))
}

/// Detaches what is on top at `point`.
fn detach_at(point: &Path) -> Result<()> {
    match umount(point, MntFlags::empty()) {
        Err(error) if is_refusal(&error) => fusermount::unmount(point),
        result => result.map_err(|error| Error::os(format!("unmount {}", point.display()), error)),
    }
}

/// Detaches a dead mount, and answers whoever still waits for it.
fn abort_at(point: &Path) -> Result<()> {
    // Forcing aborts the FUSE connection; it needs privilege, and without it those wait until the process is gone.
    match umount(point, MntFlags::MNT_FORCE) {
        Err(_) => detach_at(point),
        Ok(()) => Ok(()),
    }
}

/// mount(2) of our type.
fn mount(source: &str, point: &Path, data: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    Ok(nix::mount::mount(Some(source), point, Some(FS_TYPE), flags, Some(data))?)
}

/// umount2(2), lazily, not following a symbolic link.
fn umount(point: &Path, flags: MntFlags) -> io::Result<()> {
    Ok(umount2(point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW | flags)?)
}

/// Bytes in a page of the machine.
pub(super) fn page_size() -> usize {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| usize::try_from(size).ok()).unwrap_or(4096)
}

/// Most pages of one request that the administrator allows.
pub(super) fn request_pages_max() -> usize {
    let text = fs::read_to_string("/proc/sys/fs/fuse/max_pages_limit").unwrap_or_default();
    text.trim().parse().unwrap_or(usize::MAX)
}

/// Receives the one descriptor that fusermount3 sends, or `None` where it sent nothing and ended.
pub(super) fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut control = nix::cmsg_space!(RawFd);
    loop {
        let mut parts = [IoSliceMut::new(&mut byte)];
        let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC);
        let message = match received {
            Err(Errno::EINTR) => continue,
            received => received?,
        };
        if message.bytes == 0 {
            return Ok(None);
        }
        let rights = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::ScmRights(descriptors) => descriptors.first().copied(),
            _ => None,
        });
        // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
        return Ok(rights.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor) }));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Read};

    use nix::sys::socket::{ControlMessage, sendmsg};

    use super::*;

    #[test]
    fn the_descriptor_that_is_sent_arrives() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "sent").unwrap();
        let sent = [file.as_file().as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&sent)];
        sendmsg::<()>(theirs.as_raw_fd(), &[IoSlice::new(b"x")], &rights, MsgFlags::empty(), None).unwrap();
        let mut text = String::new();
        File::from(receive_descriptor(&ours).unwrap().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "sent");
        drop(theirs);
        assert!(receive_descriptor(&ours).unwrap().is_none());
    }
}
