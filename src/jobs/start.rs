//! From a job's turn to its first step: its devices, its claim, its record.
//!
//! # Protocol of a start
//! 1. Its devices are opened if they are not yet, by a worker. A job that comes from a record, or lives again, goes on only
//!    with the devices that it began with; else it is held.
//! 2. It claims what it reads and writes. What other jobs have lost by that is entered into their records.
//! 3. A worker locks its destination files, makes them as long as they will be, and asks zoned destinations what they hold. What
//!    lies behind a write pointer is to be copied, also where it was copied before; what lies before one is compared by the engine
//!    where it would write.
//! 4. Its record says that it has its claim, and is on disk, unless it was so already: after a crash nobody takes it for one
//!    that had not begun.
//! 5. It runs.
//!
//! What is busy at 1, 2 or 3 has the job give its place up; it is tried again when another job ends, or in a second. A
//! pause or a cancel at any point leaves the job where it is; `resume` goes on from there.

use std::path::PathBuf;
use std::sync::Arc;

use super::behind::late_dests;
use super::effect::Effect;
use super::job::{Claim, Devices, Follows, Job};
use super::open::{OpenError, Opened, Zoned};
use super::state::{Life, PausedBy, Wait};
use super::turn::Turn;
use super::view::State;
use crate::dm_io::ErrorBits;
use crate::error::Error;
use crate::salvage::Phase;

impl Job {
    /// Takes a place among the active jobs and goes through the protocol as far as it can.
    pub(super) fn begin(&mut self, turn: &mut Turn<'_>) {
        let why = match self.life() {
            Life::Queued(Wait::Device(why)) => Some(why.clone()),
            _ => None,
        };
        self.change(Life::Starting(why), None, turn);
        self.start(turn);
    }

    pub(super) fn is_starting(&self) -> bool {
        matches!(self.life(), Life::Starting(_))
    }

    /// Goes on with a start.
    pub(super) fn start(&mut self, turn: &mut Turn<'_>) {
        self.let_go_of_dropped(turn);
        match self.devices {
            _ if turn.stopping => return,
            Devices::Closed => {
                return match self.late_of_an_earlier_run() {
                    Some(why) => self.wait_for_device(why, turn),
                    None => self.claim_and_open(turn),
                };
            }
            Devices::Opening(_) | Devices::Closing => return,
            Devices::Open(_) => {}
        }
        if self.claim == Claim::None
            && let Err(error) = self.claim(turn)
        {
            return self.wait_for_device(error.to_string(), turn);
        }
        if self.claim == Claim::Claimed {
            self.lock(turn);
        }
        match self.claim {
            Claim::Locked if turn.keeps && !self.claim_is_on_disk() => {
                self.claim = Claim::Recording;
                self.record(turn);
            }
            Claim::Locked | Claim::Ready => {
                self.claim = Claim::Ready;
                self.run(turn);
            }
            Claim::None | Claim::Claimed | Claim::Locking(_) | Claim::Recording => {}
        }
    }

    /// One that knows what it reaches asks for that first: as long as somebody is in the way nothing is opened.
    fn claim_and_open(&mut self, turn: &mut Turn<'_>) {
        if let Some(kept) = &mut self.kept {
            kept.has_looked = false;
        }
        match self.claim {
            Claim::None if self.kept.is_some() => match self.claim(turn) {
                Ok(()) => self.open(turn),
                Err(error) => self.wait_for_device(error.to_string(), turn),
            },
            _ => self.open(turn),
        }
    }

    fn claim_is_on_disk(&self) -> bool {
        self.claim_is_told && self.recording.is_idle()
    }

    /// Has a worker open its devices.
    pub(super) fn open(&mut self, turn: &mut Turn<'_>) {
        self.open_by(None, turn);
    }

    /// The same, by other paths than its own.
    pub(super) fn open_by(&mut self, paths: Option<Arc<[PathBuf]>>, turn: &mut Turn<'_>) {
        let attempt = turn.next_attempt();
        self.devices = Devices::Opening(attempt);
        let without = self.progress.dropped;
        turn.push(Effect::Open { card: Arc::clone(&self.card), attempt, without, paths });
    }

