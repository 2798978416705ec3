//! Threads that look at the data of pieces, so that no client's I/O waits for it: a digest takes longer than a disk.
//!
//! # Protocol
//! 1. A piece that was read, and whose turn it is, goes to its job's [`Viewing`] with its pages. It is with nobody else meanwhile.
//! 2. A thread shows the pieces of one job one after the other, in the order in which they came.
//! 3. The pages go back to the client in a message, and the piece is written or compared.
//!
//! So a job is looked at by one thread at a time, pieces are in order, and memory is what the client has set aside. As many jobs are
//! looked at at once as there are processors; after a few pieces one lets others have its thread. Threads that have nothing to do
//! sleep.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};

use super::Bytes;
use crate::io::PageList;
use crate::sector::Sector;

/// Looks at the bytes of pieces: the first sector, counted from the job's beginning, and the bytes.
pub type View = Box<dyn FnMut(Sector, &Bytes<'_>) + Send>;

/// Pieces of one job that a thread shows before it looks for other jobs.
const IN_A_ROW: usize = 16;

/// A piece that is to be seen.
pub(super) struct Shown {
    pub(super) offset: Sector,
    /// Bytes of it.
    pub(super) length: usize,
    pub(super) list: PageList,
    /// Gives the pages back.
    pub(super) back: Box<dyn FnOnce(PageList) + Send>,
}

/// What a job's pieces are shown to.
pub(super) struct Viewing(Mutex<State>);

struct State {
    queue: VecDeque<Shown>,
    /// It stands in the threads' line, or a thread has it.
    is_lined_up: bool,
    /// With a thread while that shows something to it.
    view: Option<View>,
}

impl Viewing {
    pub(super) fn new(view: View) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { queue: VecDeque::new(), is_lined_up: false, view: Some(view) })))
    }

    /// Has a thread show a piece, after those that came before.
    pub(super) fn show(self: &Arc<Self>, piece: Shown) {
        let mut state = self.0.lock();
        state.queue.push_back(piece);
        if !std::mem::replace(&mut state.is_lined_up, true) {
            drop(state);
            threads().line_up(Arc::clone(self));
        }
    }

    /// Shows some pieces. Whether there are more.
    fn work(&self) -> bool {
        let mut state = self.0.lock();
        let mut view = state.view.take().expect("one thread has it at a time");
        for _ in 0..IN_A_ROW {
            let Some(Shown { offset, length, list, back }) = state.queue.pop_front() else { break };
            drop(state);
            view(offset, &|see| list.show(0, length, see));
            back(list);
            state = self.0.lock();
        }
        state.view = Some(view);
        state.is_lined_up = !state.queue.is_empty();
        state.is_lined_up
    }
}

/// The threads of the process.
#[derive(Default)]
struct Threads {
    line: Mutex<Line>,
    came: Condvar,
}

#[derive(Default)]
struct Line {
    jobs: VecDeque<Arc<Viewing>>,
    threads: usize,
    idle: usize,
}

fn threads() -> &'static Threads {
    static THREADS: OnceLock<Threads> = OnceLock::new();
    THREADS.get_or_init(Threads::default)
}

impl Threads {
    fn line_up(&'static self, job: Arc<Viewing>) {
        let most = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut line = self.line.lock();
        line.jobs.push_back(job);
        if line.idle >= line.jobs.len() {
            self.came.notify_one();
        } else if line.threads < most {
            line.threads += 1;
            drop(line);
            if let Err(error) = std::thread::Builder::new().name("view".into()).spawn(move || self.serve()) {
                log::warn!("no thread to look at data: {error}");
                self.without_thread();
            }
        }
    }

    /// A thread could not be made: another one has to do the work, or, where there is none, this one.
    fn without_thread(&self) {
        let mut line = self.line.lock();
        line.threads -= 1;
        while line.threads == 0
            && let Some(job) = line.jobs.pop_front()
        {
            drop(line);
            while job.work() {}
            line = self.line.lock();
        }
    }

    /// The life of a thread.
    fn serve(&self) {
        let mut line = self.line.lock();
        loop {
            if let Some(job) = line.jobs.pop_front() {
                drop(line);
                let goes_on = job.work();
                line = self.line.lock();
                if goes_on {
                    line.jobs.push_back(job);
                }
                continue;
            }
            line.idle += 1;
            self.came.wait(&mut line);
            line.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::io::{MIN_PAGES, PagePool};

    #[test]
    fn every_job_sees_its_pieces_in_order_and_the_pages_come_back() {
        const JOBS: u64 = 9;
        const PIECES: u64 = 50;
        let pool = PagePool::new(MIN_PAGES).unwrap();
        let client = Arc::new(pool.reserve(MIN_PAGES, None).unwrap());
        let (tell, told) = mpsc::channel();
        let (give, back) = mpsc::channel();
        let jobs: Vec<_> = (0..JOBS)
            .map(|job| {
                let tell = tell.clone();
                Viewing::new(Box::new(move |offset, bytes| {
                    let mut seen = Vec::new();
                    bytes(&mut |run| seen.extend_from_slice(run));
                    tell.send((job, offset.get(), seen)).unwrap();
                }))
            })
            .collect();
        for piece in 0..PIECES {
            for (number, job) in (0..).zip(&jobs) {
                let mut list = client.get(1).unwrap_or_else(|| back.recv().unwrap());
                list.write(0, &[u8::try_from(number * 20 + piece % 20).unwrap(); 8]);
                let give = give.clone();
                let back = Box::new(move |list| give.send(list).unwrap());
                job.show(Shown { offset: Sector::new(piece).unwrap(), length: 8, list, back });
            }
        }
        drop((tell, jobs));
        let mut next = [0; JOBS as usize];
        for (job, offset, seen) in told.iter().take(usize::try_from(JOBS * PIECES).unwrap()) {
            let index = usize::try_from(job).unwrap();
            assert_eq!(offset, next[index], "job {job}");
            assert_eq!(seen, [u8::try_from(job * 20 + offset % 20).unwrap(); 8]);
            next[index] += 1;
        }
        assert!(next.iter().all(|count| *count == PIECES));
        drop(give);
        back.iter().for_each(drop);
        assert_eq!(client.used(), 0);
    }
}
