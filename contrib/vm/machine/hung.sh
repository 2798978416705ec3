#!/usr/bin/env bash
# The service is stopped and started while a destination hangs (dmsetup suspend), in a write and in a flush: the stop ends in time, the
# next start is not kept up by what hangs, other jobs run; when the device answers, its job goes on and ends with the same bytes.
# shellcheck source=contrib/vm/machine.sh
. /ctl/machine.sh

size=$((16 * MIB))

# Stops and starts the service. TimeoutStopSec is 10 s; then systemd waits as long again for what it has killed.
again() { # NAME
    local begin=$SECONDS
    timeout 120 systemctl stop kcopyfs
    is "$1: systemctl stop" 0 $?
    at_most "$1: seconds that it took" 40 $((SECONDS - begin))
    is "$1: the mount is gone" no "$(mountpoint -q $tree && echo yes || echo no)"
    timeout 120 systemctl start kcopyfs
    is "$1: systemctl start" 0 $?
    served
    hung=$id
    taken "from=${by_id}0,0,$size" "to=${by_id}2"
    ended || fail "$1: another job ends" "$(stuck)"
    is "$1: another job" 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
    id=$hung
    unlike "$1: what hangs is not told as an end" 'done|failed|degraded|cancelled' "$(field state)"
}

goes_on() { # NAME
    dmsetup resume slow
    until_true 60 state_is running || state_is 'done' || broken "$1: $(field state) $(field error)"
    echo max >"$tree/jobs/$id/speed_max"
    ended || fail "$1: it ends" "$(stuck)"
    is "$1: done" 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
    same "$1: the same bytes" "${by_id}0" 0 "${by_id}1" 0 $size
}

served
noise "${by_id}0" 0 $size
echo "0 $size linear $(disk 1) 0" | map slow

taken "from=${by_id}0,0,$size" to=/dev/mapper/slow speed_max=256K
until_true 60 is_over durable $((1024 * 1024)) || broken "no checkpoint: $(stuck)"
dmsetup suspend --nolockfs --noflush slow
until_true 60 is_over stalled_usec 1000000 || fail 'a write hangs: the status tells it' "$(stuck)"
again 'a write hangs'
goes_on 'a write hangs'

# All is written, and the flush of the end hangs: the map lets writes through at first.
fill "${by_id}1" 0 $size 252
taken "from=${by_id}0,0,$size" to=/dev/mapper/slow speed_max=4M
until_true 60 is_over copied $((4 * 1024 * 1024)) || broken "no progress: $(stuck)"
dmsetup suspend --nolockfs --noflush slow
until_true 60 is_over stalled_usec 6000000 || fail 'a flush hangs: the status tells it' "$(stuck)"
again 'a flush hangs'
goes_on 'a flush hangs'
