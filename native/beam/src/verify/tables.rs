//! Tables that are written as instructions: what debuggers are told (`DbgB`, OTP 28) and native
//! records (`Recs`, OTP 29).

use super::code::{Named, Pass};
use super::rule::{Breach, Check, LoaderRule};
use crate::opcodes::op;
use crate::reader::Reader;
use crate::role::kind;

/// The versions that loaders read; they pass over others of `DbgB`, and refuse others of `Recs`.
const DEBUG_VERSION: u32 = 1;
const RECORD_VERSION: u32 = 0;

/// How many entries the debug information has; `None` if there is none that a loader would read.
pub(super) fn debug_count(chunk: Option<&[u8]>) -> Result<Option<u64>, Breach> {
    let Some(chunk) = chunk.filter(|chunk| !chunk.is_empty()) else { return Ok(None) };
    let mut reader = Reader::new(chunk);
    let malformed = || Breach::of(b"DbgB", LoaderRule::DebugTable);
    if reader.u32().ok_or_else(malformed)? != DEBUG_VERSION {
        return Ok(None);
    }
    let count = reader.count(2).ok_or_else(malformed)?;
    Ok(Some(count as u64))
}

/// Checks the debug information, of a version that loaders read.
pub(super) fn debug(chunk: &[u8], named: &Named<'_>) -> Result<(), Breach> {
    let malformed = |_| Breach::of(b"DbgB", LoaderRule::DebugTable);
    Debug::read(chunk, named).map_err(malformed)
}

/// Checks the definitions of native records.
pub(super) fn records(chunk: &[u8], named: &Named<'_>) -> Result<(), Breach> {
    let malformed = |_| Breach::of(b"Recs", LoaderRule::RecordTable);
    read_records(chunk, named).map_err(malformed)
}

/// Each record: its name, whether it is exported, and a list of fields with their values.
fn read_records(chunk: &[u8], named: &Named<'_>) -> Check {
    const VALUES: u32 = kind::NUMBER | kind::CONSTANT;
    let mut reader = Reader::new(chunk);
    let mut word = || reader.u32().ok_or(LoaderRule::RecordTable);
    let [version, count, fields] = [word()?, word()?, word()?];
    if version != RECORD_VERSION {
        return Err(LoaderRule::RecordTable);
    }
    let mut pass = Pass::of_table(reader, named);
    let mut left = u64::from(fields);
    for _ in 0..count {
        pass.expect_opcode(op::CALL_LAST)?;
        pass.element(kind::ATOM)?;
        pass.element(kind::ATOM)?;
        let size = pass.element(kind::LIST)?.value;
        left = left.checked_sub(size / 2).ok_or(LoaderRule::RecordTable)?;
        if size % 2 != 0 {
            return Err(LoaderRule::RecordTable);
        }
        for _ in 0..size / 2 {
            pass.element(kind::ATOM)?;
            pass.element(VALUES)?;
        }
    }
    if left == 0 && pass.reader.rest().is_empty() { Ok(()) } else { Err(LoaderRule::RecordTable) }
}

/// What is still to come of the debug information.
struct Debug<'t, 'a> {
    pass: Pass<'t, 'a>,
    items: u64,
    terms: u64,
    /// The kind of the entry before.
    last: Option<u64>,
}

impl<'t, 'a> Debug<'t, 'a> {
    fn read(chunk: &'a [u8], named: &'t Named<'t>) -> Check {
        let mut reader = Reader::new(chunk);
        let mut word = || reader.u32().ok_or(LoaderRule::DebugTable);
        let [_version, items, terms] = [word()?, word()?, word()?].map(u64::from);
        if items + terms > reader.rest().len() as u64 {
            return Err(LoaderRule::DebugTable);
        }
        let mut debug = Debug { pass: Pass::of_table(reader, named), items, terms, last: None };
        while debug.items > 0 || debug.terms > 0 {
            debug.entry()?;
        }
        match debug.pass.reader.rest() {
            [] => Ok(()),
            _ => Err(LoaderRule::DebugTable),
        }
    }

    /// An entry: the size of a frame, with which each item begins; variables; calls.
    fn entry(&mut self) -> Check {
        self.pass.expect_opcode(op::CALL)?;
        let which = self.pass.element(kind::NUMBER)?.value;
        if which == 0 {
            self.items = self.items.checked_sub(1).ok_or(LoaderRule::DebugTable)?;
            self.last = Some(0);
            return self.pass.element(kind::NIL | kind::ATOM | kind::NUMBER).map(|_| ());
        }
        let count = self.pass.element(kind::LIST)?.value;
        self.terms = self.terms.checked_sub(count).ok_or(LoaderRule::DebugTable)?;
        if self.last.is_none_or(|last| last > which) {
            return Err(LoaderRule::DebugTable);
        }
        self.last = Some(which);
        match which {
            1 => self.variables(count),
            2 => self.calls(count),
            _ => Err(LoaderRule::DebugTable),
        }
    }

    /// Pairs of a name and where the value is.
    fn variables(&mut self, count: u64) -> Check {
        if !count.is_multiple_of(2) {
            return Err(LoaderRule::DebugTable);
        }
        for _ in 0..count / 2 {
            self.pass.element(kind::SMALL | kind::LITERAL)?;
            self.pass.element(kind::SOURCE)?;
        }
        Ok(())
    }

    /// A number of arguments with one name behind it (256 and more) or two, or a variable alone.
    fn calls(&mut self, count: u64) -> Check {
        let mut expected = 0_u8;
        for _ in 0..count {
            let arg = self.pass.element(kind::NUMBER | kind::ATOM | kind::LITERAL)?;
            expected = match (arg.kind, expected) {
                (kind::NUMBER, 0) if arg.value <= 255 => 2,
                (kind::NUMBER, 0) if arg.value <= 511 => 1,
                (kind::ATOM | kind::LITERAL, 1..) => expected - 1,
                (kind::LITERAL, 0) => 0,
                _ => return Err(LoaderRule::DebugTable),
            };
        }
        if expected == 0 { Ok(()) } else { Err(LoaderRule::DebugTable) }
    }
}
