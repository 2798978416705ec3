//! Specs, written in every way there is.

use crate::table::{Bench, Row, Said};

#[test]
fn specs_are_written_in_every_way_needs_fuse() {
    let programs = [("bash", "bash"), ("dash", "dash"), ("python3", "python3"), ("perl", "perl-base"), ("awk", "mawk")];
    let Some(bench) = Bench::new(&[], &programs) else { return };
    bench.run(ROWS);
}

const fn ok(shell: &'static str, command: &'static str, made: u64, after: &'static str) -> Row {
    Row { shell, command, status: 0, said: Said::Is(""), made, after }
}

const fn bad(
    shell: &'static str,
    command: &'static str,
    status: i32,
    said: &'static [&'static str],
    after: &'static str,
) -> Row {
    Row { shell, command, status, said: Said::Has(said), made: 0, after }
}

pub(crate) const ROWS: &[Row] = &[
    // The plain ways.
    ok("bash", "fresh b; echo \"from=$S/a to=$S/b\" > $M/jobs/new", 1, "ended $(last); cmp a b"),
    ok("dash", "fresh b; echo \"from=$S/a to=$S/b\" > $M/jobs/new", 1, "ended $(last); cmp a b"),
    ok("bash", "fresh b; echo -n \"from=$S/a to=$S/b\" > $M/jobs/new", 1, "ended $(last); cmp a b"),
    ok("bash", "fresh b; echo \"from=$S/a to=$S/b\" >> $M/jobs/new", 1, "ended $(last); cmp a b"),
    ok("bash", "fresh b; echo \"from=$S/a to=$S/b\" >| $M/jobs/new", 1, "ended $(last); cmp a b"),
    ok(
        "bash",
        "fresh b; fresh c; printf 'from=%s to=%s\\n' $S/a $S/b $S/a $S/c > $M/jobs/new",
        2,
        "ended $(last); ended $(($(last) - 1)); cmp a b; cmp a c",
    ),
    ok(
        "dash",
        "fresh b; fresh c\ncat > $M/jobs/new <<END\n# two copies\n\nfrom=$S/a to=$S/b\nfrom=$S/a to=$S/c\nEND",
        2,
        "ended $(last); ended $(($(last) - 1)); cmp a b; cmp a c",
    ),
    ok("bash", "{ echo \"from=$S/a to=$S/b\"; echo \"from=$S/a to=$S/c\"; } > $M/jobs/new", 2, "ended $(last)"),
    ok(
        "bash",
        "truncate -s 4M z; for i in {0..999}; do echo \"zero to=$S/z,$((i * 8)),8\"; done > specs; cat specs > $M/jobs/new",
        1000,
        "for i in $(seq $(($(last) - 999)) $(last)); do ended $i; test $(state $i) = done; done",
    ),
    Row {
        shell: "bash",
        command: "fresh b; echo \"from=a to=b\" | sed \"s,=,=$S/,g\" | tee $M/jobs/new | wc -l",
        status: 0,
        said: Said::Is("1\n"),
        made: 1,
        after: "ended $(last); cmp a b",
    },
    ok("bash", "fresh b; echo \"from=$S/a to=$S/b\" > spec; cp spec $M/jobs/new", 1, "ended $(last); cmp a b"),
    ok("bash", "fresh b; dd if=spec of=$M/jobs/new status=none", 1, "ended $(last); cmp a b"),
    ok("bash", "yes \"from=$S/a to=$S/b paused\" | head -n 1 > $M/jobs/new", 1, "test $(state $(last)) = paused"),
    ok(
        "bash",
        "n=$(last); echo cancel > $M/jobs/$n/control; cat $M/jobs/$((n - 1))/spec > $M/jobs/new",
        1,
        "n=$(last); ended $n; cmp $M/jobs/$n/spec $M/jobs/$((n - 2))/spec",
    ),
    ok(
        "bash",
        "awk -v s=$S -v m=$M 'BEGIN { print \"from=\" s \"/a to=\" s \"/c\" > (m \"/jobs/new\") }'",
        1,
        "ended $(last)",
    ),
    ok(
        "bash",
        "perl -e 'open F, \">\", \"$ENV{M}/jobs/new\" or die; print F \"from=$ENV{S}/a to=$ENV{S}/c\\n\"; close F or die'",
        1,
        "ended $(last)",
    ),
    ok(
        "bash",
        "python3 -c 'import os; s = os.environ[\"S\"]; open(os.environ[\"M\"] + \"/jobs/new\", \"w\").write(f\"from={s}/a to={s}/c\\n\")'",
        1,
        "ended $(last)",
    ),
    ok("bash", "printf '# nothing\\n\\n   \\n' > $M/jobs/new", 0, ""),
    ok("bash", ": > $M/jobs/new; touch $M/jobs/new; truncate -s 100 $M/jobs/new", 0, ""),
    // The number comes back to who wrote.
    Row {
        shell: "bash",
        command: "n=$(last); exec 3<> $M/jobs/new; echo \"from=$S/a to=$S/b\" >&3; echo \"from=$S/a to=$S/c\" >&3; \
                  read one <&3; read two <&3; echo $((one - n)) $((two - n))",
        status: 0,
        said: Said::Is("1 2\n"),
        made: 2,
        after: "ended $(last)",
    },
    Row {
        shell: "dash",
        command: "n=$(last); exec 3<> $M/jobs/new; echo \"from=$S/a to=$S/b\" >&3; read one <&3; \
                  echo \"from=$S/a to=$S/c\" >&3; read two <&3; echo $((one - n)) $((two - n))",
        status: 0,
        said: Said::Is("1 2\n"),
        made: 2,
        after: "ended $(last)",
    },
    Row {
        shell: "bash",
        command: "exec 3<> $M/jobs/new; echo \"from=$S/nothing to=$S/c\" >&3; read reason <&3; echo \"$reason\"",
        status: 0,
        said: Said::Has(&["write error: No such file or directory", "error: ", "/nothing"]),
        made: 0,
        after: "",
    },
    Row {
        shell: "bash",
        command: "python3 -c 'import os\ns, n = os.environ[\"S\"], int(os.popen(\"ls $M/jobs | sort -n | tail -n1\").read())\n\
                  f = open(os.environ[\"M\"] + \"/jobs/new\", \"r+b\", buffering=0)\n\
                  f.write(f\"from={s}/a to={s}/c\\n\".encode()); print(int(f.read(100)) - n, f.read(100))'",
        status: 0,
        said: Said::Is("1 b''\n"),
        made: 1,
        after: "ended $(last)",
    },
    // A spec that is cut in two never runs cut: what stands before the cut names a file that is there.
    ok(
        "bash",
        "fresh cut; fresh cutting; line cutting cut 512 | dd of=$M/jobs/new bs=512 status=none",
        1,
        "ended $(last); cmp a cutting; cmp cut <(head -c 64K /dev/zero)",
    ),
    ok(
        "bash",
        "fresh cut; fresh cutting; printf '%s\\n' \"$(line cutting cut 4096)\" > $M/jobs/new",
        1,
        "ended $(last); cmp a cutting; cmp cut <(head -c 64K /dev/zero)",
    ),
    ok(
        "dash",
        "fresh cut; fresh cutting; line cutting cut 4096 > spec; echo >> spec; dd if=spec of=$M/jobs/new bs=4096 status=none",
        1,
        "ended $(last); cmp a cutting; cmp cut <(head -c 64K /dev/zero)",
    ),
    bad(
        "bash",
        "fresh cut; line cutting cut 512 | dd of=$M/jobs/new bs=4 status=none",
        1,
        &["Invalid argument"],
        "cmp cut <(head -c 64K /dev/zero)",
    ),
    bad(
        "bash",
        "line cutting cut 512 | head -c 512 | dd of=$M/jobs/new bs=512 status=none",
        0,
        &[],
        "cmp cut <(head -c 64K /dev/zero); until grep -q 'closed within a line' $M/error_log; do :; done",
    ),
    // What is refused is refused whole, and says why.
    bad(
        "bash",
        "echo \"from=$S/a to=$S/missing\" > $M/jobs/new",
        1,
        &["echo: write error: No such file or directory"],
        "tail -n 3 $M/error_log | grep -q 'file=jobs/new errno=ENOENT .*missing'; tail -n 1 $M/error_log | grep -q '^  *^^*$'",
    ),
    bad(
        "dash",
        "echo \"form=$S/a to=$S/b\" > $M/jobs/new",
        1,
        &["I/O error"],
        "tail -n 3 $M/error_log | grep -q 'errno=EINVAL .*did you mean `from='",
    ),
    bad(
        "bash",
        "printf 'from=%s to=%s\\n' $S/a $S/b $S/a $S/missing > bad; cat bad > $M/jobs/new",
        1,
        &["cat: write error: No such file or directory"],
        "",
    ),
    bad(
        "bash",
        "echo \"from=a to=b\" > $M/jobs/new",
        1,
        &["Invalid argument"],
        "tail -n 3 $M/error_log | grep -q absolute",
    ),
    bad("bash", "echo \"from=$S/a to=$S/a\" > $M/jobs/new", 1, &["Invalid argument"], ""),
    bad("bash", "echo \"from=/dev/null to=$S/b\" > $M/jobs/new", 1, &["Block device required"], ""),
    bad("bash", "printf 'from=%s/a to=%s/b\\r\\n' $S $S > $M/jobs/new", 1, &["Invalid argument"], ""),
    bad("bash", "echo \"from=$S/a,1T to=$S/b\" > $M/jobs/new", 1, &["No space left on device"], ""),
    // What is no way to write one.
    bad("bash", "set -C; echo \"from=$S/a to=$S/b\" > $M/jobs/new", 1, &["cannot overwrite existing file"], ""),
    bad("bash", "sed -i s/a/b/ $M/jobs/new", 4, &["Permission denied"], ""),
    bad("bash", "cp spec moved; mv moved $M/jobs/new", 1, &["Operation not permitted"], "test -e $M/jobs/new"),
    bad("bash", "cp spec $M/jobs/another", 1, &["Permission denied"], ""),
    bad("bash", "ln -s $S/a $M/jobs/link; ln $M/jobs/new $M/jobs/link", 1, &["Operation not permitted"], ""),
    bad("bash", "touch $M/jobs/nothing", 1, &["Permission denied"], ""),
    bad("bash", "rm -f $M/jobs/new", 1, &["Operation not permitted"], "test -e $M/jobs/new"),
];
