//! The words of the language that `retry` takes: what a job that is there already does after errors from now on.

use super::parse::{check, policy_words};
use super::{OnReadError, OnWriteError, Spans, Spec, SpecError};
use crate::error::Result;

/// The words that may change. All others say what the job is.
pub(super) const WORDS: [&str; 3] = ["on_read_error", "on_write_error", "retries"];

/// What a job does after errors, as far as that is to change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What becomes of a block that cannot be read.
    pub on_read_error: Option<OnReadError>,
    /// What becomes of a destination that cannot be written.
    pub on_write_error: Option<OnWriteError>,
    /// How many more times a failed block is tried.
    pub retries: Option<u32>,
}

impl Policy {
    /// Nothing changes.
    pub const SAME: Self = Self { on_read_error: None, on_write_error: None, retries: None };

    /// Reads words as `on_read_error=zero retries=3`.
    ///
    /// # Errors
    /// `Syntax` for any other word, or a bad value.
    pub fn parse(words: &[u8]) -> std::result::Result<Self, SpecError> {
        let (spec, given) = policy_words(words)?;
        let said = |name| given.contains(&name);
        Ok(Self {
            on_read_error: said("on_read_error").then_some(spec.on_read_error),
            on_write_error: said("on_write_error").then_some(spec.on_write_error),
            retries: said("retries").then_some(spec.retries),
        })
    }

    /// A job's spec with it.
    ///
    /// # Errors
    /// `Syntax` where that contradicts another word of the spec.
    pub fn applied_to(self, spec: &Spec) -> Result<Spec> {
        let spec = Spec {
            on_read_error: self.on_read_error.unwrap_or(spec.on_read_error),
            on_write_error: self.on_write_error.unwrap_or(spec.on_write_error),
            retries: self.retries.unwrap_or(spec.retries),
            ..spec.clone()
        };
        check(&spec, &Spans::default()).map_err(|refused| refused.error)?;
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_changes_and_nothing_else() {
        let policy = Policy::parse(b" on_read_error=zero  retries=3").unwrap();
        let want = Policy { on_read_error: Some(OnReadError::Zero), on_write_error: None, retries: Some(3) };
        assert_eq!(policy, want);
        assert_eq!(Policy::parse(b"").unwrap(), Policy::SAME);
        let spec = |line: &[u8]| super::super::parse(line).unwrap().spec;
        let changed = policy.applied_to(&spec(b"from=/a to=/b on_write_error=stop retries=1")).unwrap();
        assert_eq!(changed.to_line(), b"copy from=/a to=/b on_read_error=zero on_write_error=stop retries=3");
        // The default is said like any other.
        let back = Policy::parse(b"on_read_error=stop retries=0").unwrap().applied_to(&changed).unwrap();
        assert_eq!(back.to_line(), b"copy from=/a to=/b on_write_error=stop");
        assert!(policy.applied_to(&spec(b"from=/a to=/b ignore_error")).is_err(), "they contradict each other");
    }

    #[test]
    fn other_words_are_refused_with_the_list() {
        for words in [&b"verify"[..], b"to=/b", b"retries", b"retries=x", b"retries=1 retries=2", b"copy", b"name=x"] {
            assert!(Policy::parse(words).is_err(), "{words:?}");
        }
        let refused = Policy::parse(b"retries=1 name=x").unwrap_err();
        let want = "`name` cannot change; `retry` takes on_read_error= on_write_error= retries=";
        assert_eq!((refused.to_string().as_str(), refused.span), (want, 10..14));
    }
}
