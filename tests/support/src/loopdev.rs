//! A plain loop device over a scratch image in memory: honest, fast, with the logical block that a test wants.

use std::{
    fs::OpenOptions,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::TempPath;

use crate::{
    direct::Direct,
    looping::{Attached, Shape},
    stamp, sweep,
};

/// Bytes that are stamped and written at once; a multiple of every logical block.
const CHUNK: usize = 1 << 20;

/// A loop device; dropping it detaches the device and, with the last device over it, removes the image.
#[derive(Debug)]
pub struct LoopDevice {
    // declared first, so dropped first: the device goes before its image
    attached: Attached,
    image: Arc<TempPath>,
    shape: Shape,
}

impl LoopDevice {
    /// A device of `bytes` bytes with logical blocks of `block` bytes, full of zeros.
    ///
    /// # Panics
    /// If there is no free loop device, or `bytes` is not whole blocks.
    pub fn new(bytes: u64, block: u32) -> Self {
        let image = scratch_image(bytes);
        Self::attach(Arc::new(image), Shape { block, must_be_direct: false, read_only: false, offset: 0 })
    }

    /// A device that refuses writes, stamped with `seed`.
    pub fn read_only(bytes: u64, block: u32, seed: u64) -> Self {
        let image = scratch_image(bytes);
        let file = OpenOptions::new().write(true).open(&image).expect("the image");
        for_each_chunk(bytes, seed, |offset, data| file.write_all_at(data, offset).expect("write the image"));
        Self::attach(Arc::new(image), Shape { block, must_be_direct: false, read_only: true, offset: 0 })
    }

    /// A device over a file of the caller's, which is removed with the last device over it, if it is still there. Only
    /// the device's path is asked of it, should the file go before.
    pub fn over(image: &Path, block: u32) -> Self {
        let image = TempPath::try_from_path(image).expect("a path");
        Self::attach(Arc::new(image), Shape { block, must_be_direct: false, read_only: false, offset: 0 })
    }

    /// A second device over the same image, from `offset` bytes on: an alias that neither the device number nor
    /// `O_EXCL` gives away.
    #[must_use]
    pub fn alias(&self, offset: u64) -> Self {
        Self::attach(Arc::clone(&self.image), Shape { offset, ..self.shape })
    }

    fn attach(image: Arc<TempPath>, shape: Shape) -> Self {
        let file = OpenOptions::new().read(true).write(!shape.read_only).open(&*image).expect("the image");
        let size = file.metadata().expect("the image's size").len();
        assert!(size.is_multiple_of(u64::from(shape.block)), "{size} bytes are not whole blocks of {}", shape.block);
        let attached = Attached::new(&file, shape).unwrap_or_else(|error| panic!("attach a loop device: {error}"));
        Self { attached, image, shape }
    }

    /// `/dev/loopN`.
    pub fn path(&self) -> &Path {
        self.attached.path()
    }

    /// The file beneath it.
    pub fn image(&self) -> PathBuf {
        self.image.to_path_buf()
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        std::fs::metadata(&*self.image).expect("the image's size").len() - self.shape.offset
    }

    /// Stamps the whole device with `seed`; sector 0 of the device is number 0.
    pub fn fill(&self, seed: u64) {
        let device = Direct::open(self.path()).expect("open the loop device");
        for_each_chunk(self.size(), seed, |offset, data| {
            assert_eq!(device.write(offset, data).expect("write the loop device"), data.len());
        });
    }

    /// The bytes of `range`, whole blocks, as the device reads them now.
    pub fn read(&self, range: Range<u64>) -> Vec<u8> {
        let len = usize::try_from(range.end - range.start).expect("a length");
        let device = Direct::open_read_only(self.path()).expect("open the loop device");
        let data = device.read(range.start, len).expect("read the loop device");
        assert_eq!(data.len(), len, "{} is shorter than {}", self.path().display(), range.end);
        data
    }

    /// Compares the whole device with `seed`'s stamps.
    ///
    /// # Errors
    /// The first sector that differs.
    pub fn check(&self, seed: u64) -> Result<(), stamp::Mismatch> {
        stamp::check(&self.read(0..self.size()), seed, 0)
    }

    /// Makes image and device `bytes` long.
    pub fn resize(&self, bytes: u64) {
        let file = OpenOptions::new().write(true).open(&*self.image).expect("the image");
        file.set_len(bytes).expect("resize the image");
        self.attached.update_size().expect("resize the loop device");
    }
}

fn scratch_image(bytes: u64) -> TempPath {
    sweep::sweep_once();
    let mut builder = tempfile::Builder::new();
    let prefix = sweep::scratch_prefix();
    let builder = builder.prefix(&prefix).suffix(".img");
    let in_memory: io::Result<_> = builder.tempfile_in(sweep::IMAGE_DIR);
    let file = in_memory.or_else(|_| builder.tempfile()).expect("a scratch image");
    file.as_file().set_len(bytes).expect("size the scratch image");
    file.into_temp_path()
}

fn for_each_chunk(bytes: u64, seed: u64, mut write: impl FnMut(u64, &[u8])) {
    let mut buf = vec![0; CHUNK];
    for offset in (0..bytes).step_by(CHUNK) {
        let len = usize::try_from(bytes - offset).map_or(CHUNK, |left| left.min(CHUNK));
        stamp::fill(&mut buf[..len], seed, offset / stamp::SECTOR as u64);
        write(offset, &buf[..len]);
    }
}
