//! kcopyfs-spec(5): the language of jobs, from the table of its words.

use clap_mangen::roff::{Roff, bold, italic, roman};
use kcopyfs::spec::{self, Kind};

use crate::man::{SEE_ALSO_TREE, entry, finish, paragraph, section, see_also, title, verbatim};

/// The page.
pub(crate) fn page() -> String {
    let mut page = title("KCOPYFS-SPEC", "5", "File formats");
    let sections = [head(), regions(), words(), writing(), errors(), examples(), see_also(SEE_ALSO_TREE)];
    for section in sections {
        section.to_writer(&mut page).expect("write to memory");
    }
    finish(page)
}

fn head() -> Roff {
    let mut roff = section("NAME");
    roff.text([roman("kcopyfs-spec - the language of block-copy jobs")]);
    roff.control("SH", ["SYNOPSIS"]);
    let region = "PATH[,SECTOR[,COUNT]]";
    for (index, (action, rest)) in
        [("[copy] from=", " to=..."), ("zero to=", ""), ("verify from=", " to=...")].into_iter().enumerate()
    {
        if index > 0 {
            roff.control("br", []);
        }
        let tail = format!("{rest} [word | key=value]...");
        roff.text([bold(action), italic(region), roman(tail)]);
    }
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "A line that is written to jobs/new in the control tree of kcopyfs(8) is a job: one source region, and one to 64 \
         destinations that get what is read there. Words are separated by blanks. Blank lines, and lines that begin with #, are \
         ignored. A line has at most 64 KiB.",
    )]);
    paragraph(
        &mut roff,
        "A quote or a backslash protects blanks and commas in a path, as in a shell. Paths are absolute. The names in \
         /dev/disk/by-id tell one disk from another, whatever order they are found in.",
    );
    roff
}

fn regions() -> Roff {
    let mut roff = section("REGIONS AND NUMBERS");
    roff.text([roman(
        "SECTOR is where the region begins, and 0 where it is left out. COUNT is its length. A COUNT that is given anywhere in a \
         line is the length of the whole job; two that differ are refused; without any it is the rest of the source.",
    )]);
    paragraph(
        &mut roff,
        "Numbers are sectors of 512 bytes, whatever the device, or bytes with one of the units K, M, G and T (powers of 1024): \
         8 and 4K are the same. Bytes must be whole sectors. speed_max= takes bytes per second.",
    );
    roff
}

fn words() -> Roff {
    let mut roff = section("WORDS");
    let parts = [
        ("Actions", Kind::Action, "The first word of a line, if it is there."),
        ("Regions", Kind::Region, ""),
        ("Flags", Kind::Flag, ""),
        ("Values", Kind::Value, ""),
    ];
    for (title, kind, text) in parts {
        roff.control("SS", [title]);
        if !text.is_empty() {
            roff.text([roman(text)]);
        }
        for word in spec::words().iter().filter(|word| word.kind() == kind) {
            entry(&mut roff, [bold(word.usage())], word.doc);
        }
    }
    roff
}

fn writing() -> Roff {
    let mut roff = section("WRITING A SPEC");
    roff.text([roman(
        "A job is made by write(2), never by close(2). All lines of one write become jobs, or none does. The same open file, read \
         after the write, gives the number of one new job per read, in their order, and after a refusal `error: ' and the reason. \
         Whoever has that number has the job: no other writer can come between.",
    )]);
    paragraph(
        &mut roff,
        "The printf of a shell writes each line by itself, so that a bad second line leaves the first one a job; for several lines \
         write a file with cat. A last line without a newline counts; where the length of a write is a multiple of 512, its last line \
         waits for its newline, because shells and dd split long texts there.",
    );
    paragraph(
        &mut roff,
        "The file spec in a job's directory has the job in canonical form: with every COUNT, and with the words in the order of this \
         page. It can be written to jobs/new again.",
    );
    roff
}

fn errors() -> Roff {
    let mut roff = section("ERRORS");
    roff.text([roman(
        "A write that is refused has written to no device. error_log in the tree has the reason, with a caret.",
    )]);
    for (errno, text) in [
        (
            "EINVAL",
            "a word or a number that is not understood; regions that overlap, or are not aligned to their device",
        ),
        ("ENOENT", "no such path, or no such job to start after"),
        ("ENOTBLK", "neither a block device nor a regular file"),
        ("ENOSPC", "a region beyond the end of its device, or too many jobs"),
        ("EBUSY", "a destination that is mounted, in use, or written by another job"),
        ("EROFS", "a destination that cannot be written"),
        ("EACCES", "a file that may not be opened, or a writer who is not the owner of the mount"),
        ("EEXIST", "with once: a job of that name is live or done"),
        ("E2BIG", "a line over 64 KiB, or more than 64 destinations"),
    ] {
        entry(&mut roff, [bold(errno)], text);
    }
    roff
}

fn examples() -> Roff {
    let mut roff = section("EXAMPLES");
    roff.text([roman("Each of these is a line for jobs/new.")]);
    for (text, lines) in [
        (
            "A disk to two others, read once, at most 200 MiB a second, compared at the end:",
            "from=/dev/disk/by-id/A to=/dev/disk/by-id/B to=/dev/disk/by-id/C speed_max=200M verify",
        ),
        ("The first GiB of a disk to an image, which is made:", "from=/dev/sda,0,1G to=/srv/sda.img create sparse"),
        (
            "What can be read of a failing disk; bad blocks are tried twice more and then written as zeros:",
            "from=/dev/sda to=/dev/sdb on_read_error=zero retries=2",
        ),
        ("Only compare:", "verify from=/dev/sda to=/dev/sdb"),
        (
            "Once a night, from a script that may run twice:",
            "from=/dev/vg/data to=/dev/sdb name=nightly-2026-01-31 once queue",
        ),
    ] {
        paragraph(&mut roff, text);
        verbatim(&mut roff, lines);
    }
    roff
}
