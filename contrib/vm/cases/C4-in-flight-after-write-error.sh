#!/usr/bin/env bash
# on_write_error=stop, as kcopyd without flags: after a write error no piece is started, and those in flight are finished. The
# source answers late for all but the first piece, so that seven others are in flight when that one fails.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((16 * MIB))
ram 2 $size
noise /dev/ram0 0 $size
fill /dev/ram1 0 $size 252
need dm-delay
printf '%s\n' "0 1024 linear /dev/ram0 0" "1024 $((size - 1024)) delay /dev/ram0 1024 1500" | map src
bad dst /dev/ram1 10+1
started subjobs=8
taken from=/dev/mapper/src to=/dev/mapper/dst on_write_error=stop
ended || fail 'it ends' "$(stuck)"
like 'failed' '^failed read_err 0 write_err 0x1 errors \[write 0 ' "$(verdict)"
same 'what was in flight is written' /dev/ram0 1024 /dev/ram1 1024 7168
holds 'nothing more is started' /dev/ram1 8192 $((size - 8192)) 252
