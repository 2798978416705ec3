//! Every fault, on both sizes of block, as a program sees it through `O_DIRECT` on the loop device: what the request
//! answers, and what stays untouched.

use std::{
    io,
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use kcopyfs_support::{Fault, FaultDisk, Op, direct::Direct, faultdisk::WAIT_LIMIT, need, stamp};

const SIZE: u64 = 1 << 20;

/// The stamps on the disk, and those that tests write over them.
const OLD: u64 = 1;
const NEW: u64 = 2;

fn on_each_block(test: impl Fn(FaultDisk, Direct, u64)) {
    if !need::fault_disk() {
        return;
    }
    for block in [512, 4096] {
        eprintln!("blocks of {block}");
        let disk = FaultDisk::builder(SIZE).block(block).start();
        disk.fill(OLD);
        let device = Direct::open(&disk.path()).unwrap();
        test(disk, device, u64::from(block));
    }
}

fn stamped(seed: u64, offset: u64, len: u64) -> Vec<u8> {
    stamp::stamped(seed, offset / 512, usize::try_from(len / 512).unwrap())
}

fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.expect_err("this should have failed").raw_os_error().unwrap()
}

fn read(device: &Direct, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    device.read(offset, usize::try_from(len).unwrap())
}

/// Reads in a thread that may hang: a plain one, so that a failed test still drops its disk.
fn reading(path: PathBuf, offset: u64, len: u64) -> JoinHandle<io::Result<Vec<u8>>> {
    thread::spawn(move || read(&Direct::open(&path)?, offset, len))
}

#[test]
fn a_bad_block_fails_the_requests_that_touch_it_and_no_others() {
    on_each_block(|disk, device, block| {
        disk.rule(Op::Read, 3 * block..4 * block, Fault::Err(libc::ENODATA));
        assert_eq!(errno(read(&device, 0, 16 * block)), libc::ENODATA);
        for at in (0..16).map(|number| number * block) {
            let result = read(&device, at, block);
            if at == 3 * block {
                assert_eq!(errno(result), libc::ENODATA);
            } else {
                stamp::check(&result.unwrap(), OLD, at / 512).unwrap();
            }
        }
        disk.check(OLD).unwrap();
    });
}

#[test]
fn a_rule_fires_a_number_of_times() {
    on_each_block(|disk, device, block| {
        let rule = disk.rule(Op::Read, .., Fault::Err(libc::EIO)).times(2);
        assert_eq!([0; 2].map(|_| errno(read(&device, 0, block))), [libc::EIO; 2]);
        assert_eq!(read(&device, 0, block).unwrap(), stamped(OLD, 0, block));
        assert_eq!(rule.hits(), 2);
    });
}

#[test]
fn a_failed_write_reaches_the_medium_up_to_the_bad_block() {
    on_each_block(|disk, device, block| {
        disk.rule(Op::Write, 3 * block..4 * block, Fault::Err(libc::EIO));
        assert_eq!(errno(device.write(0, &stamped(NEW, 0, 8 * block))), libc::EIO);
        assert_eq!(disk.contents_of(..3 * block), stamped(NEW, 0, 3 * block));
        assert_eq!(disk.contents_of(3 * block..), stamped(OLD, 3 * block, SIZE - 3 * block));
        device.write(4 * block, &stamped(NEW, 4 * block, block)).unwrap();
        assert_eq!(disk.contents_of(4 * block..5 * block), stamped(NEW, 4 * block, block));
    });
}

#[test]
fn a_flush_fails() {
    on_each_block(|disk, device, block| {
        disk.rule(Op::Flush, .., Fault::Err(libc::EIO)).times(1);
        device.write(0, &stamped(NEW, 0, block)).unwrap();
        assert_eq!(errno(device.flush()), libc::EIO);
        device.flush().unwrap();
        assert!(disk.stat().flushes >= 2);
    });
}

