#!/usr/bin/env bash
# `zero write_seq` writes in ascending order: after a sector that cannot be written nothing more is written, and all before
# its piece is.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((32 * MIB)) sector=20000
ram 1 $size
started
for round in 1 2 3; do
    fill /dev/ram0 0 $size 252
    bad dst /dev/ram0 $sector+1
    taken zero "to=/dev/mapper/dst,0,$size" write_seq
    ended || fail "round $round: it ends" "$(stuck)"
    is "round $round: failed" 'failed read_err 0 write_err 0x1' "$(verdict | sed 's/ errors.*//')"
    dmsetup remove dst
    holds "round $round: zeros before the bad piece" /dev/ram0 0 $((sector / 1024 * 1024)) 000
    holds "round $round: nothing after it" /dev/ram0 $(((sector / 1024 + 1) * 1024)) $((size - (sector / 1024 + 1) * 1024)) 252
done
