//! The backend of a simulation: what is in flight, and when it ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Discard, Fault, Orphan, Shared, State};
use crate::io::{Backend, Completion, Op, Transfer, Wait, Waker, sys};

pub(in crate::io) struct SimBackend {
    shared: Arc<Shared>,
    clock: Duration,
    /// In flight, by the time of completion and then by turn.
    due: BTreeMap<(Duration, u64), Flying>,
    hung: Vec<Transfer>,
    turn: u64,
}

struct Flying {
    transfer: Transfer,
    fault: Option<Fault>,
    /// Of a flush: what it makes durable.
    mark: u64,
}

impl SimBackend {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, clock: Duration::ZERO, due: BTreeMap::new(), hung: Vec::new(), turn: 0 }
    }

    /// Does at its completion what a device does some time before.
    fn perform(state: &mut State, flying: &Flying) -> Completion {
        let Flying { transfer, fault, mark } = flying;
        let &Transfer { token, op, ref device, position, mut length, .. } = transfer;
        let size = if device.can_grow() { u64::MAX } else { device.size().bytes() };
        let mut room = size.saturating_sub(position);
        match fault {
            Some(Fault::Error(errno)) => return Completion { token, result: Err(*errno) },
            Some(Fault::Short(bytes)) => room = room.min(*bytes),
            Some(Fault::Delay(_) | Fault::Hang) | None => {}
        }
        length = length.min(room);
        let medium = state.media.get_mut(&device.target());
        let result = match (op, medium) {
            (Op::Flush, medium) => {
                if let Some(medium) = medium {
                    medium.flushed(*mark);
                }
                Ok(0)
            }
            (Op::Write, _) if length == 0 => Err(libc::ENOSPC),
            (Op::Write, None) | (Op::Read, _) => Self::transfer(transfer, length),
            (Op::Discard, Some(medium)) => match medium.behaviour.discard {
                None => Err(libc::EOPNOTSUPP),
                Some(Discard::Nothing) => Ok(length),
                Some(Discard::Zeros) => {
                    medium.before_write(device, position, length);
                    medium.discarded(position, length);
                    state.written.push((device.target(), position..position + length));
                    Self::transfer(transfer, length)
                }
            },
            (_, Some(medium)) if op == Op::Write || medium.behaviour.zeroes => {
                if medium.takes(position, length) {
                    medium.before_write(device, position, length);
                    state.written.push((device.target(), position..position + length));
                    Self::transfer(transfer, length)
                } else {
                    Err(libc::EIO)
                }
            }
            // Write-zeroes, which this device does not have.
            _ => Err(libc::EOPNOTSUPP),
        };
        Completion { token, result }
    }

    #[allow(unsafe_code)]
    fn transfer(transfer: &Transfer, length: u64) -> Result<u64, i32> {
        let pieces = transfer.memory.slice(0, usize::try_from(length).unwrap_or(usize::MAX));
        // A file in memory makes zeros by holes alone.
        let op = if matches!(transfer.op, Op::Zero | Op::Discard) { Op::Punch } else { transfer.op };
        // SAFETY: `Backend::submit` made the memory ours until the completion is reaped.
        unsafe { sys::transfer(transfer.device.raw_fd(), op, transfer.position, length, pieces.as_slice()) }
    }

    /// Moves the clock as far as `wait` says and something is due.
    fn wait(&mut self, wait: Wait) {
        let mut state = self.shared.state.lock();
        let next = self.due.first_key_value().map(|((time, _), _)| *time);
        let wake = match (wait, next) {
            _ if state.stepped => state.clock,
            _ if state.woken => self.clock,
            (Wait::No, _) => self.clock,
            (Wait::Until(deadline), Some(next)) => next.min(deadline),
            (Wait::Until(deadline), None) => deadline,
            (Wait::Forever, Some(next)) => next,
            (Wait::Forever, None) => {
                while !state.woken {
                    self.shared.woken.wait(&mut state);
                }
                self.clock
            }
        };
        state.woken = false;
        self.clock = self.clock.max(wake);
        state.clock = state.clock.max(self.clock);
    }
}

impl Backend for SimBackend {
    fn name(&self) -> &'static str {
        "sim"
    }

    #[allow(unsafe_code)]
    unsafe fn submit(&mut self, transfer: Transfer) {
        let mut state = self.shared.state.lock();
        let target = transfer.device.target();
        state.log.push((transfer.op, target, transfer.position));
        let fault = state.strike(&transfer);
        if state.stepped {
            self.clock = state.clock;
        }
        let mut latency = state.latency(&transfer, self.clock);
        match fault {
            Some(Fault::Hang) => return self.hung.push(transfer),
            Some(Fault::Delay(more)) => latency += more,
            _ => {}
        }
        let mark = state.media.get(&target).map_or(0, super::Medium::mark);
        self.turn += 1;
        self.due.insert((self.clock + latency, self.turn), Flying { transfer, fault, mark });
    }

    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>) {
        self.wait(wait);
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= self.clock
        {
            let flying = entry.remove();
            done.push(Self::perform(&mut self.shared.state.lock(), &flying));
        }
    }

    fn waker(&self) -> Waker {
        let shared = Arc::clone(&self.shared);
        Waker::new(move || {
            shared.state.lock().woken = true;
            shared.woken.notify_one();
        })
    }

    fn now(&self) -> Duration {
        let state = self.shared.state.lock();
        if state.stepped { state.clock } else { self.clock }
    }

    #[cfg(test)]
    fn abandon(&mut self) {
        self.leave_orphans();
    }

    fn next_due(&self) -> Option<Duration> {
        self.due.first_key_value().map(|((time, _), _)| *time)
    }
}

impl SimBackend {
    /// What a process that is gone had in flight stays with the devices.
    #[allow(unsafe_code)]
    fn leave_orphans(&mut self) {
        let flying = std::mem::take(&mut self.due).into_values().map(|flying| flying.transfer);
        let writes = flying.chain(self.hung.drain(..)).filter(|transfer| transfer.op == Op::Write);
        let orphans: Vec<Orphan> = writes
            .map(|transfer| {
                let mut bytes = vec![0; usize::try_from(transfer.length).expect("a length in memory")];
                // SAFETY: `Backend::submit` made the memory ours until the completion is reaped, which was not.
                unsafe { crate::io::segment::copy_out(&transfer.memory, &mut bytes) };
                Orphan { device: transfer.device, position: transfer.position, bytes }
            })
            .collect();
        self.shared.state.lock().orphans.extend(orphans);
    }
}

impl Drop for SimBackend {
    fn drop(&mut self) {
        self.leave_orphans();
    }
}
