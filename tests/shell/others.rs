//! What others try: nobody, a member of the group, a root of a user name space, and whoever was handed a descriptor.

use crate::table::{Bench, Row, Said};
use kcopyfs_support::need;

const PROGRAMS: &[(&str, &str)] = &[("bash", "bash"), ("setpriv", "util-linux"), ("unshare", "util-linux")];

/// `nobody CMD...`, `member CMD...`: as who is in no group, and as who is in group 6.
const WHO: &str = "nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups -- \"$@\"; }\n\
    member() { setpriv --reuid=65533 --regid=65534 --groups=6 -- \"$@\"; }\n\
    export -f nobody member\n";

fn run(options: &[&str], tries: &[(&str, bool, &str)]) {
    if !need::root() {
        return;
    }
    let Some(bench) = Bench::new(options, PROGRAMS) else { return };
    bench.script("bash", "slow one; chmod 0644 a b c; mkdir $M/clients/bulk").ok();
    let rows: Vec<Row> = tries
        .iter()
        .map(|(command, may, after)| Row {
            shell: "bash",
            // The row table holds what does not change; these are made once, and live as long as the test.
            command: Box::leak(format!("{WHO}{command}; test $? {} 0", if *may { "=" } else { "!=" }).into_boxed_str()),
            status: 0,
            said: Said::Any,
            made: 0,
            after: Box::leak((*after).to_owned().into_boxed_str()),
        })
        .collect();
    bench.run(&rows);
}

#[test]
fn without_allow_other_nobody_sees_anything_needs_root_and_fuse() {
    run(
        &[],
        &[
            ("nobody cat $M/version", false, ""),
            ("nobody ls $M", false, ""),
            ("nobody stat $M/jobs/1", false, ""),
            ("nobody bash -c 'echo 50 > $M/throttle'", false, "test $(< $M/throttle) = 100"),
            ("exec 3< $M/jobs/1/status; nobody cat <&3", false, ""),
            ("exec 3> $M/throttle; nobody bash -c 'echo 50 >&3'", false, "test $(< $M/throttle) = 100"),
            ("member ls $M", false, ""),
        ],
    );
}

#[test]
fn with_allow_other_others_look_and_never_write_needs_root_and_fuse() {
    run(
        &["allow_other"],
        &[
            ("nobody cat $M/version $M/jobs/1/status $M/summary $M/metrics $M/clients/default/pages", true, ""),
            ("nobody ls -lR $M", true, ""),
            ("nobody bash -c 'echo \"from=$S/a to=$S/b\" > $M/jobs/new'", false, ""),
            ("nobody cat $M/jobs/new", false, ""),
            ("nobody bash -c 'echo cancel > $M/jobs/1/control'", false, "test $(state 1) = running"),
            ("nobody bash -c 'echo 50 > $M/throttle'", false, "test $(< $M/throttle) = 100"),
            ("nobody bash -c 'echo 1 > $M/speed_max'", false, "test $(< $M/speed_max) = max"),
            ("nobody bash -c 'echo 1 > $M/jobs/1/speed_max'", false, "test $(< $M/jobs/1/speed_max) = 1"),
            ("nobody bash -c ': > $M/error_log'", false, ""),
            ("echo x > $M/throttle; nobody truncate -s 0 $M/error_log", false, "grep -q EINVAL $M/error_log"),
            ("nobody mkdir $M/clients/mine", false, "test ! -e $M/clients/mine"),
            ("nobody rmdir $M/clients/bulk", false, "test -e $M/clients/bulk"),
            ("nobody rmdir $M/jobs/1", false, ""),
            ("nobody chmod 666 $M/throttle", false, ""),
            ("nobody touch -d 2000-01-01 $M/throttle", false, ""),
            ("exec 3> $M/throttle; nobody bash -c 'echo 50 >&3'", false, "test $(< $M/throttle) = 100"),
            ("exec 3<> $M/jobs/new; nobody bash -c 'echo \"from=$S/a to=$S/b\" >&3'", false, ""),
            ("nobody bash -c 'exec 3< $M/throttle; echo 50 > /proc/self/fd/3'", false, "test $(< $M/throttle) = 100"),
            ("nobody unshare -Ur bash -c 'echo 50 > $M/throttle'", false, "test $(< $M/throttle) = 100"),
            ("nobody unshare -Ur bash -c 'echo \"from=$S/a to=$S/b\" > $M/jobs/new'", false, ""),
            ("nobody unshare -Ur mkdir $M/clients/mine", false, "test ! -e $M/clients/mine"),
            ("nobody umount $M", false, "test -e $M/version"),
        ],
    );
}

#[test]
fn with_gid_and_mode_the_group_writes_needs_root_and_fuse() {
    run(
        &["allow_other", "gid=6", "mode=0660"],
        &[
            ("member bash -c 'echo 50 > $M/throttle'", true, "test $(< $M/throttle) = 50"),
            ("member bash -c 'echo pause > $M/jobs/1/control'", true, "test $(state 1) = paused"),
            ("member bash -c 'echo 8K > $M/jobs/1/speed_max'", true, "test $(< $M/jobs/1/speed_max) = 8192"),
            (
                "member bash -c 'exec 3<>$M/jobs/new; echo \"from=$S/a to=$S/a\" >&3; read a <&3; [[ $a == error* ]]'",
                true,
                "",
            ),
            ("nobody bash -c 'echo 60 > $M/throttle'", false, "test $(< $M/throttle) = 50"),
            ("nobody bash -c 'echo resume > $M/jobs/1/control'", false, "test $(state 1) = paused"),
            ("nobody cat $M/jobs/new", false, ""),
            ("nobody unshare -Ur bash -c 'echo 60 > $M/throttle'", false, "test $(< $M/throttle) = 50"),
            ("exec 3> $M/throttle; member bash -c 'echo 60 >&3'", false, "test $(< $M/throttle) = 50"),
            ("exec 3> $M/throttle; nobody bash -c 'echo 60 >&3'", false, "test $(< $M/throttle) = 50"),
            ("member mkdir $M/clients/mine", false, "test ! -e $M/clients/mine"),
            ("member rmdir $M/clients/bulk", false, "test -e $M/clients/bulk"),
            ("member chmod 666 $M/throttle", false, ""),
            ("echo 70 > $M/throttle", true, "test $(< $M/throttle) = 70"),
        ],
    );
}
