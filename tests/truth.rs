//! What the tree says is true: figures against what the disks hold at that moment, events against what happened, and the
//! answers that shells get. Needs FUSE, and root for disks.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kcopyfs_support::{
    Daemon, Fault, FaultDisk, LoopDevice, Op,
    daemon::{STATUS_KEYS, Status},
    need, stamp, until,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_kcopyfs");

const SIZE: u64 = 4 << 20;
const SOURCE: u64 = 1;

/// A killed reader is promised to be gone within a second; the rest is for a busy machine.
const KILL_LIMIT: Duration = Duration::from_secs(2);

fn start(options: &[&str]) -> Daemon {
    let builder = Daemon::builder(PROGRAM).option("state=none").option("pages=256").option("subjob_kb=32");
    options.iter().fold(builder, |builder, option| builder.option(*option)).start()
}

fn until_state(daemon: &Daemon, id: u64, state: &str) {
    until(state, || (daemon.status(id).state() == state).then_some(()));
}

/// Bytes of the medium that are the source's.
fn arrived(disk: &FaultDisk) -> u64 {
    let contents = disk.contents();
    let sectors = (0..).zip(contents.chunks(512));
    sectors.filter(|(sector, data)| stamp::check(data, SOURCE, *sector).is_ok()).count() as u64 * 512
}

/// The size of a job's directory, as `ls -l` shows it.
fn listed_size(daemon: &Daemon, id: u64) -> u64 {
    let listing = daemon.sh("sh", "ls -l $M/jobs").ok();
    let line = listing.lines().find(|line| line.ends_with(&format!(" {id}"))).expect("the job is listed");
    line.split_whitespace().nth(4).expect("a size").parse().expect("a number")
}

/// Looks at a job once, asking the tree before the disks: what it says must be there by then. The first destination
/// writes through; the second has a cache, so that its medium holds what was flushed.
fn look(daemon: &Daemon, id: u64, through: &FaultDisk, cached: &FaultDisk, last: &Status) -> Status {
    let listed = listed_size(daemon, id);
    let dests = daemon.dests(id);
    let status = daemon.status(id);
    let (written, flushed) = (arrived(through), arrived(cached));
    assert!(status.copied() <= written, "{written} bytes are written:\n{status}");
    assert!(status.durable() <= flushed, "{flushed} bytes are flushed:\n{status}");
    assert!(dests[0].copied <= written && dests[1].durable <= flushed, "{written}, {flushed}: {dests:?}");
    assert!(dests[0].durable <= dests[0].copied && dests[1].durable <= dests[1].copied, "{dests:?}");
    assert!(listed <= status.copied(), "ls -l says {listed}:\n{status}");
    assert!(status.copied() >= last.copied() && status.durable() >= last.durable(), "it went back:\n{last}\n{status}");
    assert!(status.percent() >= last.percent(), "percent went back:\n{last}\n{status}");
    let hundredths = status.copied() * 10_000 / status.total();
    let percent = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    assert_eq!(status.get("percent"), percent, "percent is of copied, rounded down:\n{status}");
    assert!(status.elapsed_usec() >= last.elapsed_usec(), "time went back:\n{last}\n{status}");
    status
}

/// What the caches take at first is no speed of the disks.
#[test]
fn time_left_is_not_too_short_after_a_start_or_a_resume() {
    if !need::fault_disk() {
        return;
    }
    let (size, speed) = (64 << 20, 4 << 20);
    let [source, dest] = [LoopDevice::new(size, 512), LoopDevice::new(size, 512)];
    let daemon = start(&[]);
    let spec = format!("from={} to={} speed_max={speed}", source.path().display(), dest.path().display());
    let id = daemon.job(&spec).unwrap();
    for half in 1..=2 {
        let mut is_told = false;
        until("some megabytes", || {
            let status = daemon.status(id);
            if let Some(eta) = status.eta_usec() {
                is_told = true;
                let honest = (size - status.copied()) * 1_000_000 / speed;
                assert!(eta > honest / 2, "{honest} would be honest:\n{status}");
            }
            (is_told && status.copied() >= half * 3 * speed).then_some(())
        });
        daemon.control(id, "pause").unwrap();
        until_state(&daemon, id, "paused");
        assert_eq!(daemon.status(id).eta_usec(), None);
        daemon.control(id, "resume").unwrap();
    }
    daemon.control(id, "cancel").unwrap();
    daemon.wait(id);
}

