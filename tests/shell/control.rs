//! Control files, clients, and what cannot be done to the tree.

use crate::table::{Bench, Row, Said};

#[test]
fn control_files_are_turned_in_every_way_needs_fuse() {
    let Some(bench) = Bench::new(&[], &[("bash", "bash"), ("dash", "dash"), ("python3", "python3")]) else { return };
    bench.run(ROWS);
}

const fn row(shell: &'static str, command: &'static str, status: i32, said: Said, after: &'static str) -> Row {
    Row { shell, command, status, said, made: 0, after }
}

const NOTHING: Said = Said::Is("");
const INVALID: Said = Said::Has(&["write error: Invalid argument"]);
const NOT_PERMITTED: Said = Said::Has(&["Operation not permitted"]);

pub(crate) const ROWS: &[Row] = &[
    // Plain integers come back; units and max go in.
    row("bash", "echo 50 > $M/throttle; cat $M/throttle", 0, Said::Is("50\n"), ""),
    row("dash", "echo -n 100 > $M/throttle; read t < $M/throttle; echo $t", 0, Said::Is("100\n"), ""),
    row("bash", "echo 70 | tee $M/throttle", 0, Said::Is("70\n"), "test $(< $M/throttle) = 70"),
    row(
        "bash",
        "python3 -c 'import os\n\
         f = open(os.environ[\"M\"] + \"/throttle\", \"r+\")\n\
         print(f.read().strip()); f.seek(0); f.write(\"80\"); f.flush(); f.seek(0); print(f.read().strip())'",
        0,
        Said::Is("70\n80\n"),
        "",
    ),
    row(
        "bash",
        "echo 100 > v; dd if=v of=$M/throttle status=none; cp v $M/throttle; cat $M/throttle",
        0,
        Said::Is("100\n"),
        "",
    ),
    row(
        "bash",
        "echo 0 > $M/throttle",
        1,
        INVALID,
        "test $(< $M/throttle) = 100; grep -q 'give 1 to 100' $M/error_log",
    ),
    row("bash", "echo 1K > $M/throttle", 1, INVALID, "test $(< $M/throttle) = 100"),
    row(
        "bash",
        "printf '50\\n60\\n' > v; cat v > $M/throttle",
        1,
        Said::Has(&["Invalid argument"]),
        "test $(< $M/throttle) = 100",
    ),
    row("bash", "echo 64M > $M/speed_max; cat $M/speed_max", 0, Said::Is("67108864\n"), ""),
    row(
        "bash",
        "cat $M/speed_max > v; echo max > $M/speed_max; cat v > $M/speed_max; cat $M/speed_max; echo max > $M/speed_max",
        0,
        Said::Is("67108864\n"),
        "test $(< $M/speed_max) = max",
    ),
    row(
        "bash",
        "echo fast > $M/speed_max",
        1,
        INVALID,
        "tail -n 3 $M/error_log | grep -q 'file=speed_max errno=EINVAL .*write bytes per second, as 64M, or max'",
    ),
    row("bash", "echo 0 > $M/speed_max", 1, INVALID, "test $(< $M/speed_max) = max"),
    row(
        "bash",
        ": > $M/throttle; truncate -s 0 $M/throttle; touch $M/throttle; cat $M/throttle",
        0,
        Said::Is("100\n"),
        "",
    ),
    // A job's own.
    Row {
        made: 1,
        ..row("bash", "slow one; echo pause > $M/jobs/$(last)/control", 0, NOTHING, "test $(state $(last)) = paused")
    },
    row("dash", "echo resume > $M/names/one/control", 0, NOTHING, "test $(state $(last)) = running"),
    row(
        "bash",
        "printf pause > $M/names/one/control; printf pause > $M/names/one/control",
        0,
        NOTHING,
        "test $(state $(last)) = paused",
    ),
    row(
        "bash",
        "echo Pause > $M/names/one/control",
        1,
        INVALID,
        "tail -n 3 $M/error_log | grep -q 'file=jobs/.*/control .*pause resume cancel'",
    ),
    row("bash", "cat $M/names/one/control", 1, Said::Has(&["Permission denied"]), ""),
    row(
        "bash",
        "cat $M/names/one/speed_max; echo 8K > $M/names/one/speed_max; cat $M/names/one/speed_max",
        0,
        Said::Is("1\n8192\n"),
        "",
    ),
    row("bash", "rmdir $M/jobs/$(last)", 1, Said::Has(&["Device or resource busy"]), "test -d $M/jobs/$(last)"),
    row("bash", "rm -rf $M/jobs/$(last)", 1, NOT_PERMITTED, "test $(state $(last)) = paused"),
    row(
        "bash",
        "echo cancel > $M/names/one/control",
        0,
        NOTHING,
        "ended $(last) || true; test $(state $(last)) = cancelled",
    ),
    row("bash", "echo resume > $M/names/one/control", 1, INVALID, "tail -n 3 $M/error_log | grep -q 'has ended'"),
    row(
        "bash",
        "n=$(last); rmdir $M/jobs/$n; rmdir $M/jobs/$n",
        1,
        Said::Has(&["No such file or directory"]),
        "test ! -e $M/names/one -a ! -L $M/names/one",
    ),
    // Clients.
    row(
        "bash",
        "mkdir $M/clients/bulk; ls $M/clients; cat $M/clients/bulk/pages",
        0,
        Said::Is("bulk\ndefault\n128\n"),
        "",
    ),
    row(
        "bash",
        "echo 256 > $M/clients/bulk/pages; cat $M/clients/bulk/pages; head -n 1 $M/clients/bulk/stat",
        0,
        Said::Is("256\npages 256\n"),
        "",
    ),
    row(
        "bash",
        "echo 1 > $M/clients/bulk/pages",
        1,
        INVALID,
        "tail -n 3 $M/error_log | grep -q 'file=clients/bulk/pages .*at least 128'",
    ),
    row(
        "bash",
        "echo 100M > $M/clients/bulk/pages",
        1,
        Said::Has(&["Cannot allocate memory"]),
        "test $(< $M/clients/bulk/pages) = 256",
    ),
    row("bash", "mkdir $M/clients/bulk", 1, Said::Has(&["File exists"]), ""),
    row(
        "bash",
        "mkdir \"$M/clients/no blanks\"",
        1,
        Said::Has(&["Invalid argument"]),
        "tail -n 3 $M/error_log | grep -q 'file=clients errno=EINVAL'",
    ),
    row(
        "bash",
        "mkdir $M/clients/$(printf '%065d' 0)",
        1,
        Said::Has(&["Invalid argument"]),
        "mkdir $M/clients/$(printf '%064d' 0); rmdir $M/clients/0*",
    ),
    Row {
        made: 1,
        ..row(
            "bash",
            "echo \"from=$S/a to=$S/b client=bulk paused\" > $M/jobs/new; rmdir $M/clients/bulk",
            1,
            Said::Has(&["Device or resource busy"]),
            "grep -q '^client bulk$' $M/jobs/$(last)/status; grep -q '^jobs_live 1$' $M/clients/bulk/stat",
        )
    },
    row(
        "bash",
        "echo cancel > $M/jobs/$(last)/control; ended $(last); rmdir $M/clients/bulk; ls $M/clients",
        0,
        Said::Is("default\n"),
        "",
    ),
    row("bash", "rmdir $M/clients/default", 1, Said::Has(&["Device or resource busy"]), ""),
    row(
        "bash",
        "echo \"from=$S/a to=$S/b client=bulk\" > $M/jobs/new",
        1,
        Said::Has(&["No such file or directory"]),
        "tail -n 3 $M/error_log | grep -q 'mkdir clients/bulk first'",
    ),
    // The log.
    row("bash", "test -n \"$(cat $M/error_log)\" && : > $M/error_log; cat $M/error_log", 0, NOTHING, ""),
    row(
        "bash",
        "echo x > $M/throttle; truncate -s 0 $M/error_log; cat $M/error_log",
        0,
        Said::Has(&["Invalid argument"]),
        "test -z \"$(cat $M/error_log)\"",
    ),
    row(
        "bash",
        "for i in {1..20}; do echo $i$i$i > $M/throttle; done; grep -c errno= $M/error_log",
        0,
        Said::Has(&["16\n"]),
        "! grep -q 444 $M/error_log; grep -q 555 $M/error_log; echo clear > $M/error_log; test -z \"$(cat $M/error_log)\"",
    ),
    // The tree itself is not theirs.
    row("bash", "mkdir $M/jobs/7 $M/more", 1, NOT_PERMITTED, ""),
    row("bash", "rmdir $M/state/done", 1, NOT_PERMITTED, ""),
    row("bash", "rmdir $M/README", 1, Said::Has(&["Not a directory"]), ""),
    row("bash", "rm -f $M/README", 1, NOT_PERMITTED, "test -s $M/events -o -e $M/README"),
    row("bash", "mv $M/jobs $M/work", 1, NOT_PERMITTED, ""),
    row("bash", "chmod 666 $M/throttle", 1, NOT_PERMITTED, ""),
    row("bash", "chown 1:1 $M/throttle", 1, NOT_PERMITTED, ""),
    row("bash", "sed -i s/100/50/ $M/throttle", 4, Said::Has(&["Permission denied"]), "test $(< $M/throttle) = 100"),
    row("bash", "echo x > $M/version", 1, Said::Has(&["Permission denied"]), ""),
    row("bash", "mkfifo $M/pipe", 1, NOT_PERMITTED, ""),
    row("dash", "echo x > $M/nothing", 2, Said::Has(&["Permission denied"]), ""),
    // A file of the tree, but not there.
    row(
        "bash",
        "echo cancel > $M/jobs/control",
        1,
        Said::Has(&["No such file or directory"]),
        "grep -q 'file=jobs errno=ENOENT there is no control in that directory; it is jobs/ID/control' $M/error_log",
    ),
    row("dash", "cd $M; echo cancel > control", 2, Said::Has(&["control"]), ""),
];
