//! The text language of jobs: one line is one job.
//!
//! Parses a line into a [`Spec`] and prints it back in canonical form: `parse(print(x)) == x`. Touches nothing but text:
//! no path is looked at here.
//!
//! The words are those of kcopyd where it has them (`ignore_error` is `KCOPYD_IGNORE_ERROR`, `write_seq` is
//! `KCOPYD_WRITE_SEQ`); numbers are sectors of 512 bytes, or bytes with a unit.

use std::ffi::OsString;

use crate::sector::Sector;

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
}

/// A region as written: a path, the first sector, and how many sectors where that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionSpec {
    /// Absolute path of a block device or regular file; any bytes but NUL and newline.
    pub path: OsString,
    /// First sector.
    pub sector: Sector,
    /// Sectors, or `None` for the rest of the source.
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

/// `digest=`: which digest of the source stream is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256, FIPS 180-4.
    Sha256,
    /// BLAKE3.
    Blake3,
}

/// A job as its text says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
// One flag a word of the language.
#[allow(clippy::struct_excessive_bools)]
pub struct Spec {
    /// What it does.
    pub action: Action,
    /// The source; `None` for `zero` alone.
    pub from: Option<RegionSpec>,
    /// 1 to [`MAX_DESTS`] destinations; bit i of a write-error bitset is destination i.
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
    /// The client whose pages it uses; `None` for `default`.
    pub client: Option<String>,
    /// A label for `names/`.
    pub name: Option<String>,
    /// Limit in bytes per second.
    pub speed_max: Option<u64>,
    /// Starts paused.
    pub paused: bool,
    /// Starts when that job is done.
    pub after: Option<u64>,
    /// Waits for busy destinations instead of EBUSY.
    pub queue: bool,
    /// Reads every destination back and compares.
    pub verify: bool,
    /// Digest of the source stream.
    pub digest: Option<Digest>,
    /// Blocks of zeros are punched, not written.
    pub sparse: bool,
    /// A missing regular destination file is made.
    pub create: bool,
    /// Mounted or held destinations are written all the same.
    pub force_mounted: bool,
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
}
