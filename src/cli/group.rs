//! A group's number by its name, as the system knows it (`getgrnam_r(3)`: files, LDAP, whatever NSS has).

use std::ffi::OsStr;

use nix::errno::Errno;
use nix::unistd::Group;

use crate::error::{Error, Result};

/// The number of the group of that name, or `None` where there is none.
pub(super) fn find(name: &OsStr) -> Result<Option<u32>> {
    let Some(text) = name.to_str() else { return Ok(None) };
    loop {
        match Group::from_name(text) {
            Ok(group) => return Ok(group.map(|group| group.gid.as_raw())),
            // What some name services say for "no such group".
            Err(Errno::ENOENT | Errno::ESRCH) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::os(format!("look up the group {text}"), errno.into())),
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
