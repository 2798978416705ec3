//! What a job does next: the copy in bulk, then salvage of what failed, then zeros for what is lost. Pure.
//!
//! What is to be copied follows from the figures: whatever a live destination lacks, and is neither unreadable nor suspect,
//! is copied in bulk. So a job that was paused, killed or retried goes on by the same rule. What a plan holds beside that
//! it can do without: after a restart what was suspect is lacking, is copied, and fails again.
//!
//! # Salvage, and how it stays bounded
//! A piece that cannot be read is *suspect*: first one of many pieces that failed once (`untried`, as ranges), then, when it
//! is looked at, one of few that are worked on (`suspects`). With `on_read_error=zero|skip` it is bisected down to the
//! logical block: the hole is never larger than the source forces. One bad block in a piece of 1024 costs about 20 requests.
//! Bisecting a dead area would cost one request a block and more; so after [`DEAD`] sectors have failed without a good block
//! between them, each further suspect piece is first probed at [`PROBES`] places: only if one of them can be read is it
//! bisected, else it is given up whole. A dead gigabyte so costs some 50,000 requests and not two million. Where failures
//! take [long](cost), as on disks that try again inside, its blocks are read one by one instead. Where a destination has
//! coarser blocks than the source, the last of its blocks is put together from [parts](block).
//!
//! The system makes one request of neighbours, and lets all of it fail: a piece alone may be good. With `ignore_error` a piece
//! that cannot be read is read once more by itself. Then its first bad block is looked for, by some ten reads, and by one where
//! all of it is bad: what lies before that block is copied, the rest of the piece is zeros, as in the kernel. One that a destination does not take is written there
//! again by halves, so that only the bad blocks are missing, but for no more than [`NARROWED`] of them.
//!
//! A block that failed is tried `retries` times more. A piece that one destination could not take is read again and
//! written to that destination alone, as often; a destination with more than [`REWRITES`] such pieces is given up.
//!
//! A step costs what it changes, and not what there is: the bulk goes on from where it was, sets are looked at by places.
//! With more than [`UNTRIED`] ranges of failed pieces the bulk stops until half of them have been looked at.
//!
//! # Zeros
//! A bad block is given zeros once on each destination; the figures know where, for ever. A retry writes there only what it
//! can read: what was saved there meanwhile stays.
//!
//! # Stop
//! With `on_read_error=stop` the first piece that cannot be read ends the copy. Its first bad block is looked for then, by
//! some ten reads, so that `errors` and the map name it. Of other pieces that failed with it nothing is said: they may be
//! good, see above, and nobody has looked. A source that is gone ends the job under any policy: what is behind that error
//! is not bad. Whatever ends the job, a piece that could not be read by then is told, and a destination that failed.
//!
//! # Order
//! What reads well is copied first, then what was [put last](slow) because its neighbourhood is slow, the suspects after it, as they lie
//! on the source: a dying disk gives the most that way.
//! A job that must go in order (`write_seq`, `digest=`, a zoned destination) stops at each suspect, and does what comes first
//! on the source before it goes on.

use std::collections::BTreeMap;
use std::ops::Range;

pub(super) use self::block::{Block, Event};
use self::cost::Cost;
use self::locate::Locate;
use self::policy::{OnRead, Policy};
use self::slow::Slow;
use self::suspect::Suspect;
use super::bisect::{first_half, halves};
use super::holes::{Holes, Part};
use super::step::{Scratch, Step};
use super::{Activity, Geometry};
use crate::dm_io::ErrorBits;
use crate::figures::{Progress, RangeSet};
use crate::kcopyd::Piece;
use crate::spec::{Action, Spec};

/// Sectors that fail one after the other before an area counts as dead: 4 MiB.
const DEAD: u64 = 8192;
/// Places at which a piece in a dead area is probed.
const PROBES: u64 = 8;
/// Blocks of a range that are read one by one at most.
const ONE_BY_ONE: u64 = 2048;
/// Pieces that a destination may have failed to take before it is given up.
const REWRITES: usize = 64;
/// Different ranges, or blocks that a destination does not take, that are narrowed down, a job; beyond them whole pieces are
/// told.
const NARROWED: u64 = 1000;
/// Ranges of pieces that failed and wait to be looked at, 16 MiB of memory. Beyond them the bulk waits.
const UNTRIED: usize = 1 << 20;
/// Pieces that failed when the job was about to stop, of which the first is told: as many as may be in flight.
const LOCATING: usize = 64;

