#!/usr/bin/env bash
# A read error is in `errors` also where a write error of another piece ends the job.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((16 * MIB))
ram 2 $size
noise /dev/ram0 0 $size
started

met=0
for pair in '1500 10' '10 1500' '2100 1100' '3000 6000' '6000 3000' '7000 10'; do
    read -r read_at write_at <<<"$pair"
    bad src /dev/ram0 "$read_at+1"
    bad dst /dev/ram1 "$write_at+1"
    name="source bad at $read_at, destination at $write_at"
    taken from=/dev/mapper/src to=/dev/mapper/dst
    ended || fail "$name: it ends" "$(stuck)"
    if [[ $(field read_err) == 1 ]]; then
        met=$((met + 1))
        like "$name: errors tells the read" 'read [0-9]+ [0-9]+ EIO' "$(verdict)"
    fi
    [[ $(field write_err) == 0x0 ]] || like "$name: errors tells the write" 'write 0 [0-9]+ [0-9]+ EIO' "$(verdict)"
    dmsetup remove src
    dmsetup remove dst
done
at_least 'jobs with read_err' 1 $met
