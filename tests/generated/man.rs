//! What man pages have in common: how they begin, their parts, and lines that every formatter takes.

use clap_mangen::roff::{Inline, Roff, bold, roman};

/// What roff writes before each part: an apostrophe for every formatter.
const PREAMBLE: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// A section that begins.
pub(crate) fn section(title: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", [title]);
    roff
}

/// A paragraph.
pub(crate) fn paragraph(roff: &mut Roff, text: &str) {
    roff.control("PP", []);
    roff.text([roman(text)]);
}

/// An indented paragraph with a tag.
pub(crate) fn entry(roff: &mut Roff, tag: impl Into<Vec<Inline>>, text: &str) {
    roff.control("TP", []);
    roff.text(tag);
    roff.text([roman(text)]);
}

/// Lines as they stand.
pub(crate) fn verbatim(roff: &mut Roff, lines: &str) {
    roff.control("PP", []);
    roff.control("nf", []);
    roff.control("RS", ["4"]);
    for line in lines.lines() {
        roff.text([roman(line)]);
    }
    roff.control("RE", []);
    roff.control("fi", []);
}

/// Where kcopyfs(8) leads to.
pub(crate) const SEE_ALSO: &[(&str, &str)] =
    &[("kcopyfs-spec", "5"), ("fstab", "5"), ("mount", "8"), ("umount", "8"), ("losetup", "8"), ("ddrescue", "1")];
/// Where the page of the language leads to.
pub(crate) const SEE_ALSO_TREE: &[(&str, &str)] = &[("kcopyfs", "8"), ("blockdev", "8"), ("ddrescue", "1")];

/// The last section.
pub(crate) fn see_also(pages: &[(&str, &str)]) -> Roff {
    let mut roff = section("SEE ALSO");
    for (index, (name, number)) in pages.iter().enumerate() {
        let end = if index + 1 == pages.len() { "" } else { "," };
        roff.text([bold(*name), roman(format!("({number}){end}"))]);
    }
    roff
}

/// The day on which the pages' own prose was last looked through.
pub(crate) const DATE: &str = "2026-11-28";

/// The first line of a page that clap does not make.
pub(crate) fn title(name: &str, number: &str, manual: &str) -> Vec<u8> {
    let mut roff = Roff::new();
    let source = concat!("kcopyfs ", env!("CARGO_PKG_VERSION"));
    roff.control("TH", [name, number, DATE, source, manual]);
    let mut page = Vec::new();
    roff.to_writer(&mut page).expect("write to memory");
    page
}

/// A whole page from its parts: each begins with the same preamble, of which the first is enough; and no line of text is
/// longer than a terminal is wide.
pub(crate) fn finish(page: Vec<u8>) -> String {
    let page = String::from_utf8(page).expect("UTF-8");
    let page = page.replace(PREAMBLE, "");
    let (mut text, mut is_verbatim) = (PREAMBLE.to_owned(), false);
    for line in page.lines() {
        match line {
            ".nf" => is_verbatim = true,
            ".fi" => is_verbatim = false,
            _ => {}
        }
        if is_verbatim || line.starts_with(['.', '\'']) {
            text.push_str(line);
        } else {
            wrap(line, &mut text);
        }
        text.push('\n');
    }
    text
}

/// Longest line of text.
const WIDTH: usize = 80;

/// Breaks a line at blanks; never before what roff would take for a request.
fn wrap(line: &str, text: &mut String) {
    let mut width = 0;
    for (index, word) in line.split(' ').enumerate() {
        let is_request = word.is_empty() || word.starts_with(['.', '\'']);
        if index > 0 && (width + 1 + word.len() <= WIDTH || is_request) {
            text.push(' ');
            width += 1;
        } else if index > 0 {
            text.push('\n');
            width = 0;
        }
        text.push_str(word);
        width += word.len();
    }
}