/// A job's plan.
#[derive(Debug)]
pub(crate) struct Plan {
    policy: Policy,
    /// What is put last because its neighbourhood is slow; `None` where nothing is.
    slow: Option<Slow>,
    cost: Cost,
    /// Pieces that failed once.
    untried: RangeSet,
    /// How the last of them failed.
    untried_errno: i32,
    /// The largest piece that was seen.
    piece: u64,
    /// The bulk waits until there are fewer of the untried.
    is_full: bool,
    /// The step under way has in it what was put last meanwhile.
    leaves_out: bool,
    /// What is being looked at, by place.
    suspects: BTreeMap<(u64, usize), Suspect>,
    current: Option<Suspect>,
    /// What the last step was to clear up.
    looked_at: Option<Range<u64>>,
    /// Pieces for which the job is about to stop, the first on the source first.
    locating: Vec<Locate>,
    /// No live destination lacks anything before it that is to be copied in bulk.
    bulk_from: u64,
    /// No live destination lacks zeros before it.
    zeros_from: u64,
    /// The source's holes, where they are looked for.
    pub(super) holes: Option<Holes>,
    scratch: Option<Scratch>,
    /// The block that was put together last.
    scratch_of: Option<u64>,
    /// Sectors that failed one after the other.
    dead: u64,
    narrowed: u64,
    pub(super) activity: Activity,
    /// The job ends for what happened.
    pub(crate) fatal: bool,
}

impl Plan {
    pub(crate) fn new(spec: &Spec, geometry: Geometry) -> Self {
        let policy = Policy::new(spec, geometry);
        Self {
            policy,
            slow: policy.puts_slow_last().then(Slow::new),
            cost: Cost::default(),
            untried: RangeSet::new(),
            untried_errno: libc::EIO,
            piece: geometry.coarsest(),
            is_full: false,
            leaves_out: false,
            suspects: BTreeMap::new(),
            current: None,
            looked_at: None,
            locating: Vec::new(),
            bulk_from: 0,
            zeros_from: 0,
            holes: (spec.sparse && spec.action == Action::Copy && geometry.has_holes).then(Holes::default),
            scratch: None,
            scratch_of: None,
            dead: 0,
            narrowed: 0,
            activity: Activity::Copy,
            fatal: false,
        }
    }

    /// Bytes of pieces that failed and have not been looked at again.
    pub(crate) fn suspect_bytes(&self) -> u64 {
        let is_unread = |suspect: &&Suspect| match suspect {
            Suspect::Read { .. } | Suspect::First { .. } | Suspect::Probe { .. } => true,
            Suspect::Block(block) => block.is_unread(),
            Suspect::Write { .. } => false,
        };
        let sectors = |suspect: &Suspect| suspect.range().end - suspect.range().start;
        let suspects: u64 = self.suspects.values().chain(&self.current).filter(is_unread).map(sectors).sum();
        self.untried.bytes() + suspects * crate::sector::SECTOR_SIZE
    }

    /// What failed and has not been looked at again, or is being looked at.
    pub(crate) fn suspect(&self) -> RangeSet {
        let mut all = self.untried.clone();
        for suspect in self.suspects.values().chain(&self.current) {
            all.insert(suspect.range().clone());
        }
        all
    }

    /// The next step of the copy; `None` when all is copied, given up, or the job ends.
    pub(crate) fn next(&mut self, spec: &Spec, progress: &mut Progress) -> Option<Step> {
        let (current, looked_at) = (self.current.take(), self.looked_at.take());
        if self.fatal || progress.live().is_empty() {
            if let Some(suspect) = current {
                self.push(suspect);
            }
            self.tell_unread(spec, progress);
            return None;
        }
        if progress.present().is_empty() {
            if let Some(suspect) = current {
                self.push(suspect);
            }
            return None;
        }
        if let Some(first) = self.locating.first() {
            // In order nothing behind that piece was written, and not all that lies before it.
            let before = 0..first.piece();
            let bulk = if self.policy.ordered { self.lacking(progress, before) } else { None };
            return bulk.or_else(|| self.next_locate(spec, progress));
        }
        // A step that was broken off has left something undone, behind which the bulk is already.
        if let Some(step) = looked_at.and_then(|range| self.lacking(progress, range)) {
            return Some(step);
        }
        if self.policy.ordered {
            return self.next_in_order(spec, progress);
        }
        self.is_full = self.untried.len() >= if self.is_full { UNTRIED / 2 } else { UNTRIED };
        let bulk = if self.is_full { None } else { self.next_bulk(progress) };
        let step = bulk.or_else(|| self.next_suspect(spec, progress));
        step.or_else(|| self.next_zero(spec, progress))
    }

