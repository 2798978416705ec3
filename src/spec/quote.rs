//! Quotes: how a line falls into words, and how a path is written so that it stays one.
//!
//! The rules are the shell's. Single quotes keep everything. Double quotes keep everything but a backslash before
//! backslash, double quote, `$` or a backquote. Elsewhere a backslash keeps the byte after it. A quote may begin and
//! end in the middle of a word. Nothing is expanded: `$HOME` and `*` are themselves.
//!
//! Beyond the shell, a kept comma does not separate, so that paths may hold commas.

use std::ops::Range;

use super::SpecError;

/// A byte of a word, with what the quotes said about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Byte {
    /// The byte itself.
    pub(super) value: u8,
    /// Whether a quote or backslash protects it.
    pub(super) kept: bool,
    /// Its column in the line.
    pub(super) at: usize,
}

/// A word of a line: its bytes without quotes, and its columns with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Token {
    /// The bytes; none for `''`.
    pub(super) bytes: Vec<Byte>,
    /// The columns, quotes included.
    pub(super) span: Range<usize>,
}

/// Whether a byte separates words.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The words of a line.
pub(super) fn split(line: &[u8]) -> Result<Vec<Token>, SpecError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < line.len() {
        if is_blank(line[at]) {
            at += 1;
            continue;
        }
        let token = word(line, at)?;
        at = token.span.end;
        tokens.push(token);
    }
    Ok(tokens)
}

/// The word that starts at column `start`.
fn word(line: &[u8], start: usize) -> Result<Token, SpecError> {
    let mut bytes = Vec::new();
    let mut at = start;
    while at < line.len() && !is_blank(line[at]) {
        at = match line[at] {
            b'\'' => single(line, at, &mut bytes)?,
            b'"' => double(line, at, &mut bytes)?,
            b'\\' => {
                if at + 1 == line.len() {
                    return Err(SpecError::syntax(
                        at..at + 1,
                        "a backslash at the end of the line keeps nothing; drop it",
                    ));
                }
                bytes.push(kept(line, at + 1)?);
                at + 2
            }
            _ => {
                bytes.push(bare(line, at)?);
                at + 1
            }
        };
    }
    Ok(Token { bytes, span: start..at })
}

/// The bytes within the single quotes that open at column `open`; gives the column behind them.
fn single(line: &[u8], open: usize, bytes: &mut Vec<Byte>) -> Result<usize, SpecError> {
    for at in open + 1..line.len() {
        if line[at] == b'\'' {
            return Ok(at + 1);
        }
        bytes.push(kept(line, at)?);
    }
    Err(unterminated(open, "single"))
}

/// The bytes within the double quotes that open at column `open`; gives the column behind them.
fn double(line: &[u8], open: usize, bytes: &mut Vec<Byte>) -> Result<usize, SpecError> {
    let mut at = open + 1;
    while at < line.len() {
        match line[at] {
            b'"' => return Ok(at + 1),
            b'\\' if line.get(at + 1).is_some_and(|next| is_escaped_in_double(*next)) => at += 1,
            _ => {}
        }
        bytes.push(kept(line, at)?);
        at += 1;
    }
    Err(unterminated(open, "double"))
}

/// What a backslash escapes within double quotes.
fn is_escaped_in_double(byte: u8) -> bool {
    matches!(byte, b'\\' | b'"' | b'$' | b'`')
}

fn unterminated(open: usize, which: &str) -> SpecError {
    SpecError::syntax(
        open..open + 1,
        format!("this {which} quote is not closed; close it or put a backslash before it"),
    )
}

/// A byte that is protected. NUL and newline can be in no path that a line could say.
fn kept(line: &[u8], at: usize) -> Result<Byte, SpecError> {
    match line[at] {
        0 => Err(SpecError::syntax(at..at + 1, "a NUL byte can be in no path; remove it")),
        b'\n' => Err(SpecError::syntax(at..at + 1, "a newline ends the job; a path with one cannot be written")),
        value => Ok(Byte { value, kept: true, at }),
    }
}

