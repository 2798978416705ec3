//! A source against the sums that are expected of it, alone or beside a copy.

use kcopyfs_support::{Daemon, Fault, Op, need};

use super::{NEW, OLD, assert_same, digest::expected, disk, end, image, start, until};

const SIZE: u64 = 1 << 20;

fn sum(digest: &str, seed: u64) -> String {
    expected(digest, &image(SIZE, seed))
}

/// What a job's canonical form says runs again, and ends the same.
fn again(daemon: &Daemon, id: u64, state: &str) {
    let line = daemon.read(format!("jobs/{id}/spec")).unwrap();
    let second = daemon.job(line.trim_end()).unwrap();
    let (first, second) = (daemon.status(id), end(daemon, second, state));
    assert_eq!((first.digest(), first.error()), (second.digest(), second.error()));
}

#[test]
fn an_image_is_checked_against_its_sums() {
    if !need::fault_disk() {
        return;
    }
    let from = disk(SIZE, 512, NEW);
    let path = from.path().display().to_string();
    let daemon = start(&["state=none", "subjob_kb=64"]);
    let [sha256, blake3, other] = [sum("sha256", NEW), sum("blake3", NEW), sum("sha256", OLD)];
    for words in [&sha256, &blake3, &format!("{blake3},{sha256}"), &format!("{sha256},blake3")] {
        let id = daemon.job(&format!("verify from={path} digest={words}")).unwrap();
        let status = end(&daemon, id, "done");
        let both = format!("{sha256},{blake3}");
        let want = if words.contains(',') { both } else { words.clone() };
        assert_eq!((status.digest(), status.error(), status.state()), (Some(want.as_str()), None, "done"));
        assert!(daemon.read(format!("jobs/{id}/status")).unwrap().contains("\npercent 100.00\n"));
        assert_eq!((status.copied(), status.total()), (SIZE, SIZE));
        assert_eq!(daemon.read(format!("jobs/{id}/dests")).unwrap(), "");
        again(&daemon, id, "done");
        // Once more, with what is there now.
        daemon.control(id, "verify").unwrap();
        end(&daemon, id, "done");
        assert!(daemon.control(id, "drop 0").is_err());
    }
    let upper = sha256.replace("sha256:", "").to_uppercase();
    let id = daemon.job(&format!("verify from={path},0,1M digest=sha256:{upper}")).unwrap();
    end(&daemon, id, "done");

    let id = daemon.job(&format!("verify from={path} digest={blake3},{other} name=image")).unwrap();
    let status = end(&daemon, id, "failed");
    let hex = |sum: &str| sum.split_once(':').unwrap().1.to_owned();
    let why = format!("{path}: its sha256 is {}, not {} as the spec says", hex(&sha256), hex(&other));
    assert_eq!(status.error(), Some(why.as_str()));
    assert!(status.digest().unwrap().starts_with(&sha256));
    assert!(std::fs::read(daemon.path(format!("wait/{id}"))).is_err(), "a script sees that it failed");
    again(&daemon, id, "failed");
    // The right image comes, and `retry` looks again.
    from.fill(OLD);
    let id = daemon.job(&format!("verify from={path} digest={sha256}")).unwrap();
    end(&daemon, id, "failed");
    from.fill(NEW);
    daemon.control(id, "retry").unwrap();
    assert_eq!(end(&daemon, id, "done").error(), None);
}

#[test]
fn what_cannot_be_read_has_no_sum() {
    if !need::fault_disk() {
        return;
    }
    let (from, to) = (disk(SIZE, 512, NEW), disk(SIZE, 512, OLD));
    let (path, dest) = (from.path().display().to_string(), to.path().display().to_string());
    let daemon = start(&["state=none", "subjob_kb=64"]);
    let sha256 = sum("sha256", NEW);
    from.rule(Op::Read, 40 * 512..41 * 512, Fault::Err(libc::EIO));
    for (line, state) in [
        (format!("verify from={path} digest={sha256}"), "failed"),
        (format!("verify from={path} digest={sha256},blake3 retries=1"), "failed"),
        (format!("from={path} to={dest} digest={sha256}"), "failed"),
        (format!("from={path} to={dest} digest={sha256} on_read_error=zero"), "degraded"),
    ] {
        let id = daemon.job(&line).unwrap();
        let status = end(&daemon, id, state);
        let error = status.error().unwrap();
        assert_eq!(status.digest(), None, "{line}");
        assert!(error.starts_with(&format!("read {path}: EIO in sector 40")), "{line}: {error}");
        assert!(state == "failed" && line.contains("to=") || error.contains("has no sum"), "{line}: {error}");
        assert_eq!(daemon.errors(id)[0].sector, 40);
    }
    // A block that is read at the second try counts.
    from.clear();
    from.rule(Op::Read, 40 * 512..41 * 512, Fault::Err(libc::EIO)).times(1);
    let id = daemon.job(&format!("verify from={path} digest={sha256} retries=2")).unwrap();
    assert_eq!(end(&daemon, id, "done").digest(), Some(sha256.as_str()));
}

#[test]
fn a_copy_of_another_image_than_was_meant_fails() {
    if !need::fault_disk() {
        return;
    }
    let (from, to) = (disk(SIZE, 4096, NEW), disk(SIZE, 4096, OLD));
    let (path, dest) = (from.path().display().to_string(), to.path().display().to_string());
    let daemon = start(&["state=none", "subjob_kb=64"]);
    for words in ["", "verify", "sparse", "write_seq"] {
        to.fill(OLD);
        let right = sum("blake3", NEW);
        let id = daemon.job(&format!("from={path} to={dest} digest={right},sha256 {words}")).unwrap();
        let status = end(&daemon, id, "done");
        assert_eq!(status.digest(), Some(format!("{},{right}", sum("sha256", NEW)).as_str()), "{words}");
        let id = daemon.job(&format!("from={path} to={dest} digest={} {words}", sum("blake3", OLD))).unwrap();
        let status = end(&daemon, id, "failed");
        assert!(status.error().unwrap().contains("its blake3 is"), "{words}");
        assert_eq!((status.digest(), status.durable()), (Some(right.as_str()), SIZE), "{words}");
        // What was read was written all the same.
        assert_same(&to.contents(), &image(SIZE, NEW), words);
        assert_eq!(daemon.read(format!("jobs/{id}/errors")).unwrap(), "");
        again(&daemon, id, "failed");
    }
}

#[test]
fn a_check_goes_on_after_a_crash() {
    if !need::fault_disk() {
        return;
    }
    let from = disk(SIZE, 512, NEW);
    let mut daemon = start(&["subjob_kb=64"]);
    for (seed, state) in [(NEW, "done"), (OLD, "failed")] {
        let line = format!("verify from={} digest={} speed_max=128K", from.path().display(), sum("sha256", seed));
        let id = daemon.job(&line).unwrap();
        until("progress", || (daemon.status(id).copied() > 0).then_some(()));
        daemon.control(id, "pause").unwrap();
        assert_eq!(daemon.status(id).state(), "paused");
        daemon.kill9();
        daemon.restart();
        daemon.write(format!("jobs/{id}/speed_max"), "max").unwrap();
        daemon.control(id, "resume").unwrap();
        let status = end(&daemon, id, state);
        assert_eq!((status.digest(), status.copied()), (Some(sum("sha256", NEW).as_str()), SIZE));
        // Its end outlives the daemon too.
        daemon.stop();
        daemon.restart();
        let after = daemon.status(id);
        assert_eq!((after.state(), after.error(), after.digest()), (state, status.error(), status.digest()));
    }
}
