#!/usr/bin/env bash
# LVM and md on source and destination, under udev: while a job writes a clone of a physical volume, or of an md member, nothing
# activates or assembles it, although others open and close the disk; after the job udev may have it. What LVM, md or a mount
# has is refused as a destination.
# shellcheck source=contrib/vm/machine.sh
. /ctl/machine.sh

size=$((32 * MIB))
md=/dev/md7

# What LVM and md make of disks: their device-mapper names, and md arrays.
assembled() {
    {
        dmsetup info --columns --noheadings -o name 2>/dev/null | grep -v '^No devices'
        find /sys/block -name 'md[0-9]*' -printf '%f\n'
    } | paste -sd' '
}

# Somebody looks: opens the disk for writing and closes it, and has udev see it again.
looked_at() { # DEVICE
    : >>"$1"
    udevadm trigger --action=add "$1"
    udevadm trigger --action=change "$1"
}

# udev's queue may hold what waits for the lock, so it is not awaited to the end.
has_looked() {
    udevadm settle --timeout=5
    true
}

# Copies IMAGE, in mid-copy looks at the destination, and lets it end. What is assembled must be EXPECTED, a name, only then.
clone() { # NAME IMAGE DEVICE EXPECTED
    local during
    wipefs --quiet --all "$3"
    settled
    taken "from=$2" "to=$3" speed_max=256K
    until_true 60 is_over durable $((1024 * 1024)) || broken "$1: no checkpoint: $(stuck)"
    looked_at "$3"
    has_looked
    during=$(assembled)
    is "$1: nothing is assembled while the job runs" '' "$during"
    is "$1: udev knows nothing of the half-written clone" '' \
        "$(udevadm info --query=property --property=ID_FS_TYPE,ID_PART_TABLE_TYPE --value "$3" | paste -sd' ')"
    is "$1: the job runs" 'running read_err 0 write_err 0x0 errors []' "$(verdict)"
    echo max >"$tree/jobs/$id/speed_max"
    ended || fail "$1: it ends" "$(stuck)"
    is "$1: done" 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
    if until_true 30 is_assembled "$4"; then pass "$1: assembled once the job has ended"; else
        fail "$1: assembled once the job has ended" "there is only \`$(assembled)\`"
    fi
}

is_assembled() { # NAME
    [[ $(assembled) =~ $1 ]]
}

# An image with a volume group whose one volume has a file system, and one with an md mirror of one disk.
make_images() {
    pvcreate --quiet --force --force --yes "${by_id}0" >/dev/null
    vgcreate --quiet twins "${by_id}0" >/dev/null
    lvcreate --quiet --yes --name data --size 12M twins >/dev/null
    mkfs.ext4 -q -F /dev/twins/data || broken 'no volume group'
    vgchange --quiet --activate n twins >/dev/null
    settled
    dd if="${by_id}0" of=/root/pv.img bs=1M count=32 status=none
    mdadm --create $md --quiet --run --level=1 --raid-devices=1 --force --metadata=1.2 --size=16M "${by_id}1" 2>/run/mdadm \
        || broken "no array: $(</run/mdadm)"
    settled
    mkfs.ext4 -q -F $md
    mdadm --stop --quiet $md
    settled
    dd if="${by_id}1" of=/root/md.img bs=1M count=32 status=none
    wipefs --quiet --all "${by_id}0" "${by_id}1"
    settled
    # LVM activates a group once a boot by itself. This is to be another machine.
    rm -f /run/lvm/{pvs_online,vgs_online,pvs_lookup}/*
    is 'the disks are free' '' "$(assembled)"
}

make_images

clone 'a physical volume' /root/pv.img "${by_id}2" twins-data
clone 'an md member' /root/md.img "${by_id}3" 'md[0-9]'
array=/dev/$(find /sys/block -name 'md[0-9]*' -printf '%f\n' -quit)

# In use now.
is_assembled twins-data || vgchange --quiet --activate y twins >/dev/null
noise "${by_id}0" 0 $size
refused 'a physical volume in use' '^error: .*DISK2 is in use: .* is held by (twins|dm-[0-9])' "from=${by_id}0,0,2048" "to=${by_id}2"
refused 'an md member in use' '^error: .*DISK3 is in use: .* is held by md[0-9]' "from=${by_id}0,0,2048" "to=${by_id}3"
mount /dev/twins/data /mnt || broken 'the clone of the volume does not mount'
refused 'a mounted volume' '^error: .* is in use: .* is mounted at /mnt' "from=${by_id}0,0,2048" to=/dev/twins/data
umount /mnt
# The volumes themselves are devices like others.
taken "from=${by_id}0,0,2048" to=/dev/twins/data "to=$array" verify
ended || fail 'to a volume and an array: it ends' "$(stuck)"
is 'to a volume and an array: done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
same 'to a volume: the same bytes' "${by_id}0" 0 /dev/twins/data 0 2048
same 'to an array: the same bytes' "${by_id}0" 0 "$array" 0 2048
# A disk whose members are a source: reading harms nobody.
taken "from=${by_id}2,0,$size" "to=${by_id}0"
ended || fail 'from a physical volume in use: it ends' "$(stuck)"
is 'from a physical volume in use: done' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
like 'the daemon has said nothing else' '^0$' "$(journal | grep -c -E '^[0-3] ')"
