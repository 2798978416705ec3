//! What sysfs says of a block device that will be the same after a restart.

use std::io;
use std::path::{Path, PathBuf};

use crate::blkdev::settled::Settled;
use crate::blkdev::sysfs::{self, node_in, settled};

/// A block device's directory in sysfs.
#[derive(Debug)]
pub(super) struct Node(PathBuf);

impl Node {
    /// The device of that number, below `/sys` or, in tests, a tree like it.
    pub(super) fn of(root: &Path, rdev: u64) -> Self {
        Self(node_in(root, rdev))
    }

    /// An attribute as it is.
    pub(super) fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        sysfs::read(&self.0.join(name))
    }

    /// An attribute as one word of printable ASCII; `None` where it says nothing.
    fn word(&self, name: &str) -> Option<String> {
        self.bytes(name).map(|bytes| word(&bytes)).filter(|word| !word.is_empty())
    }

    /// A name that somebody gave to this one device. All zeros are what hardware says that was never given one.
    ///
    /// # Errors
    /// As [`sysfs::attribute`].
    fn name(&self, attribute: &str) -> io::Result<Option<String>> {
        let name = sysfs::attribute(&self.0.join(attribute))?.map(|bytes| word(&bytes));
        Ok(name.filter(|name| {
            let (_, unique) = name.split_once('.').unwrap_or(("", name));
            unique.bytes().any(|byte| byte.is_ascii_alphanumeric() && byte != b'0')
        }))
    }

    /// Its size, as part of an identity.
    pub(super) fn sectors(&self) -> String {
        self.word("size").map_or_else(String::new, |sectors| format!(";sectors={sectors}"))
    }

    fn is_partition(&self) -> bool {
        settled(&self.0.join("partition")).is_some()
    }

    /// The disk that a partition is on.
    fn disk(&self) -> Self {
        Self(self.0.join(".."))
    }

    /// The partition's own name, by which it is found even if its disk has none.
    fn partuuid(&self) -> Option<String> {
        let uevent = self.bytes("uevent")?;
        let line = uevent.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"PARTUUID="))?;
        let uuid = word(line);
        // A disk label without an identifier of its own numbers its partitions 00000000-01 and so on.
        let label = uuid.rsplit_once('-').map_or(uuid.as_str(), |(label, _)| label);
        label.bytes().any(|byte| byte.is_ascii_alphanumeric() && byte != b'0').then_some(uuid)
    }

    /// Where the partition is on its disk.
    fn place(&self) -> Option<String> {
        Some(format!("{}+{}", self.word("partition")?, self.word("start")?))
    }
}

/// What lasts of a block device. `below` tells of a loop device what it is over; `boot` names the time since the machine
/// started, if an identity that ends with it will do.
pub(super) fn identity(node: &Node, below: impl FnOnce(&Node) -> Option<String>, boot: Option<&str>) -> Option<String> {
    if !node.is_partition() {
        return lasting(node, below).or_else(|| until_restart(node, boot?));
    }
    let (disk, sectors) = (node.disk(), node.sectors());
    let (uuid, place) = (node.partuuid(), node.place());
    match (lasting(&disk, below), uuid) {
        (Some(disk), Some(uuid)) => Some(format!("part:{uuid}{sectors};on={disk}")),
        (Some(disk), None) => Some(format!("part:{}{sectors};on={disk}", place?)),
        (None, Some(uuid)) => Some(format!("part:{uuid}{sectors}")),
        (None, None) => Some(format!("part:{}{sectors};on={}", place?, until_restart(&disk, boot?)?)),
    }
}

/// A disk by its own name and its size; where it has no name, by what is below it.
fn lasting(disk: &Node, below: impl FnOnce(&Node) -> Option<String>) -> Option<String> {
    own_name(disk).map(|name| format!("{name}{}", disk.sectors())).or_else(|| below(disk))
}

/// A disk by what it or its driver calls it.
fn own_name(disk: &Node) -> Option<String> {
    static NAMES: Settled<PathBuf, Option<String>> = Settled::new();
    NAMES.get(disk.0.as_path(), || read_own_name(disk).map_err(|_| None))
}

/// The same, the most particular first.
fn read_own_name(disk: &Node) -> io::Result<Option<String>> {
    let named = [
        ("dm", "dm/uuid"),
        ("md", "md/uuid"),
        ("wwid", "wwid"),
        ("wwid", "device/wwid"),
        ("serial", "serial"),
        ("serial", "device/serial"),
        ("cid", "device/cid"),
    ];
    for (kind, attribute) in named {
        if let Some(name) = disk.name(attribute)? {
            let model = (kind == "serial").then(|| disk.word("device/model")).flatten();
            let model = model.map_or_else(String::new, |model| format!(";model={model}"));
            return Ok(Some(format!("{kind}:{name}{model}")));
        }
    }
    Ok(None)
}

/// The name of a whole disk's bytes, which outlives a change of its size: what it is called, else its number of this boot.
pub(super) fn medium(disk: &Node, boot: &str) -> Option<String> {
    own_name(disk).or_else(|| Some(format!("boot:{boot};diskseq={}", disk.word("diskseq")?)))
}