#[test]
fn figures_never_say_more_than_the_disks_hold() {
    if !need::fault_disk() {
        return;
    }
    for io in ["io=uring", "io=threads"] {
        let source = LoopDevice::new(SIZE, 512);
        source.fill(SOURCE);
        let through = FaultDisk::builder(SIZE).start();
        let cached = FaultDisk::builder(SIZE).volatile(true).start();
        let slow = Fault::Delay(Duration::from_millis(10));
        for disk in [&through, &cached] {
            disk.rule(Op::Write, .., slow.clone());
        }
        // so that it cannot end before it is paused
        through.rule(Op::Write, SIZE / 4 * 3.., Fault::Hang);
        let daemon = start(&[io, "subjobs=2"]);
        let to = [&through, &cached].map(|disk| disk.path().display().to_string());
        let id = daemon.job(&format!("from={} to={} to={}", source.path().display(), to[0], to[1])).unwrap();
        let mut status = daemon.status(id);
        // a pause in the middle makes durable what there is
        while status.copied() < SIZE / 2 {
            status = look(&daemon, id, &through, &cached, &status);
        }
        daemon.control(id, "pause").unwrap();
        through.clear();
        through.rule(Op::Write, .., slow);
        through.release();
        until("durable", || {
            let status = daemon.status(id);
            (status.durable() >= SIZE / 2 && status.durable() == status.copied()).then_some(())
        });
        status = look(&daemon, id, &through, &cached, &status);
        assert_eq!((status.state(), status.durable()), ("paused", status.copied()), "\n{status}");
        let paused = daemon.read(format!("jobs/{id}/status")).unwrap();
        assert_eq!(Status::parse(&paused).elapsed_usec(), status.elapsed_usec(), "a pause is no running time");
        daemon.control(id, "resume").unwrap();
        while !status.is_ended() {
            status = look(&daemon, id, &through, &cached, &status);
            assert!(status.percent() < 100.0 || arrived(&through) == SIZE, "\n{status}");
        }
        assert_eq!((status.state(), status.copied(), status.durable()), ("done", SIZE, SIZE), "\n{status}");
        assert_eq!((arrived(&through), arrived(&cached)), (SIZE, SIZE));

        // all of it stays
        let files = ["status", "dests", "errors", "spec"].map(|name| format!("jobs/{id}/{name}"));
        let first = files.clone().map(|file| daemon.read(file).unwrap());
        through.clear();
        let other = daemon.job(&format!("zero to={},0,8", to[0])).unwrap();
        assert_eq!(daemon.wait(other).state(), "done");
        assert_eq!(listed_size(&daemon, id), SIZE);
        assert_eq!(files.map(|file| daemon.read(file).unwrap()), first);
        assert_eq!(daemon.wait_to_end(id).status.text(), first[0]);
    }
}

