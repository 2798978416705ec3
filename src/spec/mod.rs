//! The text language of jobs: one line is one job.
//!
//! Parses a line into a [`Spec`] and prints it back in canonical form: `parse(print(x)) == x`. Touches nothing but
//! text: no path is looked at here.
//!
//! The words are those of kcopyd where it has them (`ignore_error` is `KCOPYD_IGNORE_ERROR`, `write_seq` is
//! `KCOPYD_WRITE_SEQ`); numbers are sectors of 512 bytes, or bytes with a unit.
//!
//! The way of a line: [`LineBuffer`] cuts writes into lines, `quote` cuts a line into words, `parse` makes a [`Spec`]
//! of the words as the one table in `keys` says, and `print` goes back by the same table.
//!
//! # Examples
//! ```
//! use kcopyfs::spec;
//!
//! let line = b"to=/dev/sdb from='/srv/a disk.img',1M,64K";
//! let parsed = spec::parse(line)?;
//! assert_eq!(parsed.spec.to_line(), b"copy from='/srv/a disk.img',2048,128 to=/dev/sdb");
//!
//! let refused = spec::parse(b"from=/dev/sda too=/dev/sdb").unwrap_err();
//! assert_eq!(refused.span, 14..17);
//! # Ok::<(), spec::SpecError>(())
//! ```

use std::ffi::OsString;
use std::fmt;
use std::ops::Range;

use crate::error::{Error, ErrorKind};
use crate::sector::Sector;

mod digests;
mod keys;
mod lines;
pub mod number;
mod parse;
mod policy;
mod print;
mod quote;
mod values;

#[cfg(test)]
mod tests;

pub use digests::{Digest, Digests, Sum};
pub(crate) use keys::nearest;
pub use keys::{Kind, Word, words};
pub use lines::LineBuffer;
pub use parse::parse;
pub use policy::Policy;

/// Longest line, in bytes without its newline: room for 64 destinations of a kilobyte each.
pub const MAX_LINE: usize = 64 * 1024;

/// Longest label or client name: it becomes the name of a file in the tree, and a column for people.
pub const MAX_LABEL: usize = 64;

/// Whether a line says nothing: blank, or a comment. Such lines pass.
pub fn is_blank(line: &[u8]) -> bool {
    let first = line.iter().find(|byte| !quote::is_blank(**byte));
    matches!(first, None | Some(b'#'))
}

/// Most destinations of one job: the bits of a write-error bitset.
pub const MAX_DESTS: usize = 64;

/// What a job does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Copy one source region to every destination.
    #[default]
    Copy,
    /// Write zeros to every destination.
    Zero,
    /// Compare every destination with the source.
    Verify,
    /// Write a pattern to every destination, then read it back and compare.
    Test,
}

/// A region as written: a path, the first sector, and how many sectors where that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// Absolute path of a block device or regular file; any bytes but NUL and newline.
    pub path: OsString,
    /// First sector.
    pub sector: Sector,
    /// Sectors; `None` where another region of the job gives them, or for the rest of the source.
    pub count: Option<Sector>,
}

/// `on_read_error=`: what becomes of a block that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnReadError {
    /// The job fails.
    #[default]
    Stop,
    /// Bisect to the logical block and write zeros there.
    Zero,
    /// Bisect to the logical block and leave the destination's bytes.
    Skip,
}

/// `on_write_error=`: what becomes of a destination that cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnWriteError {
    /// It is given up, the others go on.
    #[default]
    Drop,
    /// The job fails.
    Stop,
}

/// `after=`: the job after which one starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// That of this number.
    Job(u64),
    /// The newest of that name when the spec is taken.
    Name(String),
}

impl After {
    /// The job's number, where the spec says it.
    pub fn job(&self) -> Option<u64> {
        match self {
            Self::Job(id) => Some(*id),
            Self::Name(_) => None,
        }
    }
}

