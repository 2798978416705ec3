//! What lies on a device, told by its bytes: every kind is made by its own tool and compared with what blkid(8), wipefs(8) and
//! partx(8) say of it. What no tool can make without its kernel module is laid by hand, and blkid judges that too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Output};

use kcopyfs::signatures::{Found, Usage, probe};
use kcopyfs_support::{LoopDevice, need};

/// How to make an image: program, Debian package, bytes, and the shell's line, for which `$I` is the image.
struct Maker(&'static str, &'static str, u64, &'static str);

const MIB: u64 = 1 << 20;

/// Kinds, and who makes them. Those with one kind differ in their version.
static MAKERS: &[(&str, Maker)] = &[
    ("ext2", Maker("mkfs.ext2", "e2fsprogs", 8 * MIB, "mkfs.ext2 -q -F -L extwo $I")),
    ("ext3", Maker("mkfs.ext3", "e2fsprogs", 8 * MIB, "mkfs.ext3 -q -F -L exthree $I")),
    ("ext4", Maker("mkfs.ext4", "e2fsprogs", 8 * MIB, "mkfs.ext4 -q -F -L 'ext four' $I")),
    ("jbd", Maker("mke2fs", "e2fsprogs", 8 * MIB, "mke2fs -q -F -O journal_dev -L journal $I")),
    ("xfs", Maker("mkfs.xfs", "xfsprogs", 320 * MIB, "mkfs.xfs -q -L xlabel $I")),
    ("btrfs", Maker("mkfs.btrfs", "btrfs-progs", 128 * MIB, "mkfs.btrfs -q -L 'b label' $I")),
    ("vfat", Maker("mkfs.vfat", "dosfstools", 2 * MIB, "mkfs.vfat -F 12 -n TWELVE $I")),
    ("vfat", Maker("mkfs.vfat", "dosfstools", 16 * MIB, "mkfs.vfat -F 16 $I")),
    ("vfat", Maker("mkfs.vfat", "dosfstools", 64 * MIB, "mkfs.vfat -F 32 -n 'THIRTY TWO' $I")),
    ("exfat", Maker("mkfs.exfat", "exfatprogs", 16 * MIB, "mkfs.exfat -L exlabel $I")),
    ("ntfs", Maker("mkfs.ntfs", "ntfs-3g", 16 * MIB, "mkfs.ntfs -q -F -L 'nt label' $I")),
    ("swap", Maker("mkswap", "util-linux", MIB, "mkswap -q -L swlabel $I")),
    ("minix", Maker("mkfs.minix", "util-linux", MIB, "mkfs.minix $I")),
    ("minix", Maker("mkfs.minix", "util-linux", MIB, "mkfs.minix -3 $I")),
    ("bfs", Maker("mkfs.bfs", "util-linux", MIB, "mkfs.bfs $I")),
    ("cramfs", Maker("mkfs.cramfs", "util-linux", 0, "mkfs.cramfs -n cname $D $I")),
    ("f2fs", Maker("mkfs.f2fs", "f2fs-tools", 64 * MIB, "mkfs.f2fs -q -l flabel $I")),
    ("squashfs", Maker("mksquashfs", "squashfs-tools", 0, "rm $I && mksquashfs $D $I -quiet")),
    ("iso9660", Maker("genisoimage", "genisoimage", 0, "genisoimage -quiet -V ISOLABEL -J -o $I $D")),
    ("iso9660", Maker("genisoimage", "genisoimage", 0, "genisoimage -quiet -V 'mixed Case' -J -o $I $D")),
    ("udf", Maker("mkudffs", "udftools", 16 * MIB, "mkudffs --label=ulabel $I")),
    ("bcache", Maker("make-bcache", "bcache-tools", 16 * MIB, "make-bcache -B $I")),
    ("jfs", Maker("mkfs.jfs", "jfsutils", 32 * MIB, "mkfs.jfs -q -L jlabel $I")),
    ("reiserfs", Maker("mkreiserfs", "reiserfsprogs", 64 * MIB, "mkreiserfs -q -f -f -l rlabel $I")),
    ("nilfs2", Maker("mkfs.nilfs2", "nilfs-tools", 160 * MIB, "mkfs.nilfs2 -q -L nlabel $I")),
    ("erofs", Maker("mkfs.erofs", "erofs-utils", 0, "mkfs.erofs $I $D")),
    (
        "crypto_LUKS",
        Maker(
            "cryptsetup",
            "cryptsetup-bin",
            4 * MIB,
            "echo word | cryptsetup -q luksFormat --type luks1 --pbkdf-force-iterations 1000 $I -",
        ),
    ),
    (
        "crypto_LUKS",
        Maker(
            "cryptsetup",
            "cryptsetup-bin",
            20 * MIB,
            "echo word | cryptsetup -q luksFormat --type luks2 --label llabel --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $I -",
        ),
    ),
    ("gpt", Maker("sgdisk", "gdisk", 32 * MIB, "sgdisk -n 1:2048:+8M -c 1:'first one' -t 1:ef00 -n 5:0:+4M $I")),
    (
        "dos",
        Maker(
            "sfdisk",
            "fdisk",
            32 * MIB,
            "printf 'label: dos\\nx1: size=8M,type=83\\nx2: size=20M,type=5\\nx5: size=4M,type=7\\nx6: size=6M,type=82\\n' | sfdisk -q $I",
        ),
    ),
    ("sgi", Maker("sfdisk", "fdisk", 32 * MIB, "printf 'label: sgi\\n' | sfdisk -q $I")),
    ("sun", Maker("sfdisk", "fdisk", 32 * MIB, "printf 'label: sun\\nsize=8M\\n' | sfdisk -q $I")),
];

fn look(path: &Path) -> Vec<Found> {
    let file = File::open(path).expect("open the image");
    let size = std::io::Seek::seek(&mut &file, std::io::SeekFrom::End(0)).expect("its size");
    let mut read = |at: u64, count: usize| {
        let mut bytes = vec![0; count];
        file.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    };
    probe(size, &mut read)
}

fn run(line: &str, image: &Path, tree: &Path) -> Output {
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("I", image).env("D", tree).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin");
    shell.output().expect("sh runs")
}

/// What blkid says of an image: keys and values.
fn blkid(image: &Path) -> BTreeMap<String, String> {
    let output = run("blkid -p -o udev $I", image, image);
    assert!(output.status.success(), "blkid found nothing: {} {:?}", image.display(), look(image));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), decode(value))).collect()
}

