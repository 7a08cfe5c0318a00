//! A small module with all that the rules are about, and operands to damage it with.

use hot_patch_beam::LoadLimits;

use crate::support::beam::{
    AtomFormat, Beam, atom_chunk, code, function, raw_literals, table, tagged, words,
};

/// The atoms, by their places from 1.
pub(crate) const ATOMS: [&str; 15] = [
    "m",
    "f",
    "module_info",
    "erlang",
    "+",
    "append",
    "binary",
    "string",
    "ensure_at_least",
    "skip",
    "=:=",
    "integer",
    "utf8",
    "lambda",
    "get_tail",
];

/// Labels in all: two of each function, and the label 0.
pub(crate) const LABELS: u32 = 9;

/// It exports `f/1` and `module_info/0`, has the local functions `m/0` and `lambda/1`, which are
/// funs, the second with a free variable; it imports `erlang:+/2` and `m:f/1`.
pub(crate) fn module() -> Beam {
    Beam(vec![
        atom_chunk(AtomFormat::Utf8, &ATOMS),
        (*b"Code", code_with(&[])),
        (*b"StrT", b"abc".to_vec()),
        (*b"ImpT", table(&[[4, 5, 2], [1, 2, 1]])),
        (*b"ExpT", table(&[[2, 1, 2], [3, 0, 4]])),
        (*b"LocT", table(&[[1, 0, 6], [14, 1, 8]])),
        (*b"FunT", words(&[2, 1, 0, 6, 0, 0, 7, 14, 1, 8, 1, 1, 7])),
        (*b"LitT", raw_literals(&[b"\x83j", b"\x83h\x02w\x01aa\x01"])),
        (*b"Line", lines(1, &[0x11])),
        (*b"Type", types(4, &[0x1fff, 1 << 5])),
        (*b"Meta", b"\x83l\0\0\0\x01h\x02w\x01ajj".to_vec()),
    ])
}

/// Its code, with instructions at the beginning of `f/1`.
pub(crate) fn code_with(instructions: &[&[u8]]) -> Vec<u8> {
    code_of(178, LABELS, instructions)
}

/// The same with a header of one's own.
pub(crate) fn code_of(max_opcode: u32, labels: u32, instructions: &[&[u8]]) -> Vec<u8> {
    code(max_opcode, labels, &functions(instructions))
}

pub(crate) fn functions(instructions: &[&[u8]]) -> Vec<Vec<u8>> {
    let body = [instructions.concat(), vec![19]].concat();
    vec![
        function(1, 2, 1, &body),
        function(3, 3, 0, &[19]),
        // A line; make_fun3 of the second fun, with x0 as its free variable, into x0.
        function(5, 1, 0, &[153, 0x10, 171, 0x10, 0x03, 0x17, 0x10, 0x03, 19]),
        // make_fun3 of the first fun, into x0.
        function(7, 14, 1, &[171, 0x00, 0x03, 0x17, 0x00, 19]),
    ]
}

/// The module with such code.
pub(crate) fn with(instructions: &[&[u8]]) -> Beam {
    module().with(b"Code", code_of(191, LABELS, instructions))
}

/// Lines that so many instructions refer to, one item, and no name.
pub(crate) fn lines(instructions: u32, item: &[u8]) -> Vec<u8> {
    [&words(&[0, 0, instructions, 1, 0]), item].concat()
}

/// Types without bounds.
pub(crate) fn types(version: u32, types: &[u16]) -> Vec<u8> {
    let mut chunk = words(&[version, types.len() as u32]);
    types.iter().for_each(|one| chunk.extend(one.to_be_bytes()));
    chunk
}

pub(crate) fn limits(change: impl FnOnce(&mut LoadLimits)) -> LoadLimits {
    let mut limits = LoadLimits::default();
    change(&mut limits);
    limits
}

macro_rules! tags {
    ($($name:ident $tag:literal),+) => {
        $(pub(crate) fn $name(value: u64) -> Vec<u8> {
            tagged($tag, value)
        })+
    };
}

// A number, an integer, an atom, registers, a label.
tags!(u 0, i 1, a 2, x 3, y 4, l 5);

/// A list of so many operands.
pub(crate) fn list(count: u64) -> Vec<u8> {
    [vec![0x17], u(count)].concat()
}

/// A register of a float.
pub(crate) fn fr(number: u64) -> Vec<u8> {
    [vec![0x27], u(number)].concat()
}

/// What is needed of the heap.
pub(crate) fn need(pairs: &[(u64, u64)]) -> Vec<u8> {
    let numbers = pairs.iter().flat_map(|(kind, count)| [u(*kind), u(*count)].concat());
    [vec![0x37], u(pairs.len() as u64)].concat().into_iter().chain(numbers).collect()
}

/// A literal.
pub(crate) fn q(number: u64) -> Vec<u8> {
    [vec![0x47], u(number)].concat()
}

/// A register with a type.
pub(crate) fn tx(number: u64, kind: u64) -> Vec<u8> {
    [vec![0x57], x(number), u(kind)].concat()
}

/// An instruction.
pub(crate) fn op(opcode: u8, operands: &[Vec<u8>]) -> Vec<u8> {
    [&[opcode], &operands.concat()[..]].concat()
}

/// `[]` as an operand.
pub(crate) const NIL: u64 = 0;
