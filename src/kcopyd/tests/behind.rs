//! Destinations that do not keep up are left behind: in virtual time, by the model of service.

use super::*;
use crate::io::sim::Service;
use crate::kcopyd::Lag;

const PIECE: u32 = 4096;
/// What a device does in a second.
const RATE: u64 = 128 << 10;
/// A time in which a device that hangs does not answer.
const HANGS: Duration = Duration::from_secs(3600);

/// What an observer was told, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Behind(usize, Lag, bool),
    Answered(usize),
    Ended(Outcome),
}

/// When what was told.
type Tale = Vec<(Duration, Told)>;

#[derive(Clone)]
struct Tape(Sim, Arc<Mutex<Tale>>, Arc<Mutex<Vec<(u64, ErrorBits)>>>);

impl Tape {
    fn note(&self, told: Told) {
        self.1.lock().push((self.0.clock(), told));
    }
}

impl Observer for Tape {
    fn piece(&mut self, piece: &Piece<'_>) {
        assert!(piece.read_error.is_none() && piece.write_errors.is_empty());
        self.2.lock().push((piece.offset.get(), piece.written));
    }

    fn fell_behind(&mut self, dest: usize, why: Lag, owes: bool) {
        self.note(Told::Behind(dest, why, owes));
    }
}

struct Rig {
    sim: Sim,
    client: Client,
    from: Arc<Device>,
    dests: Vec<Arc<Device>>,
    tape: Tape,
}

impl Rig {
    /// Copies `sectors` at [`RATE`] to so many destinations, the last of which is `slower` times slower.
    fn new(sectors: u64, count: usize, slower: u64, settings: Settings) -> Self {
        let sim = Sim::new(5);
        let settings = Settings { subjob_bytes: PIECE, backend: BackendKind::Sim(sim.clone()), ..settings };
        let client = Client::create(&PagePool::new(1024).unwrap(), 128, settings).unwrap();
        let device = |start, rate| {
            let device = disk(start, sectors);
            let latency = Duration::from_micros(300)..Duration::from_micros(330);
            let service = Service { servers: 64, latency, bandwidth: rate, ..Service::default() };
            sim.behave(&device, Behaviour { service: Some(service), ..Behaviour::default() });
            device
        };
        let from = device(0x55, RATE * 8);
        let dests = (1..=count).map(|index| device(7, if index == count { RATE / slower } else { RATE })).collect();
        let tape = Tape(sim.clone(), Arc::default(), Arc::default());
        Self { sim, client, from, dests, tape }
    }

    fn submit(&self, work: Work, change: impl FnOnce(&mut Request)) -> Receiver<Outcome> {
        let (sender, ends) = channel();
        let mut request = plain(work, &self.dests);
        request.leaves_behind = true;
        let (tape, end) = (self.tape.clone(), self.tape.clone());
        request.answered = Some(Box::new(move |dest| tape.note(Told::Answered(dest))));
        request.observer = Some(Box::new(self.tape.clone()));
        change(&mut request);
        self.client
            .submit(request, (), move |outcome, ()| {
                end.note(Told::Ended(outcome));
                sender.send(outcome).unwrap();
            })
            .unwrap();
        ends
    }

    fn copy(&self) -> Receiver<Outcome> {
        self.submit(Work::Copy(whole(&self.from)), |_| ())
    }

    /// Ends the client, which answers all that is late. What was told.
    fn finish(self) -> (Vec<Arc<Device>>, Arc<Device>, Tale) {
        let Self { client, from, dests, tape, .. } = self;
        client.destroy();
        let told = tape.1.lock().clone();
        (dests, from, told)
    }

    fn hang(&self, dest: usize, op: Op, sectors: std::ops::Range<u64>) {
        self.sim.fault(&self.dests[dest], op, sectors, Fault::Delay(HANGS), None);
    }
}

fn ended(told: &[(Duration, Told)]) -> Duration {
    told.iter().find(|(_, told)| matches!(told, Told::Ended(_))).unwrap().0
}

fn content(device: &Device, size: u64) -> Vec<u8> {
    bytes_at(device, 0, size)
}

/// What a copy to so many equal destinations takes.
fn alone(sectors: u64, count: usize) -> Duration {
    let rig = Rig::new(sectors, count, 1, Settings::default());
    assert_eq!(rig.copy().recv().unwrap(), Outcome::default());
    let (_, _, told) = rig.finish();
    assert_eq!(told.len(), 1, "{told:?}");
    ended(&told)
}

