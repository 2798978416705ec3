#!/usr/bin/env bash
# `zero write_seq` writes in ascending order: after a sector that cannot be written nothing more is written, and all before
# its piece is.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((32 * MIB)) sector=20000
piece=$((sector / 1024 * 1024))
after=$((piece + 1024))
ram 1 $size
need dm-delay
bad fast /dev/ram0 $sector+1
# The bad piece answers late, so that whoever does not wait for it has written on meanwhile.
printf '%s\n' "0 $piece linear /dev/mapper/fast 0" "$piece 1024 delay /dev/mapper/fast $piece 500" \
    "$after $((size - after)) linear /dev/mapper/fast $after" | map slow
started
fill /dev/ram0 0 $size 252
taken zero "to=/dev/mapper/slow,0,$size" write_seq
ended || fail 'it ends' "$(stuck)"
is 'failed' 'failed read_err 0 write_err 0x1' "$(verdict | sed 's/ errors.*//')"
holds 'zeros before the bad piece' /dev/ram0 0 $piece 000
holds 'nothing after it' /dev/ram0 $after $((size - after)) 252
