//! The page pool: one mapping for all clients, and who may take how much of it.
//!
//! A client sets pages aside ([`PagePool::reserve`]). Those are its own whatever the others do, so that it can always go
//! on; what nobody has set aside is shared in turn. Pages are given out all or nothing, as one run of neighbours where
//! there is one, so that one request moves a whole sub-job.
//!
//! # Invariants
//! * The pages set aside never exceed the pool; what clients hold beyond their own never exceeds the rest. So a client
//!   within its own pages is never refused.
//! * A page is in one [`PageList`] or free.
//! * A client that was refused shared pages stands in a line; nobody takes shared pages past it.
//!
//! # How a waiting client is woken
//! 1. [`Reservation::get`] refuses and puts the client in line.
//! 2. A page list goes back; if shared pages came free, the first in line is woken, outside the lock.
//! 3. It asks again. If it is served it leaves the line and wakes the next; if it has lost interest it says so
//!    ([`Reservation::leave_line`]), which wakes the next too.

#![allow(unsafe_code)] // the bytes of pages, through their addresses

use std::collections::VecDeque;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;
use slab::Slab;

use super::segment::{Segment, Segments};
use super::sys::Mapping;
use super::{Waker, segment};
use crate::error::{Error, ErrorKind, Result};

/// Bytes in a page.
pub const PAGE_SIZE: usize = 4096;

/// The smallest pool: one sub-job of 512 KiB.
pub const MIN_PAGES: u32 = 128;

/// The largest pool, 1 TiB: what a 32-bit page number can reach with room to spare.
const MAX_PAGES: u32 = 1 << 28;

/// Pages in one fixed buffer of a ring: half the 1 GiB that the kernel takes.
pub(super) const CHUNK_PAGES: u32 = 131_072;

/// The size and alignment of a huge page.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes of zeros that writes of zeros are made from.
const ZEROES: usize = 1 << 20;

/// A pool of pages shared by clients.
#[derive(Debug)]
pub struct PagePool {
    memory: Mapping,
    zeroes: Mapping,
    pages: u32,
    locked: bool,
    huge: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    map: PageMap,
    clients: Slab<Account>,
    /// Sum of what is set aside.
    reserved: u32,
    /// Sum of what clients hold beyond their own.
    shared_used: u32,
    line: VecDeque<usize>,
}

#[derive(Debug)]
struct Account {
    reserved: u32,
    used: u32,
    waker: Option<Waker>,
}

impl Account {
    fn beyond(&self, more: u32) -> u32 {
        self.used.saturating_add(more).saturating_sub(self.reserved) - self.used.saturating_sub(self.reserved)
    }
}

/// How a pool stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolFigures {
    /// Pages in all.
    pub pages: u32,
    /// Pages in no list.
    pub free: u32,
    /// Whether the pool is locked in memory.
    pub locked: bool,
    /// Whether some of it lay in huge pages when it was made.
    pub huge: bool,
}

