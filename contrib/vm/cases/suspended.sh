#!/usr/bin/env bash
# A destination that hangs (dmsetup suspend) in mid-copy: the tree answers, the status says that it stalls, other jobs go on.
# It goes on when the device does; cancel takes effect; SIGTERM ends the daemon within 5 s, and the next one goes on.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((16 * MIB))
ram 3 $size
noise /dev/ram0 0 $size
echo "0 $size linear /dev/ram1 0" | map dst
started

hang() {
    taken from=/dev/ram0 to=/dev/mapper/dst speed_max=4M
    until_true 20 is_over copied $((1024 * 1024))
    dmsetup suspend --nolockfs --noflush dst
    until_true 20 is_over stalled_usec 1000000 || fail 'stalled_usec grows' "$(stuck)"
}

hang
hung=$id
taken from=/dev/ram0 to=/dev/ram2
ended || fail 'another job: it ends' "$(stuck)"
is 'another job: done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
id=$hung
timeout 10 grep -r . "$tree/jobs" "$tree/summary" "$tree/engine" "$tree/metrics" >/run/grep 2>&1
unlike 'the tree answers' '^124$' $?
is 'no error is told of it' 'running read_err 0 write_err 0x0 errors []' "$(verdict)"
dmsetup resume dst
echo max >"$tree/jobs/$id/speed_max"
ended || fail 'resumed: it ends' "$(stuck)"
is 'resumed: done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
same 'resumed: the same bytes' /dev/ram0 0 /dev/ram1 0 $size

fill /dev/ram1 0 $size 252
hang
timeout 5 bash -c "echo cancel >$tree/jobs/$id/control"
is 'cancel is taken at once' 0 $?
dmsetup resume dst
ended || fail 'cancelled: it ends' "$(stuck)"
is 'cancelled' cancelled "$(field state)"
holds 'cancelled: the rest keeps its bytes' /dev/ram1 $((size - 4 * MIB)) $((4 * MIB)) 252

hang
begin=$SECONDS
pkill -TERM -x program
gone() { ! mountpoint -q "$tree"; }
until_true 10 gone
at_most 'SIGTERM: seconds until the mount is gone' 6 $((SECONDS - begin))
start
is 'SIGTERM: the next daemon starts' '0 ' "$? $(</run/start-says)"
dmsetup resume dst
until_true 10 test -e "$tree/jobs/$id/speed_max"
echo max >"$tree/jobs/$id/speed_max"
ended || fail 'after SIGTERM: it ends' "$(stuck)"
is 'after SIGTERM: done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
same 'after SIGTERM: the same bytes' /dev/ram0 0 /dev/ram1 0 $size
