//! The clients by name: who has pages set aside.
//!
//! # Invariants
//! `default` is there from the first to the last moment. A client is in use as long as anyone but the table holds it: a
//! job does, with its devices, until it has ended.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;

use super::api::Jobs;
use super::config::Config;
use super::view::ClientView;
use crate::error::{Error, ErrorKind, Result};
use crate::io::PagePool;
use crate::journal::{self, Chosen};
use crate::kcopyd::{Client, PaceFigures, Paces, Settings, SpeedLimit, ThrottleShare};

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
    /// The clients as options and administrators had set them.
    pub(super) fn new(config: &Config, kept: &journal::Settings) -> Result<Self> {
        let pool = PagePool::new(config.pages)?;
        let throttle = ThrottleShare::default();
        let percent = kept.throttle.map_or(config.throttle, |chosen| small(chosen.or_option(config.throttle.into())));
        throttle.set(percent.clamp(1, 100));
        let speed_max = SpeedLimit::new(kept.speed_max);
        let settings = Settings {
            subjob_bytes: config.subjob_bytes,
            subjobs: config.subjobs,
            paces: Paces::default(),
            throttle: throttle.clone(),
            speed_max: speed_max.clone(),
            backend: config.backend.clone(),
        };
        let pages = kept.default_pages.map(|chosen| small(chosen.or_option(config.client_pages.into())));
        let default = Arc::new(create(&pool, pages, config.client_pages, &settings)?);
        if let Some(why) = default.fallback() {
            log::warn!("no io_uring ({why}): using threads");
        }
        let mut table = BTreeMap::from([(DEFAULT.to_owned(), Arc::clone(&default))]);
        for (name, pages) in &kept.clients {
            match create(&pool, Some(small(*pages)), 0, &settings) {
                Ok(client) => _ = table.insert(name.clone(), Arc::new(client)),
                Err(error) => log::warn!("client `{name}`: {error}"),
            }
        }
        Ok(Self { pool, throttle, speed_max, settings, default, table: Mutex::new(table) })
    }

    /// What outlives the daemon: this, and how many jobs may be active.
    fn to_keep(&self, active: usize, config: &Config) -> journal::Settings {
        let chosen = |value: u32, option: u32| Some(Chosen::new(value.into(), option.into()));
        let pages = |client: &Client| client.figures().pages;
        let others = self.table.lock();
        let others = others.iter().filter(|(name, _)| *name != DEFAULT);
        journal::Settings {
            throttle: chosen(self.throttle.get(), config.throttle),
            speed_max: self.speed_max.get(),
            active: Some(Chosen::new(active as u64, config.active as u64)),
            default_pages: chosen(pages(&self.default), config.client_pages),
            clients: others.map(|(name, client)| (name.clone(), pages(client).into())).collect(),
        }
    }

    /// The pace of the devices in use.
    pub(super) fn paces(&self) -> Vec<PaceFigures> {
        self.settings.paces.figures()
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
        let exists = || Error::new(ErrorKind::Exists, format!("client `{name}` is there already"));
        if self.table.lock().contains_key(name) {
            return Err(exists());
        }
        // A thread and a ring take their time: nobody waits for the table meanwhile.
        let client = Arc::new(Client::create(&self.pool, 0, self.settings.clone())?);
        match self.table.lock().entry(name.to_owned()) {
            Entry::Vacant(place) => _ = place.insert(client),
            Entry::Occupied(_) => return Err(exists()),
        }
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
        self.clients.table.lock().keys().cloned().collect()
    }

    /// How a client stands.
    pub fn client(&self, name: &str) -> Option<ClientView> {
        let client = self.clients.table.lock().get(name).cloned()?;
        let figures = client.figures();
        let jobs = self.live_of(name);
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
        self.clients.create(name)?;
        self.keep_settings()
    }

    /// Removes a client (`kcopyd_client_destroy`).
    ///
    /// # Errors
    /// `NotFound`; `Busy` while it has jobs, and always for `default`.
    pub fn destroy_client(&self, name: &str) -> Result<()> {
        // Those that wait for a device, or come from a record, do not hold it.
        if name != DEFAULT && self.live_of(name) > 0 {
            return Err(Error::new(ErrorKind::Busy, format!("client `{name}` has jobs that have not ended")));
        }
        self.clients.destroy(name)?;
        self.keep_settings()
    }

    /// Sets another number of pages aside for a client, one sub-job's at least.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for fewer than one sub-job takes; `NoMemory`.
    pub fn resize_client(&self, name: &str, pages: u64) -> Result<()> {
        let client = self.clients.get(name)?;
        let least = self.clients.settings.least_pages();
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        if pages < least {
            let what = format!("{pages} pages: a client needs at least {least}, those of one sub-job");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        client.resize(pages)?;
        self.keep_settings()
    }

    /// Percent of time in which the engine does I/O.
    pub fn throttle(&self) -> u32 {
        self.clients.throttle.get()
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
        self.clients.throttle.set(percent);
        self.wake_clients();
        self.keep_settings()
    }

    /// Bytes per second of all jobs together; `None`: no limit.
    pub fn speed_max(&self) -> Option<u64> {
        self.clients.speed_max.get()
    }

    /// Sets it.
    ///
    /// # Errors
    /// `Invalid` for 0: pause the jobs instead.
    pub fn set_speed_max(&self, rate: Option<u64>) -> Result<()> {
        check_rate(rate)?;
        self.clients.speed_max.set(rate);
        self.wake_clients();
        self.keep_settings()
    }

    /// Has what was set on disk when this returns, unless the state directory takes its time.
    pub(super) fn keep_settings(&self) -> Result<()> {
        let kept = self.keep(self.clients.to_keep(self.active(), self.config()));
        kept.map_err(|error| {
            let what = format!("it holds, but not after a restart: {error}");
            Error::new(error.kind(), what)
        })
    }

    fn wake_clients(&self) {
        for client in self.clients.all() {
            client.wake();
        }
    }
}

/// A client with the pages that it had; with those of its option where the pool does not have so many now.
fn create(pool: &Arc<PagePool>, kept: Option<u32>, option: u32, settings: &Settings) -> Result<Client> {
    match kept.map(|pages| Client::create(pool, pages, settings.clone())) {
        Some(Ok(client)) => Ok(client),
        Some(Err(error)) => {
            log::warn!("a client cannot have the pages that it had: {error}");
            Client::create(pool, option, settings.clone())
        }
        None => Client::create(pool, option, settings.clone()),
    }
}

fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
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
