#!/usr/bin/env bash
# Two device-mapper maps over the same sectors: a file system that is mounted by one is not overwritten through the other, and
# jobs, or regions of one job, that meet below are refused.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh

size=$((32 * MIB)) half=$((16 * MIB))
ram 3 $size
noise /dev/ram0 0 $size
need dm-snapshot
echo "0 $size linear /dev/ram1 0" | map whole
echo "0 $half linear /dev/ram1 $half" | map upper
echo "0 $half linear /dev/mapper/upper 0" | map above
mkdir -p /mnt/fs
started

refused() { # NAME WORD...
    if job "${@:2}"; then
        ended
        fail "$1" "accepted, and ended as $(verdict)"
    else
        pass "$1"
    fi
}

for mounted in above upper; do
    [[ $mounted == upper ]] && dmsetup remove above
    mkfs.ext4 -q -F /dev/mapper/$mounted
    mount /dev/mapper/$mounted /mnt/fs || broken 'no file system'
    refused "a file system on $mounted, written through the whole" "from=/dev/ram0" to=/dev/mapper/whole
    like "a file system on $mounted: the reason" 'mounted|in use|busy' "$why"
    refused "a file system on $mounted, zeroed through the whole" zero "to=/dev/mapper/whole,$half,2048"
    umount /mnt/fs
    e2fsck -fn /dev/mapper/$mounted >/run/e2fsck 2>&1
    is "a file system on $mounted is unharmed" 0 $?
done
echo "0 $half linear /dev/mapper/upper 0" | map above
mkfs.ext4 -q -F /dev/mapper/whole
mount /dev/mapper/whole /mnt/fs || broken 'no file system'
refused 'a file system on the whole, written through a part' "from=/dev/ram0,0,$half" to=/dev/mapper/above
umount /mnt/fs
e2fsck -fn /dev/mapper/whole >/run/e2fsck 2>&1
is 'a file system on the whole is unharmed' 0 $?

# Two jobs. The lower half of the whole belongs to nobody else.
taken from=/dev/ram0 to=/dev/mapper/whole paused
first=$id
refused 'a job to a part while another writes the whole' "from=/dev/ram0,0,$half" to=/dev/mapper/above
refused 'a job that reads what another writes' "from=/dev/mapper/above" to=/dev/ram2
echo cancel >"$tree/jobs/$first/control"
id=$first
ended
taken "from=/dev/ram0,0,$half" to=/dev/mapper/above paused
first=$id
if job "from=/dev/ram0,0,$half" to=/dev/mapper/whole; then
    ended
    is 'a job to the half that no other writes' 'done read_err 0 write_err 0x0 errors []' "$(verdict)"
else
    pass 'a job to the half that no other writes is refused for safety'
fi
echo cancel >"$tree/jobs/$first/control"
id=$first
ended

refused 'source and destination are the same sectors' "from=/dev/mapper/whole,$half,2048" to=/dev/mapper/above
refused 'two destinations are the same sectors' "from=/dev/ram0,0,2048" "to=/dev/mapper/whole,$half" to=/dev/mapper/above

# A snapshot with less room than its origin has: a copy to the origin would end it.
dmsetup remove above
dmsetup remove upper
dmsetup remove whole
echo "0 $size linear /dev/ram1 0" | map base
mkfs.ext4 -q -F /dev/mapper/base
fill /dev/ram2 0 64 000
echo "0 $((4 * MIB)) linear /dev/ram2 0" | map store
echo "0 $size snapshot /dev/mapper/base /dev/mapper/store P 8" | map snap
echo "0 $size snapshot-origin /dev/mapper/base" | map origin
mount /dev/mapper/snap /mnt/fs || broken 'no snapshot'
if job from=/dev/ram0 to=/dev/mapper/origin; then
    ended
    dd if=/dev/mapper/snap of=/dev/null bs=64K iflag=direct status=none 2>/run/dd
    is 'a mounted snapshot of the destination still reads' '' "$(cat /run/dd)"
else
    pass 'the origin of a mounted snapshot is refused'
fi
umount /mnt/fs
