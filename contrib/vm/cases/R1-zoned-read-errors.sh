#!/usr/bin/env bash
# A source with an unreadable sector, copied to a host-managed zoned disk, ends as it does with write_seq, whatever the words
# for read errors; so does a plain destination of the same job. Each is tried up to three times: what goes wrong depends on
# which piece comes first.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((32 * MIB))
ram 2 $size
noise /dev/ram0 0 $size
bad src /dev/ram0 20000+8
zoned zone $size
started

try() { # WORD...
    blkzone reset /dev/zone
    fill /dev/ram1 0 $size 252
    job from=/dev/mapper/src to=/dev/zone to=/dev/ram1 "$@" || broken "refused: $* ($why)"
    ended 15
}

# Three rounds with WORDS against WANTED, or as many as pass.
rounds() { # WORDS WANTED
    local round disk
    for round in 1 2 3; do
        # shellcheck disable=SC2086 # several words
        if ! try $1; then
            fail "$1: it ends" "round $round: $(stuck)"
            echo cancel >"$tree/jobs/$id/control"
            ended 10
            return
        fi
        if [[ $(verdict) != "$2" ]]; then
            fail "$1: as with write_seq" "round $round: wanted \`$2\`, found \`$(verdict)\`"
            return
        fi
        [[ $1 == on_read_error=zero* ]] || continue
        for disk in /dev/zone /dev/ram1; do
            same "$1: before the bad sectors on $disk" /dev/ram0 0 "$disk" 0 20000
            holds "$1: zeros for them on $disk" "$disk" 20000 8 000
            same "$1: after them on $disk" /dev/ram0 20008 "$disk" 20008 $((size - 20008))
        done
    done
    pass "$1: as with write_seq"
}

# With write_seq said, all was right from the start.
for words in on_read_error=zero 'on_read_error=zero retries=2' ignore_error 'on_read_error=stop retries=2'; do
    # shellcheck disable=SC2086
    try $words write_seq || broken "write_seq $words: $(stuck)"
    rounds "$words" "$(verdict)"
done

# A hole cannot be left in a zone: that is refused, or the job ends and says so.
blkzone reset /dev/zone
if ! job from=/dev/mapper/src to=/dev/zone on_read_error=skip; then
    pass 'on_read_error=skip is refused'
elif ended 15; then
    unlike 'on_read_error=skip does not claim to be done' '^done' "$(verdict)"
else
    fail 'on_read_error=skip ends' "$(stuck)"
fi
