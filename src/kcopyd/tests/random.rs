//! Random jobs on the simulation against a plain reference: data, `read_err`, `write_err`, and what must be untouched.
//! A failure prints its case; proptest keeps the seed (`PROPTEST_RNG_SEED` replays one).

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Case {
    seed: u64,
    pages: u32,
    subjob_pages: u32,
    subjobs: Option<usize>,
    jobs: Vec<JobCase>,
}

#[derive(Clone, Debug)]
struct JobCase {
    size: u64,
    from: u64,
    count: u64,
    dests: Vec<u64>,
    flags: Flags,
    /// 0: the source, else destination i - 1; first sector and count.
    faults: Vec<(usize, u64, u64)>,
    shorts: Vec<(usize, u64)>,
}

const SIZE: u64 = 700;

fn job() -> impl Strategy<Value = JobCase> {
    let flags = prop_oneof![
        Just(Flags::NONE),
        Just(Flags::IGNORE_ERROR),
        Just(Flags::WRITE_SEQ),
        Just(Flags::DROP_FAILED),
        Just(Flags::IGNORE_ERROR | Flags::WRITE_SEQ)
    ];
    (0..=SIZE, 1..8_usize, flags).prop_flat_map(|(count, dests, flags)| {
        let place = 0..=SIZE - count;
        let fault = (0..=dests, 0..SIZE, 1..4_u64);
        let faults = prop_oneof![2 => Just(vec![]), 3 => proptest::collection::vec(fault, 1..5)];
        let shorts = proptest::collection::vec((0..=dests, 0..SIZE), 0..3);
        (place.clone(), proptest::collection::vec(place, dests), faults, shorts).prop_map(
            move |(from, dests, faults, shorts)| JobCase { size: SIZE, from, count, dests, flags, faults, shorts },
        )
    })
}

fn case() -> impl Strategy<Value = Case> {
    (
        any::<u64>(),
        MIN_PAGES..MIN_PAGES + 200,
        0..4_u32,
        proptest::option::of(1..12_usize),
        proptest::collection::vec(job(), 1..5),
    )
        .prop_map(|(seed, pages, size, subjobs, jobs)| Case {
            seed,
            pages,
            subjob_pages: 1 << size,
            subjobs,
            jobs,
        })
}

struct Running {
    case: JobCase,
    from: Arc<Device>,
    dests: Vec<Arc<Device>>,
    log: Log,
    ends: Receiver<Outcome>,
}

const SOURCE: u8 = 0x55;

fn start(case: &JobCase, sim: &Sim, client: &Client) -> Running {
    let from = disk(SOURCE, case.size);
    let dests: Vec<_> = (0..case.dests.len()).map(|index| disk(index as u8, case.size)).collect();
    let device = |index: usize| if index == 0 { (&from, Op::Read) } else { (&dests[index - 1], Op::Write) };
    for (index, sector, count) in &case.faults {
        let (device, op) = device(*index);
        sim.fault(device, op, *sector..sector + count, Fault::Error(libc::EIO), None);
    }
    for (index, sector) in &case.shorts {
        let (device, op) = device(*index);
        sim.fault(device, op, *sector..sector + 1, Fault::Short(512), Some(1));
    }
    let (sender, ends) = channel();
    let log = Log::default();
    let count = sectors(case.count);
    let request = Request {
        work: Work::Copy(IoRegion::new(&from, sectors(case.from), count)),
        dests: dests.iter().zip(&case.dests).map(|(dest, at)| IoRegion::new(dest, sectors(*at), count)).collect(),
        without: ErrorBits::NONE,
        flags: case.flags,
        speed_max: SpeedLimit::default(),
        paused: false,
        sparse: false,
        in_order: false,
        observer: Some(Box::new(log.clone())),
        background: false,
        leaves_behind: false,
        answered: None,
    };
    client.submit(request, sender, tell).unwrap();
    Running { case: case.clone(), from, dests, log, ends }
}

