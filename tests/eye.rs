//! What people look at: `summary`, `picture`, `map.K.svg` and the report, of a real job with a bad source and a bad
//! destination, as a terminal, a browser, a printer and a parser take them. Needs FUSE and root.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kcopyfs_support::{Daemon, Fault, FaultDisk, Op, need, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kcopyfs");
const MIB: u64 = 1 << 20;
const SIZE: u64 = 16 * MIB;

/// A name that would break a page, a terminal or a reader, if anything could.
const HOSTILE: &[u8] = b"<script>alert(1)<b>\"'& \xe2\x80\xae\xff\x1b[2J$(id)";

/// A job that ends degraded: a bad block of the source, a destination that fails half way, and one with a hostile name.
struct Rig {
    daemon: Daemon,
    source: FaultDisk,
    bad: FaultDisk,
    scratch: tempfile::TempDir,
    job: u64,
}

impl Rig {
    fn new() -> Option<Self> {
        if !need::fault_disk() {
            return None;
        }
        let scratch = tempfile::Builder::new().prefix("kcopyfs-eye-").tempdir().expect("a scratch directory");
        let (source, bad) = (FaultDisk::builder(SIZE).start(), FaultDisk::builder(SIZE).start());
        source.fill(1);
        source.rule(Op::Read, MIB..MIB + 4096, Fault::Err(libc::EIO));
        bad.rule(Op::Write, SIZE / 2.., Fault::Err(libc::EIO));
        let daemon = Daemon::builder(PROGRAM).start();
        let hostile = scratch.path().join(OsStr::from_bytes(HOSTILE));
        let mut spec = format!("from={} to={} to='", source.path().display(), bad.path().display()).into_bytes();
        // The one quote in the name ends the quoted part, is protected, and begins the next.
        for byte in hostile.as_os_str().as_bytes() {
            if *byte == b'\'' { spec.extend_from_slice(b"'\\''") } else { spec.push(*byte) }
        }
        spec.extend_from_slice(b"' create on_read_error=zero digest=sha256 verify name=evil\n");
        fs::write(daemon.path("jobs/new"), spec).expect("a job");
        let rig = Self { daemon, source, bad, scratch, job: 1 };
        rig.daemon.wait_to_end(rig.job);
        Some(rig)
    }

    fn read(&self, file: &str) -> String {
        let path = if file.contains('/') { file.to_owned() } else { format!("jobs/{}/{file}", self.job) };
        self.daemon.read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.scratch.path().join(name);
        fs::write(&path, text).expect("write a file");
        path
    }
}

/// The report without the moment at which it was made.
fn settled(report: &str) -> String {
    let is_settled = |line: &&str| !line.contains("\"made\"");
    let text: Vec<&str> = report.lines().filter(is_settled).collect();
    text.join("\n").split("This page was made").next().unwrap_or_default().to_owned()
}

/// Runs a program to its end, which must be good; gives what it prints.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {}\n{said}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn everything_shows_what_is_where_and_outlives_the_daemon() {
    let Some(mut rig) = Rig::new() else { return };
    assert_eq!(rig.daemon.status(rig.job).state(), "degraded");

    let picture = rig.read("picture");
    let dests: Vec<&str> = picture.split("\ndestination ").skip(1).collect();
    assert!(dests.len() == 2 && dests[0].starts_with("0, failed: /dev/loop"), "{picture}");
    let letters = |dest: &str| dest.lines().skip(1).filter_map(|line| line.get(14..)).collect::<String>();
    // Half of the first one is there; the source's bad block is nowhere.
    let (first, second) = (letters(dests[0]), letters(dests[1]));
    assert!(
        first.len() == 1024 && first.starts_with(['+', '=']) && first.contains('-') && first.contains('x'),
        "{picture}"
    );
    assert_eq!(second, format!("{}-{}", "+".repeat(64), "+".repeat(959)), "{picture}");
    assert!(picture.lines().all(|line| line.chars().count() <= 80 && !line.contains('\u{1b}')), "{picture}");

    let summary = rig.daemon.read("summary").unwrap();
    assert!(summary.contains("ended: 1 degraded (ls state/degraded)\n\n1 evil: DEGRADED "), "{summary}");

    for file in ["map.1.svg", "report.html", "report.json"] {
        let text = rig.read(file);
        assert!(text.len() < 400 << 10 && !text.contains(['\u{202e}', '\u{1b}']), "{file}:\n{text}");
        let (is_data, octal) = (file == "report.json", "\\342\\200\\256\\377\\033[2J");
        // In JSON each backslash is two.
        assert!(
            text.contains(&if is_data { octal.replace('\\', "\\\\") } else { octal.to_owned() }),
            "{file}:\n{text}"
        );
        assert!(is_data || !text.contains("<script"), "{file}:\n{text}");
    }
    let before = ["picture", "map.0.svg", "map.1.svg", "report.html", "report.json"].map(|file| rig.read(file));
    rig.daemon.stop();
    rig.daemon.restart();
    let after = ["picture", "map.0.svg", "map.1.svg", "report.html", "report.json"].map(|file| rig.read(file));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(settled(before), settled(after));
    }
}