#[test]
fn one_of_eight_that_hangs_from_its_middle_holds_up_nobody() {
    const SIZE: u64 = 4096 * 2;
    let without = alone(SIZE, 7);
    for subjobs in [None, Some(8)] {
        let rig = Rig::new(SIZE, 8, 1, Settings { subjobs, ..Settings::default() });
        rig.hang(7, Op::Write, SIZE / 2..SIZE);
        let outcome = rig.copy().recv().unwrap();
        assert_eq!(outcome, Outcome::default());
        let pieces = rig.tape.2.lock().clone();
        let (dests, from, told) = rig.finish();
        let [(_, Told::Behind(7, _, true)), (end, Told::Ended(_)), (later, Told::Answered(7))] = &told[..] else {
            panic!("{subjobs:?}: {told:?}")
        };
        assert!(*end * 9 <= without * 10, "{subjobs:?}: {end:?} against {without:?}: {told:?}");
        assert!(*later > HANGS);
        let source = content(&from, SIZE);
        assert!(dests[..7].iter().all(|dest| content(dest, SIZE) == source), "seven have everything");
        // What it is said to have it has.
        let all = ErrorBits::first(8);
        let mut has: Vec<u64> = pieces.iter().filter(|(_, written)| written.contains(7)).map(|(at, _)| *at).collect();
        has.sort_unstable();
        assert!(has.len() as u64 * 8 >= SIZE / 3 && has.iter().all(|at| *at < SIZE / 2), "{} pieces", has.len());
        assert!(pieces.iter().all(|(_, written)| *written == all || *written == ErrorBits::first(7)));
        assert_eq!(pieces.len() as u64, SIZE / 8, "each piece once");
    }
}

#[test]
fn one_of_sixty_four_that_is_ten_times_slower_holds_up_nobody() {
    const SIZE: u64 = 4096 * 2;
    let without = alone(SIZE, 63);
    let rig = Rig::new(SIZE, 64, 10, Settings::default());
    assert_eq!(rig.copy().recv().unwrap(), Outcome::default());
    let missing: Vec<u64> = {
        let pieces = rig.tape.2.lock();
        pieces.iter().filter(|(_, written)| !written.contains(63)).map(|(at, _)| *at).collect()
    };
    let first = rig.tape.1.lock().clone();
    assert!(matches!(&first[0].1, Told::Behind(63, Lag::Slow, _)), "{first:?}");
    assert!(ended(&first) * 9 <= without * 10, "{:?} against {without:?}", ended(&first));
    // It is caught up by itself.
    let start = missing.iter().min().copied().unwrap();
    let part = |device: &Arc<Device>| IoRegion::new(device, sectors(start), sectors(SIZE - start));
    let ends = rig.submit(Work::Copy(part(&rig.from)), |request| {
        request.without = ErrorBits::first(63);
        request.dests = rig.dests.iter().map(part).collect();
    });
    assert_eq!(ends.recv().unwrap(), Outcome::default());
    let (dests, from, told) = rig.finish();
    let source = content(&from, SIZE);
    assert!(dests.iter().all(|dest| content(dest, SIZE) == source), "all are equal");
    assert!(told.last().unwrap().0 > ended(&first) * 3);
}

#[test]
fn what_is_written_in_order_stays_in_order() {
    const SIZE: u64 = 4096;
    let rig = Rig::new(SIZE, 3, 1, Settings::default());
    rig.hang(2, Op::Write, SIZE / 2..SIZE);
    let ends = rig.submit(Work::Copy(whole(&rig.from)), |request| request.flags = Flags::WRITE_SEQ);
    assert_eq!(ends.recv().unwrap(), Outcome::default());
    let log = rig.sim.log();
    for dest in &rig.dests {
        let writes: Vec<u64> = log
            .iter()
            .filter(|(op, target, _)| *op == Op::Write && *target == dest.target())
            .map(|(.., at)| *at)
            .collect();
        assert!(writes.is_sorted(), "{writes:?}");
    }
    let (dests, from, told) = rig.finish();
    assert!(
        matches!(&told[..], [(_, Told::Behind(2, _, true)), (_, Told::Ended(_)), (_, Told::Answered(2))]),
        "{told:?}"
    );
    assert!(dests[..2].iter().all(|dest| content(dest, SIZE) == content(&from, SIZE)));
}

