//! From specs to new jobs, on the thread of whoever writes them: opening devices may take as long as a sick one likes.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime};

use super::api::Jobs;
use super::given::given;
use super::job::{Claim, Devices, Follows, Job};
use super::open::{OpenError, Opener, length_of_test, open};
use super::state::{Life, PausedBy, Wait};
use super::view::{JobId, Refusal};
use super::waiting::{Found, LetGo};
use crate::claims::{Conflict, Footprint};
use crate::dm_io::ErrorBits;
use crate::error::{Error, ErrorKind};
use crate::figures::Given;
use crate::sector::Sector;
use crate::spec::{Action, Place, Spec};

/// A spec that passed, with its devices, or with the reason for which it waits for them.
pub(super) struct Ready {
    /// In canonical form.
    pub(super) spec: Spec,
    pub(super) count: Sector,
    pub(super) devices: std::result::Result<Found, String>,
    /// What its map says, where it has one.
    pub(super) given: Option<Given>,
    /// What the pattern of a test is made from.
    pub(super) seed: u64,
}

/// Jobs of one write whose devices stay open until all of it was judged; those of the others are closed.
const OPEN_MAX: usize = 8;
/// Where there are no descriptors, devices that jobs have just let go of are on their way to be closed: for so long, and so often, it is
/// tried again.
const CLOSING_PAUSE: Duration = Duration::from_millis(20);
const CLOSING_LOOKS: u32 = 50;

/// Jobs that were made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) ids: Vec<JobId>,
}

/// None of the specs of a write became a job; what was opened for them.
pub(super) struct NotMade {
    pub(super) refusal: Refusal,
    pub(super) devices: Vec<Found>,
}

impl Jobs {
    /// Makes a job of each spec, all or none. Opens their devices, so it may take as long as a sick device likes. Each is
    /// on disk when this returns, where a state directory is kept.
    ///
    /// # Errors
    /// Which spec, which part of it and why. No device was written to, and no file is left that `create` made.
    pub fn submit(&self, specs: Vec<Spec>) -> std::result::Result<Vec<JobId>, Refusal> {
        let ready = self.opener(|with| self.all_ready(specs, with))?;
        match self.make(ready) {
            Ok(Made { ids }) => Ok(ids),
            Err(NotMade { refusal, devices }) => {
                self.opener(|with| devices.into_iter().for_each(|opened| opened.undo(with)));
                Err(refusal)
            }
        }
    }
}

impl Jobs {
    /// Opens what the specs of a write need.
    pub(super) fn all_ready(&self, specs: Vec<Spec>, with: &Opener<'_>) -> std::result::Result<Vec<Ready>, Refusal> {
        let mut ready: Vec<Ready> = Vec::with_capacity(specs.len());
        for (index, spec) in specs.into_iter().enumerate() {
            match self.ready(&spec, index < OPEN_MAX || with.looks, with) {
                Ok(one) => ready.push(one),
                Err((place, error)) => {
                    ready.into_iter().filter_map(Ready::opened).for_each(|opened| opened.undo(with));
                    return Err(Refusal { index, place, error });
                }
            }
        }
        Ok(ready)
    }

    /// Opens what a spec needs. Of many that say `once`, those that come too late are told so, and not what of its devices
    /// is busy by then.
    fn ready(&self, spec: &Spec, stays: bool, with: &Opener<'_>) -> std::result::Result<Ready, (Place, Error)> {
        let name = spec.name.clone().filter(|_| spec.once);
        let check_once = || {
            let checked = name.clone().map_or(Ok(()), |name| self.check_once(name));
            checked.map_err(|error| (Place::Word("once"), error))
        };
        check_once()?;
        let mut made = Ready::new(spec.clone(), stays, with);
        for _ in 0..CLOSING_LOOKS {
            if !made.as_ref().is_err_and(|(_, error)| error.errno() == libc::EMFILE) {
                break;
            }
            std::thread::sleep(CLOSING_PAUSE);
            made = Ready::new(spec.clone(), stays, with);
        }
        made.or_else(|refused| check_once().and(Err(refused)))
    }
}

