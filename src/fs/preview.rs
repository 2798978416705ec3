//! The text of `check`: what a job would do, to which disks, what would be lost, and what to think of. Pure.
//!
//! A line is at most [`WIDTH`] columns where paths and names are short enough; a list goes on in the next line.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use super::text::one_line;
use super::units::{amount, count};
use crate::blkdev::DeviceCard;
use crate::error::errno_name;
use crate::jobs::{Checked, CheckedRegion};
use crate::sector::SECTOR_SIZE;
use crate::signatures::{Found, Partition, Usage};
use crate::spec::Action;

/// Columns of a line.
const WIDTH: usize = 96;
/// Partitions of a table that are shown.
const PARTITIONS_MAX: usize = 32;

/// What would become of the specs of one write.
pub(super) fn render(checked: &[Checked]) -> String {
    let mut text = String::new();
    for (index, one) in checked.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        job(&mut text, one);
    }
    if !checked.is_empty() {
        text.push_str("nothing was started, made or written\n");
    }
    text
}

fn job(text: &mut String, checked: &Checked) {
    let Checked { spec, count: sectors, regions, waits } = checked;
    let what = match spec.action {
        Action::Copy => "copy",
        Action::Zero => "overwrite with zeros",
        Action::Verify => "compare",
        Action::Test => "test by overwriting",
    };
    let name = spec.name.as_deref().map_or_else(String::new, |name| format!(", named {}", one_line(name)));
    _ = writeln!(text, "{what} {} ({sectors} sectors){name}", amount(sectors.bytes()));
    if let Some(why) = waits {
        list(text, "", "  would wait", &[one_line(why)]);
    }
    let writes = spec.action != Action::Verify;
    for region in regions {
        show_region(text, region, sectors.bytes(), writes && region.dest.is_some());
    }
    for note in notes(checked) {
        list(text, "", "  note", &[note]);
    }
    if !writes {
        list(text, "", "  note", &["a comparison only reads: nothing would be lost".to_owned()]);
    }
}

/// `HEAD: a, b, c`, folded.
fn list(text: &mut String, indent: &str, head: &str, items: &[String]) {
    let mut line = format!("{indent}{head}:");
    let next = " ".repeat(line.chars().count());
    let mut has_words = false;
    for (index, item) in items.iter().enumerate() {
        let end = if index + 1 < items.len() { "," } else { "" };
        for word in format!("{item}{end}").split(' ') {
            if has_words && line.chars().count() + 1 + word.chars().count() > WIDTH {
                _ = writeln!(text, "{line}");
                line.clone_from(&next);
            }
            line.push(' ');
            line.push_str(word);
            has_words = true;
        }
    }
    _ = writeln!(text, "{line}");
}

fn show_region(text: &mut String, region: &CheckedRegion, bytes: u64, is_written: bool) {
    let role = region.dest.map_or_else(|| "source".to_owned(), |index| format!("destination {index}"));
    let from = if region.sector.get() == 0 { String::new() } else { format!(", from sector {}", region.sector) };
    _ = writeln!(text, "  {role}: {}{from}", name(region));
    let indent = "    ";
    if region.is_missing {
        list(text, indent, "device", &["a file that would be made".to_owned()]);
        return;
    }
    list(text, indent, "device", &device(&region.card));
    if region.found.is_empty() && region.unreadable.is_empty() {
        list(text, indent, "holds", &["nothing that is known: no table, file system or volume".to_owned()]);
    }
    for found in &region.found {
        list(text, indent, "holds", &[describe(found)]);
        for partition in found.partitions.iter().take(PARTITIONS_MAX) {
            list(text, &format!("{indent}  "), &format!("partition {}", partition.number), &[entry(partition)]);
        }
        if found.partitions.len() > PARTITIONS_MAX {
            _ = writeln!(text, "{indent}  and {} more", found.partitions.len() - PARTITIONS_MAX);
        }
    }
    for (at, errno) in &region.unreadable {
        let what = format!("near byte {at}: {}; what is there is not known", errno_name(*errno));
        list(text, indent, "not readable", &[what]);
    }
    if is_written {
        show_fate(text, indent, region, bytes);
    }
}

/// What becomes of what is there.
fn show_fate(text: &mut String, indent: &str, region: &CheckedRegion, bytes: u64) {
    let begin = region.sector.bytes();
    let fate = Fate::of(region, &(begin..begin.saturating_add(bytes)));
    let lists = [("lost", &fate.lost), ("damaged", &fate.damaged), ("stays behind it", &fate.stays)];
    for (head, items) in lists.into_iter().filter(|(_, items)| !items.is_empty()) {
        list(text, indent, head, items);
    }
    if region.is_file && region.size.get() == 0 {
        return;
    }
    if fate.lost.is_empty() && fate.damaged.is_empty() {
        let end = begin.saturating_add(bytes).min(region.size.bytes());
        if begin < end {
            list(text, indent, "lost", &[format!("{}, in which nothing is known", amount(end - begin))]);
        }
    }
}

