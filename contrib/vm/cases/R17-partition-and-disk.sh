#!/usr/bin/env bash
# A partition and its own disk as destinations of one spec are refused, and the reason names this spec, not another job.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

scsi 32 num_parts=2
until_true 10 test -b "${disk}1" || broken 'no partitions'
ram 1 $((4 * MIB))
noise /dev/ram0 0 $((4 * MIB))
begin=$(<"/sys/block/${disk##*/}/${disk##*/}1/start")
started

refused() { # NAME WORD...
    if job "${@:2}"; then
        ended
        fail "$1" "accepted, and ended as $(verdict)"
        return
    fi
    unlike "$1: no other job is blamed" 'waits for its turn|job [0-9]+' "$why"
    like "$1: both are named" "${disk}1?\\b" "$why"
}

refused 'partition, then disk' from=/dev/ram0 "to=${disk}1" "to=$disk"
refused 'disk, then partition' from=/dev/ram0 "to=$disk,$begin" "to=${disk}1"
refused 'disk to its partition' "from=$disk,$begin,2048" "to=${disk}1"
# The two partitions of a disk, and a partition and a region of the disk beside it, do not meet.
taken "from=/dev/ram0,0,2048" "to=${disk}1" "to=${disk}2"
ended
is 'two partitions' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
same 'two partitions: the first' /dev/ram0 0 "${disk}1" 0 2048
same 'two partitions: the second' /dev/ram0 0 "${disk}2" 0 2048
