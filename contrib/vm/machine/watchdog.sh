#!/usr/bin/env bash
# The watchdog of the service: a device that hangs does not trip it, also for longer than its time; a daemon that hangs does, is
# started again, and its job goes on.
# shellcheck source=contrib/vm/machine.sh
. /ctl/machine.sh

size=$((32 * MIB)) seconds=15

restarts() {
    systemctl show --property NRestarts --value kcopyfs
}

has_restarted() {
    (($(restarts) > 0))
}

served
like 'the unit has a watchdog' '^[1-9]' "$(systemctl show --property WatchdogUSec --value kcopyfs)"
mkdir -p /run/systemd/system/kcopyfs.service.d
printf '[Service]\nWatchdogSec=%d\n' $seconds >/run/systemd/system/kcopyfs.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart kcopyfs
served

noise "${by_id}0" 0 $size
echo "0 $size linear $(disk 1) 0" | map slow
taken "from=${by_id}0,0,$size" to=/dev/mapper/slow speed_max=256K
until_true 60 is_over durable $((1024 * 1024)) || broken "no checkpoint: $(stuck)"
dmsetup suspend --nolockfs --noflush slow
until_true 120 is_over stalled_usec $((2 * seconds * 1000000)) || fail 'a hung device: the status tells it' "$(stuck)"
is 'a hung device: the watchdog has not tripped' 0 "$(restarts)"
like 'a hung device: the status text' '1 running' "$(systemctl show --property StatusText --value kcopyfs)"
dmsetup resume slow
until_true 60 is_over durable $((2 * 1024 * 1024)) || broken "it does not go on: $(stuck)"
durable=$(field durable)

# Both processes are the service's; the second does the work.
kill -STOP "$(pgrep -P "$(systemctl show --property MainPID --value kcopyfs)")"
if until_true 120 has_restarted; then pass 'a hung daemon: it is started again'; else
    fail 'a hung daemon: it is started again' "$(systemctl show --property ActiveState,SubState --value kcopyfs | paste -sd' ')"
fi
served
like 'a hung daemon: the journal names the watchdog' 'Watchdog timeout' "$(journalctl --unit kcopyfs --no-pager --output cat)"
until_true 30 state_is running || broken "the job does not go on: $(field state) $(field error)"
at_least 'a hung daemon: the job goes on from its checkpoint' "$durable" "$(field copied)"
echo max >"$tree/jobs/$id/speed_max"
ended || fail 'it ends' "$(stuck)"
is 'done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
same 'the same bytes' "${by_id}0" 0 "${by_id}1" 0 $size
