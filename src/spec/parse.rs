//! From a line to a job.
//!
//! 1. The line falls into words (`quote`).
//! 2. Each word is looked up in the table (`keys`) and read into its field. Columns are kept for the caret.
//! 3. The job is checked as a whole: what its action needs, counts that agree, regions that end somewhere.

use std::ffi::OsString;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;

use super::keys::{self, Field, Kind, Word};
use super::quote::{self, Byte, Token};
use super::{
    Action, MAX_DESTS, MAX_LINE, OnReadError, Parsed, Place, RegionSpec, Spans, Spec, SpecError, number, policy, shown,
};
use crate::error::ErrorKind;
use crate::sector::Sector;

/// Reads a line without its newline, which is neither blank nor a comment.
///
/// # Errors
/// `Syntax` for a line that is not in the language, `TooBig` for too long a line or too many destinations, `BeyondEnd` for a
/// region that no device could have.
pub fn parse(line: &[u8]) -> Result<Parsed, SpecError> {
    if line.len() > MAX_LINE {
        let text = format!("the line has {} bytes; at most {MAX_LINE} are read", line.len());
        return Err(SpecError::new(ErrorKind::TooBig, MAX_LINE..line.len(), text));
    }
    let mut reader = Reader::default();
    reader.spans.line = 0..line.len();
    for (index, token) in quote::split(line)?.iter().enumerate() {
        reader.word(token, index == 0)?;
    }
    reader.share_count();
    check(&reader.spec, &reader.spans)?;
    Ok(Parsed { spec: reader.spec, spans: reader.spans })
}

/// Reads words that `retry` takes: a spec of nothing else, and which of them are given.
pub(super) fn policy_words(text: &[u8]) -> Result<(Spec, Vec<&'static str>), SpecError> {
    let mut reader = Reader::default();
    for token in quote::split(text)? {
        let name = token.bytes.iter().map(|byte| byte.value).take_while(|byte| *byte != b'=').collect::<Vec<_>>();
        if !policy::WORDS.iter().any(|word| word.as_bytes() == name) {
            let words = policy::WORDS.map(|word| format!("{word}=")).join(" ");
            let text = format!("{} cannot change; `retry` takes {words}", shown(&name));
            return Err(SpecError::syntax(token.span.start..token.span.start + name.len(), text));
        }
        reader.word(&token, false)?;
    }
    Ok((reader.spec, reader.given.iter().map(|word| word.name).collect()))
}

/// The job as far as the line is read.
#[derive(Default)]
struct Reader {
    spec: Spec,
    spans: Spans,
    given: Vec<&'static Word>,
}

impl Reader {
    fn word(&mut self, token: &Token, first: bool) -> Result<(), SpecError> {
        let equals = token.bytes.iter().position(|byte| byte.value == b'=');
        let key = match equals {
            Some(at) => Part { bytes: &token.bytes[..at], span: token.span.start..token.bytes[at].at },
            None => Part { bytes: &token.bytes, span: token.span.clone() },
        };
        let value =
            equals.map(|at| Part { bytes: &token.bytes[at + 1..], span: token.bytes[at].at + 1..token.span.end });
        let word = known(&key, first)?;
        self.once(word, &key)?;
        match (&word.field, value) {
            (Field::Action(_) | Field::Flag { .. }, Some(value)) => {
                return Err(SpecError::syntax(value.span, format!("`{}` takes no value; write it alone", word.name)));
            }
            (Field::From | Field::To | Field::Path { .. } | Field::Value { .. }, None) => {
                let text = format!("`{}` needs a value; write {}", word.name, word.usage());
                return Err(SpecError::syntax(key.span, text));
            }
            (Field::Action(action), None) => self.spec.action = *action,
            (Field::Flag { set, .. }, None) => set(&mut self.spec),
            (Field::Value { set, .. }, Some(value)) => set(&mut self.spec, &text(value.bytes))
                .map_err(|reason| SpecError::syntax(value.span, format!("{}: {reason}", word.name)))?,
            (Field::Path { set, .. }, Some(value)) => set(&mut self.spec, absolute(word, &value)?),
            (Field::From, Some(value)) => {
                self.spec.from = Some(region(word, &value)?);
                self.spans.from = value.span;
            }
            (Field::To, Some(value)) => self.dest(word, &value)?,
        }
        self.spans.words.push((word.name, token.span.clone()));
        self.given.push(word);
        Ok(())
    }

    /// A COUNT that only a destination gives is the source's too. Without this the job would go on to the source's end.
    fn share_count(&mut self) {
        let count = self.spec.count();
        if let Some(from) = &mut self.spec.from {
            from.count = count;
        }
    }

