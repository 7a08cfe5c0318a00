//! The line numbers (`Line`; beam_file.c, `parse_line_chunk`).

use super::rule::{Breach, LoaderRule};
use crate::reader::Reader;

/// The only version there has been; the loader passes over others.
const VERSION: u32 = 0;

/// The loader takes lines as 32-bit numbers with a sign. Those beyond 24 bits it forgets.
const LINE: u64 = (1 << 31) - 1;

/// The most characters of a file's name: more than a path can have.
const NAME: usize = 4096;

/// What the table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    /// How many instructions are places of lines, as it says.
    pub(super) instructions: u64,
    pub(super) items: u64,
    pub(super) names: u64,
    /// Words of the names as lists of characters.
    pub(super) name_words: u64,
}

/// Reads the table; `None` if there is none that a loader would read.
pub(super) fn read(chunk: Option<&[u8]>) -> Result<Option<Lines>, Breach> {
    let Some(chunk) = chunk.filter(|chunk| !chunk.is_empty()) else { return Ok(None) };
    let breach = |rule| Breach::of(b"Line", rule);
    let cut_off = || breach(LoaderRule::LineTable);
    let mut reader = Reader::new(chunk);
    let mut word = || reader.u32().ok_or_else(cut_off);
    let version = word()?;
    if version != VERSION {
        return Ok(None);
    }
    let [_flags, instructions, items, names] = [word()?, word()?, word()?, word()?].map(u64::from);
    if items + names * 2 > reader.rest().len() as u64 {
        return Err(cut_off());
    }
    read_items(&mut reader, items, names)?;
    let mut name_words = 0;
    for place in 0..names {
        let place = usize::try_from(place).unwrap_or_default();
        let size = reader.u16().ok_or_else(cut_off)?;
        let name = reader.take(size.into()).ok_or_else(cut_off)?;
        let name = str::from_utf8(name).ok().filter(|name| name.len() <= NAME);
        let name = name.ok_or_else(|| breach(LoaderRule::LineName).at(place))?;
        name_words += name.chars().count() as u64 * 2;
    }
    if !reader.rest().is_empty() {
        return Err(cut_off());
    }
    Ok(Some(Lines { instructions, items, names, name_words }))
}

/// Reads the lines: integers, and among them atoms for the files of those that follow.
fn read_items(reader: &mut Reader<'_>, items: u64, names: u64) -> Result<(), Breach> {
    let breach =
        |rule, place: u64| Breach::of(b"Line", rule).at(usize::try_from(place).unwrap_or_default());
    let mut place = 0;
    while place < items {
        let number = reader.tagged().ok_or_else(|| breach(LoaderRule::LineTable, place))?;
        let value = number.value.unwrap_or(u64::MAX);
        match number.tag {
            // The first name is the module's own.
            2 if value <= names => {}
            1 if value <= LINE => place += 1,
            1 | 2 => return Err(breach(LoaderRule::LineItem, place)),
            _ => return Err(breach(LoaderRule::LineTable, place)),
        }
    }
    Ok(())
}
