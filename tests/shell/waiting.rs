//! Waiting for a job's end, and being told of changes.

use crate::table::{Bench, Row, Said};

#[test]
fn ends_are_waited_for_in_every_way_needs_fuse() {
    let Some(bench) = Bench::new(&[], &[("bash", "bash"), ("dash", "dash"), ("python3", "python3")]) else { return };
    bench.run(ROWS);
}

/// Of a job that is dismissed as soon as it ends, whoever waits for it hears all the same.
#[test]
fn the_end_is_told_also_where_nothing_is_kept_needs_fuse() {
    let Some(bench) = Bench::new(&["keep=0"], &[("bash", "bash")]) else { return };
    bench.run(&[
        row(
            "bash",
            "echo \"from=$S/a to=$S/b paused\" > $M/jobs/new\n\
             { cat $M/wait/1 && echo well; } | { read -r line; echo \"$line\"; echo resume > $M/jobs/1/control; cat; }; ls $M/jobs",
            0,
            Said::Has(&["0.00 %  paused\n", "\nstate done\n", "error -\n", "limited_by -\nwell\nnew\n"]),
            1,
            "",
        ),
        row(
            "bash",
            "echo \"from=$S/a to=$S/b paused\" > $M/jobs/new; exec 3< $M/wait/2; echo cancel > $M/jobs/2/control\n\
             while test -e $M/jobs/2; do :; done; cat <&3",
            1,
            Said::Has(&["state cancelled\n", "Operation canceled"]),
            1,
            "",
        ),
    ]);
}

const fn row(
    shell: &'static str,
    command: &'static str,
    status: i32,
    said: Said,
    made: u64,
    after: &'static str,
) -> Row {
    Row { shell, command, status, said, made, after }
}

