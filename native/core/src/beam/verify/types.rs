//! The types of operands (`Type`; beam_types.c). The loader leaves out tests by them.

use super::rule::{Breach, LoaderRule};
use crate::beam::reader::Reader;

/// The version of OTP 25, whose entries are all of one size.
const FIXED: u32 = 1;
/// Those of OTP 26 to 28, where a type has what its flags say, and that of OTP 29, which has one
/// more type and the flags one bit higher.
const FLAGGED: [u32; 2] = [2, 3];
const WIDE: u32 = 4;

/// Reads the table, and gives the number of types; `None` if there is none, or one of a version
/// that no loader known here reads.
pub(super) fn read(chunk: Option<&[u8]>) -> Result<Option<u64>, Breach> {
    let Some(chunk) = chunk.filter(|chunk| !chunk.is_empty()) else { return Ok(None) };
    let breach = |rule| Breach::of(b"Type", rule);
    let cut_off = || breach(LoaderRule::TypeTable);
    let mut reader = Reader::new(chunk);
    let version = reader.u32().ok_or_else(cut_off)?;
    let layout = match version {
        FIXED => Layout { any: 0x0fff, first_flag: None },
        WIDE => Layout { any: 0x1fff, first_flag: Some(13) },
        _ if FLAGGED.contains(&version) => Layout { any: 0x0fff, first_flag: Some(12) },
        _ => return Ok(None),
    };
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
struct Layout {
    /// The union of all types.
    any: u16,
    /// The first of three flags: a lower bound, an upper one, a unit. Without flags there are
    /// always both bounds.
    first_flag: Option<u32>,
}

/// A type.
#[derive(Clone, Copy, Debug)]
struct Kind {
    union: u16,
    bounds: [Option<i64>; 2],
    unit: bool,
}

const BITSTRING: u16 = 1 << 1;
const FLOAT: u16 = 1 << 3;
const INTEGER: u16 = 1 << 5;

impl Layout {
    fn read(&self, reader: &mut Reader<'_>) -> Result<Kind, LoaderRule> {
        let cut_off = LoaderRule::TypeTable;
        let bits = reader.take(2).and_then(|bits| bits.first_chunk().copied()).ok_or(cut_off)?;
        let bits = u16::from_be_bytes(bits);
        let has = |flag: u32| self.first_flag.is_none_or(|first| bits >> (first + flag) & 1 == 1);
        let mut bound = |flag| match has(flag) {
            true => reader
                .take(8)
                .and_then(|bound| bound.first_chunk().copied())
                .map(|bound| Some(i64::from_be_bytes(bound)))
                .ok_or(cut_off),
            false => Ok(None),
        };
        let bounds = [bound(0)?, bound(1)?];
        let unit = self.first_flag.is_some() && has(2);
        if unit {
            reader.u8().ok_or(cut_off)?;
        }
        let kind = Kind { union: bits & self.any, bounds, unit };
        if self.is_possible(kind) { Ok(kind) } else { Err(LoaderRule::TypeEntry) }
    }

    fn is_possible(&self, kind: Kind) -> bool {
        let Kind { union, bounds: [low, high], unit } = kind;
        if union == 0 {
            return false;
        }
        let Some(_) = self.first_flag else { return true };
        let is_number = union & (INTEGER | FLOAT) != 0;
        let in_order = !matches!((low, high), (Some(low), Some(high)) if low > high);
        ((low.is_none() && high.is_none()) || is_number)
            && in_order
            && (!unit || union & BITSTRING != 0)
    }

    /// Whether it is that of any term: no bounds, or bounds that contradict each other.
    fn is_any(&self, kind: Kind) -> bool {
        let unbounded = match kind.bounds {
            [Some(low), Some(high)] => low > high,
            [None, None] => true,
            _ => false,
        };
        kind.union == self.any && unbounded
    }
}
