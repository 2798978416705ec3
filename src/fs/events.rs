//! The event log: a line per change of state, read as it grows.
//!
//! A file that is appended to, as seen from outside: it has a size, any offset can be read, poll(2) tells of more. When
//! it grows too large its head is cut off, and it goes on as a rotated log does: `tail -f` notices and starts over.
//!
//! Where there is a state directory it is kept there, by the [`keeper`].
//!
//! # Invariants
//! * The text is whole lines. It never exceeds [`TEXT_MAX`] by more than one line.
//! * A line that was read is in the file, so that it is there after a kill; unless the file cannot be written, or not in time.

mod keeper;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex};

use self::keeper::Keeping;
use super::keys;
use crate::error::Result;
use crate::jobs::Change;
use crate::journal::{EventFile, Told};

/// Bytes beyond which the head is cut off: some 15,000 changes, a day of a busy machine.
const TEXT_MAX: usize = 1 << 20;
/// Bytes kept by a cut, less what begins in the middle of a line.
const TEXT_KEPT: usize = 64 << 10;

/// Told once when there is more to read.
pub(super) type Notify = Box<dyn FnOnce() + Send>;

/// The log.
pub(super) struct Events {
    log: Mutex<Log>,
    /// There is something for the keeper.
    came: Condvar,
    /// It has written, or cannot.
    kept: Condvar,
}

struct Log {
    text: Vec<u8>,
    /// How often the head was cut off.
    cuts: u64,
    changed: SystemTime,
    /// Who waits in poll(2), by open file.
    polls: HashMap<u64, Notify>,
    /// What of it is in the file, where there is one.
    keeping: Option<Keeping>,
}

/// How far an open file has read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    seen: usize,
    cuts: u64,
}

impl Events {
    /// An empty log, that nobody keeps.
    pub(super) fn new(now: SystemTime) -> Self {
        let log = Log { text: Vec::new(), cuts: 0, changed: now, polls: HashMap::new(), keeping: None };
        Self { log: Mutex::new(log), came: Condvar::new(), kept: Condvar::new() }
    }

    /// Goes on with the log of an earlier daemon, and keeps what comes, on a thread of its own. To be called before anything
    /// is told.
    ///
    /// # Errors
    /// A thread that cannot be made.
    pub(super) fn keep(self: &Arc<Self>, file: EventFile) -> Result<()> {
        let Told { text, is_whole } = file.read().unwrap_or_else(|error| {
            log::warn!("the events of before are lost: {error}");
            Told::default()
        });
        {
            let mut log = self.log.lock();
            log.keeping = Some(Keeping::new(text.len(), is_whole));
            log.changed = last_time(&text).unwrap_or(log.changed);
            log.text = text;
            log.bound();
        }
        keeper::start(Arc::clone(self), file)
    }

    /// Adds a change and tells who waits for it. Quick: called from whatever thread made the change.
    pub(super) fn append(&self, change: &Change) {
        let line = keys::event(change);
        let polls = {
            let mut log = self.log.lock();
            log.text.extend_from_slice(&line);
            log.changed = change.time;
            if log.keeping.as_mut().is_some_and(|keeping| keeping.tell(line.len())) {
                self.came.notify_one();
            }
            log.bound();
            std::mem::take(&mut log.polls)
        };
        for notify in polls.into_values() {
            notify();
        }
    }

    /// Its size and the time of the last change.
    pub(super) fn size(&self) -> (u64, SystemTime) {
        let log = self.log.lock();
        (log.text.len() as u64, log.changed)
    }

    /// At most `size` bytes from `offset` on.
    pub(super) fn read(&self, cursor: &mut Cursor, offset: u64, size: usize) -> Vec<u8> {
        let log = self.log.lock();
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(log.text.len());
        let to = from.saturating_add(size).min(log.text.len());
        *cursor = Cursor { seen: to, cuts: log.cuts };
        log.text[from..to].to_vec()
    }

    /// Whether there is more than an open file has read. `notify` is told when there is yet more, because who waits for
    /// edges (epoll's `EPOLLET`) does not ask again. A cut counts as more, once, so that a reader whose place is gone wakes up
    /// and looks.
    pub(super) fn poll(&self, file: u64, cursor: Cursor, notify: Option<Notify>) -> bool {
        let mut log = self.log.lock();
        let ready = log.text.len() > cursor.seen || log.cuts != cursor.cuts;
        if let Some(notify) = notify {
            log.polls.insert(file, notify);
        }
        ready
    }

