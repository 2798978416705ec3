//! The string of `-o`: any bytes are options or an error in one line. What was understood, said in full, is understood
//! the same.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use kcopyfs::cli::{Io, Options, StateDir};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // An argument of a program ends at its first NUL, so it has none.
    let lists: Vec<OsString> = data.split(|byte| *byte == 0).map(|list| OsString::from_vec(list.to_vec())).collect();
    match Options::parse(&lists) {
        Ok(options) => assert_eq!(Options::parse(&[said(&options)]).expect("what was said is understood"), options),
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
        }
    }
});

/// Every option, in full.
fn said(options: &Options) -> OsString {
    let Options { pages, client_pages, subjob_kb, throttle, keep, max_jobs, active, gid, mode, .. } = options;
    let io = match options.io {
        Io::Auto => "auto",
        Io::Uring => "uring",
        Io::Threads => "threads",
    };
    let numbers = format!(
        "pages={pages},client_pages={client_pages},subjob_kb={subjob_kb},throttle={throttle},\
         keep={keep},max_jobs={max_jobs},active={active},io={io},gid={gid},mode={mode:o}"
    );
    let mut list = numbers.into_bytes();
    if options.allow_other {
        list.extend(b",allow_other");
    }
    match &options.state {
        StateDir::Standard => {}
        StateDir::Nowhere => list.extend(b",state=none"),
        StateDir::Dir(path) => {
            list.extend(b",state=");
            for byte in path.as_os_str().as_bytes() {
                if matches!(byte, b',' | b'\\') {
                    list.push(b'\\');
                }
                list.push(*byte);
            }
        }
    }
    OsString::from_vec(list)
}
