//! Much of the same kind done on all processors at once.

use std::num::NonZero;
use std::thread;

/// Fewer are done faster than threads are made.
const FEW: usize = 256;
/// Threads at most: what they do ends in a moment.
const MOST: usize = 8;

/// `act` of each item, in their order. For what neither waits nor takes long.
pub(crate) fn map<T: Send, R: Send>(mut items: Vec<T>, act: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST);
    if threads == 1 || items.len() < FEW {
        return items.into_iter().map(act).collect();
    }
    let share = items.len().div_ceil(threads);
    let mut shares = Vec::with_capacity(threads);
    while items.len() > share {
        shares.push(items.split_off(items.len() - share));
    }
    let act = &act;
    thread::scope(|scope| {
        let others: Vec<_> =
            shares.into_iter().map(|share| scope.spawn(|| share.into_iter().map(act).collect::<Vec<R>>())).collect();
        let mut done: Vec<R> = items.into_iter().map(act).collect();
        for other in others.into_iter().rev() {
            done.extend(other.join().expect("a panic ends the process"));
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_stays() {
        for count in [0, 1, FEW - 1, FEW, FEW + 1, 10 * FEW + 7] {
            let doubled = map((0..count).collect(), |number| 2 * number);
            assert!(doubled.into_iter().eq((0..count).map(|number| 2 * number)), "{count}");
        }
    }
}
