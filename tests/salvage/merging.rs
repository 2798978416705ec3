//! Disks whose neighbouring requests the kernel makes one, as with most disks: if that fails, pieces fail that are good.

use std::ops::Range;

use kcopyfs_support::{Fault, FaultDisk, Op, Rng, need, stamp};

use crate::{NEW, OLD, end, listed, map, mapped, rounds, spec, stamped, start};

pub(crate) const SIZE: u64 = 8 << 20;

pub(crate) fn merging(block: u32, seed: u64) -> FaultDisk {
    stamped(FaultDisk::builder(SIZE).block(block), seed)
}

/// Makes a block that cannot be read.
pub(crate) fn fail(disk: &FaultDisk, block: u64, rng: &mut Rng) -> Range<u64> {
    let start = rng.below(SIZE / block) * block;
    disk.rule(Op::Read, start..start + block, Fault::Err(libc::EIO));
    start..start + block
}

#[test]
fn a_piece_that_can_be_read_is_not_lost_with_its_neighbour() {
    if !need::fault_disk() {
        return;
    }
    let piece = 512 << 10;
    let mut rng = Rng::from_env_or(34);
    for io in ["io=uring", "io=threads"] {
        let (from, to) = (merging(512, NEW), [merging(512, OLD)]);
        let daemon = start(&["state=none", io]);
        for _ in 0..rounds(8, 50) {
            let bad = fail(&from, 512, &mut rng);
            let id = daemon.job(&spec(&from, &to, "ignore_error")).unwrap();
            let status = end(&daemon, id, "degraded");
            // what lies before it in its piece is copied, too
            let lost = bad.start..bad.start / piece * piece + piece;
            assert_eq!(status.bad_bytes(), lost.end - lost.start, "\n{status}");
            assert_eq!(listed(&daemon.errors(id), None), std::slice::from_ref(&lost));
            assert!(to[0].contents_of(lost.clone()).iter().all(|byte| *byte == 0));
            for part in [0..lost.start, lost.end..SIZE] {
                let data = to[0].contents_of(part.clone());
                assert_eq!(stamp::check(&data, NEW, part.start / 512), Ok(()));
            }
            from.clear();
        }
    }
}

#[test]
fn a_job_stops_for_the_bad_block_and_not_for_its_neighbour() {
    if !need::fault_disk() {
        return;
    }
    let mut rng = Rng::from_env_or(33);
    for (io, block) in [("io=uring", 512), ("io=threads", 4096)] {
        let (from, to) = (merging(block, NEW), [merging(block, OLD)]);
        let daemon = start(&["state=none", "subjob_kb=64", io]);
        for _ in 0..rounds(12, 100) {
            let bad = fail(&from, block.into(), &mut rng);
            let id = daemon.job(&spec(&from, &to, "")).unwrap();
            let status = end(&daemon, id, "failed");
            assert_eq!(listed(&daemon.errors(id), None), std::slice::from_ref(&bad), "\n{status}");
            assert_eq!((status.read_err(), status.bad_bytes()), (true, block.into()), "\n{status}");
            assert_eq!(mapped(&map(&daemon, id, 0), '-'), std::slice::from_ref(&bad));
            from.clear();
        }
    }
}