#[test]
fn a_running_job_becomes_durable_every_few_seconds() {
    if !need::fault_disk() {
        return;
    }
    let source = LoopDevice::new(SIZE, 512);
    source.fill(SOURCE);
    let through = FaultDisk::builder(SIZE).start();
    let cached = FaultDisk::builder(SIZE).volatile(true).start();
    for disk in [&through, &cached] {
        disk.rule(Op::Write, .., Fault::Delay(Duration::from_millis(200)));
    }
    let daemon = start(&["subjobs=2"]);
    let to = [&through, &cached].map(|disk| disk.path().display().to_string());
    let id = daemon.job(&format!("from={} to={} to={}", source.path().display(), to[0], to[1])).unwrap();
    let mut status = daemon.status(id);
    let begin = Instant::now();
    while status.durable() == 0 {
        status = look(&daemon, id, &through, &cached, &status);
        assert_eq!(status.state(), "running", "\n{status}");
        // every 5 s, on a busy machine
        assert!(begin.elapsed() < 12 * Duration::from_secs(5), "nothing is durable:\n{status}");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(status.copied() < SIZE, "\n{status}");
    daemon.control(id, "cancel").unwrap();
    let waited = daemon.wait_to_end(id);
    assert_eq!((waited.status.state(), waited.status.durable()), ("cancelled", waited.status.copied()));
    assert!(arrived(&cached) >= waited.status.durable());
}

/// Disks for a job that goes well, one that fails, one whose destination is bad, and one that hangs.
struct Four {
    source: FaultDisk,
    sick_source: FaultDisk,
    good: FaultDisk,
    bad: FaultDisk,
    hung: FaultDisk,
}

impl Four {
    fn new() -> Self {
        let disk = || FaultDisk::builder(1 << 20).start();
        let four = Self { source: disk(), sick_source: disk(), good: disk(), bad: disk(), hung: disk() };
        four.source.fill(SOURCE);
        four.sick_source.rule(Op::Read, 300 << 10..301 << 10, Fault::Err(libc::EIO));
        four.bad.rule(Op::Write, 300 << 10..301 << 10, Fault::Err(libc::EIO));
        four.hung.rule(Op::Write, 300 << 10..301 << 10, Fault::Hang);
        four
    }

    fn spec(from: &FaultDisk, to: &[&FaultDisk], words: &str) -> String {
        let to: Vec<_> = to.iter().map(|disk| format!("to={}", disk.path().display())).collect();
        format!("from={} {} {words}", from.path().display(), to.join(" "))
    }

    /// Makes the four jobs, one after the other; the last is cancelled. Returns their numbers with their ends.
    fn run(&self, daemon: &Daemon) -> [(u64, &'static str); 4] {
        let run = |spec: String| {
            let id = daemon.job(&spec).unwrap();
            daemon.wait(id);
            id
        };
        let done = run(Self::spec(&self.source, &[&self.good], "name=good"));
        let failed = run(Self::spec(&self.sick_source, &[&self.good], ""));
        let degraded = run(Self::spec(&self.source, &[&self.good, &self.bad], ""));
        let cancelled = daemon.job(&Self::spec(&self.source, &[&self.hung], "paused")).unwrap();
        daemon.control(cancelled, "resume").unwrap();
        self.hung.wait_parked(1);
        daemon.control(cancelled, "pause").unwrap();
        daemon.control(cancelled, "cancel").unwrap();
        self.hung.release();
        daemon.wait(cancelled);
        [(done, "done"), (failed, "failed"), (degraded, "degraded"), (cancelled, "cancelled")]
    }
}

#[test]
fn events_tell_each_life_in_order() {
    if !need::fault_disk() {
        return;
    }
    let four = Four::new();
    let daemon = start(&[]);
    let ends = four.run(&daemon);
    let text = daemon.read("events").unwrap();
    assert_eq!(fs::metadata(daemon.path("events")).unwrap().len(), text.len() as u64, "its size is true");
    let mut lives = vec![vec!["-".to_owned()]; ends.len() + 1];
    let mut last = 0;
    for line in text.lines() {
        let words: Vec<_> = line.splitn(5, ' ').collect();
        let (time, id): (u64, usize) = (words[0].parse().unwrap(), words[1].parse().unwrap());
        assert!(time >= last, "time goes back:\n{text}");
        last = time;
        assert_eq!(lives[id].last().unwrap(), words[2], "not the state it left:\n{text}");
        lives[id].push(words[3].to_owned());
        assert!(!matches!(words[3], "failed" | "degraded") || words.len() == 5, "no reason: {line}");
    }
    for (id, end) in ends {
        let index = usize::try_from(id).unwrap();
        assert_eq!(lives[index].last().unwrap(), end, "\n{text}");
        assert_eq!(daemon.status(id).state(), end);
    }
    assert_eq!(lives[1], ["-", "queued", "running", "flushing", "done"]);
    assert_eq!(lives[4], ["-", "paused", "queued", "running", "paused", "cancelled"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    assert!(
        u128::from(last) <= now && now - u128::from(last) < kcopyfs_support::poll::LIMIT.as_micros(),
        "microseconds since 1970:\n{text}"
    );
}

#[test]
fn events_can_be_followed() {
    if !need::fault_disk() {
        return;
    }
    let four = Four::new();
    let daemon = start(&[]);
    let mut tail = Process::start(Command::new("tail").args(["-n", "+1", "-f"]).arg(daemon.path("events")));
    let mut lines = BufReader::new(tail.0.stdout.take().unwrap()).lines();
    for number in 1..=2 {
        let id = daemon.job(&Four::spec(&four.source, &[&four.good], "")).unwrap();
        assert_eq!(id, number);
        let end = format!(" {id} flushing done");
        // tail looks once a second
        let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.ends_with(&end)));
        assert!(line.is_some(), "tail ended");
    }
}

#[test]
fn wait_answers_shells() {
    if !need::fault_disk() || !need::program("dash", "dash") {
        return;
    }
    let four = Four::new();
    let daemon = start(&[]);
    for (id, end) in four.run(&daemon) {
        for shell in ["bash", "dash"] {
            let script = format!("cat $M/wait/{id} > /dev/null && echo yes || echo no");
            let expected = if end == "done" { "yes\n" } else { "no\n" };
            let output = daemon.sh(shell, &script);
            assert_eq!((output.code(), output.stdout.as_str()), (0, expected), "{shell}, {end}: {output:?}");
            let said = match end {
                "done" => "",
                "cancelled" => "canceled",
                _ => "Input/output error",
            };
            assert!(output.stderr.contains(said) && output.stderr.is_empty() == said.is_empty(), "{output:?}");
            // what it printed is the status
            let text = daemon.sh(shell, &format!("cat $M/wait/{id} 2> /dev/null")).stdout;
            assert_eq!(text, daemon.status(id).text());
            let script =
                format!("while read -r key value; do [ $key = state ] && echo $value; done < $M/jobs/{id}/status");
            assert_eq!(daemon.sh(shell, &script).stdout, format!("{end}\n"));
        }
    }
}

#[test]
fn wait_tells_progress_until_the_end() {
    if !need::fault_disk() {
        return;
    }
    let four = Four::new();
    let daemon = start(&[]);
    let id = daemon.job(&Four::spec(&four.source, &[&four.hung], "")).unwrap();
    four.hung.wait_parked(1);
    let mut cat = Process::start(Command::new("cat").arg(daemon.path(format!("wait/{id}"))));
    let mut lines = BufReader::new(cat.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let begin = Instant::now();
    for _ in 0..3 {
        let line = lines.next().unwrap();
        let shape = line.starts_with('[') && line.contains("]  ") && line.contains(" %  ") && line.contains("/s  ");
        assert!(shape && line.chars().count() <= 79 && line.ends_with(" left  copy"), "{line}");
    }
    // one at once, then one at least every second
    assert!(begin.elapsed() < 2 * KILL_LIMIT, "{:?}", begin.elapsed());
    four.hung.release();
    let rest: Vec<_> = lines.collect();
    let text = rest[rest.len() - STATUS_KEYS.len()..].join("\n") + "\n";
    assert_eq!(Status::parse(&text).state(), "done");
    assert!(cat.0.wait().unwrap().success());
}

/// A process that goes with the test.
struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("start it"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_reader_of_wait_is_gone_within_a_second() {
    if !need::fault_disk() {
        return;
    }
    let four = Four::new();
    let daemon = start(&[]);
    let running = daemon.job(&Four::spec(&four.source, &[&four.hung], "")).unwrap();
    four.hung.wait_parked(1);
    let paused = daemon.job(&Four::spec(&four.source, &[&four.good], "paused")).unwrap();
    let mut readers: Vec<_> = [running, paused]
        .iter()
        .cycle()
        .take(10)
        .map(|id| Process::start(Command::new("cat").arg(daemon.path(format!("wait/{id}")))))
        .collect();
    // each has said its first line and waits for the next
    for reader in &mut readers {
        let mut line = String::new();
        BufReader::new(reader.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "{line:?}");
    }
    let begin = Instant::now();
    for reader in &mut readers {
        reader.0.kill().unwrap();
    }
    for reader in &mut readers {
        reader.0.wait().unwrap();
    }
    assert!(begin.elapsed() < KILL_LIMIT, "{:?}", begin.elapsed());
    // nobody else is hurt
    four.hung.release();
    assert_eq!(daemon.wait(running).state(), "done");
}

#[test]
fn the_error_log_keeps_16_and_a_write_clears_it() {
    if !need::fuse() {
        return;
    }
    let daemon = start(&[]);
    assert_eq!(daemon.read("error_log").unwrap(), "");
    for number in 0..20 {
        daemon.refused(&format!("wrong{number}"));
    }
    let log = daemon.read("error_log").unwrap();
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 3 * 16, "{log}");
    for (number, entry) in (4..).zip(lines.chunks(3)) {
        assert_eq!(entry[1], format!("  wrong{number}"), "newest last:\n{log}");
    }
    // opening it for writing is not a write
    daemon.sh("bash", ": >> $M/error_log").ok();
    assert_eq!(daemon.read("error_log").unwrap(), log);
    for clear in [": > $M/error_log", "echo > $M/error_log", "echo clear >> $M/error_log", "truncate -s 0 $M/error_log"]
    {
        daemon.refused("wrong");
        daemon.sh("bash", clear).ok();
        assert_eq!(daemon.read("error_log").unwrap(), "", "{clear}");
    }
}

#[test]
fn status_has_its_keys_in_every_state() {
    if !need::fault_disk() {
        return;
    }
    let four = Four::new();
    let daemon = start(&["active=1"]);
    let keys = |id: u64| -> Vec<String> {
        let text = daemon.read(format!("jobs/{id}/status")).unwrap();
        text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    };
    let running = daemon.job(&Four::spec(&four.source, &[&four.hung], "name=nightly")).unwrap();
    four.hung.wait_parked(1);
    let queued = daemon.job(&Four::spec(&four.source, &[&four.good], "")).unwrap();
    let paused = daemon.job(&Four::spec(&four.source, &[&four.bad], "paused")).unwrap();
    for (id, state) in [(running, "running"), (queued, "queued"), (paused, "paused")] {
        assert_eq!(daemon.status(id).state(), state);
        assert_eq!(keys(id), STATUS_KEYS);
    }
    let status = daemon.status(running);
    assert_eq!((status.client(), status.name(), status.digest()), ("default", Some("nightly"), None));
    assert_eq!((status.total(), status.durable(), status.get("write_err")), (1 << 20, 0, "0x0"), "\n{status}");
    for id in [queued, paused] {
        let status = daemon.status(id);
        let figures = (status.copied(), status.speed(), status.elapsed_usec(), status.eta_usec());
        assert_eq!(figures, (0, 0, 0, None), "\n{status}");
    }
    four.hung.release();
    assert_eq!(daemon.wait(running).state(), "done");
    assert_eq!(daemon.wait(queued).state(), "done");
    daemon.control(paused, "resume").unwrap();
    assert_eq!(daemon.wait(paused).state(), "failed");
    for id in [running, queued, paused] {
        assert_eq!(keys(id), STATUS_KEYS);
    }
}

/// An image, so that control needs no root.
fn images() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::Builder::new().prefix("kcopyfs-truth-").tempdir().expect("a scratch directory");
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, stamp::stamped(SOURCE, 0, 8192)).expect("an image");
    (dir, from, to)
}

#[test]
fn control_takes_verbs_from_shells() {
    if !need::fuse() || !need::program("dash", "dash") {
        return;
    }
    let (_dir, from, to) = images();
    let daemon = start(&[]);
    for shell in ["bash", "dash"] {
        // slow enough to be met in the middle
        let spec = format!("from={} to={} create speed_max=1M", from.display(), to.display());
        let id = daemon.job(&spec).unwrap();
        let echo = |verb: &str| daemon.sh(shell, &format!("echo {verb} > $M/jobs/{id}/control"));
        until_state(&daemon, id, "running");
        echo("pause").ok();
        assert_eq!(daemon.status(id).state(), "paused");
        echo("pause").ok();
        // what is under way ends, then nothing moves
        let durable = until("rest", || {
            let status = daemon.status(id);
            (status.durable() == status.copied() && status.stalled_usec() == 0).then_some(status)
        });
        let other = format!("from={},0,8 to={}2 create", from.display(), to.display());
        assert_eq!(daemon.wait(daemon.job(&other).unwrap()).state(), "done");
        assert_eq!(daemon.status(id).text(), durable.text(), "a paused job moves");
        echo("resume").ok();
        until("more", || (daemon.status(id).copied() > durable.copied()).then_some(()));
        echo("cancel").ok();
        let waited = daemon.wait_to_end(id);
        assert_eq!((waited.status.state(), waited.errno), ("cancelled", Some(libc::ECANCELED)));
        let status = waited.status;
        assert!(status.copied() < status.total() && status.durable() == status.copied(), "\n{status}");
        let (there, all) = (fs::read(&to).unwrap(), fs::read(&from).unwrap());
        let arrived = there.chunks(512).zip(all.chunks(512)).filter(|(a, b)| a == b).count() as u64 * 512;
        assert!(status.copied() <= arrived, "{arrived} bytes are written:\n{status}");
        fs::remove_file(&to).unwrap();
        // an ended job takes none
        for verb in ["pause", "resume", "cancel"] {
            let output = echo(verb);
            let said = if shell == "bash" { "Invalid argument" } else { "I/O error" };
            assert!(output.code() != 0 && output.stderr.contains(said), "{shell}: {output:?}");
        }
        let mut control = OpenOptions::new();
        let refused = control.read(true).open(daemon.path(format!("jobs/{id}/control"))).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EACCES), "control is not read");
    }
}