    /// Where an open file begins: nothing read, nothing missed.
    pub(super) fn begin(&self) -> Cursor {
        Cursor { seen: 0, cuts: self.log.lock().cuts }
    }

    /// An open file is closed.
    pub(super) fn forget(&self, file: u64) {
        self.log.lock().polls.remove(&file);
    }
}

impl Log {
    /// Cuts its head off where it has grown too large.
    fn bound(&mut self) {
        if self.text.len() > TEXT_MAX {
            let cut = head_to_cut(&self.text);
            self.text.drain(..cut);
            self.cuts += 1;
            if let Some(keeping) = &mut self.keeping {
                keeping.is_whole = false;
            }
        }
    }
}

/// The time of the last line.
fn last_time(text: &[u8]) -> Option<SystemTime> {
    let line = text.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
    let micros = str::from_utf8(line).ok()?.split(' ').next()?.parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_micros(micros))
}

/// How much to cut off so that at most [`TEXT_KEPT`] bytes of whole lines stay.
fn head_to_cut(text: &[u8]) -> usize {
    let least = text.len().saturating_sub(TEXT_KEPT);
    // The byte before may be the newline that makes the boundary.
    let from = least.saturating_sub(1);
    text[from..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |at| from + at + 1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::jobs::State;

    fn change(id: u64) -> Change {
        Change { time: UNIX_EPOCH, id, name: None, old: None, new: State::Queued, reason: Some("x".repeat(100)) }
    }

    #[test]
    fn any_offset_reads() {
        let events = Events::new(UNIX_EPOCH);
        let mut cursor = events.begin();
        assert_eq!(events.read(&mut cursor, 0, 100), b"");
        events.append(&Change { reason: None, ..change(1) });
        assert_eq!(events.read(&mut cursor, 2, 3), b"1 -");
        assert_eq!(events.read(&mut cursor, 0, 4096), b"0 1 - queued\n");
        assert_eq!(events.read(&mut cursor, 4096, 4096), b"");
        assert_eq!(events.size().0, 13);
    }

    #[test]
    fn a_long_log_is_cut_at_a_line() {
        let events = Events::new(UNIX_EPOCH);
        let mut cursor = events.begin();
        let mut id = 0;
        while events.log.lock().cuts == 0 {
            id += 1;
            events.append(&change(id));
        }
        let (size, _) = events.size();
        assert!(size <= TEXT_KEPT as u64 && size > TEXT_KEPT as u64 - 200);
        assert!(events.poll(1, cursor, None), "the cut itself is news");
        let text = events.read(&mut cursor, 0, TEXT_MAX);
        assert!(text.starts_with(b"0 ") && text.ends_with(b"\n"));
        let last = text.split(|byte| *byte == b'\n').rev().nth(1).unwrap();
        assert!(last.starts_with(format!("0 {id} - ").as_bytes()));
        assert!(!events.poll(1, cursor, None));
    }

    #[test]
    fn a_cut_on_a_boundary_keeps_its_line() {
        let mut text = vec![b'x'; 100];
        text.push(b'\n');
        let tail = [vec![b'y'; TEXT_KEPT - 1], b"\n".to_vec()].concat();
        text.extend_from_slice(&tail);
        assert_eq!(head_to_cut(&text), 101);
    }

    #[test]
    fn poll_tells_once() {
        let events = Events::new(UNIX_EPOCH);
        let told = Arc::new(AtomicU32::new(0));
        let notify = || -> Option<Notify> {
            let told = Arc::clone(&told);
            Some(Box::new(move || _ = told.fetch_add(1, Ordering::Relaxed)))
        };
        let mut cursor = events.begin();
        assert!(!events.poll(1, cursor, notify()) && !events.poll(1, cursor, notify()));
        events.append(&change(1));
        events.append(&change(2));
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert!(events.poll(1, cursor, notify()));
        events.read(&mut cursor, 0, 1 << 20);
        assert!(!events.poll(1, cursor, notify()));
        events.forget(1);
        events.append(&change(3));
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert!(events.poll(1, cursor, notify()), "there is more, and the next change is told all the same");
        events.append(&change(4));
        assert_eq!(told.load(Ordering::Relaxed), 2);
    }
}
