//! What devices are called, by the kernel and by people: many jobs have the same few, and equal ones are in memory once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::blkdev::DeviceCard;

/// Names beyond which those that no job has any more are looked for.
const SWEPT: usize = 256;

/// Names that jobs have.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    texts: HashSet<Arc<str>>,
    /// Of records, by their lines.
    cards: HashMap<Arc<str>, Arc<DeviceCard>>,
    /// How many there were after the last sweep.
    left: usize,
}

impl Names {
    /// Makes a text the one that others have too.
    pub(super) fn share(&self, text: &mut Arc<str>) {
        let mut known = self.0.lock();
        if let Some(same) = known.texts.get(&**text) {
            *text = Arc::clone(same);
        } else {
            known.sweep();
            known.texts.insert(Arc::clone(text));
        }
    }

    /// The card of a line of a record.
    pub(super) fn card(&self, line: &str) -> Arc<DeviceCard> {
        let mut known = self.0.lock();
        if let Some(card) = known.cards.get(line) {
            return Arc::clone(card);
        }
        known.sweep();
        let card = Arc::new(DeviceCard::parse(line));
        known.cards.insert(line.into(), Arc::clone(&card));
        card
    }
}

impl Known {
    fn sweep(&mut self) {
        let count = |known: &Self| known.texts.len() + known.cards.len();
        if count(self) >= 2 * self.left.max(SWEPT) {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.cards.retain(|_, card| Arc::strong_count(card) > 1);
            self.left = count(self);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_one_text() {
        let names = Names::default();
        let [mut one, mut two, mut other]: [Arc<str>; 3] = ["a".into(), "a".into(), "b".into()];
        for text in [&mut one, &mut two, &mut other] {
            names.share(text);
        }
        assert!(Arc::ptr_eq(&one, &two) && &*other == "b");
        assert!(Arc::ptr_eq(&names.card("size=1"), &names.card("size=1")));
    }

    #[test]
    fn names_that_nobody_has_are_forgotten() {
        let names = Names::default();
        let mut kept: Arc<str> = "kept".into();
        names.share(&mut kept);
        for number in 0..10 * SWEPT {
            names.share(&mut number.to_string().into());
            names.card(&format!("size={number}"));
        }
        let known = names.0.lock();
        assert!(known.texts.len() + known.cards.len() <= 2 * SWEPT + 1);
        assert!(known.texts.contains("kept"));
    }
}
