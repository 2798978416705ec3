#!/usr/bin/env bash
# The machine boots with kcopyfs installed: the service is active and says how its jobs stand; a copy under udev between real
# partitions; fstab and `mount -t fuse.kcopyfs`; the journal tells the life of jobs with severities and one time stamp.
# The machine shuts down in mid-copy and boots again: the job goes on, and what fstab names is mounted.
# shellcheck source=contrib/vm/machine.sh
. /ctl/machine.sh

size=$((8 * MIB))
own=/srv/own

# systemd knows the process that it is to watch, and no start has failed.
service() { # NAME
    is "$1: the service is active" 'ActiveState=active NRestarts=0 SubState=running' \
        "$(systemctl show --property ActiveState,SubState,NRestarts kcopyfs | sort | paste -sd' ')"
    begin=$EPOCHREALTIME
    shown=$(timeout 20 systemctl status --no-pager --lines=5 kcopyfs 2>&1)
    is "$1: systemctl status ends" 0 $?
    echo "# $1: systemctl status took $(awk "BEGIN { print $EPOCHREALTIME - $begin }") s"
    like "$1: systemctl status tells how the jobs stand" 'Status: "(no job under way|[0-9]+ [a-z]+(, [0-9]+ [a-z]+)*)"' "$shown"
}

status_text() {
    systemctl show --property StatusText --value kcopyfs
}

status_text_is() { # TEXT
    [[ $(status_text) == "$1" ]]
}

