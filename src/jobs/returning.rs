//! Jobs from records that have not got their devices back yet: what they had is kept for them.
//!
//! A live job claims the bytes that it reads and writes. One that comes from a record can claim them only when its devices
//! are open again: later, or never while a late write of a killed daemon holds them. Until then it is known by the paths
//! and identities of its devices, and whoever would disturb it goes after it. A job that had begun goes before those that
//! had not, and these go in the order of their numbers: else the rest of a copy would be written over another one, and both
//! would be `done`.
//!
//! # Invariants
//! A job leaves the table when it has its claim or ends; one that had not begun, when it asked for its claim or is held. Of a
//! held one only the identities count: what is at its paths now is not surely its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::job::Job;
use super::names::Wish;
use super::view::{JobId, State};
use crate::error::{Error, ErrorKind};
use crate::spec::Place;

/// The jobs that are on their way back.
#[derive(Debug, Default)]
pub(super) struct Returning(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    begun: BTreeMap<JobId, Had>,
    waiting: BTreeMap<JobId, Had>,
}

/// A job, and what its devices were recognised by.
#[derive(Debug)]
struct Had {
    job: Arc<Job>,
    sectors: u64,
    identities: Vec<Option<String>>,
    /// Its paths are not surely its own.
    held: bool,
}

impl Returning {
    /// Takes in a job that comes from a record and lives. Returns whether it had begun.
    pub(super) fn expect(&self, job: &Arc<Job>) -> bool {
        let life = job.lock();
        let begun = life.claimed;
        let had = Had {
            job: Arc::clone(job),
            sectors: life.progress.total,
            identities: life.identities.clone(),
            held: false,
        };
        let turn = life.state == State::Queued && life.released;
        drop(life);
        let mut table = self.0.lock();
        if begun {
            table.begun.insert(job.id, had);
        } else if turn {
            table.waiting.insert(job.id, had);
        }
        begun
    }

    /// Whether nobody is on the way.
    pub(super) fn is_empty(&self) -> bool {
        let table = self.0.lock();
        table.begun.is_empty() && table.waiting.is_empty()
    }

    /// Whether that job had begun, and is on its way.
    pub(super) fn had_begun(&self, id: JobId) -> bool {
        self.0.lock().begun.contains_key(&id)
    }

    /// It has its claim, or will not have it.
    pub(super) fn is_back(&self, id: JobId) {
        let mut table = self.0.lock();
        table.begun.remove(&id);
        table.waiting.remove(&id);
    }

    /// Its devices are not surely those that it had: it keeps these, wherever they are.
    pub(super) fn is_held(&self, id: JobId) {
        let mut table = self.0.lock();
        table.waiting.remove(&id);
        if let Some(had) = table.begun.get_mut(&id) {
            had.held = true;
        }
    }

    /// It asked for its claim. From now on it has its place among those that wait.
    pub(super) fn has_asked(&self, id: JobId) {
        self.0.lock().waiting.remove(&id);
    }

    /// Why the job `id` cannot have what it wishes for now: another one goes first.
    pub(super) fn before(&self, id: JobId, wish: Wish<'_>) -> Option<(Place, Error)> {
        let table = self.0.lock();
        if table.begun.contains_key(&id) {
            // Those that had begun were never in each other's way.
            return None;
        }
        let mut first = table.begun.values().chain(table.waiting.range(..id).map(|(_, had)| had));
        first.find_map(|had| had.disturbed_by(wish))
    }

    /// The same for a new job, which does not wait: only what had begun is in its way.
    pub(super) fn in_the_way(&self, wish: Wish<'_>) -> Option<(Place, Error)> {
        self.before(0, wish)
    }
}

