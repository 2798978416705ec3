//! The life of an administrator's jobs: made from specs, run by the engine, watched through cards.
//!
//! ```text
//! write(2) ─ its own thread: submit ─ open ──┐                     ┌─> workers: open, lock, close a device
//! verbs, limits, rmdir ── api ───────────────┤                     ├─> recorder: write a record
//! pieces, quiet, step ended, flushed ─ engine┼─> inbox ─> Core ──> ┼─> engine: start, pause, cancel a step; flush a destination
//! opened, locked, closed ─ workers ──────────┤   event    pure     ├─> post an event, answer whoever waits
//! recorded ─ recorder; tick ─ timer ─────────┘            effects  └─> cards: what readers see, published before all that
//! ```
//! One thread owns all jobs (`owner`) and does nothing that may wait. It takes events, asks the pure `core` what
//! follows, and has others do it.
//!
//! # Invariants
//! * A job's state changes in one place, `Job::change`, by the table in `state`.
//! * `copied` counts completed writes only, `durable` only what was complete before a flush that succeeded began.
//! * A job lets go of its devices before anyone is told that it has ended.
//! * Changes of state are told in the order in which they happened.

mod api;
mod behind;
mod card;
mod check;
mod clients;
mod closings;
mod config;
mod control;
mod core;
mod counters;
mod effect;
mod event;
mod given;
mod glance;
mod index;
mod job;
mod names;
mod open;
mod owner;
mod record;
mod recorder;
mod run;
#[cfg(test)]
mod sim;
mod start;
mod state;
mod submit;
mod turn;
mod verbs;
mod view;
mod waiting;
mod work;
mod workers;

pub use api::{Followed, Jobs};
pub use check::{Checked, CheckedRegion};
pub use config::{ACTIVE_MAX, Config};
pub use glance::{Glance, Most, SILENT_MIN, Seen};
pub use view::{
    BadKind, BadRange, Brief, CELLS_MAX, Cell, Cells, Change, ClientView, Course, DestState, DestView, DeviceView,
    EngineView, JobId, Limit, Policy, Rate, Refusal, State, Totals, Verb, View,
};
