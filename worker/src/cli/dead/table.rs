//! Aligned columns that are written as they come, so that a long list needs no memory.

use bellhop_common::cli::say;
use bellhop_common::dead_letters::DeadLetter;

/// So many rows are looked at for the widths. Later ones widen a column where they must.
const PAGE: usize = 100;

const COLUMNS: usize = 7;

const HEADINGS: [&str; COLUMNS] = ["ID", "KIND", "QUEUE", "REASON", "DIED", "ATTEMPTS", "ERROR"];

/// A person reads one line; the rest is in `show`.
const MAX_CELL: usize = 60;

#[derive(Debug, Default)]
pub(super) struct Table {
    widths: [usize; COLUMNS],
    page: Vec<[String; COLUMNS]>,
    begun: bool,
}

impl Table {
    pub(super) fn add(&mut self, letter: &DeadLetter) {
        let cell = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), printable);
        let attempts = match letter.replays {
            0 => letter.attempts.to_string(),
            replays => format!("{} (replayed {replays})", letter.attempts),
        };
        let died_at = letter
            .died_at
            .map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        self.push([
            // Whole, to be copied.
            escaped(&letter.id),
            cell(letter.kind.as_deref()),
            cell(
                letter
                    .origin
                    .as_ref()
                    .map(bellhop_common::dead_letters::Origin::name),
            ),
            cell(Some(&letter.reason)),
            cell(died_at.as_deref()),
            attempts,
            cell(letter.error.as_deref()),
        ]);
        if self.page.len() == PAGE {
            self.flush();
        }
    }

    /// Writes what waits. Without a single row there are no headings either.
    pub(super) fn flush(&mut self) {
        if !self.begun && !self.page.is_empty() {
            self.begun = true;
            self.push(HEADINGS.map(str::to_owned));
            self.page.rotate_right(1);
        }
        for row in self.page.drain(..) {
            say(&line(&row, &self.widths));
        }
    }

    fn push(&mut self, row: [String; COLUMNS]) {
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.chars().count());
        }
        self.page.push(row);
    }
}

fn line(row: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let cells = row.iter().zip(widths);
    let cells: Vec<_> = cells
        .map(|(cell, width)| format!("{cell:width$}"))
        .collect();
    cells.join("  ").trim_end().to_owned()
}

fn printable(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_CELL).collect();
    if short.len() < text.len() {
        short.pop();
        short.push('…');
    }
    escaped(&short)
}

/// Without what a terminal would obey.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        c if c.is_control() => c.escape_default().to_string(),
        // Overrides of the direction make a line read otherwise than it is.
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => c.escape_unicode().to_string(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_nothing_by_a_letter() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
        assert_eq!(escaped("x\u{202e}y"), "x\\u{202e}y");
        let long = printable(&"ü".repeat(100));
        assert_eq!(long.chars().count(), MAX_CELL);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn columns_stand_under_their_headings() {
        let row = ["1", "2", "3", "4", "5", "6", "7"].map(str::to_owned);
        assert_eq!(line(&row, &[3, 1, 1, 1, 1, 1, 9]), "1    2  3  4  5  6  7");
    }
}