/// A byte that is not protected. Control bytes are refused: a carriage return would silently become part of a path.
fn bare(line: &[u8], at: usize) -> Result<Byte, SpecError> {
    let byte = kept(line, at)?;
    match byte.value {
        b'\r' => Err(SpecError::syntax(at..at + 1, "a carriage return outside quotes; end lines with a newline alone")),
        value if value.is_ascii_control() => {
            Err(SpecError::syntax(at..at + 1, format!("a control byte (0x{value:02x}) outside quotes; quote it")))
        }
        _ => Ok(Byte { kept: false, ..byte }),
    }
}

/// Writes `text` so that [`split`] gives it back as one word without separators: bare where it can be, in single quotes
/// where it holds none, else in double quotes.
pub(super) fn quote(text: &[u8], out: &mut Vec<u8>) {
    debug_assert!(!text.contains(&0) && !text.contains(&b'\n'), "a path that no line can say");
    if !text.is_empty() && text.iter().all(|byte| is_safe(*byte)) {
        out.extend_from_slice(text);
    } else if !text.contains(&b'\'') {
        out.push(b'\'');
        out.extend_from_slice(text);
        out.push(b'\'');
    } else {
        out.push(b'"');
        for byte in text {
            if is_escaped_in_double(*byte) {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.push(b'"');
    }
}

/// Whether a byte needs no quotes, neither here nor in a shell.
fn is_safe(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"/._-+:@%=~^".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words as text, or the column of the error.
    fn words(line: &[u8]) -> Result<Vec<Vec<u8>>, usize> {
        let text = |token: Token| token.bytes.iter().map(|byte| byte.value).collect();
        split(line).map(|tokens| tokens.into_iter().map(text).collect()).map_err(|error| error.span.start)
    }

    fn ok(line: &str) -> Vec<String> {
        words(line.as_bytes()).unwrap().into_iter().map(|word| String::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn words_fall_apart_as_in_a_shell() {
        assert_eq!(ok(" a\t b  "), ["a", "b"]);
        assert_eq!(ok("'a b'c\"d e\" f"), ["a bcd e", "f"]);
        assert_eq!(ok(r"a\ b \\ \'"), ["a b", r"\", "'"]);
        assert_eq!(ok(r#""\"\\\$\`" "\a""#), [r#""\$`"#, r"\a"]);
        assert_eq!(ok(r"'\' ''"), [r"\", ""]);
        assert_eq!(ok("$HOME *"), ["$HOME", "*"]);
    }

    #[test]
    fn what_is_not_closed_is_pointed_at() {
        assert_eq!(words(b"ab 'c d"), Err(3));
        assert_eq!(words(b"ab c\"d"), Err(4));
        assert_eq!(words(br#"ab "c\""#), Err(3));
        assert_eq!(words(br"ab\"), Err(2));
    }

    #[test]
    fn bytes_that_no_path_has_are_refused() {
        assert_eq!(words(b"a\0"), Err(1));
        assert_eq!(words(b"'\0'"), Err(1));
        assert_eq!(words(b"'a\nb'"), Err(2));
        assert_eq!(words(b"a\r"), Err(1));
        assert_eq!(words(b"a\x7f"), Err(1));
        assert_eq!(words(b"'a\r'\\\x7f"), Ok(vec![b"a\r\x7f".to_vec()]));
    }

    #[test]
    fn columns_count_the_quotes() {
        let tokens = split(b" x='a'\\,b").unwrap();
        assert_eq!(tokens[0].span, 1..9);
        let comma = tokens[0].bytes.iter().find(|byte| byte.value == b',').unwrap();
        assert_eq!(*comma, Byte { value: b',', kept: true, at: 7 });
    }

    #[test]
    fn quoting_is_the_least_that_does() {
        let quoted = |text: &str| {
            let mut out = Vec::new();
            quote(text.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(quoted("/dev/disk/by-id/a=b:c"), "/dev/disk/by-id/a=b:c");
        assert_eq!(quoted("/a b"), "'/a b'");
        assert_eq!(quoted("/a,b"), "'/a,b'");
        assert_eq!(quoted("/it's \"$1\""), r#""/it's \"\$1\"""#);
        assert_eq!(quoted(""), "''");
    }
}