impl Ready {
    fn new(mut spec: Spec, stays: bool, with: &Opener<'_>) -> std::result::Result<Self, (Place, Error)> {
        match open(&spec, ErrorBits::NONE, with) {
            Ok(opened) => {
                if spec.action != Action::Verify
                    && let Err(refused) = opened.refuse_used_zones()
                {
                    opened.undo(with);
                    return Err(refused);
                }
                let given = match given(&spec, &opened) {
                    Ok(given) => given,
                    Err(refused) => {
                        opened.undo(with);
                        return Err(refused);
                    }
                };
                let count = opened.count();
                canonical(&mut spec, count);
                let opened = Box::new(opened);
                let (writes, locks) = (spec.action != Action::Verify, (!waits(&spec)).then_some(with.closings));
                let devices = if stays { Ok(Found::Open(opened)) } else { LetGo::of(opened, writes, locks) };
                match devices {
                    Ok(devices) => Ok(Self { spec, count, devices: Ok(devices), given, seed: new_seed() }),
                    Err((index, error, opened)) => {
                        opened.undo(with);
                        Err((Place::To(index), error))
                    }
                }
            }
            // It waits for busy devices; how long the source is must be known all the same.
            Err(OpenError::Busy(_, error) | OpenError::InUse(_, error)) if spec.queue && spec.map.is_none() => {
                let count = count_of(&spec, with)?;
                canonical(&mut spec, count);
                Ok(Self { spec, count, devices: Err(error.to_string()), given: None, seed: new_seed() })
            }
            Err(why) => Err(why.into()),
        }
    }

    pub(super) fn opened(self) -> Option<Found> {
        self.devices.ok()
    }

    /// What it claims when it is made. Those that wait claim when their turn comes.
    pub(super) fn claims_now(&self) -> Option<&Footprint> {
        self.devices.as_ref().ok().filter(|_| !waits(&self.spec))?.footprint()
    }

    /// Why it is not made, where somebody is in its way. One with a map cannot wait.
    pub(super) fn refusal(&self, conflict: &Conflict, who: &str) -> Error {
        if self.spec.map.is_some() { conflict.error(who) } else { conflict.refusal(who) }
    }

    /// The job with that number, which starts after `leader`.
    pub(super) fn into_job(self, id: JobId, leader: Option<JobId>, now: SystemTime) -> Job {
        let claimed = self.claims_now().is_some();
        let Self { spec, count, devices, given, seed } = self;
        let life = match (leader, &devices) {
            _ if spec.paused => Life::Paused(PausedBy::Administrator),
            (Some(leader), _) => Life::Queued(Wait::Job(leader)),
            (None, Ok(_)) => Life::Queued(Wait::Turn),
            (None, Err(why)) => Life::Queued(Wait::Device(why.clone())),
        };
        let mut job = Job::new(id, spec, now, count, life);
        job.follows = Follows::after(leader);
        job.seed = seed;
        if let Some(given) = given {
            let spec = std::sync::Arc::clone(&job.spec);
            job.progress.begin_with(&spec, &given);
        }
        if claimed {
            job.claim = Claim::Claimed;
        }
        match devices {
            Ok(Found::Open(mut opened)) => {
                job.identities.clone_from(&opened.identities);
                job.show_cards(&opened.cards);
                job.lasting = opened.lasting();
                if claimed {
                    opened.footprint = None;
                }
                job.devices = Devices::Open(opened);
            }
            Ok(Found::LetGo(known)) => {
                let LetGo { mut kept, identities, lasting, cards } = *known;
                job.show_cards(&cards);
                (job.identities, job.lasting) = (identities, lasting);
                if claimed {
                    kept.footprint = None;
                }
                job.kept = Some(Box::new(kept));
                job.recognised = false;
            }
            Err(_) => {}
        }
        job
    }
}

/// Whether a job claims only when its turn comes. One with a map does not wait for busy devices: the map says what is on the
/// destinations now.
fn waits(spec: &Spec) -> bool {
    spec.queue && spec.map.is_none() || spec.after.is_some()
}

/// A number that no other test has.
fn new_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn count_of(spec: &Spec, with: &Opener<'_>) -> std::result::Result<Sector, (Place, Error)> {
    // Without destinations nothing can be busy.
    let alone = Spec { to: Vec::new(), ..spec.clone() };
    let count = match alone.from {
        None if spec.action == Action::Test => Some(length_of_test(spec)?),
        Some(_) if spec.count().is_none() => open(&alone, ErrorBits::NONE, with)?.from.as_ref().map(|from| from.count),
        _ => spec.count(),
    };
    count.ok_or_else(|| (Place::Line, Error::new(ErrorKind::Syntax, "the job's length is not known: give a COUNT")))
}

/// Says every count, so that the spec means the same when it is run again.
fn canonical(spec: &mut Spec, count: Sector) {
    if let Some(from) = &mut spec.from {
        from.count = Some(count);
        for to in &mut spec.to {
            to.count = None;
        }
    } else {
        spec.to.iter_mut().for_each(|to| to.count = Some(count));
    }
}
