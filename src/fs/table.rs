//! The one table of the tree's nodes: names, modes, contents, documentation.
//!
//! Lookup, listing, modes, the tree's README, the tests of modes and the man page are made from it. To add a file is to
//! add a row; nothing else knows the names.
//!
//! What the rows read and write is in `files`.
//!
//! # Invariants
//! A row's directory is a row above it. In a path, `ID` stands for a job's number, `.K` for a destination's, `S` for a
//! state and `NAME` for a name. A file whose mode lets somebody read has something to read, and the same for writing.

use std::ffi::OsString;

use super::files;
use super::inode::Key;
use super::readme;
use super::tree::Tree;
use crate::error::Result;

/// What sort of node it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
}

/// A row: one file, directory or link, or one for each of something.
#[derive(Debug)]
pub struct Node {
    /// Its path below the mount point; `ID`, `.K`, `S` and `NAME` stand for what differs.
    pub path: &'static str,
    /// Permission bits, before the mount options `gid=` and `mode=` widen those of writable files.
    pub mode: u16,
    /// What it is, in one line for people.
    pub doc: &'static str,
    pub(super) each: Each,
    /// Whether it is there, where what it stands for is.
    pub(super) there: fn(&Tree, Key) -> bool,
    pub(super) body: Body,
}

/// For what a row stands once in its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Each {
    /// There is one.
    One,
    /// There is one, but each lookup gets an inode of its own: the kernel lets one write(2) at a time into an inode, and
    /// a write that waits for a sick device must not keep other writers waiting.
    Fresh,
    /// One for each job.
    Job,
    /// One for each destination of the directory's job.
    Dest,
    /// One for each state of jobs.
    State,
    /// One for each job in the directory's state.
    InState,
    /// One for each name of jobs, standing for the newest job of that name.
    Name,
    /// One for each client.
    Client,
}

/// Whose number a node's key has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody's.
    Tree,
    /// A job's.
    Job,
    /// A client's.
    Client,
}

/// rmdir(2) of a node.
pub(super) type Remove = fn(&Tree, Key) -> Result<()>;
/// mkdir(2) of a name in it.
pub(super) type Make = fn(&Tree, &[u8]) -> Result<()>;

/// What a node holds.
#[derive(Debug)]
pub(super) enum Body {
    /// Nodes; `remove` is rmdir(2) of it, `make` is mkdir(2) in it.
    Dir { remove: Option<Remove>, make: Option<Make> },
    /// A path.
    Link(fn(&Tree, Key) -> Option<OsString>),
    /// Bytes.
    File { read: Read, write: Write },
}

/// How a file is read.
#[derive(Debug)]
pub(super) enum Read {
    /// Not at all.
    Never,
    /// A text, made when it is read at offset 0; `None` where the job is gone.
    Text(fn(&Tree, Key) -> Option<Vec<u8>>),
    /// The same, for a text that is long, or that the owner of the jobs is asked for: made on a thread of its own.
    Long(fn(&Tree, Key) -> Option<Vec<u8>>),
    /// What became of the open file's writes.
    Replies,
    /// What would become of what was written.
    Checked,
    /// The log of changes of state, as it grows.
    Events,
    /// Progress, until the job ends.
    Wait,
}

/// How a file is written.
#[derive(Debug)]
pub(super) enum Write {
    /// Not at all.
    Never,
    /// Specs of jobs.
    Specs,
    /// Specs of jobs that are not to be made.
    Check,
    /// Each write is a whole.
    Text(fn(&Tree, Key, &[u8]) -> Result<()>),
    /// A write, whatever it says, empties the file; so does truncating it.
    Clear(fn(&Tree)),
}

impl Node {
    /// What sort of node it is.
    pub const fn kind(&self) -> Kind {
        match self.body {
            Body::Dir { .. } => Kind::Dir,
            Body::Link(_) => Kind::Link,
            Body::File { .. } => Kind::File,
        }
    }

    /// Whether writing to it does something.
    pub const fn is_writable(&self) -> bool {
        matches!(self.body, Body::File { write: Write::Specs | Write::Check | Write::Text(_) | Write::Clear(_), .. })
    }

    /// Whether reading it gives something.
    pub(super) const fn is_readable(&self) -> bool {
        !matches!(self.body, Body::File { read: Read::Never, .. })
    }

    /// Whose number its key has.
    pub(super) fn owner(&self) -> Owner {
        if self.each == Each::Name || self.path.split('/').any(|segment| segment == "ID") {
            Owner::Job
        } else if self.path.split('/').any(|segment| segment == "NAME") {
            Owner::Client
        } else {
            Owner::Tree
        }
    }

    /// Whether what its name stands for may be another thing, or nothing, a moment later.
    pub(super) const fn is_fleeting(&self) -> bool {
        matches!(self.each, Each::Fresh | Each::InState | Each::Name)
    }

    /// The path of its directory, and its own name there; the root has none.
    pub(super) fn split(&self) -> Option<(&'static str, &'static str)> {
        match self.path.rsplit_once('/') {
            Some(split) => Some(split),
            None if self.path.is_empty() => None,
            None => Some(("", self.path)),
        }
    }
}

