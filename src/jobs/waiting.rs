//! A job that waits holds no descriptor of its own.
//!
//! # Protocol
//! 1. A job that waits, and of which nothing is in flight, lets go of its devices at the end of the owner's turn. Not so one that has
//!    begun, while there are few of them, and one with a device that nothing lasting is known of: it could not be recognised again.
//! 2. It keeps its claim, what its devices are recognised by, and what it reaches. Destinations that are block devices stay open,
//!    through the one descriptor that all jobs have of each: nobody else may mount or format them meanwhile.
//! 3. Of many new jobs of one write each lets go as soon as it was judged, before the next is opened ([`LetGo`]).
//! 4. When its turn comes it claims what it reaches, if it had no claim; only then its devices are opened, and must be the same. Where
//!    its paths lead elsewhere by now, the paths that the system had for its devices are tried once. It
//!    claims once more what it reaches now, its files are locked again, and it goes on.

use std::path::PathBuf;
use std::sync::Arc;

use super::closings::Closings;
use super::effect::Effect;
use super::job::{Claim, Devices, Job};
use super::open::{Opened, Opener, lock_files};
use super::state::Life;
use super::turn::Turn;
use super::view::JobId;
use super::work::{Pace, Work};
use crate::blkdev::{DeviceCard, Extent, MadeFile, resolve};
use crate::claims::{Footprint, Lasting, Rank};
use crate::dm_io::{ErrorBits, IoRegion};
use crate::error::Error;
use crate::kcopyd::Client;

/// Jobs that have begun and wait may keep their devices open, so many at once: a pause is mostly short.
pub(super) const BEGUN_MAX: usize = 64;

/// What is left of a job's devices while it waits.
#[derive(Debug)]
pub(super) struct Kept {
    client: Arc<Client>,
    /// Destinations that stay open, with their numbers.
    exclusive: Vec<(usize, IoRegion)>,
    /// What it reached, where it has not claimed that.
    pub(super) footprint: Option<Box<Footprint>>,
    /// Destinations that were let go for good.
    without: ErrorBits,
    /// As [`Opened::real_paths`].
    real_paths: Option<Arc<[PathBuf]>>,
    /// In this start they were tried.
    pub(super) has_looked: bool,
    /// Destination files that `create` made, with what they reach, for a job that may yet be refused.
    made: Vec<(MadeFile, Vec<Extent>)>,
}

/// What is known of a new job's devices, which are closed.
#[derive(Debug)]
pub(super) struct LetGo {
    pub(super) kept: Kept,
    pub(super) identities: Vec<Option<Arc<str>>>,
    pub(super) lasting: Option<Arc<Lasting>>,
    pub(super) cards: Vec<Arc<DeviceCard>>,
}

/// A new job's devices.
#[derive(Debug)]
pub(super) enum Found {
    Open(Box<Opened>),
    LetGo(Box<LetGo>),
}

impl Found {
    /// Where they are open.
    pub(super) fn opened(&self) -> Option<&Opened> {
        match self {
            Self::Open(opened) => Some(opened),
            Self::LetGo(_) => None,
        }
    }

    pub(super) fn footprint(&self) -> Option<&Footprint> {
        match self {
            Self::Open(opened) => opened.footprint.as_ref(),
            Self::LetGo(known) => known.kept.footprint.as_deref(),
        }
    }

    /// The job is refused after all: see [`Opened::undo`].
    pub(super) fn undo(self, with: &Opener<'_>) {
        match self {
            Self::Open(opened) => opened.undo(with),
            Self::LetGo(known) => known.kept.undo(with),
        }
    }
}

impl From<Box<Opened>> for Found {
    fn from(opened: Box<Opened>) -> Self {
        Self::Open(opened)
    }
}