#[test]
fn a_job_that_starts_paused_writes_nothing_until_resume() {
    if !need::fault_disk() {
        return;
    }
    let four = Four::new();
    let daemon = start(&[]);
    let id = daemon.job(&Four::spec(&four.source, &[&four.good], "paused")).unwrap();
    // another one comes and goes meanwhile
    let other = daemon.job(&Four::spec(&four.source, &[&four.bad], "ignore_error")).unwrap();
    assert_eq!(daemon.wait(other).state(), "failed");
    assert_eq!((daemon.status(id).state(), four.good.stat().writes), ("paused", 0));
    daemon.sh("bash", &format!("echo resume > $M/jobs/{id}/control && cat $M/wait/{id} > /dev/null")).ok();
    assert_eq!(four.good.check(SOURCE), Ok(()));
}

#[test]
fn numbers_are_never_used_again() {
    if !need::fuse() {
        return;
    }
    let (_dir, from, to) = images();
    let daemon = start(&["keep=2"]);
    let spec = format!("from={},0,8 to={} create", from.display(), to.display());
    for id in 1..=5 {
        assert_eq!(daemon.job(&spec).unwrap(), id);
        assert_eq!(daemon.wait(id).state(), "done");
    }
    let list = "ls $M/jobs | grep -v new | sort -n | tr '\\n' ' '";
    // the oldest beyond what is kept are dismissed
    until("4 and 5 are kept", || (daemon.sh("sh", list).ok() == "4 5 ").then_some(()));
    daemon.sh("sh", "rmdir $M/jobs/5").ok();
    assert_eq!(daemon.job(&format!("{spec} paused")).unwrap(), 6);
    assert!(daemon.sh("sh", "rmdir $M/jobs/6").stderr.contains("busy"));
    daemon.refused("nothing");
    // what the sixth is to write is taken
    daemon.refused(&spec);
    assert_eq!(daemon.job(&format!("{spec} queue")).unwrap(), 7);
}

