//! What administrators set while the daemon ran: limits, and clients with their pages.
//!
//! ```text
//! throttle 20 of 100        written as 20, when the option said 100
//! speed_max 50000000
//! active 2 of 64
//! client default 2048 of 1024
//! client bulk 256
//! ```
//! What an option says too is kept with what the option said then: an option that says something else now counts more,
//! because it was said later.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::disk::Disk;
use super::seal::{Flaw, Reading, seal, unseal};
use super::{Shelf, Store};
use crate::error::Result;

/// The file's name.
pub(super) const SETTINGS: &str = "settings";

const KIND: &str = "settings";

/// What was set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Percent of time; with what the option said.
    pub(crate) throttle: Option<Chosen>,
    /// Bytes per second of all jobs together.
    pub(crate) speed_max: Option<u64>,
    /// Jobs that run at once; with what the option said.
    pub(crate) active: Option<Chosen>,
    /// Pages of the client `default`; with what the option said.
    pub(crate) default_pages: Option<Chosen>,
    /// Pages of the other clients, by name.
    pub(crate) clients: BTreeMap<String, u64>,
}

/// A number that was written in place of an option's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    value: u64,
    option: u64,
}

impl Chosen {
    /// `value`, where the option says `option`.
    pub(crate) fn new(value: u64, option: u64) -> Self {
        Self { value, option }
    }

    /// What counts where the option says `option` now.
    pub(crate) fn or_option(self, option: u64) -> u64 {
        if option == self.option { self.value } else { option }
    }
}

fn print(settings: &Settings) -> Vec<u8> {
    let mut text = String::new();
    let chosen = |text: &mut String, key: &str, chosen: Option<Chosen>| {
        if let Some(Chosen { value, option }) = chosen {
            _ = writeln!(text, "{key} {value} of {option}");
        }
    };
    chosen(&mut text, "throttle", settings.throttle);
    if let Some(rate) = settings.speed_max {
        _ = writeln!(text, "speed_max {rate}");
    }
    chosen(&mut text, "active", settings.active);
    chosen(&mut text, "client default", settings.default_pages);
    for (name, pages) in &settings.clients {
        _ = writeln!(text, "client {name} {pages}");
    }
    seal(KIND, &text)
}

/// What the file says. Lines that are not known are passed over: later versions may add some.
pub(super) fn parse(bytes: &[u8]) -> Reading<Settings> {
    let mut settings = Settings::default();
    for line in unseal(KIND, bytes)?.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |word: &str| word.parse().map_err(|_| Flaw::Damaged(format!("`{line}` has no number")));
        let chosen = |value, option| Ok(Chosen { value: number(value)?, option: number(option)? });
        match words[..] {
            ["throttle", value, "of", option] => settings.throttle = Some(chosen(value, option)?),
            ["active", value, "of", option] => settings.active = Some(chosen(value, option)?),
            ["speed_max", rate] => settings.speed_max = Some(number(rate)?),
            ["client", "default", value, "of", option] => settings.default_pages = Some(chosen(value, option)?),
            ["client", name, pages] => _ = settings.clients.insert(name.to_owned(), number(pages)?),
            _ => {}
        }
    }
    Ok(settings)
}

impl<D: Disk> Store<D> {
    /// Keeps settings, in place of those that were kept. They are durable when it returns.
    ///
    /// # Errors
    /// What the system says, with the path.
    pub(crate) fn save_settings(&self, settings: &Settings) -> Result<()> {
        self.shelf.lock().save_settings(settings)
    }
}

impl<D: Disk> Shelf<D> {
    fn save_settings(&mut self, settings: &Settings) -> Result<()> {
        self.prepare()?;
        self.put(SETTINGS, &print(settings))?;
        self.sync()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chosen() -> impl Strategy<Value = Option<Chosen>> {
        proptest::option::of(any::<(u64, u64)>().prop_map(|(value, option)| Chosen { value, option }))
    }

    proptest! {
        #[test]
        fn parsing_undoes_printing(
            throttle in chosen(),
            speed_max in proptest::option::of(any::<u64>()),
            active in chosen(),
            default_pages in chosen(),
            clients in proptest::collection::btree_map("[a-z0-9._-]{1,12}x", any::<u64>(), 0..5),
        ) {
            let settings = Settings { throttle, speed_max, active, default_pages, clients };
            prop_assert_eq!(parse(&print(&settings)), Ok(settings));
        }
    }

    #[test]
    fn an_option_that_was_changed_counts_more() {
        let written = Chosen::new(20, 100);
        assert_eq!((written.or_option(100), written.or_option(50)), (20, 50));
    }
}
