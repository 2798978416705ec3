//! Keeps the event log in the state directory, so that it outlives the daemon. Its thread alone waits for that disk.
//!
//! # Protocol
//! 1. A line is added to the log in memory. The thread appends it to the file, with all others that came. Then it lets lines come
//!    for [`GATHER`], without being woken for each.
//! 2. A reader waits until what he is to read is in the file; that ends the gathering. After [`LATE`] he reads without that, and so do all others until
//!    the file is written again: no reader hangs with that disk.
//! 3. Once a second at most the file is made durable. With nothing to do the thread sleeps without a timeout.
//! 4. Where the head of the log was cut off, or a write has failed, the file is replaced by the log as it is.
//! 5. A failure is told once. It is tried again every [`PATIENCE`]; no job waits for that.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::Events;
use crate::error::{Error, Result};
use crate::journal::EventFile;

/// How long a reader waits for the file.
const LATE: Duration = Duration::from_millis(500);
/// Between two writes, while nobody reads.
const GATHER: Duration = Duration::from_millis(10);
/// Between two times at which the file is made durable.
const SYNC: Duration = Duration::from_secs(1);
/// Between two tries at a file that cannot be written.
const PATIENCE: Duration = Duration::from_secs(5);

/// What of the log is in the file. Bytes are counted from the start of the daemon on, and with what it found.
#[derive(Debug)]
pub(super) struct Keeping {
    /// Bytes that were told.
    told: u64,
    /// Bytes of them that are in the file.
    kept: u64,
    /// The file has the log up to there, and nothing else.
    pub(super) is_whole: bool,
    /// Nobody waits for the file any more, until it is written again.
    is_late: bool,
    pace: Pace,
    is_ending: bool,
}

/// When lines are written that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// As soon as the thread can.
    Soon,
    /// When others have had time to come.
    Gathering,
    /// Without that: somebody waits for the file.
    Urgent,
}

impl Keeping {
    /// So many bytes were found in a file, which has these alone where it `is_whole`.
    pub(super) fn new(found: usize, is_whole: bool) -> Self {
        let (told, kept) = (found as u64, found as u64);
        Self { told, kept, is_whole, is_late: false, pace: Pace::Soon, is_ending: false }
    }

    /// So many bytes more were told. Whether the thread is to know.
    pub(super) fn tell(&mut self, bytes: usize) -> bool {
        self.told += bytes as u64;
        self.pace != Pace::Gathering
    }

    fn is_kept(&self) -> bool {
        self.is_late || self.kept == self.told
    }
}

/// Something for the file.
enum Task {
    Append(Vec<u8>),
    Replace(Vec<u8>),
    Sync,
}

impl Events {
    /// Whether all that was told is in the file, or nobody waits for that.
    pub(in crate::fs) fn is_kept(&self) -> bool {
        self.log.lock().keeping.as_ref().is_none_or(Keeping::is_kept)
    }

    /// Waits until it is, for a bounded time.
    pub(in crate::fs) fn wait_kept(&self) {
        let until = Instant::now() + LATE;
        let mut log = self.log.lock();
        let Some(keeping) = log.keeping.as_mut().filter(|keeping| !keeping.is_kept()) else { return };
        let told = keeping.told;
        keeping.pace = Pace::Urgent;
        self.came.notify_one();
        while log.keeping.as_ref().is_some_and(|keeping| !keeping.is_late && keeping.kept < told) {
            if self.kept.wait_until(&mut log, until).timed_out()
                && let Some(keeping) = &mut log.keeping
            {
                keeping.is_late = true;
            }
        }
    }

    /// Nothing more is told: ends the thread when all is in the file, and waits for that for a bounded time.
    pub(in crate::fs) fn end(&self) {
        if let Some(keeping) = &mut self.log.lock().keeping {
            keeping.is_ending = true;
            self.came.notify_one();
        }
        self.wait_kept();
    }

    /// The next task; the second it waits for is up at `sync`. `None` at the end.
    fn next(&self, sync: Option<Instant>) -> Option<(Task, u64)> {
        let mut log = self.log.lock();
        loop {
            let told = {
                let text = &log.text;
                let keeping = log.keeping.as_ref()?;
                let fresh = usize::try_from(keeping.told - keeping.kept).unwrap_or(usize::MAX);
                match text.len().checked_sub(fresh) {
                    _ if fresh == 0 && keeping.is_ending => return None,
                    Some(from) if keeping.is_whole && fresh > 0 => {
                        return Some((Task::Append(text[from..].to_vec()), keeping.told));
                    }
                    // What was found torn is mended with the first line that comes: a start needs to write nothing.
                    _ if fresh > 0 => Some((text.clone(), keeping.told)),
                    _ => None,
                }
            };
            if let Some((text, told)) = told {
                // A cut that comes from now on needs another one.
                log.keeping.iter_mut().for_each(|keeping| keeping.is_whole = true);
                return Some((Task::Replace(text), told));
            }
            match sync {
                Some(due) if self.came.wait_until(&mut log, due).timed_out() => return Some((Task::Sync, 0)),
                Some(_) => {}
                None => self.came.wait(&mut log),
            }
        }
    }

