//! The man page and the shell completion: made from the tables that make the program, and committed.
//!
//! A committed file that differs from what the tables say fails here; `UPDATE=1 cargo test --test generated` writes it
//! anew.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use kcopyfs::cli::{self, NAME};
use kcopyfs::fs::{Kind, nodes};
use kcopyfs::spec;

#[test]
fn the_man_page_is_what_the_tables_say() {
    check("contrib/kcopyfs.8", &man_page());
}

#[test]
fn the_completion_is_what_the_command_line_says() {
    check("contrib/completions/kcopyfs.bash", &completion());
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
        .date("")
        .source(concat!("kcopyfs ", env!("CARGO_PKG_VERSION")))
        .manual("System administration");
    let mut page = Vec::new();
    man.render_title(&mut page).expect("write to memory");
    man.render_name_section(&mut page).expect("write to memory");
    head().to_writer(&mut page).expect("write to memory");
    man.render_options_section(&mut page).expect("write to memory");
    for section in [mount_options(), tree(), specs(), devices(), system(), examples()] {
        section.to_writer(&mut page).expect("write to memory");
    }
    let page = String::from_utf8(page).expect("UTF-8");
    // Each part begins with the same preamble; the first is enough.
    let page = format!("{PREAMBLE}{}", page.replace(PREAMBLE, ""));
    // A date of "" is left out by clap_mangen, and what follows would take its place.
    page.replacen(".TH KCOPYFS 8  ", ".TH KCOPYFS 8 \"\" ", 1)
}

/// What roff writes before each part: an apostrophe for every formatter.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// A section that begins.
fn section(title: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    roff
}

fn paragraph(roff: &mut Roff, text: &str) {
    roff.control("PP", []);
    roff.text([roman(text)]);
}

/// An indented paragraph with a tag.
fn entry(roff: &mut Roff, tag: impl Into<Vec<Inline>>, text: &str) {
    roff.control("TP", []);
    roff.text(tag);
    roff.text([roman(text)]);
}

/// Lines as they stand.
fn verbatim(roff: &mut Roff, lines: &str) {
    roff.control("PP", []);
    roff.control("nf", []);
    roff.control("RS", ["4"]);
    for line in lines.lines() {
        roff.text([roman(line)]);
    }
    roff.control("RE", []);
    roff.control("fi", []);
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

fn specs() -> Roff {
    let mut roff = section("SPECS");
    roff.text([roman(
        "A line is a job: words separated by blanks. Quotes or a backslash protect blanks and commas in a path. Blank lines and \
         lines that begin with # are ignored. Numbers are sectors of 512 bytes, or bytes with a unit (K, M, G or T, powers of \
         1024). All lines of one write(2) become jobs, or none does; the shell's printf writes each line by itself, so for several \
         use `cat FILE > jobs/new`. error_log says why a write failed.",
    )]);
    for word in spec::words() {
        entry(&mut roff, [bold(word.usage())], word.doc);
    }
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
    roff.text([roman("Copy a disk to two others, at most 200 MiB a second, and wait for the end:")]);
    verbatim(
        &mut roff,
        "mkdir -p /run/kcopyfs\n\
         kcopyfs /run/kcopyfs\n\
         cd /run/kcopyfs\n\
         exec 3<>jobs/new\n\
         echo 'from=/dev/sda to=/dev/sdb to=/dev/sdc speed_max=200M' >&3\n\
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
    roff.control("SH", ["SEE ALSO"]);
    roff.text([bold("mount"), roman("(8), "), bold("umount"), roman("(8), "), bold("fstab"), roman("(5),")]);
    roff.text([bold("ddrescue"), roman("(1), "), bold("losetup"), roman("(8)")]);
    roff
}

/// clap's completion, and before it ours for the words of `-o`, which clap does not know.
fn completion() -> String {
    let mut generated = Vec::new();
    clap_complete::generate(Shell::Bash, &mut cli::command(), NAME, &mut generated);
    let generated = String::from_utf8(generated).expect("UTF-8");
    let options: Vec<String> = cli::options()
        .iter()
        .map(|option| option.value.map_or(option.name.to_owned(), |_| format!("{}=", option.name)))
        .collect();
    format!(
        "{generated}
# The options of -o, the last of a list being completed.
_kcopyfs_with_options() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} at=$((COMP_CWORD - 1)) head=
    # The shell takes = for a word of its own: pages=1,sub is four words after -o.
    while [[ ${{COMP_WORDS[at]}} == '=' ]]; do ((at -= 2)); done
    if [[ ${{COMP_WORDS[at]}} != -o ]]; then
        _kcopyfs \"$@\"
    elif [[ $at -eq $((COMP_CWORD - 1)) || $cur == *,* ]]; then
        [[ $cur == *,* ]] && head=${{cur%,*}},
        compopt -o nospace
        mapfile -t COMPREPLY < <(compgen -P \"$head\" -W '{}' -- \"${{cur##*,}}\")
    fi
}}
complete -F _kcopyfs_with_options -o bashdefault -o default kcopyfs
",
        options.join(" ")
    )
}
