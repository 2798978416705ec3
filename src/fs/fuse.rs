//! FUSE's requests, forwarded to the tree. Decides nothing but how a meaning is said in the protocol.
//!
//! - Every file is opened with direct I/O: what is read is made now, and no page cache keeps it.
//! - Names that are not there are not remembered by the kernel, because jobs appear; what is there, for a second, but
//!   sizes that grow by themselves shorter.
//! - What this file system does not have (extended attributes, flush, seek to data) is answered ENOSYS, which the kernel
//!   remembers: it does not ask again.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::access::Caller;
use super::inode::Key;
use super::mount;
use super::table::Kind;
use super::tree::{Attr, Tree, TreeConfig};
use super::walk::Entry;
use crate::error::ErrorKind;

/// How long the kernel believes names and attributes.
const TTL: Duration = Duration::from_secs(1);
/// The same of a job that runs. Walking a path through a directory takes its attributes, so that nothing at all would cost a
/// request more for each file of it that is opened.
const MOVING_TTL: Duration = Duration::from_millis(100);
/// Inode numbers are used once.
const GENERATION: Generation = Generation(0);
/// Longest name, as of other file systems.
const NAME_MAX: u32 = 255;
/// Most pages of one request, where the kernel says nothing else; what it has without `FUSE_MAX_PAGES`.
const REQUEST_PAGES: usize = 256;
const REQUEST_PAGES_OLD: usize = 32;

/// The tree as FUSE sees it.
pub(super) struct Glue {
    tree: Arc<Tree>,
}

impl Glue {
    pub(super) fn new(tree: Arc<Tree>) -> Self {
        Self { tree }
    }

    fn file_attr(&self, attr: &Attr) -> FileAttr {
        file_attr(attr, &self.tree.config)
    }

    /// The errno for who wants to make a file.
    fn not_made(&self, dir: INodeNo, name: &OsStr, request: &Request) -> Errno {
        directory(dir).map_or(Errno::ENOENT, |dir| errno(self.tree.not_made(dir, name, caller(request))))
    }

    /// Answers with the attributes of an inode, or ENOENT where it is gone.
    fn reply_attr(&self, ino: INodeNo, reply: ReplyAttr) {
        match Key::from_ino(ino.0).and_then(|key| self.tree.attr(key)) {
            Some(attr) => reply.attr(&attr_ttl(&attr), &self.file_attr(&attr)),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// Gives an open directory's entries from number `offset` on to `emit`, with the cursor that comes after each, until
    /// it says that it is full.
    fn list(&self, file: FileHandle, offset: u64, mut emit: impl FnMut(u64, &Entry) -> bool) -> Result<(), Errno> {
        let entries = self.tree.list(file.0, offset == 0).map_err(errno)?;
        let first = usize::try_from(offset).unwrap_or(usize::MAX).min(entries.len());
        for (cursor, entry) in (offset + 1..).zip(&entries[first..]) {
            if emit(cursor, entry) {
                break;
            }
        }
        Ok(())
    }
}

fn file_attr(attr: &Attr, config: &TreeConfig) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.key.ino()),
        size: attr.size,
        blocks: 0,
        atime: attr.time,
        mtime: attr.time,
        ctime: attr.time,
        crtime: attr.time,
        kind: file_type(attr.kind),
        perm: attr.mode,
        // One, for directories too: subdirectories come and go, and find(1) must not count on their number.
        nlink: 1,
        uid: config.uid,
        gid: config.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::Dir => FileType::Directory,
        Kind::File => FileType::RegularFile,
        Kind::Link => FileType::Symlink,
    }
}

/// How long the kernel believes a name.
fn name_ttl(key: Key) -> Duration {
    if key.node().is_fleeting() { Duration::ZERO } else { TTL }
}

/// How long the kernel believes attributes.
fn attr_ttl(attr: &Attr) -> Duration {
    match attr.kind {
        Kind::Dir if attr.moves => MOVING_TTL,
        // tail(1) trusts the size of what it follows.
        _ if attr.moves => Duration::ZERO,
        _ => TTL,
    }
}

fn errno(kind: ErrorKind) -> Errno {
    Errno::from_i32(kind.errno())
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), pid: request.pid() }
}

fn directory(ino: INodeNo) -> Option<Key> {
    Key::from_ino(ino.0).filter(|key| key.node().kind() == Kind::Dir)
}

/// How long a write surely comes in one request: one page less than a request holds, because the writer's buffer may
/// begin within a page.
fn write_max(config: &KernelConfig) -> usize {
    let has_max_pages = config.capabilities().contains(InitFlags::FUSE_MAX_PAGES);
    let pages = if has_max_pages { mount::request_pages_max().min(REQUEST_PAGES) } else { REQUEST_PAGES_OLD };
    pages.saturating_sub(1).max(1) * mount::page_size()
}

/// Requests that are always answered with one errno, and the arguments that none of them looks at.
macro_rules! always {
    ($($errno:ident: $request:ident($($argument:ty),*) -> $reply:ty;)*) => {
        $(fn $request(&self, _: &Request, $(_: $argument,)* reply: $reply) {
            reply.error(Errno::$errno);
        })*
    };
}