/// What is overwritten, what is written into, and what stays behind the end and may be found there.
#[derive(Default)]
struct Fate {
    lost: Vec<String>,
    damaged: Vec<String>,
    stays: Vec<String>,
}

impl Fate {
    fn of(region: &CheckedRegion, written: &Range<u64>) -> Self {
        let mut fate = Self::default();
        if written.is_empty() {
            return fate;
        }
        for found in &region.found {
            let is_hit = written.contains(&found.offset);
            match found.usage {
                _ if is_hit && found.is_backup => {}
                _ if is_hit => fate.lost.push(brief(found)),
                // Behind a new content it would be found beside it.
                _ if written.start == 0 && found.offset >= written.end => {
                    let erase = format!("wipefs -o {:#x} {}", found.offset, name(region));
                    fate.stays.push(format!("{} at byte {} ({erase})", brief(found), found.offset));
                }
                Usage::Table => {}
                // It reaches over the whole device.
                _ => fate.damaged.push(brief(found)),
            }
            for partition in &found.partitions {
                let bytes = &partition.bytes;
                if bytes.start >= written.end || bytes.end <= written.start {
                    continue;
                }
                let content: Vec<_> = partition.content.iter().map(brief).collect();
                let content = if content.is_empty() { String::new() } else { format!(" ({})", content.join(", ")) };
                let what = format!("partition {}{content}", partition.number);
                let is_whole = written.start <= bytes.start && bytes.end <= written.end;
                if is_whole { &mut fate.lost } else { &mut fate.damaged }.push(what);
            }
        }
        fate
    }
}

fn name(region: &CheckedRegion) -> String {
    one_line(&Path::new(&region.path).to_string_lossy())
}

/// A device in the words on its label.
fn device(card: &DeviceCard) -> Vec<String> {
    let mut words = Vec::new();
    for (key, value) in card.fields() {
        let Some(value) = value.map(|value| one_line(&value)) else { continue };
        words.push(match key {
            "size" => amount(card.size),
            "serial" => format!("serial {value}"),
            "wwid" => format!("wwid {value}"),
            "temperature" => format!("{value} C"),
            "usb_port" => format!("USB port {value}"),
            "rotational" => (if value == "1" { "rotating" } else { "not rotating" }).to_owned(),
            _ => value,
        });
    }
    words
}

/// Kind and label.
fn brief(found: &Found) -> String {
    let label = found.label.as_deref().map_or_else(String::new, |label| format!(" \"{}\"", one_line(label)));
    let backup = if found.is_backup { " (backup header)" } else { "" };
    format!("{}{label}{backup}", found.kind)
}

/// Kind, label, UUID.
fn describe(found: &Found) -> String {
    let uuid = found.uuid.as_deref().map_or_else(String::new, |uuid| format!(", UUID {}", one_line(uuid)));
    let entries = found.partitions.len();
    let has = if entries > 0 { format!(", {}", count(entries as u64, "partition")) } else { String::new() };
    format!("{}{uuid}{has}", brief(found))
}

fn entry(partition: &Partition) -> String {
    let bytes = partition.bytes.end - partition.bytes.start;
    let mut text = format!("{} from sector {}", amount(bytes), partition.bytes.start / SECTOR_SIZE);
    for found in &partition.content {
        _ = write!(text, ", {}", describe(found));
    }
    if partition.content.is_empty() {
        _ = write!(text, ", type {}", partition.kind);
    }
    if let Some(name) = &partition.name {
        _ = write!(text, ", named \"{}\"", one_line(name));
    }
    text
}

/// What to think of before, and what to do after.
fn notes(checked: &Checked) -> Vec<String> {
    let regions = &checked.regions;
    let source = regions.iter().find(|region| region.dest.is_none());
    let mut notes = Vec::new();
    for region in regions {
        if let Some(what) = &region.mounted {
            let what = one_line(what);
            notes.push(match region.dest {
                None => format!("{what}: it is copied while it changes; unmount it, or mount it read-only, before"),
                Some(index) => format!("{what}, and destination {index} is there (force=mounted)"),
            });
        }
    }
    let Some(source) = source.filter(|_| checked.spec.action == Action::Copy) else { return notes };
    let begin = source.sector.bytes();
    let copied = begin..begin.saturating_add(checked.count.bytes());
    for dest in regions.iter().filter(|region| region.dest.is_some()) {
        notes.extend(backup_header(source, dest, &copied));
        notes.extend(other_blocks(source, dest, &copied));
        notes.extend(twins(source, dest, &copied));
    }
    notes
}

