//! The tree's own README, made from the table of nodes and the words of the language.

use std::fmt::Write as _;

use super::access;
use super::inode::Key;
use super::table::{Kind, nodes};
use super::tree::{Tree, TreeConfig};
use crate::spec;

const HEAD: &str = "\
kcopyfs: block-copy jobs as files

    echo 'from=/dev/sda to=/dev/sdb' > jobs/new          copy a device; what is on the destination is lost;
                                                         more to= are more copies of one read
    exec 3<>jobs/new; echo \"$spec\" >&3; read id <&3      the same, and the number of the job
    cat jobs/$id/status                                  how it is
    cat wait/$id && echo done                            until it ends; fails unless it is done
    echo \"$spec after=$id\" > jobs/new                    the next one, when that is done
    echo cancel > jobs/$id/control                       end it; pause and resume work like this too, and what is
                                                         paused stays so, also when kcopyfs is started again
    echo 100M > jobs/$id/speed_max                       at most so many bytes per second
    watch -n1 cat summary                                all that goes on
    ls state/running state/failed state/degraded         which jobs are running, which did not end well
    cat jobs/$id/dests jobs/$id/errors                   which destination failed, and where
    rmdir jobs/$id                                       forget an ended job
    tail error_log                                       why a write was refused

    echo 'from=/dev/sda to=/dev/sdb verify digest=sha256' > jobs/new     copy, then read back and compare
    echo 'verify from=/dev/sda to=/dev/sdb' > jobs/new                   only compare
    echo \"zero to=/dev/sdb,0,$(blockdev --getsz /dev/sdb)\" > jobs/new    write zeros
    echo 'from=/dev/sda to=/dev/sdb on_read_error=zero retries=2' > jobs/new   save what can be read of a failing disk
    cp jobs/$id/map.0 map; head -n2 map                                  and let ddrescue go on; -r3 tries bad sectors again

How a job stands: queued (error says for what it waits), running, paused, flushing, verifying; at its end
    done       nothing is missing anywhere
    degraded   it went to its end, and a destination has all but what errors lists: `retry` tries that again
    failed     anything else: `retry` goes on where it was
    cancelled  by `cancel`, or because the job that it waited for was not done
held: after a start its devices are not surely the same; look, then resume or cancel it.
In errors `differs`, and in dests EBADMSG, says that the destination reads back differently.

Sectors are 512 bytes. Reading never blocks, wait/ aside. A write does all or nothing; its errno says why not.
Control files read back what was written, as plain integers; on the way in they take K M G (of 1024).
";

const WORDS: &str = "
A spec is a line. Blank lines and lines that begin with # pass; quotes or a backslash protect blanks and commas.

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
    text.push_str(WORDS);
    for word in spec::words() {
        let later = if word.supported { "" } else { " (not in this version)" };
        _ = writeln!(text, "    {:<34} {}{later}", word.usage(), word.doc);
    }
    if config.mode & 0o020 != 0 {
        _ = write!(
            text,
            "\nTake care: mode={:o} lets group {} write to jobs/new. Who can do that can write every disk of this machine.\n",
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
        assert!(!text.contains("Take care"));
    }

    #[test]
    fn a_group_that_may_write_is_warned_of() {
        let text = render(&TreeConfig { uid: 0, gid: 6, mode: 0o660, allow_other: true });
        assert!(text.contains("Take care: mode=660 lets group 6") && text.contains("0660"));
    }
}