first_boot() {
    service 'first boot'
    is 'first boot: no unit has failed' '' "$(systemctl --failed --no-legend --plain | paste -sd,)"
    like 'first boot: the mount' "^kcopyfs $tree fuse.kcopyfs rw,nosuid,nodev,noexec" "$(grep " $tree " /proc/self/mounts)"
    is 'first boot: enabled' enabled "$(systemctl is-enabled kcopyfs)"
    is 'first boot: the mount helper is there' /usr/sbin/kcopyfs "$(readlink -f /sbin/mount.fuse.kcopyfs)"
    is 'first boot: the manual is there' 1 "$(find /usr/share/man/man8 -name 'kcopyfs.8*' | grep -c .)"

    # Real partitions, under udev.
    for number in 0 1; do
        printf 'label: gpt\nsize=8MiB, name=data%s\nsize=8MiB, name=rest%s\n' $number $number \
            | sfdisk --quiet --wipe always "$by_id$number" || broken 'sfdisk fails'
    done
    settled
    for part in 0-part1 0-part2 1-part1 1-part2; do appears "$by_id$part"; done
    noise "${by_id}0-part1" 0 $size
    noise "${by_id}0-part2" 0 $size
    mkfs.ext4 -q -F -L before "${by_id}1-part1"
    settled
    is 'partitions: udev knows what was there' before "$(lsblk --noheadings --output LABEL "${by_id}1-part1")"
    taken "from=${by_id}0-part1" "to=${by_id}1-part1" name=parts verify
    ended || fail 'partitions: the copy ends' "$(stuck)"
    is 'partitions: done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
    same 'partitions: the same bytes' "${by_id}0-part1" 0 "${by_id}1-part1" 0 $size
    settled
    # shellcheck disable=SC2317 # until_true calls it
    forgotten() { [[ -z $(lsblk --noheadings --output LABEL "${by_id}1-part1") ]]; }
    if until_true 10 forgotten; then pass 'partitions: udev looks again at the end'; else
        fail 'partitions: udev looks again at the end' "$(lsblk --noheadings --output LABEL "${by_id}1-part1")"
    fi
    # A clone of the whole disk: its partitions are seen after it.
    taken "from=${by_id}0" "to=${by_id}2" name=disk
    ended || fail 'a whole disk: the copy ends' "$(stuck)"
    is 'a whole disk: done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
    settled
    blockdev --rereadpt "${by_id}2"
    settled
    is 'a whole disk: its partitions are there' 'data0 rest0' \
        "$(lsblk --noheadings --output PARTLABEL "$(disk 2)" | paste -sd' ' | sed 's/^ *//; s/  */ /g')"
    mkfs.ext4 -q -F "${by_id}2-part2"
    mount "${by_id}2-part2" /mnt
    refused 'a mounted partition' '^error: .* is in use: .* is mounted at /mnt' "from=${by_id}0-part2" "to=${by_id}2-part2"
    refused 'the disk of a mounted partition' '^error: .* is in use: .* is mounted at /mnt' "from=${by_id}0" "to=${by_id}2"
    refused 'a mounted partition, by another name' '^error: .* is in use: .* is mounted at /mnt' "from=${by_id}0-part2" "to=$(disk 2)2"
    umount /mnt

    # fstab, by hand.
    mkdir -p $own
    echo "none $own fuse.kcopyfs pages=512,client_pages=256,state=/var/lib/own 0 0" >/etc/fstab
    systemctl daemon-reload
    mount $own
    is 'fstab: mount(8) mounts it' 0 $?
    like 'fstab: it has the options' '(^|
)pages 512
' "$(cat $own/engine)"
    umount $own
    is 'fstab: umount(8) takes it away' '0 no' "$? $(mountpoint -q $own && echo yes || echo no)"

    # The life of a job that fails.
    echo "0 $((4 * MIB)) error" | map broken
    taken from=/dev/mapper/broken "to=${by_id}3" name=sick
    ended || fail 'a job that fails: it ends' "$(stuck)"
    sick=$id
    entries=$(journal)
    # The first that matches.
    entry() { grep -m1 -E -e "$1" <<<"$entries"; }
    like 'journal: a start is information' "^6 (.*: )?job [0-9]+ \(parts\) starts: copy from=${by_id}0-part1" \
        "$(entry 'parts. starts')"
    like 'journal: a good end is information' '^6 ' "$(entry 'parts. is done')"
    like 'journal: a bad end is a warning, with path, sector and errno' "^4 job $sick \(sick\) is failed: .*/dev/mapper/broken: EIO in sector 0" \
        "$(entry "job $sick .*failed")"
    is 'journal: no second time stamp and no second severity' '' \
        "$(entry '^[0-7] (<[0-7]>|\[?[0-9]{4}-[0-9]{2}-[0-9]{2}|\[?(INFO|WARN|ERROR) )')"
    dmsetup remove broken

    # In mid-copy: at this pace it takes four minutes, and a boot less.
    taken "from=${by_id}0" "to=${by_id}3" speed_max=256K name=long
    until_true 60 is_over durable $((1024 * 1024)) || broken "no checkpoint: $(stuck)"
    if until_true 10 status_text_is '1 running'; then pass 'the status text counts the job'; else
        fail 'the status text counts the job' "$(status_text)"
    fi
    echo "$id $(field durable)" >/root/job
    boot_again poweroff
}

second_boot() {
    service 'second boot'
    read -r id durable </root/job
    like 'shut down: the service ended well' 'Deactivated successfully' \
        "$(journalctl --boot=-1 --unit kcopyfs --no-pager --output cat | tail -n 5)"
    unlike 'shut down: nothing was killed' 'SIGKILL|timed out' "$(journalctl --boot=-1 --unit kcopyfs --no-pager --output cat)"
    is 'fstab: mounted at the boot' fuse.kcopyfs "$(findmnt --noheadings --output FSTYPE $own)"
    like 'fstab: the tree answers' '^pages 512' "$(grep '^pages ' $own/engine)"
    until_true 10 state_is running || broken "the job does not go on: $(field state) $(field error)"
    at_least 'boot again: the job goes on from its checkpoint' "$durable" "$(field copied)"
    echo max >"$tree/jobs/$id/speed_max"
    ended || fail 'boot again: it ends' "$(stuck)"
    is 'boot again: done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
    same 'boot again: the same bytes' "${by_id}0" 0 "${by_id}3" 0 $((64 * MIB))
    is 'boot again: jobs that had ended are there' 'done' "$(field state 1)"
}

served
case $stage in
    1) first_boot ;;
    2) second_boot ;;
esac