/// A job as its text says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
// One flag a word of the language.
#[allow(clippy::struct_excessive_bools)]
pub struct Spec {
    /// What it does.
    pub action: Action,
    /// The source; `None` for `zero` and `test`.
    pub from: Option<RegionSpec>,
    /// 1 to [`MAX_DESTS`] destinations; bit i of a write-error bitset is destination i. None where a source is compared with its
    /// sums alone.
    pub to: Vec<RegionSpec>,
    /// kcopyd's flag: go on after errors, to every destination.
    pub ignore_error: bool,
    /// kcopyd's flag: each destination is written in ascending order. Cancels `ignore_error`.
    pub write_seq: bool,
    /// What becomes of a block that cannot be read.
    pub on_read_error: OnReadError,
    /// What becomes of a destination that cannot be written.
    pub on_write_error: OnWriteError,
    /// How many more times a failed block is tried.
    pub retries: u32,
    /// A mapfile of ddrescue that says what is there already.
    pub map: Option<OsString>,
    /// Each destination is read first, and only pieces that differ are written.
    pub changed: bool,
    /// The client whose pages it uses; `None` for `default`, which is never written out here.
    pub client: Option<String>,
    /// A label for `names/`.
    pub name: Option<String>,
    /// Limit in bytes per second.
    pub speed_max: Option<u64>,
    /// Starts paused.
    pub paused: bool,
    /// Stays out of the way of whoever else uses its devices.
    pub background: bool,
    /// Starts when that job is done.
    pub after: Option<After>,
    /// Waits for busy destinations instead of EBUSY.
    pub queue: bool,
    /// Is refused while a job of its name is live or done.
    pub once: bool,
    /// Reads every destination back and compares.
    pub verify: bool,
    /// Digests of the source stream.
    pub digests: Digests,
    /// Blocks of zeros are punched, not written.
    pub sparse: bool,
    /// A missing regular destination file is made.
    pub create: bool,
    /// Mounted or held destinations are written all the same.
    pub force_mounted: bool,
}

impl Spec {
    /// Whether destinations are read back and compared when all is written.
    pub fn compares_after(&self) -> bool {
        self.verify || self.action == Action::Test
    }

    /// The COUNT of the first region that gives one: the length of the job. `None`: the rest of the source.
    pub fn count(&self) -> Option<Sector> {
        self.from.iter().chain(&self.to).find_map(|region| region.count)
    }
}

/// The part of a line that an error is about, so that a caret can point at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The line as a whole.
    Line,
    /// The source region.
    From,
    /// Destination i.
    To(usize),
    /// A word of the language, by its name.
    Word(&'static str),
}

/// A line that was understood: the job, and where its parts stand.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The job.
    pub spec: Spec,
    /// Where its parts stand in the line.
    pub spans: Spans,
}

/// Where the parts of a job stand in its line, in byte columns from 0.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    line: Range<usize>,
    from: Range<usize>,
    to: Vec<Range<usize>>,
    words: Vec<(&'static str, Range<usize>)>,
}

impl Spans {
    /// The columns of a part; those of the whole line for a part that the line does not have.
    pub fn of(&self, place: Place) -> Range<usize> {
        let span = match place {
            Place::Line => None,
            Place::From => Some(&self.from).filter(|span| !span.is_empty()),
            Place::To(index) => self.to.get(index),
            Place::Word(name) => self.words.iter().find(|(word, _)| *word == name).map(|(_, span)| span),
        };
        span.unwrap_or(&self.line).clone()
    }
}

/// Why a line was refused, and the columns that it is about.
///
/// # Invariants
/// `span` lies within the line. It is empty where something is missing: the caret stands where it belongs.
#[derive(Debug)]
pub struct SpecError {
    /// What is wrong, with the remedy.
    pub error: Error,
    /// Byte columns in the line, from 0.
    pub span: Range<usize>,
}

impl SpecError {
    fn new(kind: ErrorKind, span: Range<usize>, context: impl Into<String>) -> Self {
        Self { error: Error::new(kind, context), span }
    }

    fn syntax(span: Range<usize>, context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Syntax, span, context)
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for SpecError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// Text as a message shows it: in backquotes, control bytes escaped, cut where it is long.
pub(crate) fn shown(text: &[u8]) -> String {
    /// Longest text shown in a message, in characters: one line of a terminal with the sentence around it.
    const SHOWN_MAX: usize = 60;
    let text = String::from_utf8_lossy(text);
    let mut out = String::from("`");
    for (index, letter) in text.chars().enumerate() {
        if index == SHOWN_MAX {
            out.push_str("...");
            break;
        }
        if letter.is_control() { out.extend(letter.escape_default()) } else { out.push(letter) }
    }
    out.push('`');
    out
}
