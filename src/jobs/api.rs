//! What others ask of the jobs: figures, names, limits. Nothing here waits for a device.

use std::ffi::OsString;
use std::sync::Arc;

use super::clients::check_rate;
use super::job::Job;
use super::run::Jobs;
use super::scribe::Entry;
use super::view::{BadRange, Brief, Change, EngineView, JobId, State, Totals, View};
use crate::error::{Error, ErrorKind, Result};
use crate::io::PAGE_SIZE;

/// A job whose figures stay in sight, also when it has been dismissed.
pub struct Followed(Arc<Job>);

impl Followed {
    /// Its number.
    pub fn id(&self) -> JobId {
        self.0.id
    }

    /// Its figures.
    pub fn view(&self) -> View {
        self.0.view()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.0.lock().state.is_ended()
    }
}

impl Jobs {
    /// Keeps a job in sight.
    pub fn follow(&self, id: JobId) -> Option<Followed> {
        self.job(id).map(Followed)
    }

    /// A job's figures.
    pub fn view(&self, id: JobId) -> Option<View> {
        let mut view = self.job(id)?.view();
        if view.state == State::Queued && view.error.is_none() {
            view.error = self.shared.registry.lock().is_full();
        }
        Some(view)
    }

    /// The little of them that a listing shows.
    pub fn brief(&self, id: JobId) -> Option<Brief> {
        Some(self.job(id)?.brief())
    }

    /// The job in canonical form, as a line without its newline.
    pub fn spec_line(&self, id: JobId) -> Option<Vec<u8>> {
        Some(self.job(id)?.line())
    }

    /// What could not be read or written.
    pub fn bad_ranges(&self, id: JobId) -> Option<Vec<BadRange>> {
        Some(self.job(id)?.lock().progress.bad.clone())
    }

    /// The path of its source.
    pub fn source_path(&self, id: JobId) -> Option<OsString> {
        Some(self.job(id)?.spec.from.as_ref()?.path.clone())
    }

    /// The path of its destination `index`.
    pub fn dest_path(&self, id: JobId, index: usize) -> Option<OsString> {
        Some(self.job(id)?.spec.to.get(index)?.path.clone())
    }

    /// The numbers of all jobs, ascending.
    pub fn ids(&self) -> Vec<JobId> {
        self.shared.registry.lock().ids()
    }

    /// Lets a function know of every change of state. It must be quick and must not change a job.
    pub fn subscribe(&self, listener: Box<dyn Fn(&Change) + Send + Sync>) {
        self.shared.news.listen(listener);
    }

    /// The jobs in a state, ascending.
    pub fn in_state(&self, state: State) -> Vec<JobId> {
        let jobs = self.shared.registry.lock().all();
        jobs.iter().filter(|job| job.lock().state == state).map(|job| job.id).collect()
    }

    /// The newest job of each name, by name.
    pub fn names(&self) -> Vec<(String, JobId)> {
        self.shared.registry.lock().names()
    }

    /// The newest job of that name.
    pub fn named(&self, name: &str) -> Option<JobId> {
        self.shared.registry.lock().named(name)
    }

    /// A job's limit in bytes per second; the inner `None`: no limit.
    pub fn job_speed_max(&self, id: JobId) -> Option<Option<u64>> {
        Some(self.job(id)?.speed_max.get())
    }

    /// Sets it; it holds within a second.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for 0.
    pub fn set_job_speed_max(&self, id: JobId, rate: Option<u64>) -> Result<()> {
        check_rate(rate)?;
        let job = self.job(id).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no job {id}")))?;
        job.speed_max.set(rate);
        if let Some(running) = &job.lock().running {
            running.handle.wake();
        }
        self.shared.scribe.record(&job, Entry::default(), |_, _| {});
        Ok(())
    }

    /// What was done since the daemon began.
    pub fn totals(&self) -> Totals {
        self.shared.counters.totals()
    }

    /// The engine's figures.
    pub fn engine(&self) -> EngineView {
        let shared = &self.shared;
        let pool = shared.clients.pool.figures();
        let clients: Vec<_> = shared.clients.all().iter().map(|client| client.figures()).collect();
        let default = shared.clients.default();
        let (live, ended) = shared.registry.lock().counts();
        let (direct, buffered) = shared.open_devices();
        EngineView {
            backend: default.backend(),
            fallback: default.fallback().map(str::to_owned),
            page_size: PAGE_SIZE as u64,
            pages: u64::from(pool.pages),
            pages_free: u64::from(pool.free),
            pages_waiting: clients.iter().map(|client| client.pages_waiting).sum(),
            subjobs_in_flight: clients.iter().map(|client| client.subjobs_in_flight).sum(),
            subjob_bytes: u64::from(shared.config.subjob_bytes),
            subjobs_max: shared.config.subjobs as u64,
            fixed_buffers: default.has_fixed_buffers(),
            huge_pages: pool.huge,
            locked: pool.locked,
            direct,
            buffered,
            jobs_live: live as u64,
            jobs_ended: ended as u64,
        }
    }

    /// How far a destination is, as a mapfile of ddrescue; `None` for jobs without a source.
    pub fn map(&self, id: JobId, index: usize) -> Option<String> {
        self.job(id)?.map(index)
    }

    /// Whether a job has maps.
    pub fn has_maps(&self, id: JobId) -> bool {
        self.job(id).is_some_and(|job| job.spec.from.is_some())
    }
}