    /// The job ends: what could not be read until now, and which destinations failed.
    fn tell_unread(&mut self, spec: &Spec, progress: &mut Progress) {
        let is_told = self.policy.on_read == OnRead::Stop && self.locating.is_empty() && progress.read_err;
        let mut unread = std::mem::take(&mut self.untried);
        for suspect in std::mem::take(&mut self.suspects).into_values() {
            match suspect {
                Suspect::Write { range, dest, errno, .. } => progress.write_failed(spec, dest, &range, errno),
                Suspect::Block(block) if !block.is_unread() => {}
                suspect => unread.insert(suspect.range().clone()),
            }
        }
        if let Some(first) = self.locating.drain(..).next() {
            let (range, errno) = first.seen();
            progress.read_failed(spec, range, errno);
        }
        for range in unread.iter().filter(|_| !is_told) {
            progress.read_failed(spec, &range, self.untried_errno);
        }
    }

    /// The next read that narrows down why the job stops, or its end.
    fn next_locate(&mut self, spec: &Spec, progress: &mut Progress) -> Option<Step> {
        self.activity = Activity::Scrape;
        while let Some(locate) = self.locating.first() {
            if let Some(range) = locate.next(self.policy.block, self.policy.source_block) {
                let is_part = range.end - range.start < self.policy.block;
                let scratch = if is_part { self.scratch(progress)? } else { return Some(Step::Probe { range }) };
                return Some(Step::Gather { range, scratch, zeros: false });
            }
            // One that can be read by itself had a bad neighbour, unless there is none.
            if locate.has_failed_again() || self.locating.len() == 1 {
                break;
            }
            self.locating.remove(0);
        }
        for locate in self.locating.drain(..).take(1) {
            let (range, errno) = locate.seen();
            if locate.has_failed_again() && range.end - range.start <= self.policy.source_block {
                progress.unreadable(spec, range, errno);
            } else {
                progress.read_failed(spec, range, errno);
            }
        }
        self.fatal = true;
        None
    }

    /// Whatever comes first on the source. A piece that failed may leave others undone on both sides of it.
    fn next_in_order(&mut self, spec: &Spec, progress: &mut Progress) -> Option<Step> {
        loop {
            let bulk = self.next_bulk(progress);
            let start = |step: &Option<Step>| step.as_ref().map_or(u64::MAX, |step| step.range().start);
            let zero = self.first_unzeroed(progress).map_or(u64::MAX, |(range, _)| range.start);
            let suspect = self.suspects.keys().next().map_or(u64::MAX, |(start, _)| *start);
            let untried = self.untried.first_from(0).map_or(u64::MAX, |range| range.start);
            let bulk_start = start(&bulk);
            let first = suspect.min(untried);
            if first < bulk_start && first <= zero {
                if let Some(step) = self.look_at_first(spec, progress) {
                    return Some(step);
                }
                if self.fatal {
                    return None;
                }
            } else if zero < bulk_start {
                return self.next_zero(spec, progress);
            } else {
                return bulk;
            }
        }
    }

    fn next_bulk(&mut self, progress: &Progress) -> Option<Step> {
        let mut step = self.lacking(progress, self.bulk_from..progress.total);
        if step.is_none()
            && let Some(start) = self.slow.as_mut().and_then(Slow::take)
        {
            step = self.lacking(progress, start..progress.total);
        }
        let step = step.map(|step| self.around_holes(step));
        self.bulk_from = step.as_ref().map_or(progress.total, |step| step.range().start);
        if step.is_some() {
            self.activity = Activity::Copy;
        }
        step
    }

