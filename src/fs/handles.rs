//! Open files: what each keeps between open(2) and the last close(2).
//!
//! # Invariants
//! A handle's number is not used again before the kernel has released it. A file's text is made when it is read at offset
//! 0 and kept for that open file, so that reads in parts agree with each other.

use std::sync::Arc;

use parking_lot::Mutex;
use slab::Slab;

use super::access::Caller;
use super::check::Check;
use super::inode::Key;
use super::jobs_new::Specs;
use super::kept::{Charge, Kept};
use super::walk::Entry;
use super::{events, wait};

/// An open file.
pub(super) struct Open {
    /// Which file.
    pub(super) key: Key,
    /// Who opened it.
    pub(super) opener: Caller,
    /// What it keeps.
    pub(super) content: Content,
}

/// What an open file keeps.
pub(super) enum Content {
    /// A directory's names.
    Dir(Mutex<Listing>),
    /// The text of the last read at offset 0.
    Text(Text),
    /// Lines and replies.
    Specs(Specs),
    /// Lines, and what would become of them.
    Check(Check),
    /// How far it has read.
    Events(Mutex<events::Cursor>),
    /// The job, and how far it is told.
    Wait(Arc<wait::File>),
}

/// A text, once it was made.
#[derive(Default)]
pub(super) struct Text(Mutex<Option<Arc<Kept>>>);

impl Text {
    /// The same where it need not be made, and nobody is making it now: never waits.
    pub(super) fn kept(&self, offset: u64, size: usize) -> Option<Vec<u8>> {
        let kept = self.0.try_lock().filter(|_| offset > 0)?;
        Some(part(kept.as_deref()?, offset, size))
    }

    /// At most `size` bytes from `offset` on; at offset 0, and where there is no text yet, `make` makes it.
    pub(super) fn read<E>(
        &self,
        offset: u64,
        size: usize,
        make: impl FnOnce() -> Result<Arc<Kept>, E>,
    ) -> Result<Vec<u8>, E> {
        let mut kept = self.0.lock();
        if offset == 0 || kept.is_none() {
            *kept = Some(make()?);
        }
        Ok(kept.as_deref().map_or(Vec::new(), |text| part(text, offset, size)))
    }
}

fn part(text: &Kept, offset: u64, size: usize) -> Vec<u8> {
    let text = text.bytes();
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
    let to = from.saturating_add(size).min(text.len());
    text[from..to].to_vec()
}

/// What a directory held when it was last read from its beginning.
#[derive(Default)]
pub(super) struct Listing {
    /// Its names, in the order of their cursors.
    pub(super) entries: Arc<[Entry]>,
    /// Their memory, counted.
    pub(super) _charge: Option<Charge>,
}

/// All open files, by number.
#[derive(Default)]
pub(super) struct Handles {
    table: Mutex<Slab<Arc<Open>>>,
}

impl Handles {
    /// A number for an open file.
    pub(super) fn insert(&self, open: Open) -> u64 {
        self.table.lock().insert(Arc::new(open)) as u64
    }

    /// The open file of a number.
    pub(super) fn get(&self, file: u64) -> Option<Arc<Open>> {
        self.table.lock().get(usize::try_from(file).ok()?).map(Arc::clone)
    }

    /// Forgets an open file.
    pub(super) fn remove(&self, file: u64) -> Option<Arc<Open>> {
        self.table.lock().try_remove(usize::try_from(file).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::fs::kept::Store;

    #[test]
    fn a_text_is_made_at_offset_0_and_kept() {
        let store = Store::default();
        let made = |text: &str| {
            let text = text.to_owned().into_bytes();
            let kept = store.text(Key::ROOT, Instant::now(), true, || Some(text)).unwrap();
            Ok::<_, ()>(kept.unwrap())
        };
        let text = Text::default();
        assert_eq!(text.read(0, 3, || made("first")).unwrap(), b"fir");
        assert_eq!(text.read::<()>(3, 9, || panic!("kept")).unwrap(), b"st");
        assert_eq!(text.read::<()>(99, 9, || panic!("kept")).unwrap(), b"");
        assert_eq!(text.read(0, 9, || made("second")).unwrap(), b"second");
        assert!(text.read(0, 9, || Err(())).is_err());
        assert_eq!(text.read::<()>(2, 9, || panic!("kept")).unwrap(), b"cond");
        assert_eq!(Text::default().read(2, 9, || made("pread")).unwrap(), b"ead");
    }

    #[test]
    fn what_is_kept_is_read_without_waiting_for_who_makes_it() {
        let text = Text::default();
        let made = || {
            assert_eq!(text.kept(3, 9), None, "somebody makes it");
            let kept = Store::default().text(Key::ROOT, Instant::now(), true, || Some(b"first".to_vec())).unwrap();
            Ok::<_, ()>(kept.unwrap())
        };
        assert_eq!(text.kept(3, 9), None, "there is none");
        assert_eq!(text.read(0, 3, made).unwrap(), b"fir");
        assert_eq!((text.kept(3, 9), text.kept(9, 9)), (Some(b"st".to_vec()), Some(Vec::new())));
        assert_eq!(text.kept(0, 3), None, "at its beginning it is made anew");
    }
}
