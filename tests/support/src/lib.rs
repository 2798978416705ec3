//! Fixtures of the kcopyfs tests, used in the process of the test.
//!
//! - [`stamp`]: data that says where it belongs, and the seeded randomness behind every test
//! - [`direct`]: `O_DIRECT` reads and writes of whole blocks
//!
//! Whatever a fixture makes goes away when it is dropped, also after a panic.
//!
//! Functions here panic where the system fails them: that fails the test, with the reason.
#![allow(clippy::missing_panics_doc)]

pub mod direct;
pub mod stamp;

pub use stamp::Rng;
