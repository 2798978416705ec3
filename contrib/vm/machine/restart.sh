#!/usr/bin/env bash
# A job in mid-copy goes on from its checkpoint after `systemctl restart`, after a kill -9 (the service starts again by itself), and
# after a power cut; at last its destination is the same as its source, and the state directory is well.
# shellcheck source=contrib/vm/machine.sh
. /ctl/machine.sh

size=$((64 * MIB))

# The job, wherever it was, runs, and has gone on from its checkpoint.
goes_on() { # NAME DURABLE
    served
    until_true 20 state_is running || broken "$1: $(field state) $(field error)"
    at_least "$1: from its checkpoint" "$2" "$(field copied)"
    at_most "$1: it had not ended" $((size * 512 - 1)) "$(field copied)"
    until_true 60 is_over durable $(($2 + 1024 * 1024)) || broken "$1: no checkpoint: $(stuck)"
    durable=$(field durable)
}

main_pid() {
    systemctl show --property MainPID --value kcopyfs
}

is_another() { # PID
    [[ $(main_pid) != "$1" && $(main_pid) != 0 ]]
}

served
if ((stage == 1)); then
    noise "${by_id}0" 0 $size
    fill "${by_id}1" 0 $size 252
    taken "from=${by_id}0" "to=${by_id}1" speed_max=256K name=long verify digest=sha256
    until_true 60 is_over durable $((1024 * 1024)) || broken "no checkpoint: $(stuck)"
    durable=$(field durable)

    systemctl restart kcopyfs
    is 'systemctl restart' 0 $?
    goes_on 'systemctl restart' "$durable"

    pid=$(main_pid)
    kill -9 "$pid"
    until_true 30 is_another "$pid" || broken 'killed: it does not start again'
    unit_is kcopyfs ActiveState active
    is 'killed: it starts again by itself, at the first try' 1 "$(systemctl show --property NRestarts --value kcopyfs)"
    goes_on 'killed' "$durable"
    pid=$(main_pid)
    systemctl kill --signal=KILL kcopyfs
    until_true 30 is_another "$pid" || broken 'all killed: it does not start again'
    unit_is kcopyfs ActiveState active
    goes_on 'all its processes killed' "$durable"

    echo "$id $durable" >/root/job
    sync /root/job /root
    boot_again cut
fi

read -r id durable </root/job
goes_on 'power cut' "$durable"
echo max >"$tree/jobs/$id/speed_max"
ended || fail 'power cut: it ends' "$(stuck)"
is 'power cut: done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
same 'power cut: the same bytes' "${by_id}0" 0 "${by_id}1" 0 $size
is 'power cut: the digest' "sha256:$(sha256sum "${by_id}0" | cut -d' ' -f1)" "$(field digest)"
like 'the watchdog has not tripped' '^0$' "$(journalctl --unit kcopyfs --no-pager --output cat | grep -ci watchdog)"
taken "from=${by_id}0" "to=${by_id}2"
ended
is 'power cut: the state directory takes another job' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