/// A value in which udev's way of writing has `\xHH` for what is no letter.
fn decode(value: &str) -> String {
    let mut parts = value.split("\\x");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let byte = u8::from_str_radix(&part[..2], 16).expect("two digits");
        text + &char::from(byte).to_string() + &part[2..]
    })
}

/// Compares what we find with what blkid and wipefs say.
fn judge(kind: &str, image: &Path) {
    let found = look(image);
    let main = found.iter().find(|one| !one.is_backup).unwrap_or_else(|| panic!("{kind}: nothing found"));
    assert_eq!(main.kind, kind, "{found:#?}");
    let told = blkid(image);
    let get = |key: &str| told.get(key).cloned().filter(|value| !value.is_empty());
    if main.usage == Usage::Table {
        assert_eq!(get("ID_PART_TABLE_TYPE").as_deref(), Some(kind));
        assert_eq!(main.uuid, get("ID_PART_TABLE_UUID"), "{kind}");
    } else {
        assert_eq!(get("ID_FS_TYPE").as_deref(), Some(kind));
        assert_eq!(main.uuid, get("ID_FS_UUID_ENC"), "{kind}");
        assert_eq!(main.label, get("ID_FS_LABEL_ENC"), "{kind}");
    }
    // A boot sector looks like an empty table, and a GPT has one that protects it.
    let hidden: &[&str] = if kind == "gpt" { &["PMBR"] } else { &["dos"] };
    let wiped = run("wipefs -n -p $I", image, image);
    assert!(wiped.status.success(), "wipefs: {}", String::from_utf8_lossy(&wiped.stderr));
    let wiped = String::from_utf8_lossy(&wiped.stdout).into_owned();
    let types = wiped.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit(',').next());
    let types: BTreeSet<_> = types.filter(|other| *other == kind || !hidden.contains(other)).collect();
    let ours: BTreeSet<_> = found.iter().map(|one| one.kind).collect();
    assert_eq!(ours, types, "{kind}: {wiped}");
}

