# shellcheck shell=bash
# What the cases of contrib/vm-test share. Each case reads it at its beginning: in the guest, as root. Its words are the name
# of the case and the engine's backend. The case exits with 0 if it checked something and every check passed.
#
# Disks: `ram` and `zoned` make one, `map` and `bad` lay device-mapper over one, `fill` writes known bytes.
# The daemon: `start`, `job`, `ended`, `field`. Checks: `same`, `holds`, `is`, `like`; each prints a line PASS or FAIL.
# All positions and counts are sectors of 512 bytes.
set -u
readonly tree=/run/kcopyfs state=/run/kcopyfs-state
readonly MIB=2048 # sectors
readonly case_name=${1:?}
daemon_io=${2:-auto}
failures=0 checks=0
cp /ctl/program /run/program

finish() {
    ((checks)) || printf 'FAIL %s: it checked nothing\n' "$case_name"
    ((checks && !failures))
    exit
}
trap finish EXIT

# ---- checks

pass() { # NAME
    checks=$((checks + 1))
    printf 'PASS %s %s\n' "$case_name" "$1"
}

fail() { # NAME WHY
    checks=$((checks + 1))
    failures=$((failures + 1))
    printf 'FAIL %s %s: %s\n' "$case_name" "$1" "$2"
}

# The case cannot go on: what it needs is not there.
broken() { # WHY
    fail "goes on" "$1"
    exit 1
}

is() { # NAME WANTED FOUND
    if [[ $2 == "$3" ]]; then pass "$1"; else fail "$1" "wanted \`$2\`, found \`$3\`"; fi
}

like() { # NAME EXTENDED-REGULAR-EXPRESSION FOUND
    if [[ $3 =~ $2 ]]; then pass "$1"; else fail "$1" "wanted something like \`$2\`, found \`$3\`"; fi
}

unlike() { # NAME EXTENDED-REGULAR-EXPRESSION FOUND
    if [[ $3 =~ $2 ]]; then fail "$1" "wanted nothing like \`$2\`, found \`$3\`"; else pass "$1"; fi
}

at_least() { # NAME LEAST FOUND
    if [[ $3 =~ ^[0-9]+$ ]] && (($3 >= $2)); then pass "$1"; else fail "$1" "wanted at least $2, found \`$3\`"; fi
}

at_most() { # NAME MOST FOUND
    if [[ $3 =~ ^[0-9]+$ ]] && (($3 <= $2)); then pass "$1"; else fail "$1" "wanted at most $2, found \`$3\`"; fi
}

# The first difference of two devices in a range as cmp tells it, or nothing.
difference() { # DEVICE SECTOR DEVICE SECTOR COUNT
    blockdev --flushbufs "$1" "$3" 2>/dev/null
    cmp -n $(($5 * 512)) -i $(($2 * 512)):$(($4 * 512)) "$1" "$3" 2>&1 | head -n1
}

same() { # NAME DEVICE SECTOR DEVICE SECTOR COUNT
    local found
    found=$(difference "${@:2}")
    if [[ -z $found ]]; then pass "$1"; else fail "$1" "$found"; fi
}

# How many bytes of a range are not BYTE.
others() { # DEVICE SECTOR COUNT OCTAL-BYTE
    blockdev --flushbufs "$1" 2>/dev/null
    dd if="$1" bs=512 skip="$2" count="$3" status=none | tr -d "\\$4" | wc -c
}

# A range reads as BYTE alone, in octal: 000 for zeros, 252 for 0xAA.
holds() { # NAME DEVICE SECTOR COUNT OCTAL-BYTE
    local found
    found=$(others "${@:2}")
    is "$1" 0 "$found"
}

# ---- disks

need() { # MODULE [PARAMETER...]
    modprobe "$@" || broken "no module $1 in this kernel"
}

# Makes COUNT disks in memory of SIZE sectors: /dev/ram0 and on.
ram() { # COUNT SIZE
    need brd "rd_nr=$1" "rd_size=$(($2 / 2))"
}

# Makes a host-managed zoned disk /dev/NAME in memory, with zones of 4 MiB.
zoned() { # NAME SIZE
    local folder=/sys/kernel/config/nullb/$1
    [[ -d /sys/kernel/config/nullb ]] || need null_blk nr_devices=0
    mkdir "$folder" || broken "cannot make the disk $1"
    echo $(($2 / MIB)) >"$folder/size"
    echo 512 >"$folder/blocksize"
    echo 1 >"$folder/memory_backed"
    echo 1 >"$folder/zoned"
    echo 4 >"$folder/zone_size"
    echo 0 >"$folder/zone_nr_conv"
    echo 1 >"$folder/power" || broken "cannot switch the disk $1 on"
    [[ -b /dev/$1 ]] || broken "no /dev/$1"
}

# The write pointers of a zoned disk, counted from each zone's start, as one line.
write_pointers() { # DEVICE
    blkzone report "$1" | sed 's/.*wptr 0x\([0-9a-f]*\).*/\1/' | while read -r at; do printf '%d ' "0x$at"; done
}