#[test]
fn the_pace_of_each_device_is_shown_while_it_is_used() {
    if !need::fault_disk() {
        return;
    }
    let four = Four::new();
    let daemon = start(&[]);
    four.good.rule(Op::Write, .., Fault::Delay(Duration::from_millis(20)));
    let id = daemon.job(&Four::spec(&four.source, &[&four.good], "speed_max=128K")).unwrap();
    let path = four.good.path().display().to_string();
    // key=value, in the order of the tree's README
    until("its latency is known", || {
        let engine = daemon.read("engine").unwrap();
        let line = engine.lines().find(|line| line.contains("direction=write") && line.contains(&path))?.to_owned();
        let value = |key: &str| line.split_once(&format!("{key}="))?.1.split(' ').next()?.parse::<u64>().ok();
        let known = value("latency_usec")? >= 20_000 && value("window")? >= 32 << 10 && value("in_flight").is_some();
        known.then_some(())
    });
    // Between two writes of so slow a job nobody uses it.
    until("metrics have the same", || {
        let metrics = daemon.read("metrics").unwrap();
        let has =
            |name: &&str| metrics.contains(&format!("kcopyfs_device_{name}{{device=\"{path}\",direction=\"write\"}}"));
        let names = ["window_bytes", "in_flight_bytes", "rate_bytes_per_second", "latency_seconds"];
        names.iter().all(has).then_some(())
    });
    daemon.control(id, "cancel").unwrap();
    until("nobody uses it", || (!daemon.read("engine").unwrap().contains(&path)).then_some(()));
}
