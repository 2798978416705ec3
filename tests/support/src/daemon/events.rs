//! `events`, followed as it grows: parsed as strictly as a script might depend on it, waited for by poll(2).

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use super::{Daemon, FILE_LIMIT, JOB_LIMIT, STATES};
use crate::process;

/// A change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The job's number.
    pub job: u64,
    /// From; `None` for a job that was just made.
    pub old: Option<String>,
    /// To.
    pub new: String,
    /// Why, where there is more to say.
    pub reason: Option<String>,
}

impl Event {
    fn parse(line: &str) -> Self {
        let words: Vec<_> = line.splitn(5, ' ').collect();
        let [time, job, old, new, ref reason @ ..] = words[..] else { panic!("not an event: {line:?}") };
        assert!(time.parse::<u64>().is_ok_and(|usec| usec > 1_600_000_000_000_000), "the time of {line:?}");
        let known = |state: &str| {
            assert!(STATES.contains(&state), "no such state: {line:?}");
            state.to_owned()
        };
        Self {
            job: job.parse().unwrap_or_else(|_| panic!("no job's number: {line:?}")),
            old: (old != "-").then(|| known(old)),
            new: known(new),
            reason: reason.first().map(|reason| (*reason).to_owned()),
        }
    }

    /// `OLD NEW`.
    pub fn change(&self) -> String {
        format!("{} {}", self.old.as_deref().unwrap_or("-"), self.new)
    }
}

/// The events of one run of the daemon, from its beginning.
#[derive(Debug)]
pub struct Events<'a> {
    daemon: &'a Daemon,
    file: File,
    /// The beginning of a line.
    rest: String,
    seen: Vec<Event>,
}

impl Daemon {
    /// Follows its events, from the beginning of this run.
    pub fn events(&self) -> Events<'_> {
        let path = self.path("events");
        let open = || -> std::io::Result<File> {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(self.told))?;
            Ok(file)
        };
        let file = self.within(FILE_LIMIT, &path, open).expect("open events");
        Events { daemon: self, file, rest: String::new(), seen: Vec::new() }
    }
}

impl Events<'_> {
    /// Every event until now.
    pub fn now(&mut self) -> &[Event] {
        let mut text = Vec::new();
        let path = self.daemon.path("events");
        self.daemon.within(FILE_LIMIT, &path, || self.file.read_to_end(&mut text)).expect("read events");
        self.rest.push_str(std::str::from_utf8(&text).expect("events are UTF-8"));
        while let Some((line, rest)) = self.rest.split_once('\n') {
            self.seen.push(Event::parse(line));
            self.rest = rest.to_owned();
        }
        &self.seen
    }

    /// Waits until `find` finds it among all of them.
    ///
    /// # Panics
    /// If that takes longer than a job may.
    pub fn until<T>(&mut self, what: &str, mut find: impl FnMut(&[Event]) -> Option<T>) -> T {
        let late = Instant::now() + JOB_LIMIT;
        loop {
            if let Some(found) = find(self.now()) {
                return found;
            }
            let left = late.saturating_duration_since(Instant::now());
            assert!(left > Duration::ZERO, "waited {JOB_LIMIT:?} in vain: {what}\n{:#?}", self.seen);
            process::wait_readable(&[self.file.as_fd()], left);
        }
    }

    /// Waits until a job has changed to that state, now or before.
    pub fn until_state(&mut self, job: u64, state: &str) {
        self.until(&format!("job {job} {state}"), |events| {
            events.iter().any(|event| event.job == job && event.new == state).then_some(())
        });
    }

    /// The changes of one job until now, as `OLD NEW`.
    pub fn changes(&mut self, job: u64) -> Vec<String> {
        self.now().iter().filter(|event| event.job == job).map(Event::change).collect()
    }
}
