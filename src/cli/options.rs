//! The options of `-o`: one table that makes the parser, the help and the man page.
//!
//! A list is as mount(8) writes it: commas between options, a backslash before a comma that belongs to a value. The
//! last of two wins. What mount(8) and fstab add is taken and ignored; what would change the meaning of the mount is
//! refused.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::group;
use crate::error::{Error, ErrorKind, Result};
use crate::jobs::ACTIVE_MAX;
use crate::spec::{nearest, number, shown};

/// Fewest pages of the pool: one default sub-job.
const PAGES_MIN: u64 = 128;
/// Most pages of the pool: a tebibyte, which no machine gives away by mistake.
const PAGES_MAX: u64 = 1 << 28;
/// KiB in a page.
const PAGE_KB: u64 = 4;
/// Pages of the client `default` where nothing is said.
const CLIENT_PAGES: u64 = 1024;
/// Most jobs held: each takes up to 2 KiB of memory and a directory in the tree.
const JOBS_MAX: u64 = 1_000_000;
/// What `mode=` may set: others never write, and a control file is no program.
const MODE_MASK: u32 = 0o664;

/// What `-o` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Pages of 4 KiB in the shared pool.
    pub pages: u64,
    /// Pages that the client `default` has set aside. At most `pages`.
    pub client_pages: u64,
    /// KiB of a sub-job: a power of two, 4 to 1024, at most the pool.
    pub subjob_kb: u64,
    /// Sub-jobs of one job in flight, 1 to 64; `None`: as many as its devices are fastest with.
    pub subjobs: Option<usize>,
    /// Percent of time in which the engine does I/O, 1 to 100.
    pub throttle: u64,
    /// Where jobs are kept.
    pub state: StateDir,
    /// Ended jobs kept.
    pub keep: u64,
    /// Live and ended jobs held at all.
    pub max_jobs: u64,
    /// Jobs that run at once.
    pub active: u64,
    /// How data is moved.
    pub io: Io,
    /// Others may look.
    pub allow_other: bool,
    /// Group of the writable files.
    pub gid: u32,
    /// Mode of the writable files.
    pub mode: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pages: 8192,
            client_pages: CLIENT_PAGES,
            subjob_kb: 512,
            subjobs: None,
            throttle: 100,
            state: StateDir::Standard,
            keep: 1000,
            max_jobs: 100_000,
            active: 64,
            io: Io::Auto,
            allow_other: false,
            gid: 0,
            mode: 0o600,
        }
    }
}

impl Options {
    /// What was asked for and will not come, in a line.
    pub fn vain(&self) -> Option<&'static str> {
        let others = self.gid != Self::default().gid || self.mode != Self::default().mode;
        (others && !self.allow_other).then_some(
            "gid= and mode= have no effect for others without allow_other: the kernel lets nobody in but the owner",
        )
    }
}

/// `io=`: how data is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// The ring, or threads where it is refused.
    Auto,
    /// `io_uring` alone.
    Uring,
    /// pread and pwrite on threads.
    Threads,
}

const IO: [(&str, Io); 3] = [("auto", Io::Auto), ("uring", Io::Uring), ("threads", Io::Threads)];

/// `state=`: where jobs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StateDir {
    /// `/var/lib/kcopyfs`, or for a user the state directory of the XDG base directories.
    Standard,
    /// Nowhere: jobs end with the daemon.
    Nowhere,
    /// There. Absolute.
    Dir(PathBuf),
}

impl StateDir {
    /// The directory for user `uid` in this process's environment; `None` where nothing is kept.
    ///
    /// # Errors
    /// `NotFound` for a user without a home.
    pub fn resolve(&self, uid: u32) -> Result<Option<PathBuf>> {
        self.resolve_in(uid, env::var_os("XDG_STATE_HOME"), env::var_os("HOME"))
    }

    fn resolve_in(&self, uid: u32, state_home: Option<OsString>, home: Option<OsString>) -> Result<Option<PathBuf>> {
        // Relative ones are to be passed over, says the XDG specification.
        let absolute = |path: Option<OsString>| path.map(PathBuf::from).filter(|path| path.is_absolute());
        match self {
            Self::Nowhere => Ok(None),
            Self::Dir(path) => Ok(Some(path.clone())),
            Self::Standard if uid == 0 => Ok(Some(PathBuf::from("/var/lib/kcopyfs"))),
            Self::Standard => absolute(state_home)
                .or_else(|| absolute(home).map(|home| home.join(".local/state")))
                .map(|base| Some(base.join("kcopyfs")))
                .ok_or_else(|| {
                    let text =
                        "no place for jobs: neither XDG_STATE_HOME nor HOME is set; write state=DIR or state=none";
                    Error::new(ErrorKind::NotFound, text)
                }),
        }
    }
}

