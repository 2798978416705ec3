//! The log of refused writes: what a script tried, why it was refused, and a caret under the place.
//!
//! Owned by the tree; entries are made by the threads that carry writes out. An entry is laid out when it is made, so
//! that what is kept is bounded whatever was written.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::access::Caller;
use super::text;
use crate::error::{Error, errno_name};

/// Entries kept: enough for a script's worth of mistakes, little enough to read.
const ENTRIES_MAX: usize = 16;
/// Columns of the written text that are shown: a wide terminal, less the indent.
const COLUMNS_MAX: usize = 100;
/// Characters of the reason that are kept: longer than any path.
const WHY_MAX: usize = 6_000;
/// Stands where a text was cut.
const CUT: &str = "...";

/// Why a write was refused, and the place in its text.
#[derive(Debug)]
pub(super) struct Refused {
    /// The reason; its kind is the errno.
    pub(super) error: Error,
    /// The line that it is about.
    pub(super) line: Vec<u8>,
    /// The columns of the line, in bytes.
    pub(super) span: Range<usize>,
}

/// The last refused writes, oldest first.
#[derive(Debug, Default)]
pub(super) struct ErrorLog {
    entries: Mutex<VecDeque<String>>,
}

impl ErrorLog {
    /// Enters a refused write to `file`.
    pub(super) fn enter(&self, time: SystemTime, caller: Caller, file: &str, refused: &Refused) {
        let entry = entry(time, caller, file, refused);
        let mut entries = self.entries.lock();
        if entries.len() == ENTRIES_MAX {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        self.entries.lock().clear();
    }

    /// All entries, newest last.
    pub(super) fn text(&self) -> Vec<u8> {
        self.entries.lock().iter().flat_map(|entry| entry.bytes()).collect()
    }
}

fn entry(time: SystemTime, caller: Caller, file: &str, refused: &Refused) -> String {
    let (time, pid, uid, errno) = (text::utc(time), caller.pid, caller.uid, errno_name(refused.error.errno()));
    let why: String = text::one_line(&refused.error.to_string()).chars().take(WHY_MAX).collect();
    let (line, caret) = excerpt(&refused.line, refused.span.clone());
    format!("{time} pid={pid} uid={uid} file={file} errno={errno} {why}\n  {line}\n  {caret}\n")
}

/// A line as it can be shown, cut around the place to [`COLUMNS_MAX`], and carets under the place.
fn excerpt(line: &[u8], span: Range<usize>) -> (String, String) {
    let cells = cells(line);
    let column_of = |byte: usize| cells.partition_point(|cell| cell.0 < byte);
    let (first, last) = (column_of(span.start.min(line.len())), column_of(span.end.min(line.len())));
    let width = (last.saturating_sub(first)).max(1);

    let from = if cells.len() <= COLUMNS_MAX {
        0
    } else {
        // The place stands in the middle, or begins a third in where it is long.
        let before = COLUMNS_MAX.saturating_sub(width).max(COLUMNS_MAX / 3 * 2) / 2;
        first.saturating_sub(before).min(cells.len() - COLUMNS_MAX)
    };
    let to = cells.len().min(from + COLUMNS_MAX);
    let (head, tail) = (if from > 0 { CUT } else { "" }, if to < cells.len() { CUT } else { "" });
    let shown: String = cells[from..to].iter().map(|cell| cell.1).collect();
    let room = (to + 1).saturating_sub(first).max(1);
    let caret = format!("{}{}", " ".repeat(head.len() + first - from), "^".repeat(width.min(room)));
    (format!("{head}{shown}{tail}"), caret)
}

/// A line in columns: each a printable character, and the byte of the line that it comes from. Other bytes become an
/// octal escape, which takes four columns.
fn cells(line: &[u8]) -> Vec<(usize, char)> {
    let mut cells = Vec::with_capacity(line.len());
    let mut at = 0;
    for chunk in line.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_control() {
                escape(&mut cells, at, &line[at..at + letter.len_utf8()]);
            } else {
                cells.push((at, letter));
            }
            at += letter.len_utf8();
        }
        escape(&mut cells, at, chunk.invalid());
        at += chunk.invalid().len();
    }
    cells
}

fn escape(cells: &mut Vec<(usize, char)>, at: usize, bytes: &[u8]) {
    for (offset, byte) in bytes.iter().enumerate() {
        let mut escaped = String::with_capacity(4);
        _ = write!(escaped, "\\{byte:03o}");
        cells.extend(escaped.chars().map(|letter| (at + offset, letter)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::error::ErrorKind;

    fn refused(line: &[u8], span: Range<usize>) -> Refused {
        Refused { error: Error::new(ErrorKind::Syntax, "unknown word `frm`"), line: line.to_vec(), span }
    }

    #[test]
    fn an_entry_names_everything() {
        let log = ErrorLog::default();
        let time = UNIX_EPOCH + Duration::from_secs(951_782_400);
        log.enter(time, Caller { uid: 0, pid: 42 }, "jobs/new", &refused(b"copy frm=/a to=/b", 5..11));
        let expected = "2000-02-29T00:00:00Z pid=42 uid=0 file=jobs/new errno=EINVAL unknown word `frm`\n\
            \x20 copy frm=/a to=/b\n\
            \x20      ^^^^^^\n";
        assert_eq!(String::from_utf8(log.text()).unwrap(), expected);
        log.clear();
        assert_eq!(log.text(), b"");
    }

    #[test]
    fn the_last_16_are_kept() {
        let log = ErrorLog::default();
        for pid in 0..20 {
            log.enter(UNIX_EPOCH, Caller { uid: 0, pid }, "jobs/new", &refused(b"x", 0..1));
        }
        let text = String::from_utf8(log.text()).unwrap();
        assert_eq!(text.matches("pid=").count(), ENTRIES_MAX);
        assert!(!text.contains("pid=3 ") && text.contains("pid=4 ") && text.contains("pid=19 "));
    }

    #[test]
    fn a_caret_stands_under_what_is_meant() {
        for (line, span) in [
            (&b"a\tb \xff\xfe\x1b MARK c"[..], 8..12),
            ("gr\u{fc}\u{df}e MARK".as_bytes(), 8..12),
            (&[&[b'x'; 500][..], b" MARK ", &[b'y'; 500][..]].concat(), 501..505),
            (&[&[b'x'; 500][..], b" MARK"].concat(), 501..505),
            (&[b"MARK ", &[b'y'; 500][..]].concat(), 0..4),
        ] {
            let (shown, caret) = excerpt(line, span);
            let begin = caret.find('^').unwrap();
            let marked: String = shown.chars().skip(begin).take(caret.len() - begin).collect();
            assert_eq!(marked, "MARK", "{shown}\n{caret}");
            assert!(shown.chars().count() <= COLUMNS_MAX + 2 * CUT.len());
        }
    }

    #[test]
    fn odd_places_are_shown_too() {
        assert_eq!(excerpt(b"copy", 4..4), ("copy".to_owned(), "    ^".to_owned()));
        assert_eq!(excerpt(b"", 0..0), (String::new(), "^".to_owned()));
        assert_eq!(excerpt(b"ab", 7..9), ("ab".to_owned(), "  ^".to_owned()));
        let (shown, caret) = excerpt(&[b'x'; 300], 0..300);
        assert!(shown.ends_with(CUT) && caret.len() <= COLUMNS_MAX + 1);
        let (_, caret) = excerpt(&[b'x'; 300], 300..300);
        assert_eq!(caret.len(), CUT.len() + COLUMNS_MAX + 1);
    }
}
