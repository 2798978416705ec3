//! One look at all jobs for people: the figures of the few that a screen shows, numbers and sums of all others.
//!
//! It takes one short lock a job, and makes whole views only of what is shown, so that 100,000 jobs cost little.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::api::Jobs;
use super::card::Card;
use super::view::{JobId, State, View};

/// A device that is silent for longer is trouble.
pub const SILENT_MIN: Duration = Duration::from_secs(3);

/// What people want to know of all jobs, at about one moment.
#[derive(Clone, Debug, Default)]
pub struct Glance {
    /// Jobs in each state, in the order of [`State::ALL`].
    pub states: [u64; State::ALL.len()],
    /// Bytes of all live jobs together: to copy, copied, durable, and a second.
    pub total: u64,
    /// Bytes that are copied.
    pub copied: u64,
    /// Bytes that survive a power cut.
    pub durable: u64,
    /// Bytes a second.
    pub speed: u64,
    /// The first of the live jobs: those that move data, then those that somebody stopped, then those that wait.
    pub live: Vec<Seen>,
    /// The first of those that something is wrong with, in the same order, and how many there are.
    pub troubled: Vec<View>,
    /// How many those are.
    pub troubled_count: u64,
    /// Those that ended last, the newest first.
    pub ended: Vec<View>,
}

/// A live job.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its figures.
    pub view: View,
    /// Its own limit in bytes per second.
    pub speed_max: Option<u64>,
}

/// How many of each a glance shows.
#[derive(Clone, Copy, Debug)]
pub struct Most {
    /// Live jobs.
    pub live: usize,
    /// Jobs in trouble.
    pub troubled: usize,
    /// Ended jobs.
    pub ended: usize,
}

/// The little that is asked of every job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline {
    pub(super) state: State,
    pub(super) total: u64,
    pub(super) copied: u64,
    pub(super) durable: u64,
    pub(super) speed: u64,
    pub(super) is_troubled: bool,
    pub(super) ended: Option<SystemTime>,
}

impl Jobs {
    /// Looks at all jobs.
    pub fn glance(&self, most: Most) -> Glance {
        let (now, mut glance) = (Instant::now(), Glance::default());
        let (mut live, mut troubled, mut ended) = (Vec::new(), Vec::new(), Vec::new());
        for card in self.cards() {
            let job = card.outline(now);
            if let Some(place) = State::ALL.iter().position(|state| *state == job.state) {
                glance.states[place] += 1;
            }
            if job.state.is_ended() {
                ended.push((job.ended, card));
                continue;
            }
            glance.total = glance.total.saturating_add(job.total);
            glance.copied = glance.copied.saturating_add(job.copied);
            glance.durable = glance.durable.saturating_add(job.durable);
            glance.speed = glance.speed.saturating_add(job.speed);
            let place = (rank(job.state), card.id);
            if job.is_troubled {
                glance.troubled_count += 1;
                troubled.push((place, Arc::clone(&card)));
            }
            live.push((place, card));
        }
        let see = |id| Some(Seen { view: self.view(id)?, speed_max: self.job_speed_max(id).flatten() });
        // What has ended in between is not shown this time.
        let is_live = |seen: &Seen| !seen.view.state.is_ended();
        glance.live = first(live, most.live).into_iter().filter_map(see).filter(is_live).collect();
        let troubled = first(troubled, most.troubled).into_iter();
        glance.troubled = troubled.filter_map(see).filter(is_live).map(|seen| seen.view).collect();
        let newest = ended.into_iter().map(|(time, card)| (std::cmp::Reverse((time, card.id)), card));
        glance.ended = first(newest.collect(), most.ended).into_iter().filter_map(|id| self.view(id)).collect();
        glance
    }
}

/// Who comes first.
fn rank(state: State) -> u8 {
    match state {
        State::Running | State::Flushing | State::Verifying => 0,
        State::Held => 1,
        State::Paused => 2,
        _ => 3,
    }
}

/// The numbers of the first so many, in order; the others are not sorted.
fn first<K: Ord + Copy>(mut jobs: Vec<(K, Arc<Card>)>, most: usize) -> Vec<JobId> {
    if jobs.len() > most {
        if let Some(last) = most.checked_sub(1) {
            jobs.select_nth_unstable_by_key(last, |(place, _)| *place);
        }
        jobs.truncate(most);
    }
    jobs.sort_unstable_by_key(|(place, _)| *place);
    jobs.iter().map(|(_, card)| card.id).collect()
}