    /// Lets lines come for a moment.
    fn gather(&self) {
        let until = Instant::now() + GATHER;
        let mut log = self.log.lock();
        let mut is_over = false;
        while let Some(keeping) = &mut log.keeping {
            if is_over || keeping.is_ending || keeping.pace == Pace::Urgent {
                keeping.pace = Pace::Soon;
                return;
            }
            keeping.pace = Pace::Gathering;
            is_over = self.came.wait_until(&mut log, until).timed_out();
        }
    }

    fn is_written(&self, upto: u64) {
        if let Some(keeping) = &mut self.log.lock().keeping {
            keeping.kept = upto;
            keeping.is_late = false;
        }
        self.kept.notify_all();
    }

    /// Waits before the next try; `false` at the end.
    fn is_patient(&self) -> bool {
        let until = Instant::now() + PATIENCE;
        let mut log = self.log.lock();
        if let Some(keeping) = &mut log.keeping {
            (keeping.is_whole, keeping.is_late) = (false, true);
        }
        self.kept.notify_all();
        loop {
            if log.keeping.as_ref().is_none_or(|keeping| keeping.is_ending) {
                return false;
            }
            if self.came.wait_until(&mut log, until).timed_out() {
                return true;
            }
        }
    }
}

/// Starts the thread.
pub(super) fn start(events: Arc<Events>, file: EventFile) -> Result<()> {
    let keeper = thread::Builder::new().name("events".to_owned()).spawn(move || run(&events, &file));
    keeper.map(drop).map_err(|error| Error::os("a thread for events", error))
}

fn run(events: &Events, file: &EventFile) {
    let (mut fails, mut sync) = (false, None);
    while let Some((task, told)) = events.next(sync) {
        let done = match &task {
            Task::Append(lines) => file.append(lines),
            Task::Replace(lines) => file.replace(lines),
            Task::Sync => file.sync(),
        };
        match (done, task) {
            (Ok(()), Task::Sync) => sync = None,
            (Ok(()), _) => {
                events.is_written(told);
                sync = sync.or_else(|| Some(Instant::now() + SYNC));
                if std::mem::take(&mut fails) {
                    log::info!("events are kept again");
                }
                events.gather();
            }
            (Err(error), _) => {
                if !std::mem::replace(&mut fails, true) {
                    log::warn!("events are not kept: {error}");
                }
                sync = None;
                if !events.is_patient() {
                    return;
                }
            }
        }
    }
    if sync.is_some()
        && let Err(error) = file.sync()
    {
        log::warn!("events are not durable: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    use super::super::{Cursor, TEXT_KEPT, TEXT_MAX};
    use super::*;
    use crate::jobs::{Change, State};
    use crate::journal::Store;

    /// What a daemon tells; the directory is its own until that is dropped.
    fn daemon(state: &Path) -> (Arc<Events>, Store) {
        fs::set_permissions(state, Permissions::from_mode(0o700)).unwrap();
        let store = Store::open(state).unwrap().store;
        let events = Arc::new(Events::new(UNIX_EPOCH));
        events.keep(store.event_file().unwrap()).unwrap();
        (events, store)
    }

    fn tell(events: &Events, id: u64) {
        let time = UNIX_EPOCH + Duration::from_micros(id);
        events.append(&Change { time, id, name: None, old: None, new: State::Queued, reason: Some("x".repeat(100)) });
    }

    fn text(events: &Events) -> Vec<u8> {
        events.read(&mut Cursor::default(), 0, 2 * TEXT_MAX)
    }

    #[test]
    fn the_next_daemon_goes_on_with_the_log_and_its_time() {
        let state = tempfile::tempdir().unwrap();
        let mut before = Vec::new();
        for id in 1..4 {
            let (events, _store) = daemon(state.path());
            assert_eq!(text(&events), before);
            let (size, time) = events.size();
            assert_eq!((size, time), (before.len() as u64, UNIX_EPOCH + Duration::from_micros(id - 1)));
            tell(&events, id);
            events.wait_kept();
            before = text(&events);
            assert_eq!(fs::read(state.path().join("events")).unwrap(), before, "what is read is kept");
            events.end();
        }
        assert_eq!(str::from_utf8(&before).unwrap().lines().count(), 3);
    }

    #[test]
    fn the_file_is_cut_with_the_log_and_never_has_a_line_twice() {
        let state = tempfile::tempdir().unwrap();
        let (events, _store) = daemon(state.path());
        for id in 1..=3 * TEXT_MAX as u64 / 100 {
            tell(&events, id);
            assert!(text(&events).len() <= TEXT_MAX);
        }
        events.end();
        let kept = fs::read(state.path().join("events")).unwrap();
        assert_eq!(kept, text(&events));
        let ids: Vec<u64> = kept
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| str::from_utf8(line).unwrap().split(' ').nth(1).unwrap().parse().unwrap())
            .collect();
        assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]), "in order, without a gap");
        assert!(kept.len() >= TEXT_KEPT - 200);
    }

    #[test]
    fn readers_do_not_wait_for_a_file_that_is_never_written() {
        let events = Events::new(UNIX_EPOCH);
        events.log.lock().keeping = Some(Keeping::new(0, true));
        assert!(events.is_kept(), "nothing is told");
        tell(&events, 1);
        assert!(!events.is_kept());
        events.wait_kept();
        tell(&events, 2);
        assert!(events.is_kept(), "nobody waits a second time");
        events.is_written(1);
        assert!(!events.is_kept(), "it is written again");
    }
}
