//! The tree's own README, made from the table of nodes and the words of the language.

use std::fmt::Write as _;

use super::access;
use super::inode::Key;
use super::keys::{KeyDoc, TextKeys, texts_with_keys};
use super::table::{Kind, nodes};
use super::tree::{Tree, TreeConfig};
use crate::spec;

const HEAD: &str = "\
kcopyfs: block-copy jobs as files

    A=/dev/disk/by-id/ata-OLD B=/dev/disk/by-id/ata-NEW  names that stay with a disk; /dev/sdX does not
    echo \"from=$A to=$B\" > jobs/new                      copy a device; what is on the destination is lost;
                                                         each further to= gets a copy too, from the same read
    echo \"from=$A to=$B\" > check && cat check            before: what it would do, to which disks, and what would
                                                         be lost; nothing is started or written
    exec 3<>jobs/new; echo \"$spec\" >&3; read id <&3      the same, and the number of the job
    cat jobs/$id/status                                  its status
    cat wait/$id && echo done                            a line every second until it ends; fails unless it is done
    cat names/clone/wait && echo done                    the same for the newest job with name=clone
    echo \"$spec after=$id\" > jobs/new                    the next one, when that is done; after=NAME: the newest NAME
    echo \"$spec name=clone once\" > jobs/new             refused (EEXIST) while a job named clone is live or done
    echo cancel > jobs/$id/control                       end it; pause and resume work like this too; a paused
                                                         job stays paused across a restart
    echo retry on_read_error=zero retries=3 > jobs/$id/control   go on behind what could not be read, with this policy
    echo drop 1 > jobs/$id/control                       give destination 1 up: the job goes on with the others and ends
                                                         degraded (cancelled without any). That is no write error: its bit
                                                         in write_err stays 0. retry takes it back, from its beginning
    echo 100M > jobs/$id/speed_max                       at most so many bytes per second
    watch -n1 cat summary                                everything in progress
    ls state/running state/failed state/degraded         which jobs are running, which did not end well
    cat jobs/$id/dests jobs/$id/errors                   which destination failed, and where
    cat jobs/$id/picture                                 what is where on each destination, in letters
    cp jobs/$id/report.html report.html                  a page about the job, to print and to keep
    cat jobs/$id/devices                                 which disk that is: model, serial, USB port
    rmdir jobs/$id                                       forget an ended job
    tail error_log                                       why a write was refused

    echo \"from=$A to=$B verify digest=sha256\" > jobs/new           copy, then read back and compare
    echo \"verify from=$A to=$B\" > jobs/new                         only compare
    echo \"zero to=$B,0,$(blockdev --getsz $B)\" > jobs/new           overwrite with zeros
    echo \"from=$A to=$B on_read_error=zero retries=2\" > jobs/new    save what can be read of a failing disk
    cp jobs/$id/map.0 map; head -n2 map                                  continue with ddrescue; -r3 retries bad sectors
    echo 'from=/dev/sda to=/dev/sdb map=/root/map' > jobs/new            and back: only what the map does not say is there
    echo 'from=/dev/sda to=/dev/sdb changed' > jobs/new                  read both, write only what differs
    echo 'test to=/dev/sdb' > jobs/new                                   is that disk any good? destroys what is on it;
                                                                         errors lists what is bad, lost, or not there

Job states: queued (`error` says what it waits for), running, paused, flushing, verifying. At the end:
    done       nothing is missing anywhere
    degraded   finished, but a destination lacks the ranges in errors; `retry` tries those again
    failed     anything else; `retry` resumes it
    cancelled  by `cancel`, or because the job it was waiting for did not end done
held: after a restart kcopyfs could not confirm that these are the same devices; check, then resume or cancel.
`differs` in errors and EBADMSG in dests mean that the destination reads back differently.

devices: `source` or a destination's number, then size in bytes, model (of a loop device its file, of dm its name, of md its
level), serial, wwid, transport (sata sas usb nvme virtio loop dm md file...), rotational 0 or 1, temperature in degrees Celsius,
usb_port, path; `-` where unknown, also for the size of a file that the job makes; blanks in a value are \\040. A partition has what is
known of its disk, and its own size.

The disk of each destination is locked (flock) until the job has ended, so that udev, LVM and md leave it alone; a program that has
it locked already is named, and `queue` waits for it.

Sectors are 512 bytes. Only wait/ID and jobs/ID/wait block on read. A write does all or nothing; error_log says why it failed.
Control files read back as plain integers; K, M and G (powers of 1024) are accepted when writing.
";

const WORDS: &str = "
A spec is one line. Blank lines and lines that begin with # are ignored; quote blanks and commas, or use a backslash.

";

/// The README of a tree.
#[allow(clippy::unnecessary_wraps)] // the signature of every row
pub(super) fn text(tree: &Tree, _: Key) -> Option<Vec<u8>> {
    Some(render(&tree.config).into_bytes())
}

fn render(config: &TreeConfig) -> String {
    let mut text = String::from(HEAD);
    text.push_str("\nThe files. ID is a job's number, K a destination's, counted from 0, S a state, NAME a name.\n\n");
    for node in nodes().iter().skip(1) {
        let (tail, mode) = match node.kind() {
            Kind::Dir => ("/", access::mode(node, config)),
            Kind::File => ("", access::mode(node, config)),
            Kind::Link => (" ->", 0o777),
        };
        _ = writeln!(text, "    {:<19} {mode:04o}  {}", format!("{}{tail}", node.path), node.doc);
    }
    text.push_str("\nWhat is in them.\n");
    for TextKeys { path, form, entries } in texts_with_keys() {
        _ = writeln!(text, "\n    {path}: {form}");
        for KeyDoc { name, doc } in entries {
            _ = match name.len() {
                0..=18 => writeln!(text, "        {name:<18} {doc}"),
                _ => writeln!(text, "        {name}\n{:27}{doc}", ""),
            };
        }
    }
    text.push_str(WORDS);
    for word in spec::words() {
        _ = writeln!(text, "    {:<34} {}", word.usage(), word.doc);
    }
    if config.mode & 0o020 != 0 {
        _ = write!(
            text,
            "\nTake care: mode={:o} lets group {} write jobs/new. Whoever may write jobs/new can write every disk and create\nfiles anywhere, so is root.\n",
            config.mode, config.gid
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_and_word_is_in_it() {
        let text = render(&TreeConfig { uid: 0, gid: 0, mode: 0o600, allow_other: false });
        for node in nodes() {
            assert!(text.contains(node.path) && (node.path.is_empty() || text.contains(node.doc)), "{}", node.path);
        }
        for word in spec::words() {
            assert!(text.contains(&word.usage()), "{}", word.name);
        }
        for KeyDoc { name, doc } in texts_with_keys().iter().flat_map(|text| &text.entries) {
            assert!(text.lines().any(|line| line.trim_start().starts_with(name)) && text.contains(doc), "{name}");
        }
        assert!(!text.contains("Take care"));
    }

    #[test]
    fn a_group_that_may_write_is_warned_of() {
        let text = render(&TreeConfig { uid: 0, gid: 6, mode: 0o660, allow_other: true });
        assert!(text.contains("Take care: mode=660 lets group 6") && text.contains("0660"));
    }
}
