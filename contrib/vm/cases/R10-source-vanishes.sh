#!/usr/bin/env bash
# A source that goes away in mid-copy under on_read_error=zero stops the job or holds it: what was not read is not overwritten
# with zeros. When it is there again the job can be finished.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((24 * MIB))
ram 1 $size
for words in on_read_error=zero 'on_read_error=zero retries=2' on_read_error=skip; do
    scsi 24
    noise "$disk" 0 $size
    fill /dev/ram0 0 $size 252
    started
    # shellcheck disable=SC2086 # several words
    taken "from=$disk" to=/dev/ram0 speed_max=4M $words
    until_true 20 is_over copied $((4 * 1024 * 1024))
    echo 1 >"/sys/block/${disk##*/}/device/delete"
    echo max >"$tree/jobs/$id/speed_max"
    ended 20 || until_true 1 state_is held || until_true 1 state_is paused
    like "$words: it stops" '^(failed|held|paused)' "$(verdict)"
    unlike "$words: it does not say that there is no space" ENOSPC "$(field error)"
    holds "$words: the rest keeps its bytes" /dev/ram0 $((size - 8 * MIB)) $((8 * MIB)) 252
    kill_daemon
    rm -rf "$state"
    rmmod scsi_debug || broken 'the disk stays'
done