    /// What is to be done first of a copy whose source may have holes.
    fn around_holes(&self, step: Step) -> Step {
        let (Step::Copy { range, dests, flags }, Some(holes)) = (&step, &self.holes) else { return step };
        let (dests, flags) = (*dests, *flags);
        match holes.first(range) {
            Part::Unknown(range) => Step::FindHoles { range },
            Part::Hole(range) => Step::Hole { range, dests, flags },
            Part::Data(range) => Step::Copy { range, dests, flags },
        }
    }

    /// The source was looked at for holes.
    pub(super) fn holes_found(&mut self, known: Range<u64>, found: &[Range<u64>], total: u64) {
        let block = self.policy.block;
        if let Some(holes) = &mut self.holes {
            holes.found(known, found, block, total);
        }
    }

    /// The first range in another that a live destination lacks and nobody has given up, and all that lack it; in whole
    /// blocks, for another job may have written in finer ones.
    fn lacking(&self, progress: &Progress, within: Range<u64>) -> Option<Step> {
        let put_last = self.slow.as_ref().map(Slow::put_last);
        let apart: Vec<&RangeSet> = [&self.untried, &progress.unreadable].into_iter().chain(put_last).collect();
        // Few: those that are looked at just now.
        let suspects = self.suspects.values().map(Suspect::range);
        let (Range { start: at, end }, lack) = progress.first_lacking(within.clone(), &apart, suspects)?;
        // What lies outside of `within` is for another time, unless it is the bulk itself.
        let end = end.min(within.end.next_multiple_of(self.policy.block));
        let range =
            at / self.policy.block * self.policy.block..end.next_multiple_of(self.policy.block).min(progress.total);
        Some(match self.policy.action {
            Action::Copy | Action::Verify | Action::Test => {
                Step::Copy { range, dests: lack, flags: self.policy.bulk_copy(progress, lack) }
            }
            Action::Zero => Step::Zero { range, dests: lack, flags: self.policy.bulk() },
        })
    }

    fn next_suspect(&mut self, spec: &Spec, progress: &mut Progress) -> Option<Step> {
        while !(self.fatal || self.suspects.is_empty() && self.untried.is_empty()) {
            let step = self.look_at_first(spec, progress);
            if step.is_some() {
                return step;
            }
        }
        None
    }

    /// Looks at the suspect that comes first on the source; one of those that are looked at already before others at its place.
    fn look_at_first(&mut self, spec: &Spec, progress: &mut Progress) -> Option<Step> {
        let suspect = self.suspects.keys().next().map(|(start, _)| *start);
        let untried = self.untried.first_from(0);
        match (suspect, untried) {
            (suspect, Some(range)) if suspect.is_none_or(|start| range.start < start) => {
                let range = range.start..range.end.min(range.start + self.piece);
                self.untried.remove(&range);
                self.look_at_untried(range);
                None
            }
            (Some(_), _) => {
                let (_, suspect) = self.suspects.pop_first()?;
                self.look_at(suspect, spec, progress)
            }
            (None, _) => None,
        }
    }

    fn look_at_untried(&mut self, range: Range<u64>) {
        if self.policy.on_read.bisects() && range.end - range.start > self.policy.block {
            self.split(&range, self.untried_errno);
        } else {
            // With `ignore_error` it may have failed for a neighbour: that is no try.
            let tries = u32::from(self.policy.on_read == OnRead::Stop);
            self.push(Suspect::Read { range, tries });
        }
    }

    fn push(&mut self, suspect: Suspect) {
        self.suspects.insert(suspect.key(), suspect);
    }

