//! `kcopyfs demo`: what it prints is what its commands print, and nothing stays behind. Needs FUSE.

use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use kcopyfs_support::need;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kcopyfs");

/// Bytes of the scratch disk, and of what the second destination takes of it.
const DISK: u64 = 96 << 20;
const HALF: u64 = DISK / 2;

/// What is printed behind the prompt with that command, up to the next prompt or heading.
fn printed<'a>(text: &'a str, command: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| *line != format!("# {command}"));
    assert!(lines.next().is_some(), "it does not run {command:?}:\n{text}");
    lines
        .take_while(|line| !line.starts_with("# ") && !line.starts_with("== "))
        .filter(|line| !line.is_empty())
        .collect()
}

/// The value of a key in a printed status.
fn value<'a>(status: &[&'a str], key: &str) -> &'a str {
    let found = status.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {key} in {status:#?}"))
}

/// Lines of progress, which there must be, and then what follows.
fn waited<'a, 'b>(lines: &'b [&'a str]) -> &'b [&'a str] {
    let progress = lines.iter().take_while(|line| line.starts_with('[')).count();
    assert!(progress > 0, "no line of progress: {lines:#?}");
    for line in &lines[..progress] {
        let shape = line.contains("]  ") && line.contains(" %  ") && line.chars().count() <= 79;
        assert!(shape && !line.contains('\r'), "{line:?}");
    }
    &lines[progress..]
}

#[test]
fn it_shows_what_its_commands_print_and_leaves_nothing_behind() {
    if !need::fuse() {
        return;
    }
    let demo =
        Command::new(PROGRAM).arg("demo").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let demo = demo.expect("start the demo");
    let name = format!("kcopyfs-demo.{}", demo.id());
    let output = demo.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{text}\n{:?}", String::from_utf8(output.stderr));

    // A copy that goes well.
    let lines = printed(&text, "cat ctl/wait/1 && echo all is well");
    let status = waited(&lines);
    assert_eq!((value(status, "state"), value(status, "total")), ("done", "100663296"));
    assert_eq!(status.last(), Some(&"all is well"));
    assert!(text.contains("\nboth are equal\n"), "{text}");

    // A destination that really breaks half way, and one that does not.
    let lines = printed(&text, "cat ctl/wait/2 && echo all is well");
    let status = waited(&lines);
    assert_eq!((value(status, "state"), value(status, "write_err")), ("degraded", "0x2"));
    assert_eq!((value(status, "read_err"), value(status, "percent")), ("0", "100.00"));
    assert!(
        status.iter().any(|line| line.contains("Input/output error")) && !status.contains(&"all is well"),
        "{text}"
    );
    let dests = printed(&text, "cat ctl/jobs/2/dests ctl/jobs/2/errors");
    assert!(dests[0].starts_with(&format!("0 state=done copied={DISK} durable={DISK} errors=0 ")), "{dests:#?}");
    let words: Vec<_> = dests[1].split(' ').collect();
    assert_eq!(words[..2], ["1", "state=failed"], "{dests:#?}");
    let copied: u64 = words[2].strip_prefix("copied=").unwrap().parse().unwrap();
    // Up to the piece in which it broke: the pieces before it are there, and some beside it were not tried any more.
    assert!(copied > HALF / 2 && copied <= HALF, "{copied} bytes are not about a half");
    assert!(words.contains(&"errno=EFBIG"), "{dests:#?}");
    let sector: u64 = words.iter().find_map(|word| word.strip_prefix("sector=")).unwrap().parse().unwrap();
    assert!((HALF..DISK).contains(&(sector * 512 - HALF)), "sector {sector}");
    assert!(text.contains("\nthe first destination is equal\n"), "{text}");
    let picture = printed(&text, "cat ctl/jobs/2/picture");
    let broken = picture.iter().skip_while(|line| !line.starts_with("destination 1, failed")).skip(1).take(16);
    let letters: String = broken.map(|line| &line[14..]).collect();
    assert!(letters.len() == 1024 && letters[..256].chars().all(|cell| "+=".contains(cell)), "{picture:#?}");
    assert!(letters[512..].contains('x') && !letters[512..].contains('+'), "{picture:#?}");
    assert!(text.contains("No such file or directory"), "{text}");

    // What it says at the end can be typed as it stands.
    let end: Vec<_> = text.lines().skip_while(|line| !line.contains("nothing is left behind")).skip(1).collect();
    let [mkdir, mount, read, watch] = end.iter().map(|line| line.trim()).collect::<Vec<_>>()[..] else {
        panic!("{end:#?}")
    };
    let point = mkdir.strip_prefix("mkdir -p ").expect("a directory to mount on");
    assert_eq!((mount, read), (&*format!("{PROGRAM} {point}"), &*format!("cat {point}/README")));
    assert_eq!(watch, format!("watch -n1 cat {point}/summary"));

    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&name));
    for dir in [Path::new("/dev/shm"), &env::temp_dir()] {
        assert!(!dir.join(&name).exists(), "{} is left in {}", name, dir.display());
    }
    let runs = |line: &[u8]| String::from_utf8_lossy(line).contains(&name);
    let left = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| runs(&line)));
    assert_eq!(left.map(|entry| entry.path()).collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
}
