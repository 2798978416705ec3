//! Who may write, and what the modes say about it.
//!
//! The kernel judges open(2) by the modes (`default_permissions`). That is not enough: a descriptor can be handed to
//! another user, or be opened by one and written by a privileged program. So opener and writer are judged again here, at
//! each write.

use super::table::Node;
use super::tree::TreeConfig;

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// User.
    pub(super) uid: u32,
    /// Process, or a thread of it: see [`of_process`](Self::of_process).
    pub(super) pid: u32,
}

impl Caller {
    /// The same, by the number of its process. FUSE tells that of the thread, which no `ps` shows; a thread that is gone
    /// keeps it.
    pub(super) fn of_process(self) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let pid = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
        Self { pid: pid.unwrap_or(self.pid), ..self }
    }
}

/// The bits that `mode=` may add: the owner's and the group's, and reading for others. Others never write.
const WIDEN_MASK: u16 = 0o664;

/// A node's permission bits: the table's, and for a writable file those that `mode=` adds. A file that the table lets
/// nobody read stays so.
pub(super) fn mode(node: &Node, config: &TreeConfig) -> u16 {
    if !node.is_writable() {
        return node.mode;
    }
    let added = config.mode & WIDEN_MASK & if node.is_readable() { 0o666 } else { 0o222 };
    node.mode | added
}

/// Whether it is the mount's owner, or root: who makes and removes directories, whatever `mode=` says.
pub(super) const fn owns(config: &TreeConfig, uid: u32) -> bool {
    uid == config.uid || uid == 0
}

/// Whether a write by `writer`, through a file that `opener` opened, may be carried out.
///
/// Both must be the mount's owner or root. Where `mode=` lets a group write, the kernel knows who is in it and has
/// judged at open(2): then the writer must be who opened the file, or the owner or root.
pub(super) fn may_write(config: &TreeConfig, opener: u32, writer: u32) -> bool {
    let group_writes = config.mode & 0o020 != 0;
    (owns(config, writer) && owns(config, opener)) || (group_writes && writer == opener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::table::nodes;

    fn config(mode: u16) -> TreeConfig {
        TreeConfig { uid: 1000, gid: 6, mode, allow_other: true }
    }

    fn mode_of(path: &str, option: u16) -> u16 {
        mode(nodes().iter().find(|node| node.path == path).unwrap(), &config(option))
    }

    #[test]
    fn a_thread_is_known_by_its_process() {
        let own = std::process::id();
        let thread = || std::fs::read_link("/proc/thread-self").unwrap().file_name().unwrap().to_str().unwrap().parse();
        let pid = std::thread::spawn(move || {
            let pid = thread().unwrap();
            assert_ne!(pid, own);
            Caller { uid: 0, pid }.of_process().pid
        });
        assert_eq!(pid.join().unwrap(), own);
        assert_eq!(Caller { uid: 0, pid: 0 }.of_process().pid, 0);
    }

    #[test]
    fn mode_widens_writable_files_alone() {
        for (path, plain, widened) in [
            ("jobs/new", 0o600, 0o660),
            ("jobs/ID/control", 0o200, 0o220),
            ("error_log", 0o644, 0o664),
            ("jobs/ID/status", 0o444, 0o444),
            ("jobs", 0o755, 0o755),
        ] {
            assert_eq!(mode_of(path, 0o600), plain, "{path}");
            assert_eq!(mode_of(path, 0o660), widened, "{path}");
        }
        assert_eq!(mode_of("jobs/new", 0o777) & 0o002, 0, "others never write");
    }

    #[test]
    fn opener_and_writer_are_both_judged() {
        let owner_only = config(0o600);
        assert!(
            may_write(&owner_only, 1000, 1000) && may_write(&owner_only, 1000, 0) && may_write(&owner_only, 0, 1000)
        );
        assert!(!may_write(&owner_only, 1000, 1001), "a descriptor handed on");
        assert!(!may_write(&owner_only, 1001, 0), "a privileged program misled");
        assert!(!may_write(&owner_only, 1001, 1001));
        let group = config(0o660);
        assert!(may_write(&group, 1001, 1001) && !may_write(&group, 1001, 1002) && !may_write(&group, 1001, 0));
    }
}
