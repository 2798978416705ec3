#!/usr/bin/env bash
# A destination that loses every write: verify finds it, and then the status claims nothing of what verify refuted.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((16 * MIB))
ram 3 $size
noise /dev/ram0 0 $size
fill /dev/ram1 0 $size 252
need dm-flakey
echo "0 $size flakey /dev/ram1 0 0 600 1 drop_writes" | map liar
started

taken from=/dev/ram0 to=/dev/mapper/liar verify
ended || fail 'alone: it ends' "$(stuck)"
is 'alone: failed' failed "$(field state)"
is 'alone: the destination' 'state=mismatch copied=0 durable=0' "$(sed -n 's/^0 \(state=[^ ]* copied=[^ ]* durable=[^ ]*\).*/\1/p' \
    "$tree/jobs/$id/dests")"
is 'alone: the status claims nothing' '0 0 0.00' "$(field copied) $(field durable) $(field percent)"

taken from=/dev/ram0 to=/dev/mapper/liar to=/dev/ram2 verify
ended || fail 'with a good one: it ends' "$(stuck)"
is 'with a good one: the destinations' 'mismatch done' "$(dest 0 state) $(dest 1 state)"
same 'with a good one: that has every byte' /dev/ram0 0 /dev/ram2 0 $size
