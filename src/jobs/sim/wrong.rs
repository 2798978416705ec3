//! Builds that are wrong on purpose: each spoils something between the owner and the world. The simulation must find all.

use crate::journal::double::Mistake;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A record is acknowledged and never written.
    RecordDropped,
    /// A record is acknowledged before it is written.
    RecordAckEarly,
    /// A flush succeeds without being done.
    FlushSkipped,
    /// A flush is told to have ended when it begins.
    FlushEarly,
    /// A record says that all that was taken is durable.
    TakenAsDurable,
    /// A job that pauses loses its claim.
    ClaimReleased,
    /// It is never told that devices are closed, so a slot of `active` is lost.
    ClosedLost,
    /// Devices are told to be closed before they are.
    ClosedEarly,
    /// A page is not given back.
    PageKept,
    /// The end of a step is told twice.
    StepEndedTwice,
    /// It is never told that a paused step is quiet.
    QuietLost,
    /// A flush of an earlier life of a job counts for this one.
    OldFlush,
    /// A restart begins with a number that was told.
    NumberAgain,
    /// The records of new jobs are acknowledged and never written.
    BatchUnrecorded,
    /// A restart does not know that a job had its claim.
    ClaimForgotten,
    /// A restart does not know what others have written over.
    OverwrittenForgotten,
    /// A restart does not know what devices are recognised by.
    IdentityForgotten,
    /// A restart goes on with a test as if its pattern were made from something else.
    SeedForgotten,
    /// Two changes of state are told in the other order.
    EventsSwapped,
    /// The end is told when its record is asked for.
    EventEarly,
    /// A piece that failed at a destination is told to have been written.
    PieceInvented,
    /// A step is never told to end.
    CancelLost,
    /// A verb is answered when it comes.
    AnswerEarly,
    /// The files of records are not synced.
    FilesNotSynced,
    /// The directory of the records is not synced.
    DirectoryNotSynced,
}

impl Wrong {
    /// What the store does not do.
    pub(super) fn mistake(self) -> Mistake {
        match self {
            Self::FilesNotSynced => Mistake::NoFileSync,
            Self::DirectoryNotSynced => Mistake::NoDirSync,
            _ => Mistake::None,
        }
    }

    pub(super) const ALL: [Self; 25] = [
        Self::RecordDropped,
        Self::RecordAckEarly,
        Self::FlushSkipped,
        Self::FlushEarly,
        Self::TakenAsDurable,
        Self::ClaimReleased,
        Self::ClosedLost,
        Self::ClosedEarly,
        Self::PageKept,
        Self::StepEndedTwice,
        Self::QuietLost,
        Self::OldFlush,
        Self::NumberAgain,
        Self::BatchUnrecorded,
        Self::ClaimForgotten,
        Self::OverwrittenForgotten,
        Self::IdentityForgotten,
        Self::SeedForgotten,
        Self::EventsSwapped,
        Self::EventEarly,
        Self::PieceInvented,
        Self::CancelLost,
        Self::AnswerEarly,
        Self::FilesNotSynced,
        Self::DirectoryNotSynced,
    ];
}
