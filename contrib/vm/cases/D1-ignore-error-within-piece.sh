#!/usr/bin/env bash
# ignore_error and one unreadable sector in a piece: what lies before it in the piece is copied, as the kernel does; the bad
# sector is zeros; every sector is the source's or zeros, and other pieces are whole.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((16 * MIB)) sector=5000 piece=4096
ram 2 $size
noise /dev/ram0 0 $size
fill /dev/ram1 0 $size 252
bad src /dev/ram0 $sector+1
started
taken from=/dev/mapper/src to=/dev/ram1 ignore_error
ended || fail 'it ends' "$(stuck)"
like 'read_err' 'read_err 1 write_err 0x0' "$(verdict)"
same 'the pieces before' /dev/ram0 0 /dev/ram1 0 $piece
same 'the piece, before the bad sector' /dev/ram0 $piece /dev/ram1 $piece $((sector - piece))
holds 'the bad sector' /dev/ram1 $sector 1 000
after=$((piece + 1024 - sector - 1))
if [[ -z $(difference /dev/ram0 $((sector + 1)) /dev/ram1 $((sector + 1)) $after) ]]; then
    pass 'the piece, after the bad sector: copied'
else
    holds 'the piece, after the bad sector: copied or zeros' /dev/ram1 $((sector + 1)) $after 000
fi
same 'the pieces after' /dev/ram0 $((piece + 1024)) /dev/ram1 $((piece + 1024)) $((size - piece - 1024))
