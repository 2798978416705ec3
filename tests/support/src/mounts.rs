//! Mounts: the kernel's list of them, making one over /dev/fuse, and taking one away at once.
#![allow(unsafe_code)]

use std::{
    ffi::{CString, OsString},
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

/// A line of /proc/self/mountinfo.
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
    pub(crate) kind: String,
    pub(crate) source: String,
}

/// Every mount of this namespace.
pub(crate) fn list() -> Vec<Mount> {
    let text = fs::read("/proc/self/mountinfo").expect("/proc/self/mountinfo");
    text.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

/// Whether something is mounted at `point`.
pub(crate) fn is_mounted(point: &Path) -> bool {
    list().iter().any(|mount| mount.point == point)
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|byte| *byte == b' ');
    let point = PathBuf::from(OsString::from_vec(unescape(words.nth(4)?)));
    let mut rest = words.skip_while(|word| *word != b"-").skip(1);
    let kind = String::from_utf8_lossy(rest.next()?).into_owned();
    let source = String::from_utf8_lossy(&unescape(rest.next()?)).into_owned();
    Some(Mount { point, kind, source })
}

/// Undoes the kernel's `\040` and the like.
fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (*first, tail) {
            out.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
            rest = after;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

/// Mounts the FUSE connection `fuse` at `point`.
pub(crate) fn mount_fuse(fuse: BorrowedFd<'_>, point: &Path, kind: &str, source: &str) -> io::Result<()> {
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", fuse.as_raw_fd());
    let (point, kind, source, options) =
        (c_string(point.as_os_str().as_bytes()), c_string(kind), c_string(source), c_string(options));
    let flags = libc::MS_NODEV | libc::MS_NOSUID | libc::MS_NOEXEC;
    // SAFETY: all five are NUL-terminated strings that live until the end of this function; mount(2) only reads them.
    let result = unsafe { libc::mount(source.as_ptr(), point.as_ptr(), kind.as_ptr(), flags, options.as_ptr().cast()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the mount at `point` away, whoever uses it: a FUSE connection is aborted, so that its stuck requests end.
pub(crate) fn unmount_now(point: &Path) -> io::Result<()> {
    let point = c_string(point.as_os_str().as_bytes());
    // SAFETY: a NUL-terminated string that lives until the end of this function; umount2(2) only reads it.
    let result = unsafe { libc::umount2(point.as_ptr(), libc::MNT_FORCE | libc::MNT_DETACH) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn c_string(text: impl Into<Vec<u8>>) -> CString {
    CString::new(text).expect("no NUL in a path or option")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_escapes_and_optional_fields() {
        let line =
            br"36 35 98:0 / /mnt\040a\134b rw,noatime shared:1 master:2 - fuse.faultdisk faultdisk:7 rw,errors=x";
        let mount = parse(line).unwrap();
        assert_eq!(mount.point, Path::new(r"/mnt a\b"));
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("fuse.faultdisk", "faultdisk:7"));
    }
}
