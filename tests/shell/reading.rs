//! Reading: none hangs, none lies.

use crate::table::{Bench, Row, Said};

#[test]
fn the_tree_is_read_in_every_way_needs_fuse() {
    let programs =
        [("bash", "bash"), ("dash", "dash"), ("python3", "python3"), ("watch", "procps"), ("script", "bsdutils")];
    let Some(bench) = Bench::new(&[], &programs) else { return };
    // Job 1 is done, job 2 was cancelled, job 3 runs for long, job 4 is paused.
    let jobs = bench.script(
        "bash",
        "echo \"from=$S/a to=$S/b name=good\" > $M/jobs/new; ended 1; slow long; echo cancel > $M/jobs/2/control; ended 2; \
         slow long; echo \"zero to=$S/c,0,64K paused\" > $M/jobs/new; ls $M/jobs | wc -l",
    );
    assert_eq!(jobs.ok(), "5\n");
    bench.run(ROWS);
}

const fn row(shell: &'static str, command: &'static str, status: i32, said: Said) -> Row {
    Row { shell, command, status, said, made: 0, after: "" }
}

const fn is(shell: &'static str, command: &'static str, said: &'static str) -> Row {
    row(shell, command, 0, Said::Is(said))
}

pub(crate) const ROWS: &[Row] = &[
    row("bash", "cat $M/*", 1, Said::Has(&["jobs/new", "kcopyfs_jobs_made_total 4", "Is a directory"])),
    row(
        "bash",
        "cat $M/jobs/[12]/* $M/jobs/*/status",
        1,
        Said::Has(&["state done", "state running", "control: Permission denied"]),
    ),
    row("bash", "head -n1 $M/jobs/*/*", 1, Said::Has(&["state done", "control", "Permission denied"])),
    row("bash", "grep -r . $M", 2, Said::Has(&["jobs/1/status:state done", "jobs/3/status:state running", "version:"])),
    row(
        "bash",
        "grep -rl '^state done$' $M/jobs 2> /dev/null | grep -o 'jobs/.*'",
        0,
        Said::Is("jobs/1/status\njobs/1/wait\n"),
    ),
    row("bash", "find $M -ls", 0, Said::Has(&["/jobs/1/dest.0 -> ", "/state/done/1 -> ../../jobs/1", "/wait/4"])),
    is("bash", "find $M/jobs -mindepth 1 -maxdepth 1 -type d -printf '%f\\n' | sort -n", "1\n2\n3\n4\n"),
    is("bash", "find $M/state -type l -printf '%P\\n' | sort", "cancelled/2\ndone/1\npaused/4\nrunning/3\n"),
    row("bash", "ls -lR $M", 0, Said::Has(&["good -> ../jobs/1", "long -> ../jobs/3", "65536"])),
    row("bash", "tar cf - $M 2> /dev/null | tar tf - | grep -c jobs/1/", 0, Said::Is("15\n")),
    is(
        "bash",
        "stat -c '%a %F %s' $M/jobs/1 $M/jobs/new $M/jobs/1/status",
        "755 directory 65536\n600 regular empty file 0\n444 regular empty file 0\n",
    ),
    is("bash", "test $(wc -c < $M/jobs/1/spec) = $(cat $M/jobs/1/spec | wc -c) && wc -l < $M/jobs/1/status", "24\n"),
    row("bash", "test -s $M/jobs/1/status", 1, Said::Is("")),
    is(
        "bash",
        "test -s $M/events && test -f $M/version && test -d $M/jobs/1 && test -L $M/names/good && echo yes",
        "yes\n",
    ),
    is("bash", "cmp $M/jobs/1/source a && cmp $M/jobs/1/dest.0 a && echo same", "same\n"),
    is(
        "dash",
        "while read -r key value; do case $key in state|percent) echo $value;; esac; done < $M/jobs/1/status",
        "done\n100.00\n",
    ),
    is(
        "bash",
        "while read -r key value; do if [[ $key == state ]]; then echo $value; fi; done < $M/jobs/4/status",
        "paused\n",
    ),
    is(
        "bash",
        "mapfile -t lines < $M/jobs/1/status; echo ${#lines[@]} ${lines[0]}; echo $(< $M/version)",
        concat!("24 state done\n", env!("CARGO_PKG_VERSION"), "\n"),
    ),
    is(
        "bash",
        "tail -n 1 $M/jobs/1/status; awk '$1 == \"copied\" { print $2 }' $M/jobs/1/status",
        "limited_by -\n65536\n",
    ),
    is("bash", "dd if=$M/jobs/1/status bs=1 status=none | cmp - <(cat $M/jobs/1/status) && echo same", "same\n"),
    is("bash", "cp $M/jobs/1/status out && cmp out $M/jobs/1/status && echo same", "same\n"),
    is("bash", "diff <(sort $M/jobs/1/dests) <(cat $M/jobs/1/dests) && grep -c state=done $M/jobs/1/dests", "1\n"),
    is("bash", "cat $M/jobs/1/errors; cat < $M/jobs/new; cat $M/jobs/1/speed_max", "max\n"),
    is(
        "bash",
        "ls $M/state; ls $M/state/failed",
        "cancelled\ndegraded\ndone\nfailed\nflushing\nheld\npaused\nqueued\nrunning\nverifying\n",
    ),
    is(
        "bash",
        "readlink $M/names/good $M/state/paused/4; sed -n 1p $M/state/paused/4/status",
        "../jobs/1\n../../jobs/4\nstate paused\n",
    ),
    is(
        "bash",
        "ls -A $M/jobs | sort -n | tr '\\n' ' '; cd $M/names/good && pwd -P | grep -o 'jobs/.*'",
        "new 1 2 3 4 jobs/1\n",
    ),
    row(
        "bash",
        "ls $M/jobs/99 $M/jobs/01 $M/state/1 $M/names/none",
        2,
        Said::Has(&["99", "01", "state/1", "names/none"]),
    ),
    row("bash", "df $M; du -s $M", 0, Said::Has(&["tree"])),
    is(
        "bash",
        "python3 -c 'import os, pathlib\n\
         m = pathlib.Path(os.environ[\"M\"])\n\
         print(sorted(os.listdir(m / \"jobs\")), (m / \"version\").read_text() == open(m / \"version\").read())'",
        "['1', '2', '3', '4', 'new'] True\n",
    ),
    row(
        "bash",
        "cat $M/summary",
        0,
        Said::Has(&[
            "3 long: copy, max 1 B/s",
            " of 64.0 KiB",
            "4: paused",
            "zeros -> ",
            ": 1 running, 1 paused\n",
            "\nended: ",
        ]),
    ),
    row(
        "bash",
        "timeout 3 script -qec \"watch -n1 -t cat $M/summary\" /dev/null < /dev/null; test $? = 124",
        0,
        Said::Has(&["3 long: copy"]),
    ),
    row("bash", "head -n1 $M/wait/3; head -n1 $M/wait/1", 0, Said::Has(&["[", "]  ", " left  copy\n", "state done"])),
    row(
        "bash",
        "while read -r word rest < $M/README; do echo $word; break; done; grep -c ' 0[0-7]* ' $M/README",
        0,
        Said::Has(&["kcopyfs:"]),
    ),
    is(
        "bash",
        "exec 3< $M/jobs/1/status; read -r one <&3; read -r two <&3; echo $one, $two",
        "state done, read_err 0\n",
    ),
];
