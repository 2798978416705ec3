#!/usr/bin/env bash
# write_seq and an unreadable sector, default words: what comes before the bad piece is copied, and nothing after it is, also
# where the bad piece answers first.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((16 * MIB)) before=$((6000 / 1024 * 1024))
ram 2 $size
noise /dev/ram0 0 $size
need dm-delay
bad fast /dev/ram0 6000+1
printf '%s\n' "0 2048 delay /dev/ram0 0 500" "2048 $((size - 2048)) linear /dev/mapper/fast 2048" | map slow
started
for src in fast slow; do
    fill /dev/ram1 0 $size 252
    taken from=/dev/mapper/$src to=/dev/ram1 write_seq
    ended || fail "$src: it ends" "$(stuck)"
    like "$src: failed" '^failed read_err 1 write_err 0x0 errors \[read [0-9]+ [0-9]+ EIO\]' "$(verdict)"
    at_least "$src: copied" $((before * 512)) "$(field copied)"
    same "$src: what comes before" /dev/ram0 0 /dev/ram1 0 $before
    holds "$src: nothing after it" /dev/ram1 $((before + 1024)) $((size - before - 1024)) 252
done
