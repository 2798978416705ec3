//! A disk in memory that can lose its power: what was not synced is there, half there, or not there at all.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{DAMAGED, Disk};

/// A disk in memory. Its clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    inodes: Vec<Inode>,
    /// What a reader sees.
    names: BTreeMap<String, usize>,
    /// What was there at the last sync.
    durable: BTreeMap<String, usize>,
    /// What has happened to names since. Each entry is one change, whole or not at all.
    since: Vec<Vec<(String, Option<usize>)>>,
}

#[derive(Debug)]
struct Inode {
    bytes: Vec<u8>,
    synced: bool,
}

impl Inner {
    fn change(&mut self, change: Vec<(String, Option<usize>)>) {
        apply(&mut self.names, &change);
        self.since.push(change);
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.find(from)?;
        self.change(vec![(from.to_owned(), None), (to.to_owned(), Some(inode))]);
        Ok(())
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: &[(String, Option<usize>)]) {
    for (name, inode) in change {
        match inode {
            Some(inode) => names.insert(name.clone(), *inode),
            None => names.remove(name),
        };
    }
}

impl Model {
    /// The power goes and comes back. `below` gives a random number below another.
    pub(crate) fn power_cut(&self, mut below: impl FnMut(usize) -> usize) {
        let inner = &mut *self.0.lock();
        let mut names = std::mem::take(&mut inner.durable);
        // None, all, a half of them.
        let share = below(3);
        for change in std::mem::take(&mut inner.since) {
            if below(2) < share {
                apply(&mut names, &change);
            }
        }
        for inode in inner.inodes.iter_mut().filter(|inode| !inode.synced) {
            match below(4) {
                0 => inode.bytes.clear(),
                1 => inode.bytes.fill(0),
                2 => inode.bytes.truncate(below(inode.bytes.len() + 1)),
                _ => {}
            }
            inode.synced = true;
        }
        inner.durable.clone_from(&names);
        inner.names = names;
    }

    /// Every file by its name, those in `damaged` too.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let inner = self.0.lock();
        inner.names.iter().map(|(name, inode)| (name.clone(), inner.inodes[*inode].bytes.clone())).collect()
    }

    /// Puts a durable file there.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        self.create(name, bytes).unwrap();
        let mut inner = self.0.lock();
        inner.inodes.last_mut().unwrap().synced = true;
        drop(inner);
        self.sync().unwrap();
    }
}

impl Disk for Model {
    type File = usize;

    fn path(&self) -> &Path {
        Path::new("/model")
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().filter(|name| !name.contains('/')).cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let inner = self.0.lock();
        Ok(inner.inodes[inner.find(name)?].bytes.clone())
    }

    fn create(&self, name: &str, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.0.lock();
        let inode = inner.inodes.len();
        inner.inodes.push(Inode { bytes: bytes.to_vec(), synced: false });
        inner.change(vec![(name.to_owned(), Some(inode))]);
        Ok(inode)
    }

    fn sync_file(&self, file: &usize) -> io::Result<()> {
        self.0.lock().inodes[*file].synced = true;
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.lock().rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.0.lock();
        inner.find(name)?;
        inner.change(vec![(name.to_owned(), None)]);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let inner = &mut *self.0.lock();
        inner.durable.clone_from(&inner.names);
        inner.since.clear();
        Ok(())
    }

    fn set_aside(&self, name: &str, to: &str) -> io::Result<()> {
        let to = format!("{DAMAGED}/{to}");
        let mut inner = self.0.lock();
        if inner.names.contains_key(&to) { Err(io::ErrorKind::AlreadyExists.into()) } else { inner.rename(name, &to) }
    }
}
