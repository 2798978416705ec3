//! What a shell user's hands do, by the programs they do it with: rows of a command, its exit status, what it says, and what
//! is so afterwards. Each group has a mount of its own. All of it needs FUSE, and is run by root or through fusermount3.

mod control;
mod metrics;
mod mounts;
mod others;
mod reading;
mod table;
mod waiting;
mod walk;
mod writing;

#[test]
fn there_are_sixty_commands_and_more() {
    let tables = [writing::ROWS, control::ROWS, reading::ROWS, waiting::ROWS, mounts::ROWS];
    let rows: usize = tables.iter().map(|rows| rows.len()).sum();
    assert!(rows >= 60, "{rows}");
}
