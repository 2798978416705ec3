//! The words of the language: one table for the parser, the printer and the documentation.
//!
//! A row says how a word is written, what it means, and how it reaches its field of the [`Spec`]; nothing else knows.
//!
//! # Invariants
//! The order of the rows is the order of the canonical form. A name is there once as an action and once otherwise:
//! `verify` is an action where it comes first, and a flag elsewhere.

use std::ffi::{OsStr, OsString};

use super::{Action, Digests, MAX_LABEL, Spec, values};

/// What sort of word it is, which is where it may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first word of a line, if at all.
    Action,
    /// `key=PATH,SECTOR,COUNT`.
    Region,
    /// A word alone.
    Flag,
    /// `key=value`.
    Value,
}

/// A row of the table.
#[derive(Debug)]
pub struct Word {
    /// The word, or the key before `=`.
    pub name: &'static str,
    /// How its value is written, where it takes one.
    pub value: Option<&'static str>,
    /// What it means, in one line for people.
    pub doc: &'static str,
    pub(super) field: Field,
}

/// How a word reaches its field of the [`Spec`].
#[derive(Debug)]
pub(super) enum Field {
    Action(Action),
    From,
    To,
    Flag {
        set: fn(&mut Spec),
        get: fn(&Spec) -> bool,
    },
    /// An absolute path.
    Path {
        set: fn(&mut Spec, OsString),
        get: fn(&Spec) -> Option<&OsStr>,
    },
    /// `set` gives the reason and the remedy where the value is bad; `get` gives `None` for the default.
    Value {
        set: fn(&mut Spec, &[u8]) -> Result<(), String>,
        get: fn(&Spec) -> Option<String>,
    },
}

impl Word {
    /// What sort of word it is.
    pub const fn kind(&self) -> Kind {
        match self.field {
            Field::Action(_) => Kind::Action,
            Field::From | Field::To => Kind::Region,
            Field::Flag { .. } => Kind::Flag,
            Field::Path { .. } | Field::Value { .. } => Kind::Value,
        }
    }

