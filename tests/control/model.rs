//! Random verbs on random jobs, against a model of a job's life.
//!
//! The model knows which changes of state there are, what each verb does in each state, and that two jobs which write the
//! same image never run at once. What happened is taken from `events` alone. A job changes by itself while a verb is on
//! its way, so an answer is right if it is right for a state that the job was in at that time.

use std::collections::BTreeMap;
use std::fs;

use kcopyfs_support::Rng;
use kcopyfs_support::daemon::Event;

use crate::bench::Bench;

const STEPS: u64 = 2000;
/// Images that are written to: few, so that jobs meet.
const IMAGES: u64 = 4;
const VERBS: [&str; 5] = ["pause", "resume", "cancel", "retry", "verify"];

/// The changes that there are. Devices that stay what they are hold no job.
const CHANGES: &[(&str, &[&str])] = &[
    ("-", &["queued", "paused"]),
    ("queued", &["running", "verifying", "paused", "cancelled"]),
    ("running", &["paused", "flushing", "cancelled"]),
    ("paused", &["queued", "cancelled"]),
    ("flushing", &["done", "verifying", "cancelled"]),
    ("verifying", &["done", "failed", "paused", "cancelled"]),
    ("done", &["queued"]),
    ("failed", &["queued"]),
    ("cancelled", &["queued"]),
];

/// What a verb says in a state; 0 where it is taken.
fn answer(state: &str, verb: &str) -> i32 {
    let ended = is_ended(state);
    match (verb, state) {
        ("retry", "failed" | "cancelled") | ("verify", "done") => 0,
        ("retry" | "verify", _) | ("pause", "flushing") if !ended => libc::EBUSY,
        ("pause" | "resume" | "cancel", _) if !ended => 0,
        _ => libc::EINVAL,
    }
}

fn is_ended(state: &str) -> bool {
    ["done", "failed", "cancelled"].contains(&state)
}

/// A verb that was written, when so many events of its job were known.
struct Said {
    verb: &'static str,
    answer: i32,
    known: usize,
    known_after: usize,
}

/// A job as the driver knows it.
struct Known {
    image: u64,
    writes: bool,
    said: Vec<Said>,
}

struct Driver<'a> {
    bench: &'a Bench,
    rng: Rng,
    jobs: BTreeMap<u64, Known>,
    dismissed: Vec<u64>,
}

#[test]
fn random_verbs_keep_to_the_model_needs_fuse() {
    let Some(bench) = Bench::new(&["state=none", "active=3"]) else { return };
    (0..IMAGES).for_each(|image| _ = bench.image(&format!("b{image}")));
    let rng = Rng::from_env_or(0x5eed_0003);
    let mut driver = Driver { bench: &bench, rng, jobs: BTreeMap::new(), dismissed: Vec::new() };
    let mut events = bench.daemon.events();
    for _ in 0..STEPS {
        driver.step(|id| events.changes(id).len());
    }
    driver.let_all_end(&mut events);
    let events = events.now();
    for id in driver.jobs.keys().chain(&driver.dismissed) {
        let own: Vec<&Event> = events.iter().filter(|event| event.job == *id).collect();
        check_changes(&own);
        if let Some(known) = driver.jobs.get(id) {
            check_answers(*id, &known.said, &own);
            assert_eq!(bench.daemon.status(*id).state(), own[own.len() - 1].new, "status of job {id}");
        }
    }
    driver.check_neighbours(events);
    assert!(events.len() > 500, "{} events: too little happened", events.len());
    driver.check_images(events);
}

