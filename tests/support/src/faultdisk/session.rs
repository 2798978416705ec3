//! The FUSE side of a disk: a directory with one file, `disk`, and the thread that serves it.
//!
//! # Who waits for whom
//! The session's threads must never wait for their own disk, nor for a lock that is held across I/O to it; every other
//! thread may. A process that is killed while one of its own threads waits for its disk stays behind until the mount is
//! aborted: the next test process does that, see [`crate::sweep`].

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyOpen, ReplyWrite, SessionACL, TimeOrNow, WriteFlags,
};

use super::state::{Request, Shared};
use crate::{mounts, sweep};

/// The file's name and inode.
const NAME: &str = "disk";
const INODE: INodeNo = INodeNo(2);

/// `FS_IOC_GETVERSION` of linux/fs.h, and its answer.
const FS_IOC_GETVERSION: u32 = 0x8008_7601;
const GENERATION: u64 = 1;

/// Attributes are asked for anew each time: the size may change.
const TTL: Duration = Duration::ZERO;

/// Requests that the kernel hands us at once; as many as a loop device has in flight, so that hung ones do not block
/// others.
const MAX_BACKGROUND: u16 = 128;

/// A served mount; dropping it takes the mount away, whoever uses it.
#[derive(Debug)]
pub(super) struct Session {
    dir: PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Session {
    /// Mounts the disk on a fresh directory and serves it.
    pub(super) fn start(shared: Arc<Shared>) -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("kcopyfs-faultdisk-").tempdir()?.keep();
        let (ready, is_ready) = mpsc::channel();
        let point = dir.clone();
        let thread = thread::Builder::new().name(sweep::SESSION_THREAD.to_owned()).spawn(move || {
            match mount(shared, &point) {
                Ok(session) => {
                    let _ = ready.send(Ok(()));
                    // ends when the mount does
                    let _ = session.run();
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
        // made before the answer is looked at, so that a failure cleans up too
        let session = Self { dir, thread: Some(thread) };
        is_ready.recv().map_err(|_| io::Error::other("the session's thread panicked"))??;
        Ok(session)
    }

    /// The file that is the disk.
    pub(super) fn image(&self) -> PathBuf {
        self.dir.join(NAME)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // fails only where nothing was mounted
        let _ = mounts::unmount_now(&self.dir);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let _ = fs::remove_dir(&self.dir);
    }
}

fn mount(shared: Arc<Shared>, point: &Path) -> io::Result<fuser::Session<FaultFs>> {
    let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    mounts::mount_fuse(fuse.as_fd(), point, sweep::MOUNT_KIND, &sweep::mount_source())?;
    fuser::Session::from_fd(FaultFs(shared), fuse.into(), SessionACL::All, Config::default())
}

/// The file system: it only forwards.
struct FaultFs(Arc<Shared>);

impl FaultFs {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_file = inode == INODE;
        let size = if is_file { self.0.state.lock().medium.size() } else { 0 };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file { FileType::RegularFile } else { FileType::Directory },
            perm: if is_file { 0o644 } else { 0o755 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 512,
            flags: 0,
        }
    }
}

impl Filesystem for FaultFs {
    fn init(&mut self, _req: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        // without it the loop driver's requests come one at a time, and one that hangs blocks the whole device
        config.add_capabilities(InitFlags::FUSE_ASYNC_DIO).map_err(|_| io::Error::other("no FUSE_ASYNC_DIO"))?;
        config.set_max_background(MAX_BACKGROUND).map_err(|_| io::Error::other("max_background"))?;
        Ok(())
    }

    fn lookup(&self, _req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == NAME {
            reply.entry(&TTL, &self.attributes(INODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _req: &fuser::Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(ino));
    }

    fn setattr(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
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
        // a disk has the size that its owner gives it: FaultDisk::resize
        if size.is_some() {
            reply.error(Errno::EPERM);
        } else {
            reply.attr(&TTL, &self.attributes(ino));
        }
    }

    fn open(&self, _req: &fuser::Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);
    }

    fn read(
        &self,
        _req: &fuser::Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.0.submit(Request::Read { offset, len: size, reply });
    }

    fn write(
        &self,
        _req: &fuser::Request,
        _ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.0.submit(Request::Write { offset, data: data.to_vec(), reply });
    }

    fn fsync(&self, _req: &fuser::Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.0.submit(Request::Flush { reply });
    }

    fn flush(&self, _req: &fuser::Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        // close(2) flushes no disk
        reply.ok();
    }

    fn ioctl(
        &self,
        _req: &fuser::Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        // by its generation, of which there is one, the disk is known to be the same
        match cmd {
            FS_IOC_GETVERSION => reply.ioctl(0, &GENERATION.to_ne_bytes()),
            _ => reply.error(Errno::ENOTTY),
        }
    }

    fn readdir(&self, _req: &fuser::Request, _ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if offset == 0 {
            // one entry fits every buffer
            let _ = reply.add(INODE, 1, FileType::RegularFile, NAME);
        }
        reply.ok();
    }
}
