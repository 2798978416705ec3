#!/usr/bin/env bash
# A sparse copy keeps a dm-thin volume thin, where it was new and where it held data, and `zero sparse` gives space back.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((32 * MIB)) block=128
need dm-thin-pool
ram 3 $((48 * MIB))
fill /dev/ram1 0 8 000
echo "0 $((40 * MIB)) thin-pool /dev/ram1 /dev/ram2 $block 0" | map pool
dmsetup message pool 0 'create_thin 0'
echo "0 $size thin /dev/mapper/pool 0" | map thin

# Blocks of the pool in use.
used() {
    blockdev --flushbufs /dev/mapper/thin
    dmsetup status pool | awk '{ split($6, blocks, "/"); print blocks[1] }'
}

started
# 2 MiB of data in 32 MiB, in three places: 32 blocks, and what their edges take.
fill /dev/ram0 0 $size 000
noise /dev/ram0 0 2048
noise /dev/ram0 20480 1024
noise /dev/ram0 40960 1024

try() { # NAME WORD...
    taken "${@:2}"
    ended || fail "$1: it ends" "$(stuck)"
    is "$1: done" 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
}

try 'a new volume' "from=/dev/ram0,0,$size" to=/dev/mapper/thin sparse
same 'a new volume: the same bytes' /dev/ram0 0 /dev/mapper/thin 0 $size
at_most 'a new volume: blocks in use' 40 "$(used)"

noise /dev/mapper/thin 0 $size
at_least 'the volume is full' 512 "$(used)"
try 'a full volume' "from=/dev/ram0,0,$size" to=/dev/mapper/thin sparse verify
same 'a full volume: the same bytes' /dev/ram0 0 /dev/mapper/thin 0 $size
at_most 'a full volume: blocks in use' 40 "$(used)"

try 'zero sparse' zero "to=/dev/mapper/thin,0,$size" sparse
holds 'zero sparse: zeros' /dev/mapper/thin 0 $size 000
at_most 'zero sparse: blocks in use' 0 "$(used)"

# Without the word zeros are written, as a copy that is to hold its place does.
try 'without sparse' "from=/dev/ram0,0,$size" to=/dev/mapper/thin
at_least 'without sparse: blocks in use' 512 "$(used)"
