//! What a claim has to say: who is in its way, and who has lost what by it.

use std::fmt;
use std::ops::Range;
use std::path::Path;

use super::index::Access;
use super::lasting::Region;
use super::{JobId, Rank};
use crate::error::{Error, ErrorKind};
use crate::spec::Place;

/// A job that is remembered has lost what it had copied, or had copied from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overwritten {
    /// Who has lost it.
    pub(crate) id: JobId,
    /// Of its source: what was copied from there is to be copied again. Of a destination: what was copied to it.
    pub(crate) region: Region,
    /// Sectors of that job, counted from its own beginning; whole sectors of 512 bytes. The caller rounds to its blocks.
    pub(crate) sectors: Range<u64>,
}

/// Why a claim was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// Who is in the way: `queue` waits for its end, and claims again.
    pub(crate) owner: JobId,
    /// The part of the asker's line that it is about.
    pub(crate) place: Place,
    /// What is said before and after the owner's name.
    around: [String; 2],
    /// What is said for that after it, to who was refused and could have waited.
    remedy: &'static str,
}

/// The remedy of who was refused for a job that ends some time.
const WAIT: &str = "; add `queue` to wait for it";

impl Conflict {
    pub(super) fn live(owner: JobId, region: Region, path: &Path, theirs: Access, their_path: &Path) -> Self {
        let done = match theirs {
            Access::Read => "read",
            Access::Write => "written",
        };
        let name = if path == their_path { String::new() } else { format!(", by the name {}", their_path.display()) };
        let around = [format!("{} is being {done} by ", path.display()), name];
        Self { owner, place: region.into(), around, remedy: WAIT }
    }

    pub(super) fn kept(owner: JobId, rank: Rank, region: Region, path: &Path) -> Self {
        let path = path.display();
        let (before, after, remedy) = match rank {
            Rank::Begun => (
                format!("{path} is kept for "),
                ", which had it before the daemon was started again: let that go on, or cancel it",
                "",
            ),
            Rank::Waiting => (format!("{path} is first for "), ", which waits for its turn", WAIT),
        };
        Self { owner, place: region.into(), around: [before, after.to_owned()], remedy }
    }

    /// The same for who asked for no `queue`, with what helps.
    pub(crate) fn refusal(&self, who: &str) -> Error {
        let [before, after] = &self.around;
        Error::new(ErrorKind::Busy, format!("{before}{who}{after}{}", self.remedy))
    }

    /// [`ErrorKind::Busy`], with a sentence that names the path and the owner, which is called `who`: `job 7`.
    pub(crate) fn error(&self, who: &str) -> Error {
        let [before, after] = &self.around;
        Error::new(ErrorKind::Busy, format!("{before}{who}{after}"))
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error(&format!("job {}", self.owner)).fmt(f)
    }
}

impl std::error::Error for Conflict {}
