//! Lists of operands. The loader hands them on to the maker of machine code, which believes them.

use super::code::{Arg, BITS, Pass, TUPLE, UNIT, within};
use super::rule::{Check, LoaderRule};
use crate::atoms::Atoms;
use crate::role::{Role, kind};

/// An atom that says what is in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Append,
    Binary,
    EnsureAtLeast,
    EnsureExactly,
    Equal,
    Float,
    GetTail,
    Integer,
    PrivateAppend,
    Skip,
    String,
    Utf,
}

/// Those of such atoms that a module has, by their places.
#[derive(Debug)]
pub(super) struct Words(Vec<(u64, Word)>);

impl Words {
    pub(super) fn new(atoms: &Atoms) -> Self {
        let word = |name: &str| match name {
            "append" => Some(Word::Append),
            "binary" => Some(Word::Binary),
            "ensure_at_least" => Some(Word::EnsureAtLeast),
            "ensure_exactly" => Some(Word::EnsureExactly),
            "=:=" => Some(Word::Equal),
            "float" => Some(Word::Float),
            "get_tail" => Some(Word::GetTail),
            "integer" => Some(Word::Integer),
            "private_append" => Some(Word::PrivateAppend),
            "skip" => Some(Word::Skip),
            "string" => Some(Word::String),
            "utf8" | "utf16" | "utf32" => Some(Word::Utf),
            _ => None,
        };
        let places = atoms.names().zip(1..).filter_map(|(name, place)| Some((place, word(name)?)));
        Words(places.collect())
    }

    fn get(&self, atom: u64) -> Option<Word> {
        self.0.iter().find(|(place, _)| *place == atom).map(|(_, word)| *word)
    }
}

/// The most bits of a segment that is matched, as the compiler has it.
const SEGMENT: u64 = (1 << 24) - 1;
/// `x` registers, into which the loader copies operands behind those in use.
const LAST_REGISTER: u64 = 1023;

impl Pass<'_, '_> {
    /// Checks the `count` operands of a list.
    pub(super) fn list(&mut self, role: Role, count: u64) -> Check {
        match role {
            Role::Sources => within(count, TUPLE).and_then(|()| self.each(count, kind::SOURCE)),
            Role::Ys => self.each(count, kind::Y),
            Role::FunValues => {
                if self.free(self.value(0))? != count {
                    return Err(LoaderRule::CodeFun);
                }
                self.each(count, kind::SOURCE)
            }
            Role::SelectValues => self.select_values(count),
            Role::SelectSizes => self.pairs(count, |pass| {
                let size = pass.element(kind::NUMBER)?;
                within(size.value, TUPLE)?;
                pass.element(kind::LABEL).map(|_| ())
            }),
            Role::MapPairs => {
                // The loader makes a literal of the keys.
                self.found.added += 1;
                self.map(count, kind::SOURCE)
            }
            Role::MapElements => self.map(count, kind::REGISTER),
            Role::MapKeys if count == 0 => Err(LoaderRule::CodeList),
            Role::MapKeys => self.each(count, keys(count, 1)),
            Role::Updates => self.updates(count),
            Role::Segments => self.segments(count),
            Role::Commands => self.commands(count),
            Role::RecordElements => self.fields(count, kind::REGISTER),
            Role::RecordPairs => self.fields(count, kind::SOURCE),
            _ => Err(LoaderRule::CodeKind),
        }
    }

    /// Reads an operand of one of these kinds.
    pub(super) fn element(&mut self, kinds: u32) -> Check<Arg> {
        let arg = self.operand()?;
        if arg.kind & kinds == 0 { Err(LoaderRule::CodeList) } else { Ok(arg) }
    }

    fn each(&mut self, count: u64, kinds: u32) -> Check {
        (0..count).try_for_each(|_| self.element(kinds).map(|_| ()))
    }

    /// At least one pair, and nothing left over.
    fn pairs(&mut self, count: u64, mut pair: impl FnMut(&mut Self) -> Check) -> Check {
        if count == 0 || !count.is_multiple_of(2) {
            return Err(LoaderRule::CodeList);
        }
        (0..count / 2).try_for_each(|_| pair(self))
    }

    /// Values and where to go: atoms only, or numbers only. The loader does not come to an end with
    /// atoms among numbers.
    fn select_values(&mut self, count: u64) -> Check {
        const NUMBERS: u32 = kind::SMALL | kind::BIG | kind::LITERAL;
        let mut kinds = kind::ATOM | NUMBERS;
        self.pairs(count, |pass| {
            let value = pass.element(kinds)?;
            kinds = if value.kind == kind::ATOM { kind::ATOM } else { NUMBERS };
            pass.element(kind::LABEL).map(|_| ())
        })
    }

    fn map(&mut self, count: u64, values: u32) -> Check {
        let keys = keys(count, 2);
        self.pairs(count, |pass| {
            pass.element(keys)?;
            pass.element(values).map(|_| ())
        })
    }

