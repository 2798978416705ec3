use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

fn counter() -> (Arc<AtomicU32>, Waker) {
    let wakes = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&wakes);
    (wakes, Waker::new(move || _ = seen.fetch_add(1, Ordering::Relaxed)))
}

#[test]
fn a_fresh_pool_gives_single_runs() {
    let pool = PagePool::new(1024).unwrap();
    let client = pool.reserve(1024, None).unwrap();
    let lists: Vec<PageList> = (0..8).map(|_| client.get(128).unwrap()).collect();
    assert!(lists.iter().all(|list| matches!(list.runs, Runs::One(_)) && list.pages() == 128));
    assert_eq!(pool.figures().free, 0);
    assert!(client.get(1).is_none());
    drop(lists);
    assert_eq!(pool.figures().free, 1024);
}

#[test]
fn the_same_pages_go_round() {
    let pool = PagePool::new(1024).unwrap();
    let client = pool.reserve(1024, None).unwrap();
    let mut lists: VecDeque<PageList> = (0..4).map(|_| client.get(128).unwrap()).collect();
    for _ in 0..10 {
        lists.drain(..2);
        lists.extend((0..2).map(|_| client.get(128).unwrap()));
        assert!(lists.iter().all(|list| matches!(&list.runs, Runs::One(run) if run.end <= 512)));
    }
}

#[test]
fn scattered_pages_still_make_a_list() {
    let pool = PagePool::new(128).unwrap();
    let client = pool.reserve(128, None).unwrap();
    let mut singles: Vec<PageList> = (0..128).map(|_| client.get(1).unwrap()).collect();
    let mut turn = 0;
    singles.retain(|_| {
        turn += 1;
        turn % 2 == 0
    });
    let mut list = client.get(64).unwrap();
    assert_eq!(list.segments(0, list.length()).as_slice().len(), 64);
    let bytes: Vec<u8> = (0..list.length()).map(|at| (at % 251) as u8).collect();
    list.write(0, &bytes);
    let mut back = vec![0; 10_000];
    list.read(4090, &mut back);
    assert_eq!(back, bytes[4090..14_090]);
}

#[test]
fn what_is_set_aside_is_never_refused() {
    let pool = PagePool::new(256).unwrap();
    let greedy = pool.reserve(64, None).unwrap();
    let modest = pool.reserve(64, None).unwrap();
    let mut held = Vec::new();
    while let Some(list) = greedy.get(16) {
        held.push(list);
    }
    assert_eq!(greedy.used(), 192, "its own 64 and the 128 that nobody set aside");
    let own = modest.get(64).expect("its own pages");
    assert!(modest.get(1).is_none());
    assert!(pool.reserve(1, None).is_err());
    drop(own);
}

#[test]
fn shared_pages_go_round_in_turn() {
    let pool = PagePool::new(128).unwrap();
    let (a_wakes, a_waker) = counter();
    let (b_wakes, b_waker) = counter();
    let a = pool.reserve(0, Some(a_waker)).unwrap();
    let b = pool.reserve(0, Some(b_waker)).unwrap();
    let all = a.get(128).unwrap();
    assert!(b.get(64).is_none());
    assert!(a.get(64).is_none());
    drop(all);
    assert_eq!((a_wakes.load(Ordering::Relaxed), b_wakes.load(Ordering::Relaxed)), (0, 1));
    assert!(a.get(64).is_none(), "b is first in line");
    let first = b.get(64).unwrap();
    assert_eq!(a_wakes.load(Ordering::Relaxed), 1, "served, b lets the next know");
    let second = a.get(64).unwrap();
    drop((first, second));
}

#[test]
fn a_client_that_leaves_the_line_lets_the_next_go() {
    let pool = PagePool::new(128).unwrap();
    let (wakes, waker) = counter();
    let holder = pool.reserve(0, None).unwrap();
    let gone = pool.reserve(0, None).unwrap();
    let next = pool.reserve(0, Some(waker)).unwrap();
    let all = holder.get(128).unwrap();
    assert!(gone.get(1).is_none() && next.get(1).is_none());
    drop(all);
    drop(gone);
    assert!(wakes.load(Ordering::Relaxed) > 0);
    assert!(next.get(128).is_some());
}

#[test]
fn resizing_keeps_the_sum_within_the_pool() {
    let pool = PagePool::new(256).unwrap();
    let a = pool.reserve(128, None).unwrap();
    let b = pool.reserve(64, None).unwrap();
    assert!(a.resize(193).is_err());
    a.resize(192).unwrap();
    let held = a.get(192).unwrap();
    a.resize(64).unwrap();
    assert!(b.resize(128).is_err(), "128 of a's pages are shared use now");
    drop(held);
    b.resize(128).unwrap();
    assert_eq!(b.get(128).map(|list| list.pages()), Some(128));
}

#[test]
fn no_number_of_pages_is_large_enough_to_wrap() {
    let pool = PagePool::new(256).unwrap();
    let a = pool.reserve(128, None).unwrap();
    let b = pool.reserve(16, None).unwrap();
    let held = b.get(100).unwrap();
    // Beside 128 pages the sum of the first is 0 in 32 bits.
    for pages in [u32::MAX - 127, u32::MAX - 126, u32::MAX - 255, u32::MAX - 227, u32::MAX, 1 << 31] {
        for refused in [b.resize(pages).err(), a.resize(pages).err(), pool.reserve(pages, None).err()] {
            assert_eq!(refused.map(|error| error.kind()), Some(ErrorKind::NoMemory), "{pages}");
        }
        assert!(b.get(pages).is_none() && a.get(pages).is_none());
    }
    a.leave_line();
    b.leave_line();
    assert_eq!((a.reserved(), b.reserved(), b.used()), (128, 16, 100));
    drop(held);
    drop((a.get(240), b.get(16)));
    b.resize(128).unwrap();
}

#[test]
fn pools_have_limits() {
    assert!(PagePool::new(MIN_PAGES - 1).is_err());
    assert!(PagePool::new(MAX_PAGES + 1).is_err());
}
