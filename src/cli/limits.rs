//! The process's limits.
#![allow(unsafe_code)]

/// Raises the number of open files to what the system allows: each job holds a descriptor a device.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes one rlimit through the pointer, which lives until the call is back.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: setrlimit reads one rlimit through the pointer, which lives until the call is back.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        log::info!("the limit of open files stays: {}", std::io::Error::last_os_error());
    }
}