# Makes a SCSI disk in memory of MIB mebibytes: `disk`.
scsi() { # MIB [PARAMETER...]
    need sd_mod
    need scsi_debug "dev_size_mb=$1" "${@:2}"
    disk=/dev/sda
    until_true 10 test -b "$disk" || broken 'scsi_debug made no disk'
}

# Makes the device-mapper device NAME of the table on stdin. Where udev runs, it makes the name, and is waited for.
map() { # NAME
    if [[ -S /run/udev/control ]]; then
        dmsetup create "$1" >/dev/null || broken "no map $1"
        until_true 20 test -b "/dev/mapper/$1" || broken "udev makes no /dev/mapper/$1"
        return
    fi
    dmsetup create --noudevsync "$1" >/dev/null || broken "no map $1"
    [[ -b /dev/mapper/$1 ]] || dmsetup mknodes "$1"
}

# A linear map NAME over DEVICE, in which each range SECTOR+COUNT answers EIO, for reads and writes.
bad() { # NAME DEVICE SECTOR+COUNT...
    local name=$1 device=$2 at=0 size range from count
    size=$(blockdev --getsz "$device")
    shift 2
    {
        for range; do
            from=${range%+*} count=${range#*+}
            ((from == at)) || echo "$at $((from - at)) linear $device $at"
            echo "$from $count error"
            at=$((from + count))
        done
        ((at == size)) || echo "$at $((size - at)) linear $device $at"
    } | map "$name"
}

# Writes bytes that do not repeat to a range.
noise() { # DEVICE SECTOR COUNT
    head -c $(($3 * 512)) /dev/urandom | to_range "$1" "$2"
}

# Writes BYTE, in octal, to a range.
fill() { # DEVICE SECTOR COUNT OCTAL-BYTE
    head -c $(($3 * 512)) /dev/zero | tr '\0' "\\$4" | to_range "$1" "$2"
}

# Writes stdin from a sector on, to the device and out of the cache.
to_range() { # DEVICE SECTOR
    dd of="$1" bs=64K oflag=seek_bytes seek=$(($2 * 512)) conv=notrunc,fsync iflag=fullblock status=none
    blockdev --flushbufs "$1"
}

# ---- the daemon

# Starts the daemon; more options go to -o. What it says is in /run/start-says.
start() { # [OPTION...]
    local options=state=$state,io=$daemon_io option
    for option; do options+=,$option; done
    mkdir -p "$tree" "$state"
    need fuse
    RUST_BACKTRACE=1 /run/program -o "$options" "$tree" 2>/run/start-says
}

# Starts the daemon, or ends the case.
started() { # [OPTION...]
    start "$@" || broken "the daemon does not start: $(</run/start-says)"
}

# kill -9, and the dead mount goes away.
kill_daemon() {
    pkill -9 -x program
    local n
    for ((n = 0; n < 100; n++)); do
        umount -l "$tree" 2>/dev/null
        mountpoint -q "$tree" || break
        sleep 0.05
    done
}

# Writes a spec. `id` is its job; where it is refused `id` is empty, `why` is the reason and the status is 1.
job() { # WORD...
    local line
    id='' why=''
    exec 3<>"$tree/jobs/new"
    echo "$*" >&3 2>/dev/null
    read -r line <&3
    exec 3>&-
    if [[ $line =~ ^[0-9]+$ ]]; then id=$line; else why=$line; return 1; fi
}

# A job that must be accepted.
taken() { # WORD...
    job "$@" || broken "refused: $* ($why)"
}

# A value of the job's status.
field() { # KEY [ID]
    sed -n "s/^$1 //p" "$tree/jobs/${2:-$id}/status"
}

# A value of a line of the job's dests.
dest() { # K KEY
    sed -n "s/^$1 .*\\b$2=\\([^ ]*\\).*/\\1/p" "$tree/jobs/$id/dests"
}

# Waits until the job has ended, at most SECONDS (120: the host may be busy).
ended() { # [SECONDS]
    timeout -k 1 "${1:-120}" cat "$tree/wait/$id" >/dev/null 2>&1
    case $(field state) in
        done | degraded | failed | cancelled) ;;
        *) return 1 ;;
    esac
}

# Waits until a command holds, at most SECONDS; where the host is so busy that each try takes long, at most four times as long.
until_true() { # SECONDS COMMAND...
    local n begin=$SECONDS
    for ((n = 0; n < $1 * 20 && SECONDS - begin <= 4 * $1; n++)); do
        "${@:2}" && return
        sleep 0.05
    done
    return 1
}

# The value of KEY is over LEAST.
is_over() { # KEY LEAST
    (($(field "$1") > $2))
}

state_is() { # STATE
    [[ $(field state) == "$1" ]]
}

# The job in a line: what a judge of it reads.
verdict() {
    printf '%s read_err %s write_err %s errors [%s]' "$(field state)" "$(field read_err)" "$(field write_err)" \
        "$(paste -sd, "$tree/jobs/$id/errors")"
}

# What the status says of a job that has not ended in time.
stuck() {
    printf 'still %s: copied %s, stalled_usec %s, error %s' "$(field state)" "$(field copied)" "$(field stalled_usec)" \
        "$(field error)"
}
