//! A destination as a picture: `map.K.svg`, and the maps in a report. Pure.
//!
//! Each state has a colour that colour-blind people tell from the others (the set of Okabe and Ito), and one of its own
//! brightness or pattern, so that a print in black and white can be read too. A run of equal cells is one element, with a title that
//! browsers show beside the pointer.

use std::fmt::Write as _;
use std::ops::Range;

use maud::{Markup, html};

use super::fit::{shorten, shown};
use crate::fs::units::amount;
use crate::jobs::{CELLS_MAX, Cell, Cells, Rate, View};

/// Most bytes of a picture, and of a page.
pub(in crate::fs) const BYTES_MAX: usize = 400 << 10;
/// Cells of a line.
const COLUMNS: usize = 128;
/// Units of a cell, each way.
const CELL: usize = 8;
/// Where the map begins, below its title.
const TOP: usize = 48;
/// Units below the map, for the legend.
const LEGEND: usize = 64;

/// A file of its own. `cells` gives the destination in at most so many.
pub(in crate::fs) fn render(view: &View, index: usize, cells: impl Fn(usize) -> Option<Cells>) -> Option<String> {
    let mut most = CELLS_MAX;
    loop {
        let text = file(view, index, &cells(most)?);
        if text.len() <= BYTES_MAX || most < COLUMNS {
            return Some(text);
        }
        most /= 2;
    }
}

fn file(view: &View, index: usize, cells: &Cells) -> String {
    let (width, lines) = (COLUMNS * CELL, cells.cells.len().div_ceil(COLUMNS).max(1));
    let height = TOP + lines * CELL + LEGEND;
    let path = view.dests.get(index).map(|dest| shown(&dest.path)).unwrap_or_default();
    let name = view.name.as_ref().map(|name| format!(" {}", shown(name))).unwrap_or_default();
    let title = shorten(&format!("job {}{name}, destination {index}: {path}", view.id), 100);
    let cell =
        format!("A cell is {} and shows the worst in it; the whole is {}.", amount(cells.size), amount(cells.total));
    let below = TOP + lines * CELL;
    let svg = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {width} {height}")) width=(width) height=(height)
            font-family="sans-serif" font-size="14" fill="#222" {
            title { (title) }
            (patterns())
            rect width=(width) height=(height) fill="#fff" {}
            text x="4" y="18" font-size="16" font-weight="bold" { (title) }
            text x="4" y="38" { (cell) }
            g transform=(format!("translate(0 {TOP})")) { (map(cells, COLUMNS)) }
            @for (place, state) in Cell::ALL.iter().enumerate() {
                @let (x, y) = (4 + place % 4 * 256, below + 12 + place / 4 * 26);
                rect x=(x) y=(y) width="24" height="16" stroke="#555" stroke-width="0.5" fill=(fill(*state)) {}
                text x=(x + 32) y=(y + 13) { (state.as_str()) }
            }
        }
    };
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}\n", svg.into_string())
}

/// The patterns that states are filled with; once in a page.
pub(in crate::fs) fn patterns() -> Markup {
    let pattern = |state: Cell, ground: &str, stroke: &str, path: &str| {
        html! {
            pattern id=(id(state)) width="8" height="8" patternUnits="userSpaceOnUse" {
                rect width="8" height="8" fill=(ground) {}
                path d=(path) stroke=(stroke) stroke-width="1.5" fill="none" {}
            }
        }
    };
    html! {
        defs {
            (pattern(Cell::Copied, "#56b4e9", "#fff", "M0 4h8"))
            (pattern(Cell::AtWork, "#fff", "#000", "M2 1l4 3l-4 3"))
            (pattern(Cell::Suspect, "#f0e442", "#000", "M1 2h2M5 6h2"))
            (pattern(Cell::Unreadable, "#000", "#fff", "M4 1v6M1 4h6"))
            (pattern(Cell::WriteFailed, "#d55e00", "#fff", "M1 1l6 6M7 1l-6 6"))
            (pattern(Cell::Differs, "#cc79a7", "#000", "M2 0v8M6 0v8"))
        }
    }
}

/// What a state is filled with, where [`patterns`] are there.
pub(in crate::fs) fn fill(state: Cell) -> String {
    match state {
        Cell::Durable => "#0072b2".to_owned(),
        Cell::ToDo => "#e8e8e8".to_owned(),
        _ => format!("url(#{})", id(state)),
    }
}

const fn id(state: Cell) -> &'static str {
    match state {
        Cell::Durable => "durable",
        Cell::Copied => "copied",
        Cell::ToDo => "todo",
        Cell::AtWork => "work",
        Cell::Suspect => "suspect",
        Cell::Unreadable => "unreadable",
        Cell::WriteFailed => "failed",
        Cell::Differs => "differs",
    }
}

