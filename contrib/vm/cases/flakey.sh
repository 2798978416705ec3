#!/usr/bin/env bash
# A destination that answers EIO for a while: it is given up and told; when it is well again, `retry` finishes the job.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((16 * MIB))
ram 3 $size
noise /dev/ram0 0 $size
need dm-flakey
echo "0 $size linear /dev/ram1 0" | map dst
started

# Puts another table below the map.
becomes() { # TARGET...
    echo "0 $size $*" | dmsetup reload dst
    dmsetup suspend --nolockfs --noflush dst
    dmsetup resume dst
}

for fault in '' '1 error_writes'; do
    fill /dev/ram1 0 $size 252
    becomes linear /dev/ram1 0
    taken from=/dev/ram0 to=/dev/mapper/dst to=/dev/ram2 speed_max=1M
    until_true 20 is_over copied $((2 * 1024 * 1024))
    # shellcheck disable=SC2086 # several words
    becomes flakey /dev/ram1 0 0 600 $fault
    until_true 20 is_over write_err 0
    echo max >"$tree/jobs/$id/speed_max"
    ended || fail "${fault:-all fails}: it ends" "$(stuck)"
    like "${fault:-all fails}: degraded, the first failed" '^degraded read_err 0 write_err 0x1 errors \[write 0' "$(verdict)"
    is "${fault:-all fails}: the destinations" 'failed EIO done -' "$(dest 0 state) $(dest 0 errno) $(dest 1 state) $(dest 1 errno)"
    same "${fault:-all fails}: the other has every byte" /dev/ram0 0 /dev/ram2 0 $size
    becomes linear /dev/ram1 0
    echo retry >"$tree/jobs/$id/control"
    ended || fail "${fault:-all fails}, retry: it ends" "$(stuck)"
    is "${fault:-all fails}, retry: done" 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
    same "${fault:-all fails}, retry: the same bytes" /dev/ram0 0 /dev/ram1 0 $size
done

# Corrupt reads back: verify finds it.
becomes flakey /dev/ram1 0 0 600 5 corrupt_bio_byte 33 r 255 0
taken from=/dev/ram0 to=/dev/mapper/dst verify
# Every block reads wrong, and each is a range of its own.
ended || fail 'corrupt reads: it ends' "$(stuck)"
is 'corrupt reads: mismatch' 'failed mismatch' "$(field state) $(dest 0 state)"
