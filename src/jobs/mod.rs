//! The life of an administrator's jobs: made from specs, run by the engine, watched through views.
//!
//! ```text
//! submit ─> open (devices, checks, claims) ─> record ─> registry ─> launch ─> plan ─> step ─> kcopyd
//!                                                │                    │                 │
//!                                             restore              queued            pieces ─> figures ─> View
//!                                                                                       │
//!                    ended <─ record of the end <─ compare <─ flush <─ no step left <───┘
//! ```
//!
//! # Invariants
//! * A job's figures change only under its own lock; the registry's lock is never held together with a job's.
//! * `copied` counts completed writes only, `durable` only what was complete before a flush that succeeded began.
//! * A job lets go of its devices before anyone is told that it has ended.
//! * Changes of state are told in the order in which they happened, and outside all locks.

mod api;
mod clients;
mod config;
mod control;
mod counters;
mod job;
mod keeper;
mod launch;
mod life;
mod names;
mod news;
mod open;
mod overwritten;
mod registry;
mod restore;
mod returning;
mod run;
mod scribe;
mod submit;
mod view;
mod watch;

pub use api::Followed;
pub use config::Config;
pub use run::Jobs;
pub use view::{
    BadKind, BadRange, Brief, Change, ClientView, DestState, DestView, EngineView, JobId, Refusal, State, Totals, Verb,
    View,
};
