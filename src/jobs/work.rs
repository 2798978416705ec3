//! What a job works with from its first step to its end: the plan, the step that the engine has, the flushes under way.

use std::time::Instant;

use crate::figures::{DestMark, Hashing};
use crate::salvage::{Geometry, Salvage, Step};
use crate::spec::Spec;

/// The work of a job that is neither new nor ended. Jobs that wait are many, and so are those that have ended.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) salvage: Salvage,
    pub(super) step: Option<StepRun>,
    /// The source's digest; with the engine while a step runs.
    pub(super) hashing: Option<Box<Hashing>>,
    /// The source has other sums than the spec says.
    pub(super) differs: bool,
    /// By destination.
    pub(super) flushes: Box<[Flush]>,
    /// Those who keep up have all; the job waits for others to answer, or does what these lack.
    pub(super) behind: Behind,
    /// Who has stalled, as far as was told.
    pub(super) stalled: Option<Stalled>,
    /// Who is behind may lack something, and is not only to be compared.
    pub(super) copies_behind: bool,
    /// There is no step left in this phase: whether the job went to the phase's end.
    pub(super) drained: Option<bool>,
}

/// A step that the engine has.
#[derive(Debug)]
pub(super) struct StepRun {
    pub(super) step: Step,
    pub(super) pace: Pace,
}

/// What the engine was told of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// It goes on.
    Going,
    /// It was asked to take no new pieces.
    Pausing,
    /// It takes none, and nothing of it is in flight.
    Quiet,
    /// It ends.
    Cancelled,
}

/// Where a job is with destinations that fell behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Those who keep up come first.
    Nobody,
    /// They have all. It is the turn of the others, as soon as one of them answers.
    Awaited,
    /// Some of the others have their turn.
    CatchingUp,
}

/// Who has answered nothing for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stalled {
    /// The source.
    Source,
    /// A destination.
    Dest(usize),
    /// Nobody, but there are no pages: a destination that was left behind keeps them.
    Pages(usize),
}

/// How far the flush of a destination is. What it had taken when the flush began is durable once that is recorded.
#[derive(Debug, Default)]
pub(super) struct Flush {
    /// Under way since then; with what the destination had taken.
    pub(super) asked: Option<(Instant, DestMark)>,
    /// It has succeeded, and waits for its record.
    pub(super) flushed: Option<DestMark>,
    /// The record that says so is being written.
    pub(super) recording: Option<DestMark>,
}

impl Flush {
    /// A record is made now: it says what was flushed before.
    pub(super) fn begin_recording(&mut self) {
        if let Some(flushed) = self.flushed.take() {
            self.recording = Some(self.recording.take().map_or(flushed.clone(), |earlier| earlier.union(&flushed)));
        }
    }

    /// Whether nothing of it is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_none() && self.flushed.is_none() && self.recording.is_none()
    }
}

impl Work {
    pub(super) fn new(spec: &Spec, geometry: Geometry, hashing: Option<Hashing>) -> Box<Self> {
        Box::new(Self {
            salvage: Salvage::new(spec, geometry),
            step: None,
            hashing: hashing.map(Box::new),
            differs: false,
            flushes: spec.to.iter().map(|_| Flush::default()).collect(),
            behind: Behind::Nobody,
            stalled: None,
            copies_behind: false,
            drained: None,
        })
    }

    /// Whether the engine has nothing of the job in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.step.as_ref().is_none_or(|step| step.pace == Pace::Quiet)
    }

    /// Since when a flush has been awaited.
    pub(super) fn flushing_since(&self) -> Option<Instant> {
        self.flushes.iter().filter_map(|flush| Some(flush.asked.as_ref()?.0)).min()
    }
}
