//! `status`, `dests` and `errors` of a job, parsed as strictly as a script might depend on them: a key too few, too
//! many or out of order, or a value of another shape, fails the test.

use std::path::{Path, PathBuf};

/// The keys of `status`, in order.
pub const STATUS_KEYS: [&str; 24] = [
    "state",
    "read_err",
    "write_err",
    "total",
    "copied",
    "durable",
    "percent",
    "speed",
    "eta_usec",
    "elapsed_usec",
    "stalled_usec",
    "bad_bytes",
    "client",
    "name",
    "digest",
    "error",
    "phase",
    "verified",
    "read_errors",
    "suspect_bytes",
    "same",
    "started",
    "ended",
    "limited_by",
];

/// The states that a job can be in.
pub const STATES: [&str; 10] =
    ["queued", "running", "paused", "flushing", "verifying", "done", "degraded", "failed", "cancelled", "held"];

/// The keys of a line of `dests`, in order, after the destination's number.
const DEST_KEYS: [&str; 7] = ["state", "copied", "durable", "errors", "errno", "sector", "path"];

/// The states that a destination can be in.
const DEST_STATES: [&str; 7] = ["active", "stalled", "behind", "done", "failed", "mismatch", "dropped"];

/// What `status` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    text: String,
    values: Vec<String>,
}

impl Status {
    /// Parses the whole file.
    ///
    /// # Panics
    /// If it is not exactly as the contract has it.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "status does not end with a newline:\n{text}");
        let lines: Vec<(&str, &str)> =
            text.lines().map(|line| line.split_once(' ').unwrap_or_else(|| panic!("no value: {line:?}"))).collect();
        let keys: Vec<_> = lines.iter().map(|(key, _)| *key).collect();
        assert_eq!(keys, STATUS_KEYS, "the keys of\n{text}");
        let status =
            Self { text: text.to_owned(), values: lines.iter().map(|(_, value)| (*value).to_owned()).collect() };
        status.validate();
        status
    }

    fn validate(&self) {
        assert!(STATES.contains(&self.state()), "no such state:\n{self}");
        assert!(matches!(self.get("read_err"), "0" | "1"), "read_err is 0 or 1:\n{self}");
        self.write_err();
        for key in ["speed", "elapsed_usec", "stalled_usec", "bad_bytes", "same"] {
            self.number(key);
        }
        self.eta_usec();
        let [started, ended] = self.times();
        assert_eq!(ended.is_some(), self.is_ended(), "a job that has ended has an end:\n{self}");
        assert!(
            started.is_none_or(|started| ended.is_none_or(|ended| started <= ended)),
            "its end is its end:\n{self}"
        );
        assert!(self.durable() <= self.copied() && self.copied() <= self.total(), "durable, copied, total:\n{self}");
        let percent = self.get("percent");
        let decimals = percent.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        assert_eq!(decimals, 2, "percent has two decimals:\n{self}");
        assert_eq!(self.percent() >= 100.0, self.copied() == self.total(), "100.00 only when all is copied:\n{self}");
        assert!(!self.get("client").is_empty(), "client:\n{self}");
    }

    /// The text of the file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value of `key`, as it stands.
    pub fn get(&self, key: &str) -> &str {
        let index = STATUS_KEYS.iter().position(|known| *known == key).unwrap_or_else(|| panic!("no key {key}"));
        &self.values[index]
    }

    fn number(&self, key: &str) -> u64 {
        self.get(key).parse().unwrap_or_else(|_| panic!("{key} is not a number:\n{self}"))
    }

    fn word(&self, key: &str) -> Option<&str> {
        Some(self.get(key)).filter(|word| *word != "-")
    }

    /// One of [`STATES`].
    pub fn state(&self) -> &str {
        self.get("state")
    }

    /// Whether the job has ended.
    pub fn is_ended(&self) -> bool {
        matches!(self.state(), "done" | "degraded" | "failed" | "cancelled")
    }

    /// Whether a read failed for good.
    pub fn read_err(&self) -> bool {
        self.get("read_err") == "1"
    }

    /// Bit i: destination i failed.
    pub fn write_err(&self) -> u64 {
        let digits = self.get("write_err").strip_prefix("0x");
        let bits = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        bits.unwrap_or_else(|| panic!("write_err is not 0x and hexadecimal digits:\n{self}"))
    }

    /// Bytes to copy.
    pub fn total(&self) -> u64 {
        self.number("total")
    }

    /// Bytes that every live destination has taken.
    pub fn copied(&self) -> u64 {
        self.number("copied")
    }

    /// Bytes that survive a power cut.
    pub fn durable(&self) -> u64 {
        self.number("durable")
    }

    /// Percent copied.
    pub fn percent(&self) -> f64 {
        self.get("percent").parse().unwrap_or_else(|_| panic!("percent is not a number:\n{self}"))
    }

    /// Bytes per second.
    pub fn speed(&self) -> u64 {
        self.number("speed")
    }

    /// Microseconds left, where there is an honest figure.
    pub fn eta_usec(&self) -> Option<u64> {
        (self.get("eta_usec") != "none").then(|| self.number("eta_usec"))
    }

    /// Microseconds of running.
    pub fn elapsed_usec(&self) -> u64 {
        self.number("elapsed_usec")
    }

    /// Microseconds since the last completed I/O while some is in flight.
    pub fn stalled_usec(&self) -> u64 {
        self.number("stalled_usec")
    }

    /// Source bytes that could not be read.
    pub fn bad_bytes(&self) -> u64 {
        self.number("bad_bytes")
    }

    /// The client's name.
    pub fn client(&self) -> &str {
        self.get("client")
    }

    /// The job's name.
    pub fn name(&self) -> Option<&str> {
        self.word("name")
    }

    /// `ALGORITHM:HEX`, once done.
    pub fn digest(&self) -> Option<&str> {
        self.word("digest")
    }

    /// When it ran first and when it ended, in microseconds since the epoch.
    pub fn times(&self) -> [Option<u64>; 2] {
        ["started", "ended"].map(|key| self.word(key).map(|_| self.number(key)))
    }

    /// Why it failed, is held, or waits.
    pub fn error(&self) -> Option<&str> {
        self.word("error")
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// A line of `dests`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dest {
    /// active, done, failed or mismatch.
    pub state: String,
    /// Bytes it has taken.
    pub copied: u64,
    /// Bytes it keeps through a power cut.
    pub durable: u64,
    /// Its errors.
    pub errors: u64,
    /// The last error.
    pub errno: Option<String>,
    /// The sector of the last error.
    pub sector: Option<u64>,
    /// Its path.
    pub path: PathBuf,
}

