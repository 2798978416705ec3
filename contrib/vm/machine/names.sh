#!/usr/bin/env bash
# At the next boot the kernel gives the disks other names. A job whose spec names its disks by what lasts goes on; one that named them
# as the kernel did is held, says what differs, and writes nothing, however its disks are called now; `resume` does not make it write
# to a disk that it had not: it is cancelled here.
# shellcheck source=contrib/vm/machine.sh
. /ctl/machine.sh

size=$((64 * MIB))

sum() { # DISK
    blockdev --flushbufs "$by_id$1"
    sha256sum "$by_id$1" | cut -d' ' -f1
}

served
if ((stage == 1)); then
    noise "${by_id}0" 0 $((16 * MIB))
    noise "${by_id}1" 0 $((16 * MIB))
    taken "from=${by_id}0" "to=${by_id}2" speed_max=256K name=lasting
    until_true 60 is_over durable $((512 * 1024)) || broken "no checkpoint: $(stuck)"
    lasting=$id
    # At the next boot the name of its destination is that of the other job's source, and the name of its source that of the other
    # job's destination.
    taken "from=$(disk 1)" "to=$(disk 3)" speed_max=256K name=kernel
    until_true 60 is_over durable $((512 * 1024)) || broken "no checkpoint: $(stuck)"
    is 'both run' 'running running' "$(field state "$lasting") $(field state)"
    printf '%s\n' "$lasting" "$id" "$(field durable "$lasting")" "$(disk 3)" "$(sum 0)" "$(sum 1)" >/root/notes
    sync /root/notes /root
    boot_again turn
fi

{ read -r lasting; read -r kernel; read -r durable; read -r name; read -r sum0; read -r sum1; } </root/notes
is 'the names are others' "$name" "$(disk 0)"
id=$kernel
until_true 30 state_is held
is 'by the name of the kernel: held' held "$(field state)"
like 'by the name of the kernel: the reason says what differs' 'DISK[0-3] is now DISK[0-3]' "$(field error)"
like 'by the name of the kernel: a warning in the journal' '^4 .*held' "$(journal | grep "job $kernel .*held")"
like 'the status text counts it' '1 held' "$(systemctl show --property StatusText --value kcopyfs)"
id=$lasting
until_true 30 state_is running || broken "by what lasts: $(field state) $(field error)"
at_least 'by what lasts: the job goes on from its checkpoint' "$durable" "$(field copied)"
echo max >"$tree/jobs/$id/speed_max"
ended || fail 'by what lasts: it ends' "$(stuck)"
is 'by what lasts: done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
same 'by what lasts: the same bytes' "${by_id}0" 0 "${by_id}2" 0 $size
is 'the sources are untouched' "$sum0 $sum1" "$(sum 0) $(sum 1)"
id=$kernel
is 'by the name of the kernel: still held' held "$(field state)"
refused 'its disks are kept from others' '^error: .*job [0-9]+' "from=${by_id}0" "to=${by_id}3"
id=$kernel
echo cancel >"$tree/jobs/$id/control"
ended || fail 'by the name of the kernel: it ends' "$(stuck)"
is 'by the name of the kernel: cancelled' cancelled "$(field state)"
