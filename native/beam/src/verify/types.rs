//! The types of operands (`Type`; beam_types.c). The loader leaves out tests by them.

use super::rule::{Breach, LoaderRule};
use crate::reader::Reader;

/// How types are written, by the version: those of OTP 25, 26, 27 and 28, and 29. The first two have
/// a type for contexts of matching among the others.
const LAYOUTS: [(u32, Layout); 4] = [
    (1, Layout { types: 13, number: 1 << 4 | 1 << 6, bits: 0b110, has_flags: false }),
    (2, Layout { types: 13, number: 1 << 4 | 1 << 6, bits: 0b110, has_flags: true }),
    (3, Layout { types: 12, number: 1 << 3 | 1 << 5, bits: 0b010, has_flags: true }),
    (4, Layout { types: 13, number: 1 << 3 | 1 << 5, bits: 0b010, has_flags: true }),
];

/// Reads the table, and gives the number of types; `None` if there is none, or one of a version
/// that no loader known here reads.
pub(super) fn read(chunk: Option<&[u8]>) -> Result<Option<u64>, Breach> {
    let Some(chunk) = chunk.filter(|chunk| !chunk.is_empty()) else { return Ok(None) };
    let breach = |rule| Breach::of(b"Type", rule);
    let cut_off = || breach(LoaderRule::TypeTable);
    let mut reader = Reader::new(chunk);
    let version = reader.u32().ok_or_else(cut_off)?;
    let layout = LAYOUTS.iter().find(|(known, _)| *known == version);
    let Some((_, layout)) = layout else { return Ok(None) };
    let count = reader.count(2).ok_or_else(cut_off)?;
    if count == 0 {
        return Err(breach(LoaderRule::TypeFirst));
    }
    for place in 0..count {
        let kind = layout.read(&mut reader).map_err(|rule| breach(rule).at(place))?;
        if place == 0 && !layout.is_any(kind) {
            return Err(breach(LoaderRule::TypeFirst));
        }
    }
    if reader.rest().is_empty() { Ok(Some(count as u64)) } else { Err(cut_off()) }
}

/// How types are written.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// How many bits the union of all types has.
    types: u32,
    /// Integers and floats.
    number: u16,
    /// Bitstrings.
    bits: u16,
    /// Whether three flags above the types say what follows: a lower bound, an upper one, a unit.
    /// Without them both bounds follow always, and contradict each other where there are none.
    has_flags: bool,
}

/// A type.
#[derive(Clone, Copy, Debug)]
struct Kind {
    union: u16,
    bounds: [Option<i64>; 2],
    unit: bool,
}

impl Layout {
    fn any(&self) -> u16 {
        (1 << self.types) - 1
    }

    fn read(&self, reader: &mut Reader<'_>) -> Result<Kind, LoaderRule> {
        let cut_off = LoaderRule::TypeTable;
        let bits = reader.u16().ok_or(cut_off)?;
        let has = |flag: u32| !self.has_flags || bits >> (self.types + flag) & 1 == 1;
        let mut bound = |flag| match has(flag) {
            true => reader.i64().map(Some).ok_or(cut_off),
            false => Ok(None),
        };
        let mut bounds = [bound(0)?, bound(1)?];
        let contradict = matches!(bounds, [Some(low), Some(high)] if low > high);
        if contradict && self.has_flags {
            return Err(LoaderRule::TypeEntry);
        }
        if contradict {
            bounds = [None, None];
        }
        let unit = self.has_flags && has(2);
        if unit {
            reader.u8().ok_or(cut_off)?;
        }
        let kind = Kind { union: bits & self.any(), bounds, unit };
        if self.is_possible(kind) { Ok(kind) } else { Err(LoaderRule::TypeEntry) }
    }

    /// Only numbers have bounds, and only bitstrings a unit.
    fn is_possible(&self, Kind { union, bounds, unit }: Kind) -> bool {
        union != 0
            && (bounds == [None, None] || union & self.number != 0)
            && (!unit || union & self.bits != 0)
    }

    /// Whether it is that of any term.
    fn is_any(&self, kind: Kind) -> bool {
        kind.union == self.any() && kind.bounds == [None, None]
    }
}