#[test]
fn a_job_that_runs_shows_where_it_is_at_work() {
    let Some(rig) = Rig::new() else { return };
    rig.source.clear();
    rig.bad.clear();
    let spec = format!("from={} to={} speed_max=256K name=slow", rig.source.path().display(), rig.bad.path().display());
    let id = rig.daemon.job(&spec).unwrap();
    let picture = until("it has copied something", || {
        let text = rig.daemon.read(format!("jobs/{id}/picture")).unwrap();
        text.contains("=>.").then_some(text)
    });
    assert!(picture.contains("job 2 slow: running\n"), "{picture}");
    let summary = rig.daemon.read("summary").unwrap();
    assert!(summary.contains("\n2 slow: copy, max 256.0 KiB/s"), "{summary}");
    let page = rig.daemon.read(format!("jobs/{id}/report.html")).unwrap();
    assert!(page.contains("It is not finished."), "{page}");
    rig.daemon.control(id, "cancel").unwrap();
}

#[test]
fn the_data_fits_its_schema() {
    const CHECK: &str = "import json, sys, jsonschema\n\
        schema = json.load(open(sys.argv[1]))\n\
        jsonschema.Draft7Validator.check_schema(schema)\n\
        jsonschema.validate(json.load(open(sys.argv[2])), schema)";
    let Some(rig) = Rig::new() else { return };
    let python = "/usr/bin/python3";
    let has = Command::new(python).args(["-c", "import jsonschema"]).output().is_ok_and(|out| out.status.success());
    if !has {
        need::skip("no validator of JSON schemas is installed (Debian package python3-jsonschema)");
        return;
    }
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("doc/report.schema.json");
    let data = rig.file("report.json", &rig.read("report.json"));
    let validate =
        |data: &Path| Command::new(python).args(["-c", CHECK]).args([schema.as_path(), data]).output().expect("python");
    let output = validate(&data);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The schema is strict: a key more, or another type, does not pass.
    let wrong = rig.file("wrong.json", &rig.read("report.json").replace("\"job\": 1", "\"job\": \"1\""));
    assert!(!validate(&wrong).status.success());
    let more = rig.file("more.json", &rig.read("report.json").replacen('{', "{\"more\": 1,", 1));
    assert!(!validate(&more).status.success());
}

/// Chromium without a screen, with a folder of its own.
fn chromium(rig: &Rig, arguments: &[&str]) -> String {
    let profile = format!("--user-data-dir={}", rig.scratch.path().join("profile").display());
    let fixed = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"];
    run("chromium", &[&fixed[..], &[&profile], arguments].concat())
}

#[test]
fn a_browser_shows_and_prints_the_report_without_overflow() {
    // What is wider than the page, and what was fetched, by a script that only this test adds.
    const LOOK: &str = "<script>addEventListener('load', () => {\
        const wide = [...document.querySelectorAll('body *')].filter(one => \
            one.getBoundingClientRect().right > document.documentElement.clientWidth + 1);\
        const said = document.createElement('pre');\
        said.id = 'said';\
        said.textContent = `wide=${wide.map(one => one.outerHTML.slice(0, 200)).join()}; \
scroll=${document.documentElement.scrollWidth - document.documentElement.clientWidth}; \
fetched=${performance.getEntriesByType('resource').length}; scripts=${document.scripts.length};`;\
        document.body.append(said);\
    })</script></body>";
    const POLICY: &str =
        r#"<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">"#;
    if !need::program("chromium", "chromium")
        || !need::program("pdftotext", "poppler-utils")
        || !need::program("pdfinfo", "poppler-utils")
    {
        return;
    }
    let Some(rig) = Rig::new() else { return };
    let page = rig.read("report.html");
    for needed in
        ["degraded", "Errors", "could not be read", "could not be written", "Speed over time", "sha256", "name=evil"]
    {
        assert!(page.contains(needed), "no {needed}:\n{page}");
    }
    for forbidden in ["http:", "https:", "<a ", "<img", "src="] {
        assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(forbidden), "{forbidden}:\n{page}");
    }
    assert!(page.contains(POLICY), "{page}");
    let looked = rig.file("looked.html", &page.replace(POLICY, "").replace("</body>", LOOK));
    let url = format!("file://{}", looked.display());
    for width in [1200, 500] {
        let dom = chromium(&rig, &[&format!("--window-size={width},900"), "--dump-dom", &url]);
        assert!(dom.contains("wide=; scroll=0; fetched=0; scripts=1;"), "{width}:\n{dom}");
    }
    let (pdf, plain) = (rig.scratch.path().join("report.pdf"), rig.file("report.html", &page));
    let print = format!("--print-to-pdf={}", pdf.display());
    chromium(&rig, &[&print, "--no-pdf-header-footer", &format!("file://{}", plain.display())]);
    let pdf = pdf.to_str().expect("a plain path");
    let info = run("pdfinfo", &[pdf]);
    assert!(info.contains("(A4)"), "{info}");
    let text = run("pdftotext", &["-layout", pdf, "-"]);
    for needed in ["DEGRADED", "Source and destinations", "Speed over time", "Map", "Errors", "Spec"] {
        assert!(text.contains(needed), "no {needed} on paper:\n{text}");
    }
}

#[test]
fn a_map_is_a_picture_for_other_programs_too() {
    if !need::program("rsvg-convert", "librsvg2-bin") {
        return;
    }
    let Some(rig) = Rig::new() else { return };
    let svg = rig.file("map.svg", &rig.read("map.0.svg"));
    let png = rig.scratch.path().join("map.png");
    run("rsvg-convert", &["-o", png.to_str().unwrap(), svg.to_str().unwrap()]);
    assert!(fs::read(png).unwrap().starts_with(b"\x89PNG"));
}
