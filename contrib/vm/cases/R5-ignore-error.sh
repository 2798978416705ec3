#!/usr/bin/env bash
# ignore_error with 16 unreadable pieces in a row and one bad sector on the destination: zeros are written for all of them,
# and what keeps its old bytes is told.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((16 * MIB)) lost=$((16 * 1024))
ram 2 $size
noise /dev/ram0 0 $size
bad src /dev/ram0 0+$lost
started

fill /dev/ram1 0 $size 252
bad dst /dev/ram1 10+1
taken from=/dev/mapper/src to=/dev/mapper/dst ignore_error
ended || fail 'it ends' "$(stuck)"
like 'read_err and write_err' 'read_err 1 write_err 0x1' "$(verdict)"
dmsetup remove dst
holds 'zeros in the first piece, before the bad sector' /dev/ram1 0 10 000
holds 'zeros in the first piece, after the bad sector' /dev/ram1 11 1013 000
holds 'zeros in pieces 1 to 7' /dev/ram1 1024 7168 000
holds 'zeros in pieces 8 to 15' /dev/ram1 8192 8192 000
same 'the rest is copied' /dev/ram0 $lost /dev/ram1 $lost $((size - lost))
is 'the old bytes are in the bad sector alone' 0 "$(others /dev/ram1 10 1 252)"
is 'errors tells the bad sector' 'write 0 10 1 EIO' "$(grep write "$tree/jobs/$id/errors")"