impl Dest {
    /// Parses the whole of `dests`.
    ///
    /// # Panics
    /// If it is not exactly as the contract has it.
    pub fn parse_all(text: &str) -> Vec<Self> {
        let lines = text.lines().enumerate();
        lines
            .map(|(index, line)| {
                let rest =
                    line.strip_prefix(&format!("{index} ")).unwrap_or_else(|| panic!("not number {index}: {line:?}"));
                Self::parse(rest)
            })
            .collect()
    }

    fn parse(line: &str) -> Self {
        // the path is last and may hold blanks
        let words: Vec<_> = line.splitn(DEST_KEYS.len(), ' ').collect();
        assert_eq!(words.len(), DEST_KEYS.len(), "the keys of {line:?}");
        let values: Vec<_> = words
            .iter()
            .zip(DEST_KEYS)
            .map(|(word, key)| {
                let value = word.strip_prefix(key).and_then(|rest| rest.strip_prefix('='));
                value.unwrap_or_else(|| panic!("{word:?} is not {key}= in {line:?}"))
            })
            .collect();
        let number = |index: usize| -> u64 {
            values[index].parse().unwrap_or_else(|_| panic!("{} is not a number in {line:?}", DEST_KEYS[index]))
        };
        assert!(DEST_STATES.contains(&values[0]), "no such state: {line:?}");
        Self {
            state: values[0].to_owned(),
            copied: number(1),
            durable: number(2),
            errors: number(3),
            errno: Some(values[4].to_owned()).filter(|word| word != "-"),
            sector: (values[5] != "-").then(|| number(5)),
            path: Path::new(values[6]).to_path_buf(),
        }
    }
}

/// A line of `errors`: a bad range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRange {
    /// The destination that could not be written; `None` where the source could not be read.
    pub dest: Option<usize>,
    /// The first sector, on that device.
    pub sector: u64,
    /// How many sectors.
    pub count: u64,
    /// Why, as it stands; `differs` of a range that is different.
    pub errno: String,
}

impl BadRange {
    /// Parses the whole of `errors`.
    ///
    /// # Panics
    /// If it is not exactly as the contract has it.
    pub fn parse_all(text: &str) -> Vec<Self> {
        text.lines().map(|line| Self::parse(line).unwrap_or_else(|| panic!("not a bad range: {line:?}"))).collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split(' ').collect();
        let (dest, rest) = match words[..] {
            ["read", ref rest @ ..] => (None, rest),
            ["write", dest, ref rest @ ..] => (Some(dest.parse().ok()?), rest),
            ["differs", dest, sector, count] => {
                let (sector, count) = (sector.parse().ok()?, count.parse().ok()?);
                return Some(Self { dest: Some(dest.parse().ok()?), sector, count, errno: "differs".to_owned() });
            }
            _ => return None,
        };
        let [sector, count, errno] = rest else { return None };
        let (sector, count) = (sector.parse().ok()?, count.parse().ok()?);
        (!errno.is_empty()).then(|| Self { dest, sector, count, errno: (*errno).to_owned() })
    }
}