impl PagePool {
    /// A pool of `pages` pages of 4 KiB, all present, locked in memory where the limits allow (`RLIMIT_MEMLOCK`).
    pub fn new(pages: u32) -> Result<Arc<Self>> {
        if !(MIN_PAGES..=MAX_PAGES).contains(&pages) {
            let what = format!("a pool of {pages} pages: give {MIN_PAGES} to {MAX_PAGES} pages of 4 KiB");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let length = pages as usize * PAGE_SIZE;
        let fail = |error| Error::os(format!("{pages} pages of memory (give the pool fewer)"), error);
        let memory = Mapping::new(length, HUGE_PAGE, true).map_err(fail)?;
        memory.advise_huge();
        memory.touch().map_err(fail)?;
        let locked = memory.lock().inspect_err(|error| log::info!("pages are not locked in memory: {error}")).is_ok();
        let zeroes = Mapping::new(ZEROES, PAGE_SIZE, false).map_err(fail)?;
        let state = State {
            map: PageMap::new(pages),
            clients: Slab::new(),
            reserved: 0,
            shared_used: 0,
            line: VecDeque::new(),
        };
        let huge = has_huge_pages(&memory);
        Ok(Arc::new(Self { memory, zeroes, pages, locked, huge, state: Mutex::new(state) }))
    }

    /// Sets `pages` aside for a client. `waker` is called when pages that it was refused may have come free.
    pub fn reserve(self: &Arc<Self>, pages: u32, waker: Option<Waker>) -> Result<Reservation> {
        let mut state = self.state.lock();
        state.check_room(self.pages, 0, pages)?;
        state.reserved += pages;
        let key = state.clients.insert(Account { reserved: pages, used: 0, waker });
        drop(state);
        Ok(Reservation { pool: Arc::clone(self), key })
    }

    /// How it stands now.
    pub fn figures(&self) -> PoolFigures {
        let free = self.state.lock().map.free;
        PoolFigures { pages: self.pages, free, locked: self.locked, huge: self.huge }
    }

    /// Zeros to write from: `length` bytes that are the same mebibyte over and over.
    pub(crate) fn zeroes(&self, length: u64) -> Segments {
        let mut left = usize::try_from(length).unwrap_or(usize::MAX);
        Segments::collect(std::iter::from_fn(move || {
            let take = left.min(ZEROES);
            left -= take;
            (take > 0).then_some(Segment { start: self.zeroes.start(), length: take, fixed: None })
        }))
    }

    /// The mapping in pieces that a ring takes as fixed buffers, in order.
    pub(super) fn chunks(&self) -> Vec<Segment> {
        let firsts = (0..self.pages).step_by(CHUNK_PAGES as usize);
        firsts.map(|first| self.segment(first, CHUNK_PAGES.min(self.pages - first))).collect()
    }

    fn segment(&self, first: u32, count: u32) -> Segment {
        let start = self.page(first);
        let fixed = u16::try_from(first / CHUNK_PAGES).ok();
        Segment { start, length: count as usize * PAGE_SIZE, fixed }
    }

    fn page(&self, number: u32) -> NonNull<u8> {
        segment::offset(self.memory.start(), number as usize * PAGE_SIZE)
    }

    /// Takes pages back and wakes whoever is first in line.
    fn put(&self, key: usize, runs: &[Range<u32>]) {
        let mut state = self.state.lock();
        let count = state.map.put(runs);
        let account = &mut state.clients[key];
        assert!(account.used >= count, "a client gives back more pages than it holds");
        account.used -= count;
        let shared = account.beyond(count);
        state.shared_used -= shared;
        let next = if shared > 0 { state.first_in_line() } else { None };
        drop(state);
        wake(next);
    }
}

/// The kernel says per mapping how much of it lies in huge pages. It walks page tables for that, so it is asked once: what was made
/// present in huge pages stays so.
fn has_huge_pages(mapping: &Mapping) -> bool {
    let Ok(maps) = std::fs::read_to_string("/proc/self/smaps") else { return false };
    let ours = mapping.start().as_ptr() as usize;
    let mut inside = false;
    for line in maps.lines() {
        if let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-')) {
            let parse = |text| usize::from_str_radix(text, 16);
            if let (Ok(from), Ok(to)) = (parse(from), parse(to)) {
                inside = (from..to).contains(&ours);
            }
        } else if inside && let Some(huge) = line.strip_prefix("AnonHugePages:") {
            return huge.trim() != "0 kB";
        }
    }
    false
}

impl State {
    fn check_room(&self, pages: u32, old: u32, new: u32) -> Result<()> {
        let others = self.reserved - old;
        let free = pages - others - self.shared_used.min(pages - others);
        if new <= free {
            return Ok(());
        }
        let what = format!("{new} pages are not to be had: {others} of {pages} are set aside for other clients");
        Err(Error::new(ErrorKind::NoMemory, what))
    }

