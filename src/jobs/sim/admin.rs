//! What people and fate do: each act by a number of its own, so that one can be left out and the others stay.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use sha2::Digest as _;

use super::super::event::{Event, Reply};
use super::super::job::Job;
use super::super::open::OpenError;
use super::super::submit::Ready;
use super::super::view::{State, Verb};
use super::super::waiting::{Found, LetGo};
use super::disks::{DISKS, NAMES, SIZE, Span};
use super::random::Random;
use super::world::{CLIENT, Checked, Later, Pending, World};
use crate::dm_io::{ErrorBits, IoRegion};
use crate::figures::Given;
use crate::io::Op;
use crate::io::sim::Fault;
use crate::spec::{self, Action, OnReadError, OnWriteError, Policy, Spec};

const RATES: [Option<u64>; 4] = [None, None, Some(100_000), Some(4 << 20)];

/// Verbs that an administrator writes to one job, each soon after the one before.
const SCRIPTS: [&[Verb]; 5] = [
    &[Verb::Pause, Verb::Resume],
    &[Verb::Pause, Verb::Cancel, Verb::Retry(Policy::SAME)],
    &[Verb::Cancel, Verb::Retry(Policy::SAME)],
    &[Verb::Verify, Verb::Pause, Verb::Resume],
    &[Verb::Verify, Verb::Cancel, Verb::Retry(Policy::SAME)],
];

const POLICIES: [Policy; 4] = [
    Policy::SAME,
    Policy { on_read_error: Some(OnReadError::Zero), retries: Some(1), ..Policy::SAME },
    Policy { on_read_error: Some(OnReadError::Skip), ..Policy::SAME },
    Policy { on_read_error: Some(OnReadError::Stop), on_write_error: Some(OnWriteError::Stop), ..Policy::SAME },
];

/// A time between two acts.
pub(super) fn pause(random: &mut Random) -> Duration {
    Duration::from_micros(random.pick(&[0, 40, 300, 300, 2000, 2000, 30_000, 1_500_000, 6_000_000]))
}

