//! Tables for people.

use unicode_width::UnicodeWidthStr;

use crate::style::{Paint, Tone};

/// A table with headings, each column as wide as its widest cell. Rows have a tone of their own.
pub(crate) fn render<const N: usize>(
    headings: [&str; N],
    rows: &[(Tone, [String; N])],
    paint: Paint,
) -> String {
    let mut widths = headings.map(str::len);
    for (_, row) in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width().max(*width);
        }
    }
    let mut text = line(Tone::Heading, &headings.map(str::to_owned), &widths, paint);
    for (tone, row) in rows {
        text += &line(*tone, row, &widths, paint);
    }
    text
}

fn line<const N: usize>(
    tone: Tone,
    cells: &[String; N],
    widths: &[usize; N],
    paint: Paint,
) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        // Not by a width in the format: that has 16 bits.
        let blanks = width.saturating_sub(cell.width());
        text.push_str("  ");
        text.push_str(cell);
        text.extend(std::iter::repeat_n(' ', blanks));
    }
    paint.text(tone, text.trim_end()) + "\n"
}

#[cfg(test)]
mod tests {
    use super::render;
    use crate::style::{Color, Tone};

    fn table(rows: &[[&str; 2]]) -> String {
        let rows: Vec<_> = rows.iter().map(|row| (Tone::Plain, row.map(str::to_owned))).collect();
        render(["A", "B"], &rows, Color::Never.paint())
    }

    #[test]
    fn columns_are_as_wide_as_they_look() {
        // Each of these two takes two columns of a terminal, and the accent none.
        let text = table(&[["日本", "x"], ["e\u{301}", "x"], ["abcd", "x"]]);
        assert_eq!(text, "  A     B\n  日本  x\n  e\u{301}     x\n  abcd  x\n");
    }

    #[test]
    fn a_cell_may_be_as_wide_as_it_is() {
        let long = "x".repeat(70_000);
        let text = table(&[[&long, "y"], ["short", &long]]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().skip(1).all(|line| line.len() > 70_000));
        assert_eq!(lines.first().map(|line| line.len()), Some(70_005));
    }
}
