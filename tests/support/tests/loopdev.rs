//! Plain loop devices: stamps, sizes, aliases, and nothing left behind.

use kcopyfs_support::{LoopDevice, direct::Direct, need, stamp};

#[test]
fn a_device_reads_back_its_stamps() {
    if !need::loops() {
        return;
    }
    for block in [512, 4096] {
        let device = LoopDevice::new(3 << 20, block);
        assert_eq!(device.read(0..4096), [0; 4096]);
        device.fill(5);
        device.check(5).unwrap();
        stamp::check(&device.read(1 << 20..2 << 20), 5, 2048).unwrap();
        assert!(device.check(6).is_err());
    }
}

#[test]
fn a_read_only_device_refuses_writes() {
    if !need::loops() {
        return;
    }
    let device = LoopDevice::read_only(1 << 20, 512, 5);
    device.check(5).unwrap();
    assert!(Direct::open(device.path()).and_then(|direct| direct.write(0, &[0; 512])).is_err());
    device.check(5).unwrap();
}

#[test]
fn an_alias_shows_the_same_bytes_from_its_offset_on() {
    if !need::loops() {
        return;
    }
    let device = LoopDevice::new(1 << 20, 512);
    let alias = device.alias(4096);
    assert_ne!(alias.path(), device.path());
    assert_eq!(alias.size(), device.size() - 4096);
    device.fill(5);
    stamp::check(&alias.read(0..8192), 5, 8).unwrap();
    let image = device.image();
    drop(device);
    stamp::check(&alias.read(0..8192), 5, 8).unwrap();
    drop(alias);
    assert!(!image.exists());
}

#[test]
fn a_resized_device_ends_where_it_is_told() {
    if !need::loops() {
        return;
    }
    let device = LoopDevice::new(1 << 20, 512);
    device.resize(1 << 19);
    assert_eq!(device.size(), 1 << 19);
    assert_eq!(Direct::open(device.path()).unwrap().read(1 << 19, 512).unwrap(), []);
}

#[test]
fn many_devices_at_once_from_many_threads() {
    if !need::loops() {
        return;
    }
    let threads: Vec<_> = (0..8)
        .map(|seed| {
            std::thread::spawn(move || {
                for _ in 0..4 {
                    let device = LoopDevice::new(1 << 16, 512);
                    device.fill(seed);
                    device.check(seed).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
