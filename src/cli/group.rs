//! A group's number by its name, as the system knows it (`getgrnam_r(3)`: files, LDAP, whatever NSS has).
#![allow(unsafe_code)] // getgrnam_r(3) has no safe form in std

use std::ffi::{CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;

use crate::error::{Error, Result};

/// Longest entry read: a group of many thousand members.
const ENTRY_MAX: usize = 1 << 20;

/// The number of the group of that name, or `None` where there is none.
pub(super) fn find(name: &OsStr) -> Result<Option<u32>> {
    let Ok(c_name) = CString::new(name.as_bytes()) else { return Ok(None) };
    let mut buffer = vec![0; 1024];
    loop {
        let mut entry = MaybeUninit::<libc::group>::uninit();
        let mut found = std::ptr::null_mut();
        // SAFETY: all pointers are to locals that outlive the call; the length is the buffer's.
        let errno = unsafe {
            libc::getgrnam_r(c_name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &raw mut found)
        };
        match errno {
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: `found` is not null, so the call filled `entry`.
                let entry = unsafe { entry.assume_init() };
                return Ok(Some(entry.gr_gid));
            }
            // What some name services say for "no such group".
            libc::ENOENT | libc::ESRCH => return Ok(None),
            libc::EINTR => {}
            libc::ERANGE if buffer.len() < ENTRY_MAX => buffer.resize(buffer.len() * 2, 0),
            errno => {
                let error = io::Error::from_raw_os_error(errno);
                return Err(Error::os(format!("look up the group {}", name.display()), error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_0_and_others_are_not_found() {
        assert_eq!(find(OsStr::new("root")).unwrap(), Some(0));
        assert_eq!(find(OsStr::new("no-such-group-here")).unwrap(), None);
        assert_eq!(find(OsStr::new("a\0b")).unwrap(), None);
    }
}
