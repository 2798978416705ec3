//! The control tree: jobs as files, over FUSE.
//!
//! What is where:
//! - `table`: ONE table of nodes; it makes names, modes, contents and documentation. `files`: what its rows read and
//!   write. `inode` numbers them (`labels`: those known by a name), `walk` finds and lists them, `readme` prints them.
//! - `keys`: ONE table of keys a text; it prints them and documents them. `text`: what formats have in common, pure; `summary` and `metrics` print a `board`, a look at everything. `error_log`,
//!   `events`, `wait`, `jobs_new`: the files that are more than a text.
//! - `handles`: open files. `access`: who may write.
//! - `tree`: what each request means; it knows nothing of FUSE. `fuse`: FUSE's requests, forwarded. `serve`: a mounted
//!   tree's life. `mount`, `mountpoint`, `fusermount`: how it gets its place in the name space.
//!
//! Nothing here blocks the thread that answers FUSE: writes, and reads of long texts, run on threads of their own, reads that wait are parked with
//! the ticker of `wait`, which sleeps without a timeout while nobody waits.
//!
//! # Protocol: a write
//! 1. The FUSE thread finds the open file and hands the text to a new thread; write(2) blocks, so one open file's writes
//!    stay in order.
//! 2. That thread judges opener and writer, then carries the text out: all of it or nothing.
//! 3. A refusal is entered in `error_log` (and queued for the open file's reader) *before* the errno is sent, so that a
//!    script that sees the error finds the reason.
//!
//! # Protocol: the end
//! 1. New writes are refused. 2. Parked readers are answered. 3. The mount is detached. 4. The FUSE thread is awaited for
//!    a bounded time: an open file keeps it alive, and the process ends without it.

mod access;
mod board;
mod check;
mod error_log;
mod events;
mod eye;
mod files;
mod fuse;
mod fusermount;
mod handles;
mod inode;
mod jobs_new;
mod kept;
mod keys;
mod labels;
mod metrics;
mod mount;
mod mountpoint;
mod preview;
mod progress;
mod readme;
mod serve;
mod summary;
mod table;
mod text;
mod tree;
mod units;
mod wait;
mod walk;

pub use keys::{KeyDoc, TextKeys, texts_with_keys};
pub use mount::Mount;
pub use serve::Serving;
pub use table::{Kind, Node, nodes};
pub use tree::{Tree, TreeConfig};
