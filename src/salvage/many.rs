//! Very many bad blocks: a step costs what it changes, and not what there is.

use std::time::Duration;

use super::*;
use crate::sector::Sector;
use crate::spec;

/// Sectors of a piece.
const PIECE: u64 = 1024;
/// One sector of so many cannot be read, in places that look random.
const ONE_OF: u64 = 16;

fn is_bad(sector: u64) -> bool {
    let mixed = ((sector / ONE_OF) ^ 0x9e37_79b9).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    sector % ONE_OF == (mixed >> 40) % ONE_OF
}

/// What this thread has had of a processor: other than time it does not depend on who else wants one.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a figure of the thread");
    let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

/// Salvages a disk with that many bad sectors; returns the steps that it took, and the time of the plan and the figures alone.
fn salvage(bad: u64) -> (u64, Duration) {
    let total = bad * ONE_OF;
    let line = format!("from=/a,0,{total} to=/b on_read_error=zero");
    let spec = spec::parse(line.as_bytes()).unwrap().spec;
    let mut progress = Progress::new(&spec, Sector::new(total).unwrap());
    let mut salvage = Salvage::new(&spec, Geometry::default());
    let begun = cpu_time();
    let mut steps = 0;
    while let Some(step) = salvage.next(&spec, Phase::Copy, &mut progress, None) {
        steps += 1;
        let range = step.range().clone();
        let reads = !matches!(step, Step::Zero { .. });
        for start in range.clone().step_by(PIECE as usize) {
            let end = (start + PIECE).min(range.end);
            let unread = reads && (start..end).any(is_bad);
            let piece = Piece {
                offset: Sector::new(start - range.start).unwrap(),
                count: Sector::new(end - start).unwrap(),
                read_took: Duration::ZERO,
                read_error: unread.then_some(libc::EIO),
                written: if unread { ErrorBits::NONE } else { ErrorBits::first(1) },
                write_errors: &[],
                different: ErrorBits::NONE,
                displaced: None,
                same: ErrorBits::NONE,
                behind: ErrorBits::NONE,
            };
            salvage.piece(&spec, Phase::Copy, &step, &piece, &[], &mut progress);
        }
    }
    let took = cpu_time().saturating_sub(begun);
    assert_eq!(progress.bad_bytes(), bad * 512);
    assert_eq!(progress.copied(), (total - bad) * 512);
    assert!(progress.dests[0].zeroed().bytes() == bad * 512 && progress.read_err);
    (steps, took)
}

#[test]
fn a_bad_block_costs_the_same_among_many() {
    // `KCOPYFS_BAD_BLOCKS=1000000` measures as many.
    let bad = std::env::var("KCOPYFS_BAD_BLOCKS").map_or(20_000, |text| text.parse().expect("a number"));
    let (steps, took) = salvage(bad);
    eprintln!("{bad} bad blocks: {steps} steps, {took:?}");
    // Twenty reads a block at the most, and one write of zeros.
    assert!(steps < 21 * bad, "{steps} steps");
    // Where a step cost what there is, this would take minutes.
    assert!(took < Duration::from_secs(60), "{took:?}");
}
