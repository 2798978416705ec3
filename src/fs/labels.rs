//! Numbers for names, so that what is known by its name has an inode.
//!
//! Owned by the tree, for the clients. A number is given when a name is first asked for and never again after the name
//! was forgotten: a file that is held open of a client that was removed is not that of the next one with its name.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// Names by number.
#[derive(Debug, Default)]
pub(super) struct Labels {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    names: BTreeMap<u64, String>,
    last: u64,
}

impl Labels {
    /// The number of a name that is in use.
    pub(super) fn number(&self, name: &str) -> u64 {
        let mut table = self.table.lock();
        if let Some((number, _)) = table.names.iter().find(|(_, known)| *known == name) {
            return *number;
        }
        table.last += 1;
        let number = table.last;
        table.names.insert(number, name.to_owned());
        number
    }

    /// The name of a number, unless it was forgotten.
    pub(super) fn name(&self, number: u64) -> Option<String> {
        self.table.lock().names.get(&number).cloned()
    }

    /// The name is in use no more.
    pub(super) fn forget(&self, number: u64) {
        self.table.lock().names.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_given_once() {
        let labels = Labels::default();
        let (first, second) = (labels.number("default"), labels.number("bulk"));
        assert_eq!((first, second), (1, 2));
        assert_eq!(labels.number("default"), first);
        assert_eq!(labels.name(second).as_deref(), Some("bulk"));
        labels.forget(second);
        assert_eq!(labels.name(second), None);
        assert_eq!(labels.number("bulk"), 3);
    }
}