#[test]
fn the_errnos_that_a_loop_device_passes_through() {
    on_each_block(|disk, device, block| {
        for expected in [libc::ENOSPC, libc::ENODATA, libc::ETIMEDOUT, libc::EREMOTEIO, libc::EILSEQ, libc::ENOMEM] {
            disk.rule(Op::Read, .., Fault::Err(expected)).times(1);
            assert_eq!(errno(read(&device, 0, block)), expected);
        }
    });
}

#[test]
fn a_corrupt_read_leaves_the_medium_and_a_corrupt_write_does_not() {
    on_each_block(|disk, device, block| {
        disk.rule(Op::Read, block..2 * block, Fault::Corrupt).times(1);
        let found = read(&device, 0, 4 * block).unwrap();
        assert_eq!(stamp::check(&found, OLD, 0).unwrap_err().sector, block / 512);
        disk.check(OLD).unwrap();

        disk.rule(Op::Write, block..2 * block, Fault::Corrupt).times(1);
        device.write(0, &stamped(OLD, 0, 4 * block)).unwrap();
        let mismatch = disk.check(OLD).unwrap_err();
        assert_eq!((mismatch.sector, mismatch.found), (block / 512, stamp::Found::Damaged { byte: 0 }));
    });
}

#[test]
fn a_dropped_write_is_acknowledged_and_not_done() {
    on_each_block(|disk, device, block| {
        disk.rule(Op::Write, .., Fault::Drop).times(1);
        assert_eq!(device.write(0, &stamped(NEW, 0, block)).unwrap() as u64, block);
        disk.check(OLD).unwrap();
    });
}

#[test]
fn a_misdirected_write_lands_elsewhere_and_a_misdirected_read_comes_from_there() {
    on_each_block(|disk, device, block| {
        disk.rule(Op::Write, 2 * block..3 * block, Fault::Misdirect(9 * block)).times(1);
        device.write(2 * block, &stamped(NEW, 2 * block, block)).unwrap();
        let mismatch = disk.check(OLD).unwrap_err();
        assert_eq!(mismatch.sector, 9 * block / 512);
        assert_eq!(mismatch.found, stamp::Found::Misplaced { seed: NEW, sector: 2 * block / 512 });

        disk.rule(Op::Read, 2 * block..3 * block, Fault::Misdirect(20 * block)).times(1);
        assert_eq!(read(&device, 2 * block, block).unwrap(), stamped(OLD, 20 * block, block));
    });
}

#[test]
fn the_loop_device_asks_again_after_a_short_read_and_fails_a_short_write() {
    on_each_block(|disk, device, block| {
        disk.rule(Op::Read, .., Fault::Short(usize::try_from(block).unwrap())).times(1);
        assert_eq!(read(&device, 0, 4 * block).unwrap(), stamped(OLD, 0, 4 * block));

        disk.rule(Op::Write, .., Fault::Short(usize::try_from(block).unwrap())).times(1);
        assert_eq!(errno(device.write(0, &stamped(NEW, 0, 4 * block))), libc::EIO);
        assert_eq!(disk.contents_of(..block), stamped(NEW, 0, block));
        assert_eq!(disk.contents_of(block..), stamped(OLD, block, SIZE - block));
    });
}

#[test]
fn a_file_without_a_loop_device_is_short_as_told() {
    if !need::fault_disk() {
        return;
    }
    let disk = FaultDisk::builder(SIZE).file_only().start();
    assert_eq!(disk.path(), disk.image());
    let file = Direct::open(&disk.path()).unwrap();
    disk.rule(Op::Read, .., Fault::Short(512)).times(1);
    assert_eq!(file.read(0, 4096).unwrap().len(), 512);
    disk.rule(Op::Write, .., Fault::Short(1024)).times(1);
    assert_eq!(file.write(0, &[1; 4096]).unwrap(), 1024);
}

