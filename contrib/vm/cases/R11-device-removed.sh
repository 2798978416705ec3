#!/usr/bin/env bash
# A SCSI disk that is removed in mid-copy is told as ENODEV or ENXIO, as a destination and as a source; the other destination
# gets every byte.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((24 * MIB))
ram 2 $size
noise /dev/ram0 0 $size
started

take_away() {
    until_true 20 is_over copied $((2 * 1024 * 1024))
    echo 1 >"/sys/block/${disk##*/}/device/delete"
    echo max >"$tree/jobs/$id/speed_max"
}

scsi 24
taken from=/dev/ram0 "to=$disk" to=/dev/ram1 speed_max=4M
take_away
ended || fail 'destination: it ends' "$(stuck)"
like 'destination: the verdict' '^(degraded|failed) read_err 0 write_err 0x1' "$(verdict)"
is 'destination: it failed, the other is done' 'failed done' "$(dest 0 state) $(dest 1 state)"
like 'destination: errno' '^(ENODEV|ENXIO)$' "$(dest 0 errno)"
unlike 'destination: nothing says that there is no space' ENOSPC "$(grep -rhos 'ENOSPC.*' "$tree/jobs/$id")"
same 'destination: the other has every byte' /dev/ram0 0 /dev/ram1 0 $size
rmmod scsi_debug || broken 'the disk stays'

# Alone, and with the words that go on after errors.
for words in on_write_error=stop ignore_error 'verify retries=1' write_seq sparse; do
    scsi 24
    # shellcheck disable=SC2086 # several words
    taken from=/dev/ram0 "to=$disk" speed_max=4M $words
    take_away
    ended || fail "destination, $words: it ends" "$(stuck)"
    like "destination, $words: errno" '^(ENODEV|ENXIO)$' "$(dest 0 errno)"
    unlike "destination, $words: nothing says that there is no space" ENOSPC "$(grep -rhos 'ENOSPC.*' "$tree/jobs/$id")"
    rmmod scsi_debug || broken 'the disk stays'
done

scsi 24
noise "$disk" 0 $size
fill /dev/ram1 0 $size 252
taken "from=$disk" to=/dev/ram1 speed_max=4M
take_away
ended || fail 'source: it ends' "$(stuck)"
like 'source: the verdict' '^failed read_err 1' "$(verdict)"
like 'source: errno' 'ENODEV|ENXIO' "$(field error)"
holds 'source: the rest keeps its bytes' /dev/ram1 $((size - 8 * MIB)) $((8 * MIB)) 252
