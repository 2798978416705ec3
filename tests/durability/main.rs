//! Nothing is lost: kill -9, power cuts, a state directory that fails, devices that change places, I/O that never ends.
//! Needs FUSE, and root for disks.
//!
//! `KCOPYFS_SEED` sets the seed, which is printed. `KCOPYFS_TORTURE=N` asks for N rounds in place of the few that a default
//! run takes; the code is the same.

mod behind;
mod claims;
mod descriptors;
mod held;
mod hung;
mod kill;
mod kit;
mod life;
mod mix;
mod night;
mod order;
mod overwritten;
mod pace;
mod power;
mod races;
mod restart;
mod settings;
mod state_dir;
mod waiting;
