#!/usr/bin/env bash
# A SCSI disk with a medium error: the bad sectors alone are lost and told, with the errno that the kernel gives (ENODATA).
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((16 * MIB)) from=0x1234 count=10
scsi 16 medium_error_start=$((from)) medium_error_count=$count
opts=/sys/bus/pseudo/drivers/scsi_debug/opts
noise "$disk" 0 $size
ram 2 $size
dd if="$disk" of=/dev/ram1 bs=64K status=none
echo 2 >$opts
started

for words in on_read_error=zero on_read_error=skip; do
    fill /dev/ram0 0 $size 252
    taken "from=$disk" to=/dev/ram0 $words
    ended || fail "$words: it ends" "$(stuck)"
    is "$words: the verdict" "degraded read_err 1 write_err 0x0 errors [read $((from)) $count ENODATA]" "$(verdict)"
    is "$words: bad_bytes" $((count * 512)) "$(field bad_bytes)"
    same "$words: before them" /dev/ram1 0 /dev/ram0 0 $((from))
    byte=252
    [[ $words == *zero ]] && byte=000
    holds "$words: in them" /dev/ram0 $((from)) $count $byte
    same "$words: after them" /dev/ram1 $((from + count)) /dev/ram0 $((from + count)) $((size - from - count))
done

# The disk was repaired: retry reads them.
echo 0 >$opts
echo retry >"$tree/jobs/$id/control"
ended || fail 'retry: it ends' "$(stuck)"
is 'retry: done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
same 'retry: the same bytes' /dev/ram1 0 /dev/ram0 0 $size
