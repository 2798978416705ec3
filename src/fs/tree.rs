//! The tree: what each request means. Knows nothing of FUSE.
//!
//! Owns what files are made of beside the jobs: the logs, the open files, the readers that wait.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;

use super::access::{self, Caller};
use super::check::{Check, Last};
use super::error_log::{ErrorLog, Refused};
use super::events::Events;
use super::handles::{Content, Handles, Listing, Open, Text};
use super::inode::Key;
use super::jobs_new::Specs;
use super::kept::Store;
use super::labels::Labels;
use super::table::{Body, Each, Kind, Read, Write, nodes};
use super::wait::{self, Notify, WaitRoom};
use super::walk::{self, Entry};
use crate::error::{Error, ErrorKind, errno_name};
use crate::jobs::{Change, Jobs};

/// Who owns the tree and what the writable files' modes are.
#[derive(Clone, Copy, Debug)]
pub struct TreeConfig {
    /// Owner of every file: who mounts. Writes are the owner's.
    pub uid: u32,
    /// Group of every file (`gid=`).
    pub gid: u32,
    /// What the modes of writable files are widened by (`mode=`). Whom it lets write can write every disk.
    pub mode: u16,
    /// Whether other users may look (`allow_other`).
    pub allow_other: bool,
}

/// What stat(2) tells of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attr {
    pub(super) key: Key,
    pub(super) kind: Kind,
    pub(super) mode: u16,
    pub(super) size: u64,
    pub(super) time: SystemTime,
    /// Size and time may be others a moment later.
    pub(super) moves: bool,
}

/// The control tree over some jobs.
pub struct Tree {
    pub(super) jobs: Arc<Jobs>,
    pub(super) config: TreeConfig,
    pub(super) errors: ErrorLog,
    pub(super) events: Arc<Events>,
    /// What the last check found.
    checked: Last,
    pub(super) waiting: WaitRoom,
    /// The clients' numbers.
    pub(super) clients: Labels,
    handles: Handles,
    /// What they keep.
    kept: Store,
    /// The last inode of the files that get one for each lookup.
    fresh: AtomicU64,
    started: SystemTime,
    /// The end has begun: nothing is written any more.
    closed: AtomicBool,
    /// Bytes of a write that surely came whole; see [`Tree::set_write_max`].
    write_max: AtomicUsize,
}

impl Tree {
    pub(super) fn new(jobs: Arc<Jobs>, config: TreeConfig) -> Self {
        let started = SystemTime::now();
        Self {
            jobs,
            config,
            errors: ErrorLog::default(),
            events: Arc::new(Events::new(started)),
            checked: Last::default(),
            waiting: WaitRoom::default(),
            clients: Labels::default(),
            handles: Handles::default(),
            kept: Store::default(),
            fresh: AtomicU64::new(0),
            started,
            closed: AtomicBool::new(false),
            write_max: AtomicUsize::new(usize::MAX),
        }
    }

    /// Sets how long a write may be. The kernel cuts a longer write(2) into requests at places that depend on where the
    /// writer's buffer begins: lines would be cut, and one write would not be all or nothing.
    pub(super) fn set_write_max(&self, bytes: usize) {
        self.write_max.store(bytes, Ordering::Relaxed);
    }

    /// The node whose attributes the kernel may remember from before a change: the job, unless it is new.
    pub(super) fn remembered(change: &Change) -> Option<Key> {
        change.old.and_then(|_| walk::job(change.id))
    }

    /// A job changed its state. Quick: called from whatever thread changed it.
    pub(super) fn changed(&self, change: &Change) {
        self.kept.outdate();
        self.events.append(change);
        if change.new.is_ended() {
            self.waiting.job_ended(change.id);
        }
    }