impl Driver<'_> {
    fn step(&mut self, mut known: impl FnMut(u64) -> usize) {
        match self.rng.below(20) {
            0..=3 => self.make(),
            4 => self.dismiss(),
            5 => self.limit(),
            6 => {
                let percent = *self.rng.pick(&[1, 10, 50, 100]);
                self.bench.daemon.write("throttle", &percent.to_string()).expect("set the throttle");
            }
            _ => {
                let Some(id) = self.any_job() else { return };
                let verb = *self.rng.pick(&VERBS);
                let before = known(id);
                let answer = self.bench.verb(id, verb);
                let said = Said { verb, answer, known: before, known_after: known(id) };
                self.jobs.get_mut(&id).expect("a known job").said.push(said);
            }
        }
    }

    fn any_job(&mut self) -> Option<u64> {
        let ids: Vec<u64> = self.jobs.keys().copied().collect();
        (!ids.is_empty()).then(|| *self.rng.pick(&ids))
    }

    fn make(&mut self) {
        let image = self.rng.below(IMAGES);
        let (a, b) = (self.bench.path("a"), self.bench.path(&format!("b{image}")));
        let writes = !self.rng.one_in(5);
        let mut spec = format!("{} from={} to={}", if writes { "copy" } else { "verify" }, a.display(), b.display());
        let speed = *self.rng.pick(&["", "", " speed_max=64K", " speed_max=256K", " speed_max=1M"]);
        spec.push_str(speed);
        for word in [" paused", " queue", " verify"] {
            if self.rng.one_in(3) && (writes || word != " verify") {
                spec.push_str(word);
            }
        }
        if let Some(after) = self.any_job().filter(|_| self.rng.one_in(4)) {
            spec = format!("{spec} after={after}");
        }
        match self.bench.daemon.job(&spec) {
            Ok(id) => _ = self.jobs.insert(id, Known { image, writes, said: Vec::new() }),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EBUSY), "{spec}");
                assert!(!spec.contains(" queue"), "{spec} waits where its image is in use");
                let others = self.jobs.values().filter(|known| known.image == image);
                assert!(others.count() > 0, "{spec}: nobody else uses it");
            }
        }
    }

    fn dismiss(&mut self) {
        let Some(id) = self.any_job() else { return };
        match self.bench.rmdir(&format!("jobs/{id}")) {
            0 => {
                self.jobs.remove(&id);
                self.dismissed.push(id);
                assert_eq!(self.bench.verb(id, "cancel"), libc::ENOENT, "job {id} was dismissed");
            }
            libc::EBUSY => {}
            errno => panic!("rmdir jobs/{id}: {errno}"),
        }
    }

    fn limit(&mut self) {
        let rate = *self.rng.pick(&["32K", "128K", "4M", "max"]);
        let file = match self.any_job() {
            Some(id) if self.rng.one_in(2) => format!("jobs/{id}/speed_max"),
            _ => "speed_max".to_owned(),
        };
        self.bench.daemon.write(file, rate).expect("set a limit");
    }

    /// Takes all limits away and resumes everything, until nothing lives.
    fn let_all_end(&self, events: &mut kcopyfs_support::daemon::Events<'_>) {
        let daemon = &self.bench.daemon;
        daemon.write("throttle", "100").expect("set the throttle");
        daemon.write("speed_max", "max").expect("lift the limit");
        for id in self.jobs.keys() {
            daemon.write(format!("jobs/{id}/speed_max"), "max").expect("lift a limit");
            if daemon.status(*id).state() == "paused" {
                let _ = daemon.control(*id, "resume");
            }
        }
        events.until("the end of all", |events| {
            let mut last = BTreeMap::new();
            for event in events {
                last.insert(event.job, event.new.as_str());
            }
            self.jobs.keys().all(|id| last.get(id).copied().is_some_and(is_ended)).then_some(())
        });
    }

    /// Whoever writes an image is alone with it.
    fn check_neighbours(&self, events: &[Event]) {
        let mut busy: BTreeMap<u64, u64> = BTreeMap::new();
        for event in events {
            let Some(known) = self.jobs.get(&event.job) else { continue };
            if ["running", "flushing", "verifying"].contains(&event.new.as_str()) {
                for other in busy.iter().filter(|(_, image)| **image == known.image).map(|(id, _)| id) {
                    let both_read = !known.writes && !self.jobs[other].writes;
                    assert!(both_read || *other == event.job, "jobs {other} and {} at once", event.job);
                }
                busy.insert(event.job, known.image);
            } else {
                busy.remove(&event.job);
            }
        }
    }

    /// What is done is whole.
    fn check_images(&self, events: &[Event]) {
        for image in 0..IMAGES {
            let copied = |event: &&Event| {
                let known = self.jobs.get(&event.job);
                event.new == "done" && known.is_some_and(|known| known.writes && known.image == image)
            };
            if events.iter().any(|event| copied(&event)) {
                assert!(self.bench.is_whole(&format!("b{image}")), "image {image}");
            }
        }
        let listed =
            |state: &str| fs::read_dir(self.bench.daemon.path(format!("state/{state}"))).expect("list").count();
        assert_eq!(["done", "failed", "cancelled"].map(listed).iter().sum::<usize>(), self.jobs.len());
    }
}

/// A life is a chain of changes that there are.
fn check_changes(own: &[&Event]) {
    let mut state = "-";
    for event in own {
        let old = event.old.as_deref().unwrap_or("-");
        assert_eq!(old, state, "a gap before {event:?}");
        let there = CHANGES.iter().find(|(from, _)| *from == old).is_some_and(|(_, to)| to.contains(&&*event.new));
        assert!(there, "there is no such change: {event:?}");
        state = &event.new;
    }
}

/// Answers are those of a state that the job was in; changes that only a verb makes are as many as it was taken.
fn check_answers(id: u64, said: &[Said], own: &[&Event]) {
    let mut made = BTreeMap::from([("paused", 0), ("resumed", 0), ("revived", 0)]);
    for event in own {
        match (event.old.as_deref(), &*event.new) {
            (Some(_), "paused") => *made.get_mut("paused").expect("a count") += 1,
            (Some("paused"), "queued") => *made.get_mut("resumed").expect("a count") += 1,
            (Some(_), "queued") => *made.get_mut("revived").expect("a count") += 1,
            _ => {}
        }
    }
    for Said { verb, answer: errno, known, known_after } in said {
        // Events may be told a moment after an answer.
        let window = &own[known.saturating_sub(1)..(known_after + 2).min(own.len())];
        let fits = window.iter().any(|event| answer(&event.new, verb) == *errno);
        // It is on its way to its end, which no verb changes.
        let ends = *errno == libc::EBUSY || (*errno == 0 && *verb == "cancel");
        let ending = ends && window.iter().any(|event| is_ended(&event.new));
        let cancelled = *errno == libc::EBUSY && said.iter().any(|other| other.verb == "cancel" && other.answer == 0);
        assert!(fits || ending || cancelled, "job {id}: {verb} said {errno} among {window:?}");
    }
    let taken = |verbs: &[&str]| said.iter().filter(|said| said.answer == 0 && verbs.contains(&said.verb)).count();
    assert!(made["paused"] <= taken(&["pause"]), "job {id} paused by itself: {own:?}");
    // The last one is of the end of the test.
    assert!(made["resumed"] <= taken(&["resume"]) + 1, "job {id} went on by itself: {own:?}");
    assert_eq!(made["revived"], taken(&["retry", "verify"]), "job {id} lived again by itself: {own:?}");
    let by_itself = own.iter().any(|event| {
        let waited = event.reason.as_deref().is_some_and(|reason| reason.starts_with("not started: job "));
        event.new == "cancelled" && !waited
    });
    assert!(!by_itself || taken(&["cancel"]) > 0, "job {id} was cancelled by itself: {own:?}");
}
