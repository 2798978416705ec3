//! What people look at: pictures of what is where on which disk, and a job's report.
//!
//! ```text
//! figures::cells ─> picture (letters)
//!               ├─> svg (map.K.svg) ─┐
//! figures::speeds ───────────────────┼─> html (report.html)
//! report (all that is known of a job)┴─> json (report.json)
//! ```
//!
//! All but `report`, which asks the jobs, is pure, from figures to text. Everything from outside (paths, names, serial numbers,
//! messages) goes through `fit`, or is escaped by `maud` or `serde_json`; most goes through two of them.

pub(super) mod device;
pub(super) mod fit;
pub(super) mod html;
pub(super) mod json;
pub(super) mod picture;
pub(super) mod report;
pub(super) mod svg;