    /// Refuses writes from now on and answers whoever waits.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.waiting.close();
    }

    /// What stat(2) tells, or `None` where the node is gone.
    pub(super) fn attr(&self, key: Key) -> Option<Attr> {
        let node = key.node();
        let (mut size, mut time, mut moves) = (0, self.started, false);
        if let Some(job) = walk::seen(self, key)?.job {
            time = job.progressed;
            if node.each == Each::Job && node.kind() == Kind::Dir {
                size = job.copied;
                moves = job.state.moves();
            }
        }
        match &node.body {
            Body::Link(target) => size = target(self, key)?.len() as u64,
            Body::File { read: Read::Events, .. } => {
                (size, time) = self.events.size();
                moves = true;
            }
            _ => {}
        }
        Some(Attr { key, kind: node.kind(), mode: access::mode(node, &self.config), size, time, moves })
    }

    /// The node of that name in a directory.
    pub(super) fn lookup(&self, dir: Key, name: &OsStr) -> Option<Attr> {
        let mut key = walk::lookup(self, dir, name)?;
        if key.node().each == Each::Fresh {
            key.id = self.fresh.fetch_add(1, Ordering::Relaxed) % Key::ID_MAX + 1;
        }
        self.attr(key)
    }

    /// Where a link leads.
    pub(super) fn target(&self, key: Key) -> Option<OsString> {
        match key.node().body {
            Body::Link(target) => target(self, key),
            _ => None,
        }
    }

    /// rmdir(2).
    pub(super) fn remove(
        self: &Arc<Self>,
        dir: Key,
        name: &OsStr,
        caller: Caller,
        reply: impl FnOnce(Result<(), ErrorKind>) + Send + 'static,
    ) {
        let (tree, name) = (Arc::clone(self), name.to_owned());
        aside("rmdir", move || reply(tree.remove_now(dir, &name, caller)));
    }

    fn remove_now(&self, dir: Key, name: &OsStr, caller: Caller) -> Result<(), ErrorKind> {
        let key = walk::lookup(self, dir, name).ok_or(ErrorKind::NotFound)?;
        match key.node().body {
            Body::Dir { remove: Some(remove), .. } if access::owns(&self.config, caller.uid) => {
                let removed = remove(self, key).map_err(|error| self.refused_name(key, name, caller, error));
                self.kept.outdate();
                removed
            }
            Body::Dir { .. } => Err(ErrorKind::Os(libc::EPERM)),
            _ => Err(ErrorKind::Os(libc::ENOTDIR)),
        }
    }

    /// mkdir(2).
    pub(super) fn make(
        self: &Arc<Self>,
        dir: Key,
        name: &OsStr,
        caller: Caller,
        reply: impl FnOnce(Result<Attr, ErrorKind>) + Send + 'static,
    ) {
        let (tree, name) = (Arc::clone(self), name.to_owned());
        aside("mkdir", move || reply(tree.make_now(dir, &name, caller)));
    }

    fn make_now(&self, dir: Key, name: &OsStr, caller: Caller) -> Result<Attr, ErrorKind> {
        match dir.node().body {
            Body::Dir { make: Some(make), .. } if access::owns(&self.config, caller.uid) => {
                make(self, name.as_encoded_bytes()).map_err(|error| self.refused_name(dir, name, caller, error))?;
                self.kept.outdate();
                self.lookup(dir, name).ok_or(ErrorKind::NotFound)
            }
            _ => Err(ErrorKind::Os(libc::EPERM)),
        }
    }

    /// Why a file cannot be made. One that the tree has elsewhere was meant there: `echo cancel > jobs/control` lacks the job.
    pub(super) fn not_made(&self, dir: Key, name: &OsStr, caller: Caller) -> ErrorKind {
        let has_name = |path: &&str| path.rsplit('/').next().is_some_and(|last| name == last);
        let elsewhere: Vec<&str> = nodes().iter().map(|node| node.path).filter(has_name).collect();
        if elsewhere.is_empty() {
            return ErrorKind::Access;
        }
        let what = format!("there is no {} in that directory; it is {}", name.display(), elsewhere.join(" or "));
        self.refused_name(dir, name, caller, Error::new(ErrorKind::NotFound, what))
    }

    /// opendir(3): a number for the open directory.
    pub(super) fn open_dir(&self, key: Key, opener: Caller) -> u64 {
        self.handles.insert(Open { key, opener, content: Content::Dir(Mutex::default()) })
    }

    /// What an open directory holds; it is looked at anew where it is read `from_start`.
    pub(super) fn list(&self, file: u64, from_start: bool) -> Result<Arc<[Entry]>, ErrorKind> {
        let open = self.handles.get(file).ok_or(ErrorKind::Os(libc::EBADF))?;
        let Content::Dir(listing) = &open.content else { return Err(ErrorKind::Os(libc::EBADF)) };
        let mut listing = listing.lock();
        if from_start || listing.entries.is_empty() {
            // What it was is given back before the new one is counted.
            *listing = Listing::default();
            let entries: Arc<[Entry]> = walk::list(self, open.key).into();
            let bytes = entries.iter().map(|entry| size_of::<Entry>() + entry.name.capacity()).sum();
            let charge = self.kept.charge(bytes, self.is_owner(&open)).map_err(|_| self.too_much(&open))?;
            *listing = Listing { entries, _charge: Some(charge) };
        }
        Ok(Arc::clone(&listing.entries))
    }

    fn is_owner(&self, open: &Open) -> bool {
        access::owns(&self.config, open.opener.uid)
    }

    /// The errno for a reader who is refused because open files keep too much.
    fn too_much(&self, open: &Open) -> ErrorKind {
        let file = walk::path(self, open.key);
        log::debug!("{file}: not read, uid {}: ENFILE, open files keep too much memory", open.opener.uid);
        ErrorKind::Os(libc::ENFILE)
    }

    /// truncate(2), or open(2) with `O_TRUNC`: means something only where the file can be cleared.
    pub(super) fn truncate(&self, key: Key, caller: Caller) {
        if let Body::File { write: Write::Clear(clear), .. } = key.node().body
            && access::may_write(&self.config, caller.uid, caller.uid)
        {
            clear(self);
            self.kept.outdate();
        }
    }

    /// open(2): a number for the open file. What the modes allow, the kernel has judged; root passes it, so a file that
    /// cannot be read or written at all is refused here, as in sysfs.
    pub(super) fn open(&self, key: Key, opener: Caller, reads: bool, writes: bool) -> Result<u64, ErrorKind> {
        let Body::File { read, write } = &key.node().body else { return Err(ErrorKind::Os(libc::EISDIR)) };
        let refuse = |kind: ErrorKind, why: &str| {
            let (file, Caller { uid, pid }) = (walk::path(self, key), opener);
            log::debug!("{file}: not opened, pid {pid} uid {uid}: {}, {why}", errno_name(kind.errno()));
            Err(kind)
        };
        if reads && !key.node().is_readable() {
            return refuse(ErrorKind::Access, "it can only be written");
        }
        if writes && !key.node().is_writable() {
            return refuse(ErrorKind::Access, "it can only be read");
        }
        if walk::seen(self, key).is_none() {
            return refuse(ErrorKind::NotFound, "it is gone");
        }
        let content = match (read, write) {
            (Read::Replies, _) | (_, Write::Specs) => Content::Specs(Specs::default()),
            (Read::Checked, _) | (_, Write::Check) => Content::Check(Check::default()),
            (Read::Events, _) => Content::Events(Mutex::new(self.events.begin())),
            (Read::Wait, _) => {
                let job = self.jobs.follow(key.id).ok_or(ErrorKind::NotFound)?;
                Content::Wait(Arc::new(wait::File::new(job)))
            }
            (Read::Never | Read::Text(_) | Read::Long(_), _) => Content::Text(Text::default()),
        };
        Ok(self.handles.insert(Open { key, opener, content }))
    }

    /// read(2). `block`: whether it may wait.
    pub(super) fn read(
        self: &Arc<Self>,
        file: u64,
        offset: u64,
        size: usize,
        block: bool,
        reply: impl FnOnce(Result<Vec<u8>, ErrorKind>) + Send + 'static,
    ) {
        let Some(open) = self.handles.get(file) else { return reply(Err(ErrorKind::Os(libc::EBADF))) };
        match &open.content {
            Content::Wait(wait) => self.waiting.read((file, wait), size, block, reply),
            Content::Events(_) if !self.events.is_kept() => {
                let (events, open) = (Arc::clone(&self.events), Arc::clone(&open));
                aside("read", move || {
                    events.wait_kept();
                    if let Content::Events(cursor) = &open.content {
                        reply(Ok(events.read(&mut cursor.lock(), offset, size)));
                    }
                });
            }
            Content::Events(cursor) => reply(Ok(self.events.read(&mut cursor.lock(), offset, size))),
            Content::Specs(specs) => reply(Ok(specs.read(size))),
            Content::Check(check) => reply(Ok(check.read(&self.checked, offset, size))),
            Content::Dir(_) => reply(Err(ErrorKind::Os(libc::EISDIR))),
            Content::Text(text) => {
                if let Some(part) = text.kept(offset, size) {
                    return reply(Ok(part));
                }
                if let Body::File { read: Read::Long(_), .. } = open.key.node().body {
                    let tree = Arc::clone(self);
                    return aside("read", move || reply(tree.read_text(&open, offset, size)));
                }
                reply(self.read_text(&open, offset, size));
            }
        }
    }

    /// A part of a text, which is made where it must be.
    fn read_text(&self, open: &Open, offset: u64, size: usize) -> Result<Vec<u8>, ErrorKind> {
        let Content::Text(text) = &open.content else { return Err(ErrorKind::Os(libc::EBADF)) };
        let make = || match open.key.node().body {
            Body::File { read: Read::Text(make) | Read::Long(make), .. } => make(self, open.key),
            _ => None,
        };
        text.read(offset, size, || {
            let text = self.kept.text(open.key, Instant::now(), self.is_owner(open), make);
            text.map_err(|_| self.too_much(open))?.ok_or_else(|| self.vanished(open))
        })
    }

    /// The errno for a reader of what is not there any more.
    fn vanished(&self, open: &Open) -> ErrorKind {
        log::debug!("{}: not read, uid {}: ENODEV, it is gone", walk::path(self, open.key), open.opener.uid);
        ErrorKind::Os(libc::ENODEV)
    }

    /// poll(2): whether a read would find something. Where not, `notify` is told when it would.
    pub(super) fn poll(&self, file: u64, notify: Option<Notify>) -> bool {
        let Some(open) = self.handles.get(file) else { return true };
        match &open.content {
            Content::Events(cursor) => {
                let cursor = *cursor.lock();
                self.events.poll(file, cursor, notify)
            }
            Content::Wait(wait) => self.waiting.poll((file, wait), notify),
            Content::Text(_) | Content::Specs(_) | Content::Check(_) | Content::Dir(_) => true,
        }
    }

    /// write(2): carried out, and answered, on a thread of its own, because it may open devices.
    pub(super) fn write(
        self: &Arc<Self>,
        file: u64,
        writer: Caller,
        data: Vec<u8>,
        reply: impl FnOnce(Result<(), ErrorKind>) + Send + 'static,
    ) {
        let Some(open) = self.handles.get(file) else { return reply(Err(ErrorKind::Os(libc::EBADF))) };
        let tree = Arc::clone(self);
        aside("write", move || reply(tree.write_now(&open, writer, &data)));
    }

    fn write_now(&self, open: &Open, writer: Caller, data: &[u8]) -> Result<(), ErrorKind> {
        let logged = data[..data.len().min(LOGGED_MAX)].trim_ascii_end();
        let whole = |error| Refused { error, line: logged.to_vec(), span: 0..logged.len() };
        let result = self.judge(open, writer, data.len()).map_err(whole).and_then(|()| match &open.content {
            Content::Specs(specs) => specs.write(&self.jobs, data),
            Content::Check(check) => check.write(&self.jobs, &self.checked, data),
            _ => match open.key.node().body {
                Body::File { write: Write::Text(write), .. } => write(self, open.key, data).map_err(whole),
                Body::File { write: Write::Clear(clear), .. } => {
                    clear(self);
                    Ok(())
                }
                _ => Err(whole(Error::new(ErrorKind::Access, "this file is not written"))),
            },
        });
        self.kept.outdate();
        result.map_err(|refused| {
            match &open.content {
                Content::Specs(specs) => specs.refuse(&refused.error),
                Content::Check(check) => check.refuse(&self.checked, &refused.error),
                _ => {}
            }
            self.refused(open, writer, &refused);
            refused.error.kind()
        })
    }

    fn judge(&self, open: &Open, writer: Caller, len: usize) -> Result<(), Error> {
        let max = self.write_max.load(Ordering::Relaxed);
        let (opener, owner) = (open.opener.uid, self.config.uid);
        if !access::may_write(&self.config, opener, writer.uid) {
            let why = format!(
                "only the owner of the mount, user {owner}, writes: opened by {opener}, written by {}",
                writer.uid
            );
            return Err(Error::new(ErrorKind::Access, why));
        }
        if len > max {
            let why = format!("{len} bytes in one write; the kernel keeps only {max} together: write less at a time");
            return Err(Error::new(ErrorKind::TooBig, why));
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Os(libc::ENOTCONN), "the daemon is ending"));
        }
        Ok(())
    }

    /// Enters a refused name; gives its errno.
    fn refused_name(&self, key: Key, name: &OsStr, caller: Caller, error: Error) -> ErrorKind {
        let kind = error.kind();
        let file = walk::path(self, key);
        let refused = Refused { error, line: name.as_encoded_bytes().to_vec(), span: 0..name.len() };
        self.errors.enter(SystemTime::now(), caller.of_process(), &file, &refused);
        kind
    }

    fn refused(&self, open: &Open, writer: Caller, refused: &Refused) {
        let (file, writer) = (walk::path(self, open.key), writer.of_process());
        log::info!("{file}: refused, pid {} uid {}: {}", writer.pid, writer.uid, refused.error);
        self.errors.enter(SystemTime::now(), writer, &file, refused);
    }

    /// The last close(2) of an open file.
    pub(super) fn release(&self, file: u64) {
        let Some(open) = self.handles.remove(file) else { return };
        match &open.content {
            Content::Events(_) => self.events.forget(file),
            Content::Wait(_) => self.waiting.forget(file),
            Content::Specs(Specs { lines, .. }) | Content::Check(Check { lines, .. }) => {
                if let Some(refused) = lines.leftover() {
                    self.refused(&open, open.opener, &refused);
                }
            }
            Content::Text(_) | Content::Dir(_) => {}
        }
    }
}

/// Does what may take its time, and answers, on a thread of its own. Where there is none to be had, the reply in `work`
/// is dropped with it, which answers EIO.
fn aside(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(work) {
        log::error!("no thread for a {name}: {error}");
    }
}

/// Bytes of a write that are logged where no single line is to blame.
const LOGGED_MAX: usize = 4096;
