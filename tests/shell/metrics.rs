//! `metrics`, judged by the parsers of those who read it.

use std::process::Command;

use crate::table::Bench;
use kcopyfs_support::need;

const PARSE: &str = "import sys\n\
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse\n\
    print(len([sample for family in parse(sys.stdin.read()) for sample in family.samples]))";

fn bench() -> Option<Bench> {
    let bench = Bench::new(&[], &[("bash", "bash")])?;
    let script = "fresh 'odd\"\\name'; slow one; \
        printf '%s\\n' \"from=$S/a to='$S/odd\\\"\\\\name' paused\" > $M/jobs/new; ls $M/state/paused | wc -l; cat $M/metrics > metrics";
    assert_eq!(bench.script("bash", script).ok(), "1\n");
    Some(bench)
}

#[test]
fn an_open_metrics_parser_takes_the_metrics_needs_fuse() {
    let Some(bench) = bench() else { return };
    let has_parser = |python: &&str| {
        Command::new(python)
            .args(["-c", "import prometheus_client.openmetrics"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    let Some(python) = ["python3", "/usr/bin/python3"].into_iter().find(has_parser) else {
        need::skip("no OpenMetrics parser is installed (Debian package python3-prometheus-client)");
        return;
    };
    let samples = bench.script("bash", &format!("{python} -c '{PARSE}' < metrics")).ok();
    assert!(samples.trim().parse::<u32>().unwrap() > 50, "{samples}");
}

#[test]
fn promtool_takes_the_metrics_needs_fuse() {
    if !need::program("promtool", "prometheus") {
        return;
    }
    let Some(bench) = bench() else { return };
    let output = bench.script("bash", "cat $M/metrics.prom > metrics.prom; promtool check metrics < metrics.prom");
    assert_eq!((output.code(), &*output.stderr), (0, ""));
}
