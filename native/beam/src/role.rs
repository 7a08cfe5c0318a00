//! What an operand of an instruction may be.

/// Kinds of operands, as bits of a set. A number is what stands without a tag: counts, sizes,
/// places in tables.
pub(crate) mod kind {
    pub(crate) const NUMBER: u32 = 1;
    /// A number that 63 bits do not hold.
    pub(crate) const HUGE: u32 = 1 << 1;
    /// An integer that is a small one in the VM.
    pub(crate) const SMALL: u32 = 1 << 2;
    pub(crate) const BIG: u32 = 1 << 3;
    pub(crate) const ATOM: u32 = 1 << 4;
    pub(crate) const NIL: u32 = 1 << 5;
    pub(crate) const X: u32 = 1 << 6;
    pub(crate) const Y: u32 = 1 << 7;
    pub(crate) const FLOAT: u32 = 1 << 8;
    pub(crate) const LABEL: u32 = 1 << 9;
    /// The label 0: where a failure is an exception.
    pub(crate) const EXCEPTION: u32 = 1 << 10;
    pub(crate) const LITERAL: u32 = 1 << 11;
    /// A list, of which this is the number of its operands.
    pub(crate) const LIST: u32 = 1 << 12;
    /// What is needed of the heap, in words.
    pub(crate) const NEED: u32 = 1 << 13;

    pub(crate) const REGISTER: u32 = X | Y;
    pub(crate) const CONSTANT: u32 = SMALL | BIG | ATOM | NIL | LITERAL;
    pub(crate) const SOURCE: u32 = REGISTER | CONSTANT;
    pub(crate) const ANY: u32 = u32::MAX;
}

/// What an operand must be. Those whose names are plurals are lists, and the last of their
/// instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Of an instruction that is not loaded any more.
    Any,
    /// The number of a label that is here.
    Definition,
    /// The module's own name.
    Module,
    Atom,
    /// A number of arguments.
    Arity,
    /// The label where a function with the number of arguments in the first operand begins.
    Entry,
    /// A place in the code.
    Label,
    /// A place in the code, or an exception.
    Fail,
    /// An exception.
    NoFail,
    /// A place in the code, or an atom.
    LabelOrAtom,
    /// A function of another module with the number of arguments in the first operand.
    Import,
    /// A BIF with this number of arguments.
    Bif0,
    Bif1,
    Bif2,
    Bif3,
    /// A local fun.
    Fun,
    /// A local fun, or an atom.
    FunTag,
    /// A number of words of the stack.
    Stack,
    /// The same, where the instruction is one for each of them.
    ZeroedStack,
    /// A number of registers that are in use.
    Live,
    /// A number of words of the heap.
    Heap,
    Register,
    Y,
    /// A register or a constant.
    Source,
    NilOrRegister,
    Float,
    FloatOrSource,
    FloatOrRegister,
    TupleSize,
    TupleIndex,
    /// A unit of bits.
    Unit,
    /// Flags of a segment.
    Flags,
    /// A number of bits.
    Bits,
    SizeOrSource,
    /// The size of a string, whose place is the next operand.
    StringBits,
    StringBytes,
    /// Where that string begins.
    StringOffset,
    /// A place among the line numbers.
    Line,
    /// The same, and there must be line numbers.
    ExecutableLine,
    /// A place among what is known for debuggers.
    DebugIndex,
    /// A number that nothing depends on.
    Number,
    Sources,
    Ys,
    FunValues,
    SelectValues,
    SelectSizes,
    MapPairs,
    MapKeys,
    MapElements,
    Updates,
    Segments,
    Commands,
    RecordElements,
    RecordPairs,
}

impl Role {
    /// The kinds that an operand may be of.
    pub(crate) const fn kinds(self) -> u32 {
        use kind::{
            ANY, ATOM, EXCEPTION, FLOAT, HUGE, LABEL, LIST, LITERAL, NEED, NIL, NUMBER, REGISTER,
            SOURCE,
        };
        match self {
            Role::Any => ANY,
            Role::Definition
            | Role::Arity
            | Role::Import
            | Role::Bif0
            | Role::Bif1
            | Role::Bif2
            | Role::Bif3
            | Role::Fun
            | Role::Stack
            | Role::ZeroedStack
            | Role::Live
            | Role::TupleSize
            | Role::TupleIndex
            | Role::Unit
            | Role::Flags
            | Role::StringBits
            | Role::StringBytes
            | Role::StringOffset
            | Role::Line
            | Role::ExecutableLine
            | Role::DebugIndex
            | Role::Number => NUMBER,
            Role::Module | Role::Atom => ATOM,
            Role::Entry | Role::Label => LABEL,
            Role::Fail => LABEL | EXCEPTION,
            Role::NoFail => EXCEPTION,
            Role::LabelOrAtom => LABEL | ATOM,
            Role::FunTag => NUMBER | ATOM,
            Role::Heap => NUMBER | NEED,
            Role::Bits => NUMBER | HUGE,
            Role::Register => REGISTER,
            Role::Y => kind::Y,
            Role::Source => SOURCE,
            Role::SizeOrSource => SOURCE | NUMBER | HUGE,
            Role::NilOrRegister => NIL | REGISTER,
            Role::Float => FLOAT,
            Role::FloatOrSource => FLOAT | REGISTER | LITERAL,
            Role::FloatOrRegister => FLOAT | REGISTER,
            Role::Sources
            | Role::Ys
            | Role::FunValues
            | Role::SelectValues
            | Role::SelectSizes
            | Role::MapPairs
            | Role::MapKeys
            | Role::MapElements
            | Role::Updates
            | Role::Segments
            | Role::Commands
            | Role::RecordElements
            | Role::RecordPairs => LIST,
        }
    }
}
