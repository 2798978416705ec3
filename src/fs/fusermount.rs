//! fusermount3: mounting for an ordinary user, by the setuid helper of the fuse3 package.
//!
//! The helper mounts and sends the open /dev/fuse back over a socket, which it gets as its standard input: no descriptor
//! has to be inherited beside the usual three.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use super::mount::receive_descriptor;
use super::mountpoint::{option_value, source_name};
use crate::error::{Error, ErrorKind, Result};

const HELPER: &str = "fusermount3";
/// Tells the helper which of its descriptors is the socket.
const SOCKET_VARIABLE: &str = "_FUSE_COMMFD";
/// Most of what the helper says that is repeated.
const SAID_MAX: u64 = 4096;

/// Mounts at `point` and gives the open /dev/fuse.
pub(super) fn mount(point: &Path, source: &str, allow_other: bool) -> Result<OwnedFd> {
    let source = option_value(source_name(source));
    let mut options = format!("fsname={source},subtype=kcopyfs,nodev,nosuid,noexec,default_permissions");
    if allow_other {
        options.push_str(",allow_other");
    }
    let (ours, theirs) = UnixStream::pair().map_err(|error| Error::os("make a socket", error))?;
    let mut command = Command::new(HELPER);
    command.arg("-o").arg(options).arg("--").arg(point);
    command.env(SOCKET_VARIABLE, "0").stdin(OwnedFd::from(theirs));
    let mut helper = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(missing)?;
    // The command holds the other end of the socket: without it, the end of the helper is the end of the stream.
    drop(command);

    let device = receive_descriptor(&ours).map_err(|error| Error::os(format!("hear from {HELPER}"), error));
    let mut said = String::new();
    if let Some(stderr) = helper.stderr.take() {
        _ = stderr.take(SAID_MAX).read_to_string(&mut said);
    }
    let status = helper.wait().map_err(|error| Error::os(format!("wait for {HELPER}"), error))?;
    match device? {
        Some(device) if status.success() => Ok(device),
        _ => {
            let why = format!("mount at {}: {}", point.display(), reason(&said));
            Err(Error::new(ErrorKind::Os(libc::EPERM), why))
        }
    }
}

/// Detaches what is at `point`.
pub(super) fn unmount(point: &Path) -> Result<()> {
    let mut command = Command::new(HELPER);
    let output = command.args(["-u", "-z", "--"]).arg(point).stdin(Stdio::null()).output().map_err(missing)?;
    if output.status.success() {
        return Ok(());
    }
    let why = format!("unmount {}: {}", point.display(), reason(&String::from_utf8_lossy(&output.stderr)));
    Err(Error::new(ErrorKind::Os(libc::EPERM), why))
}

fn missing(error: io::Error) -> Error {
    let hint = if error.kind() == io::ErrorKind::NotFound { " (install fuse3, or mount as root)" } else { "" };
    Error::os(format!("run {HELPER}{hint}"), error)
}

/// What the helper said, in one line, with the remedy where it names none.
fn reason(said: &str) -> String {
    let said = said.trim().replace('\n', "; ");
    let remedy = if said.contains("/dev/fuse") { " (let this user open /dev/fuse, or mount as root)" } else { "" };
    if said.is_empty() { format!("{HELPER} failed and did not say why; mount as root") } else { said + remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_shut_has_a_remedy() {
        let said = reason("fusermount3: failed to open /dev/fuse: Permission denied\n");
        assert!(said.contains("Permission denied") && said.ends_with("or mount as root)"), "{said}");
        let said = reason("fusermount3: user has no write access to mountpoint /mnt\n");
        assert_eq!(said, "fusermount3: user has no write access to mountpoint /mnt");
        assert!(reason("").contains("did not say why"));
    }
}