    /// A destination was dropped while its devices are being opened: they are opened anew, without it.
    pub(super) fn open_without_dropped(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.devices, Devices::Opening(_)) {
            self.open(turn);
        }
    }

    /// Lets go of the devices and the bytes of destinations that were dropped, once nothing of the job is in flight there.
    pub(super) fn let_go_of_dropped(&mut self, turn: &mut Turn<'_>) {
        let is_at_work = self.work.as_ref().is_some_and(|work| work.step.is_some());
        if is_at_work || matches!(self.claim, Claim::Locking(_)) {
            return;
        }
        self.let_go_of_kept(turn);
        self.release_dropped(turn);
        let Devices::Open(opened) = &mut self.devices else { return };
        // Who owes an answer keeps what it has.
        let late = late_dests(&self.late);
        for index in self.progress.dropped.without(opened.without).without(late).iter() {
            match opened.part_with(index) {
                Ok(devices) => {
                    turn.push(Effect::Close { id: self.card.id, devices: Box::new(devices), answer: false });
                }
                Err(error) => {
                    log::warn!("job {}: destination {index} stays open: {error}", self.card.id);
                    opened.without.set(index);
                }
            }
            if self.claim != Claim::None {
                self.unreleased.set(index);
            }
        }
        self.release_dropped(turn);
    }

    /// Lets others have the bytes of what was dropped. Not while a record is on its way to disk, which may be one from before the drop:
    /// after a kill two jobs would take the bytes for theirs.
    pub(super) fn release_dropped(&mut self, turn: &mut Turn<'_>) {
        if turn.keeps && !self.recording.is_idle() {
            return;
        }
        for index in std::mem::replace(&mut self.unreleased, ErrorBits::NONE).iter() {
            if self.claim != Claim::None {
                turn.claims.release_dest(self.card.id, index);
            }
        }
    }

    /// What is kept for it from before a restart is what it still needs.
    pub(super) fn keep_bytes(&self, turn: &mut Turn<'_>) {
        if let Some(lasting) = self.lasting.as_ref() {
            turn.claims.keep_only(self.id(), &lasting.without(self.progress.dropped));
        }
    }

    /// Gives its place up until the device is free.
    fn wait_for_device(&mut self, why: String, turn: &mut Turn<'_>) {
        self.change(Life::Queued(Wait::Device(why)), None, turn);
    }

    /// Claims what it reads and writes, unless somebody is in the way.
    pub(super) fn claim(&mut self, turn: &mut Turn<'_>) -> Result<(), Error> {
        let footprint = match (&self.devices, &self.kept) {
            (Devices::Open(opened), _) => opened.footprint.as_ref(),
            (_, Some(kept)) => kept.footprint.as_deref(),
            _ => None,
        };
        let Some(footprint) = footprint else { return Ok(()) };
        let id = self.card.id;
        let claimed = turn.claims.claim(id, footprint);
        turn.claims.has_asked(id);
        match claimed {
            Ok(overwritten) => {
                if let Devices::Open(opened) = &mut self.devices {
                    opened.footprint = None;
                }
                turn.overwritten.extend(overwritten);
            }
            Err(conflict) => return Err(conflict.error(&format!("job {}", conflict.owner))),
        }
        self.claim = Claim::Claimed;
        self.unreleased = ErrorBits::NONE;
        // One that had begun is known as such.
        self.claim_is_told = std::mem::take(&mut self.returning);
        self.forget_overwritten();
        Ok(())
    }

    /// Step 3.
    fn lock(&mut self, turn: &mut Turn<'_>) {
        let dests = self.to_prepare();
        if dests.is_empty() {
            self.claim = Claim::Locked;
            return;
        }
        let attempt = turn.next_attempt();
        self.claim = Claim::Locking(attempt);
        turn.push(Effect::Lock { id: self.id(), attempt, dests, sparse: self.spec().sparse });
    }

    /// A worker has locked its files and looked at its zones, or not.
    pub(super) fn locked(&mut self, attempt: u64, result: Result<Vec<Zoned>, Error>, turn: &mut Turn<'_>) {
        // One that ends closes its devices anyway.
        if self.claim != Claim::Locking(attempt) || self.life().is_over() {
            return;
        }
        let starts = self.is_starting();
        match result {
            Ok(zoned) => {
                self.claim = Claim::Locked;
                for dest in zoned {
                    self.learn_zones(dest);
                }
                if starts {
                    self.start(turn);
                }
            }
            Err(error) => {
                self.release(turn);
                if starts && error.may_pass() {
                    self.wait_for_device(error.to_string(), turn);
                } else if starts {
                    self.fail(&error, turn);
                }
            }
        }
    }

    /// Gives its claim back: it did not begin after all. What it reaches is looked at again when it asks again, and whether
    /// that is still the same. What it has from before a restart others may write over meanwhile.
    fn release(&mut self, turn: &mut Turn<'_>) {
        self.give_bytes_back(turn);
        self.claim = Claim::None;
        self.recognised = false;
        if std::mem::take(&mut self.claim_is_told) {
            // Before whoever has those bytes next says so.
            self.record_now(turn);
        }
        if let Devices::Open(devices) = std::mem::replace(&mut self.devices, Devices::Closed) {
            turn.push(Effect::Close { id: self.id(), devices, answer: false });
        }
    }

    /// Its bytes are not kept for it any more. What others then write over, of what it has, it is told.
    pub(super) fn give_bytes_back(&self, turn: &mut Turn<'_>) {
        turn.claims.release(self.id());
        if let Some(lasting) = self.lasting.as_ref().filter(|_| self.progress.has_any()) {
            turn.claims.remember(self.id(), lasting);
        }
    }

    /// It cannot run at all.
    pub(super) fn fail(&mut self, error: &Error, turn: &mut Turn<'_>) {
        self.progress.error = Some(error.to_string());
        self.conclude(State::Failed, turn);
    }

    /// A worker has opened its devices, or not.
    pub(super) fn was_opened(&mut self, attempt: u64, result: Result<Box<Opened>, OpenError>, turn: &mut Turn<'_>) {
        if !matches!(self.devices, Devices::Opening(mine) if mine == attempt) {
            // Nobody waits for them any more.
            if let Ok(devices) = result {
                turn.push(Effect::Close { id: self.id(), devices, answer: false });
            }
            return;
        }
        self.devices = Devices::Closed;
        match result {
            Ok(opened) => self.recognise(opened, turn),
            Err(why) => self.not_opened(why, turn),
        }
    }

    fn recognise(&mut self, opened: Box<Opened>, turn: &mut Turn<'_>) {
        if let Err(why) = self.are_its_own(&opened) {
            turn.push(Effect::Close { id: self.id(), devices: opened, answer: false });
            if self.looks_where_they_were(turn) {
                return;
            }
            return self.hold(why, turn);
        }
        let leaves = self.leaves_what_it_had(&opened, turn);
        self.take_back(turn);
        self.miss_what_was_cut(&opened);
        self.know(&opened);
        self.share_names(turn.names);
        if leaves {
            // Before whoever has those bytes next says so.
            self.record_now(turn);
        }
        self.recognised = true;
        self.devices = Devices::Open(opened);
        if self.is_starting() {
            return self.start(turn);
        }
        // Looked at before its turn: what it had before a restart is its own again.
        if let Err(error) = self.claim(turn) {
            log::info!("job {} does not have its devices back yet: {error}", self.id());
        }
    }

    /// An administrator has looked at other devices than it had: what it claimed of those it gives back. True if a record says that it
    /// has that.
    fn leaves_what_it_had(&mut self, opened: &Opened, turn: &mut Turn<'_>) -> bool {
        let sources = usize::from(self.spec().from.is_some());
        let is_open = |at: usize| at.checked_sub(sources).is_none_or(|index| !opened.without.contains(index));
        let mut pairs = self.identities.iter().zip(&opened.identities).enumerate();
        if self.claim == Claim::None || !pairs.any(|(at, (old, new))| is_open(at) && old != new) {
            return false;
        }
        self.give_bytes_back(turn);
        (self.claim, self.returning) = (Claim::None, false);
        std::mem::take(&mut self.claim_is_told)
    }

    /// What was opened is what it has, from now on. Of what was dropped it keeps what it knew.
    fn know(&mut self, opened: &Opened) {
        let sources = usize::from(self.spec().from.is_some());
        let (mut identities, mut lasting) = (opened.identities.clone(), opened.lasting());
        for index in opened.without.iter() {
            if let Some(old) = self.identities.get(index + sources) {
                identities[index + sources].clone_from(old);
            }
            if let (Some(new), Some(old)) = (lasting.as_mut().and_then(std::sync::Arc::get_mut), &self.lasting) {
                new.dests[index].clone_from(&old.dests[index]);
            }
        }
        self.identities = identities;
        if self.lasting != lasting {
            self.lasting = lasting;
        }
        let mut cards = opened.cards.clone();
        self.card.show(|shown| {
            for index in opened.without.iter() {
                if let (Some(new), Some(old)) = (cards.get_mut(index + sources), shown.cards.get(index + sources)) {
                    new.clone_from(old);
                }
            }
        });
        self.show_cards(&cards);
    }

    fn not_opened(&mut self, why: OpenError, turn: &mut Turn<'_>) {
        let starts = self.is_starting();
        if self.looks_where_they_were(turn) {
            return;
        }
        self.claim_in_vain(turn);
        match why {
            // A late write of a killed daemon, or another program: it is tried again.
            OpenError::Busy(_, error) if starts => self.wait_for_device(error.to_string(), turn),
            // Something else has its device now: what is on it may be another's.
            OpenError::InUse(_, error) if self.returning => {
                self.hold(error.to_string(), turn);
            }
            OpenError::InUse(_, error) if starts => self.wait_for_device(error.to_string(), turn),
            // A job that has begun does not end for a device that is not there yet.
            OpenError::Failed(_, error) if !self.recognised || !self.identities.is_empty() => {
                self.hold(error.to_string(), turn);
            }
            OpenError::Failed(_, error) if starts => self.fail(&error, turn),
            OpenError::Busy(..) | OpenError::InUse(..) | OpenError::Failed(..) => {}
        }
    }

    /// A job that comes from a record goes on only with the devices that it began with.
    fn are_its_own(&self, opened: &Opened) -> Result<(), String> {
        if opened.count().get() != self.progress.total {
            return Err("the source does not have the size that it had".to_owned());
        }
        if self.recognised || self.identities.len() != opened.identities.len() {
            return Ok(());
        }
        let regions = self.spec().from.iter().chain(&self.spec().to);
        let sources = usize::from(self.spec().from.is_some());
        let is_dropped = |at: usize| at.checked_sub(sources).is_some_and(|index| opened.without.contains(index));
        let pairs = self.identities.iter().zip(&opened.identities).enumerate();
        for (region, (_, (old, new))) in regions.zip(pairs).filter(|(_, (at, _))| !is_dropped(*at)) {
            if old.is_none() || old != new {
                let path = region.path.to_string_lossy();
                let differs = difference(old.as_deref(), new.as_deref());
                return Err(format!("{path} may not be the same device ({differs}): check it, then write `resume`"));
            }
        }
        Ok(())
    }

    /// Destination files that became shorter while it did not run do not have any more what was cut off.
    fn miss_what_was_cut(&mut self, opened: &Opened) {
        let total = self.progress.total;
        for (index, file) in opened.files() {
            let end = file.size().get().saturating_sub(opened.dests[index].sector.get());
            if self.progress.dests[index].taken.first_from(end).is_some() {
                log::warn!("job {}: {} was cut shorter meanwhile", self.id(), file.path().display());
                self.overwrite(std::iter::once(index), &(end..total));
            }
        }
    }

    /// Its devices are not surely its own: nothing is written until an administrator says so.
    fn hold(&mut self, why: String, turn: &mut Turn<'_>) {
        turn.claims.has_asked(self.id());
        match self.life() {
            Life::Queued(_) | Life::Starting(_) => self.change(Life::Held(why.clone()), Some(why), turn),
            // It is looked at again when it is resumed.
            _ => {}
        }
    }

    /// Step 5.
    fn run(&mut self, turn: &mut Turn<'_>) {
        let life = if self.phase == Phase::Verify { Life::Verifying } else { Life::Running };
        let now = turn.now.wall;
        // When it started is on disk before its first checkpoint.
        self.recording.owes |= self.card.show(|shown| shown.course.started.is_none());
        self.card.show(|shown| _ = shown.course.started.get_or_insert(now));
        self.change(life, None, turn);
        self.go_on(turn);
    }

    /// The daemon paused it because records could not be written, and they can be again.
    pub(super) fn recorder_recovered(&mut self, turn: &mut Turn<'_>) {
        if matches!(self.life(), Life::Paused(PausedBy::Daemon(_))) {
            self.change(Life::Queued(Wait::Turn), None, turn);
        }
    }

    /// It waits for another job, or for its turn.
    pub(super) fn wait(&self) -> Wait {
        match self.follows {
            Follows::Job(after) => Wait::Job(after),
            Follows::Nobody | Follows::Lost(..) => Wait::Turn,
        }
    }
}

