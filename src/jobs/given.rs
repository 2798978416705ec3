//! What a new job is given by `map=`: read once, when the job is made. Its record keeps it.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::open::Opened;
use crate::error::{Error, ErrorKind, Result};
use crate::figures::{Frame, Given, parse_map};
use crate::sector::SECTOR_SIZE;
use crate::spec::{Place, Spec};

/// Ranges that all sets of a new job have together at most: a quarter of what its record has room for, so that none of them is
/// left out there.
const RANGES_MAX: usize = 1 << 18;
/// Bytes of a mapfile at most: so many lines, and comments.
const FILE_MAX: u64 = 32 << 20;

/// Reads the map of a spec, if it has one. May wait for the file, and for the destinations: what it says is there is made
/// durable before the job believes it.
///
/// # Errors
/// With the word that is refused, or the destination that cannot be flushed.
pub(super) fn given(spec: &Spec, opened: &Opened) -> std::result::Result<Option<Given>, (Place, Error)> {
    let (Some(path), Some(from)) = (&spec.map, &opened.from) else { return Ok(None) };
    let geometry = opened.geometry();
    let frame = Frame {
        start: from.sector.bytes(),
        length: from.count.bytes(),
        block: geometry.coarsest(),
        source_block: geometry.source_block,
        // Of each range every destination has it twice: taken and durable.
        most: RANGES_MAX / (2 * opened.dests.len() + 2),
    };
    let mut given = read(path, frame).map_err(|error| (Place::Word("map"), error))?;
    for (index, dest) in opened.dests.iter().enumerate() {
        let error = |source| Error::os(format!("flush {}", dest.device.path().display()), source);
        dest.device.file().sync_all().map_err(|source| (Place::To(index), error(source)))?;
    }
    // A file that is shorter does not have it.
    for (index, file) in opened.files() {
        let end = file.size().get().saturating_sub(opened.dests[index].sector.get());
        given.there.remove(&(end / frame.block * frame.block..(from.count.get()).max(end)));
    }
    Ok(Some(given))
}

fn read(path: &OsStr, frame: Frame) -> Result<Given> {
    let shown = Path::new(path).display();
    let system = |source| Error::os(format!("map={shown}"), source);
    // A pipe is not waited for.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(system)?;
    if !file.metadata().map_err(system)?.is_file() {
        return Err(Error::new(ErrorKind::Invalid, format!("map={shown}: not a regular file")));
    }
    let mut text = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(system)?;
    if text.len() as u64 > FILE_MAX {
        let what = format!("map={shown}: more than {} MiB", FILE_MAX >> 20);
        return Err(Error::new(ErrorKind::TooBig, what));
    }
    debug_assert!(frame.length.is_multiple_of(SECTOR_SIZE));
    parse_map(&text, frame).map_err(|error| Error::new(error.kind(), format!("map={shown}: {error}")))
}
