#!/usr/bin/env bash
# A sparse copy gives space back on a SCSI disk that has UNMAP and no write-zeroes that unmaps, where the disk promises zeros
# for what is unmapped (LBPRZ); where it does not, zeros are written.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((32 * MIB))
ram 1 $size
fill /dev/ram0 0 $size 000
noise /dev/ram0 0 2048
noise /dev/ram0 20480 1024

# Sectors of the disk in use.
used() {
    local sum=0 range ranges
    IFS=, read -ra ranges </sys/bus/pseudo/drivers/scsi_debug/map
    for range in "${ranges[@]}"; do
        range=${range%$'\n'}
        [[ $range ]] && sum=$((sum + ${range#*-} - ${range%-*} + 1))
    done
    echo "$sum"
}

for promises in 1 0; do
    modprobe -r scsi_debug 2>/dev/null
    scsi 32 lbpu=1 "lbprz=$promises"
    noise "$disk" 0 $size
    is "lbprz=$promises: the disk is full" $size "$(used)"
    started
    taken "from=/dev/ram0,0,$size" "to=$disk" sparse verify
    ended || fail "lbprz=$promises: it ends" "$(stuck)"
    is "lbprz=$promises: done" 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
    same "lbprz=$promises: the same bytes" /dev/ram0 0 "$disk" 0 $size
    is "lbprz=$promises: sectors in use" $((promises ? 3072 : size)) "$(used)"
    taken zero "to=$disk,0,$size" sparse
    ended || fail "lbprz=$promises: zero: it ends" "$(stuck)"
    holds "lbprz=$promises: zero: zeros" "$disk" 0 $size 000
    is "lbprz=$promises: zero: sectors in use" $((promises ? 0 : size)) "$(used)"
    kill_daemon
    rm -rf "$state"
done