pub(crate) const ROWS: &[Row] = &[
    row(
        "bash",
        "echo \"from=$S/a to=$S/b paused\" > $M/jobs/new; id=$(last)\n\
         { cat $M/wait/$id && echo all is well; } | { read -r line; echo \"$line\"; echo resume > $M/jobs/$id/control; cat; }",
        0,
        Said::Has(&["0.00 %  paused\n", "\nstate done\n", "error -\n", "limited_by -\nall is well\n"]),
        1,
        "",
    ),
    row(
        "dash",
        "while read -r key value; do test $key = state && echo $value; done < $M/wait/1; true",
        0,
        Said::Is("done\n"),
        0,
        "",
    ),
    row(
        "bash",
        "slow one; (until test -e $M/state/running/2; do :; done; echo cancel > $M/jobs/2/control) & cat $M/wait/2 && echo well",
        1,
        Said::Has(&["state cancelled", "Operation canceled"]),
        1,
        "",
    ),
    // Ctrl-C on a terminal, once the first line is there; whoever runs the tests in the background has it ignored.
    row(
        "bash",
        "slow one; python3 -c 'import os, pty, signal, sys\n\
         pid, terminal = pty.fork()\n\
         if pid == 0: signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(\"cat\", [\"cat\", sys.argv[1]])\n\
         said = b\"\"\n\
         while b\" left\" not in said: said += os.read(terminal, 4096)\n\
         os.write(terminal, b\"\\x03\")\n\
         print(os.WTERMSIG(os.waitpid(pid, 0)[1]))' $M/wait/$(last)",
        0,
        Said::Is("2\n"),
        1,
        "test $(state $(last)) = running",
    ),
    row("bash", "timeout 1 cat $M/wait/$(last)", 124, Said::Has(&["%  ", " left  copy\n"]), 0, ""),
    row("bash", "cat $M/wait/$(last) > /dev/null & kill -KILL $!; wait $!", 137, Said::Any, 0, ""),
    row(
        "bash",
        "dd if=$M/wait/$(last) of=/dev/null iflag=nonblock",
        1,
        Said::Has(&["Resource temporarily unavailable"]),
        0,
        "",
    ),
    row("bash", "cd $M/wait && head -qn1 * | wc -l", 0, Said::Is("3\n"), 0, ""),
    // tail -f through a job's life: every state, and nothing else of that job.
    row(
        "bash",
        "exec 3< <(exec tail -n 0 -f $M/events); tail=$!\n\
         until test \"$(readlink /proc/$tail/exe)\" != \"$(readlink /proc/$$/exe)\" && test -e /proc/$tail/fd/3; do :; done\n\
         echo \"from=$S/a to=$S/b paused\" > $M/jobs/new; echo resume > $M/jobs/$(last)/control\n\
         while read -r time job old new reason <&3; do test $job = $(last) && echo $old $new; test $new = done && break; done\n\
         kill $tail",
        0,
        Said::Has(&["paused queued\nqueued running\nrunning flushing\nflushing done\n"]),
        1,
        "",
    ),
    row(
        "bash",
        "python3 -c 'import os, select\n\
         m, s = os.environ[\"M\"], os.environ[\"S\"]\n\
         log = os.open(m + \"/events\", os.O_RDONLY)\n\
         while os.read(log, 65536): pass\n\
         poll = select.poll(); poll.register(log, select.POLLIN)\n\
         print(poll.poll(50))\n\
         open(m + \"/jobs/new\", \"w\").write(f\"from={s}/a to={s}/b\\n\")\n\
         print(len(poll.poll(60000)), b\" - queued\" in os.read(log, 65536))'",
        0,
        Said::Is("[]\n1 True\n"),
        1,
        "ended $(last)",
    ),
    // Who waits for edges is told of each, without asking in between.
    row(
        "bash",
        "python3 -c 'import os, select\n\
         m, s = os.environ[\"M\"], os.environ[\"S\"]\n\
         log = os.open(m + \"/events\", os.O_RDONLY)\n\
         while os.read(log, 65536): pass\n\
         edges = select.epoll(); edges.register(log, select.EPOLLIN | select.EPOLLET)\n\
         for job in range(3):\n\
         \x20open(m + \"/jobs/new\", \"w\").write(f\"from={s}/a to={s}/b\\n\")\n\
         \x20said = b\"\"\n\
         \x20while b\"flushing done\" not in said: print(len(edges.poll(60)) == 1 or exit(9)); said += os.read(log, 65536)' | uniq",
        0,
        Said::Is("True\n"),
        3,
        "",
    ),
    row(
        "bash",
        "grep -c ' - queued$' $M/events; tail -n 1 $M/events | cut -d' ' -f3-",
        0,
        Said::Has(&["flushing done"]),
        0,
        "",
    ),
    row(
        "bash",
        "test $(stat -c %s $M/events) = $(cat $M/events | wc -c) && echo true size",
        0,
        Said::Is("true size\n"),
        0,
        "",
    ),
    // Also at once after it was looked at, which the kernel remembers for a second.
    row(
        "bash",
        "for i in 1 2 3; do stat $M/events > /dev/null; echo \"from=$S/a to=$S/b\" > $M/jobs/new; ended $(last)\n\
         test $(stat -c %s $M/events) = $(cat $M/events | wc -c) || echo wrong; done",
        0,
        Said::Is(""),
        3,
        "",
    ),
    row(
        "bash",
        "for i in 1 2 3; do echo \"from=$S/a to=$S/b paused\" > $M/jobs/new; id=$(last); stat -c %s $M/jobs/$id\n\
         echo resume > $M/jobs/$id/control; stat $M/jobs/$id > /dev/null; ended $id; stat -c %s $M/jobs/$id; done",
        0,
        Said::Is("0\n65536\n0\n65536\n0\n65536\n"),
        3,
        "",
    ),
    row(
        "bash",
        "echo cancel > $M/names/one/control; cat $M/wait/3 > /dev/null",
        1,
        Said::Has(&["Operation canceled"]),
        0,
        "",
    ),
    // What only compares has a speed and a time left, too.
    row(
        "bash",
        "truncate -s 64M big big.2; echo \"verify from=$S/big to=$S/big.2 speed_max=1M\" > $M/jobs/new; id=$(last)\n\
         until grep -q '^eta_usec [1-9]' $M/jobs/$id/status; do ! test -e $M/state/done/$id || break; done\n\
         test -e $M/state/verifying/$id && echo moves; grep -c '^speed [1-9]' $M/jobs/$id/status\n\
         echo max > $M/jobs/$id/speed_max; ended $id",
        0,
        Said::Is("moves\n1\n"),
        1,
        "",
    ),
    row("bash", "cat $M/wait/99", 1, Said::Has(&["No such file or directory"]), 0, ""),
];
