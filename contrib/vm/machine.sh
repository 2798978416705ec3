# shellcheck shell=bash
# What the cases of contrib/vm/machine share, beside contrib/vm/lib.sh. kcopyfs runs as the service that its package installs, and
# keeps its jobs in /var/lib/kcopyfs. The disks last over the boots of one case; /var and /root do, too.
#
# `stage` is the number of the boot. `boot_again` ends it; the case then runs again, from its beginning, at the next one.
# shellcheck source=contrib/vm/lib.sh
. /ctl/lib.sh
# shellcheck disable=SC2034 # the cases use it
readonly stage=${3:-1}
readonly by_id=/dev/disk/by-id/virtio-DISK
# One of the four disks, by the name that the kernel gave it at this boot.
disk() { # NUMBER
    readlink -f "$by_id$1"
}

# The machine shuts down, or its power is cut, and boots again; with `turn` its disks have other names then.
boot_again() { # poweroff|cut|turn
    echo "$1" >/ctl/end
    sync -f /ctl
    exit 0
}

# Waits until a name below /dev is there, or is not: udev makes and takes it.
appears() { # PATH
    until_true 20 test -e "$1" || broken "no $1 after 20 s"
}

# What udev had to do is done.
settled() {
    udevadm settle --timeout=30 || broken 'udev does not come to rest'
}

# Waits until systemd says that of a unit, at most 60 s.
unit_is() { # UNIT PROPERTY VALUE
    until_true 60 unit_is_now "$@" || broken "$1: $2 is $(systemctl show --property "$2" --value "$1") and not $3"
}

unit_is_now() { # UNIT PROPERTY VALUE
    [[ $(systemctl show --property "$2" --value "$1") == "$3" ]]
}

# The service runs, and its tree answers.
served() {
    unit_is kcopyfs ActiveState active
    [[ -e $tree/version ]] || broken "no tree at $tree"
}

# The journal's entries of the service since it was first started, as `PRIORITY MESSAGE`.
journal() {
    journalctl --sync
    journalctl --unit kcopyfs --no-pager --output json --output-fields PRIORITY,MESSAGE \
        | sed 's/.*"MESSAGE":"\(\([^"\\]\|\\.\)*\)".*/&\n\1/; s/.*"PRIORITY":"\([0-9]\)".*\n\(.*\)/\1 \2/'
}

# A device is refused as a destination: the write fails, the reason is as it should be.
refused() { # NAME REASON-EXPRESSION WORD...
    if job "${@:3}"; then
        ended
        fail "$1" "accepted, and ended as $(verdict)"
    else
        like "$1" "$2" "$why"
    fi
}
