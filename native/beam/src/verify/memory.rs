//! How much memory a module takes in the VM that loads it, at most.

use super::code::Found;
use super::parts::Parts;

/// Bytes of a word.
const WORD: u64 = 8;

/// What machine code takes at most: for an instruction, and for each of its operands. Real
/// modules take a third of it.
const INSTRUCTION: u64 = 96;
const OPERAND: u64 = 48;
/// The loader's own record of a label.
const LABEL: u64 = 64;
/// An entry of the VM's tables for a function.
const FUNCTION: u64 = 256;
/// The loader's own record of a place of a line, and the VM's.
const LINE: u64 = 32;

/// The bytes that a module takes.
pub(super) fn of(found: &Found, parts: &Parts<'_>, functions: u64) -> u64 {
    let lines = parts.lines.unwrap_or_default();
    let words = [parts.literals.words, found.big_words, lines.name_words, lines.names];
    let words = words.iter().fold(0_u64, |sum, words| sum.saturating_add(*words));
    let kept = [b"StrT", b"Attr", b"CInf", b"DbgB"].map(|id| parts.chunks.get(id));
    let kept = kept.iter().flatten().map(|chunk| chunk.len() as u64).sum();
    let sizes = [
        words.saturating_mul(WORD),
        parts.literals.binaries,
        found.instructions.saturating_mul(INSTRUCTION),
        found.operands.saturating_mul(OPERAND),
        (found.labels.len() as u64).saturating_mul(LABEL),
        functions.saturating_mul(FUNCTION),
        lines.items.saturating_add(lines.instructions).saturating_mul(LINE),
        kept,
    ];
    sizes.iter().fold(0, |sum, size| sum.saturating_add(*size))
}
