//! What is known of a job's bytes: which were copied, which are durable, which are lost, how fast it goes. Pure; time is an
//! argument.
//!
//! ```text
//! ranges ─> progress (per destination: taken, durable, lost)  ─> map (ddrescue's mapfile)
//!                                                             ─> cells (for pictures)
//!                                                             ─> lacking (what is to be done)
//! mapfile (ddrescue's, as it comes in)
//! meter (speed, time left, running time)    speeds (over all the running time)    digest (of the source, in order)
//! ```

mod bad;
mod cells;
mod dest;
mod digest;
mod lacking;
mod map;
mod mapfile;
mod meter;
mod progress;
mod ranges;
mod speeds;
mod wrong;

pub use bad::{BadKind, BadRange};
pub(crate) use cells::Sheet;
pub use cells::{CELLS_MAX, Cell, Cells};
pub use dest::DestState;
pub(crate) use dest::{Dest, DestMark};
pub(crate) use digest::{Hashing, sums_text};
pub(crate) use map::Map;
pub(crate) use mapfile::{Frame, Given, parse as parse_map};
pub(crate) use meter::{Meter, Stopwatch};
pub(crate) use progress::Progress;
pub(crate) use ranges::RangeSet;
pub use speeds::Rate;
pub(crate) use speeds::Speeds;