    /// The step that clears a suspect up, unless it is known what becomes of it.
    fn look_at(&mut self, mut suspect: Suspect, spec: &Spec, progress: &mut Progress) -> Option<Step> {
        let live = progress.present();
        let read_flags = self.policy.few_copied(progress, live);
        // What could not be written is written again.
        let flags = self.policy.few();
        let step = match &mut suspect {
            Suspect::Read { range, tries } => {
                let again = *tries > 0 || self.policy.on_read == OnRead::Ignore;
                self.activity = if again { Activity::Retry } else { Activity::Scrape };
                Step::Copy { range: range.clone(), dests: live, flags: read_flags }
            }
            Suspect::First { range, end, .. } => {
                self.activity = Activity::Scrape;
                Step::Copy { range: range.start..*end, dests: live, flags: read_flags }
            }
            Suspect::Probe { range, place, errno } => {
                self.activity = Activity::Scrape;
                if *place == PROBES {
                    let (range, errno) = (range.clone(), *errno);
                    self.give_up(spec, progress, &range, errno);
                    return None;
                }
                let range = self.probe_block(range, *place);
                if self.policy.ordered {
                    Step::Probe { range }
                } else {
                    Step::Copy { range, dests: live, flags: read_flags }
                }
            }
            Suspect::Block(block) => {
                self.activity = Activity::Scrape;
                let scratch = self.scratch(progress)?;
                let start = block.range().start;
                if self.scratch_of.replace(start) != Some(start) {
                    // Another block lies in the scratch block.
                    let fills = self.policy.on_read == OnRead::Zero;
                    **block = Block::new(block.range().clone(), self.policy.source_block, fills);
                }
                block.next(progress, &scratch)?
            }
            Suspect::Write { dest, .. } if !live.contains(*dest) => return None,
            Suspect::Write { range, dest, zeros, .. } => {
                self.activity = if *zeros { Activity::Zero } else { Activity::Retry };
                let (range, dests) = (range.clone(), ErrorBits::from_bits(1 << *dest));
                match self.policy.action {
                    Action::Copy | Action::Verify | Action::Test if !*zeros => Step::Copy { range, dests, flags },
                    _ => Step::Zero { range, dests, flags },
                }
            }
        };
        self.looked_at = Some(suspect.range().clone());
        self.current = Some(suspect);
        Some(step)
    }

    /// Bisects a range, or has it probed first where its neighbourhood is dead. Where failures take long its blocks are read one by
    /// one.
    fn split(&mut self, range: &Range<u64>, errno: i32) {
        let block = self.policy.block;
        let blocks = (range.end - range.start) / block;
        if self.dead >= DEAD && blocks > PROBES {
            return self.push(Suspect::Probe { range: range.clone(), place: 0, errno });
        }
        let usual = self.slow.as_ref().and_then(Slow::usual);
        if blocks <= ONE_BY_ONE && self.cost.is_less_one_by_one(blocks, usual) {
            for start in (range.start..range.end).step_by(usize::try_from(block).unwrap_or(usize::MAX)) {
                self.push(Suspect::Read { range: start..start + block, tries: 0 });
            }
        } else {
            self.halve(range);
        }
    }

    fn halve(&mut self, range: &Range<u64>) {
        for range in halves(range, self.policy.block) {
            self.push(Suspect::Read { range, tries: 0 });
        }
    }

    /// The block at a place of a range: the first, the last, and between them evenly.
    fn probe_block(&self, range: &Range<u64>, place: u64) -> Range<u64> {
        let last = (range.end - range.start) / self.policy.block - 1;
        let start = range.start + place * last / (PROBES - 1) * self.policy.block;
        start..start + self.policy.block
    }

    fn give_up(&mut self, spec: &Spec, progress: &mut Progress, range: &Range<u64>, errno: i32) {
        for range in Self::left_of(progress, range) {
            self.unreadable(spec, progress, &range, errno);
        }
    }

    fn unreadable(&mut self, spec: &Spec, progress: &mut Progress, range: &Range<u64>, errno: i32) {
        self.zeros_from = self.zeros_from.min(range.start);
        progress.unreadable(spec, range, errno);
    }

    /// What of a range no live destination has got meanwhile.
    fn left_of(progress: &Progress, range: &Range<u64>) -> Vec<Range<u64>> {
        let live = progress.present();
        let first = live.iter().next();
        first.map_or(Vec::new(), |index| progress.dests[index].taken.gaps(range.clone()).iter().collect())
    }