#[test]
fn zeros_and_comparisons_leave_behind_too() {
    const SIZE: u64 = 4096;
    let rig = Rig::new(SIZE, 3, 1, Settings::default());
    rig.hang(1, Op::Zero, SIZE / 2..SIZE);
    assert_eq!(rig.submit(Work::Zero, |_| ()).recv().unwrap(), Outcome::default());
    let (dests, _, told) = rig.finish();
    assert!(
        matches!(&told[..], [(_, Told::Behind(1, _, true)), (_, Told::Ended(_)), (_, Told::Answered(1))]),
        "{told:?}"
    );
    assert!([0, 2].iter().all(|dest| content(&dests[*dest], SIZE) == vec![0; 512 * SIZE as usize]));

    let rig = Rig::new(SIZE, 3, 1, Settings::default());
    assert_eq!(rig.copy().recv().unwrap(), Outcome::default());
    rig.tape.2.lock().clear();
    rig.hang(1, Op::Read, SIZE / 2..SIZE);
    assert_eq!(rig.submit(Work::Compare(whole(&rig.from)), |_| ()).recv().unwrap(), Outcome::default());
    let pieces = rig.tape.2.lock().clone();
    let (_, _, told) = rig.finish();
    assert!(told.iter().any(|(_, told)| *told == Told::Behind(1, Lag::Slow, true)), "{told:?}");
    // Those that were with the hung one are compared anew with the last one; all others were compared with it.
    let missed = pieces.iter().filter(|(_, equal)| !equal.contains(2)).count();
    assert!((1..32).contains(&missed), "{missed} of {}", pieces.len());
    assert!(pieces.iter().all(|(_, equal)| equal.contains(0)));
}

#[test]
fn one_that_hangs_when_it_is_only_looked_at_is_left_behind_too() {
    const SIZE: u64 = 4096;
    let rig = Rig::new(SIZE, 3, 1, Settings::default());
    rig.hang(1, Op::Read, SIZE / 2..SIZE);
    let ends = rig.submit(Work::Copy(whole(&rig.from)), |request| request.flags = Flags::ONLY_CHANGED);
    assert_eq!(ends.recv().unwrap(), Outcome::default());
    // It was read there, and never written: what it owed is paid where it was asked.
    let (_, _, told) = rig.finish();
    assert!(told.iter().any(|(_, told)| matches!(told, Told::Behind(1, _, true))), "{told:?}");
    assert!(matches!(told.last(), Some((_, Told::Answered(1)))), "{told:?}");

    // Each piece is shown, and in order, before it is looked at.
    let rig = Rig::new(SIZE, 3, 1, Settings::default());
    rig.hang(1, Op::Read, SIZE / 2..SIZE);
    let shown = Shown::default();
    let ends = rig.submit(Work::Copy(whole(&rig.from)), |request| {
        (request.flags, request.in_order) = (Flags::ONLY_CHANGED, true);
        request.observer = Some(Box::new(shown.clone()));
    });
    assert_eq!(ends.recv().unwrap(), Outcome::default());
    let shown = shown.0.lock().clone();
    assert!(shown.iter().copied().eq((0..SIZE).step_by(shown[1] as usize)), "{shown:?}");
    rig.finish();
}

/// Where the data that was shown begins.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<u64>>>);

impl Observer for Shown {
    fn piece(&mut self, _: &Piece<'_>) {}

    fn data(&mut self, offset: Sector, _: &Bytes<'_>) {
        self.0.lock().push(offset.get());
    }
}

#[test]
fn nobody_falls_behind_once_the_source_has_shown_an_error() {
    const SIZE: u64 = 2048;
    let rig = Rig::new(SIZE, 3, 1, Settings::default());
    rig.sim.fault(&rig.from, Op::Read, 100..101, Fault::Error(libc::EIO), None);
    rig.sim.fault(&rig.dests[1], Op::Write, SIZE / 2..SIZE / 2 + 1, Fault::Delay(HANGS), None);
    let ends = rig.submit(Work::Copy(whole(&rig.from)), |request| {
        request.flags = Flags::SKIP_UNREADABLE;
        request.observer = None;
    });
    assert_eq!(ends.recv().unwrap(), Outcome { read_err: true, ..Outcome::default() });
    let (_, _, told) = rig.finish();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(ended(&told) > HANGS, "all wait");
}

#[test]
fn one_that_is_left_behind_by_hand_is_not_waited_for() {
    const SIZE: u64 = 2048;
    let rig = Rig::new(SIZE, 2, 1, Settings::default());
    rig.hang(0, Op::Write, 0..SIZE);
    let (sender, ends) = channel();
    let mut request = plain(Work::Copy(whole(&rig.from)), &rig.dests[..1]);
    let (tape, answers) = channel();
    request.answered = Some(Box::new(move |dest| tape.send(dest).unwrap()));
    // It waits in real time for the message, so it may not be over before.
    request.paused = true;
    let handle = rig.client.submit(request, sender, tell).unwrap();
    handle.resume();
    handle.leave_behind(ErrorBits::only(0));
    assert_eq!(ends.recv().unwrap(), Outcome::default());
    rig.finish();
    assert!(answers.try_iter().all(|dest| dest == 0));
}