    /// Fields of a native record, which may be none.
    fn fields(&mut self, count: u64, values: u32) -> Check {
        if count == 0 {
            return Ok(());
        }
        self.pairs(count, |pass| {
            pass.element(kind::ATOM)?;
            pass.element(values).map(|_| ())
        })
    }

    /// Places in a tuple of the size in the second operand, in their order, and values.
    fn updates(&mut self, count: u64) -> Check {
        let size = self.value(1);
        let mut last = 0;
        self.pairs(count, |pass| {
            let index = pass.element(kind::NUMBER)?.value;
            if index <= last || index > size {
                return Err(LoaderRule::CodeNumber);
            }
            last = index;
            pass.element(kind::SOURCE).map(|_| ())
        })
    }

    /// Segments of a bitstring that is made: type, number, unit, flags, value, size.
    fn segments(&mut self, count: u64) -> Check {
        if count == 0 || !count.is_multiple_of(6) {
            return Err(LoaderRule::CodeList);
        }
        // Values and sizes in `y` registers are copied.
        let live = self.value(2);
        within(live.saturating_add(count / 3), LAST_REGISTER)?;
        for place in 0..count / 6 {
            let what = self.word()?;
            within(self.element(kind::NUMBER)?.value, LAST_REGISTER)?;
            let unit = self.element(kind::NUMBER)?.value;
            self.element(kind::NIL | kind::LITERAL)?;
            match what {
                Word::Append | Word::PrivateAppend if place > 0 => {
                    return Err(LoaderRule::CodeList);
                }
                Word::String => {
                    let from = self.element(kind::NUMBER)?.value;
                    let bytes = self.element(kind::SMALL)?.value;
                    self.string(from, bytes)?;
                    if unit != 8 {
                        return Err(LoaderRule::CodeNumber);
                    }
                }
                Word::Utf => {
                    self.element(kind::SOURCE)?;
                    self.element(kind::ATOM)?;
                    within(unit, 0)?;
                }
                Word::Append | Word::PrivateAppend | Word::Binary | Word::Integer | Word::Float => {
                    self.element(kind::SOURCE)?;
                    self.element(kind::SOURCE)?;
                    a_unit(unit)?;
                }
                _ => return Err(LoaderRule::CodeList),
            }
        }
        Ok(())
    }

    /// Commands that match a bitstring, each with as many operands as it takes.
    fn commands(&mut self, count: u64) -> Check {
        let mut left = count;
        while left > 0 {
            let command = self.word()?;
            let taken = match command {
                Word::EnsureAtLeast => {
                    self.size()?;
                    a_unit(self.element(kind::NUMBER)?.value)?;
                    2
                }
                Word::EnsureExactly => self.size().map(|()| 1)?,
                Word::Skip => {
                    within(self.element(kind::NUMBER)?.value, SEGMENT)?;
                    1
                }
                Word::GetTail => {
                    within(self.element(kind::NUMBER)?.value, LAST_REGISTER)?;
                    a_unit(self.element(kind::NUMBER)?.value)?;
                    self.element(kind::REGISTER).map(|_| 3)?
                }
                Word::Equal => {
                    self.live()?;
                    within(self.element(kind::NUMBER)?.value, 64)?;
                    self.element(kind::NUMBER).map(|_| 3)?
                }
                Word::Binary | Word::Integer => self.segment().map(|()| 5)?,
                _ => return Err(LoaderRule::CodeList),
            };
            left = left.checked_sub(1 + taken).ok_or(LoaderRule::CodeList)?;
        }
        Ok(())
    }

    /// What is matched: live registers, flags, size, unit, and where it goes.
    fn segment(&mut self) -> Check {
        self.live()?;
        self.element(kind::NIL | kind::LITERAL)?;
        let size = self.element(kind::NUMBER)?.value;
        let unit = self.element(kind::NUMBER)?.value;
        a_unit(unit)?;
        within(size.saturating_mul(unit), SEGMENT)?;
        self.element(kind::REGISTER).map(|_| ())
    }

    fn live(&mut self) -> Check {
        within(self.element(kind::NUMBER | kind::NIL)?.value, LAST_REGISTER)
    }

    /// A number of bits; one that is too large for a number never matches.
    fn size(&mut self) -> Check {
        let size = self.element(kind::NUMBER | kind::HUGE)?;
        if size.kind == kind::HUGE { Ok(()) } else { within(size.value, BITS) }
    }

    fn word(&mut self) -> Check<Word> {
        let atom = self.element(kind::ATOM)?.value;
        self.named.words.get(atom).ok_or(LoaderRule::CodeList)
    }
}

fn a_unit(unit: u64) -> Check {
    if unit == 0 { Err(LoaderRule::CodeNumber) } else { within(unit, UNIT) }
}

/// What keys may be: one alone may be in a register.
fn keys(count: u64, one: u64) -> u32 {
    if count == one { kind::SOURCE } else { kind::CONSTANT }
}
