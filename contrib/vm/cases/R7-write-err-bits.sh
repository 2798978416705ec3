#!/usr/bin/env bash
# on_write_error=stop with retries: each destination that failed has its bit in write_err, its count of errors and its errno,
# and no other has a bit or a count.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((16 * MIB))
ram 4 $size
noise /dev/ram0 0 $size
started

# The same sector is bad on two, so that one piece meets both; then sectors of pieces that are in flight together.
for second in 5000 5200 7000; do
    bad dst1 /dev/ram1 5000+1
    bad dst2 /dev/ram2 $second+1
    for words in '' retries=1 retries=3; do
        name="sectors 5000 and $second bad, ${words:-no retries}"
        # shellcheck disable=SC2086 # no word, or one
        taken from=/dev/ram0 to=/dev/mapper/dst1 to=/dev/mapper/dst2 to=/dev/ram3 on_write_error=stop $words
        ended || fail "$name: it ends" "$(stuck)"
        is "$name: failed" failed "$(field state)"
        ((second == 5000)) && is "$name: write_err" 0x3 "$(field write_err)"
        bits=$(field write_err)
        for k in 0 1 2; do
            wanted=0:-
            ((bits >> k & 1)) && wanted='[1-9][0-9]*:EIO'
            like "$name: errors and errno of destination $k" "^$wanted\$" "$(dest $k errors):$(dest $k errno)"
        done
        is "$name: the good destination has no bit" 0 $((bits >> 2))
    done
    dmsetup remove dst1
    dmsetup remove dst2
done
