//! Salvage over both phases.
