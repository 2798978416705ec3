//! Disks with a write cache: what a power cut takes, what a lying flush loses, and the replay of what was written.

use kcopyfs_support::{
    Fault, FaultDisk, Op, PowerCut,
    direct::Direct,
    faultdisk::log::{Event, Logged},
    need,
    stamp::{self, stamped},
};

const SIZE: u64 = 1 << 20;

fn started(block: u32) -> Option<(FaultDisk, Direct)> {
    need::fault_disk().then(|| {
        let disk = FaultDisk::builder(SIZE).block(block).volatile(true).log(true).start();
        disk.fill(1);
        let device = Direct::open(&disk.path()).unwrap();
        (disk, device)
    })
}

#[test]
fn what_was_not_flushed_is_lost() {
    for block in [512, 4096] {
        let Some((disk, device)) = started(block) else { return };
        device.write(0, &stamped(2, 0, 16)).unwrap();
        device.flush().unwrap();
        device.write(8192, &stamped(3, 16, 16)).unwrap();
        assert_eq!(device.read(8192, 8192).unwrap(), stamped(3, 16, 16), "a read sees the cache");
        assert_eq!(disk.stat().pending, 1);

        let cut = disk.powercut(PowerCut::Drop);
        assert_eq!((cut.writes, cut.sectors_kept, cut.sectors_lost), (1, 0, 16));
        assert_eq!(device.read(0, 8192).unwrap_err().raw_os_error(), Some(libc::EIO), "dead until revived");
        disk.revive();
        assert_eq!(device.read(0, 8192).unwrap(), stamped(2, 0, 16));
        assert_eq!(device.read(8192, 8192).unwrap(), stamped(1, 16, 16));
    }
}

#[test]
fn a_power_cut_keeps_the_first_writes() {
    let Some((disk, device)) = started(4096) else { return };
    for number in 0..4 {
        device.write(number * 4096, &stamped(2, number * 8, 8)).unwrap();
    }
    assert_eq!(disk.powercut(PowerCut::Keep(3)).sectors_kept, 24);
    assert_eq!(disk.contents_of(..3 * 4096), stamped(2, 0, 24));
    assert_eq!(disk.check(1).unwrap_err().found, stamp::Found::Misplaced { seed: 2, sector: 0 });
    stamp::check(&disk.contents_of(3 * 4096..), 1, 24).unwrap();
}

#[test]
fn a_random_power_cut_tears_writes_and_replays_by_its_seed() {
    let torn = |seed| {
        let (disk, device) = started(512)?;
        device.write(0, &stamped(2, 0, 64)).unwrap();
        let cut = disk.powercut(PowerCut::Random(seed));
        assert!(cut.sectors_kept > 0 && cut.sectors_lost > 0, "{cut:?}");
        for (number, sector) in (0..).zip(disk.contents_of(..64 * 512).chunks(512)) {
            assert!([1, 2].iter().any(|seed| stamp::check(sector, *seed, number).is_ok()), "sector {number}");
        }
        Some(disk.contents())
    };
    assert!(torn(7) == torn(7), "the same seed, another outcome");
}

#[test]
fn a_flush_that_lies_keeps_nothing() {
    let Some((disk, device)) = started(512) else { return };
    disk.rule(Op::Flush, .., Fault::Drop).times(1);
    device.write(0, &stamped(2, 0, 8)).unwrap();
    device.flush().unwrap();
    disk.powercut(PowerCut::Drop);
    disk.check(1).unwrap();
}

#[test]
fn a_prefix_of_the_log_is_what_an_ordered_disk_held_then() {
    let Some((disk, device)) = started(512) else { return };
    device.write(0, &stamped(2, 0, 8)).unwrap();
    device.flush().unwrap();
    disk.mark("between");
    device.write(4096, &stamped(3, 8, 8)).unwrap();

    let logged = disk.logged();
    let events: Vec<_> = logged.iter().map(|entry| entry.event).collect();
    assert_eq!(events, [Event::Write, Event::Flush, Event::Mark, Event::Write]);
    let written = disk.written();
    assert_eq!(written[1], Logged { order: 3, event: Event::Write, offset: 4096, len: 4096, ..written[1] });

    stamp::check(&disk.replay(0), 1, 0).unwrap();
    let before = disk.replay(3);
    assert_eq!(before[..4096], stamped(2, 0, 8));
    stamp::check(&before[4096..], 1, 8).unwrap();
    assert_eq!(disk.replay(4)[4096..8192], stamped(3, 8, 8));
}
