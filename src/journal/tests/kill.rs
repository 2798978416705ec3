//! kill -9, for real: a process that saves and removes without end, killed at some moment, again and again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::*;

/// Set for the process that is to be killed: its state directory.
const CHILD: &str = "KCOPYFS_TEST_STORE_CHILD";

const ROUNDS: usize = 25;

/// Not a test: the process of the test below.
#[test]
fn child_that_saves_until_it_is_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    // Not `println`, which the test harness keeps for itself.
    let say = |what: &str, id: JobId, generation: u64| {
        std::io::stdout().write_all(format!("{what} {id} {generation}\n").as_bytes()).unwrap();
    };
    let Opened { store, records, next_id, .. } = Store::open(Path::new(&path)).unwrap();
    let mut live: Vec<JobId> = records.iter().map(|record| record.id).collect();
    for round in 1.. {
        let id = next_id + round;
        live.push(id);
        for (id, generation) in [(id, round), (live[0], round + 1)] {
            say("begin", id, generation);
            store.save(&[record(id, generation)]).unwrap();
            say("done", id, generation);
        }
        if live.len() > 5 {
            let id = live.remove(usize::try_from(round).unwrap() % 5);
            say("begin", id, 0);
            store.remove(id).unwrap();
            say("done", id, 0);
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_to_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let random = &mut Random(7);
    let mut sure: BTreeMap<JobId, u64> = BTreeMap::new();
    let mut used = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "journal::tests::kill::child_that_saves_until_it_is_killed", "--nocapture"])
            .env(CHILD, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(10 + random.below(60) as u64));
        child.kill().unwrap();
        child.wait().unwrap();

        let mut begun = None;
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(std::result::Result::ok) {
            let words: Vec<&str> = line.split(' ').collect();
            let [what @ ("begin" | "done"), id, generation] = words[..] else { continue };
            let (id, generation): (JobId, u64) = (id.parse().unwrap(), generation.parse().unwrap());
            if what == "begin" {
                begun = Some((id, generation));
                continue;
            }
            begun = None;
            used = used.max(id);
            if generation == 0 {
                sure.remove(&id)
            } else {
                sure.insert(id, generation)
            };
        }
        let opened = Store::open(folder.path()).unwrap();
        assert_eq!(opened.set_aside, [], "round {round}");
        assert!(opened.next_id > used, "round {round}: number {} comes again", opened.next_id);
        let mut found: BTreeMap<JobId, u64> =
            opened.records.iter().map(|record| (record.id, generation(record))).collect();
        let now = found.clone();
        if let Some((id, after)) = begun {
            let (is, was) = (found.remove(&id), sure.remove(&id));
            assert!(is == was || is == Some(after).filter(|after| *after > 0), "round {round}: job {id} is {is:?}");
        }
        assert_eq!(found, sure, "round {round}");
        sure = now;
    }
    assert!(used > 20, "{used} jobs in {ROUNDS} rounds: they were killed before they began");
}
