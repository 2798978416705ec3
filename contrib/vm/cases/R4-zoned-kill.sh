#!/usr/bin/env bash
# kill -9 in a copy to a host-managed zoned disk: the next daemon goes on, although the zones' write pointers are ahead of
# the last checkpoint. Other data before a write pointer is never taken for the copy: the job says what to do.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((48 * MIB)) zone=$((4 * MIB))
ram 1 $size
noise /dev/ram0 0 $size
zoned zone $size

ahead() {
    local durable
    durable=$(field durable)
    ((durable > 0 && $(field copied) > durable + 2 * 1024 * 1024))
}

killed() { # WORD...
    blkzone reset /dev/zone
    started
    taken from=/dev/ram0 to=/dev/zone speed_max=3M "$@"
    until_true 20 ahead || broken "no checkpoint: $(stuck)"
    kill_daemon
}

# Runs the command that a message gives for a zone.
as_told() { # MESSAGE
    local told
    told=$(sed -n 's/.*`\(blkzone reset -o [0-9]* -c [0-9]* \/dev\/zone\)`.*/\1/p' <<<"$1")
    [[ -n $told ]] && $told
}

for words in '' write_seq; do
    # shellcheck disable=SC2086 # no word, or one
    killed $words
    started
    until_true 10 test -e "$tree/jobs/$id/speed_max"
    echo max >"$tree/jobs/$id/speed_max"
    ended || fail "${words:-plain}: it ends" "$(stuck)"
    is "${words:-plain}: done" 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
    same "${words:-plain}: the same bytes" /dev/ram0 0 /dev/zone 0 $size
    kill_daemon
    rm -rf "$state"
done

# A new job does not write to zones that hold data, and says how to empty them.
started
before=$(sha256sum </dev/zone)
if job from=/dev/ram0 to=/dev/zone; then fail 'used zones: refused' "job $id"; else pass 'used zones: refused'; fi
like 'used zones: the reason' 'the zone at sector 0 holds data up to sector ' "$why"
is 'used zones: nothing is written' "$before" "$(sha256sum </dev/zone)"
as_told "$why" || fail 'used zones: the remedy' "$why"
taken from=/dev/ram0 to=/dev/zone
ended || fail 'emptied zones: it ends' "$(stuck)"
is 'emptied zones: done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
kill_daemon
rm -rf "$state"

# Somebody else has written at the write pointer meanwhile.
killed
pointer=0
for ahead in $(write_pointers /dev/zone); do
    pointer=$((pointer + ahead))
    ((ahead == zone)) || break
done
dd if=/dev/urandom of=/dev/zone bs=4096 seek=$((pointer / 8)) count=1 oflag=direct conv=notrunc status=none
started
until_true 10 test -e "$tree/jobs/$id/speed_max"
echo max >"$tree/jobs/$id/speed_max"
ended || fail 'other data: it ends' "$(stuck)"
like 'other data: the job fails' '^failed .* errors \[write 0 [0-9]+ [0-9]+ ENOTEMPTY\]' "$(verdict)"
as_told "$(field error)" || fail 'other data: the remedy' "$(field error)"
echo retry >"$tree/jobs/$id/control"
until_true 10 is_over copied $(((size - 1) * 512)) || fail 'other data: retry' "$(stuck)"
ended || fail 'other data: retry ends' "$(stuck)"
is 'other data: done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
same 'other data: the same bytes' /dev/ram0 0 /dev/zone 0 $size