    /// The first lost range for which live destinations have no zeros yet, and which.
    fn first_unzeroed(&mut self, progress: &Progress) -> Option<(Range<u64>, ErrorBits)> {
        if !self.policy.on_read.fills() {
            return None;
        }
        let waits = |index: usize, at: u64| {
            let suspects = self.suspects.values();
            let end = |suspect: &Suspect| match suspect {
                Suspect::Write { range, dest, zeros: true, .. } if *dest == index && range.contains(&at) => {
                    Some(range.end)
                }
                _ => None,
            };
            suspects.filter_map(end).max()
        };
        let live = progress.present();
        while let Some(lost) = progress.unreadable.first_from(self.zeros_from) {
            let at = lost.start.max(self.zeros_from);
            let mut waiting = ErrorBits::NONE;
            let mut end = lost.end;
            for (index, until) in live.iter().filter_map(|index| Some((index, waits(index, at)?))) {
                waiting.set(index);
                end = end.min(until);
            }
            let (lack, until) = progress.lack_at(live.without(waiting), at, |dest| [dest.zeroed(), dest.lost()]);
            end = end.min(until);
            if !lack.is_empty() {
                return Some((at..end, lack));
            }
            if !waiting.is_empty() {
                // It comes back to this when that has been tried.
                return None;
            }
            self.zeros_from = end;
        }
        None
    }

    fn next_zero(&mut self, spec: &Spec, progress: &mut Progress) -> Option<Step> {
        let (range, dests) = self.first_unzeroed(progress)?;
        self.activity = Activity::Zero;
        if range.start.is_multiple_of(self.policy.block) && range.end.is_multiple_of(self.policy.block) {
            return Some(Step::Zero { range, dests, flags: self.policy.zeros() });
        }
        // Of a coarser block, from before a restart.
        let start = range.start / self.policy.block * self.policy.block;
        let block =
            Block::new(start..start + self.policy.block, self.policy.source_block, self.policy.on_read == OnRead::Zero);
        self.look_at(Suspect::Block(Box::new(block)), spec, progress)
    }

    /// A piece of a copy has ended.
    pub(crate) fn piece(&mut self, spec: &Spec, step: &Step, piece: &Piece<'_>, progress: &mut Progress) {
        let start = step.range().start + piece.offset.get();
        let range = start..start + piece.count.get();
        match step {
            Step::Probe { .. } | Step::Gather { .. } if !self.locating.is_empty() => {
                let locate = &mut self.locating[0];
                match piece.read_error {
                    Some(errno) => locate.failed(&range, errno),
                    None => locate.was_read(&range),
                }
            }
            Step::Gather { .. } | Step::Fetch { .. } | Step::Put { .. } => {
                self.block_piece(spec, step, piece, progress);
            }
            Step::Zero { .. } if self.policy.action != Action::Zero => {
                progress.zeroed(&range, piece.written);
                self.write_failures(spec, progress, &range, piece, true);
            }
            _ => {
                if !matches!(step, Step::Hole { .. }) {
                    self.piece = self.piece.max(range.end - range.start);
                }
                match (&self.current, step, &mut self.slow) {
                    (Some(_), ..) => self.cost.note(piece.read_error.is_some(), piece.read_took),
                    (None, Step::Copy { .. }, Some(slow)) => {
                        self.leaves_out |= slow.was_read(&range, piece.read_took, progress.total);
                    }
                    _ => {}
                }
                match piece.read_error {
                    Some(errno) => self.read_failed(spec, progress, &range, errno),
                    None => self.was_read(step, progress, &range, piece),
                }
                self.write_failures(spec, progress, &range, piece, false);
            }
        }
    }

    fn was_read(&mut self, step: &Step, progress: &mut Progress, range: &Range<u64>, piece: &Piece<'_>) {
        self.dead = 0;
        if !matches!(step, Step::Probe { .. }) {
            progress.taken(range, piece.written);
        }
        match self.current.take() {
            Some(Suspect::Probe { range, .. }) => self.halve(&range),
            Some(Suspect::First { range: all, end, .. }) if end == range.end => {
                let rest = end..all.end;
                if !rest.is_empty() {
                    let end = first_half(&rest, self.policy.block);
                    self.push(Suspect::First { range: rest, end, tries: 0 });
                }
            }
            current => self.current = current,
        }
    }

    fn write_failures(
        &mut self,
        spec: &Spec,
        progress: &mut Progress,
        range: &Range<u64>,
        piece: &Piece<'_>,
        zeros: bool,
    ) {
        for (index, errno) in piece.write_errors {
            self.write_failed(spec, progress, *index, range, *errno, zeros);
        }
    }