impl Had {
    fn wish(&self) -> Wish<'_> {
        Wish { spec: &self.job.spec, sectors: self.sectors, identities: &self.identities, by_path: !self.held }
    }

    /// The region of `other` that would disturb it.
    fn disturbed_by(&self, other: Wish<'_>) -> Option<(Place, Error)> {
        let theirs = other.regions().find(|theirs| self.wish().regions().any(|mine| mine.meets(theirs)))?;
        let what = format!(
            "{} is kept for job {}, which had it before the daemon was started again: let that go on, or cancel it",
            theirs.path.display(),
            self.job.id
        );
        Some((theirs.place, Error::new(ErrorKind::Busy, what)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sector::Sector;
    use crate::spec;

    fn job(id: JobId, line: &str) -> Arc<Job> {
        let spec = spec::parse(line.as_bytes()).unwrap().spec;
        let job = Job::new(id, spec, Sector::new(100).unwrap(), crate::salvage::Geometry::default());
        job.lock().identities = vec![None, Some("disk B".into())];
        job.lock().claimed = !job.spec.queue;
        Arc::new(job)
    }

    /// Whether a job of that number has to let another one go first.
    fn gives_way(returning: &Returning, id: JobId, line: &str, identities: &[Option<String>]) -> bool {
        let spec = spec::parse(line.as_bytes()).unwrap().spec;
        returning.before(id, Wish { spec: &spec, sectors: 100, identities, by_path: true }).is_some()
    }

    #[test]
    fn what_had_begun_goes_first_and_the_rest_in_order() {
        let returning = Returning::default();
        assert!(!returning.expect(&job(2, "from=/a to=/b queue")));
        assert!(returning.expect(&job(3, "from=/a to=/b")));
        let line = "from=/c to=/b queue";
        assert!(!gives_way(&returning, 3, line, &[]), "it had begun");
        assert!(gives_way(&returning, 2, line, &[]) && gives_way(&returning, 4, line, &[]));
        returning.is_back(3);
        assert!(!gives_way(&returning, 2, line, &[]) && gives_way(&returning, 4, line, &[]));
        let spec = spec::parse(line.as_bytes()).unwrap().spec;
        assert!(returning.in_the_way(Wish { spec: &spec, sectors: 100, identities: &[], by_path: true }).is_none());
        returning.has_asked(2);
        assert!(!gives_way(&returning, 4, line, &[]) && returning.is_empty());
    }

    #[test]
    fn only_who_would_disturb_it_gives_way() {
        let returning = Returning::default();
        returning.expect(&job(1, "from=/a,1000 to=/b,2000"));
        let disk_b = [None, Some("disk B".to_owned())];
        for (line, identities, expected) in [
            ("from=/c to=/b,2099 queue", &[][..], true),
            ("from=/c to=/b,2100 queue", &[], false),
            ("from=/c to=/b,1900 queue", &[], false),
            ("from=/c to=/other,2050 queue", &disk_b, true),
            ("from=/c to=/other,2050 queue", &[], false),
            ("from=/c to=/a,1050 queue", &[], true),
            ("from=/a,1050 to=/c queue", &[], false),
            ("from=/b,2050 to=/c queue", &[], true),
        ] {
            assert_eq!(gives_way(&returning, 2, line, identities), expected, "{line}");
        }
    }

    #[test]
    fn who_is_held_keeps_its_devices_and_not_its_paths() {
        let returning = Returning::default();
        returning.expect(&job(1, "from=/a to=/b"));
        returning.is_held(1);
        let disk_b = [None, Some("disk B".to_owned())];
        assert!(!gives_way(&returning, 2, "from=/c to=/b queue", &[None, Some("disk C".to_owned())]));
        assert!(gives_way(&returning, 2, "from=/c to=/other queue", &disk_b));
        returning.is_back(1);
        assert!(returning.is_empty());
    }

    #[test]
    fn who_is_paused_keeps_nothing_unless_it_had_begun() {
        let returning = Returning::default();
        let paused = job(1, "from=/a to=/b queue");
        paused.lock().state = State::Paused;
        assert!(!returning.expect(&paused) && returning.is_empty());
        let begun = job(2, "from=/a to=/b");
        begun.lock().state = State::Paused;
        assert!(returning.expect(&begun) && returning.had_begun(2));
    }
}
