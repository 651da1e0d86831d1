//! Tables for a terminal. Pure.

/// Columns as wide as their widest cell, two spaces apart; each row ends its line.
#[must_use]
pub fn aligned<Row: AsRef<[String]>>(rows: &[Row]) -> String {
    let columns = rows.first().map_or(0, |row| row.as_ref().len());
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.as_ref().get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.as_ref().iter().zip(&widths);
        let line: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// What others chose, fit for a terminal: nothing that steers it, and at most so many characters.
#[must_use]
pub fn clean(text: &str, widest: usize) -> String {
    let steers =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut clean: String = text
        .chars()
        .take(widest)
        .map(|c| if steers(c) { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(widest).is_some() {
        clean.pop();
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [["A", "B"], ["über", ""]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows), "A     B\nüber\n");
        assert_eq!(aligned::<Vec<String>>(&[]), "");
    }

    #[test]
    fn what_others_chose_steers_nothing_and_is_cut() {
        assert_eq!(
            clean("a\u{1b}[2J\u{202e}b\nc", 40),
            "a\u{fffd}[2J\u{fffd}b\u{fffd}c"
        );
        assert_eq!(clean(&"ü".repeat(41), 40), "ü".repeat(39) + "…");
        assert_eq!(clean(&"ü".repeat(40), 40), "ü".repeat(40));
    }
}
