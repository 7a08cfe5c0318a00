//! Tables for people.

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
            *width = cell.chars().count().max(*width);
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
    let padded: String =
        cells.iter().zip(widths).map(|(cell, width)| format!("  {cell:<width$}")).collect();
    paint.text(tone, padded.trim_end()) + "\n"
}