/// Compares a table's partitions with what partx says.
fn judge_partitions(image: &Path) {
    let output = run("partx --raw --noheadings --output NR,START,SECTORS,TYPE,UUID,NAME $I", image, image);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let theirs: Vec<String> = text.lines().map(|line| line.trim_end().to_owned()).collect();
    let found = look(image);
    let table = found.iter().find(|one| one.usage == Usage::Table).expect("a table");
    let ours = table.partitions.iter().map(|one| {
        let (start, sectors) = (one.bytes.start / 512, (one.bytes.end - one.bytes.start) / 512);
        // partx writes an MBR's types as numbers.
        let kind = u8::from_str_radix(&one.kind, 16).map_or(one.kind.clone(), |number| format!("{number:#x}"));
        let name = one.name.clone().unwrap_or_default().replace(' ', "\\x20");
        let line = format!("{} {start} {sectors} {kind} {} {name}", one.number, one.uuid.clone().unwrap_or_default());
        line.trim_end().to_owned()
    });
    assert_eq!(ours.collect::<Vec<_>>(), theirs);
    assert!(!theirs.is_empty());
}

#[test]
fn every_kind_is_told_as_blkid_and_wipefs_tell_it() {
    if !(need::program("blkid", "util-linux") && need::program("wipefs", "util-linux")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("a file"), "with something in it").unwrap();
    let mut seen = BTreeSet::new();
    for (kind, Maker(program, package, bytes, line)) in MAKERS {
        if !need::program(program, package) {
            continue;
        }
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(*bytes).unwrap();
        let made = run(line, &image, &tree);
        assert!(made.status.success(), "{line}: {}", String::from_utf8_lossy(&made.stderr));
        judge(kind, &image);
        if matches!(*kind, "gpt" | "dos") {
            judge_partitions(&image);
        }
        seen.insert(*kind);
        fs::remove_file(&image).unwrap();
    }
    eprintln!("{} kinds: {seen:?}", seen.len());
}

#[test]
fn a_physical_volume_is_told_as_blkid_tells_it_needs_root() {
    if !(need::loops() && need::program("pvcreate", "lvm2") && need::program("blkid", "util-linux")) {
        return;
    }
    let disk = LoopDevice::new(16 * MIB, 512);
    let line =
        "pvcreate -qq -ff -y --config 'devices { scan_lvs=0 use_devicesfile=0 } global { event_activation=0 }' $I";
    let made = run(line, disk.path(), disk.path());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    judge("LVM2_member", disk.path());
}

/// Numbers laid at places of an image.
fn lay(image: &Path, size: u64, bytes: &[(u64, &[u8])]) {
    let file = File::create(image).unwrap();
    file.set_len(size).unwrap();
    for (at, bytes) in bytes {
        file.write_all_at(bytes, *at).unwrap();
    }
}

