//! What can go wrong, and the errno a shell sees for it.
//!
//! An [`Error`] is a kind, a sentence that names the thing and the remedy, and the system's error beneath it where there
//! is one. The kind alone decides the errno, in one place: [`ErrorKind::errno`].

use std::{fmt, io};

/// The result of everything here that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What sort of thing went wrong. Each has one errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Text that is not in the language: unknown word, bad number, missing region.
    Syntax,
    /// Source and destination, or two destinations, share sectors.
    Overlap,
    /// A position or length that the device cannot address.
    Unaligned,
    /// An argument out of its range.
    Invalid,
    /// No such path, job or client.
    NotFound,
    /// Neither a block device nor a regular file.
    NotBlock,
    /// A region that reaches beyond the end of its device.
    BeyondEnd,
    /// More jobs, or other things that are counted, than the limit allows.
    Exhausted,
    /// Mounted, held, or in use by another.
    Busy,
    /// Already there.
    Exists,
    /// Read-only device or file system.
    ReadOnly,
    /// The caller, or the daemon, may not.
    Access,
    /// A line or a list that is too long.
    TooBig,
    /// Too few pages.
    NoMemory,
    /// Ended by request.
    Cancelled,
    /// What the system said.
    Os(i32),
}

impl ErrorKind {
    /// The errno for it: the only place that decides one.
    pub const fn errno(self) -> i32 {
        match self {
            Self::Syntax | Self::Overlap | Self::Unaligned | Self::Invalid => libc::EINVAL,
            Self::NotFound => libc::ENOENT,
            Self::NotBlock => libc::ENOTBLK,
            Self::BeyondEnd | Self::Exhausted => libc::ENOSPC,
            Self::Busy => libc::EBUSY,
            Self::Exists => libc::EEXIST,
            Self::ReadOnly => libc::EROFS,
            Self::Access => libc::EACCES,
            Self::TooBig => libc::E2BIG,
            Self::NoMemory => libc::ENOMEM,
            Self::Cancelled => libc::ECANCELED,
            Self::Os(errno) => errno,
        }
    }
}

/// An error: its kind, a sentence for people, and what lies beneath.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<io::Error>,
}

impl Error {
    /// An error of our own finding. `context` names the thing and the remedy.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None }
    }

    /// An error that the system reported while doing what `context` says. The kind follows the errno.
    pub fn os(context: impl Into<String>, source: io::Error) -> Self {
        let kind = match source.raw_os_error() {
            Some(libc::ENOENT) => ErrorKind::NotFound,
            Some(libc::EBUSY) => ErrorKind::Busy,
            Some(libc::EROFS) => ErrorKind::ReadOnly,
            Some(libc::EACCES) => ErrorKind::Access,
            Some(libc::ENOMEM) => ErrorKind::NoMemory,
            Some(errno) => ErrorKind::Os(errno),
            None => ErrorKind::Os(libc::EIO),
        };
        Self { kind, context: context.into(), source: Some(source) }
    }

    /// What sort of error it is.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same may well work later: somebody else has what it takes, a device or the last descriptor.
    pub(crate) const fn may_pass(&self) -> bool {
        matches!(self.kind, ErrorKind::Busy | ErrorKind::Os(libc::EMFILE | libc::ENFILE))
    }

    /// The errno a caller of write(2) gets for it.
    pub const fn errno(&self) -> i32 {
        self.kind.errno()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        match &self.source {
            Some(source) => write!(f, ": {}", errno_text(source)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// The system's sentence for an error, without Rust's "(os error N)"; ours where we know a remedy.
fn errno_text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            return "EMFILE, the daemon has too many files open: let jobs end, or raise its limit (LimitNOFILE= in the \
                    unit, ulimit -n)"
                .to_owned();
        }
        Some(libc::ENFILE) => {
            return "ENFILE, the system has too many files open: raise fs.file-max with sysctl".to_owned();
        }
        _ => {}
    }
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// The names of the errnos that devices and this project use; others are given by number.
const ERRNO_NAMES: &[(i32, &str)] = &[
    (libc::EPERM, "EPERM"),
    (libc::ENOENT, "ENOENT"),
    (libc::EINTR, "EINTR"),
    (libc::EIO, "EIO"),
    (libc::ENXIO, "ENXIO"),
    (libc::E2BIG, "E2BIG"),
    (libc::EBADF, "EBADF"),
    (libc::EAGAIN, "EAGAIN"),
    (libc::ENOMEM, "ENOMEM"),
    (libc::EACCES, "EACCES"),
    (libc::EFAULT, "EFAULT"),
    (libc::ENOTBLK, "ENOTBLK"),
    (libc::EBUSY, "EBUSY"),
    (libc::EEXIST, "EEXIST"),
    (libc::ENODEV, "ENODEV"),
    (libc::ENOTDIR, "ENOTDIR"),
    (libc::EISDIR, "EISDIR"),
    (libc::EINVAL, "EINVAL"),
    (libc::ENFILE, "ENFILE"),
    (libc::EMFILE, "EMFILE"),
    (libc::EFBIG, "EFBIG"),
    (libc::ENOSPC, "ENOSPC"),
    (libc::EROFS, "EROFS"),
    (libc::ENAMETOOLONG, "ENAMETOOLONG"),
    (libc::ENOTEMPTY, "ENOTEMPTY"),
    (libc::ELOOP, "ELOOP"),
    (libc::ENODATA, "ENODATA"),
    (libc::ETIME, "ETIME"),
    (libc::ENOLINK, "ENOLINK"),
    (libc::EPROTO, "EPROTO"),
    (libc::EBADMSG, "EBADMSG"),
    (libc::EOVERFLOW, "EOVERFLOW"),
    (libc::EILSEQ, "EILSEQ"),
    (libc::EOPNOTSUPP, "EOPNOTSUPP"),
    (libc::ETIMEDOUT, "ETIMEDOUT"),
    (libc::ESTALE, "ESTALE"),
    (libc::EREMOTEIO, "EREMOTEIO"),
    (libc::EDQUOT, "EDQUOT"),
    (libc::EMEDIUMTYPE, "EMEDIUMTYPE"),
    (libc::ENOMEDIUM, "ENOMEDIUM"),
    (libc::ECANCELED, "ECANCELED"),
];

/// The symbolic name of an errno (`EIO`), or its number where it has none here.
pub fn errno_name(errno: i32) -> String {
    match ERRNO_NAMES.iter().find(|(number, _)| *number == errno) {
        Some((_, name)) => (*name).to_owned(),
        None => errno.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_follows_errno_and_back() {
        for errno in [libc::ENOENT, libc::EBUSY, libc::EROFS, libc::EACCES, libc::ENOMEM, libc::ENXIO] {
            let error = Error::os("open /dev/x", io::Error::from_raw_os_error(errno));
            assert_eq!(error.errno(), errno);
        }
    }

    #[test]
    fn text_is_for_people() {
        let error = Error::os("open /dev/x", io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(error.to_string(), "open /dev/x: No such file or directory");
        let error = Error::os("open /dev/x", io::Error::from_raw_os_error(libc::EMFILE));
        assert!(error.may_pass() && error.to_string().contains("EMFILE") && error.to_string().contains("LimitNOFILE="));
        assert_eq!(errno_name(libc::EIO), "EIO");
        assert_eq!(errno_name(9999), "9999");
    }
}