/// The runs of equal cells, `columns` a line, as groups of one state each.
pub(in crate::fs) fn map(cells: &Cells, columns: usize) -> Markup {
    let runs = cells.runs();
    html! {
        @for state in Cell::ALL {
            @let mut of_state = runs.iter().filter(|(_, cell)| *cell == state).peekable();
            @if of_state.peek().is_some() {
                g fill=(fill(state)) {
                    @for (run, _) in of_state {
                        path d=(outline(run, columns)) { title { (title(cells, run, state)) } }
                    }
                }
            }
        }
    }
}

/// A run as rectangles: its part of the first line, the lines that it has to itself, its part of the last.
fn outline(run: &Range<usize>, columns: usize) -> String {
    let mut path = String::new();
    let mut rectangle = |cell: usize, width: usize, lines: usize| {
        let (x, y) = (cell % columns * CELL, cell / columns * CELL);
        let (width, height) = (width * CELL, lines * CELL);
        _ = write!(path, "M{x} {y}h{width}v{height}h-{width}z");
    };
    let mut at = run.start;
    while at < run.end {
        let column = at % columns;
        let whole = (run.end - at) / columns;
        let (width, lines) =
            if column == 0 && whole > 0 { (columns, whole) } else { ((columns - column).min(run.end - at), 1) };
        rectangle(at, width, lines);
        at += width * lines;
    }
    path
}

fn title(cells: &Cells, run: &Range<usize>, state: Cell) -> String {
    let bytes = cells.bytes(run);
    format!("{}: {} from {} on", state.as_str(), amount(bytes.end - bytes.start), place(bytes.start))
}

fn place(bytes: u64) -> String {
    if bytes == 0 { "the start".to_owned() } else { format!("sector {} ({})", bytes / 512, amount(bytes)) }
}

/// A curve of speed, in so many units; the highest speed is at its top.
pub(in crate::fs) fn curve(rates: &[Rate], width: u32, height: u32) -> Markup {
    let (width, height) = (f64::from(width), f64::from(height));
    let end = rates.last().map_or(1.0, |rate| rate.until).max(0.001);
    // A little room above the highest.
    let top = rates.iter().map(|rate| rate.speed).fold(1.0, f64::max) * 1.05;
    let mut path = String::new();
    let (x, y) = (|time: f64| time / end * width, |speed: f64| height - speed / top * height);
    for (index, rate) in rates.iter().enumerate() {
        let letter = if index == 0 { 'M' } else { 'L' };
        let (from, until, level) = (x(rate.from), x(rate.until), y(rate.speed));
        _ = write!(path, "{letter}{from:.1} {level:.1}H{until:.1}");
    }
    html! {
        path d=(format!("{path}V{height:.0}H0z")) fill="#56b4e9" fill-opacity="0.35" {}
        path d=(path) fill="none" stroke="#0072b2" stroke-width="1.5" {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::board::samples;
    use crate::jobs::State;

    #[test]
    fn the_outline_of_a_run_is_its_cells() {
        assert_eq!(outline(&(1..3), 4), "M8 0h16v8h-16z");
        assert_eq!(outline(&(0..8), 4), "M0 0h32v16h-32z");
        assert_eq!(outline(&(3..13), 4), "M24 0h8v8h-8zM0 8h32v16h-32zM0 24h8v8h-8z");
    }

    #[test]
    fn the_worst_picture_is_within_its_limit_and_well_formed() {
        let mut view = samples::view(7, State::Running);
        view.dests[0].path = "/dev/<script>&\"'\u{202e}x".into();
        let size = 3 << 40;
        let cells = |most: usize| {
            let letters = (0..most).map(|index| if index % 2 == 0 { Cell::WriteFailed } else { Cell::Unreadable });
            Some(Cells { size, total: size * most as u64, cells: letters.collect() })
        };
        let text = render(&view, 0, cells).unwrap();
        assert!(text.len() <= BYTES_MAX && text.len() > BYTES_MAX / 4, "{}", text.len());
        assert!(
            !text.contains("<script") && text.contains("/dev/&lt;script&gt;&amp;&quot;'\\342\\200\\256x"),
            "{text}"
        );
        assert!(text.contains("<title>write failed: 3.0 TiB from the start on</title>"));
        assert!(render(&view, 0, |_| None).is_none());
        let small = render(&view, 0, |_| Some(Cells { size: 512, total: 0, cells: Vec::new() })).unwrap();
        assert!(small.contains("viewBox=\"0 0 1024 120\""), "{small}");
    }
}