impl LetGo {
    /// Closes what was opened for a new job that goes on without; gives it back where it could not be recognised again. `locks`: it
    /// claims its bytes at once, so that whoever has locked a part of its files is in the way, and does not go by one of these closings.
    ///
    /// # Errors
    /// Which destination is locked.
    pub(super) fn of(
        mut opened: Box<Opened>,
        writes: bool,
        locks: Option<&Closings>,
    ) -> Result<Found, (usize, Error, Box<Opened>)> {
        if opened.identities.iter().any(Option::is_none) {
            return Ok(Found::Open(opened));
        }
        if writes
            && let Some(closings) = locks
            && let Err((index, error)) = lock_files(&opened.files_to_lock(), closings)
        {
            return Err((index, error, opened));
        }
        let (identities, lasting) = (std::mem::take(&mut opened.identities), opened.lasting());
        let cards = std::mem::take(&mut opened.cards);
        let kept = Kept::of(&mut opened, writes);
        Ok(Found::LetGo(Box::new(Self { kept, identities, lasting, cards })))
    }
}

impl Kept {
    fn of(opened: &mut Opened, writes: bool) -> Self {
        let stays =
            |(index, dest): &(usize, &IoRegion)| writes && !dest.device.can_grow() && !opened.without.contains(*index);
        let exclusive = opened.dests.iter().enumerate().filter(stays);
        let exclusive = exclusive.map(|(index, dest)| (index, dest.clone())).collect();
        Self {
            client: Arc::clone(&opened.client),
            exclusive,
            footprint: opened.footprint.take().map(Box::new),
            without: opened.without,
            real_paths: opened.real_paths.take(),
            has_looked: false,
            made: opened.dests.iter().filter_map(made).collect(),
        }
    }

    /// The job is refused after all.
    pub(super) fn undo(self, with: &Opener<'_>) {
        for (file, extents) in self.made {
            with.remove_made(extents, || file.remove());
        }
    }

    /// For somebody to close it.
    fn into_opened(self) -> Option<Box<Opened>> {
        let dests: Vec<_> = self.exclusive.into_iter().map(|(_, dest)| dest).collect();
        let (identities, cards, footprint, real_paths) = (Vec::new(), Vec::new(), None, None);
        let (client, without) = (self.client, ErrorBits::NONE);
        let opened = Opened { client, from: None, dests, identities, cards, footprint, real_paths, without };
        (!opened.dests.is_empty()).then(|| Box::new(opened))
    }
}

impl Work {
    /// Whether nothing of it is in flight, and all that was written is flushed and recorded.
    fn is_settled(&self) -> bool {
        self.is_quiet() && self.flushes.iter().all(super::work::Flush::is_idle)
    }
}

impl Job {
    /// Whether it waits, and holds descriptors.
    pub(super) fn waits_open(&self) -> bool {
        matches!(self.life(), Life::Queued(_) | Life::Paused(_)) && matches!(self.devices, Devices::Open(_))
    }

    /// Whether it has begun to copy.
    pub(super) fn has_begun(&self) -> bool {
        self.work.is_some()
    }

    /// Whether it can let go of its devices now.
    pub(super) fn can_let_go(&self) -> bool {
        let Some(opened) = self.opened().filter(|_| self.waits_open()) else { return false };
        let sources = usize::from(opened.from.is_some());
        let is_dropped = |at: usize| at.checked_sub(sources).is_some_and(|index| opened.without.contains(index));
        let mut identities = self.identities.iter().enumerate();
        let is_known = identities.all(|(at, identity)| identity.is_some() || is_dropped(at));
        let live = self.progress.live();
        let is_flushed = |index: usize| {
            let dest = &self.progress.dests[index];
            !dest.needs_flush() || dest.is_doubtful()
        };
        let settled =
            self.work.as_ref().is_none_or(|work| work.is_settled() && (!self.writes() || live.iter().all(is_flushed)));
        let changes = matches!(self.claim, Claim::Locking(_) | Claim::Recording);
        is_known && !self.identities.is_empty() && settled && !changes
    }

