#!/usr/bin/env bash
# An idle daemon does not wake up, neither before its first job nor after one of each kind.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((16 * MIB))
ram 2 $size
noise /dev/ram0 0 $size
started

# A line for each thread of the daemon: its number, its name, and how often it gave up the processor.
threads() {
    awk '/^Name:/ { name = $2 } /^Pid:/ { pid = $2 } /^voluntary/ { sum = $2 } /^nonvoluntary/ { print pid, name, sum + $2 }' \
        "/proc/$(pgrep -o -x program)"/task/*/status
}

# Nobody touches the tree while this counts: time is what is measured. A thread that ends counts too, after a while to settle.
idle() { # NAME
    sleep 8
    threads >/run/before
    sleep 12
    threads >/run/after
    is "$1" '' "$(diff /run/before /run/after | tr '\n' ' ')"
}

idle 'before the first job'
taken from=/dev/ram0 to=/dev/ram1 verify sparse
ended
taken zero "to=/dev/ram1,0,$size"
ended
taken from=/dev/ram0 to=/tmp/image create sparse
ended
idle 'after jobs'
