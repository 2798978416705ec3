//! Mounting, unmounting, and what is left of a daemon that was killed. `m1` and `m2` are mount points beside the bench's.

use crate::table::{Bench, Row, Said};
use kcopyfs_support::need;

#[test]
fn trees_come_and_go_in_every_way_needs_root_and_fuse() {
    if !need::root() {
        return;
    }
    let programs = [("bash", "bash"), ("mount", "mount"), ("umount", "mount"), ("mount.fuse", "fuse3")];
    let Some(bench) = Bench::new(&[], &programs) else { return };
    let made = bench.script("bash", "mkdir m1 m2 bin && ln -s $K bin/kcopyfs");
    assert_eq!(made.ok(), "");
    bench.run(ROWS);
}

const fn row(command: &'static str, status: i32, said: Said) -> Row {
    Row { shell: "bash", command, status, said, made: 0, after: "" }
}

pub(crate) const ROWS: &[Row] = &[
    row(
        "$K -o state=none m1 && echo \"from=$S/a to=$S/b\" > m1/jobs/new && cat m1/wait/1 | grep -x 'state done'",
        0,
        Said::Is("state done\n"),
    ),
    row("$K -o state=none m1", 32, Said::Has(&["m1: already mounted"])),
    // A daemon that lives and does not answer.
    row(
        "$K -o state=none $S/m2 && pids=$(pgrep -f \"state=none $S/m2\") && kill -STOP $pids\n\
         timeout 20 $K -o state=none m2; status=$?; kill -CONT $pids; until umount m2 2> /dev/null; do :; done; exit $status",
        32,
        Said::Has(&["m2: already mounted"]),
    ),
    row("$K -o state=none m2 && ls m1/jobs m2/jobs", 0, Said::Is("m1/jobs:\n1\nnew\n\nm2/jobs:\nnew\n")),
    row("grep -c \"$S/m[12] fuse.kcopyfs rw,nosuid,nodev,noexec\" /proc/self/mounts", 0, Said::Is("2\n")),
    row(
        "exec 3< m2/version; umount m2; status=$?; cat <&3; exit $status",
        32,
        Said::Has(&["busy", env!("CARGO_PKG_VERSION")]),
    ),
    row("(cd m2 && umount ../m2)", 32, Said::Has(&["busy"])),
    row("umount m2 && ls -A m2", 0, Said::Is("")),
    row(
        "$K -f -o state=none m2 2> /dev/null & pid=$!; until test -e m2/version; do :; done; exec 3< m2/version; umount -l m2; \
         ls -A m2; cat <&3 > /dev/null; exec 3<&-; wait $pid; echo ended $?",
        0,
        Said::Is("ended 0\n"),
    ),
    row(
        "$K -f -o state=none m2 2> /dev/null & pid=$!; until test -e m2/version; do :; done; kill -TERM $pid; wait $pid; \
         echo ended $?; ls -A m2",
        0,
        Said::Is("ended 0\n"),
    ),
    row(
        "$K -f -o state=none m2 2> /dev/null & pid=$!; until test -e m2/version; do :; done; kill -HUP $pid; cat m2/throttle; \
         kill -INT $pid; wait $pid; echo ended $?",
        0,
        Said::Is("100\nended 0\n"),
    ),
    row(
        "$K -f -o state=none m2 2> /dev/null & pid=$!; until test -e m2/version; do :; done; kill -KILL $pid; wait $pid; \
         while ls m2 2> err || grep -q abort err; do :; done; cat err; exit 2",
        2,
        Said::Has(&["Transport endpoint is not connected"]),
    ),
    row("$K -o state=none m2 && cat m2/throttle && grep -c \" $S/m2 \" /proc/self/mounts", 0, Said::Is("100\n1\n")),
    row("umount m1 m2; ls -A m1 m2", 0, Said::Is("m1:\n\nm2:\n")),
    // As mount(8) and fstab do it: in a name space of its own, where the program is installed.
    row(
        "unshare -m bash -c 'mount --bind bin /usr/local/sbin && mount -t fuse.kcopyfs none m1 -o state=none,pages=1024 && \
         grep -h \"^pages \" m1/engine && umount m1 && ls -A m1'",
        0,
        Said::Is("pages 1024\n"),
    ),
    row(
        "unshare -m bash -c 'mount --bind bin /usr/local/sbin && mount -t fuse.kcopyfs none $S/m1 -o state=none && \
         mount -o remount,throttle=50 $S/m1; status=$?; cat m1/throttle; umount m1; exit $status'",
        1,
        Said::Has(&["remount", "100\n"]),
    ),
    row(
        "echo \"none $S/m1 fuse.kcopyfs noauto,nofail,x-mount.mkdir,state=none,throttle=60 0 0\" > fstab; \
         unshare -m bash -c 'mount --bind bin /usr/local/sbin && mount -T fstab $S/m1 && cat m1/throttle && umount m1'",
        0,
        Said::Is("60\n"),
    ),
    row("$K", 1, Said::Has(&["MOUNTPOINT"])),
    row("$K -o page=5 m1", 1, Said::Has(&["did you mean pages=N"])),
    row("$K -o ro m1", 1, Said::Has(&["option ro"])),
    row("$K missing", 32, Said::Has(&["missing", "mkdir -p"])),
    row("$K a", 32, Said::Has(&["not a directory"])),
    row("$K --version", 0, Said::Has(&[env!("CARGO_PKG_VERSION")])),
    row("$K --help", 0, Said::Has(&["Options of -o", "pages=N"])),
    row("ls $M/jobs", 0, Said::Is("new\n")),
];