    fn first_in_line(&self) -> Option<Waker> {
        self.line.front().and_then(|key| self.clients[*key].waker.clone())
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A client's account with the pool: the pages it has set aside, and the lists it holds.
///
/// # Panics
/// When dropped while page lists of it are still out.
#[derive(Debug)]
pub struct Reservation {
    pool: Arc<PagePool>,
    key: usize,
}

impl Reservation {
    /// The pool.
    pub fn pool(&self) -> &Arc<PagePool> {
        &self.pool
    }

    /// Pages set aside.
    pub fn reserved(&self) -> u32 {
        self.pool.state.lock().clients[self.key].reserved
    }

    /// Pages in lists.
    pub fn used(&self) -> u32 {
        self.pool.state.lock().clients[self.key].used
    }

    /// Sets another number of pages aside.
    pub fn resize(&self, pages: u32) -> Result<()> {
        let mut state = self.pool.state.lock();
        let Account { reserved, used, .. } = state.clients[self.key];
        let others = state.shared_used - used.saturating_sub(reserved);
        // What is held beyond the new number becomes shared use, for which there must be room as well. By subtraction: a sum could wrap.
        let room = self.pool.pages - (state.reserved - reserved) - others;
        if pages.max(used) > room {
            state.check_room(self.pool.pages, reserved, pages)?;
            let what = format!("{pages} pages are not to be had while others hold them: try again");
            return Err(Error::new(ErrorKind::NoMemory, what));
        }
        state.reserved = state.reserved - reserved + pages;
        state.shared_used = others + used.saturating_sub(pages);
        state.clients[self.key].reserved = pages;
        let next = state.first_in_line();
        drop(state);
        wake(next);
        Ok(())
    }

    /// Takes `pages` pages, all or none. `None` puts the client in line for shared pages.
    pub fn get(&self, pages: u32) -> Option<PageList> {
        let mut state = self.pool.state.lock();
        let beyond = state.clients[self.key].beyond(pages);
        let room = self.pool.pages - state.reserved - state.shared_used;
        let first = state.line.front().is_none_or(|first| *first == self.key);
        if beyond > 0 && (beyond > room || !first) {
            if !state.line.contains(&self.key) {
                let key = self.key;
                state.line.push_back(key);
            }
            return None;
        }
        let runs = state.map.get(pages);
        state.clients[self.key].used += pages;
        state.shared_used += beyond;
        let next = if state.leave(self.key) { state.first_in_line() } else { None };
        drop(state);
        wake(next);
        Some(PageList { pool: Arc::clone(&self.pool), key: self.key, runs })
    }

    /// Gives up the place in the line.
    pub fn leave_line(&self) {
        let mut state = self.pool.state.lock();
        let next = if state.leave(self.key) { state.first_in_line() } else { None };
        drop(state);
        wake(next);
    }
}

impl State {
    fn leave(&mut self, key: usize) -> bool {
        let before = self.line.len();
        self.line.retain(|other| *other != key);
        self.line.len() < before
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.leave_line();
        let mut state = self.pool.state.lock();
        let account = state.clients.remove(self.key);
        state.reserved -= account.reserved;
        let next = state.first_in_line();
        drop(state);
        wake(next);
        assert!(account.used == 0 || std::thread::panicking(), "a client goes with {} pages out", account.used);
    }
}

/// Pages of the pool: a list of runs of neighbours (`struct page_list` of the seeds). They go back when it is dropped.
#[derive(Debug)]
pub struct PageList {
    pool: Arc<PagePool>,
    key: usize,
    runs: Runs,
}

/// Mostly one run, which takes no allocation.
#[derive(Debug)]
enum Runs {
    One(Range<u32>),
    Many(Vec<Range<u32>>),
}

impl Runs {
    fn as_slice(&self) -> &[Range<u32>] {
        match self {
            Self::One(run) => std::slice::from_ref(run),
            Self::Many(runs) => runs,
        }
    }
}

impl PageList {
    /// Pages in it.
    pub fn pages(&self) -> u32 {
        self.runs.as_slice().iter().map(|run| run.end - run.start).sum()
    }

    /// Bytes in it.
    pub fn length(&self) -> usize {
        self.pages() as usize * PAGE_SIZE
    }

    /// Its memory: `length` bytes from `offset`, which counts from its first page.
    pub(crate) fn segments(&self, offset: usize, length: usize) -> Segments {
        let runs = self.runs.as_slice().iter();
        Segments::collect(runs.map(|run| self.pool.segment(run.start, run.end - run.start))).slice(offset, length)
    }

    /// Shows its bytes in order: `length` of them from `offset`, run by run.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn show(&self, offset: usize, length: usize, mut see: impl FnMut(&[u8])) {
        assert!(offset + length <= self.length(), "bytes beyond the end of a page list");
        // SAFETY: they are pages of this list, and a list with a read in flight is owned by its request, which shows it to nobody.
        unsafe { segment::show(&self.segments(offset, length), &mut see) };
    }

    /// Copies bytes in, from `offset`.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length(), "bytes beyond the end of a page list");
        // SAFETY: they are pages of this list, which the caller holds alone.
        unsafe { segment::copy_in(&self.segments(offset, bytes.len()), bytes) };
    }

