//! One look at everything, for `summary` and `metrics`: figures only, no text.

use crate::jobs::{ClientView, EngineView, Jobs, State, Totals, View};

/// What is known of the daemon at about one moment. Each job's figures agree with each other.
#[derive(Clone, Debug)]
pub(super) struct Board {
    pub(super) engine: EngineView,
    pub(super) totals: Totals,
    /// Percent of time in which the engine does I/O.
    pub(super) throttle: u32,
    /// Bytes per second of all jobs together.
    pub(super) speed_max: Option<u64>,
    /// Jobs in each state, in the order of [`State::ALL`].
    pub(super) states: [u64; State::ALL.len()],
    /// The jobs that have not ended, ascending.
    pub(super) live: Vec<Row>,
    /// The clients by name.
    pub(super) clients: Vec<(String, ClientView)>,
}

/// A live job.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) view: View,
    /// Its own limit in bytes per second.
    pub(super) speed_max: Option<u64>,
}

impl Board {
    /// Looks.
    pub(super) fn take(jobs: &Jobs) -> Self {
        let mut states = [0; State::ALL.len()];
        let mut live = Vec::new();
        for id in jobs.ids() {
            let Some(brief) = jobs.brief(id) else { continue };
            let mut state = brief.state;
            if !state.is_ended()
                && let Some(view) = jobs.view(id)
            {
                // It may have ended in between; it is counted as it is shown.
                state = view.state;
                if !state.is_ended() {
                    live.push(Row { view, speed_max: jobs.job_speed_max(id).flatten() });
                }
            }
            if let Some(place) = State::ALL.iter().position(|known| *known == state) {
                states[place] += 1;
            }
        }
        let clients = jobs.clients().into_iter().filter_map(|name| Some((name.clone(), jobs.client(&name)?)));
        Self {
            engine: jobs.engine(),
            totals: jobs.totals(),
            throttle: jobs.throttle(),
            speed_max: jobs.speed_max(),
            states,
            live,
            clients: clients.collect(),
        }
    }

    /// Each state with the number of its jobs.
    pub(super) fn states(&self) -> impl Iterator<Item = (State, u64)> {
        State::ALL.into_iter().zip(self.states)
    }
}

#[cfg(test)]
pub(super) mod samples {
    //! A board to print.

    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::jobs::{DestState, DestView};
    use crate::sector::Sector;

    /// A job in the middle of its life.
    pub(in crate::fs) fn view(id: u64, state: State) -> View {
        let dest = |path: &str| DestView {
            state: DestState::Active,
            copied: 45_281_234_944,
            durable: 44_023_414_784,
            errors: 0,
            first_error: None,
            path: path.into(),
        };
        let failed = DestView {
            state: DestState::Failed,
            errors: 2,
            first_error: Some((libc::EIO, Sector::new(100).unwrap())),
            ..dest("/dev/sdc")
        };
        View {
            id,
            state,
            read_err: false,
            write_err: 2,
            total: 107_374_182_400,
            copied: 45_281_234_944,
            durable: 44_023_414_784,
            speed: 1_932_735_283,
            eta: Some(Duration::from_millis(32_126)),
            elapsed: Duration::from_micros(23_431_201),
            stalled: Duration::ZERO,
            bad_bytes: 0,
            client: "default".to_owned(),
            name: Some("nightly".to_owned()),
            digest: None,
            error: None,
            source: Some("/dev/sda".into()),
            dests: vec![dest("/dev/sdb"), failed],
            progressed: UNIX_EPOCH,
            course: crate::jobs::Course::default(),
            limited_by: None,
        }
    }

    /// One job runs, one waits.
    pub(in crate::fs) fn board() -> Board {
        let mut waits = view(3, State::Queued);
        waits.dests.truncate(1);
        waits.dests[0].path = "/tmp/a\nb".into();
        let waits = View {
            total: 1 << 20,
            copied: 0,
            durable: 0,
            speed: 0,
            eta: None,
            elapsed: Duration::ZERO,
            name: None,
            source: None,
            error: Some("waits for job 7".to_owned()),
            ..waits
        };
        let running = view(7, State::Running);
        let client = ClientView { pages: 1024, pages_used: 92, pages_waiting: 0, subjobs_in_flight: 8, jobs_live: 2 };
        Board {
            engine: engine(),
            totals: Totals {
                jobs_made: 6,
                copied: 12,
                written: 24,
                read_errors: 1,
                write_errors: 2,
                ended: [3, 1, 0, 0],
            },
            throttle: 50,
            speed_max: Some(100 << 20),
            states: [1, 1, 0, 0, 0, 3, 1, 0, 0, 0],
            live: vec![Row { view: waits, speed_max: None }, Row { view: running, speed_max: Some(64 << 20) }],
            clients: vec![("default".to_owned(), client)],
        }
    }

    fn engine() -> EngineView {
        EngineView {
            backend: "uring",
            fallback: None,
            page_size: 4096,
            pages: 8192,
            pages_free: 8100,
            pages_waiting: 0,
            subjobs_in_flight: 8,
            subjob_bytes: 524_288,
            subjobs_max: None,
            paces: Vec::new(),
            fixed_buffers: true,
            huge_pages: false,
            locked: true,
            direct: 3,
            buffered: 0,
            jobs_live: 2,
            jobs_ended: 4,
        }
    }
}
