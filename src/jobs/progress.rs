//! A job's figures, as pieces and flushes come in. Pure.
//!
//! # Invariants
//! * `copied` and every `durable` only grow, and `durable <= copied <= total`.
//! * A destination that was given up counts nothing any more.

use super::view::{BadRange, DestState};
use crate::dm_io::ErrorBits;
use crate::error::errno_name;
use crate::kcopyd::Piece;
use crate::sector::Sector;
use crate::spec::{RegionSpec, Spec};

/// One destination's figures.
#[derive(Clone, Debug, Default)]
pub(super) struct Dest {
    pub(super) copied: u64,
    pub(super) durable: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<(i32, Sector)>,
}

/// The figures of a job.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) total: u64,
    pub(super) copied: u64,
    pub(super) durable: u64,
    pub(super) bad_bytes: u64,
    pub(super) read_err: bool,
    pub(super) write_err: ErrorBits,
    pub(super) dests: Box<[Dest]>,
    pub(super) bad: Vec<BadRange>,
    /// The first thing that went wrong, in a line that names path, sector and errno.
    pub(super) error: Option<String>,
    /// Go on writing to a destination that failed.
    keeps_failed: bool,
}

/// What was copied when a flush began.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    copied: u64,
    dests: Box<[u64]>,
}

impl Progress {
    pub(super) fn new(spec: &Spec, count: Sector) -> Self {
        Self {
            total: count.bytes(),
            copied: 0,
            durable: 0,
            bad_bytes: 0,
            read_err: false,
            write_err: ErrorBits::NONE,
            dests: vec![Dest::default(); spec.to.len()].into_boxed_slice(),
            bad: Vec::new(),
            error: None,
            keeps_failed: spec.ignore_error && !spec.write_seq,
        }
    }

    /// Destinations that take part.
    pub(super) fn live(&self) -> ErrorBits {
        let all = ErrorBits::first(self.dests.len());
        if self.keeps_failed { all } else { all.without(self.write_err) }
    }

    /// A piece has ended.
    pub(super) fn piece(&mut self, spec: &Spec, piece: &Piece<'_>) {
        let before = self.live();
        if let (Some(errno), Some(from)) = (piece.read_error, &spec.from) {
            self.read_err = true;
            self.bad_bytes += piece.count.bytes();
            self.fail("read", from, None, piece, errno);
        }
        for (index, errno) in piece.write_errors {
            if before.contains(*index) {
                self.fail("write", &spec.to[*index], Some(*index), piece, *errno);
            }
        }
        if piece.read_error.is_some() {
            return;
        }
        let live = self.live();
        let bytes = piece.count.bytes();
        for index in piece.written.iter().filter(|index| live.contains(*index)) {
            self.dests[index].copied += bytes;
        }
        if !live.is_empty() && live.without(piece.written).is_empty() {
            self.copied += bytes;
        }
    }

    fn fail(&mut self, verb: &str, region: &RegionSpec, dest: Option<usize>, piece: &Piece<'_>, errno: i32) {
        let sector = region.sector.checked_add(piece.offset).unwrap_or(Sector::MAX);
        self.add_bad(BadRange { dest, sector, count: piece.count, errno });
        if let Some(index) = dest {
            self.fail_dest(index, errno, sector);
        }
        let path = region.path.to_string_lossy();
        self.error.get_or_insert_with(|| {
            let (name, count) = (errno_name(errno), piece.count);
            format!("{verb} {path}: {name} in the {count} sectors from {sector}")
        });
    }

    fn fail_dest(&mut self, index: usize, errno: i32, sector: Sector) {
        self.write_err.set(index);
        let dest = &mut self.dests[index];
        dest.errors += 1;
        dest.first_error.get_or_insert((errno, sector));
    }

    /// Enters a range, as part of its neighbours where they are alike.
    fn add_bad(&mut self, mut new: BadRange) {
        let end = |range: &BadRange| range.sector.checked_add(range.count);
        let alike = |a: &BadRange, b: &BadRange| a.dest == b.dest && a.errno == b.errno && end(a) == Some(b.sector);
        let place = self.bad.partition_point(|old| (old.dest, old.sector) < (new.dest, new.sector));
        if self.bad.get(place).is_some_and(|next| alike(&new, next)) {
            let next = self.bad.remove(place);
            new.count = new.count.checked_add(next.count).unwrap_or(new.count);
        }
        match place.checked_sub(1).and_then(|before| self.bad.get_mut(before)) {
            Some(before) if alike(before, &new) => {
                before.count = before.count.checked_add(new.count).unwrap_or(new.count);
            }
            _ => self.bad.insert(place, new),
        }
    }

    /// A flush begins: what it will cover.
    pub(super) fn mark(&self) -> Mark {
        Mark { copied: self.copied, dests: self.dests.iter().map(|dest| dest.copied).collect() }
    }

