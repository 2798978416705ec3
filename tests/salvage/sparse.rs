//! Zeros that take no room, and still read as zeros.

use std::{
    fs,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use kcopyfs_support::{LoopDevice, Rng, direct::Direct, need};

use crate::{NEW, OLD, assert_same, at, end, image, start};

const SIZE: u64 = 8 << 20;

/// Stamped bytes with random runs of zeros, about two thirds of it all.
fn thin(rng: &mut Rng) -> Vec<u8> {
    let mut data = image(SIZE, NEW);
    let mut byte = 0;
    while byte < SIZE {
        let zeros = rng.within(1..300) * 4096;
        data[at(byte)..at((byte + zeros).min(SIZE))].fill(0);
        byte += zeros + rng.within(1..150) * 4096;
    }
    // too small for any hole
    data[100..200].fill(0);
    data
}

fn room(path: &Path) -> u64 {
    fs::metadata(path).expect("a file").blocks() * 512
}

#[test]
fn destinations_stay_thin_and_read_back_the_same() {
    if !need::loops() || !need::fuse() {
        return;
    }
    let mut rng = Rng::from_env_or(15);
    for (io, block, words) in
        [("io=uring", 512, "verify"), ("io=threads", 4096, "write_seq digest=sha256"), ("io=uring", 4096, "")]
    {
        let data = thin(&mut rng);
        let zeros = data.chunks(4096).filter(|page| page.iter().all(|byte| *byte == 0)).count() as u64 * 4096;
        let dir = tempfile::tempdir().expect("a scratch directory");
        let source = LoopDevice::new(SIZE, block);
        let written = Direct::open(source.path()).and_then(|device| device.write(0, &data)).expect("write the source");
        assert_eq!(written, data.len());
        // a file that is made, one that is full of old data, and a device that is
        let (made, full) = (dir.path().join("made"), dir.path().join("full"));
        fs::write(&full, image(SIZE, OLD)).expect("a file");
        let device = LoopDevice::new(SIZE, block);
        device.fill(OLD);
        let full_room = room(&device.image());
        let to: String =
            [&made, &full, &device.path().to_path_buf()].map(|path| format!(" to={}", path.display())).concat();
        let daemon = start(&["state=none", io]);
        let id = daemon.job(&format!("from={}{to} sparse create {words}", source.path().display())).unwrap();
        let status = end(&daemon, id, "done");
        assert_eq!(status.durable(), SIZE, "\n{status}");
        for path in [&made, &full] {
            assert_same(&fs::read(path).expect("a file"), &data, &path.display().to_string());
        }
        assert_same(&device.read(0..SIZE), &data, "the device");
        let rooms = [room(&made), room(&full), room(&device.image())];
        eprintln!("{io}: {zeros} of {SIZE} bytes are zeros; taken: {rooms:?}");
        // a hole that crosses a piece's edge may be kept by neither
        for taken in rooms {
            assert!(taken <= SIZE - zeros / 2 && taken < full_room, "{taken} bytes, of which {zeros} need not be");
        }
        // without the word it is all there
        let id = daemon.job(&format!("from={}{to} {words}", source.path().display())).unwrap();
        end(&daemon, id, "done");
        assert_eq!(room(&device.image()), full_room);
        let file = fs::File::open(&full).expect("a file");
        let mut start = vec![0; 4096];
        file.read_exact_at(&mut start, 0).expect("read it");
        assert_same(&start, &data[..4096], "the beginning");
    }
}