impl Running {
    fn strikes(&self, index: usize, first: u64, count: u64) -> bool {
        self.case.faults.iter().any(|(at, sector, bad)| *at == index && *sector < first + count && first < sector + bad)
    }

    /// Holds the end against the reference. `piece` is the size of a sub-job in sectors.
    fn check(self, piece: u64) {
        let outcome = self.ends.recv().unwrap();
        let JobCase { size, from, count, flags, .. } = self.case;
        assert_eq!(bytes_at(&self.from, 0, size), stamp(SOURCE, 0, size), "the source is as it was");
        let ignores = flags.contains(Flags::IGNORE_ERROR) && !flags.contains(Flags::WRITE_SEQ);
        let pieces: Vec<(u64, u64)> =
            (0..count).step_by(piece as usize).map(|at| (at, piece.min(count - at))).collect();
        let unreadable = |at: u64, len: u64| self.strikes(0, from + at, len);
        let read_faults = pieces.iter().any(|(at, len)| unreadable(*at, *len));
        let mut write_faults = ErrorBits::NONE;
        for (index, dest) in self.dests.iter().enumerate() {
            let start = self.case.dests[index];
            let before = stamp(index as u8, 0, size);
            let now = bytes_at(dest, 0, size);
            let range = |from: u64, len: u64| (from * 512) as usize..((from + len) * 512) as usize;
            assert_eq!(now[range(0, start)], before[range(0, start)], "what lies before the region");
            let end = start + count;
            assert_eq!(now[range(end, size - end)], before[range(end, size - end)], "what lies behind the region");
            for (at, len) in &pieces {
                let place = range(start + at, *len);
                let unwritable = self.strikes(index + 1, start + at, *len);
                if unwritable {
                    write_faults.set(index);
                }
                let copied = if unreadable(*at, *len) { None } else { Some(stamp(SOURCE, from + at, *len)) };
                let told = self.log.0.lock().iter().any(|one| one.0 == *at && one.3 & (1 << index) != 0);
                if told {
                    let want = copied.clone().unwrap_or(vec![0; place.len()]);
                    assert_eq!(now[place.clone()], want, "a piece is there when the observer is told so");
                } else if !unwritable {
                    assert_eq!(now[place.clone()], before[place.clone()], "a piece that was not written");
                }
                let must = match flags {
                    _ if unwritable => false,
                    _ if ignores => true,
                    Flags::DROP_FAILED => !read_faults && !outcome.write_err.contains(index),
                    _ => !read_faults && outcome.write_err.is_empty(),
                };
                assert!(told || !must, "piece {at} of destination {index} is missing under {flags:?}");
            }
        }
        assert!(outcome.write_err.without(write_faults).is_empty(), "a bit without a fault");
        assert!(!outcome.read_err || read_faults);
        assert!(!outcome.cancelled);
        if ignores {
            assert_eq!((outcome.read_err, outcome.write_err), (read_faults, write_faults));
        } else if flags == Flags::DROP_FAILED && !read_faults {
            assert!(outcome.write_err == write_faults || outcome.write_err.count() as usize == self.dests.len());
        } else {
            let failed = outcome.read_err || !outcome.write_err.is_empty();
            assert_eq!(failed, read_faults || !write_faults.is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_jobs_agree_with_the_reference(case in case()) {
        let sim = Sim::new(case.seed);
        let pool = PagePool::new(case.pages).unwrap();
        let settings = Settings { subjob_bytes: case.subjob_pages * 4096, subjobs: case.subjobs, ..small(&sim) };
        let client = Client::create(&pool, 0, settings).unwrap();
        let jobs: Vec<Running> = case.jobs.iter().map(|job| start(job, &sim, &client)).collect();
        for job in jobs {
            job.check(u64::from(case.subjob_pages) * 8);
        }
        client.destroy();
        prop_assert_eq!(pool.figures().free, case.pages);
    }
}