fn table<'a>(region: &'a CheckedRegion, copied: &Range<u64>) -> Option<&'a Found> {
    let is_whole = |found: &&Found| found.usage == Usage::Table && !found.is_backup && copied.contains(&found.offset);
    region.found.iter().find(is_whole).filter(|_| copied.start == 0)
}

/// The second header of a GPT belongs into the last sector.
fn backup_header(source: &CheckedRegion, dest: &CheckedRegion, copied: &Range<u64>) -> Option<String> {
    table(source, copied).filter(|table| table.kind == "gpt" && dest.sector.get() == 0)?;
    let backup = source.found.iter().find(|found| found.kind == "gpt" && found.is_backup).map(|found| found.offset);
    let name = name(dest);
    let device_end = if dest.is_file { dest.size.bytes().max(copied.end) } else { dest.size.bytes() };
    match backup.filter(|at| copied.contains(at)) {
        Some(at) if device_end > copied.end => Some(format!(
            "{name} is larger than what is copied: the backup header of the GPT would be in its middle, at sector {}; \
             after the copy: sgdisk -e {name}",
            at / SECTOR_SIZE
        )),
        Some(_) => None,
        None => Some(format!("the backup header of the GPT is not copied to {name}; after the copy: sgdisk -e {name}")),
    }
}

/// A table counts in the blocks of the disk that it was made for.
fn other_blocks(source: &CheckedRegion, dest: &CheckedRegion, copied: &Range<u64>) -> Option<String> {
    table(source, copied).filter(|_| !dest.is_file && !source.is_file && source.block != dest.block)?;
    let (theirs, ours) = (source.block, dest.block);
    Some(format!(
        "the partition table counts blocks of {theirs} bytes, and {} has blocks of {ours}: its partitions would not be found there",
        name(dest)
    ))
}

/// What is on both sides afterwards has one UUID twice.
fn twins(source: &CheckedRegion, dest: &CheckedRegion, copied: &Range<u64>) -> Option<String> {
    if dest.is_file {
        return None;
    }
    let is_copied = |found: &&Found| copied.contains(&found.offset) && !found.is_backup;
    let outer = source.found.iter().filter(is_copied);
    let is_inside = |partition: &&Partition| copied.contains(&partition.bytes.start);
    let partitions = source.found.iter().flat_map(|found| &found.partitions).filter(is_inside);
    let mut twins: Vec<&Found> = outer.chain(partitions.flat_map(|partition| &partition.content)).collect();
    twins.retain(|found| found.uuid.is_some());
    if twins.is_empty() {
        return None;
    }
    let mut remedies: Vec<&str> = twins.iter().filter_map(|found| new_uuid(found.kind)).collect();
    remedies.dedup();
    let what: Vec<_> = twins.iter().map(|found| brief(found)).collect();
    let remedy = if remedies.is_empty() { String::new() } else { format!(" (new ones: {})", remedies.join(", ")) };
    Some(format!(
        "{} and {} would have the same UUIDs ({}): the system may take one for the other; detach one, or change them{remedy}",
        name(source),
        name(dest),
        what.join(", ")
    ))
}

