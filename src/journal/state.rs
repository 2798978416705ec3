//! What a record says of where its job was.

/// A job's number: counts up from 1 and is never used again.
pub type JobId = u64;

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Waits for its turn, or for another job, or for a device.
    Queued,
    /// Copies.
    Running,
    /// Stopped by an administrator until `resume`.
    Paused,
    /// All is written; the destinations flush their caches.
    Flushing,
    /// The destinations are read back and compared.
    Verifying,
    /// Nothing is missing anywhere.
    Done,
    /// It went to the end, and at least one destination has all but what `errors` lists.
    Degraded,
    /// Anything else that ended it.
    Failed,
    /// Ended by request.
    Cancelled,
    /// Found at a restart, its devices not surely the same; `resume` confirms.
    Held,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 10] = [
        Self::Queued,
        Self::Running,
        Self::Paused,
        Self::Flushing,
        Self::Verifying,
        Self::Done,
        Self::Degraded,
        Self::Failed,
        Self::Cancelled,
        Self::Held,
    ];

    /// The word for it in status, events and `state/`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Flushing => "flushing",
            Self::Verifying => "verifying",
            Self::Done => "done",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Held => "held",
        }
    }

    /// Whether the job's figures move without a change of state.
    pub const fn moves(self) -> bool {
        matches!(self, Self::Running | Self::Flushing | Self::Verifying)
    }

    /// Whether the job has ended: its figures stay as they are.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Done | Self::Degraded | Self::Failed | Self::Cancelled)
    }
}