    /// How it is written: `retries=N`.
    pub fn usage(&self) -> String {
        match self.value {
            Some(value) => format!("{}={value}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// The word as the canonical form of `spec` says it, or `None` where that leaves it out. Regions and paths are not said here.
    pub(super) fn said(&self, spec: &Spec) -> Option<String> {
        match &self.field {
            Field::Action(action) => (spec.action == *action).then(|| self.name.to_owned()),
            Field::From | Field::To | Field::Path { .. } => None,
            Field::Flag { get, .. } => get(spec).then(|| self.name.to_owned()),
            Field::Value { get, .. } => get(spec).map(|value| format!("{}={value}", self.name)),
        }
    }
}

/// The language's words, in the order of the canonical form.
pub fn words() -> &'static [Word] {
    &WORDS
}

/// The word of that name. `first`: it is the line's first word, where actions stand.
pub(super) fn find(name: &[u8], first: bool) -> Option<&'static Word> {
    let named = |action: bool| {
        WORDS.iter().find(|word| (word.kind() == Kind::Action) == action && word.name.as_bytes() == name)
    };
    named(first).or_else(|| named(!first))
}

/// What may have been meant by an unknown word: the nearest known one, or the list of all.
pub(super) fn suggest(name: &[u8]) -> String {
    if let Some(word) = nearest(name, &WORDS, |word| word.name) {
        return format!("did you mean `{}`?", word.usage());
    }
    let all: Vec<&str> = WORDS.iter().map(|word| word.name).collect();
    format!("the words are: {}", all.join(" "))
}

/// The row of a table whose name is a slip of the fingers away from `name`, or begins with it, in whatever case.
pub(crate) fn nearest<'a, T>(name: &[u8], table: &'a [T], name_of: fn(&T) -> &'static str) -> Option<&'a T> {
    /// Longest name in which one letter alone may be wrong; more would make another short word of it.
    const SHORT: usize = 4;
    /// Fewest letters that are taken for the beginning of a word.
    const STEM_MIN: usize = 3;
    if name.len() > MAX_LABEL {
        return None;
    }
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let slips = if name.len() <= SHORT { 1 } else { 2 };
    let far = |row: &&T| strsim::osa_distance(name_of(row), &name);
    let slip = table.iter().min_by_key(far).filter(|row| far(row) <= slips && far(row) < name.len());
    let begins = |row: &&T| name.len() >= STEM_MIN && name_of(row).starts_with(&name);
    slip.or_else(|| table.iter().find(begins))
}

static WORDS: [Word; 26] = [
    Word {
        name: "copy",
        value: None,
        doc: "copy the source to every destination (may be left out)",
        field: Field::Action(Action::Copy),
    },
    Word {
        name: "zero",
        value: None,
        doc: "write zeros to every destination; needs SECTOR and COUNT, which blockdev --getsz tells",
        field: Field::Action(Action::Zero),
    },
    Word {
        name: "verify",
        value: None,
        doc: "as the first word: compare destinations, or a sum (digest=sha256:HEX) with the source, write nothing",
        field: Field::Action(Action::Verify),
    },
    Word {
        name: "test",
        value: None,
        doc: "burn-in: write a pattern to every destination, read it back, compare; destroys what is there",
        field: Field::Action(Action::Test),
    },
    Word {
        name: "from",
        value: Some("PATH[,SECTOR[,COUNT]]"),
        doc: "the source; SECTOR defaults to 0, COUNT to the rest of it",
        field: Field::From,
    },
    Word {
        name: "to",
        value: Some("PATH[,SECTOR[,COUNT]]"),
        doc: "a destination, up to 64 of them; a COUNT here is the length of the whole job",
        field: Field::To,
    },
    Word {
        name: "ignore_error",
        value: None,
        doc: "go on after errors, to every destination; from its first bad block on a piece is written as zeros",
        field: Field::Flag { set: |spec| spec.ignore_error = true, get: |spec| spec.ignore_error },
    },
    Word {
        name: "write_seq",
        value: None,
        doc: "write each destination in ascending order; cancels ignore_error",
        field: Field::Flag { set: |spec| spec.write_seq = true, get: |spec| spec.write_seq },
    },
    Word {
        name: "on_read_error",
        value: Some("stop|zero|skip"),
        doc: "stop (default): the job fails; zero, skip: find the bad blocks, write zeros there or leave what is there",
        field: Field::Value {
            set: |spec, text| values::on_read_error(text).map(|chosen| spec.on_read_error = chosen),
            get: |spec| values::on_read_error_said(spec.on_read_error),
        },
    },
    Word {
        name: "on_write_error",
        value: Some("drop|stop"),
        doc: "drop (default): that destination is given up, the others go on; stop: the job fails",
        field: Field::Value {
            set: |spec, text| values::on_write_error(text).map(|chosen| spec.on_write_error = chosen),
            get: |spec| values::on_write_error_said(spec.on_write_error),
        },
    },
    Word {
        name: "retries",
        value: Some("N"),
        doc: "a failed block is tried N more times (default 0)",
        field: Field::Value {
            set: |spec, text| values::count(text).map(|count| spec.retries = count),
            get: |spec| (spec.retries != 0).then(|| spec.retries.to_string()),
        },
    },
    Word {
        name: "map",
        value: Some("PATH"),
        doc: "a ddrescue mapfile: what is + there is on every destination already; - is read again only with retries",
        field: Field::Path { set: |spec, path| spec.map = Some(path), get: |spec| spec.map.as_deref() },
    },
    Word {
        name: "changed",
        value: None,
        doc: "read each destination first and write only the pieces that differ; `same` in status counts what is equal",
        field: Field::Flag { set: |spec| spec.changed = true, get: |spec| spec.changed },
    },
    Word {
        name: "client",
        value: Some("NAME"),
        doc: "the client whose pages it uses (default: the client named default)",
        field: Field::Value {
            set: |spec, text| values::client(text).map(|client| spec.client = client),
            get: |spec| values::client_said(spec.client.as_deref()),
        },
    },
    Word {
        name: "name",
        value: Some("LABEL"),
        doc: "a name for names/: letters, digits and . _ -",
        field: Field::Value {
            set: |spec, text| values::label(text).map(|label| spec.name = Some(label)),
            get: |spec| spec.name.clone(),
        },
    },
    Word {
        name: "speed_max",
        value: Some("BYTES"),
        doc: "bytes per second at most, with K M G T (of 1024), or max (default)",
        field: Field::Value {
            set: |spec, text| values::speed(text).map(|speed| spec.speed_max = speed),
            get: |spec| spec.speed_max.map(|speed| speed.to_string()),
        },
    },
    Word {
        name: "background",
        value: None,
        doc: "stay out of the way: idle I/O priority, and little in flight where others use the devices",
        field: Field::Flag { set: |spec| spec.background = true, get: |spec| spec.background },
    },
    Word {
        name: "paused",
        value: None,
        doc: "start paused, until `resume` is written to control",
        field: Field::Flag { set: |spec| spec.paused = true, get: |spec| spec.paused },
    },
    Word {
        name: "after",
        value: Some("ID|NAME"),
        doc: "start when that job, or the newest of that name, is done; if it ends otherwise, this one ends cancelled",
        field: Field::Value {
            set: |spec, text| values::after(text).map(|after| spec.after = Some(after)),
            get: |spec| values::after_said(spec.after.as_ref()),
        },
    },
    Word {
        name: "queue",
        value: None,
        doc: "wait for busy destinations instead of being refused",
        field: Field::Flag { set: |spec| spec.queue = true, get: |spec| spec.queue },
    },
    Word {
        name: "once",
        value: None,
        doc: "with name=: refused (EEXIST), and no job, while a job of that name is live or done",
        field: Field::Flag { set: |spec| spec.once = true, get: |spec| spec.once },
    },
    Word {
        name: "verify",
        value: None,
        doc: "read every destination back and compare with what was read",
        field: Field::Flag { set: |spec| spec.verify = true, get: |spec| spec.verify },
    },
    Word {
        name: "digest",
        value: Some("sha256|blake3[:HEX][,...]"),
        doc: "digests of the source, in order, in status; with HEX the job fails where the sum is another",
        field: Field::Value {
            set: |spec, text| Digests::parse(text).map(|digests| spec.digests = digests),
            get: |spec| spec.digests.said(),
        },
    },
    Word {
        name: "sparse",
        value: None,
        doc: "punch blocks of zeros instead of writing them: destinations stay thin and still read as zeros",
        field: Field::Flag { set: |spec| spec.sparse = true, get: |spec| spec.sparse },
    },
    Word {
        name: "create",
        value: None,
        doc: "make destination files that are missing (mode 0600)",
        field: Field::Flag { set: |spec| spec.create = true, get: |spec| spec.create },
    },
    Word {
        name: "force",
        value: Some("mounted"),
        doc: "write destinations that are mounted or held by the system",
        field: Field::Value {
            set: |spec, text| values::force(text).map(|()| spec.force_mounted = true),
            get: |spec| values::force_said(spec.force_mounted),
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_there_once_as_action_and_once_otherwise() {
        for (index, word) in WORDS.iter().enumerate() {
            let same = |other: &&Word| {
                other.name == word.name && (other.kind() == Kind::Action) == (word.kind() == Kind::Action)
            };
            assert_eq!(WORDS.iter().filter(same).count(), 1, "{}", word.name);
            assert_eq!(word.value.is_some(), matches!(word.kind(), Kind::Region | Kind::Value), "row {index}");
            assert!(!word.doc.contains('\n') && word.doc.len() <= 110, "{}", word.name);
        }
    }

    #[test]
    fn verify_is_an_action_where_it_comes_first() {
        assert_eq!(find(b"verify", true).map(Word::kind), Some(Kind::Action));
        assert_eq!(find(b"verify", false).map(Word::kind), Some(Kind::Flag));
        assert_eq!(find(b"paused", true).map(Word::kind), Some(Kind::Flag));
        assert_eq!(find(b"copy", false).map(Word::kind), Some(Kind::Action));
        assert!(find(b"", true).is_none());
    }

    #[test]
    fn a_slip_finds_its_word() {
        assert_eq!(suggest(b"form"), "did you mean `from=PATH[,SECTOR[,COUNT]]`?");
        assert_eq!(suggest(b"speedmax"), "did you mean `speed_max=BYTES`?");
        assert_eq!(suggest(b"ignore_errors"), "did you mean `ignore_error`?");
        assert_eq!(suggest(b"speed"), "did you mean `speed_max=BYTES`?");
        assert_eq!(suggest(b"COPY"), "did you mean `copy`?");
        assert!(suggest(b"foo").starts_with("the words are:"));
        assert!(suggest(b"count").starts_with("the words are: copy zero"));
        assert!(suggest(&"x".repeat(60_000).into_bytes()).starts_with("the words are:"));
    }
}
