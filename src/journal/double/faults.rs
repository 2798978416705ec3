//! A disk whose steps fail on demand, or after whose n-th step nothing happens any more.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Disk;

/// What happens at the chosen step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The process is killed there: that step is half done at most, and no other follows.
    Die,
    /// That step and as many in all fail with an error and do nothing, or half of a write.
    Fail(u64),
    /// That step is done, and fails all the same; as many in all.
    DoneAndFail(u64),
}

/// A mistake that a build of the store might make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mistake {
    #[default]
    None,
    /// Files are not synced.
    NoFileSync,
    /// The directory is not synced.
    NoDirSync,
}

#[derive(Debug, Default)]
struct Plan {
    /// Steps so far.
    steps: u64,
    fault: Option<(u64, Fault)>,
    hit: bool,
    mistake: Mistake,
}

/// How a step goes.
enum Go {
    On,
    Not,
    OnAndFail,
}

/// A disk with a plan of faults. Its clones share both.
#[derive(Clone, Debug)]
pub(crate) struct Faulty<D> {
    inner: D,
    plan: Arc<Mutex<Plan>>,
}

impl<D: Disk> Faulty<D> {
    /// A disk without faults, as a store sees it that makes that mistake.
    pub(crate) fn new(inner: D, mistake: Mistake) -> Self {
        Self { inner, plan: Arc::new(Mutex::new(Plan { mistake, ..Plan::default() })) }
    }

    /// Of the steps from now on, the one with the number `at`, from 0, meets `fault`.
    pub(crate) fn meet(&self, at: u64, fault: Fault) {
        let mut plan = self.plan.lock();
        plan.fault = Some((plan.steps + at, fault));
    }

    /// No step fails any more.
    pub(crate) fn mend(&self) {
        self.plan.lock().fault = None;
    }

    /// A way to ask, when the disk has gone into a store, whether the fault was met.
    pub(crate) fn hit(&self) -> impl Fn() -> bool + use<D> {
        let plan = Arc::clone(&self.plan);
        move || plan.lock().hit
    }

    fn go(&self) -> Go {
        let mut plan = self.plan.lock();
        let step = plan.steps;
        plan.steps += 1;
        let go = match plan.fault {
            Some((at, Fault::Die)) if step >= at => Go::Not,
            Some((at, Fault::Fail(times))) if (at..at + times).contains(&step) => Go::Not,
            Some((at, Fault::DoneAndFail(times))) if (at..at + times).contains(&step) => Go::OnAndFail,
            _ => Go::On,
        };
        plan.hit |= !matches!(go, Go::On);
        go
    }

    fn step<T>(&self, what: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self.go() {
            Go::On => what(),
            Go::Not => Err(injected()),
            Go::OnAndFail => what().and(Err(injected())),
        }
    }
}

fn injected() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOSPC)
}

impl<D: Disk> Disk for Faulty<D> {
    type File = D::File;

    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.inner.names()
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.inner.read(name)
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<D::File> {
        match self.go() {
            Go::On => self.inner.create(name, bytes),
            Go::Not => self.inner.create(name, &bytes[..bytes.len() / 2]).and(Err(injected())),
            Go::OnAndFail => self.inner.create(name, bytes).and(Err(injected())),
        }
    }

    fn sync_file(&self, file: &D::File) -> io::Result<()> {
        let skip = self.plan.lock().mistake == Mistake::NoFileSync;
        self.step(|| if skip { Ok(()) } else { self.inner.sync_file(file) })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.step(|| self.inner.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.step(|| self.inner.remove(name))
    }

    fn sync(&self) -> io::Result<()> {
        let skip = self.plan.lock().mistake == Mistake::NoDirSync;
        self.step(|| if skip { Ok(()) } else { self.inner.sync() })
    }

    fn set_aside(&self, name: &str, to: &str) -> io::Result<()> {
        self.step(|| self.inner.set_aside(name, to))
    }
}
