//! The file `events`: lines that were told, kept so that the next daemon can tell them again.
//!
//! It is appended to, and replaced as a whole where its head is cut off. Nothing depends on it: records alone say what is to be
//! done, so a line that a power cut takes is lost, and one that it tears is dropped.
//!
//! # Invariants
//! What was appended is there after a kill. After a power cut it is there if [`EventFile::sync`] has returned since.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::dir::{below, is_trusted};
use crate::error::{Error, Result};

/// The file's name, and that of one that is to take its place.
const EVENTS: &str = "events";
const TEMPORARY: &str = "events.tmp";

/// Of a longer file only the end is read: no daemon lets it grow beyond 1 MiB and a line.
const READ_MAX: u64 = 2 << 20;

/// What daemons before this one have told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// Whole lines.
    pub(crate) text: Vec<u8>,
    /// The file has just these.
    pub(crate) is_whole: bool,
}

/// The file, in a state directory that somebody else keeps locked.
#[derive(Debug)]
pub(crate) struct EventFile {
    folder: File,
    path: PathBuf,
}

impl EventFile {
    /// The file in an open directory; `path` is for messages.
    pub(super) fn new(folder: File, path: &Path) -> Self {
        Self { folder, path: path.join(EVENTS) }
    }

    /// What is in it: every whole line. What is no line, because a power cut has torn it, is left out.
    ///
    /// # Errors
    /// What the system says, and a file that cannot be ours.
    pub(crate) fn read(&self) -> Result<Told> {
        let mut bytes = Vec::new();
        let mut is_whole = true;
        match self.open(OpenOptions::new().read(true)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => {
                let read = opened.and_then(|mut file| {
                    let start = file.metadata()?.len().saturating_sub(READ_MAX);
                    file.seek(SeekFrom::Start(start))?;
                    is_whole = start == 0;
                    file.take(READ_MAX).read_to_end(&mut bytes)
                });
                read.map_err(|error| self.fail("read", error))?;
            }
        }
        let length = bytes.len();
        let text: Vec<u8> =
            bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| is_line(line)).flatten().copied().collect();
        Ok(Told { is_whole: is_whole && text.len() == length, text })
    }

    /// Adds lines at its end.
    ///
    /// # Errors
    /// What the system says. A part may be there then: [`EventFile::replace`] mends it.
    pub(crate) fn append(&self, lines: &[u8]) -> Result<()> {
        let file = self.open(OpenOptions::new().append(true).create(true).mode(0o600));
        file.and_then(|mut file| file.write_all(lines)).map_err(|error| self.fail("write", error))
    }

    /// Puts lines in place of all that is there.
    ///
    /// # Errors
    /// What the system says; the file is then its old or its new self.
    pub(crate) fn replace(&self, lines: &[u8]) -> Result<()> {
        let temporary = below(&self.folder, TEMPORARY);
        let write = || {
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = self.open_as(TEMPORARY, OpenOptions::new().write(true).create_new(true).mode(0o600))?;
            file.write_all(lines)?;
            file.sync_data()?;
            fs::rename(&temporary, below(&self.folder, EVENTS))
        };
        write().map_err(|error| {
            // It is in nobody's way.
            let _ = fs::remove_file(&temporary);
            self.fail("write", error)
        })
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn sync(&self) -> Result<()> {
        let sync = || {
            self.open(OpenOptions::new().append(true))?.sync_data()?;
            self.folder.sync_all()
        };
        sync().map_err(|error| self.fail("sync", error))
    }

    fn open(&self, options: &mut OpenOptions) -> io::Result<File> {
        self.open_as(EVENTS, options)
    }

    /// Opens it, and nothing that somebody else has put in its place.
    fn open_as(&self, name: &str, options: &mut OpenOptions) -> io::Result<File> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = options.custom_flags(flags).open(below(&self.folder, name))?;
        let meta = file.metadata()?;
        if meta.is_file() && is_trusted(&meta) {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "it is no regular file of ours"))
        }
    }

    fn fail(&self, verb: &str, error: io::Error) -> Error {
        Error::os(format!("{verb} {}", self.path.display()), error)
    }
}

/// Whether that is a line of `events`: it ends, begins with a time, and holds text.
fn is_line(line: &[u8]) -> bool {
    let Some((b'\n', line)) = line.split_last() else { return false };
    let begins = line
        .iter()
        .position(|byte| *byte == b' ')
        .is_some_and(|at| at > 0 && line[..at].iter().all(u8::is_ascii_digit));
    begins && str::from_utf8(line).is_ok_and(|line| !line.chars().any(char::is_control))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn file(folder: &Path) -> EventFile {
        EventFile::new(File::open(folder).unwrap(), folder)
    }

    fn told(text: &[u8], is_whole: bool) -> Told {
        Told { text: text.to_vec(), is_whole }
    }

    #[test]
    fn what_was_appended_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let events = file(folder.path());
        assert_eq!(events.read().unwrap(), told(b"", true), "there is none yet");
        events.append(b"1 7 - queued\n").unwrap();
        events.append(b"2 7 queued running\n").unwrap();
        events.sync().unwrap();
        assert_eq!(file(folder.path()).read().unwrap(), told(b"1 7 - queued\n2 7 queued running\n", true));
        events.replace(b"2 7 queued running\n").unwrap();
        events.append(b"3 7 running done\n").unwrap();
        assert_eq!(events.read().unwrap(), told(b"2 7 queued running\n3 7 running done\n", true));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_torn_end_is_dropped_wherever_it_was_torn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(EVENTS);
        let (first, second) = ("1763980000000000 7 - queued name=night\n", "1763980000000001 7 queued running\n");
        for length in 0..second.len() {
            fs::write(&path, format!("{first}{}", &second[..length])).unwrap();
            assert_eq!(file(folder.path()).read().unwrap(), told(first.as_bytes(), length == 0), "torn at {length}");
        }
        // some file systems leave zeros where a power cut has taken the bytes
        for torn in ["\0\0\0\0", "17639\0\0\n", "\0\0\0\0\n", "queued\n", "\n"] {
            fs::write(&path, format!("{first}{torn}")).unwrap();
            assert_eq!(file(folder.path()).read().unwrap(), told(first.as_bytes(), false), "{torn:?}");
        }
    }

    #[test]
    fn only_the_end_of_a_long_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let line = b"1763980000000000 7 - queued\n";
        fs::write(folder.path().join(EVENTS), line.repeat(200_000)).unwrap();
        let Told { text, is_whole } = file(folder.path()).read().unwrap();
        assert!(!is_whole && text.len() as u64 <= READ_MAX && text.len() as u64 > READ_MAX - 100);
        assert!(text.starts_with(line) && text.ends_with(line));
    }

    #[test]
    fn what_is_no_file_of_ours_is_left_alone() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        symlink(other.path(), folder.path().join(EVENTS)).unwrap();
        let events = file(folder.path());
        assert!(events.read().is_err() && events.append(b"1 7 - queued\n").is_err());
        assert_eq!(fs::read(other.path()).unwrap(), b"", "the link was not followed");
        events.replace(b"1 7 - queued\n").unwrap();
        assert_eq!(fs::read(other.path()).unwrap(), b"");
        assert_eq!(events.read().unwrap(), told(b"1 7 - queued\n", true), "the link is replaced");
    }
}