impl Filesystem for Glue {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_ATOMIC_O_TRUNC;
        // What the kernel does not have it does without.
        _ = config.add_capabilities(wanted & config.capabilities());
        let request_bytes = u32::try_from(REQUEST_PAGES * mount::page_size()).unwrap_or(u32::MAX);
        if let Err(most) = config.set_max_write(request_bytes) {
            _ = config.set_max_write(most);
        }
        self.tree.set_write_max(write_max(config));
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match directory(parent).and_then(|dir| self.tree.lookup(dir, name)) {
            Some(attr) => {
                reply.entry_with_ttls(&attr_ttl(&attr), &name_ttl(attr.key), &self.file_attr(&attr), GENERATION);
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.reply_attr(ino, reply);
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // Sizes and times are accepted: `>` and touch(1) set them. They mean nothing, but that a log can be emptied.
        if mode.is_some() || uid.is_some() || gid.is_some() {
            return reply.error(Errno::EPERM);
        }
        if let Some(key) = Key::from_ino(ino.0).filter(|_| size == Some(0)) {
            self.tree.truncate(key, caller(req));
        }
        self.reply_attr(ino, reply);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match Key::from_ino(ino.0).and_then(|key| self.tree.target(key)) {
            Some(target) => reply.data(target.as_bytes()),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mode = flags.acc_mode();
        let (reads, writes) = (mode != OpenAccMode::O_WRONLY, mode != OpenAccMode::O_RDONLY);
        let key = Key::from_ino(ino.0).ok_or(ErrorKind::NotFound);
        match key.and_then(|key| self.tree.open(key, caller(req), reads, writes)) {
            Ok(file) => {
                if let (Ok(key), true) = (key, writes && flags.0 & libc::O_TRUNC != 0) {
                    self.tree.truncate(key, caller(req));
                }
                reply.opened(FileHandle(file), FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(kind) => reply.error(errno(kind)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let block = flags.0 & libc::O_NONBLOCK == 0;
        self.tree.read(fh.0, offset, size as usize, block, move |result| match result {
            Ok(data) => reply.data(&data),
            Err(kind) => reply.error(errno(kind)),
        });
    }

    fn write(
        &self,
        req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = u32::try_from(data.len()).unwrap_or(u32::MAX);
        self.tree.write(fh.0, caller(req), data.to_vec(), move |result| match result {
            Ok(()) => reply.written(written),
            Err(kind) => reply.error(errno(kind)),
        });
    }

    fn poll(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        ph: PollNotifier,
        events: PollEvents,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let notify = move || {
            if let Err(error) = ph.notify() {
                log::debug!("poll: {error}");
            }
        };
        let wanted = flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY);
        let readable = self.tree.poll(fh.0, wanted.then(|| Box::new(notify) as _));
        let mut ready = PollEvents::POLLOUT | PollEvents::POLLWRNORM;
        ready.set(PollEvents::POLLIN | PollEvents::POLLRDNORM, readable);
        reply.poll(ready & events);
    }

    fn release(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.tree.release(fh.0);
        reply.ok();
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match directory(ino) {
            Some(dir) => reply.opened(FileHandle(self.tree.open_dir(dir, caller(req))), FopenFlags::empty()),
            None => reply.error(Errno::ENOTDIR),
        }
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.list(fh, offset, |cursor, Entry { name, key }| {
            reply.add(INodeNo(key.ino()), cursor, file_type(key.node().kind()), name)
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let listed = self.list(fh, offset, |cursor, Entry { name, key }| {
            // What has gone since the directory was looked at is passed over.
            self.tree.attr(*key).is_some_and(|attr| {
                let ttl = attr_ttl(&attr).min(name_ttl(*key));
                let attr = self.file_attr(&attr);
                reply.add(attr.ino, cursor, name, &ttl, &attr, GENERATION)
            })
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.tree.release(fh.0);
        reply.ok();
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let Some(dir) = directory(parent) else { return reply.error(Errno::ENOTDIR) };
        self.tree.remove(dir, name, caller(req), move |result| match result {
            Ok(()) => reply.ok(),
            Err(kind) => reply.error(errno(kind)),
        });
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        let Some(dir) = directory(parent) else { return reply.error(Errno::ENOTDIR) };
        let config = self.tree.config;
        self.tree.make(dir, name, caller(req), move |result| match result {
            Ok(attr) => {
                reply.entry_with_ttls(&attr_ttl(&attr), &name_ttl(attr.key), &file_attr(&attr, &config), GENERATION);
            }
            Err(kind) => reply.error(errno(kind)),
        });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        let is_file = matches!(mode & libc::S_IFMT, 0 | libc::S_IFREG);
        reply.error(if is_file { self.not_made(parent, name, req) } else { Errno::EPERM });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        reply.error(self.not_made(parent, name, req));
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(0, 0, 0, 0, 0, 4096, NAME_MAX, 4096);
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    always! {
        EPERM: symlink(INodeNo, &OsStr, &Path) -> ReplyEntry;
        EPERM: link(INodeNo, INodeNo, &OsStr) -> ReplyEntry;
        EPERM: unlink(INodeNo, &OsStr) -> ReplyEmpty;
        EPERM: rename(INodeNo, &OsStr, INodeNo, &OsStr, RenameFlags) -> ReplyEmpty;
        ENOSYS: flush(INodeNo, FileHandle, LockOwner) -> ReplyEmpty;
        ENOSYS: lseek(INodeNo, FileHandle, i64, i32) -> ReplyLseek;
        ENOSYS: ioctl(INodeNo, FileHandle, IoctlFlags, u32, &[u8], u32) -> ReplyIoctl;
        ENOSYS: getxattr(INodeNo, &OsStr, u32) -> ReplyXattr;
        ENOSYS: listxattr(INodeNo, u32) -> ReplyXattr;
        ENOSYS: setxattr(INodeNo, &OsStr, &[u8], i32, u32) -> ReplyEmpty;
        ENOSYS: removexattr(INodeNo, &OsStr) -> ReplyEmpty;
    }
}