    /// A step of the work on a coarse block has ended.
    fn block_piece(&mut self, spec: &Spec, step: &Step, piece: &Piece<'_>, progress: &mut Progress) {
        let Some(Suspect::Block(mut block)) = self.current.take() else { return };
        match (piece.read_error, block.fetched_from()) {
            (Some(errno), Some(dest)) => {
                let range = block.range().clone();
                if !block.again(ErrorBits::from_bits(1 << dest), self.policy.retries) {
                    self.lost(spec, progress, dest, &range, errno);
                }
            }
            (Some(errno), None) => {
                if let Event::Unreadable(range, errno) = block.read_failed(errno, self.policy.retries) {
                    self.dead += range.end - range.start;
                    self.unreadable(spec, progress, &range, errno);
                }
            }
            (None, _) if matches!(step, Step::Put { .. }) => {
                let mut failed = ErrorBits::NONE;
                piece.write_errors.iter().for_each(|(index, _)| failed.set(*index));
                if let Event::Written(dests) = block.succeeded(piece.written) {
                    block.good().iter().for_each(|range| progress.taken(&range, dests));
                    block.zeros().iter().for_each(|range| progress.zeroed(&range, dests));
                }
                let range = block.range().clone();
                if !block.again(failed, self.policy.retries) {
                    for (index, errno) in piece.write_errors {
                        self.lost(spec, progress, *index, &range, *errno);
                    }
                }
            }
            (None, _) => {
                if block.is_unread() {
                    self.dead = 0;
                }
                _ = block.succeeded(piece.written);
            }
        }
        self.push(Suspect::Block(block));
    }

    /// What a destination was given is lost, and trying again does not help.
    pub(crate) fn lost(&mut self, spec: &Spec, progress: &mut Progress, dest: usize, range: &Range<u64>, errno: i32) {
        self.fatal |= self.policy.stops_on_write && progress.live().contains(dest);
        progress.write_failed(spec, dest, range, errno);
    }

    fn read_failed(&mut self, spec: &Spec, progress: &mut Progress, range: &Range<u64>, errno: i32) {
        if is_gone(errno) {
            progress.read_failed(spec, range, errno);
            self.fatal = true;
            return;
        }
        let tries = match self.current.take() {
            Some(Suspect::Probe { range, place, errno }) => {
                return self.push(Suspect::Probe { range, place: place + 1, errno });
            }
            Some(Suspect::Read { tries, .. }) => tries,
            Some(Suspect::First { range, end, tries }) => {
                return self.first_failed(spec, progress, range, end, tries, errno);
            }
            Some(write @ Suspect::Write { .. }) => {
                // It is to be read first.
                self.current = Some(write);
                0
            }
            _ if self.policy.on_read == OnRead::Stop && self.policy.retries == 0 => 0,
            // The system makes one request of neighbours, and that fails whole: only what is read alone is lost.
            _ => {
                self.untried.insert(range.clone());
                self.untried_errno = errno;
                return;
            }
        };
        let bisects = self.policy.on_read.bisects();
        let has_blocks = range.end - range.start > self.policy.block;
        if bisects && has_blocks {
            self.split(range, errno);
        } else if self.policy.on_read == OnRead::Ignore && has_blocks {
            self.push(Suspect::First { range: range.clone(), end: range.start + self.policy.block, tries: 0 });
        } else if tries < self.policy.retries {
            self.push(Suspect::Read { range: range.clone(), tries: tries + 1 });
        } else if self.policy.on_read == OnRead::Stop {
            progress.read_err = true;
            let place = self.locating.partition_point(|other| other.seen().0.start < range.start);
            self.locating.insert(place, Locate::new(range.clone(), errno));
            self.locating.truncate(LOCATING);
        } else if bisects && self.policy.source_block < self.policy.block {
            let fills = self.policy.on_read == OnRead::Zero;
            self.push(Suspect::Block(Box::new(Block::new(range.clone(), self.policy.source_block, fills))));
        } else {
            self.dead += range.end - range.start;
            self.unreadable(spec, progress, range, errno);
        }
    }

