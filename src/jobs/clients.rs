//! The clients by name: who has pages set aside.
//!
//! # Invariants
//! `default` is there from the first to the last moment. A client is in use as long as anyone but the table holds it: a
//! job does, with its devices, until it has ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::config::Config;
use super::run::Jobs;
use super::view::ClientView;
use crate::error::{Error, ErrorKind, Result};
use crate::io::PagePool;
use crate::kcopyd::{Client, Settings, SpeedLimit, ThrottleShare};

/// The client that is always there.
pub(super) const DEFAULT: &str = "default";

pub(super) struct Clients {
    pub(super) pool: Arc<PagePool>,
    pub(super) throttle: ThrottleShare,
    pub(super) speed_max: SpeedLimit,
    settings: Settings,
    default: Arc<Client>,
    table: Mutex<BTreeMap<String, Arc<Client>>>,
}

impl Clients {
    pub(super) fn new(config: &Config) -> Result<Self> {
        let pool = PagePool::new(config.pages)?;
        let throttle = ThrottleShare::default();
        throttle.set(config.throttle);
        let speed_max = SpeedLimit::default();
        let settings = Settings {
            subjob_bytes: config.subjob_bytes,
            subjobs: config.subjobs,
            throttle: throttle.clone(),
            speed_max: speed_max.clone(),
            backend: config.backend.clone(),
        };
        let default = Arc::new(Client::create(&pool, config.client_pages, settings.clone())?);
        if let Some(why) = default.fallback() {
            log::warn!("no io_uring ({why}): using threads");
        }
        let table = Mutex::new(BTreeMap::from([(DEFAULT.to_owned(), Arc::clone(&default))]));
        Ok(Self { pool, throttle, speed_max, settings, default, table })
    }

    pub(super) fn default(&self) -> &Arc<Client> {
        &self.default
    }

    pub(super) fn get(&self, name: &str) -> Result<Arc<Client>> {
        let found = self.table.lock().get(name).cloned();
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no client `{name}`: mkdir clients/{name} first")))
    }

    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        self.table.lock().values().cloned().collect()
    }

    /// Makes a client if there is none of that name: jobs that come from records use theirs.
    pub(super) fn ensure(&self, name: &str) {
        if let Err(error) = self.create(name)
            && error.kind() != ErrorKind::Exists
        {
            log::warn!("client `{name}`: {error}");
        }
    }

    fn create(&self, name: &str) -> Result<()> {
        let mut table = self.table.lock();
        if table.contains_key(name) {
            return Err(Error::new(ErrorKind::Exists, format!("client `{name}` is there already")));
        }
        let client = Client::create(&self.pool, 0, self.settings.clone())?;
        table.insert(name.to_owned(), Arc::new(client));
        Ok(())
    }

    fn destroy(&self, name: &str) -> Result<()> {
        let mut table = self.table.lock();
        let Some(client) = table.get(name) else {
            return Err(Error::new(ErrorKind::NotFound, format!("no client `{name}`")));
        };
        if name == DEFAULT {
            return Err(Error::new(ErrorKind::Busy, "client `default` stays: jobs without client= use it"));
        }
        if Arc::strong_count(client) > 1 {
            return Err(Error::new(ErrorKind::Busy, format!("client `{name}` has jobs that have not ended")));
        }
        let gone = table.remove(name);
        drop(table);
        // Idle as it is, its thread ends at once.
        drop(gone);
        Ok(())
    }
}

impl Jobs {
    /// The names of the clients, ascending.
    pub fn clients(&self) -> Vec<String> {
        self.shared.clients.table.lock().keys().cloned().collect()
    }

    /// How a client stands.
    pub fn client(&self, name: &str) -> Option<ClientView> {
        let client = self.shared.clients.table.lock().get(name).cloned()?;
        let figures = client.figures();
        let jobs = self.shared.registry.lock().live_of(name);
        Some(ClientView {
            pages: u64::from(figures.pages),
            pages_used: u64::from(figures.pages_used),
            pages_waiting: figures.pages_waiting,
            subjobs_in_flight: figures.subjobs_in_flight,
            jobs_live: jobs as u64,
        })
    }

    /// Makes a client with one sub-job's pages set aside (`kcopyd_client_create`).
    ///
    /// # Errors
    /// `Exists`; `NoMemory` where the pool has no pages left to set aside.
    pub fn create_client(&self, name: &str) -> Result<()> {
        self.shared.clients.create(name)
    }

    /// Removes a client (`kcopyd_client_destroy`).
    ///
    /// # Errors
    /// `NotFound`; `Busy` while it has jobs, and always for `default`.
    pub fn destroy_client(&self, name: &str) -> Result<()> {
        // Those that wait for a device, or come from a record, do not hold it.
        if name != DEFAULT && self.shared.registry.lock().live_of(name) > 0 {
            return Err(Error::new(ErrorKind::Busy, format!("client `{name}` has jobs that have not ended")));
        }
        self.shared.clients.destroy(name)
    }

    /// Sets another number of pages aside for a client, one sub-job's at least.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for fewer than one sub-job takes; `NoMemory`.
    pub fn resize_client(&self, name: &str, pages: u64) -> Result<()> {
        let client = self.shared.clients.get(name)?;
        let least = self.shared.clients.settings.least_pages();
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        if pages < least {
            let what = format!("{pages} pages: a client needs at least {least}, those of one sub-job");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        client.resize(pages)
    }

    /// Percent of time in which the engine does I/O.
    pub fn throttle(&self) -> u32 {
        self.shared.clients.throttle.get()
    }

    /// Sets it, from 1 to 100.
    ///
    /// # Errors
    /// `Invalid` for anything else.
    pub fn set_throttle(&self, percent: u64) -> Result<()> {
        let small = u32::try_from(percent).ok().filter(|percent| (1..=100).contains(percent));
        let percent = small.ok_or_else(|| {
            Error::new(ErrorKind::Invalid, format!("throttle {percent}: give 1 to 100, percent of time"))
        })?;
        self.shared.clients.throttle.set(percent);
        self.wake_clients();
        Ok(())
    }

    /// Bytes per second of all jobs together; `None`: no limit.
    pub fn speed_max(&self) -> Option<u64> {
        self.shared.clients.speed_max.get()
    }

    /// Sets it.
    ///
    /// # Errors
    /// `Invalid` for 0: pause the jobs instead.
    pub fn set_speed_max(&self, rate: Option<u64>) -> Result<()> {
        check_rate(rate)?;
        self.shared.clients.speed_max.set(rate);
        self.wake_clients();
        Ok(())
    }

    fn wake_clients(&self) {
        for client in self.shared.clients.all() {
            client.wake();
        }
    }
}

/// A limit of nothing is a pause, and is said so.
pub(super) fn check_rate(rate: Option<u64>) -> Result<()> {
    if rate == Some(0) {
        return Err(Error::new(
            ErrorKind::Invalid,
            "speed_max 0: give bytes per second, or `max`; to stop it, pause it",
        ));
    }
    Ok(())
}
