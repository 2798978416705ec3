#!/usr/bin/env bash
# kill -9 in a copy to a host-managed zoned disk: the next daemon goes on, although the zones' write pointers are ahead of
# the last checkpoint.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((48 * MIB))
ram 1 $size
noise /dev/ram0 0 $size
zoned zone $size

ahead() {
    local durable
    durable=$(field durable)
    ((durable > 0 && $(field copied) > durable + 2 * 1024 * 1024))
}

for words in '' write_seq; do
    blkzone reset /dev/zone
    started
    # shellcheck disable=SC2086 # no word, or one
    taken from=/dev/ram0 to=/dev/zone speed_max=3M $words
    until_true 20 ahead || broken "no checkpoint: $(stuck)"
    kill_daemon
    started
    until_true 10 test -e "$tree/jobs/$id/speed_max"
    echo max >"$tree/jobs/$id/speed_max"
    ended || fail "${words:-plain}: it ends" "$(stuck)"
    is "${words:-plain}: done" 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
    same "${words:-plain}: the same bytes" /dev/ram0 0 /dev/zone 0 $size
    kill_daemon
    rm -rf "$state"
done
