//! `jobs/ID/picture`: a job's destinations in letters, for a terminal. Pure.

use std::fmt::Write as _;

use super::fit::{cut, shorten, shown};
use crate::fs::units::{amount, count};
use crate::jobs::{Cell, Cells, View};

/// Cells of a line, and lines.
const COLUMNS: usize = 64;
const LINES: usize = 16;
/// Cells of a destination.
pub(in crate::fs) const CELLS: usize = COLUMNS * LINES;
/// Most columns of a line: a terminal of 80 does not wrap it.
const WIDTH: usize = 79;

/// The whole file: a legend, then each destination.
pub(in crate::fs) fn render(view: &View, dests: &[Cells]) -> String {
    let mut out = String::new();
    let name = view.name.as_ref().map(|name| format!(" {}", shown(name))).unwrap_or_default();
    _ = writeln!(out, "{}", cut(&format!("job {}{name}: {}", view.id, view.state.as_str()), WIDTH));
    if let Some(size) = dests.first().map(|dest| dest.size) {
        let whole = format!("{} ({})", bytes(size), count(size / 512, "sector"));
        _ = writeln!(out, "A character is {whole} and shows the worst in it, from good to bad:");
    }
    let legend: Vec<String> = Cell::ALL.map(|cell| format!("{} {}", cell.letter(), cell.as_str())).to_vec();
    for part in legend.chunks(4) {
        let words: Vec<String> = part.iter().map(|word| format!("{word:<16}")).collect();
        _ = writeln!(out, "  {}", words.concat().trim_end());
    }
    for (index, (dest, cells)) in view.dests.iter().zip(dests).enumerate() {
        let head = format!("destination {index}, {}: ", dest.state.as_str());
        let path = shorten(&shown(&dest.path), WIDTH - head.len());
        _ = write!(out, "\n{head}{path}\n");
        for (line, part) in cells.cells.chunks(COLUMNS).enumerate() {
            let start = cells.size * (line * COLUMNS) as u64;
            let letters: String = part.iter().map(|cell| cell.letter()).collect();
            _ = writeln!(out, "{:>12}  {letters}", bytes(start));
        }
    }
    out
}

/// A size or place; where it is a whole number of its unit, without decimals.
fn bytes(bytes: u64) -> String {
    if bytes == 0 { "0".to_owned() } else { amount(bytes).replace(".0 ", " ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::board::samples;
    use crate::fs::eye::fit::width;
    use crate::jobs::State;

    #[test]
    fn a_destination_is_sixteen_lines_of_letters() {
        let mut view = samples::view(7, State::Running);
        view.dests[1].path = format!("/dev/disk/by-id/{}", "x".repeat(200)).into();
        let mut cells = Cells { size: 96 << 10, total: 96 << 20, cells: vec![Cell::ToDo; CELLS] };
        cells.cells[..64].fill(Cell::Durable);
        cells.cells[64..70].fill(Cell::Copied);
        (cells.cells[70], cells.cells[1023]) = (Cell::AtWork, Cell::Unreadable);
        let text = render(&view, &[cells.clone(), cells]);
        let expected = format!(
            "\
job 7 nightly: running
A character is 96 KiB (192 sectors) and shows the worst in it, from good to bad:
  + durable       = copied        . to do         > at work
  ? suspect       - unreadable    x write failed  ! differs

destination 0, active: /dev/sdb
           0  {}
       6 MiB  ======>{}
",
            "+".repeat(64),
            ".".repeat(57)
        );
        assert!(text.starts_with(&expected), "{text}");
        assert!(text.ends_with(&format!("      90 MiB  {}-\n", ".".repeat(63))), "{text}");
        assert_eq!(text.lines().count(), 4 + 2 * 18);
        assert!(text.lines().all(|line| width(line) <= 80), "{text}");
    }

    #[test]
    fn a_small_job_has_a_cell_a_sector_and_an_empty_one_none() {
        let view = samples::view(7, State::Running);
        let cells = Cells { size: 512, total: 1024, cells: vec![Cell::Differs, Cell::WriteFailed] };
        let text = render(&view, &[cells]);
        assert!(
            text.contains("A character is 512 B (1 sector) and") && text.ends_with("\n           0  !x\n"),
            "{text}"
        );
        let none = Cells { size: 512, total: 0, cells: Vec::new() };
        assert!(render(&view, &[none]).ends_with("/dev/sdb\n"));
    }
}