    /// Step 1.
    pub(super) fn let_go(&mut self, turn: &mut Turn<'_>) {
        if turn.stopping || !self.can_let_go() {
            return;
        }
        if let Some(work) = &mut self.work {
            if let Some(step) = &mut work.step {
                // The engine has the devices too. The rest is done by another step.
                step.pace = Pace::Cancelled;
                return turn.push(Effect::Cancel(self.card.id));
            }
            work.salvage.put_together_anew();
        }
        let writes = self.writes();
        if let Devices::Open(mut devices) = std::mem::replace(&mut self.devices, Devices::Closed) {
            self.kept = Some(Box::new(Kept::of(&mut devices, writes)));
            turn.push(Effect::Close { id: self.id(), devices, answer: false });
        }
        self.recognised = false;
        if self.claim != Claim::None {
            self.claim = Claim::Claimed;
        }
    }

    /// Its devices are open again, and are its own: what it had claimed it claims as it is now. True if it had.
    pub(super) fn take_back(&mut self, turn: &mut Turn<'_>) {
        close(self.id(), self.kept.take(), turn);
        if self.claim != Claim::None {
            self.give_bytes_back(turn);
            self.claim = Claim::None;
            // A record says so already, if it did: until it has claimed anew its bytes are kept for it, before those that only wait.
            self.returning |= std::mem::take(&mut self.claim_is_told);
            if let Some(lasting) = self.lasting.as_ref().filter(|_| self.returning) {
                turn.claims.reserve(self.id(), &lasting.without(self.progress.dropped), Rank::Begun);
            }
        }
    }

    /// Its paths do not lead to its devices any more: they are looked for where they were. False if that was tried, or there is nothing
    /// to try.
    pub(super) fn looks_where_they_were(&mut self, turn: &mut Turn<'_>) -> bool {
        let starts = self.is_starting();
        let Some(kept) = self.kept.as_mut().filter(|kept| starts && !kept.has_looked) else { return false };
        let paths = kept.real_paths.clone();
        kept.has_looked = true;
        let looks = paths.is_some();
        if looks {
            self.open_by(paths, turn);
        }
        looks
    }

    /// Its devices could not be opened. What no record says that it has claimed others may have until it is tried again.
    pub(super) fn claim_in_vain(&mut self, turn: &mut Turn<'_>) {
        if self.kept.is_some() && self.claim != Claim::None && !self.claim_is_told {
            self.give_bytes_back(turn);
            self.claim = Claim::None;
        }
    }

    /// Destinations that were dropped while it waits.
    pub(super) fn let_go_of_kept(&mut self, turn: &mut Turn<'_>) {
        let (id, claimed) = (self.card.id, self.claim != Claim::None);
        let Some(kept) = &mut self.kept else { return };
        for index in self.progress.dropped.without(kept.without).iter() {
            kept.without.set(index);
            if let Some(footprint) = &mut kept.footprint {
                footprint.leave_out(index);
            }
            if claimed {
                self.unreleased.set(index);
            }
            let place = kept.exclusive.iter().position(|(other, _)| *other == index);
            let exclusive = place.map_or(Vec::new(), |place| vec![kept.exclusive.remove(place)]);
            let (client, without, made) = (Arc::clone(&kept.client), ErrorBits::NONE, Vec::new());
            close(
                id,
                Some(Box::new(Kept {
                    client,
                    exclusive,
                    footprint: None,
                    without,
                    real_paths: None,
                    has_looked: false,
                    made,
                })),
                turn,
            );
        }
    }

    /// It ends while it waits. True if somebody closes something, and says so.
    pub(super) fn closes_kept(&mut self, turn: &mut Turn<'_>) -> bool {
        let devices = self.kept.take().and_then(|kept| kept.into_opened());
        let closes = devices.is_some();
        if let Some(devices) = devices {
            turn.push(Effect::Close { id: self.id(), devices, answer: true });
        }
        closes
    }
}

/// A file that was made when it was opened, and what it reaches.
fn made(dest: &IoRegion) -> Option<(MadeFile, Vec<Extent>)> {
    let file = dest.device.made_file()?;
    Some((file, resolve(&dest.device, dest.sector, dest.count).unwrap_or_default()))
}

fn close(id: JobId, kept: Option<Box<Kept>>, turn: &mut Turn<'_>) {
    if let Some(devices) = kept.and_then(|kept| kept.into_opened()) {
        turn.push(Effect::Close { id, devices, answer: false });
    }
}
