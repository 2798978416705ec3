//! Threads for what may block: opening, locking and closing devices.
//!
//! Each task may hang alone. So many threads may be at work at once; beyond that tasks wait for one that is free, in
//! order: with [`MOST`] devices that hang at once, no further device is opened or closed until one answers. A thread that
//! has nothing to do stays for a moment: jobs come in crowds. A few stay for good, without waking, so that a small job does
//! not wait for a thread to be made.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Tasks at work at once. A job has 65 devices at most.
const MOST: usize = 256;
/// Threads that stay when there is nothing to do.
const IDLE: usize = 4;
/// How long the others stay.
const LINGER: Duration = Duration::from_secs(1);

type Task = Box<dyn FnOnce() + Send>;

/// The threads.
#[derive(Clone, Default)]
pub(super) struct Workers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    pool: Mutex<Pool>,
    came: Condvar,
}

#[derive(Default)]
struct Pool {
    tasks: VecDeque<Task>,
    threads: usize,
    idle: usize,
}

impl Workers {
    /// Has a thread do something soon.
    pub(super) fn run(&self, task: impl FnOnce() + Send + 'static) {
        let mut pool = self.0.pool.lock();
        pool.tasks.push_back(Box::new(task));
        if pool.idle >= pool.tasks.len() {
            self.0.came.notify_one();
        } else if pool.threads < MOST {
            pool.threads += 1;
            drop(pool);
            let shared = Arc::clone(&self.0);
            if let Err(error) = std::thread::Builder::new().name("worker".into()).spawn(move || work(&shared)) {
                log::warn!("no thread to open and close devices: {error}");
                self.without_thread();
            }
        }
    }

    /// A thread could not be made: another one has to do the task, or, where there is none, this one.
    fn without_thread(&self) {
        let mut pool = self.0.pool.lock();
        pool.threads -= 1;
        if pool.threads == 0
            && let Some(task) = pool.tasks.pop_front()
        {
            drop(pool);
            task();
        }
    }
}

fn work(shared: &Shared) {
    let mut pool = shared.pool.lock();
    loop {
        while let Some(task) = pool.tasks.pop_front() {
            drop(pool);
            task();
            pool = shared.pool.lock();
        }
        pool.idle += 1;
        if pool.idle <= IDLE {
            shared.came.wait(&mut pool);
        } else if shared.came.wait_for(&mut pool, LINGER).timed_out() && pool.tasks.is_empty() {
            pool.idle -= 1;
            pool.threads -= 1;
            return;
        }
        pool.idle -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn one_that_hangs_holds_nobody_else() {
        let workers = Workers::default();
        let (free, hung) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        workers.run(move || _ = hung.recv());
        for number in 0..1000 {
            let tell = tell.clone();
            workers.run(move || tell.send(number).unwrap());
        }
        drop(tell);
        let mut done: Vec<i32> = told.iter().collect();
        done.sort_unstable();
        assert!(done.into_iter().eq(0..1000));
        drop(free);
    }

    #[test]
    fn tasks_beyond_the_bound_wait_for_a_thread() {
        let workers = Workers::default();
        let (tell, told) = mpsc::channel();
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        for number in 0..MOST * 2 {
            let (tell, gate) = (tell.clone(), Arc::clone(&gate));
            workers.run(move || {
                let mut open = gate.0.lock();
                while !*open {
                    gate.1.wait(&mut open);
                }
                tell.send(number).unwrap();
            });
        }
        assert!(workers.0.pool.lock().threads <= MOST);
        *gate.0.lock() = true;
        gate.1.notify_all();
        drop(tell);
        assert_eq!(told.iter().count(), MOST * 2);
    }
}