    /// A flush has ended; `asked` were flushed, `failed` of them failed. Returns those that are given up for it.
    pub(super) fn flushed(&mut self, spec: &Spec, mark: &Mark, asked: ErrorBits, failed: &[(usize, i32)]) -> ErrorBits {
        let mut bad = ErrorBits::NONE;
        for (index, errno) in failed {
            bad.set(*index);
            let region = &spec.to[*index];
            self.fail_dest(*index, *errno, region.sector);
            let path = region.path.to_string_lossy();
            self.error.get_or_insert_with(|| format!("flush {path}: {}", errno_name(*errno)));
        }
        let good = asked.without(bad);
        for index in good.iter() {
            let dest = &mut self.dests[index];
            dest.durable = dest.durable.max(mark.dests[index]);
        }
        let live = self.live();
        if !live.is_empty() && live.without(good).is_empty() {
            self.durable = self.durable.max(mark.copied);
        }
        if self.keeps_failed { ErrorBits::NONE } else { bad }
    }

    /// How a destination stands: when the job has ended, it has everything that could be read, or it failed.
    pub(super) fn dest_state(&self, index: usize, ended: bool) -> DestState {
        let failed = self.write_err.contains(index);
        let whole = self.dests[index].durable + self.bad_bytes == self.total;
        match (ended, failed) {
            (false, true) if self.keeps_failed => DestState::Active,
            (false, false) => DestState::Active,
            (true, false) if whole => DestState::Done,
            _ => DestState::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sectors(number: u64) -> Sector {
        Sector::new(number).unwrap()
    }

    fn spec(dests: usize) -> Spec {
        let region = |path: &str, sector| RegionSpec { path: path.into(), sector: sectors(sector), count: None };
        let to = (0..dests).map(|index| region(&format!("/d{index}"), 1000)).collect();
        Spec { from: Some(region("/s", 500)), to, ..Spec::default() }
    }

    fn piece(offset: u64, written: u64, write_errors: &[(usize, i32)]) -> Piece<'_> {
        let written = ErrorBits::from_bits(written);
        Piece {
            offset: sectors(offset),
            count: sectors(8),
            read_error: None,
            written,
            write_errors,
            different: ErrorBits::NONE,
        }
    }

    #[test]
    fn a_dropped_destination_holds_the_others_back_no_longer() {
        let spec = spec(2);
        let mut progress = Progress::new(&spec, sectors(32));
        progress.piece(&spec, &piece(0, 3, &[]));
        progress.piece(&spec, &piece(8, 1, &[(1, libc::EIO)]));
        progress.piece(&spec, &piece(16, 3, &[]));
        progress.piece(&spec, &piece(24, 1, &[]));
        assert_eq!((progress.copied, progress.write_err.bits()), (32 * 512, 2));
        assert_eq!((progress.dests[0].copied, progress.dests[1].copied), (32 * 512, 8 * 512));
        assert_eq!(progress.dests[1].first_error, Some((libc::EIO, sectors(1008))));
        assert_eq!(progress.error.as_deref(), Some("write /d1: EIO in the 8 sectors from 1008"));
    }

    #[test]
    fn ignoring_errors_counts_only_what_all_have() {
        let spec = Spec { ignore_error: true, ..spec(2) };
        let mut progress = Progress::new(&spec, sectors(24));
        progress.piece(&spec, &piece(0, 3, &[]));
        progress.piece(&spec, &piece(8, 1, &[(1, libc::EIO)]));
        progress.piece(&spec, &Piece { read_error: Some(libc::ENODATA), ..piece(16, 3, &[]) });
        assert_eq!((progress.copied, progress.bad_bytes), (8 * 512, 8 * 512));
        assert_eq!((progress.dests[0].copied, progress.dests[1].copied), (16 * 512, 8 * 512));
        assert!(progress.read_err);
    }

    #[test]
    fn only_what_was_written_before_the_flush_is_durable() {
        let spec = spec(2);
        let mut progress = Progress::new(&spec, sectors(24));
        progress.piece(&spec, &piece(0, 3, &[]));
        let (mark, asked) = (progress.mark(), progress.live());
        progress.piece(&spec, &piece(8, 3, &[]));
        assert!(progress.flushed(&spec, &mark, asked, &[]).is_empty());
        assert_eq!((progress.durable, progress.copied), (8 * 512, 16 * 512));
        let mark = progress.mark();
        assert_eq!(progress.flushed(&spec, &mark, asked, &[(0, libc::EIO)]).bits(), 1);
        assert_eq!((progress.dests[0].durable, progress.dests[1].durable), (8 * 512, 16 * 512));
        assert_eq!(progress.durable, 16 * 512, "of the one that is left");
        assert_eq!(progress.error.as_deref(), Some("flush /d0: EIO"));
    }

    #[test]
    fn bad_ranges_that_touch_are_one() {
        let spec = spec(1);
        let mut progress = Progress::new(&spec, sectors(8000));
        for offset in [16, 0, 8, 80, 24] {
            let read_error = Some(libc::EIO);
            progress.piece(&spec, &Piece { read_error, ..piece(offset, 0, &[]) });
        }
        let ranges: Vec<_> = progress.bad.iter().map(|range| (range.sector.get(), range.count.get())).collect();
        assert_eq!(ranges, [(500, 32), (580, 8)]);
    }
}
