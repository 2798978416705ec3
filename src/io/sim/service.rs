//! How fast a simulated device is: its servers, their latency, the link that all share, its seizures.

use std::ops::Range;
use std::time::Duration;

/// How fast a device answers. A transfer waits for a free server, which takes its latency for it; then its bytes go over the
/// link, one transfer after the other.
#[derive(Clone, Debug)]
pub struct Service {
    /// Transfers that it works on at once.
    pub servers: usize,
    /// What a server takes for one.
    pub latency: Range<Duration>,
    /// Bytes per second of the link.
    pub bandwidth: u64,
    /// What the link loses at a transfer that does not begin where the last one ended.
    pub seek: Duration,
    /// Once in each period of so long it does nothing for so long.
    pub stalls: Option<(Duration, Duration)>,
}

impl Default for Service {
    fn default() -> Self {
        let latency = Duration::from_micros(100);
        Self { servers: 1, latency: latency..latency, bandwidth: 1 << 30, seek: Duration::ZERO, stalls: None }
    }
}

/// A device at work.
#[derive(Clone, Debug, Default)]
pub(crate) struct Servers {
    /// When each that was used is free.
    free: Vec<Duration>,
    link_free: Duration,
    /// Where the last transfer ended.
    head: u64,
}

impl Servers {
    /// When a transfer ends that is asked for now; `random` decides its latency.
    pub(crate) fn serve(
        &mut self,
        service: &Service,
        now: Duration,
        position: u64,
        length: u64,
        random: u64,
    ) -> Duration {
        if self.free.len() < service.servers.max(1) {
            self.free.push(Duration::ZERO);
        }
        let server = self.free.iter_mut().min().expect("one server at least");
        let begin = service.awake(now.max(*server));
        let spread = nanos(service.latency.end.saturating_sub(service.latency.start)).max(1);
        let ready = begin + service.latency.start + Duration::from_nanos(random % spread);
        let seek = if position == self.head { Duration::ZERO } else { service.seek };
        let takes = u128::from(length) * 1_000_000_000 / u128::from(service.bandwidth.max(1));
        let takes = Duration::from_nanos(u64::try_from(takes).unwrap_or(u64::MAX));
        let end = service.awake(ready.max(self.link_free)) + seek + takes;
        *server = ready;
        self.link_free = end;
        self.head = position + length;
        end
    }
}

impl Service {
    /// The first moment from `time` on at which it does something.
    fn awake(&self, time: Duration) -> Duration {
        let Some((period, stall)) = self.stalls else { return time };
        let phase = Duration::from_nanos(nanos(time) % nanos(period).max(1));
        let left = stall.saturating_sub(phase);
        if time >= period { time + left } else { time }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
