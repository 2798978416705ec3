#!/usr/bin/env bash
# A sparse copy to a host-managed zoned disk is whole, also where zeros are a part of a piece: the pieces' parts are written
# in order.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((32 * MIB))
ram 1 $size
zoned zone $size
started

# Zeros in a piece's middle, at its beginning, at its end, over several pieces and over several zones.
noise /dev/ram0 0 $size
for range in 3000+500 5120+64 7000+168 10200+9000 30000+20000; do
    fill /dev/ram0 "${range%+*}" "${range#*+}" 000
done
for words in sparse 'sparse verify'; do
    blkzone reset /dev/zone
    # shellcheck disable=SC2086 # several words
    taken from=/dev/ram0 to=/dev/zone $words
    ended || fail "$words: it ends" "$(stuck)"
    is "$words: done" 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
    same "$words: the same bytes" /dev/ram0 0 /dev/zone 0 $size
done