    /// The first blocks of a range, up to `end`, could not be read.
    fn first_failed(
        &mut self,
        spec: &Spec,
        progress: &mut Progress,
        range: Range<u64>,
        end: u64,
        tries: u32,
        errno: i32,
    ) {
        let is_block = end - range.start == self.policy.block;
        if is_block && tries < self.policy.retries {
            return self.push(Suspect::First { range, end, tries: tries + 1 });
        }
        // What lies behind the first bad block is not looked at.
        let bad = if is_block { range.start } else { end };
        self.unreadable(spec, progress, &(bad..range.end), errno);
        if !is_block {
            let (range, block) = (range.start..end, self.policy.block);
            let end = first_half(&range, block);
            self.push(Suspect::First { range, end, tries: 0 });
        }
    }

    fn write_failed(
        &mut self,
        spec: &Spec,
        progress: &mut Progress,
        dest: usize,
        range: &Range<u64>,
        errno: i32,
        zeros: bool,
    ) {
        let (tries, alone) = match &self.current {
            Some(Suspect::Write { tries, .. }) => (*tries, true),
            _ => (0, false),
        };
        let is_rewrite = |suspect: &&Suspect| matches!(suspect, Suspect::Write { dest: other, .. } if *other == dest);
        let rewrites = self.suspects.values().filter(is_rewrite).count() < REWRITES && !self.fatal;
        let write = |range, tries| Suspect::Write { range, dest, zeros, tries, errno };
        if self.policy.on_read == OnRead::Ignore && rewrites && self.narrowed < NARROWED {
            if !alone {
                return self.push(write(range.clone(), 0));
            }
            if range.end - range.start > self.policy.block {
                return halves(range, self.policy.block).into_iter().for_each(|range| self.push(write(range, 0)));
            }
            self.narrowed += u64::from(tries == self.policy.retries);
        }
        if tries < self.policy.retries && rewrites {
            return self.push(write(range.clone(), tries + 1));
        }
        self.lost(spec, progress, dest, range, errno);
    }

    /// Other destinations take part, that may lack what the ones before have.
    pub(crate) fn begin_again(&mut self) {
        (self.bulk_from, self.zeros_from) = (0, 0);
    }

    /// Destinations were given up for a flush.
    pub(crate) fn flush_failed(&mut self, lost: ErrorBits) {
        self.fatal |= self.policy.stops_on_write && !lost.is_empty();
    }

    /// What the scratch block holds counts for nothing.
    pub(crate) fn put_together_anew(&mut self) {
        (self.scratch, self.scratch_of) = (None, None);
    }

    /// The step that was given last is not done now: something comes before it.
    pub(crate) fn put_back(&mut self) {
        if let Some(suspect) = self.current.take() {
            self.push(suspect);
        }
        self.looked_at = None;
    }

    /// A piece of a comparison has ended; `true` if it should be looked at again in halves.
    pub(crate) fn compared(&mut self, range: &Range<u64>, different: ErrorBits) -> bool {
        let narrows = !different.is_empty() && range.end - range.start > self.policy.block && self.narrowed < NARROWED;
        self.narrowed += u64::from(!different.is_empty() && !narrows);
        narrows
    }

    /// Whether the step under way is to end, because something else comes first: so many pieces have failed that they are looked at,
    /// or a part of the step was put last.
    pub(crate) fn goes_on_otherwise(&mut self) -> bool {
        let is_overfull = !self.is_full && self.untried.len() >= UNTRIED;
        std::mem::take(&mut self.leaves_out) || is_overfull
    }

    /// A scratch block, for the parts of a block.
    pub(crate) fn scratch(&mut self, progress: &mut Progress) -> Option<Scratch> {
        if self.scratch.is_none() {
            match Scratch::new(self.policy.block) {
                Ok(scratch) => self.scratch = Some(scratch),
                Err(error) => {
                    progress.error.get_or_insert_with(|| error.to_string());
                    self.fatal = true;
                }
            }
        }
        self.scratch.clone()
    }

    /// Sectors in the coarsest logical block.
    pub(crate) fn block(&self) -> u64 {
        self.policy.block
    }

    /// Sectors in the source's logical block.
    pub(super) fn source_block(&self) -> u64 {
        self.policy.source_block
    }
}

/// Whether an errno of the source says that there is no device any more.
pub(super) fn is_gone(errno: i32) -> bool {
    matches!(errno, libc::ENODEV | libc::ENXIO)
}

mod block;
mod cost;
mod locate;
mod policy;
mod slow;
mod suspect;
#[cfg(test)]
mod tests;
