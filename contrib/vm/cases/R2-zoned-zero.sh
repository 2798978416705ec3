#!/usr/bin/env bash
# `zero` fills the zones of a host-managed disk in order, several zones and a part of one, as the kernel's dm_kcopyd_zero does.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((32 * MIB)) part=$((18 * MIB))
zoned zone $size
started

for words in '' write_seq; do
    for count in $part $size; do
        blkzone reset /dev/zone
        # shellcheck disable=SC2086 # no word, or one
        taken zero "to=/dev/zone,0,$count" $words
        ended || fail "$count sectors, ${words:-plain}: it ends" "$(stuck)"
        is "$count sectors, ${words:-plain}: done" 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
        holds "$count sectors, ${words:-plain}: zeros" /dev/zone 0 "$count" 000
    done
    is "all zones full, ${words:-plain}" '8192 8192 8192 8192 8192 8192 8192 8192 ' "$(write_pointers /dev/zone)"
done

# From a zone's middle on, which its write pointer has reached.
blkzone reset /dev/zone
taken zero to=/dev/zone,0,3000
ended
taken zero to=/dev/zone,3000,9000
ended || fail "from a zone's middle: it ends" "$(stuck)"
is "from a zone's middle: done" 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
like "from a zone's middle: the write pointers" '^8192 3808 ' "$(write_pointers /dev/zone)"