#[test]
fn members_laid_by_hand_are_told_as_blkid_tells_them() {
    if !(need::program("blkid", "util-linux") && need::program("wipefs", "util-linux")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    let size = 16 * MIB;
    let magic = 0xa92b_4efc_u32.to_le_bytes();
    let id: Vec<u8> = (1..=16).collect();
    for at in [0, 4096, (size / 512 - 16) / 8 * 8 * 512] {
        let place = (at / 512).to_le_bytes();
        let one = 1_u32.to_le_bytes();
        let sector: [(u64, &[u8]); 5] =
            [(at, &magic), (at + 4, &one), (at + 16, &id), (at + 32, b"host:0"), (at + 144, &place)];
        lay(&image, size, &sector);
        judge("linux_raid_member", &image);
    }
    for big in [false, true] {
        let at = size - 0x1_0000;
        let number = |number: u32| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let (magic, minor) = (number(0xa92b_4efc), number(90));
        let words = [number(0x0102_0304), number(0x0506_0708), number(0x090a_0b0c), number(0x0d0e_0f10)];
        let sector: [(u64, &[u8]); 6] = [
            (at, &magic),
            (at + 8, &minor),
            (at + 20, &words[0]),
            (at + 52, &words[1]),
            (at + 56, &words[2]),
            (at + 60, &words[3]),
        ];
        lay(&image, size, &sector);
        judge("linux_raid_member", &image);
    }
    // blkid looks at nothing smaller.
    lay_pool(&image, 64 * MIB);
    judge("zfs_member", &image);
    let cow: [(u64, &[u8]); 2] = [(0, b"SnAp"), (4, &[1, 0, 0, 0])];
    lay(&image, size, &cow);
    judge("DM_snapshot_cow", &image);
    lay(&image, size, &[(0, b"bluestore block device")]);
    judge("ceph_bluestore", &image);
}

/// The labels of a pool's member: a list of names and values in XDR, and uberblocks.
fn lay_pool(image: &Path, size: u64) {
    let mut list = vec![1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut pair = |name: &str, kind: u32, value: &[u8]| {
        let padded = name.len().next_multiple_of(4);
        let length = u32::try_from(20 + padded + value.len()).unwrap();
        for number in [length, length, u32::try_from(name.len()).unwrap()] {
            list.extend(number.to_be_bytes());
        }
        list.extend(name.bytes().chain(std::iter::repeat_n(0, padded - name.len())));
        list.extend(kind.to_be_bytes());
        list.extend(1_u32.to_be_bytes());
        list.extend(value);
    };
    pair("name", 9, b"\0\0\0\x04tank");
    pair("pool_guid", 8, &0x0123_4567_89ab_cdef_u64.to_be_bytes());
    list.extend([0; 8]);
    let block = 0x00ba_b10c_u64.to_le_bytes();
    let labels = [0, 256 << 10, size - (512 << 10), size - (256 << 10)];
    let blocks: Vec<_> =
        labels.iter().flat_map(|label| (0..8).map(move |index| label + ((128 + index) << 10))).collect();
    let mut bytes: Vec<(u64, &[u8])> = blocks.iter().map(|at| (*at, &block[..])).collect();
    bytes.extend(labels.iter().map(|label| (label + (16 << 10), &list[..])));
    lay(image, size, &bytes);
}

#[test]
fn partitions_tell_what_is_in_them_and_a_copy_of_a_table_what_it_is() {
    if !(need::program("sgdisk", "gdisk") && need::program("mkfs.ext4", "e2fsprogs")) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    File::create(&image).unwrap().set_len(32 * MIB).unwrap();
    let line = "sgdisk -n 1:2048:+8M -n 2:0:+8M $I && mkfs.ext4 -q -F -L root -E offset=1048576 $I 8m";
    let made = run(line, &image, &image);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let found = look(&image);
    assert_eq!(found.iter().map(|one| (one.kind, one.is_backup)).collect::<Vec<_>>(), [("gpt", false), ("gpt", true)]);
    let inside = &found[0].partitions[0].content;
    assert_eq!((inside[0].kind, inside[0].label.as_deref()), ("ext4", Some("root")));
    assert!(found[0].partitions[1].content.is_empty());
    // The first header is lost: the other one still says it all.
    let file = File::options().write(true).open(&image).unwrap();
    file.write_all_at(&[0; 512], 512).unwrap();
    let found = look(&image);
    assert_eq!((found[0].kind, found[0].partitions.len(), found[0].offset), ("gpt", 2, 32 * MIB - 512));
    // The disk was made larger: the copy is in the middle.
    run("sgdisk -o -n 1:2048:+8M $I", &image, &image);
    file.set_len(64 * MIB).unwrap();
    let found = look(&image);
    let places: Vec<_> = found.iter().map(|one| (one.offset, one.is_backup)).collect();
    assert_eq!(places, [(512, false), (32 * MIB - 512, true)]);
}
