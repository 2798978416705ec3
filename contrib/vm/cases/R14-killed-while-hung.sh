#!/usr/bin/env bash
# io=threads, and kill -9 while a device hangs: the killed process keeps the state directory until the device answers. The
# next start says so, and what helps; when the device answers, the job goes on.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh
daemon_io=threads

size=$((16 * MIB))
ram 2 $size
noise /dev/ram0 0 $size
echo "0 $size linear /dev/ram1 0" | map dst
started
taken from=/dev/ram0 to=/dev/mapper/dst speed_max=4M
until_true 20 is_over copied $((1024 * 1024))
dmsetup suspend --nolockfs --noflush dst
until_true 20 is_over stalled_usec 500000
kill_daemon
if start; then
    pass 'the next daemon starts'
else
    says=$(</run/start-says)
    unlike 'the message does not ask for what nobody can do' 'stop that one' "$says"
    like 'the message says that it was killed and what keeps it' 'which was killed and is kept by' "$says"
    like 'the message names the device and says what helps' '/dev/mapper/dst: it ends when that answers or is removed' "$says"
fi
dmsetup resume dst
until_true 10 start || broken "no start after the device answers: $(</run/start-says)"
until_true 10 test -e "$tree/jobs/$id/speed_max"
echo max >"$tree/jobs/$id/speed_max"
ended || fail 'it goes on: it ends' "$(stuck)"
is 'it goes on: done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
same 'it goes on: the same bytes' /dev/ram0 0 /dev/ram1 0 $size