/// A row of the table.
#[derive(Debug)]
pub struct Opt {
    /// The option, or what is before `=`.
    pub name: &'static str,
    /// How its value is written, where it takes one.
    pub value: Option<&'static str>,
    /// What holds where it is not given, for people.
    pub default: &'static str,
    /// What it means, in one line for people.
    pub doc: &'static str,
    field: Field,
}

/// How an option reaches its field.
#[derive(Debug)]
enum Field {
    Flag(fn(&mut Options)),
    Number(RangeInclusive<u64>, fn(&mut Options, u64)),
    /// Gives the reason and the remedy where the value is bad.
    Text(fn(&mut Options, &OsStr) -> std::result::Result<(), String>),
}

impl Opt {
    /// How it is written: `pages=N`.
    pub fn usage(&self) -> String {
        match self.value {
            Some(value) => format!("{}={value}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// Its bounds, where it is a number.
    pub const fn range(&self) -> Option<&RangeInclusive<u64>> {
        match &self.field {
            Field::Number(range, _) => Some(range),
            _ => None,
        }
    }

    fn set(&self, options: &mut Options, value: Option<&OsStr>) -> std::result::Result<(), String> {
        match (&self.field, value) {
            (Field::Flag(set), None) => set(options),
            (Field::Flag(_), Some(_)) => return Err("takes no value; write it alone".into()),
            (_, None) => return Err(format!("needs a value; write {}", self.usage())),
            (Field::Number(range, set), Some(value)) => {
                let bounds = format!("{} to {}", range.start(), range.end());
                match number::plain(value.as_bytes()) {
                    Ok(number) if range.contains(&number) => set(options, number),
                    Ok(_) => return Err(format!("{} is out of range; write {bounds}", shown(value.as_bytes()))),
                    Err(error) => return Err(format!("{}: {error}, {bounds}", shown(value.as_bytes()))),
                }
            }
            (Field::Text(set), Some(value)) => set(options, value)?,
        }
        Ok(())
    }
}

/// The options, in the order of the documentation.
pub fn options() -> &'static [Opt] {
    &OPTIONS
}

static OPTIONS: [Opt; 13] = [
    Opt {
        name: "pages",
        value: Some("N"),
        default: "8192",
        doc: "pages of 4 KiB in the shared pool",
        field: Field::Number(PAGES_MIN..=PAGES_MAX, |options, pages| options.pages = pages),
    },
    Opt {
        name: "client_pages",
        value: Some("N"),
        default: "1024",
        doc: "pages reserved for the client `default`, at most `pages`",
        field: Field::Number(1..=PAGES_MAX, |options, pages| options.client_pages = pages),
    },
    Opt {
        name: "subjob_kb",
        value: Some("N"),
        default: "512",
        doc: "size of a sub-job in KiB, a power of two",
        field: Field::Number(4..=1024, |options, kb| options.subjob_kb = kb),
    },
    Opt {
        name: "subjobs",
        value: Some("auto|N"),
        default: "auto",
        doc: "sub-jobs of one job in flight, 1 to 64; auto: what its devices are fastest with",
        field: Field::Text(set_subjobs),
    },
    Opt {
        name: "throttle",
        value: Some("N"),
        default: "100",
        doc: "percent of the time during which the engine does I/O",
        field: Field::Number(1..=100, |options, percent| options.throttle = percent),
    },
    Opt {
        name: "state",
        value: Some("DIR"),
        default: "/var/lib/kcopyfs, for a user $XDG_STATE_HOME/kcopyfs",
        doc: "where jobs are kept, or `none`",
        field: Field::Text(set_state),
    },
    Opt {
        name: "keep",
        value: Some("N"),
        default: "1000",
        doc: "most ended jobs kept; the oldest are dismissed first",
        field: Field::Number(0..=JOBS_MAX, |options, keep| options.keep = keep),
    },
    Opt {
        name: "max_jobs",
        value: Some("N"),
        default: "100000",
        doc: "most jobs kept, live and ended",
        field: Field::Number(1..=JOBS_MAX, |options, jobs| options.max_jobs = jobs),
    },
    Opt {
        name: "active",
        value: Some("N"),
        default: "64",
        doc: "jobs that run at once; the others wait, in order",
        field: Field::Number(1..=ACTIVE_MAX as u64, |options, jobs| options.active = jobs),
    },
    Opt {
        name: "io",
        value: Some("auto|uring|threads"),
        default: "auto",
        doc: "how data is moved; auto: io_uring, or threads where that is refused",
        field: Field::Text(set_io),
    },
    Opt {
        name: "allow_other",
        value: None,
        default: "off",
        doc: "other users may look, never write",
        field: Field::Flag(|options| options.allow_other = true),
    },
    Opt {
        name: "gid",
        value: Some("G"),
        default: "0",
        doc: "group of the writable files, by number or name; one that may write jobs/new is root",
        field: Field::Text(set_gid),
    },
    Opt {
        name: "mode",
        value: Some("M"),
        default: "0600",
        doc: "mode of the writable files, octal, within 0664: who may write jobs/new is root",
        field: Field::Text(set_mode),
    },
];

fn set_state(options: &mut Options, value: &OsStr) -> std::result::Result<(), String> {
    options.state = match value.as_bytes() {
        b"none" => StateDir::Nowhere,
        _ => StateDir::Dir(
            std::path::absolute(Path::new(value))
                .map_err(|error| format!("{}: {error}; name a directory, or none", shown(value.as_bytes())))?,
        ),
    };
    Ok(())
}

fn set_subjobs(options: &mut Options, value: &OsStr) -> std::result::Result<(), String> {
    options.subjobs = match value.to_str() {
        Some("auto") => None,
        text => {
            let number = text.and_then(|text| text.parse().ok()).filter(|number| (1..=64).contains(number));
            Some(number.ok_or_else(|| format!("`{}`: give auto, or 1 to 64", value.to_string_lossy()))?)
        }
    };
    Ok(())
}

fn set_io(options: &mut Options, value: &OsStr) -> std::result::Result<(), String> {
    let chosen = IO.iter().find(|(name, _)| *name == value);
    let (_, io) =
        chosen.ok_or_else(|| format!("{} is not a backend; write auto, uring or threads", shown(value.as_bytes())))?;
    options.io = *io;
    Ok(())
}

fn set_gid(options: &mut Options, value: &OsStr) -> std::result::Result<(), String> {
    options.gid = match number::plain(value.as_bytes()) {
        // The last one means "unchanged" to chown(2), and is no group.
        Ok(gid) => u32::try_from(gid).ok().filter(|gid| *gid != u32::MAX),
        Err(_) => group::find(value).map_err(|error| error.to_string())?,
    }
    .ok_or_else(|| {
        format!("there is no group {}; write a number, or a name that getent group knows", shown(value.as_bytes()))
    })?;
    Ok(())
}

fn set_mode(options: &mut Options, value: &OsStr) -> std::result::Result<(), String> {
    let digits = value.as_bytes();
    let is_octal = (1..=4).contains(&digits.len()) && digits.iter().all(|digit| (b'0'..=b'7').contains(digit));
    let mode = digits.iter().fold(0, |mode, digit| mode << 3 | u32::from(digit & 7));
    if !is_octal {
        return Err(format!("{} is not an octal mode; write one as 0660", shown(digits)));
    }
    if mode & !MODE_MASK != 0 {
        return Err(format!(
            "{} gives more than {MODE_MASK:04o}: others never write, and nothing here runs",
            shown(digits)
        ));
    }
    options.mode = mode;
    Ok(())
}

/// What mount(8) and fstab add, for the kernel or for themselves: taken and ignored, as is all that begins with `x-`.
const IGNORED: &str = "_netdev async atime auto comment defaults dev diratime dirsync exec group iversion lazytime \
     loud mand noatime noauto nodev nodiratime noexec nofail noiversion nolazytime nomand norelatime nostrictatime \
     nosuid nouser owner relatime rw silent strictatime suid sync user users";

/// What would change the mount's meaning: refused, with the reason.
const REFUSED: [(&str, &str); 2] = [
    // The first that is there is told: `mount -o remount,ro` is about remounting.
    ("remount", "kcopyfs cannot be remounted; unmount it and mount it again with the new options"),
    ("ro", "the control tree cannot be read-only; drop `ro`, and see mode= for who may write"),
];

impl Options {
    /// Reads the lists of every `-o`, in order.
    ///
    /// # Errors
    /// `Invalid` for an option that is unknown, bad or refused. The text names it.
    pub fn parse(lists: &[OsString]) -> Result<Self> {
        let mut options = Self::default();
        let mut has_client_pages = false;
        let words: Vec<Vec<u8>> = lists.iter().flat_map(|list| split(list.as_bytes())).collect();
        if let Some((name, reason)) = REFUSED.iter().find(|(name, _)| words.iter().any(|word| word == name.as_bytes()))
        {
            return Err(invalid(format!("option {name}: {reason}")));
        }
        for word in &words {
            let equals = word.iter().position(|byte| *byte == b'=');
            let (name, value) = match equals {
                Some(at) => (&word[..at], Some(OsStr::from_bytes(&word[at + 1..]))),
                None => (&word[..], None),
            };
            let Some(option) = find(name)? else { continue };
            option.set(&mut options, value).map_err(|text| invalid(format!("option {}: {text}", option.name)))?;
            has_client_pages |= option.name == "client_pages";
        }
        if !has_client_pages {
            options.client_pages = CLIENT_PAGES.min(options.pages);
        }
        options.check()?;
        Ok(options)
    }

    /// What only all options together can show.
    fn check(&self) -> Result<()> {
        let Self { pages, client_pages, subjob_kb, .. } = *self;
        let subjob_pages = subjob_kb / PAGE_KB;
        let fewer = |name: &str, value: u64| {
            let remedy = "write more, or a lower subjob_kb";
            Err(invalid(format!("option {name}: {value} are fewer than a sub-job's {subjob_pages}; {remedy}")))
        };
        if !subjob_kb.is_power_of_two() {
            let text = format!("option subjob_kb: {subjob_kb} is not a power of two; write 4, 8, 16 ... 1024");
            return Err(invalid(text));
        }
        if pages < subjob_pages {
            return fewer("pages", pages);
        }
        if client_pages > pages {
            let remedy = "write fewer, or more pages";
            return Err(invalid(format!(
                "option client_pages: {client_pages} are more than the pool's {pages}; {remedy}"
            )));
        }
        if client_pages < subjob_pages {
            return fewer("client_pages", client_pages);
        }
        Ok(())
    }
}

/// The row of that name, or `None` for a name to be ignored.
fn find(name: &[u8]) -> Result<Option<&'static Opt>> {
    let is = |known: &str| known.as_bytes() == name;
    if let Some(option) = OPTIONS.iter().find(|option| is(option.name)) {
        return Ok(Some(option));
    }
    if name.is_empty() || IGNORED.split(' ').any(is) || name.starts_with(b"x-") || name.starts_with(b"X-") {
        return Ok(None);
    }
    let remedy = match nearest(name, &OPTIONS, |option| option.name) {
        Some(option) => format!("did you mean {}?", option.usage()),
        None => "kcopyfs --help lists the options".into(),
    };
    Err(invalid(format!("option {} is unknown; {remedy}", shown(name))))
}

/// The options of a list: between commas, a backslash keeping a comma or a backslash.
fn split(list: &[u8]) -> Vec<Vec<u8>> {
    let (mut words, mut word) = (Vec::new(), Vec::new());
    let mut bytes = list.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b',' => words.push(std::mem::take(&mut word)),
            b'\\' => word.push(bytes.next_if(|next| matches!(next, b',' | b'\\')).unwrap_or(byte)),
            _ => word.push(byte),
        }
    }
    words.push(word);
    words
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::Invalid, text)
}

/// The section of `--help` about them.
pub(super) fn help() -> String {
    let width = OPTIONS.iter().map(|option| option.usage().len()).max().unwrap_or(0);
    let mut out = String::from("Options of -o:\n");
    for option in &OPTIONS {
        let range = option.range().map(|range| format!("{} to {}, ", range.start(), range.end())).unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "  {:width$}  {} ({range}default {})", option.usage(), option.doc, option.default);
    }
    out.push_str(
        "What mount(8) adds (rw dev noauto nofail x-...) is accepted and ignored; ro and remount are refused.\n\n\
         Begin: mkdir -p /run/kcopyfs; kcopyfs /run/kcopyfs; less /run/kcopyfs/README\n\
         End: umount /run/kcopyfs. Jobs that have not ended resume when it is mounted again.\n\n",
    );
    out.push_str("Exit codes: 0, 1 wrong arguments, 32 the mount failed. MOUNTPOINT/README explains the files.");
    out
}

#[cfg(test)]
mod tests;
