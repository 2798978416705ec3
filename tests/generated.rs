//! The man pages and the shell completions: made from the tables that make the program, and committed.
//!
//! A committed file that differs from what the tables say fails here; `UPDATE=1 cargo test --test generated` writes it
//! anew.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use kcopyfs::cli;
use kcopyfs::fs::{Kind, nodes, texts_with_keys};

use self::man::{DATE, SEE_ALSO, entry, finish, paragraph, section, see_also, verbatim};

#[path = "generated/completion.rs"]
mod completion;
#[path = "generated/man.rs"]
mod man;
#[path = "generated/spec_page.rs"]
mod spec_page;

#[test]
fn the_man_page_is_what_the_tables_say() {
    check("contrib/kcopyfs.8", &man_page());
}

#[test]
fn the_page_of_the_language_is_what_its_words_say() {
    check("contrib/kcopyfs-spec.5", &spec_page::page());
}

#[test]
fn the_completions_are_what_the_command_line_says() {
    check("contrib/completions/kcopyfs.bash", &completion::bash());
    check("contrib/completions/_kcopyfs", &completion::zsh());
    check("contrib/completions/kcopyfs.fish", &completion::fish());
}

/// Compares a committed file with what it should be, or writes it where `UPDATE=1` asks for that.
fn check(file: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if env::var_os("UPDATE").is_some_and(|value| value == "1") {
        fs::create_dir_all(path.parent().expect("a directory")).expect("make the directory");
        fs::write(&path, expected).expect("write the file");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(expected.lines()).find(|(old, new)| old != new);
    assert!(
        committed == expected,
        "{file} is not what the tables say, first at {differs:?}; write it anew: UPDATE=1 cargo test --test generated"
    );
}

fn man_page() -> String {
    let man = Man::new(cli::command())
        .title("KCOPYFS")
        .section("8")
        .date(DATE)
        .source(concat!("kcopyfs ", env!("CARGO_PKG_VERSION")))
        .manual("System administration");
    let mut page = Vec::new();
    man.render_title(&mut page).expect("write to memory");
    man.render_name_section(&mut page).expect("write to memory");
    head().to_writer(&mut page).expect("write to memory");
    man.render_options_section(&mut page).expect("write to memory");
    for section in [mount_options(), tree(), keys(), specs(), devices(), system(), examples(), see_also(SEE_ALSO)] {
        section.to_writer(&mut page).expect("write to memory");
    }
    finish(page)
}

fn head() -> Roff {
    let mut roff = section("SYNOPSIS");
    roff.text([bold("kcopyfs"), roman(" [-f] [-o OPT[,OPT...]] [SOURCE] "), italic("MOUNTPOINT")]);
    roff.control("br", []);
    roff.text([bold("kcopyfs demo")]);
    roff.control("br", []);
    roff.text([bold("mount -t fuse.kcopyfs none "), italic("MOUNTPOINT"), roman(" [-o OPT[,OPT...]]")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "kcopyfs copies regions of block devices and files, each to up to 64 destinations at once, as the kernel's kcopyd \
         does. It mounts a control tree; a line written to jobs/new there starts a job, and files show its status. The tree \
         has a README of its own.",
    )]);
    paragraph(
        &mut roff,
        "Without -f it goes to the background once the tree answers, so that the next command can use it at once. With -f it \
         stays, logs to standard error, and tells a service manager when it is ready (sd_notify).",
    );
    roff
}

fn mount_options() -> Roff {
    let mut roff = section("MOUNT OPTIONS");
    roff.text([roman("Separated by commas after -o, or in the fourth column of fstab; a backslash protects a comma.")]);
    for option in cli::options() {
        let mut text = option.doc.to_owned();
        let range = option.range().map(|range| format!("{} to {}, ", range.start(), range.end())).unwrap_or_default();
        _ = write!(text, " ({range}default {})", option.default);
        entry(&mut roff, [bold(option.usage())], &text);
    }
    paragraph(
        &mut roff,
        "What mount(8) adds (rw dev suid noauto nofail _netdev x-...) is accepted and ignored; ro and remount are refused.",
    );
    roff
}

fn tree() -> Roff {
    let mut roff = section("THE TREE");
    roff.text([roman(
        "ID is a job's number, K a destination's, counted from 0, S a state, NAME a name. The modes are those without gid= and \
         mode=.",
    )]);
    for node in nodes().iter().filter(|node| !node.path.is_empty()) {
        let (tail, mode) = match node.kind() {
            Kind::Dir => ("/", format!("{:04o}", node.mode)),
            Kind::File => ("", format!("{:04o}", node.mode)),
            Kind::Link => ("", "link".to_owned()),
        };
        entry(&mut roff, [bold(format!("{}{tail}", node.path)), roman(format!(" ({mode})"))], node.doc);
    }
    roff
}

