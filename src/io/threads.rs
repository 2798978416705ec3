//! pread and pwrite on threads: for kernels and sandboxes that refuse the ring.
//!
//! A thread is made when there is work and none is idle; it stays, asleep, until the backend goes. A device that hangs
//! takes so many threads as its user said and no more, so that the others go on.
//!
//! # How the threads end
//! 1. The backend goes: `closing` is set and all are woken.
//! 2. An idle thread sees it and returns. One that is stuck in a device returns when the device lets it; nobody waits for
//!    it. It owns what it touches.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Backend, Completion, Transfer, Wait, Waker, sys};

/// Threads that one device may occupy at least: the default sub-jobs of one job, read and written.
const DEVICE_THREADS: usize = 16;
/// Threads in all, for the devices of some sixteen jobs at their default depth, or four at the greatest.
const MAX_THREADS: usize = 512;
/// They only move bytes: the smallest stack that the system's thread-local data leaves room in.
const STACK: usize = 64 << 10;

pub(super) struct Threads {
    shared: Arc<Shared>,
    is_background: bool,
}

struct Shared {
    work: Mutex<Work>,
    work_came: Condvar,
    done: Mutex<Done>,
    done_came: Condvar,
    /// Who is told of each completion, too.
    waker: Option<Waker>,
}

#[derive(Default)]
struct Work {
    /// Threads that one device may occupy.
    device_threads: usize,
    /// With whether each has idle priority.
    queue: VecDeque<(Transfer, bool)>,
    /// Threads at work, by device.
    busy: HashMap<usize, usize>,
    threads: usize,
    idle: usize,
    closing: bool,
}

#[derive(Default)]
struct Done {
    completions: Vec<Completion>,
    woken: bool,
}

fn device_key(transfer: &Transfer) -> usize {
    Arc::as_ptr(&transfer.device) as usize
}

impl Work {
    /// The first transfer whose device has a thread to spare.
    fn take(&mut self) -> Option<(Transfer, bool)> {
        let free =
            |transfer: &Transfer| self.busy.get(&device_key(transfer)).copied().unwrap_or(0) < self.device_threads;
        let place = self.queue.iter().position(|(transfer, _)| free(transfer))?;
        let (transfer, is_background) = self.queue.remove(place)?;
        *self.busy.entry(device_key(&transfer)).or_default() += 1;
        Some((transfer, is_background))
    }

    fn give_back(&mut self, key: usize) {
        if let Some(count) = self.busy.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.busy.remove(&key);
            }
        }
    }
}

impl Threads {
    /// `depth`: transfers of one kind that are wanted in flight to one device.
    pub(super) fn new(depth: usize) -> Self {
        Self::with(depth, None)
    }

    /// For what another backend cannot do: that one is woken at each completion, and reaps without waiting.
    pub(super) fn beside(depth: usize, waker: Waker) -> Self {
        Self::with(depth, Some(waker))
    }

    fn with(depth: usize, waker: Option<Waker>) -> Self {
        // A job may read and write one device.
        let device_threads = (2 * depth).max(DEVICE_THREADS);
        let shared = Shared {
            work: Mutex::new(Work { device_threads, ..Work::default() }),
            work_came: Condvar::new(),
            done: Mutex::default(),
            done_came: Condvar::new(),
            waker,
        };
        Self { shared: Arc::new(shared), is_background: false }
    }
}

impl Shared {
    /// The life of a thread.
    fn serve(&self) {
        let mut work = self.work.lock();
        // A thread begins with the priority of its process.
        let mut has_idle_priority = false;
        loop {
            if work.closing {
                return;
            }
            let Some((transfer, is_background)) = work.take() else {
                work.idle += 1;
                self.work_came.wait(&mut work);
                work.idle -= 1;
                continue;
            };
            drop(work);
            if has_idle_priority != is_background {
                sys::set_idle_priority(is_background);
                has_idle_priority = is_background;
            }
            let key = device_key(&transfer);
            let completion = perform(&transfer);
            // The device's reference goes before its completion is seen, so that who sees it can close the device.
            drop(transfer);
            let mut done = self.done.lock();
            done.completions.push(completion);
            drop(done);
            self.done_came.notify_one();
            if let Some(waker) = &self.waker {
                waker.wake();
            }
            work = self.work.lock();
            work.give_back(key);
        }
    }
}

#[allow(unsafe_code)]
fn perform(transfer: &Transfer) -> Completion {
    let Transfer { token, op, ref device, position, length, ref memory } = *transfer;
    // SAFETY: `Backend::submit` made the memory ours until the completion is reaped, which is after this.
    let result = unsafe { sys::transfer(device.raw_fd(), op, position, length, memory.as_slice()) };
    Completion { token, result }
}

impl Backend for Threads {
    fn name(&self) -> &'static str {
        "threads"
    }

    #[allow(unsafe_code)]
    unsafe fn submit(&mut self, transfer: Transfer) {
        let mut work = self.shared.work.lock();
        work.queue.push_back((transfer, self.is_background));
        if work.idle < work.queue.len() && work.threads < MAX_THREADS {
            let shared = Arc::clone(&self.shared);
            let builder = std::thread::Builder::new().name("kcopyfs-io".into()).stack_size(STACK);
            match builder.spawn(move || shared.serve()) {
                Ok(_) => work.threads += 1,
                Err(error) => assert!(work.threads > 0, "no thread for I/O: {error}"),
            }
        }
        drop(work);
        self.shared.work_came.notify_one();
    }

    fn reap(&mut self, wait: Wait, done: &mut Vec<Completion>) {
        let deadline = match wait {
            Wait::Until(time) => Some(Instant::now() + time.saturating_sub(super::uptime())),
            Wait::No | Wait::Forever => None,
        };
        let mut state = self.shared.done.lock();
        while state.completions.is_empty() && !state.woken && wait != Wait::No {
            match deadline {
                None => self.shared.done_came.wait(&mut state),
                Some(deadline) => {
                    if self.shared.done_came.wait_until(&mut state, deadline).timed_out() {
                        break;
                    }
                }
            }
        }
        state.woken = false;
        done.append(&mut state.completions);
    }

    fn waker(&self) -> Waker {
        let shared = Arc::clone(&self.shared);
        Waker::new(move || {
            shared.done.lock().woken = true;
            shared.done_came.notify_one();
        })
    }

    fn now(&self) -> Duration {
        super::uptime()
    }

    fn set_background(&mut self, is_background: bool) {
        self.is_background = is_background;
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let mut work = self.shared.work.lock();
        work.closing = true;
        work.queue.clear();
        drop(work);
        self.shared.work_came.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blkdev::Device;
    use crate::io::{Op, Segments};
    use crate::sector::Sector;

    #[test]
    fn as_many_threads_serve_a_device_as_its_user_wants_in_flight() {
        for (depth, most) in [(1, 16), (8, 16), (64, 128)] {
            let threads = Threads::new(depth);
            let mut work = threads.shared.work.lock();
            let devices = [1, 2].map(|_| Device::in_memory(Sector::new(8).unwrap(), 512).unwrap());
            for token in 0..400 {
                let device = Arc::clone(&devices[usize::from(token >= 200)]);
                let (op, memory) = (Op::Read, Segments::None);
                work.queue.push_back((Transfer { token, op, device, position: 0, length: 0, memory }, false));
            }
            let taken: Vec<Transfer> = std::iter::from_fn(|| work.take()).map(|(transfer, _)| transfer).collect();
            let first = taken.iter().filter(|transfer| transfer.token < 200).count();
            assert_eq!((first, taken.len()), (most, 2 * most), "one that hangs leaves the other its own");
        }
    }
}