/// Every node of the tree, each directory before what is in it.
pub fn nodes() -> &'static [Node] {
    NODES
}

const fn dir(path: &'static str, doc: &'static str) -> Node {
    dir_each(path, Each::One, doc)
}

const fn dir_each(path: &'static str, each: Each, doc: &'static str) -> Node {
    Node { path, mode: 0o755, doc, each, there: always, body: Body::Dir { remove: None, make: None } }
}

const fn file(path: &'static str, mode: u16, read: Read, write: Write, doc: &'static str) -> Node {
    Node { path, mode, doc, each: Each::One, there: always, body: Body::File { read, write } }
}

const fn link(path: &'static str, each: Each, target: fn(&Tree, Key) -> Option<OsString>, doc: &'static str) -> Node {
    Node { path, mode: 0o777, doc, each, there: always, body: Body::Link(target) }
}

fn always(_: &Tree, _: Key) -> bool {
    true
}

static NODES: &[Node] = &[
    dir("", "the control tree"),
    file("README", 0o444, Read::Text(readme::text), Write::Never, "how to drive the tree: this text"),
    file("version", 0o444, Read::Text(files::version), Write::Never, "the version of kcopyfs"),
    Node {
        path: "check",
        mode: 0o600,
        doc: "write specs as to jobs/new: nothing is started, made or written; then read what they would do, and what would be lost",
        each: Each::Fresh,
        there: always,
        body: Body::File { read: Read::Checked, write: Write::Check },
    },
    file(
        "summary",
        0o444,
        Read::Long(files::summary),
        Write::Never,
        "for people: each live job with a bar, speed and time left: watch -n1 cat summary",
    ),
    file("engine", 0o444, Read::Text(files::engine), Write::Never, "backend, pages and sub-jobs, as KEY VALUE"),
    file("metrics", 0o444, Read::Long(files::metrics), Write::Never, "all figures as OpenMetrics text, for Prometheus"),
    file(
        "metrics.prom",
        0o444,
        Read::Long(files::metrics_prom),
        Write::Never,
        "the same in the older text format: link it into the directory of node_exporter's textfile collector",
    ),
    file(
        "events",
        0o444,
        Read::Events,
        Write::Never,
        "a line per change of state: TIME_USEC JOB OLD NEW [reason]; tail -f and poll(2) work; outlives the daemon",
    ),
    file(
        "error_log",
        0o644,
        Read::Text(files::error_log),
        Write::Clear(files::clear_error_log),
        "the last 16 refused writes, newest last, with the reason and a caret; a write clears it",
    ),
    file(
        "active",
        0o644,
        Read::Text(files::active),
        Write::Text(files::set_active),
        "how many jobs run at once; the others wait as queued, in order; those that run already go on",
    ),
    file(
        "throttle",
        0o644,
        Read::Text(files::throttle),
        Write::Text(files::set_throttle),
        "percent of the time during which the engine does I/O, 1 to 100",
    ),
    file(
        "speed_max",
        0o644,
        Read::Text(files::speed_max),
        Write::Text(files::set_speed_max),
        "bytes per second of all jobs together, or max; accepts K M G (powers of 1024)",
    ),
    Node {
        body: Body::Dir { remove: None, make: Some(files::create_client) },
        ..dir("clients", "clients have pages reserved for their jobs; mkdir NAME makes one, for specs with client=NAME")
    },
    Node {
        body: Body::Dir { remove: Some(files::destroy_client), make: None },
        ..dir_each("clients/NAME", Each::Client, "a client; rmdir removes it, once it has no live jobs")
    },
    file(
        "clients/NAME/pages",
        0o644,
        Read::Text(files::pages),
        Write::Text(files::set_pages),
        "pages of 4 KiB reserved for it; a write resizes, accepts K M G (powers of 1024)",
    ),
    file(
        "clients/NAME/stat",
        0o444,
        Read::Text(files::client_stat),
        Write::Never,
        "its pages, sub-jobs and jobs, as KEY VALUE",
    ),
    dir("jobs", "a directory per job, numbered from 1; rmdir dismisses an ended job"),
    Node {
        path: "jobs/new",
        mode: 0o600,
        doc: "write specs, one a line; then read: one new job's ID per read, or `error: ` and the reason. Whoever may write here is root",
        each: Each::Fresh,
        there: always,
        body: Body::File { read: Read::Replies, write: Write::Specs },
    },
    Node {
        body: Body::Dir { remove: Some(files::dismiss), make: None },
        ..dir_each("jobs/ID", Each::Job, "a job; its size is the bytes copied, its time the last progress")
    },
    file(
        "jobs/ID/spec",
        0o444,
        Read::Text(files::spec),
        Write::Never,
        "the job's spec; cat jobs/ID/spec > jobs/new runs it again",
    ),
    file("jobs/ID/status", 0o444, Read::Text(files::status), Write::Never, "state, errors and figures, as KEY VALUE"),
    file(
        "jobs/ID/dests",
        0o444,
        Read::Text(files::dests),
        Write::Never,
        "a line per destination: N KEY=VALUE... path=PATH",
    ),
    file(
        "jobs/ID/errors",
        0o444,
        Read::Long(files::errors),
        Write::Never,
        "a line per bad range: read SECTOR COUNT ERRNO, or write DEST SECTOR COUNT ERRNO",
    ),
    file(
        "jobs/ID/devices",
        0o444,
        Read::Text(files::devices),
        Write::Never,
        "a line per region, source or its number: size model serial wwid transport rotational temperature usb_port path",
    ),
    Node {
        each: Each::Dest,
        there: files::has_map,
        ..file(
            "jobs/ID/map.K",
            0o444,
            Read::Long(files::map),
            Write::Never,
            "ddrescue mapfile of destination K: + durable, - unreadable, ? else",
        )
    },
    file(
        "jobs/ID/picture",
        0o444,
        Read::Long(files::picture),
        Write::Never,
        "what is where, for people: 16 lines of 64 letters per destination, with a legend",
    ),
    Node {
        each: Each::Dest,
        ..file(
            "jobs/ID/map.K.svg",
            0o444,
            Read::Long(files::map_svg),
            Write::Never,
            "the same of destination K, finer and in colours, for a browser",
        )
    },
    file(
        "jobs/ID/report.html",
        0o444,
        Read::Long(files::report_html),
        Write::Never,
        "a page about the job, to read, print and keep: verdict, devices, times, speed, map, errors",
    ),
    file(
        "jobs/ID/report.json",
        0o444,
        Read::Long(files::report_json),
        Write::Never,
        "the same as data; doc/report.schema.json is its schema",
    ),
    file(
        "jobs/ID/wait",
        0o444,
        Read::Wait,
        Write::Never,
        "the same as wait/ID, so that names/NAME/wait works; reading it blocks",
    ),
    file(
        "jobs/ID/control",
        0o200,
        Read::Never,
        Write::Text(files::control),
        "write pause, resume, cancel, retry, verify or drop K; retry takes on_read_error=, on_write_error= and retries= anew",
    ),
    file(
        "jobs/ID/speed_max",
        0o644,
        Read::Text(files::job_speed_max),
        Write::Text(files::set_job_speed_max),
        "bytes per second of this job, or max; accepts K M G (powers of 1024)",
    ),
    Node { there: files::has_source, ..link("jobs/ID/source", Each::One, files::source, "the source") },
    link("jobs/ID/dest.K", Each::Dest, files::dest, "destination K, counted from 0"),
    dir("wait", "a file per job that ends when the job does"),
    Node {
        each: Each::Job,
        ..file(
            "wait/ID",
            0o444,
            Read::Wait,
            Write::Never,
            "a line of progress every second, at the end the status; read fails unless the job is done: cat wait/ID && next",
        )
    },
    dir("state", "a directory per state of jobs: ls state/running"),
    dir_each(
        "state/S",
        Each::State,
        "S is queued running paused flushing verifying, at the end done degraded failed cancelled, or held",
    ),
    link("state/S/ID", Each::InState, files::state_link, "each job in that state"),
    dir("names", "a link per name of jobs"),
    link("names/NAME", Each::Name, files::name_link, "the newest job with name=NAME"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::State;

    #[test]
    fn a_row_has_a_directory_above_it_and_a_name_of_its_own() {
        for (index, node) in nodes().iter().enumerate() {
            let Some((dir, _)) = node.split() else {
                assert_eq!(index, 0, "only the root has no name");
                continue;
            };
            let above = nodes()[..index].iter().find(|other| other.path == dir);
            assert_eq!(above.map(Node::kind), Some(Kind::Dir), "{}", node.path);
            assert!(!nodes()[..index].iter().any(|other| other.path == node.path), "{}", node.path);
        }
    }

    #[test]
    fn modes_say_what_can_be_done() {
        for node in nodes().iter().filter(|node| node.kind() == Kind::File) {
            assert_eq!(node.mode & 0o400 != 0, node.is_readable(), "{}", node.path);
            assert_eq!(node.mode & 0o200 != 0, node.is_writable(), "{}", node.path);
            assert_eq!(node.mode & 0o022, 0, "{}: only the owner writes", node.path);
        }
    }

    #[test]
    fn every_row_is_documented_in_one_line() {
        for node in nodes() {
            assert!(!node.doc.is_empty() && !node.doc.contains('\n'), "{}", node.path);
        }
        assert!(nodes().len() < 255, "a row's number plus one fits 8 bits");
        let states = nodes().iter().find(|node| node.each == Each::State).map_or("", |node| node.doc);
        assert!(State::ALL.iter().all(|state| states.contains(state.as_str())), "{states}");
    }

    #[test]
    fn a_placeholder_names_the_owner() {
        for (path, owner) in [
            ("", Owner::Tree),
            ("state/S", Owner::Tree),
            ("jobs/ID/dest.K", Owner::Job),
            ("state/S/ID", Owner::Job),
            ("names/NAME", Owner::Job),
            ("clients/NAME/stat", Owner::Client),
        ] {
            assert_eq!(nodes().iter().find(|node| node.path == path).unwrap().owner(), owner, "{path}");
        }
    }
}
