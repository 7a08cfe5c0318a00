//! The literals (`LitT`; beam_file.c, `parse_literal_chunk`): unpacked to exactly the size that is
//! declared, and each a term that a module can have.

use std::borrow::Cow;

use super::Bounds;
use super::rule::{Breach, LoaderRule};
use crate::budget::Budget;
use crate::damage::{Damage, Failure};
use crate::etf::{Scale, TermFault, Weighed};
use crate::gzip;
use crate::limits::LoadLimits;
use crate::reader::Reader;

/// The table of literals, unpacked.
#[derive(Debug, Default)]
pub(crate) struct Literals<'a> {
    table: Cow<'a, [u8]>,
    /// How many there are.
    pub(super) count: u64,
    /// Words of the heap that they take.
    pub(super) words: u64,
    /// Bytes of binaries beside it.
    pub(super) binaries: u64,
}

fn breach(rule: LoaderRule) -> Breach {
    Breach::of(b"LitT", rule)
}

impl<'a> Literals<'a> {
    /// Reads the table; what it unpacks to is taken from the budget.
    pub(super) fn read(
        chunk: Option<&'a [u8]>,
        bounds: Bounds<'_>,
        told: &mut impl Weighed,
    ) -> Result<Self, Failure> {
        let Some(chunk) = chunk.filter(|chunk| !chunk.is_empty()) else {
            return Ok(Literals::default());
        };
        let table = unpack(chunk, bounds.unpacked)?;
        let mut literals = Literals { table, ..Literals::default() };
        literals.weigh(bounds.limits, told)?;
        Ok(literals)
    }

    fn weigh(&mut self, limits: &LoadLimits, told: &mut impl Weighed) -> Result<(), Breach> {
        let mut reader = Reader::new(&self.table);
        let count = reader.count(4).ok_or_else(|| breach(LoaderRule::LiteralTable))?;
        let mut scale = Scale::new(limits.literal_depth);
        for place in 0..count {
            let breach = |rule| breach(rule).at(place);
            let size = reader.u32().and_then(|size| usize::try_from(size).ok());
            let term = size.and_then(|size| reader.take(size));
            let term = term.ok_or_else(|| breach(LoaderRule::LiteralTable))?;
            scale.weigh(term, told).map_err(|fault| breach(rule_of(fault)))?;
            if scale.words > limits.literal_words {
                return Err(breach(LoaderRule::ModuleLiterals));
            }
        }
        if !reader.rest().is_empty() {
            return Err(breach(LoaderRule::LiteralTable));
        }
        self.count = count as u64;
        self.words = scale.words;
        self.binaries = scale.binaries;
        Ok(())
    }

    /// The bytes of the table, unpacked: a count, and as many terms, each with its size.
    pub(crate) fn table(&self) -> &[u8] {
        &self.table
    }
}

fn rule_of(fault: TermFault) -> LoaderRule {
    match fault {
        TermFault::Malformed(_) => LoaderRule::LiteralTerm,
        TermFault::TooDeep => LoaderRule::ModuleDepth,
        TermFault::KeyTwice => LoaderRule::LiteralKeys,
    }
}

/// The size it unpacks to, or 0 if it is not packed (OTP 28), and the rest.
fn unpack<'a>(chunk: &'a [u8], budget: &Budget) -> Result<Cow<'a, [u8]>, Failure> {
    let mut reader = Reader::new(chunk);
    let size = reader.u32().ok_or_else(|| breach(LoaderRule::LiteralTable))?;
    if size == 0 {
        return Ok(reader.rest().into());
    }
    // The loader reads the size as a signed number.
    if size > i32::MAX.cast_unsigned() || !gzip::is_possible(reader.rest(), size) {
        return Err(breach(LoaderRule::LiteralSize).into());
    }
    if !budget.take(size.into()) {
        return Err(Failure::OverBudget);
    }
    let table = gzip::unpack_zlib(reader.rest(), size).map_err(|damage| match damage {
        Damage::Gzip => breach(LoaderRule::LiteralPacked).into(),
        other => other,
    })?;
    Ok(table.into())
}