    /// Copies bytes out, from `offset`.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset + bytes.len() <= self.length(), "bytes beyond the end of a page list");
        // SAFETY: as in `show`.
        unsafe { segment::copy_out(&self.segments(offset, bytes.len()), bytes) };
    }
}

impl Drop for PageList {
    fn drop(&mut self) {
        self.pool.put(self.key, self.runs.as_slice());
    }
}

/// Which pages are free.
#[derive(Debug)]
struct PageMap {
    used: Vec<bool>,
    free: u32,
    /// No page before it is free.
    lowest: u32,
}

impl PageMap {
    fn new(pages: u32) -> Self {
        Self { used: vec![false; pages as usize], free: pages, lowest: 0 }
    }

    fn put(&mut self, runs: &[Range<u32>]) -> u32 {
        let mut count = 0;
        for run in runs {
            for page in &mut self.used[run.start as usize..run.end as usize] {
                assert!(std::mem::take(page), "a page comes back that is free");
                count += 1;
            }
            self.lowest = self.lowest.min(run.start);
        }
        self.free += count;
        count
    }

    /// # Panics
    /// If fewer are free: the accounts above forbid it.
    fn get(&mut self, count: u32) -> Runs {
        assert!(count <= self.free, "the accounts give out more pages than there are");
        self.free -= count;
        let runs = match self.run_of(count) {
            Some(run) => Runs::One(run),
            None => Runs::Many(self.gather(count)),
        };
        for run in runs.as_slice() {
            self.used[run.start as usize..run.end as usize].fill(true);
            if run.start == self.lowest {
                self.lowest = run.end;
            }
        }
        runs
    }

    /// A run of `count` free pages at a multiple of `count`, inside one chunk. The lowest: so the same few pages go
    /// round, and stay in the processor's caches, however large the pool.
    fn run_of(&self, count: u32) -> Option<Range<u32>> {
        let pages = u32::try_from(self.used.len()).unwrap_or(u32::MAX);
        let step = count.next_power_of_two().min(CHUNK_PAGES);
        (self.lowest / step..pages / step).map(|place| place * step).find_map(|start| {
            let run = start..start + count;
            let free = !self.used.get(run.start as usize..run.end as usize)?.contains(&true);
            (free && count <= step).then_some(run)
        })
    }

    /// Whatever is free, in runs that end at a chunk's end.
    fn gather(&self, count: u32) -> Vec<Range<u32>> {
        let mut runs: Vec<Range<u32>> = Vec::new();
        let free = (0_u32..).zip(&self.used).filter(|(_, used)| !**used).map(|(page, _)| page);
        for page in free.take(count as usize) {
            match runs.last_mut() {
                Some(run) if run.end == page && !page.is_multiple_of(CHUNK_PAGES) => run.end += 1,
                _ => runs.push(page..page + 1),
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests;
