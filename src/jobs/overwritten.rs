//! What a job had written and another one has written over since: it counts for nothing when the first goes on.
//!
//! A job that has ended keeps no claim. When it is retried, what its record has as `+` may be another job's: both would be
//! `done`, and one of them would not be whole. Asked when it has its claim again, so that nobody writes there meanwhile. A
//! job that was dismissed since is not seen, nor is another program.

use super::job::Job;
use super::names::Wish;
use super::run::Shared;

impl Shared {
    pub(super) fn forget_overwritten(&self, job: &Job) {
        let life = job.lock();
        let (sectors, identities, since) = (life.progress.total, life.identities.clone(), life.progressed);
        drop(life);
        let mine = Wish { spec: &job.spec, sectors, identities: &identities, by_path: true };
        let others = self.registry.lock().all();
        for other in others.iter().filter(|other| other.id != job.id) {
            let life = other.lock();
            if life.progressed < since || !life.progress.has_any() {
                continue;
            }
            let (sectors, identities) = (life.progress.total, &life.identities);
            let lost = mine.overwritten_by(Wish { spec: &other.spec, sectors, identities, by_path: true });
            drop(life);
            for (dest, range) in lost {
                log::info!("job {}: destination {dest} begins anew where job {} has written since", job.id, other.id);
                job.lock().progress.forget(dest, &range);
            }
        }
    }
}
