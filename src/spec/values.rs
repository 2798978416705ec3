//! The values that keys take: read with the reason where they are bad, said again where they are not the default.

use super::{After, MAX_LABEL, OnReadError, OnWriteError, number, shown};

const ON_READ_ERROR: [(&str, OnReadError); 3] =
    [("stop", OnReadError::Stop), ("zero", OnReadError::Zero), ("skip", OnReadError::Skip)];

const ON_WRITE_ERROR: [(&str, OnWriteError); 2] = [("drop", OnWriteError::Drop), ("stop", OnWriteError::Stop)];

/// The client of a job that names none.
const DEFAULT_CLIENT: &str = "default";

/// The only thing that may be forced: each danger has its own word.
const FORCE: [(&str, ()); 1] = [("mounted", ())];

/// The word for unlimited speed.
const SPEED_UNLIMITED: &[u8] = b"max";

/// A value with the reason why it is bad, and the remedy.
type Value<T> = Result<T, String>;

pub(super) fn on_read_error(text: &[u8]) -> Value<OnReadError> {
    choose(&ON_READ_ERROR, text)
}

pub(super) fn on_read_error_said(value: OnReadError) -> Option<String> {
    said(&ON_READ_ERROR, Some(value).filter(|value| *value != OnReadError::default()))
}

pub(super) fn on_write_error(text: &[u8]) -> Value<OnWriteError> {
    choose(&ON_WRITE_ERROR, text)
}

pub(super) fn on_write_error_said(value: OnWriteError) -> Option<String> {
    said(&ON_WRITE_ERROR, Some(value).filter(|value| *value != OnWriteError::default()))
}

pub(super) fn force(text: &[u8]) -> Value<()> {
    choose(&FORCE, text)
}

pub(super) fn force_said(mounted: bool) -> Option<String> {
    said(&FORCE, mounted.then_some(()))
}

/// A name of `clients/`; `None` for the default one.
pub(super) fn client(text: &[u8]) -> Value<Option<String>> {
    label(text).map(|name| Some(name).filter(|name| name != DEFAULT_CLIENT))
}

pub(super) fn client_said(name: Option<&str>) -> Option<String> {
    name.filter(|name| *name != DEFAULT_CLIENT).map(str::to_owned)
}

/// A name that is to be a file's in the tree.
pub(super) fn label(text: &[u8]) -> Value<String> {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    match text {
        [] => Err("a name is missing".into()),
        b"." | b".." => Err(format!("{} cannot be a file's name; choose another", shown(text))),
        _ if text.len() > MAX_LABEL => Err(format!("{} is longer than {MAX_LABEL} bytes; shorten it", shown(text))),
        _ if !text.iter().all(is_letter) => {
            Err(format!("{} has other characters than ASCII letters, digits and . _ -; use only these", shown(text)))
        }
        _ => Ok(String::from_utf8_lossy(text).into_owned()),
    }
}

/// A plain number of times.
pub(super) fn count(text: &[u8]) -> Value<u32> {
    let number = number::plain(text).map_err(|error| format!("{}: {error}", shown(text)))?;
    u32::try_from(number).map_err(|_| format!("{} is too large; at most {}", shown(text), u32::MAX))
}

/// A job's number, which counts from 1, or its name. What has digits alone is a number.
pub(super) fn after(text: &[u8]) -> Value<After> {
    let remedy = "name a job by its ID, as in jobs/, or by its name, as in names/";
    if !text.iter().all(u8::is_ascii_digit) || text.is_empty() {
        return label(text).map(After::Name).map_err(|error| format!("{error}; {remedy}"));
    }
    match number::plain(text) {
        Ok(0) => Err("there is no job 0; they count from 1".into()),
        Ok(id) => Ok(After::Job(id)),
        Err(error) => Err(format!("{}: {error}; {remedy}", shown(text))),
    }
}

pub(super) fn after_said(after: Option<&After>) -> Option<String> {
    after.map(|after| match after {
        After::Job(id) => id.to_string(),
        After::Name(name) => name.clone(),
    })
}

/// Bytes per second, or `None` for `max`.
pub(super) fn speed(text: &[u8]) -> Value<Option<u64>> {
    if text == SPEED_UNLIMITED {
        return Ok(None);
    }
    match number::scaled(text) {
        Ok(0) => Err("a job at speed 0 never ends; write `paused` to hold it".into()),
        Ok(speed) => Ok(Some(speed)),
        Err(error) => Err(format!("{}: {error}; write bytes per second, as 64M, or max", shown(text))),
    }
}

/// The choice of that name.
fn choose<T: Copy>(choices: &[(&str, T)], text: &[u8]) -> Value<T> {
    if let Some((_, value)) = choices.iter().find(|(name, _)| name.as_bytes() == text) {
        return Ok(*value);
    }
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    Err(format!("{} is not one of: {}", shown(text), names.join(", ")))
}

/// The name of a choice.
fn said<T: Copy + PartialEq>(choices: &[(&str, T)], value: Option<T>) -> Option<String> {
    let value = value?;
    choices.iter().find(|(_, choice)| *choice == value).map(|(name, _)| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_can_be_names_of_files() {
        assert_eq!(label(b"nightly-2.v_1"), Ok("nightly-2.v_1".into()));
        assert_eq!(label(&[b'a'; 64]).map(|label| label.len()), Ok(64));
        for bad in [&b""[..], b".", b"..", b"a/b", b"a b", b"\xc3\xa4", &[b'a'; 65]] {
            assert!(label(bad).is_err(), "{bad:?}");
        }
        assert_eq!(label(b"..."), Ok("...".into()));
    }

    #[test]
    fn the_default_client_is_not_said() {
        assert_eq!(client(b"default"), Ok(None));
        assert_eq!(client(b"bulk"), Ok(Some("bulk".into())));
        assert_eq!(client_said(Some("default")), None);
    }

    #[test]
    fn speeds_take_units_and_max() {
        assert_eq!(speed(b"64M"), Ok(Some(64 << 20)));
        assert_eq!(speed(b"max"), Ok(None));
        assert!(speed(b"0").is_err() && speed(b"fast").is_err() && speed(b"99999999T").is_err());
    }

    #[test]
    fn numbers_end_where_their_fields_do() {
        assert_eq!(count(b"4294967295"), Ok(u32::MAX));
        assert!(count(b"4294967296").is_err() && count(b"1K").is_err());
        assert_eq!(after(b"7"), Ok(After::Job(7)));
        assert_eq!(after(b"7th"), Ok(After::Name("7th".into())));
        for bad in [&b"0"[..], b"", b"a/b", b"99999999999999999999"] {
            assert!(after(bad).is_err(), "{bad:?}");
        }
    }
}
