#!/usr/bin/env bash
# A thin volume whose pool does not zero new blocks (skip_block_zeroing): a block that is data in part shows what the pool held
# there before, so its zeros are written; blocks of zeros alone take no space.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((32 * MIB)) block=128
need dm-thin-pool
ram 3 $((48 * MIB))
fill /dev/ram1 0 8 000
noise /dev/ram2 0 $((48 * MIB))
echo "0 $((40 * MIB)) thin-pool /dev/ram1 /dev/ram2 $block 0 1 skip_block_zeroing" | map pool
dmsetup message pool 0 'create_thin 0'
echo "0 $size thin /dev/mapper/pool 0" | map thin

fill /dev/ram0 0 $size 000
for sector in 1000 20488 40000; do noise /dev/ram0 $sector 8; done
started
for what in new full 'in order'; do
    words=
    case $what in
        full) noise /dev/mapper/thin 0 $size ;;
        # What lies before the data in its block is looked at before the data is written.
        'in order') words=write_seq && blkdiscard /dev/mapper/thin ;;
    esac
    # shellcheck disable=SC2086 # no word, or one
    taken "from=/dev/ram0,0,$size" to=/dev/mapper/thin sparse $words
    ended || fail "$what: it ends" "$(stuck)"
    is "$what: done" 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
    same "$what: the same bytes" /dev/ram0 0 /dev/mapper/thin 0 $size
    is "$what: blocks in use" 3 "$(dmsetup status pool | awk '{ split($6, blocks, "/"); print blocks[1] }')"
done