/// A disk by the number that the kernel gives to each one that appears, and again when its medium or file is changed.
fn until_restart(disk: &Node, boot: &str) -> Option<String> {
    Some(format!("boot:{boot};diskseq={}{}", disk.word("diskseq")?, disk.sectors()))
}

/// Text without blanks around it; within, a run of them is `_`, and what could be mistaken is `%HH`.
fn word(bytes: &[u8]) -> String {
    let parts = bytes.split(u8::is_ascii_whitespace).filter(|part| !part.is_empty());
    let escape = |byte: &u8| match byte {
        b';' | b'=' | b'%' => format!("%{byte:02x}"),
        byte if byte.is_ascii_graphic() => char::from(*byte).to_string(),
        byte => format!("%{byte:02x}"),
    };
    parts.map(|part| part.iter().map(escape).collect::<Vec<_>>().concat()).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A tree like sysfs with a disk 8:0 and its partition 8:2.
    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(disk: &[(&str, &str)]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(tree.0.path().join("dev/block")).unwrap();
            tree.device("8:0", "devices/pci0/sda", &[("size", "1000\n"), ("diskseq", "9\n")]);
            tree.device("8:0", "devices/pci0/sda", disk);
            tree
        }

        fn partition(self, attributes: &[(&str, &str)]) -> Self {
            let own = [("size", "100\n"), ("partition", "2\n"), ("start", "2048\n")];
            self.device("8:2", "devices/pci0/sda/sda2", &own);
            self.device("8:2", "devices/pci0/sda/sda2", attributes);
            self
        }

        fn device(&self, number: &str, place: &str, attributes: &[(&str, &str)]) {
            for (name, value) in attributes {
                let path = self.0.path().join(place).join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, value).unwrap();
            }
            let link = self.0.path().join("dev/block").join(number);
            let _ = std::os::unix::fs::symlink(Path::new("../..").join(place), link);
        }

        fn identity(&self, minor: u32) -> Option<String> {
            let node = Node::of(self.0.path(), libc::makedev(8, minor));
            identity(&node, |_| None, Some("B"))
        }
    }

    fn disk(attributes: &[(&str, &str)]) -> String {
        Tree::new(attributes).identity(0).unwrap()
    }

    #[test]
    fn disks_are_known_by_the_most_particular_name() {
        let scsi = [("device/wwid", "naa.5000c500a1b2c3d4\n"), ("device/serial", "S1"), ("device/model", "M")];
        assert_eq!(disk(&scsi), "wwid:naa.5000c500a1b2c3d4;sectors=1000");
        assert_eq!(disk(&[("wwid", "eui.0025385b71b0a1c2\n")]), "wwid:eui.0025385b71b0a1c2;sectors=1000");
        assert_eq!(disk(&[("serial", "vol-1")]), "serial:vol-1;sectors=1000");
        let ata = [("device/serial", " WD-1 \n"), ("device/model", "WDC  WD10 \n")];
        assert_eq!(disk(&ata), "serial:WD-1;model=WDC_WD10;sectors=1000");
        assert_eq!(disk(&[("device/cid", "150100ab\n")]), "cid:150100ab;sectors=1000");
        assert_eq!(disk(&[("dm/uuid", "LVM-a;b\n"), ("serial", "x")]), "dm:LVM-a%3bb;sectors=1000");
        assert_eq!(disk(&[("md/uuid", "1-2\n")]), "md:1-2;sectors=1000");
    }

    #[test]
    fn names_that_say_nothing_are_not_believed() {
        for name in ["", "\n", "  \n", "0000000000\n", "eui.0000000000000000\n", "---\n"] {
            assert_eq!(disk(&[("wwid", name), ("dm/uuid", name)]), "boot:B;diskseq=9;sectors=1000", "{name:?}");
        }
    }

    #[test]
    fn partitions_are_known_with_their_disk() {
        let uuid = ("uevent", "PARTN=2\nPARTUUID=1e2d-3c4b\n");
        let named = [("wwid", "naa.5")];
        let part = |disk: &[(&str, &str)], own: &[(&str, &str)]| Tree::new(disk).partition(own).identity(2).unwrap();
        assert_eq!(part(&named, &[uuid]), "part:1e2d-3c4b;sectors=100;on=wwid:naa.5;sectors=1000");
        assert_eq!(part(&named, &[]), "part:2+2048;sectors=100;on=wwid:naa.5;sectors=1000");
        assert_eq!(part(&[], &[uuid]), "part:1e2d-3c4b;sectors=100");
        let unnamed = ("uevent", "PARTUUID=00000000-02\n");
        assert_eq!(part(&[], &[unnamed]), "part:2+2048;sectors=100;on=boot:B;diskseq=9;sectors=1000");
    }

    #[test]
    fn without_anything_there_is_no_identity() {
        let tree = Tree::new(&[]);
        assert_eq!(tree.identity(1), None, "no such device");
        fs::remove_file(tree.0.path().join("devices/pci0/sda/diskseq")).unwrap();
        assert_eq!(tree.identity(0), None);
        let node = Node::of(tree.0.path(), libc::makedev(8, 0));
        assert_eq!(identity(&node, |_| Some("loop:0+0".to_owned()), None).as_deref(), Some("loop:0+0"));
    }
}