fn keys() -> Roff {
    let mut roff = section("KEYS");
    roff.text([roman("Keys are only ever added, at the end of a text. The meaning of one never changes.")]);
    for text in texts_with_keys() {
        roff.control("SS", [text.path]);
        roff.text([roman(format!("{}.", text.form))]);
        for key in text.entries {
            entry(&mut roff, [bold(key.name)], key.doc);
        }
    }
    roff
}

fn specs() -> Roff {
    let mut roff = section("SPECS");
    roff.text([
        roman("A line that is written to jobs/new is a job. "),
        bold("kcopyfs-spec"),
        roman("(5) has the language."),
    ]);
    verbatim(&mut roff, "[copy] from=PATH[,SECTOR[,COUNT]] to=PATH[,SECTOR[,COUNT]]... [word | key=value]...");
    roff
}

fn devices() -> Roff {
    let mut roff = section("ZONED DISKS");
    roff.text([roman(
        "A zone of a host-managed disk takes writes at its write pointer only. A new job whose zones hold data is refused; the \
         reason has the command that empties them, blkzone reset -o SECTOR -c COUNT DEV. After SIGKILL or a power cut a job \
         resumes at the write pointers: what a zone holds beyond the last checkpoint is read back and compared with what the job \
         writes there. Where it differs the destination fails with ENOTEMPTY; empty that zone, then write retry. A zone that was \
         reset meanwhile is copied again.",
    )]);
    roff.control("SH", ["THIN VOLUMES"]);
    roff.text([roman(
        "With sparse blocks of zeros take no space, and what was full gives it back: by a hole where the device or the file system \
         makes one; by discards of whole blocks on a dm-thin or LVM thin volume, and on a SCSI disk with UNMAP that promises zeros \
         (LBPRZ). What was discarded is read back, and zeros are written where it is something else. No other device is discarded.",
    )]);
    roff
}

fn system() -> Roff {
    let mut roff = section("EXIT STATUS");
    roff.text([roman("As for mount(8): 0 for success, 1 for wrong arguments, 32 if the mount failed.")]);
    roff.control("SH", ["SIGNALS"]);
    roff.text([roman(
        "SIGTERM and SIGINT end it within 5 seconds, whatever the devices do: it starts no new I/O, flushes, and unmounts. \
         SIGHUP is ignored.",
    )]);
    roff.control("SH", ["ENVIRONMENT"]);
    entry(&mut roff, [bold("RUST_LOG")], "how much is logged: error, warn, info (default), debug or trace");
    entry(&mut roff, [bold("NOTIFY_SOCKET")], "with -f: where a service manager listens");
    roff.control("SH", ["FILES"]);
    entry(&mut roff, [bold("/run/kcopyfs")], "the usual mount point");
    entry(&mut roff, [bold("/var/lib/kcopyfs")], "where jobs are kept, see state=");
    roff
}

fn examples() -> Roff {
    let mut roff = section("EXAMPLES");
    roff.text([roman(
        "Copy a disk to two others, at most 200 MiB a second: look what would be lost, start it, and wait for the end:",
    )]);
    verbatim(
        &mut roff,
        "mkdir -p /run/kcopyfs\n\
         kcopyfs /run/kcopyfs\n\
         cd /run/kcopyfs\n\
         exec 3<>jobs/new\n\
         disks=/dev/disk/by-id\n\
         spec=\"from=$disks/ata-OLD to=$disks/ata-NEW to=$disks/usb-SPARE speed_max=200M\"\n\
         echo \"$spec\" > check && cat check\n\
         echo \"$spec\" >&3\n\
         read id <&3\n\
         cat wait/$id && echo done",
    );
    paragraph(&mut roff, "In fstab; `mount /run/kcopyfs` starts it:");
    verbatim(&mut roff, "none  /run/kcopyfs  fuse.kcopyfs  noauto,nofail,x-mount.mkdir,pages=8192  0  0");
    paragraph(
        &mut roff,
        "Let the group disk write jobs/new. Whoever may write jobs/new can write every disk and create files anywhere, so is root:",
    );
    verbatim(&mut roff, "kcopyfs -o allow_other,gid=disk,mode=0660 /run/kcopyfs");
    roff
}