    /// Only `to` may be said more than once: of two values one would silently not count.
    fn once(&self, word: &'static Word, key: &Part) -> Result<(), SpecError> {
        let again = self.given.iter().any(|given| std::ptr::eq(*given, word));
        if again && !matches!(word.field, Field::To) {
            let text = format!("`{}` is given twice; drop one", word.name);
            return Err(SpecError::syntax(key.span.clone(), text));
        }
        Ok(())
    }

    fn dest(&mut self, word: &Word, value: &Part) -> Result<(), SpecError> {
        if self.spec.to.len() == MAX_DESTS {
            let text = format!("more than {MAX_DESTS} destinations; make another job for the rest");
            return Err(SpecError::new(ErrorKind::TooBig, value.span.clone(), text));
        }
        self.spec.to.push(region(word, value)?);
        self.spans.to.push(value.span.clone());
        Ok(())
    }
}

/// A piece of a word: its bytes without quotes, its columns with them.
struct Part<'a> {
    bytes: &'a [Byte],
    span: Range<usize>,
}

impl<'a> Part<'a> {
    /// The pieces between the commas that nothing protects.
    fn split(&self) -> Vec<Part<'a>> {
        let bytes = self.bytes;
        let commas = bytes.iter().enumerate().filter(|(_, byte)| byte.value == b',' && !byte.kept);
        let (mut parts, mut start, mut column) = (Vec::new(), 0, self.span.start);
        for (index, comma) in commas {
            parts.push(Part { bytes: &bytes[start..index], span: column..comma.at });
            (start, column) = (index + 1, comma.at + 1);
        }
        parts.push(Part { bytes: &bytes[start..], span: column..self.span.end });
        parts
    }
}

fn text(bytes: &[Byte]) -> Vec<u8> {
    bytes.iter().map(|byte| byte.value).collect()
}

/// The word of the table that is meant.
fn known(key: &Part, first: bool) -> Result<&'static Word, SpecError> {
    let refuse = |text: String| Err(SpecError::syntax(key.span.clone(), text));
    let name = text(key.bytes);
    match keys::find(&name, first) {
        Some(word) if word.kind() == Kind::Action && !first => {
            refuse(format!("`{}` says what is done; write it first, and only one such word", word.name))
        }
        Some(word) => Ok(word),
        None if name.first() == Some(&b'/') => refuse(format!("{} needs from= or to= before it", shown(&name))),
        None => refuse(format!("unknown word {}; {}", shown(&name), keys::suggest(&name))),
    }
}

/// `PATH[,SECTOR[,COUNT]]`.
fn region(word: &Word, value: &Part) -> Result<RegionSpec, SpecError> {
    let parts = value.split();
    if let Some(part) = parts.get(3) {
        let text = format!("{}: more than PATH,SECTOR,COUNT; quote the path if it has a comma", word.name);
        return Err(SpecError::syntax(part.span.clone(), text));
    }
    let path = absolute(word, &parts[0])?;
    let sector = parts.get(1).map(|part| sectors(word, "SECTOR", part)).transpose()?;
    let count = parts.get(2).map(|part| sectors(word, "COUNT", part)).transpose()?;
    Ok(RegionSpec { path, sector: sector.unwrap_or_default(), count })
}

/// A path from / on.
fn absolute(word: &Word, part: &Part) -> Result<OsString, SpecError> {
    let path = text(part.bytes);
    if path.first() != Some(&b'/') {
        let wrong = if path.is_empty() { "a path is missing".into() } else { format!("{} is relative", shown(&path)) };
        let text = format!("{}: {wrong}; write an absolute path, from /", word.name);
        return Err(SpecError::syntax(part.span.clone(), text));
    }
    Ok(OsString::from_vec(path))
}

/// One number of a region. `what` is its name for people.
fn sectors(word: &Word, what: &str, part: &Part) -> Result<Sector, SpecError> {
    let digits = text(part.bytes);
    number::sectors(&digits).map_err(|error| {
        let text = format!(
            "{}: {} as {what}: {error}; write sectors, or bytes as 64K, and quote the path if it has a comma",
            word.name,
            shown(&digits)
        );
        SpecError::syntax(part.span.clone(), text)
    })
}

/// What only the whole job can show.
pub(super) fn check(spec: &Spec, spans: &Spans) -> Result<(), SpecError> {
    check_source(spec, spans)?;
    if spec.to.is_empty() && !(spec.action == Action::Verify && spec.digests.expects()) {
        let end = spans.line.end;
        let text = match spec.action {
            Action::Verify => "nothing to compare with; add to=PATH, or a sum: digest=sha256:HEX",
            Action::Copy | Action::Zero | Action::Test => "no destination; add to=PATH",
        };
        return Err(SpecError::syntax(end..end, text));
    }
    check_counts(spec, spans)?;
    check_ends(spec, spans)?;
    // Else the job could not be written again from jobs/ID/spec.
    if spec.to_line().len() > MAX_LINE {
        let text = format!("in canonical form the line has more than {MAX_LINE} bytes; make two jobs of it");
        return Err(SpecError::new(ErrorKind::TooBig, spans.line.clone(), text));
    }
    Ok(())
}