impl World<'_> {
    /// Somebody does something, or something happens to the machine.
    pub(super) fn act(&mut self, random: &mut Random) -> Checked {
        let what = random.below(100);
        if what < 70 {
            self.ask(what, random)
        } else {
            self.suffer(what, random);
            Ok(())
        }
    }

    /// Somebody writes to a file of the tree.
    fn ask(&mut self, what: u64, random: &mut Random) -> Checked {
        match what {
            0..34 => self.submit(random),
            34..54 => {
                let id = self.some_job(random);
                let verb = match random.pick(&Verb::ALL) {
                    Verb::Drop(_) => Verb::Drop(random.pick(&[0, 1, 1, 2])),
                    Verb::Retry(_) => Verb::Retry(random.pick(&POLICIES)),
                    verb => verb,
                };
                self.control(id, verb)?;
            }
            54..60 => {
                let id = self.some_job(random);
                self.write_verbs(id, random.pick(&SCRIPTS), random);
            }
            60..64 => self.lose_patience(random),
            64..66 => {
                let id = self.some_job(random);
                self.say(|| format!("rmdir jobs/{id}"));
                let (reply, answer) = Reply::new();
                drop(answer);
                self.send(Event::Dismiss { id, reply });
            }
            66 => {
                let most = random.pick(&[1, 2, 4]);
                self.say(|| format!("{most} > active"));
                let (reply, answer) = Reply::new();
                drop(answer);
                self.send(Event::Active { most, reply });
            }
            67 => {
                let (client, pages) = (random.pick(&[0, 1]), random.pick(&[1, 2, 4, 8]));
                self.say(|| format!("{pages} pages for client {client}"));
                let client = &self.daemon.engines[client].stepped.client;
                client.resize(pages).expect("the pool has so many");
            }
            _ => {
                let (id, rate) = (self.some_job(random), random.pick(&RATES));
                self.say(|| format!("speed_max of job {id}: {rate:?}"));
                let (reply, answer) = Reply::new();
                self.pending.push(Pending::Verb { id, verb: None, asked: self.number + 1, answer });
                self.send(Event::SpeedMax { id, rate, reply });
            }
        }
        Ok(())
    }

    /// Something happens to the disks, the state directory or the daemon.
    fn suffer(&mut self, what: u64, random: &mut Random) {
        match what {
            70..79 => self.break_disk(random),
            79 | 80 => {
                self.say(|| "the disks are mended".to_owned());
                self.disks.sim.clear();
            }
            81 => self.slow_one_of_many(random),
            82..85 => {
                self.journal.fails = !self.journal.fails;
                let fails = self.journal.fails;
                self.say(|| format!("the state directory fails: {fails}"));
            }
            85..88 => {
                let disk = disk(random);
                self.disks.busy[disk] = !self.disks.busy[disk];
                let busy = self.disks.busy[disk];
                self.say(|| format!("disk {disk} is busy: {busy}"));
            }
            88..90 => {
                let disk = disk(random);
                self.disks.missing[disk] = !self.disks.missing[disk];
                let missing = self.disks.missing[disk];
                self.say(|| format!("disk {disk} is missing: {missing}"));
            }
            90..92 => {
                let (a, b) = (disk(random), disk(random));
                self.say(|| format!("the names of disks {a} and {b} are exchanged"));
                self.disks.now.swap(a, b);
            }
            92..97 => {
                let (left, power) = (random.below(40), random.one_in(2));
                self.end_in.get_or_insert((left, power));
            }
            _ => {
                self.say(|| "stop".to_owned());
                let (reply, answer) = Reply::new();
                self.pending.push(Pending::Stopped(answer));
                self.send(Event::Stop { reply });
                // Whoever waits in vain ends it.
                self.end_in.get_or_insert((400, false));
            }
        }
    }

    pub(super) fn control(&mut self, id: u64, verb: Verb) -> Checked {
        self.say(|| format!("{} > jobs/{id}/control", verb.as_str()));
        let (reply, answer) = Reply::new();
        self.pending.push(Pending::Verb { id, verb: Some(verb), asked: self.number + 1, answer });
        self.send(Event::Control { id, verb, reply });
        self.answers_early(id, verb)
    }

    /// Somebody writes verbs to a job, one after the other.
    fn write_verbs(&mut self, id: u64, verbs: &[Verb], random: &mut Random) {
        let mut wait = Duration::ZERO;
        for verb in verbs {
            self.after(wait, Later::Verb(id, *verb));
            wait += Duration::from_micros(random.pick(&[0, 300, 2000, 30_000, 800_000]));
        }
    }

    /// A disk takes long to flush; somebody does not wait for it, ends a job twice, and tries again.
    fn lose_patience(&mut self, random: &mut Random) {
        let runs = |job: &&Job| job.writes() && matches!(job.state(), State::Running | State::Flushing);
        let ids: Vec<u64> = self.daemon.core.jobs.values().filter(runs).map(Job::id).collect();
        let id = if ids.is_empty() { self.some_job(random) } else { random.pick(&ids) };
        let opened = self.daemon.core.jobs.get(&id).and_then(Job::opened);
        if let Some(dest) = opened.and_then(|opened| opened.dests.first()) {
            let device = Arc::clone(&dest.device);
            let delay = Duration::from_secs(1 + random.below(10));
            self.say(|| format!("{}: a flush takes {delay:?} longer", device.path().display()));
            self.disks.sim.fault(&device, Op::Flush, 0..1, Fault::Delay(delay), None);
        }
        self.write_verbs(id, &[Verb::Cancel, Verb::Cancel, Verb::Retry(Policy::SAME)], random);
    }

    /// A job goes to several disks, and one of them does not answer for a while: it may fall behind, and is caught up, or dropped.
    fn slow_one_of_many(&mut self, random: &mut Random) {
        let names: Vec<_> = self.names.iter().map(|name| NAMES[*name]).collect();
        let mut line = format!("copy from={},0,40", names[0].0);
        for (name, ..) in &names[1..names.len().min(4)] {
            let _ = write!(line, " to={name}");
        }
        line.push_str(random.pick(&[
            " verify",
            " verify",
            " verify digest=sha256",
            " write_seq verify",
            " background",
            "",
        ]));
        let slow = self.disks.now[names[1].1];
        let op = random.pick(&[Op::Write, Op::Write, Op::Read, Op::Flush]);
        let (start, delay) = (random.below(32), Duration::from_secs(6 + random.below(20)));
        self.say(|| format!("disk {slow} takes {delay:?} longer for {op:?} from {start} on"));
        let device = &self.disks.devices[slow];
        self.disks.sim.fault(device, op, start..SIZE, Fault::Delay(delay), Some(1 + random.below(5) as u32));
        let id = self.daemon.core.jobs.keys().last().map_or(1, |last| last + 1);
        self.submit_lines(&[line], random);
        let late = random.pick(&[300_000, 1_000_000, 7_000_000, 9_000_000]);
        let verbs: &[&[Verb]] =
            &[&[], &[Verb::Pause, Verb::Resume], &[Verb::Drop(0)], &[Verb::Cancel], &[Verb::Drop(1)]];
        for verb in random.pick(verbs) {
            self.after(Duration::from_micros(late), Later::Verb(id, *verb));
        }
    }

    fn some_job(&self, random: &mut Random) -> u64 {
        let ids: Vec<u64> = self.daemon.core.jobs.keys().copied().collect();
        // Half of all that people do is about one job, so that it goes through a lot.
        match ids.first() {
            None => 1,
            Some(first) if random.one_in(2) => *first,
            Some(_) => random.pick(&ids),
        }
    }

    fn break_disk(&mut self, random: &mut Random) {
        let disk = disk(random);
        let op = random.pick(&[Op::Read, Op::Read, Op::Write, Op::Write, Op::Flush, Op::Flush]);
        let fault = match random.below(8) {
            0..4 => Fault::Error(libc::EIO),
            4 => Fault::Short(1024),
            5 | 6 => Fault::Delay(Duration::from_secs(1 + random.below(20))),
            _ => Fault::Hang,
        };
        let times = random.pick(&[Some(1), Some(2), None]);
        self.has_hung |= fault == Fault::Hang;
        let start = random.below(SIZE);
        let sectors = start..start + 1 + random.below(12);
        self.say(|| format!("disk {disk}: {op:?} of {sectors:?} {fault:?}, times {times:?}"));
        self.disks.sim.fault(&self.disks.devices[disk], op, sectors, fault, times);
    }

    fn submit(&mut self, random: &mut Random) {
        let count = random.pick(&[1, 1, 1, 1, 2, 3]);
        let lines: Vec<String> = (0..count).map(|_| self.line(random)).collect();
        self.submit_lines(&lines, random);
    }

    /// Somebody writes those specs at once.
    pub(super) fn submit_lines(&mut self, lines: &[String], random: &mut Random) {
        let mut ready = Vec::new();
        for line in lines {
            self.say(|| format!("{line} > jobs/new"));
            let spec = spec::parse(line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {}", error.error)).spec;
            match self.ready(spec, random) {
                Some(one) => ready.push(one),
                None => return self.say(|| "refused".to_owned()),
            }
        }
        let (reply, answer) = Reply::new();
        self.pending.push(Pending::Submit(answer));
        let wait = self.while_working();
        self.after(wait, Later::Event(Event::Submit { ready, reply }));
    }

    fn ready(&self, spec: Spec, random: &mut Random) -> Option<Ready> {
        let (count, seed) = (spec.count()?, random.below(u64::MAX));
        match self.disks.open(&spec, ErrorBits::NONE, self.daemon.client(&spec)) {
            Ok(opened) => {
                let writes = spec.action != Action::Verify;
                // What its map says is drawn when it comes.
                let given = spec.map.is_some().then(Given::default);
                let stays = given.is_some() || random.one_in(2);
                let opened = Box::new(opened);
                let found = if stays { opened.into() } else { LetGo::of(opened, writes, None).ok()? };
                Some(Ready { spec, count, devices: Ok(found), given, seed })
            }
            Err(OpenError::Busy(_, error) | OpenError::InUse(_, error)) if spec.queue && spec.map.is_none() => {
                Some(Ready { spec, count, devices: Err(error.to_string()), given: None, seed })
            }
            Err(_) => None,
        }
    }

    /// A job that has a map is told of what is on its destinations for good, and of some sectors that they are bad.
    pub(super) fn draw_map(&mut self, one: &mut Ready) {
        let (Some(given), Some(opened)) = (&mut one.given, one.devices.as_ref().ok().and_then(Found::opened)) else {
            return;
        };
        let Some(from) = &opened.from else { return };
        let disks = &self.disks;
        let at = |region: &IoRegion, sector: u64| {
            let Span { disk, sectors } = disks.span_of(region);
            Span { disk, sectors: sectors.start + sector..sectors.start + sector + 1 }
        };
        for sector in 0..one.count.get() {
            let data = disks.read(&at(from, sector));
            let has = |dest: &IoRegion| {
                let span = at(dest, sector);
                let volatile = disks.sim.first_volatile(&disks.devices[span.disk], span.sectors.clone());
                disks.read(&span) == data && volatile.is_none()
            };
            match self.random.below(8) {
                0 => given.bad.insert(sector..sector + 1),
                1..7 if opened.dests.iter().all(has) => given.there.insert(sector..sector + 1),
                _ => {}
            }
        }
    }

    fn line(&self, random: &mut Random) -> String {
        let action = random.pick(&["copy", "copy", "copy", "copy", "copy", "zero", "verify", "test"]);
        let count = random.pick(&[0, 1, 1, 8, 8, 16, 16, 24, 24, 40, 40]);
        let mut line = action.to_owned();
        // Few places, so that jobs meet.
        let names = self.names.clone();
        let place = |random: &mut Random| (NAMES[random.pick(&names)].0, random.below(3) * 8);
        let from = place(random);
        if action == "zero" || action == "test" {
            for _ in 0..if action == "test" { random.pick(&[1, 1, 2]) } else { 1 } {
                let to = place(random);
                let _ = write!(line, " to={},{},{count}", to.0, to.1);
            }
        } else {
            let _ = write!(line, " from={},{},{count}", from.0, from.1);
            let alone = action == "verify" && random.one_in(3);
            for _ in 0..if alone { 0 } else { random.pick(&[1, 1, 1, 1, 2, 3]) } {
                let to = place(random);
                let _ = write!(line, " to={},{}", to.0, to.1);
            }
            let expects = alone || random.one_in(20);
            if expects {
                let _ = write!(line, " digest={}", self.expected(from, count, random));
            } else if random.one_in(6) {
                let _ = write!(line, " digest={}", random.pick(&["sha256", "blake3", "blake3,sha256"]));
            }
        }
        if random.one_in(3) {
            let _ = write!(line, " client={CLIENT}");
        }
        if action != "verify" {
            policies(&mut line, action, random);
        }
        for word in ["paused", "queue", "queue", "queue"] {
            if random.one_in(4) && !line.contains(word) {
                let _ = write!(line, " {word}");
            }
        }
        let may_wait = !line.contains("map=");
        if random.one_in(6) && self.daemon.core.jobs.len() > 0 && may_wait {
            let _ = write!(line, " after={}", self.some_job(random));
        }
        let named = random.pick(&[" name=x", " name=x once", " after=x"]);
        if random.one_in(8) && !(named.contains("after") && (line.contains("after") || !may_wait)) {
            line.push_str(named);
        }
        if let Some(rate) = random.pick(&RATES).filter(|_| random.one_in(4)) {
            let _ = write!(line, " speed_max={rate}");
        }
        line
    }

    /// A sum that is expected of a source: what it is now, or another.
    fn expected(&self, from: (&str, u64), count: u64, random: &mut Random) -> String {
        let line = format!("zero to={},{},{count}", from.0, from.1);
        let spec = spec::parse(line.as_bytes()).expect("a place").spec;
        let bytes = self.disks.bytes_of(&spec.to[0]).filter(|_| !random.one_in(4));
        let sum = sha2::Sha256::digest(bytes.unwrap_or_default());
        let hex = sum.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        random.pick(&["sha256:", "blake3,sha256:"]).to_owned() + &hex
    }

    /// Nothing fails any more, and nothing is in the way.
    pub(super) fn heal(&mut self) -> Checked {
        self.say(|| "everything is mended".to_owned());
        self.end_in = None;
        self.disks.sim.clear();
        self.disks.now = std::array::from_fn(|disk| disk);
        (self.disks.busy, self.disks.missing) = ([false; DISKS], [false; DISKS]);
        self.journal.fails = false;
        if std::mem::take(&mut self.has_hung) || self.daemon.core.stopping.is_some() {
            self.count_down(Some(false))?;
        }
        Ok(())
    }
}

/// Words that say what is done about errors, and how it is written.
fn policies(line: &mut String, action: &str, random: &mut Random) {
    let is_copy = action == "copy";
    let words: &[&str] =
        &["ignore_error", "write_seq", "sparse", "verify", "on_write_error=stop", "changed", "changed", "map=/map"];
    for word in words {
        let fits = match *word {
            "verify" | "sparse" | "changed" | "map=/map" => is_copy && !line.contains(word),
            "ignore_error" => action != "test",
            _ => true,
        };
        if fits && random.one_in(7) && !(*word == "write_seq" && line.contains("ignore_error")) {
            let _ = write!(line, " {word}");
        }
    }
    if is_copy && !line.contains("write_seq") && !line.contains("ignore_error") && random.one_in(3) {
        let _ = write!(line, " on_read_error={}", random.pick(&["zero", "skip", "stop"]));
    }
    if random.one_in(4) && !line.contains("ignore_error") {
        let _ = write!(line, " retries={}", 1 + random.below(2));
    }
}

fn disk(random: &mut Random) -> usize {
    usize::try_from(random.below(DISKS as u64)).expect("a few disks")
}
