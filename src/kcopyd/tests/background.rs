//! A job in the background, by the model of service: alone it is nearly as fast as another, and beside somebody else's reads it is hardly
//! noticed.

use super::*;
use crate::io::sim::Service;

const SIZE: u64 = 262_144;

fn hard_disk() -> Service {
    let millis = Duration::from_millis(4);
    Service { servers: 1, latency: millis..millis, bandwidth: 100 << 20, seek: millis, ..Service::default() }
}

fn flash() -> Service {
    Service {
        servers: 8,
        latency: Duration::from_micros(80)..Duration::from_micros(100),
        bandwidth: 500 << 20,
        ..Service::default()
    }
}

fn array() -> Service {
    Service {
        servers: 64,
        latency: Duration::from_millis(5)..Duration::from_micros(5500),
        bandwidth: 256 << 20,
        ..Service::default()
    }
}

struct Machine {
    sim: Sim,
    disk: Arc<Device>,
    copier: Stepped,
    user: Stepped,
    now: Duration,
}

impl Machine {
    fn new(service: &Service) -> Self {
        let sim = Sim::stepped(11);
        let pool = PagePool::new(8192).unwrap();
        let disk = disk(1, SIZE);
        sim.behave(&disk, Behaviour { service: Some(service.clone()), ..Behaviour::default() });
        let client =
            |pages| Stepped::new(&pool, pages, Settings { subjob_bytes: 64 << 10, ..Settings::default() }, &sim);
        let (copier, user) = (client(2048).unwrap(), client(64).unwrap());
        Self { sim, disk, copier, user, now: Duration::ZERO }
    }

    /// Copies the disk elsewhere, where nothing takes any time to speak of.
    fn copy(&self, background: bool) -> Receiver<Outcome> {
        let quick = Service { servers: 64, latency: Duration::ZERO..Duration::from_nanos(1), ..Service::default() };
        let to = disk(2, SIZE);
        self.sim.behave(&to, Behaviour { service: Some(quick), ..Behaviour::default() });
        let (sender, ends) = channel();
        let request = Request { background, ..plain(Work::Copy(whole(&self.disk)), &[to]) };
        self.copier.client.submit(request, sender, tell).unwrap();
        ends
    }

    /// Lets time go by until `is_over`.
    fn run(&mut self, is_over: impl FnMut() -> bool) {
        drive([&mut self.copier, &mut self.user], &mut self.now, is_over);
    }

    /// Somebody reads 4 KiB at random places, one after the other. The time of the slowest in a hundred.
    fn read_at_random(&mut self, reads: usize) -> Duration {
        let nowhere = disk(3, SIZE);
        let mut times = Vec::new();
        let mut place = 7_u64;
        for _ in 0..reads {
            place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (place >> 33) % (SIZE / 8) * 8;
            let part = |device| IoRegion::new(device, sectors(at), sectors(8));
            let mut request = plain(Work::Compare(part(&self.disk)), &[]);
            (request.dests, request.without) = (vec![part(&nowhere)], ErrorBits::first(1));
            let (sender, ends) = channel();
            self.user.client.submit(request, sender, tell).unwrap();
            let since = self.now;
            self.run(|| ends.try_recv().is_ok());
            times.push(self.now.saturating_sub(since));
        }
        times.sort_unstable();
        times.get(reads * 99 / 100).copied().unwrap_or_default()
    }
}

#[test]
fn alone_a_background_copy_has_nine_tenths_of_the_speed() {
    for service in [hard_disk(), flash(), array()] {
        let [plain, background] = [false, true].map(|background| {
            let mut machine = Machine::new(&service);
            let ends = machine.copy(background);
            machine.run(|| ends.try_recv().is_ok());
            machine.now
        });
        assert!(background * 9 <= plain * 10, "{background:?} against {plain:?}: {service:?}");
    }
}

#[test]
fn beside_a_background_copy_others_read_as_if_it_were_not_there() {
    for service in [hard_disk(), array()] {
        // In a second or two, before the array is through.
        let reads = if service.servers > 1 { 30 } else { 1000 };
        let alone = Machine::new(&service).read_at_random(reads);
        let mut machine = Machine::new(&service);
        let ends = machine.copy(true);
        // It has seen the disk without others. Then it takes a moment until it has seen that it is not alone any more.
        let soon = machine.sim.clone();
        machine.run(|| soon.clock() > Duration::from_millis(100));
        machine.read_at_random(reads);
        let beside = machine.read_at_random(reads);
        assert!(ends.try_recv().is_err(), "it goes on: {service:?}");
        assert!(beside * 10 <= alone * 13, "{beside:?} against {alone:?}: {service:?}");
        // And when they have gone it is through soon.
        let since = machine.now;
        machine.run(|| ends.try_recv().is_ok());
        let mut other = Machine::new(&service);
        let ends = other.copy(false);
        other.run(|| ends.try_recv().is_ok());
        assert!(
            machine.now.saturating_sub(since) <= other.now * 2 + Duration::from_secs(10),
            "{:?}",
            machine.now.saturating_sub(since)
        );
    }
}

#[test]
fn one_that_waits_for_the_end_of_a_rest_is_cancelled_or_loses_its_destination() {
    let mut machine = Machine::new(&hard_disk());
    let quick = Service { servers: 64, latency: Duration::ZERO..Duration::from_nanos(1), ..Service::default() };
    let from = disk(2, SIZE);
    machine.sim.behave(&from, Behaviour { service: Some(quick), ..Behaviour::default() });
    let copy = |machine: &Machine, count: u64| {
        let part = |device| IoRegion::new(device, Sector::ZERO, sectors(count));
        let (sender, ends) = channel();
        let request = Request { background: true, ..plain(Work::Copy(part(&from)), &[]) };
        let request = Request { dests: vec![part(&machine.disk)], ..request };
        (machine.copier.client.submit(request, sender, tell).unwrap(), ends)
    };
    // It has seen the disk without others, and now sees that it is not alone any more.
    let (_, long) = copy(&machine, SIZE);
    let soon = machine.sim.clone();
    machine.run(|| soon.clock() > Duration::from_millis(100));
    machine.read_at_random(500);
    for round in 0..100 {
        let (handle, ends) = copy(&machine, 128);
        machine.read_at_random(round % 3);
        if round % 2 == 0 {
            handle.give_up(ErrorBits::only(0));
        } else {
            handle.cancel();
        }
        machine.run(|| ends.try_recv().is_ok());
    }
    assert!(long.try_recv().is_err(), "it goes on");
    machine.run(|| long.try_recv().is_ok());
    machine.copier.assert_clean();
}