fn check_source(spec: &Spec, spans: &Spans) -> Result<(), SpecError> {
    match (spec.action, &spec.from) {
        (Action::Zero, Some(_)) => {
            Err(SpecError::syntax(spans.from.clone(), "`zero` reads nothing; drop from=, or the word zero to copy"))
        }
        (Action::Zero, None) if !spec.digests.is_empty() => {
            Err(SpecError::syntax(spans.line.clone(), "`zero` reads nothing, so there is no digest; drop digest="))
        }
        (Action::Test, Some(_)) => Err(SpecError::syntax(
            spans.from.clone(),
            "`test` makes up what it writes; drop from=, or the word test to copy",
        )),
        (Action::Copy | Action::Verify, None) => {
            let end = spans.line.end;
            Err(SpecError::syntax(end..end, "no source; add from=PATH, or begin the line with zero to write zeros"))
        }
        _ => check_sense(spec, spans),
    }
}

/// Words that contradict each other, or the action.
fn check_sense(spec: &Spec, spans: &Spans) -> Result<(), SpecError> {
    let refuse = |word, text: &str| Err(SpecError::syntax(spans.of(Place::Word(word)), text));
    if spec.action == Action::Zero && spec.verify {
        return refuse("verify", "`zero` reads nothing, so there is nothing to compare with; drop verify");
    }
    if spec.action == Action::Verify && spec.create {
        return refuse("create", "`verify` writes nothing, so it makes no file; drop create");
    }
    if spec.changed && spec.action != Action::Copy {
        return refuse("changed", "`changed` is for a copy, which writes what differs; drop changed");
    }
    if spec.action == Action::Test {
        let senseless = [
            ("verify", spec.verify, "`test` reads back and compares anyway; drop verify"),
            ("digest", !spec.digests.is_empty(), "`test` makes up what it writes, so there is no digest; drop digest="),
            ("sparse", spec.sparse, "`test` writes all there is; drop sparse"),
            ("ignore_error", spec.ignore_error, "`test` goes on after errors anyway; drop ignore_error"),
            ("on_read_error", spec.on_read_error != OnReadError::Stop, "`test` has no source; drop on_read_error="),
        ];
        if let Some((word, _, text)) = senseless.into_iter().find(|(_, is_said, _)| *is_said) {
            return refuse(word, text);
        }
    }
    if spec.map.is_some() && spec.action != Action::Copy {
        return refuse("map", "`map` is for a copy: it says what need not be copied; drop map=");
    }
    if spec.map.is_some() && spec.after.is_some() {
        return refuse(
            "map",
            "`map` says what is on the destinations now, and may not hold when another job is done; drop after=",
        );
    }
    if spec.once && spec.name.is_none() {
        return refuse("once", "`once` looks for a job of the same name: add name=LABEL");
    }
    if spec.ignore_error && spec.on_read_error != OnReadError::Stop {
        let text = "`ignore_error` writes zeros for whole pieces, as kcopyd does; drop it, or on_read_error=";
        return refuse("ignore_error", text);
    }
    Ok(())
}

/// All regions of a job are of one length: the COUNT that any of them gives.
fn check_counts(spec: &Spec, spans: &Spans) -> Result<(), SpecError> {
    let length = spec.count();
    for (dest, span) in spec.to.iter().zip(&spans.to) {
        let refuse = |text: String| Err(SpecError::syntax(span.clone(), text));
        match dest.count {
            None if spec.action == Action::Zero => {
                return refuse(
                    "to: `zero` needs SECTOR and COUNT; write to=PATH,SECTOR,COUNT (blockdev --getsz PATH counts them)"
                        .into(),
                );
            }
            Some(count) if Some(count) != length => {
                let earlier = length.unwrap_or_default();
                return refuse(format!(
                    "to: COUNT {count} differs from the earlier {earlier}; all regions of a job must be equally long"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A region whose end is beyond every file offset is beyond the end of every device.
fn check_ends(spec: &Spec, spans: &Spans) -> Result<(), SpecError> {
    let Some(length) = spec.count() else { return Ok(()) };
    let from = spec.from.iter().zip(std::iter::once(&spans.from));
    for (region, span) in from.chain(spec.to.iter().zip(&spans.to)) {
        if region.sector.checked_add(length).is_none() {
            let text = format!("sector {} and {length} more are beyond the end of any device", region.sector);
            return Err(SpecError::new(ErrorKind::BeyondEnd, span.clone(), text));
        }
    }
    Ok(())
}