/// The command that gives something a new UUID.
fn new_uuid(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "ext2" | "ext3" | "ext4" => "tune2fs -U random",
        "xfs" => "xfs_admin -U generate",
        "btrfs" => "btrfstune -u",
        "gpt" => "sgdisk -G",
        "dos" => "sfdisk --disk-id",
        "swap" => "swaplabel -U",
        "LVM2_member" => "vgimportclone",
        "crypto_LUKS" => "cryptsetup luksUUID --uuid",
        "ntfs" => "ntfslabel --new-serial",
        "exfat" => "tune.exfat -I",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sector::Sector;
    use crate::spec::parse;

    const MIB: u64 = 1 << 20;

    fn found(kind: &'static str, usage: Usage, offset: u64, label: Option<&str>) -> Found {
        let (label, uuid) = (label.map(str::to_owned), Some(format!("id-{kind}")));
        Found { kind, usage, offset, label, uuid, partitions: Vec::new(), is_backup: false }
    }

    fn gpt(end: u64, partitions: &[(Range<u64>, &'static str)]) -> [Found; 2] {
        let partition = |(number, (bytes, kind)): (u32, &(Range<u64>, &'static str))| Partition {
            number,
            bytes: bytes.clone(),
            kind: "83".to_owned(),
            name: None,
            uuid: None,
            content: vec![found(kind, Usage::FileSystem, 1024, Some("inside"))],
        };
        let partitions = (1..).zip(partitions).map(partition).collect();
        let table = Found { partitions, ..found("gpt", Usage::Table, 512, None) };
        [table, Found { is_backup: true, ..found("gpt", Usage::Table, end - 512, None) }]
    }

    fn region(dest: Option<usize>, size: u64, found: Vec<Found>) -> CheckedRegion {
        CheckedRegion {
            dest,
            path: dest.map_or("/dev/sda".to_owned(), |index| format!("/dev/disk/by-id/dest-{index}")).into(),
            sector: Sector::ZERO,
            size: Sector::from_bytes(size).unwrap(),
            block: 512,
            is_missing: false,
            is_file: false,
            card: Arc::new(DeviceCard { size, serial: Some("S\n1".to_owned()), ..DeviceCard::default() }),
            found,
            unreadable: Vec::new(),
            mounted: None,
        }
    }

    fn checked(line: &str, bytes: u64, regions: Vec<CheckedRegion>) -> String {
        let spec = parse(line.as_bytes()).unwrap().spec;
        render(&[Checked { spec, count: Sector::from_bytes(bytes).unwrap(), regions, waits: None }])
    }

    #[test]
    fn a_clone_tells_what_is_lost_and_what_to_think_of() {
        let mut source = region(None, 16 * MIB, gpt(16 * MIB, &[(MIB..4 * MIB, "ext4")]).into());
        source.mounted = Some("/dev/sda1 is mounted at /srv".to_owned());
        let mut old = gpt(64 * MIB, &[(MIB..4 * MIB, "vfat"), (8 * MIB..32 * MIB, "xfs")]).to_vec();
        old.push(found("linux_raid_member", Usage::Member, 60 * MIB, Some("host:0")));
        let dest = region(Some(0), 64 * MIB, old);
        let text = checked("from=/dev/sda to=/dev/disk/by-id/dest-0", 16 * MIB, vec![source, dest]);
        let joined = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "copy 16.0 MiB (32768 sectors)",
            "source: /dev/sda device: 16.0 MiB, serial S\\0121",
            "holds: gpt, UUID id-gpt, 1 partition partition 1: 3.0 MiB from sector 2048, ext4 \"inside\", UUID id-ext4",
            "lost: gpt, partition 1 (vfat \"inside\") damaged: partition 2 (xfs \"inside\")",
            "stays behind it: gpt (backup header) at byte 67108352 (wipefs -o 0x3fffe00 /dev/disk/by-id/dest-0), \
             linux_raid_member \"host:0\" at byte 62914560",
            "note: /dev/sda1 is mounted at /srv: it is copied while it changes",
            "would be in its middle, at sector 32767; after the copy: sgdisk -e /dev/disk/by-id/dest-0",
            "would have the same UUIDs (gpt, ext4 \"inside\")",
            "(new ones: sgdisk -G, tune2fs -U random)",
            "nothing was started, made or written",
        ] {
            assert!(joined.contains(part), "{part}\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn equal_disks_need_no_word_about_the_backup_header() {
        let source = region(None, 16 * MIB, gpt(16 * MIB, &[]).into());
        let text =
            checked("from=/dev/sda to=/dev/sdb", 16 * MIB, vec![source.clone(), region(Some(0), 16 * MIB, vec![])]);
        assert!(!text.contains("sgdisk -e"), "{text}");
        assert!(text.contains("lost: 16.0 MiB, in which nothing is known"), "{text}");
        // A part of a disk lacks the end.
        let text = checked("from=/dev/sda,0,2048 to=/dev/sdb", MIB, vec![source, region(Some(0), 16 * MIB, vec![])]);
        assert!(text.contains("backup header of the GPT is not copied"), "{text}");
    }

    #[test]
    fn a_file_system_that_is_written_into_is_damaged() {
        let mut dest = region(Some(0), 16 * MIB, vec![found("ext4", Usage::FileSystem, 1024, Some("root"))]);
        dest.sector = Sector::new(8192).unwrap();
        let text = checked("zero to=/dev/sdb,8192,16", 8192, vec![dest.clone()]);
        assert!(text.contains("damaged: ext4 \"root\"") && !text.contains("lost:"), "{text}");
        let text = checked("verify from=/dev/sda to=/dev/sdb", 8192, vec![region(None, MIB, vec![]), dest]);
        assert!(text.contains("nothing would be lost") && !text.contains("damaged"), "{text}");
    }

    #[test]
    fn hostile_labels_stay_in_their_line() {
        let label = "a\n  note: all is well\u{1b}[2J";
        let dest = region(Some(0), MIB, vec![found("ext4", Usage::FileSystem, 1024, Some(label))]);
        let text = checked("zero to=/dev/sdb,0,16", 8192, vec![dest]);
        assert!(!text.contains('\u{1b}') && !text.lines().any(|line| line.trim() == "note: all is well"), "{text}");
        assert!(text.contains("ext4 \"a\\012"), "{text}");
    }
}
