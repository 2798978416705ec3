//! Random schedules, turn by turn: jobs of all kinds in small pools, pauses, limits, faults; every job must end, and rightly.
//!
//! A failure names its seed; `KCOPYFS_SEED=N` runs that one alone, and `KCOPYFS_SCHEDULES=N` so many.

use super::*;
use crate::kcopyd::{Stepped, Turn};

/// Seeds that every run of the tests plays.
const SCHEDULES: u64 = 200;

/// Pseudo-random numbers (xorshift64*).
struct Rng(u64);

impl Rng {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    }

    fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}

/// What an observer saw.
#[derive(Default)]
struct Told {
    pieces: Vec<Entry>,
    shown: Vec<(u64, u64)>,
}

#[derive(Clone, Default)]
struct Watch(Arc<Mutex<Told>>);

impl Observer for Watch {
    fn piece(&mut self, piece: &Piece<'_>) {
        let entry = (piece.offset.get(), piece.count.get(), piece.read_error, piece.written.bits());
        self.0.lock().pieces.push(entry);
    }

    fn data(&mut self, offset: Sector, bytes: &Bytes<'_>) {
        let mut length = 0;
        bytes(&mut |run| length += run.len() as u64);
        self.0.lock().shown.push((offset.get(), length / 512));
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Copy,
    Zero,
    Compare,
}

struct Task {
    kind: Kind,
    flags: Flags,
    in_order: bool,
    size: u64,
    faulty: bool,
    cancelled: bool,
    dests: Vec<Arc<Device>>,
    handle: JobHandle,
    limit: SpeedLimit,
    watch: Watch,
    end: Arc<Mutex<Option<Outcome>>>,
}

const RATES: [Option<u64>; 5] = [None, Some(300_000), Some(4 << 20), Some(16 << 20), Some(64 << 20)];

const FLAGS: [Flags; 6] = [
    Flags::NONE,
    Flags::WRITE_SEQ,
    Flags::IGNORE_ERROR,
    Flags::SKIP_UNREADABLE,
    Flags::DROP_FAILED,
    Flags::KEEP_FAILED,
];

struct World {
    seed: u64,
    rng: Rng,
    sim: Sim,
    pool: Arc<PagePool>,
    all: SpeedLimit,
    throttle: ThrottleShare,
    clients: Vec<(Stepped, Option<Duration>)>,
    tasks: Vec<Task>,
    now: Duration,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let sim = Sim::stepped(seed);
        let pool = PagePool::new(MIN_PAGES).unwrap();
        let (all, throttle) = (SpeedLimit::default(), ThrottleShare::default());
        let subjob_bytes = rng.pick(&[64 << 10, 128 << 10, 256 << 10, 512 << 10]);
        let most = u64::from(MIN_PAGES * 4096 / subjob_bytes).min(4);
        let settings = Settings {
            subjob_bytes,
            subjobs: (!rng.one_in(2)).then(|| usize::try_from(1 + rng.below(10)).unwrap()),
            throttle: throttle.clone(),
            speed_max: all.clone(),
            ..Settings::default()
        };
        let clients = (0..=rng.below(most)).map(|_| (Stepped::new(&pool, 0, settings.clone(), &sim).unwrap(), None));
        let clients = clients.collect();
        Self { seed, rng, sim, pool, all, throttle, clients, tasks: Vec::new(), now: Duration::ZERO }
    }

    fn start(&mut self) {
        let rng = &mut self.rng;
        let kind = rng.pick(&[Kind::Copy, Kind::Copy, Kind::Copy, Kind::Compare, Kind::Zero]);
        let size = 8 * rng.below(800);
        let flags = rng.pick(&FLAGS) | rng.pick(&FLAGS);
        let in_order = kind != Kind::Zero && rng.one_in(3);
        let from = disk(1, size);
        let dests: Vec<_> =
            (0..=rng.below(3)).map(|seed| disk(if kind == Kind::Compare { 1 } else { 9 + seed as u8 }, size)).collect();
        let mut faulty = false;
        for device in dests.iter().chain([&from]) {
            if rng.one_in(2) {
                let latency = Duration::from_millis(rng.pick(&[5, 100]));
                let latency = Some(latency..latency + Duration::from_millis(5));
                self.sim.behave(device, Behaviour { latency, ..Behaviour::default() });
            }
            if size > 0 && rng.one_in(5) {
                faulty = true;
                let op = if kind == Kind::Compare || Arc::ptr_eq(device, &from) { Op::Read } else { Op::Write };
                let at = rng.below(size);
                self.sim.fault(device, op, at..at + 1, Fault::Error(libc::EIO), None);
            }
        }
        let limit = SpeedLimit::new(rng.pick(&RATES));
        let (watch, end) = (Watch::default(), Arc::new(Mutex::new(None)));
        let without = if kind == Kind::Compare && rng.one_in(2) { ErrorBits::first(64) } else { ErrorBits::NONE };
        let work = match kind {
            Kind::Copy => Work::Copy(whole(&from)),
            Kind::Compare => Work::Compare(whole(&from)),
            Kind::Zero => Work::Zero,
        };
        let request = Request {
            flags,
            without,
            in_order,
            speed_max: limit.clone(),
            paused: rng.one_in(4),
            observer: Some(Box::new(watch.clone())),
            ..plain(work, &dests)
        };
        let client = usize::try_from(rng.below(self.clients.len() as u64)).unwrap();
        let notify = |outcome: Outcome, end: Arc<Mutex<Option<Outcome>>>| *end.lock() = Some(outcome);
        let handle = self.clients[client].0.client.submit(request, Arc::clone(&end), notify).unwrap();
        let cancelled = false;
        self.tasks.push(Task { kind, flags, in_order, size, faulty, cancelled, dests, handle, limit, watch, end });
    }

