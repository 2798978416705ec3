//! `jobs/new`: specs in, numbers of jobs out.
//!
//! Each open file has its own line buffer (a shell may split a line over two writes) and its own queue of replies, so that
//! a script reads what became of its own writes and of nobody else's.
//!
//! # Invariants
//! A write makes all of its jobs or none. The line buffer's lock is held for a whole write, which keeps the writes of one
//! open file in order; readers take the replies' lock only, so that they never wait for a device.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::error_log::Refused;
use super::text;
use crate::error::{Error, ErrorKind};
use crate::jobs::{Jobs, Refusal};
use crate::spec::{self, LineBuffer, Spec, SpecError};

/// Bytes of replies kept for a reader; beyond that the oldest are forgotten, for a script that never reads.
const REPLIES_MAX: usize = 1 << 20;
/// Bytes of a write that are logged where no single line is to blame.
const LOGGED_MAX: usize = 4096;

/// The lines that are written to an open file.
#[derive(Default)]
pub(super) struct Lines(Mutex<LineBuffer>);

/// What an open `jobs/new` keeps.
#[derive(Default)]
pub(super) struct Specs {
    pub(super) lines: Lines,
    replies: Mutex<Replies>,
}

#[derive(Default)]
struct Replies {
    queue: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Lines {
    /// Does something with all specs of one write, if it has any.
    pub(super) fn write(&self, data: &[u8], act: impl FnOnce(Vec<Spec>) -> Result<(), Refusal>) -> Result<(), Refused> {
        let mut buffer = self.0.lock();
        let lines = buffer.feed(data).map_err(|error| {
            let line = data[..data.len().min(LOGGED_MAX)].to_vec();
            Refused { error, line, span: 0..0 }
        })?;
        let done = Self::act(lines, act);
        if done.is_err() {
            buffer.refuse();
        }
        done
    }

    fn act(lines: Vec<Vec<u8>>, act: impl FnOnce(Vec<Spec>) -> Result<(), Refusal>) -> Result<(), Refused> {
        let mut lines: Vec<Vec<u8>> = lines.into_iter().filter(|line| !spec::is_blank(line)).collect();
        let mut specs = Vec::with_capacity(lines.len());
        let mut spans = Vec::with_capacity(lines.len());
        for index in 0..lines.len() {
            match spec::parse(&lines[index]) {
                Ok(parsed) => {
                    specs.push(parsed.spec);
                    spans.push(parsed.spans);
                }
                Err(SpecError { error, span }) => {
                    return Err(Refused { error, line: lines.swap_remove(index), span });
                }
            }
        }
        if specs.is_empty() {
            return Ok(());
        }
        act(specs).map_err(|Refusal { index, place, error }| Refused {
            error,
            span: spans[index].of(place),
            line: lines.swap_remove(index),
        })
    }

    /// At close: the piece of a line that was kept for a next write, which did not come. It is refused, never run.
    pub(super) fn leftover(&self) -> Option<Refused> {
        // Nobody else is here: a file is closed after its last write was answered.
        let buffer = self.0.lock();
        let line = buffer.pending()?.to_vec();
        let why = "not run: closed within a line, at a multiple of 512 bytes, where it may have been cut; end it with a newline";
        Some(Refused { error: Error::new(ErrorKind::Syntax, why), span: line.len()..line.len(), line })
    }
}

impl Specs {
    /// Makes the jobs of one write. Blocks: devices are opened.
    pub(super) fn write(&self, jobs: &Jobs, data: &[u8]) -> Result<(), Refused> {
        self.lines.write(data, |specs| {
            let ids = jobs.submit(specs)?;
            let mut replies = self.replies.lock();
            for id in ids {
                replies.push(format!("{id}\n").into());
            }
            Ok(())
        })
    }

    /// Queues the reason of a refused write.
    pub(super) fn refuse(&self, error: &Error) {
        self.replies.lock().push(format!("error: {}\n", text::one_line(&error.to_string())).into());
    }

    /// The next reply, or as much of it as a short read takes; nothing where none is queued.
    pub(super) fn read(&self, size: usize) -> Vec<u8> {
        self.replies.lock().take(size)
    }
}

impl Replies {
    fn push(&mut self, reply: Vec<u8>) {
        self.bytes += reply.len();
        self.queue.push_back(reply);
        while self.bytes > REPLIES_MAX && self.queue.len() > 1 {
            self.bytes -= self.queue.pop_front().map_or(0, |oldest| oldest.len());
        }
    }

    fn take(&mut self, size: usize) -> Vec<u8> {
        let Some(mut reply) = self.queue.pop_front() else { return Vec::new() };
        let rest = reply.split_off(size.min(reply.len()));
        if !rest.is_empty() {
            self.queue.push_front(rest);
        }
        self.bytes -= reply.len();
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reply_a_read_and_short_reads_lose_nothing() {
        let mut replies = Replies::default();
        replies.push(b"17\n".to_vec());
        replies.push(b"error: no\n".to_vec());
        assert_eq!(replies.take(4096), b"17\n");
        let letters: Vec<u8> = (0..10).flat_map(|_| replies.take(1)).collect();
        assert_eq!(letters, b"error: no\n");
        assert_eq!(replies.take(4096), b"");
        assert_eq!(replies.bytes, 0);
    }

    #[test]
    fn replies_nobody_reads_are_bounded() {
        let mut replies = Replies::default();
        for _ in 0..3 * REPLIES_MAX / 1000 {
            replies.push(vec![b'x'; 1000]);
        }
        assert!(replies.bytes <= REPLIES_MAX && replies.queue.len() == replies.bytes / 1000);
    }
}
