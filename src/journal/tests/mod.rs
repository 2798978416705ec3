//! The store by what it promises: text that comes back, directories in any state, and faults at every step.

use std::time::{Duration, UNIX_EPOCH};

use super::state::State;
use super::*;
use crate::figures::{BadKind, BadRange, Speeds};
use crate::sector::Sector;

mod crash;
mod folder;
mod kill;
mod text;

/// The job of that number as it stood at some moment of its life, told by `generation`.
fn record(id: JobId, generation: u64) -> Record {
    let sector = |number| Sector::new(number).unwrap();
    let side = Side {
        identity: format!("serial:disk-{id};sectors=4096"),
        card: format!("size=2097152 model=WDC\\040WD40 serial=disk-{id}"),
        bytes: format!("0+4096@0:serial:disk-{id}"),
        overwritten: vec![(generation, generation + 1)],
        durable: vec![(0, generation), (generation + 8, generation + 16)],
        errors: 1,
        first_error: Some((libc::EIO, sector(generation))),
        dropped: false,
        doubted: generation % 3 == 1,
        failed: generation % 2 == 1,
        copied: generation * 512,
        taken: vec![(0, generation)],
        zeroed: vec![(8, 16)],
    };
    Record {
        id,
        created: UNIX_EPOCH + Duration::new(1_763_612_345, 678_000_000),
        progressed: UNIX_EPOCH + Duration::new(1_763_612_357, 500_000_000),
        started: Some(UNIX_EPOCH + Duration::new(1_763_612_346, 0)),
        ended: None,
        spec: b"copy from=/dev/sda,0,4096 to='/srv/a b\xff\\',0,4096".to_vec(),
        state: State::ALL[usize::try_from(generation).unwrap() % State::ALL.len()],
        error: Some("write /dev/sdb: EIO in the 8 sectors from 1008".to_owned()),
        read_err: true,
        write_err: 1 << 63 | 1,
        followed: true,
        leader: None,
        claimed: generation.is_multiple_of(2),
        total: generation,
        common: vec![(0, generation)],
        durable: generation * 512,
        bad_bytes: 4096,
        read_errors: 3,
        verified_bytes: 512,
        same: vec![(0, 8)],
        seed: Some(u64::MAX),
        elapsed: Duration::from_nanos(1_234_567_890),
        final_speed: 5_000_000,
        speeds: Speeds::recorded(250, vec![7, 0, 0, 0, 10 << 10]).expect("few samples"),
        digest: Some("sha256:00ff".to_owned()),
        verified: true,
        source: Some(Side::default()),
        dests: vec![side; 2],
        bad: vec![BadRange {
            dest: None,
            kind: BadKind::Failed,
            sector: sector(8),
            count: sector(8),
            errno: libc::EIO,
        }],
        unreadable: vec![(8, 16)],
    }
}

/// What tells the generations of a record apart.
fn generation(record: &Record) -> u64 {
    assert_eq!(*record, super::tests::record(record.id, record.total), "neither the old nor the new record");
    record.total
}

/// Numbers that look random and come again with their seed.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ mixed >> 31) % limit as u64) as usize
    }
}
