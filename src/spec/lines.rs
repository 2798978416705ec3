//! Cuts the writes of one open file into lines.
//!
//! A shell, dd or stdio may split a long line over two writes, and what a cut line says may be another disk's path. So:
//!
//! 1. A newline ends a line.
//! 2. An end without newline is a line too (`printf` without `\n` is common), but for a write whose length is a
//!    multiple of 512: that is how buffers are cut. Its end is kept for the next write of the same open file.
//! 3. What is still kept at close is never run.
//! 4. After a write that was refused and ended within a line, every later write is refused: the rest of that line would
//!    come alone.
//!
//! Offsets of writes play no part. The owner is the open file; two of them share nothing.
//!
//! # Invariants
//! At most [`MAX_LINE`] bytes are kept, none of them a newline.

use super::{MAX_LINE, is_blank};
use crate::error::{Error, ErrorKind, Result};

/// Buffers are cut at multiples of this: those of stdio, shells, dd and the page cache all are.
const CUT: usize = 512;

/// The lines of one open file.
#[derive(Debug, Default)]
pub struct LineBuffer {
    kept: Vec<u8>,
    /// A write was refused in the middle of a line.
    broken: bool,
}

impl LineBuffer {
    /// Of an open file to which nothing was written yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one write and gives the lines that it completes, without newlines, blank ones and comments among them.
    ///
    /// # Errors
    /// `TooBig` for a line of more than [`MAX_LINE`] bytes; `Syntax` after [`LineBuffer::refuse`] in the middle of a
    /// line.
    pub fn feed(&mut self, data: &[u8]) -> Result<Vec<Vec<u8>>> {
        if self.broken {
            let text = "an earlier write was refused in the middle of a line; close the file and open it again";
            return Err(Error::new(ErrorKind::Syntax, text));
        }
        let mut lines = Vec::new();
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece {
                [text @ .., b'\n'] => (text, true),
                text => (text, !data.len().is_multiple_of(CUT)),
            };
            if self.kept.len() + text.len() > MAX_LINE {
                return Err(self.too_big(data));
            }
            self.kept.extend_from_slice(text);
            if ended {
                lines.push(std::mem::take(&mut self.kept));
            }
        }
        Ok(lines)
    }

    /// To be called where the lines of the last write are refused: what it kept is forgotten, and so would be its rest.
    pub fn refuse(&mut self) {
        self.broken |= !self.kept.is_empty();
        self.kept = Vec::new();
    }

    /// What is kept, where it would be a job: to be refused at close, with the reason told.
    pub fn pending(&self) -> Option<&[u8]> {
        (!is_blank(&self.kept)).then_some(&self.kept)
    }

    /// Forgets everything of a write with too long a line.
    fn too_big(&mut self, data: &[u8]) -> Error {
        self.kept = Vec::new();
        self.broken = data.last() != Some(&b'\n');
        Error::new(ErrorKind::TooBig, format!("a line of more than {MAX_LINE} bytes; make several jobs of it"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A line without newline of `len` bytes.
    fn text(len: usize) -> Vec<u8> {
        vec![b'x'; len]
    }

    #[test]
    fn a_write_is_as_many_lines_as_it_has() {
        let mut buffer = LineBuffer::new();
        assert_eq!(buffer.feed(b"a\n\nb\n").unwrap(), [&b"a"[..], b"", b"b"]);
        assert_eq!(buffer.feed(b"c").unwrap(), [b"c"]);
        assert_eq!(buffer.feed(b"").unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(buffer.pending(), None);
    }

    #[test]
    fn an_end_at_a_multiple_of_512_is_kept() {
        let mut buffer = LineBuffer::new();
        assert!(buffer.feed(&text(512)).unwrap().is_empty());
        assert_eq!(buffer.pending(), Some(&text(512)[..]));
        assert_eq!(buffer.feed(b"y\nz\n").unwrap(), [[text(512), b"y".to_vec()].concat(), b"z".to_vec()]);
        assert_eq!(buffer.pending(), None);
    }

    #[test]
    fn a_short_write_without_newline_completes_what_was_kept() {
        for rest in [1, 511, 513] {
            let mut buffer = LineBuffer::new();
            buffer.feed(&text(4096)).unwrap();
            buffer.feed(&text(1024)).unwrap();
            assert_eq!(buffer.feed(&text(rest)).unwrap(), [text(5120 + rest)]);
            assert_eq!(buffer.pending(), None);
        }
    }

    #[test]
    fn an_empty_write_completes_nothing() {
        let mut buffer = LineBuffer::new();
        buffer.feed(&text(512)).unwrap();
        assert!(buffer.feed(b"").unwrap().is_empty());
        assert_eq!(buffer.feed(b"\n").unwrap(), [text(512)]);
    }

    #[test]
    fn a_whole_line_of_512_bytes_is_a_line() {
        let mut buffer = LineBuffer::new();
        let line = [text(511), b"\n".to_vec()].concat();
        assert_eq!(buffer.feed(&line).unwrap(), [text(511)]);
    }

    #[test]
    fn a_kept_comment_is_no_job() {
        let mut buffer = LineBuffer::new();
        buffer.feed(&[b"#".to_vec(), text(511)].concat()).unwrap();
        assert_eq!(buffer.pending(), None);
    }

    #[test]
    fn too_long_lines_are_refused_kept_or_not() {
        let at_most = [text(MAX_LINE), b"\n".to_vec()].concat();
        assert_eq!(LineBuffer::new().feed(&at_most).unwrap(), [text(MAX_LINE)]);

        let mut buffer = LineBuffer::new();
        let beyond = [text(MAX_LINE + 1), b"\n".to_vec()].concat();
        assert_eq!(buffer.feed(&beyond).unwrap_err().kind(), ErrorKind::TooBig);
        assert_eq!(buffer.feed(b"a\n").unwrap(), [b"a"]);

        buffer.feed(&text(MAX_LINE)).unwrap();
        assert_eq!(buffer.feed(&text(512)).unwrap_err().kind(), ErrorKind::TooBig);
        assert_eq!(buffer.pending(), None);
        assert_eq!(buffer.feed(b"rest\n").unwrap_err().kind(), ErrorKind::Syntax);
    }

    #[test]
    fn the_rest_of_a_refused_line_never_comes_alone() {
        let mut buffer = LineBuffer::new();
        buffer.feed(&text(512)).unwrap();
        buffer.refuse();
        assert_eq!(buffer.feed(b"from=/dev/a to=/dev/b\n").unwrap_err().kind(), ErrorKind::Syntax);

        let mut buffer = LineBuffer::new();
        buffer.feed(b"bad\n").unwrap();
        buffer.refuse();
        assert_eq!(buffer.feed(b"good\n").unwrap(), [b"good"]);
    }

    proptest! {
        /// However a buffer of whole blocks cuts a text, the lines are the same.
        #[test]
        fn cuts_at_blocks_change_nothing(
            lines in prop::collection::vec(prop::collection::vec(b'a'..b'd', 0..1500), 1..8),
            blocks in prop::collection::vec(1_usize..4, 1..20),
        ) {
            let mut data = lines.join(&b'\n');
            data.push(b'\n');
            let mut buffer = LineBuffer::new();
            let (mut found, mut rest, mut blocks) = (Vec::new(), &data[..], blocks.into_iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(blocks.next().unwrap() * CUT));
                found.extend(buffer.feed(now).unwrap());
                rest = later;
            }
            prop_assert_eq!(found, lines);
            prop_assert_eq!(buffer.pending(), None);
        }
    }
}
