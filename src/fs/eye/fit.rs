//! Texts of others made fit for a terminal and a page: no control characters, and no more columns than there are. Pure.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What stands for what was left out.
const DOTS: &str = "...";

/// A name or path as people see it: bytes that are no text, control characters, and marks that are not seen or turn the
/// order of others round are octal, as in /proc/mounts.
pub(in crate::fs) fn shown(name: impl AsRef<OsStr>) -> String {
    escaped(name.as_ref(), false)
}

/// The same, from which the bytes can be told again: backslashes are octal too.
pub(in crate::fs) fn exact(name: impl AsRef<OsStr>) -> String {
    escaped(name.as_ref(), true)
}

fn escaped(name: &OsStr, is_exact: bool) -> String {
    let mut out = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        for letter in chunk.valid().chars() {
            if letter.is_control() || is_unseen(letter) || (is_exact && letter == '\\') {
                octal(&mut out, letter.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                out.push(letter);
            }
        }
        octal(&mut out, chunk.invalid());
    }
    out
}

fn octal(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        _ = write!(out, "\\{byte:03o}");
    }
}

/// Marks of direction, joiners, separators of lines, tags: text can hide in them, or seem to be other text.
const fn is_unseen(letter: char) -> bool {
    matches!(
        letter,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// Columns that a text takes.
pub(in crate::fs) fn width(text: &str) -> usize {
    text.width()
}

/// The text, or its beginning with three dots, in at most `room` columns.
pub(in crate::fs) fn cut(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let dots = &DOTS[..room.min(DOTS.len())];
    format!("{}{dots}", head(text, room - dots.len()))
}

/// The text, or its beginning and its end with three dots between them, in at most `room` columns: of a path both tell
/// something, and the end tells more.
pub(in crate::fs) fn shorten(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    if room < 8 {
        return cut(text, room);
    }
    let letters = room - DOTS.len();
    let first = head(text, letters * 2 / 5);
    format!("{first}{DOTS}{}", tail(text, letters - width(first)))
}

/// The text, and blanks up to so many columns.
pub(in crate::fs) fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(width(text))))
}

fn head(text: &str, room: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, letter)| {
        used += letter.width().unwrap_or(0);
        used > room
    });
    end.map_or(text, |(end, _)| &text[..end])
}

fn tail(text: &str, room: usize) -> &str {
    let mut used = 0;
    let fits = |letter: &(usize, char)| {
        used += letter.1.width().unwrap_or(0);
        used <= room
    };
    let start = text.char_indices().rev().take_while(fits).last();
    start.map_or("", |(start, _)| &text[start..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_of_a_name_reaches_the_terminal_but_letters() {
        assert_eq!(shown("/dev/sda"), "/dev/sda");
        assert_eq!(shown("a\nb\x1b[2J\u{85}"), "a\\012b\\033[2J\\302\\205");
        assert_eq!(shown("gpj\u{202e}exe"), "gpj\\342\\200\\256exe");
        assert_eq!(shown(OsStr::from_bytes(b"/mnt/\xff\xfe/b\xc3")), "/mnt/\\377\\376/b\\303");
        assert_eq!(shown("שלום é 日本"), "שלום é 日本");
        assert_eq!((shown(r"a\b"), exact(r"a\b")), (r"a\b".to_owned(), r"a\134b".to_owned()));
    }

    #[test]
    fn a_path_is_shortened_in_its_middle() {
        let path = "/dev/disk/by-id/ata-WDC_WD40EFRX-68N32N0_WD-WCC7K0123456";
        assert_eq!(shorten(path, 30), "/dev/disk/...0_WD-WCC7K0123456");
        assert_eq!(shorten(path, 99), path);
        assert_eq!(
            (shorten(path, 5), shorten(path, 2), shorten(path, 0)),
            ("/d...".into(), "..".into(), String::new())
        );
        assert_eq!(cut("日本語日本語", 9), "日本語...");
        assert_eq!(pad("日本", 6), "日本  ");
    }

    proptest! {
        #[test]
        fn no_text_is_wider_than_its_room(text in any::<Vec<u8>>(), letters in ".*", room in 0_usize..90) {
            for text in [shown(OsStr::from_bytes(&text)), shown(&letters)] {
                prop_assert!(width(&shorten(&text, room)) <= room && width(&cut(&text, room)) <= room);
                prop_assert!(!text.chars().any(|letter| letter.is_control() || is_unseen(letter)));
                prop_assert_eq!(shorten(&text, width(&text)), &*text);
            }
        }
    }
}