    fn meddle(&mut self) {
        let rng = &mut self.rng;
        if self.tasks.is_empty() {
            return;
        }
        let task = usize::try_from(rng.below(self.tasks.len() as u64)).unwrap();
        let task = &mut self.tasks[task];
        match rng.below(12) {
            0..3 => task.handle.pause(),
            3..6 => task.handle.resume(),
            6..9 => {
                task.limit.set(rng.pick(&RATES));
                task.handle.wake();
            }
            9 => {
                self.all.set(rng.pick(&RATES));
                self.clients.iter().for_each(|(client, _)| client.client.wake());
            }
            10 => {
                self.throttle.set(rng.pick(&[20, 70, 100, 100]));
                self.clients.iter().for_each(|(client, _)| client.client.wake());
            }
            _ if rng.one_in(3) => {
                task.cancelled = true;
                task.handle.cancel();
            }
            _ => {
                let client = usize::try_from(rng.below(self.clients.len() as u64)).unwrap();
                // Refused where the pool has not as many.
                let _ = self.clients[client].0.client.resize(u32::try_from(rng.below(128)).unwrap());
            }
        }
    }

    /// Gives the clients their turns up to that time. False if nothing is due any more.
    fn run(&mut self, until: Duration) -> bool {
        loop {
            let woken = self.clients.iter().any(|(client, _)| client.is_woken());
            let next = self.clients.iter().filter_map(|(_, next)| *next).min();
            match next {
                _ if woken => {}
                None => return false,
                Some(next) if next > until => {
                    self.now = until;
                    return true;
                }
                Some(next) => self.now = self.now.max(next),
            }
            let now = self.now;
            for (client, next) in &mut self.clients {
                if client.is_woken() || next.is_some_and(|next| next <= now) {
                    let Turn { next: later, .. } = client.turn(now);
                    *next = later;
                }
            }
        }
    }

    fn play(mut self) {
        for _ in 0..2 + self.rng.below(6) {
            self.start();
        }
        for _ in 0..self.rng.below(40) {
            let pause = Duration::from_micros(self.rng.pick(&[0, 300, 5000, 200_000]));
            self.run(self.now + pause);
            if self.rng.one_in(8) {
                self.start();
            }
            self.meddle();
        }
        for task in &self.tasks {
            task.handle.resume();
        }
        let latest = self.now + Duration::from_secs(3600);
        let due = self.run(latest);
        let seed = self.seed;
        for (number, task) in self.tasks.iter().enumerate() {
            let told = task.watch.0.lock();
            let end = task.end.lock().unwrap_or_else(|| {
                let copied: u64 = told.pieces.iter().map(|piece| piece.1).sum();
                let (kind, flags, size) = (task.kind, task.flags, task.size);
                panic!("seed {seed}: job {number} ({kind:?}, {flags:?}) hangs at {copied} of {size}, due: {due}")
            });
            task.check(seed, number, end, &told);
        }
        self.clients.iter().for_each(|(client, _)| client.assert_clean());
        assert_eq!(self.pool.figures().free, MIN_PAGES, "seed {seed}");
        let log = self.sim.log();
        for task in self.tasks.iter().filter(|task| task.flags.contains(Flags::WRITE_SEQ)) {
            for dest in &task.dests {
                let to = |(op, target, _): &&(Op, _, u64)| *op == Op::Write && *target == dest.target();
                let places: Vec<u64> = log.iter().filter(to).map(|entry| entry.2).collect();
                assert!(places.is_sorted(), "seed {seed}: writes ascend");
            }
        }
    }
}

impl Task {
    fn check(&self, seed: u64, number: usize, end: Outcome, told: &Told) {
        let mut places: Vec<(u64, u64)> = told.pieces.iter().map(|piece| (piece.0, piece.1)).collect();
        places.sort_unstable();
        for pair in places.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "seed {seed}: job {number}: a piece twice: {pair:?}");
        }
        let mut next = 0;
        for (at, count) in &told.shown {
            assert_eq!(*at, next, "seed {seed}: job {number}: shown out of order");
            next = at + count;
        }
        if self.faulty || self.cancelled {
            return;
        }
        assert_eq!(end, Outcome::default(), "seed {seed}: job {number}");
        let covered: u64 = places.iter().map(|place| place.1).sum();
        // A comparison with nobody that nobody watches tells nothing.
        if self.kind != Kind::Compare || self.in_order {
            assert_eq!(covered, self.size, "seed {seed}: job {number}: pieces are missing");
        }
        if self.in_order {
            assert_eq!(next, self.size, "seed {seed}: job {number}: not all was shown");
        }
        for (dest, was) in self.dests.iter().zip(9..) {
            let want = match self.kind {
                Kind::Copy | Kind::Compare => stamp(1, 0, self.size),
                Kind::Zero => vec![0; usize::try_from(self.size * 512).unwrap()],
            };
            assert!(bytes_at(dest, 0, self.size) == want, "seed {seed}: job {number}: destination {was} differs");
        }
    }
}

#[test]
fn every_job_of_a_random_schedule_ends_rightly() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("KCOPYFS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("KCOPYFS_SCHEDULES").unwrap_or(SCHEDULES),
    };
    for seed in seeds {
        World::new(seed).play();
    }
}