/// What of two identities differs, in a few words.
fn difference(old: Option<&str>, new: Option<&str>) -> String {
    let (Some(old), Some(new)) = (old, new) else {
        return match (old, new) {
            (None, _) => "nothing lasting was known of it before".to_owned(),
            (_, None) => "nothing lasting is known of it now".to_owned(),
            (Some(_), Some(_)) => unreachable!("both are there"),
        };
    };
    let parts = |text: &str| text.split(';').map(str::to_owned).collect::<Vec<_>>();
    let (old_parts, new_parts) = (parts(old), parts(new));
    let pair = old_parts.iter().zip(&new_parts).find(|(old, new)| old != new);
    match pair {
        Some((old, new)) => match (old.split_once([':', '=']), new.split_once([':', '='])) {
            (Some((key, old)), Some((same, new))) if key == same => format!("{key} {old} is now {new}"),
            _ => format!("{old} is now {new}"),
        },
        None => format!("{old} is now {new}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_told_in_a_line() {
        let say = |old, new| difference(Some(old), Some(new));
        assert_eq!(say("serial:WD-1;sectors=8", "serial:WD-2;sectors=8"), "serial WD-1 is now WD-2");
        assert_eq!(say("wwid:x;sectors=8", "wwid:x;sectors=9"), "sectors 8 is now 9");
        assert_eq!(say("wwid:x;sectors=8", "serial:y;sectors=8"), "wwid:x is now serial:y");
        assert_eq!(say("wwid:x", "wwid:x;part=1"), "wwid:x is now wwid:x;part=1");
        assert_eq!(difference(None, Some("wwid:x")), "nothing lasting was known of it before");
    }
}
