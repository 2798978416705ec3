//! From specs to jobs: all of a write or none.

use std::sync::Arc;

use super::job::Job;
use super::names::Wish;
use super::open::{Opened, Opener, open};
use super::run::{Jobs, Shared};
use super::view::{JobId, Refusal, State};
use crate::error::{Error, ErrorKind, Result};
use crate::salvage::Geometry;
use crate::sector::Sector;
use crate::spec::{Place, Spec};

/// A spec that passed, with its devices, or with the reason for which it waits for them.
struct Ready {
    spec: Spec,
    opened: std::result::Result<Opened, String>,
}

impl Ready {
    fn undo(self) {
        if let Ok(opened) = self.opened {
            opened.undo();
        }
    }
}

impl Jobs {
    /// Makes a job of each spec, all or none. Opens their devices, so it may take as long as a sick device likes. Each is
    /// on disk when this returns, where a state directory is kept.
    ///
    /// # Errors
    /// Which spec, which part of it and why. No device was written to, and no file is left that `create` made.
    pub fn submit(&self, specs: Vec<Spec>) -> std::result::Result<Vec<JobId>, Refusal> {
        let with = self.shared.opener();
        let mut ready: Vec<Ready> = Vec::with_capacity(specs.len());
        for (index, spec) in specs.into_iter().enumerate() {
            match self.shared.prepare(spec, &with) {
                Ok(one) => ready.push(one),
                Err((place, error)) => {
                    ready.into_iter().for_each(Ready::undo);
                    return Err(Refusal { index, place, error });
                }
            }
        }
        let jobs = self.shared.make(ready)?;
        for job in &jobs {
            self.shared.admit(job);
        }
        self.shared.run_next();
        Ok(jobs.iter().map(|job| job.id).collect())
    }

    /// Forgets an ended job.
    ///
    /// # Errors
    /// `NotFound`; `Busy` while it lives.
    pub fn dismiss(&self, id: JobId) -> Result<()> {
        self.shared.registry.lock().dismiss(id)?;
        self.shared.scribe.forget(id);
        Ok(())
    }
}

impl Shared {
    fn prepare(&self, mut spec: Spec, with: &Opener<'_>) -> std::result::Result<Ready, (Place, Error)> {
        if *self.stopping.lock() {
            return Err((Place::Line, Error::new(ErrorKind::Cancelled, "the daemon is stopping")));
        }
        if let Some(after) = spec.after
            && self.registry.lock().get(after).is_none()
        {
            let what = format!("no job {after} to start after: it was never made, or was dismissed");
            return Err((Place::Word("after"), Error::new(ErrorKind::NotFound, what)));
        }
        match open(&spec, with) {
            Ok(opened) => {
                canonical(&mut spec, opened.count());
                Ok(Ready { spec, opened: Ok(opened) })
            }
            // It waits for busy devices; how long the source is must be known all the same.
            Err((place, error)) if spec.queue && error.kind() == ErrorKind::Busy => {
                let count = count_of(&spec, with)?;
                canonical(&mut spec, count);
                let _ = place;
                Ok(Ready { spec, opened: Err(format!("waits: {error}")) })
            }
            Err(why) => Err(why),
        }
    }

    /// Numbers, claims and records them; nothing is told before all of that has worked.
    fn make(&self, ready: Vec<Ready>) -> std::result::Result<Vec<Arc<Job>>, Refusal> {
        let _one_at_a_time = self.submitting.lock();
        let line = |error| Refusal { index: 0, place: Place::Line, error };
        let first = match self.registry.lock().room_for(ready.len()) {
            Ok(first) => first,
            Err(error) => {
                ready.into_iter().for_each(Ready::undo);
                return Err(line(error));
            }
        };
        let mut ready = ready;
        for (index, (one, id)) in ready.iter_mut().zip(first..).enumerate() {
            // Those that wait claim when their turn comes.
            let waits = one.spec.queue || one.spec.after.is_some();
            if let (Ok(opened), false) = (&mut one.opened, waits)
                && let Err((place, error)) = self.claim_new(&one.spec, opened, id, first)
            {
                ready.into_iter().for_each(Ready::undo);
                return Err(Refusal { index, place, error });
            }
        }
        let jobs: Vec<Arc<Job>> = ready.into_iter().zip(first..).map(|(one, id)| Arc::new(job(id, one))).collect();
        if let Err(error) = self.scribe.record_new(&jobs) {
            for job in jobs {
                if let Some(opened) = job.lock().opened.take() {
                    opened.undo();
                }
            }
            return Err(line(error));
        }
        self.registry.lock().add(&jobs);
        self.counters.made(jobs.len());
        Ok(jobs)
    }
}

impl Shared {
    /// Claims for the job `id` of a write whose first job is `first`; none of them has been told its number.
    fn claim_new(
        &self,
        spec: &Spec,
        opened: &mut Opened,
        id: JobId,
        first: JobId,
    ) -> std::result::Result<(), (Place, Error)> {
        if !self.returning.is_empty() {
            let identities = opened.identities();
            let wish = Wish { spec, sectors: opened.count().get(), identities: &identities, by_path: true };
            self.returning.in_the_way(wish).map_or(Ok(()), Err)?;
        }
        opened.claim(&self.claims, id, |other| match other {
            other if other >= first => "an earlier line of this write".to_owned(),
            other => format!("job {other}"),
        })
    }
}

fn count_of(spec: &Spec, with: &Opener<'_>) -> std::result::Result<Sector, (Place, Error)> {
    // Without destinations nothing can be busy.
    let alone = Spec { to: Vec::new(), ..spec.clone() };
    let count = if alone.from.is_some() {
        open(&alone, with)?.from.as_ref().map(|from| from.count)
    } else {
        spec.to.first().and_then(|to| to.count)
    };
    count.ok_or_else(|| (Place::Line, Error::new(ErrorKind::Syntax, "the job's length is not known: give a COUNT")))
}

fn job(id: JobId, ready: Ready) -> Job {
    let Ready { spec, opened } = ready;
    let count = match (&opened, &spec.from) {
        (Ok(opened), _) => opened.count(),
        (Err(_), Some(from)) => from.count.unwrap_or(Sector::ZERO),
        (Err(_), None) => spec.to.first().and_then(|to| to.count).unwrap_or(Sector::ZERO),
    };
    let paused = spec.paused;
    let job = Job::new(id, spec, count, opened.as_ref().map_or_else(|_| Geometry::default(), Opened::block));
    let mut life = job.lock();
    life.state = if paused { State::Paused } else { State::Queued };
    match opened {
        Ok(opened) => {
            life.identities = opened.identities();
            life.claimed = opened.is_claimed();
            life.opened = Some(Box::new(opened));
        }
        Err(why) => life.waits = Some(why),
    }
    drop(life);
    job
}

/// Says every count, so that the spec means the same when it is run again.
fn canonical(spec: &mut Spec, count: Sector) {
    if let Some(from) = &mut spec.from {
        from.count = Some(count);
        for to in &mut spec.to {
            to.count = None;
        }
    }
}