#[test]
fn a_hung_request_waits_for_its_release_while_others_pass() {
    on_each_block(|disk, device, block| {
        disk.rule(Op::Read, ..block, Fault::Hang);
        let hung = reading(disk.path(), 0, block);
        disk.wait_parked(1);
        assert_eq!(read(&device, block, block).unwrap(), stamped(OLD, block, block));
        device.write(2 * block, &stamped(NEW, 2 * block, block)).unwrap();
        assert!(!hung.is_finished());
        assert_eq!(disk.release(), 1);
        assert_eq!(hung.join().unwrap().unwrap(), stamped(OLD, 0, block));
        assert_eq!(disk.stat().parked, 0);
        read(&device, 0, block).unwrap();
    });
}

#[test]
fn many_requests_hang_at_once() {
    on_each_block(|disk, device, block| {
        disk.rule(Op::Read, ..32 * block, Fault::Hang);
        let hung: Vec<_> = (0..32).map(|number| reading(disk.path(), number * block, block)).collect();
        disk.wait_parked(32);
        read(&device, 40 * block, block).unwrap();
        assert_eq!(disk.release(), 32);
        for (at, thread) in (0..).step_by(usize::try_from(block).unwrap()).zip(hung) {
            assert_eq!(thread.join().unwrap().unwrap(), stamped(OLD, at, block));
        }
    });
}

#[test]
fn a_dead_disk_fails_all_and_ends_what_hung() {
    on_each_block(|disk, device, block| {
        disk.rule(Op::Read, ..block, Fault::Hang);
        let hung = reading(disk.path(), 0, block);
        disk.wait_parked(1);
        disk.dead(libc::EREMOTEIO);
        assert_eq!(errno(hung.join().unwrap()), libc::EREMOTEIO);
        assert_eq!(errno(device.write(0, &stamped(NEW, 0, block))), libc::EREMOTEIO);
        assert_eq!(errno(device.flush()), libc::EIO, "a loop device's flush fails with this alone");
        disk.clear();
        disk.revive();
        assert_eq!(read(&device, 0, block).unwrap(), stamped(OLD, 0, block));
    });
}

#[test]
fn a_delay_passes_or_is_cut_short_by_a_release() {
    on_each_block(|disk, device, block| {
        let delay = Duration::from_millis(100);
        disk.rule(Op::Read, .., Fault::Delay(delay)).times(1);
        let start = Instant::now();
        read(&device, 0, block).unwrap();
        assert!(start.elapsed() >= delay, "{:?}", start.elapsed());

        let reads = disk.stat().reads;
        disk.rule(Op::Read, .., Fault::Delay(WAIT_LIMIT * 6));
        let delayed = reading(disk.path(), 0, block);
        disk.wait_until(|stat| stat.reads > reads);
        disk.release();
        delayed.join().unwrap().unwrap();
    });
}

#[test]
fn a_resized_disk_ends_where_it_is_told() {
    on_each_block(|disk, device, block| {
        disk.resize(SIZE / 2);
        assert_eq!(read(&device, SIZE / 2, block).unwrap(), []);
        assert_eq!(read(&device, SIZE / 2 - block, 2 * block).unwrap(), stamped(OLD, SIZE / 2 - block, block));
        disk.resize(SIZE * 2);
        assert_eq!(read(&device, SIZE, block).unwrap(), vec![0; usize::try_from(block).unwrap()]);
        assert_eq!(disk.contents().len() as u64, SIZE * 2);
    });
}

#[test]
fn figures_count_requests_and_the_largest() {
    on_each_block(|disk, device, _| {
        let before = disk.stat();
        read(&device, 0, SIZE / 2).unwrap();
        device.write(0, &stamped(NEW, 0, 8192)).unwrap();
        let stat = disk.stat();
        assert!(stat.reads > before.reads && stat.writes > before.writes);
        assert!(stat.max_request >= 128 << 10, "{stat:?}");
    });
}

#[test]
fn the_device_has_the_block_size_it_was_given() {
    on_each_block(|disk, device, block| {
        let name = disk.path().file_name().unwrap().to_owned();
        let file = Path::new("/sys/block").join(name).join("queue/logical_block_size");
        assert_eq!(std::fs::read_to_string(file).unwrap().trim(), block.to_string());
        assert_eq!(errno(read(&device, 0, block / 2)), libc::EINVAL);
    });
}
