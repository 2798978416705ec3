use proptest::prelude::*;

use super::*;

/// Every magic at its place, so that hostile bytes come as far as what is behind it.
const MAGICS: &[(u64, &[u8])] = &[
    (0, b"XFSB"),
    (0x1_0040, b"_BHRfS_M"),
    (1024, b"\x10\x20\xf5\xf2"),
    (0, b"hsqs"),
    (0x1_0034, b"ReIsEr2Fs"),
    (1030, b"\x34\x34"),
    (0x410, b"\x7f\x13"),
    (0x418, b"\x5a\x4d"),
    (0x438, b"\x53\xef"),
    (4086, b"SWAPSPACE2"),
    (512, b"LABELONE"),
    (536, b"LVM2 001"),
    (0, b"LUKS\xba\xbe\x00\x02"),
    (4096, &0xa92b_4efc_u32.to_le_bytes()),
    (128 << 10, &0x00ba_b10c_u64.to_le_bytes()),
    (129 << 10, &0x00ba_b10c_u64.to_le_bytes()),
    (130 << 10, &0x00ba_b10c_u64.to_be_bytes()),
    (131 << 10, &0x00ba_b10c_u64.to_be_bytes()),
    (3, b"NTFS    "),
    (3, b"EXFAT   "),
    (3, b"mkfs.fat\x00\x02\x04\x01\x00\x02"),
    (21, b"\xf8"),
    (0x52, b"FAT32   "),
    (0x8001, b"CD001"),
    (0x8801, b"CD001"),
    (0x8801, b"NSR02"),
    (0x2_0000, b"\x02\x00"),
    (510, b"\x55\xaa"),
    (446, b"\x00"),
    (450, b"\x05"),
    (462, b"\x80"),
    (478, b"\x00"),
    (494, b"\x00"),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn hostile_bytes_are_only_bytes(
        seed in any::<u64>(),
        size in prop_oneof![0_u64..2000, 500_u64..600_000],
        laid in proptest::collection::vec(0..MAGICS.len(), 0..12),
        fill in 0..3_u8,
        fails in 0..8_u64,
    ) {
        let mut state = seed | 1;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u32
        };
        let mut disk: Vec<u8> = (0..size).map(|_| match fill { 0 => 0, 1 => 0xff, _ => random() as u8 }).collect();
        if fill < 2 {
            // A few numbers that say something.
            for _ in 0..64 {
                let at = random() as usize % (disk.len() + 1);
                if let Some(byte) = disk.get_mut(at) { *byte = random() as u8; }
            }
        }
        for (at, magic) in laid.iter().map(|index| MAGICS[*index]) {
            let at = at as usize;
            if let Some(place) = disk.get_mut(at..at + magic.len()) { place.copy_from_slice(magic); }
        }
        let mut asked = 0;
        let mut read = |at: u64, count: usize| {
            asked += 1;
            assert!(at + count as u64 <= size, "beyond the end");
            (fails == 0 || asked % fails != 0).then(|| disk[at as usize..at as usize + count].to_vec())
        };
        let found = probe(size, &mut read);
        prop_assert!(found.is_sorted_by_key(|one| one.offset));
    }
}

#[test]
fn nothing_is_found_where_nothing_is() {
    for size in [0, 1, 511, 512, 4096, 1 << 20] {
        let mut read = |_: u64, count: usize| Some(vec![0; count]);
        assert_eq!(probe(size, &mut read), [], "{size}");
        assert_eq!(probe(size, &mut |_, _| None), [], "{size}, unreadable");
    }
}

#[test]
fn a_uuid_is_printed_as_blkid_prints_it() {
    let bytes: Vec<u8> = (1..=16).collect();
    assert_eq!(uuid(&bytes).as_deref(), Some("01020304-0506-0708-090a-0b0c0d0e0f10"));
    assert_eq!((uuid(&[0; 16]), uuid(&[1; 3])), (None, None));
    assert_eq!(text(b"a b \0c").as_deref(), Some("a b"));
    assert_eq!(wide_text(b"a\0b\0\0\0c\0", u16::from_le_bytes).as_deref(), Some("ab"));
}
