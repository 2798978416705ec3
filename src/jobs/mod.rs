//! The life of an administrator's jobs.

mod view;

pub use view::{BadRange, DestState, DestView, EngineView, JobId, State, Verb, View};
