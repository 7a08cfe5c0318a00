//! What one function is made of, with everything numbered put back to what it means.
//!
//! The meaning is hashed as it is read and never stands anywhere as a whole: a function can name
//! one large literal as often as it has room for the number.

use std::collections::HashMap;

use super::decode::{self, Arg, Bounds, Place, Unclear, malformed, unclear};
use super::tables::Tables;
use super::{Function, Unread};
use crate::atoms::AtomId;
use crate::code::Code;
use crate::damage::Damage;
use crate::digest::{Hasher, Short};
use crate::effort::Effort;
use crate::opcodes::{self, op};
use crate::reader::Reader;
use crate::role::Role;

/// Reads all functions of a module, one after the other.
pub(super) struct Digests<'t, 'a> {
    code: &'t Code<'a>,
    tables: &'t Tables<'a>,
    effort: &'t Effort,
    /// Digests of strings, by where they begin and how long they are.
    strings: HashMap<(usize, usize), Short>,
}

impl<'t, 'a> Digests<'t, 'a> {
    pub(super) fn new(code: &'t Code<'a>, tables: &'t Tables<'a>, effort: &'t Effort) -> Self {
        Digests { code, tables, effort, strings: HashMap::new() }
    }

    /// Reads the function at `bounds`, the one at `index` of the module.
    pub(super) fn function(&mut self, bounds: &Bounds, index: usize) -> Result<Function, Unread> {
        let instructions = self.code.instructions().get(bounds.place.clone());
        let mut reader = Reader::new(instructions.unwrap_or_default());
        let mut meaning = Meaning {
            index,
            tables: self.tables,
            effort: self.effort,
            strings: &mut self.strings,
            text: Text::default(),
            function: Function::new(bounds),
        };
        let mut args = Vec::new();
        while !reader.rest().is_empty() {
            let opcode = decode::read(&mut reader, &self.tables.atoms, &mut args)
                .map_err(|Unclear| unclear())?;
            self.effort.work(1)?;
            meaning.instruction(opcode, &args)?;
        }
        let Meaning { text, mut function, .. } = meaning;
        let (digest, body) = text.finish();
        function.finish(digest, body);
        self.effort.memory(function.size() as u64)?;
        Ok(function)
    }
}

/// Whether the compiler has made the function of this name out of a fun or a comprehension.
pub(super) fn is_made(name: &str) -> bool {
    name.starts_with('-')
}

/// The meaning as a whole, and as it is without the names of what the compiler has made: the same
/// until the first of those.
#[derive(Default)]
struct Text {
    whole: Hasher,
    body: Option<Hasher>,
}

impl Text {
    fn put(&mut self, bytes: &[u8]) {
        self.whole.put(bytes);
        if let Some(body) = &mut self.body {
            body.put(bytes);
        }
    }

    fn tagged(&mut self, tag: u8, value: u64) {
        self.whole.tagged(tag, value);
        if let Some(body) = &mut self.body {
            body.tagged(tag, value);
        }
    }

    /// A name that is none of the body's.
    fn apart(&mut self, tag: u8, name: &str) {
        self.body.get_or_insert_with(|| self.whole.clone()).put(&[b'%', tag]);
        self.whole.tagged(tag, name.len() as u64);
        self.whole.put(name.as_bytes());
    }

    fn finish(self) -> (Short, Short) {
        let whole = self.whole.finish();
        (whole, self.body.map_or(whole, Hasher::finish))
    }
}

struct Meaning<'t, 'a, 's> {
    index: usize,
    tables: &'t Tables<'a>,
    effort: &'t Effort,
    strings: &'s mut HashMap<(usize, usize), Short>,
    text: Text,
    function: Function,
}

impl Meaning<'_, '_, '_> {
    fn instruction(&mut self, opcode: u8, args: &[Arg<'_>]) -> Result<(), Unread> {
        // Lines say where the source stood, not what it says.
        if matches!(opcode, op::LINE | op::EXECUTABLE_LINE | op::DEBUG_LINE) {
            return Ok(());
        }
        self.acts(opcode, args);
        self.text.put(&[opcode]);
        if let (opcodes::LABEL, [Arg::Number(label), ..]) = (opcode, args) {
            return self.label(*label);
        }
        let import = import_place(opcode);
        let fun = names_fun(opcode);
        for (place, arg) in args.iter().enumerate() {
            match arg {
                Arg::Number(index) if import == Some(place) => self.import(*index)?,
                Arg::Number(index) if fun && place == 0 => self.fun(*index)?,
                Arg::Number(_) if is_string(opcode, args, place) => {}
                arg => self.arg(arg)?,
            }
        }
        self.strings(opcode, args)?;
        self.keys(opcode, args);
        Ok(())
    }

    fn acts(&mut self, opcode: u8, args: &[Arg<'_>]) {
        let acts = &mut self.function.acts;
        match opcode {
            // A fun of the module itself, which counts as called.
            op::CALL_FUN2 if matches!(args.first(), Some(Arg::Number(_))) => {}
            op::SEND => acts.sends = true,
            op::LOOP_REC | op::WAIT | op::WAIT_TIMEOUT => acts.receives = true,
            // Elixir reads a field of a map so where it is not known to be one.
            op::APPLY | op::APPLY_LAST if matches!(args.first(), Some(Arg::Number(0))) => {}
            op::APPLY | op::APPLY_LAST => acts.applies = true,
            op::CALL_FUN | op::CALL_FUN2 => acts.calls_funs = true,
            _ => {}
        }
    }

    fn arg(&mut self, arg: &Arg<'_>) -> Result<(), Unread> {
        match arg {
            Arg::Number(value) => self.text.tagged(b'u', *value),
            Arg::Integer(bytes) => {
                self.text.tagged(b'i', bytes.len() as u64);
                self.text.put(bytes);
            }
            Arg::Nil => self.text.put(b"n"),
            Arg::Atom(id) => {
                self.function.atoms.push(*id);
                self.name(b'a', *id);
            }
            Arg::X(number) => self.text.tagged(b'x', *number),
            Arg::Y(number) => self.text.tagged(b'y', *number),
            Arg::Float(number) => self.text.tagged(b'f', *number),
            // No label at all: a failure is an exception.
            Arg::Label(0) => self.text.put(b"0"),
            Arg::Label(label) => return self.label(*label),
            Arg::Literal(index) => {
                let literal = self.tables.literals.get(*index);
                let literal = literal.ok_or(malformed("it names a literal that does not exist"))?;
                self.function.literals.push(small(*index));
                self.text.put(b"l");
                self.text.put(&literal.digest);
            }
            Arg::List(size) => self.text.tagged(b'(', *size),
            Arg::Allocation(size) => self.text.tagged(b'[', *size),
        }
        Ok(())
    }

    /// A label by its number in this function, or by the name of another.
    fn label(&mut self, label: u64) -> Result<(), Unread> {
        let place = self.tables.labels.get(label);
        let Place { function, number } =
            place.ok_or(malformed("it names a label that does not exist"))?;
        if function as usize != self.index {
            self.function.calls.push(function);
            // The names of functions are not known before all are read, their labels are.
            if let Some((name, arity)) = self.tables.named.get(function as usize) {
                let (name, arity) = (*name, *arity);
                self.reference(b'c', name, function);
                self.text.put(&[arity]);
            }
        }
        self.text.tagged(b'j', number.into());
        Ok(())
    }

    fn import(&mut self, index: u64) -> Result<(), Unread> {
        let index = usize::try_from(index).ok();
        let import = index.and_then(|index| Some((index, self.tables.imports.get(index)?)));
        let (index, import) = import.ok_or(malformed("it names an import that does not exist"))?;
        self.function.imports.push(small(index));
        self.name(b'm', import.module);
        self.name(b'a', import.function);
        self.text.put(&[import.arity]);
        Ok(())
    }

    fn fun(&mut self, index: u64) -> Result<(), Unread> {
        let fun = usize::try_from(index).ok().and_then(|index| self.tables.funs.get(index));
        let fun = fun.ok_or(malformed("it names a fun that does not exist"))?;
        let name = self.tables.atoms.id(fun.name);
        let name = name.ok_or(malformed("it names an atom that does not exist"))?;
        match self.tables.labels.get(fun.label.into()) {
            Some(place) => {
                self.function.calls.push(place.function);
                self.reference(b'm', name, place.function);
            }
            None => self.name(b'm', name),
        }
        self.text.tagged(b'u', fun.arity.into());
        self.text.tagged(b'u', fun.free.into());
        Ok(())
    }

    /// The bytes of strings where they stand instead of their places.
    fn strings(&mut self, opcode: u8, args: &[Arg<'_>]) -> Result<(), Unread> {
        match (opcode, args) {
            (op::BS_PUT_STRING, [Arg::Number(size), Arg::Number(from)]) => {
                self.string(*from, *size)
            }
            (op::BS_MATCH_STRING, [_, _, Arg::Number(bits), Arg::Number(from)]) => {
                self.string(*from, bits.div_ceil(8))
            }
            (op::BS_CREATE_BIN, args) => {
                for segment in segments(args) {
                    if let [Arg::Atom(kind), _, _, _, Arg::Number(from), Arg::Integer(size)] =
                        segment
                        && self.tables.atoms.text(*kind) == "string"
                    {
                        self.string(*from, integer(size).unwrap_or(u64::MAX))?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn string(&mut self, from: u64, size: u64) -> Result<(), Unread> {
        const BEYOND: Damage =
            Damage::Malformed { chunk: *b"StrT", what: "the code names bytes beyond its end" };
        let usize_of = |number| usize::try_from(number).map_err(|_| BEYOND);
        let (from, size) = (usize_of(from)?, usize_of(size)?);
        let end = from.checked_add(size).ok_or(BEYOND)?;
        let string = self.tables.strings.get(from..end).ok_or(BEYOND)?;
        let digest = match self.strings.get(&(from, size)) {
            Some(digest) => *digest,
            None => {
                // Each place may be named with all that stands behind it.
                self.effort.work(size / BYTES_IN_A_STEP)?;
                self.effort.memory(STRING)?;
                let mut bytes = Hasher::default();
                bytes.put(string);
                let digest = bytes.finish();
                self.strings.insert((from, size), digest);
                digest
            }
        };
        self.text.tagged(b's', size as u64);
        self.text.put(&digest);
        Ok(())
    }

    fn keys(&mut self, opcode: u8, args: &[Arg<'_>]) {
        let step = match opcode {
            op::PUT_MAP_ASSOC | op::PUT_MAP_EXACT | op::GET_MAP_ELEMENTS => 2,
            op::HAS_MAP_FIELDS => 1,
            _ => return,
        };
        for arg in behind_list(args).iter().step_by(step) {
            if let Arg::Atom(id) = arg {
                self.function.keys.push(*id);
            }
        }
    }

    /// Another function of the module. What the compiler has made is numbered in its name: in the
    /// body it is one of those that are named in their order.
    fn reference(&mut self, tag: u8, name: AtomId, function: u32) {
        let name = self.tables.atoms.text(name);
        if is_made(name) {
            self.function.made.push(function);
            self.text.apart(tag, name);
        } else {
            self.text.tagged(tag, name.len() as u64);
            self.text.put(name.as_bytes());
        }
    }

    fn name(&mut self, tag: u8, name: AtomId) {
        let name = self.tables.atoms.text(name);
        self.text.tagged(tag, name.len() as u64);
        self.text.put(name.as_bytes());
    }
}

/// How many bytes are hashed in about the time of one step of work.
const BYTES_IN_A_STEP: usize = 64;

/// What the digest of a string takes in its table, which doubles when it is full.
const STRING: u64 = 128;

/// Tables of a file have fewer entries than 2^32.
fn small(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

/// Which operand is the place of an import.
pub(crate) fn import_place(opcode: u8) -> Option<usize> {
    let is_import = |role: &Role| {
        matches!(role, Role::Import | Role::Bif0 | Role::Bif1 | Role::Bif2 | Role::Bif3)
    };
    opcodes::find(opcode)?.roles.iter().position(is_import)
}

/// Whether the first operand is the place of a fun, where it is a number.
fn names_fun(opcode: u8) -> bool {
    let roles = opcodes::find(opcode).map(|op| op.roles).unwrap_or_default();
    matches!(roles.first(), Some(Role::Fun | Role::FunTag))
}

/// Whether the number at `place` is where a string begins.
fn is_string(opcode: u8, args: &[Arg<'_>], place: usize) -> bool {
    match opcode {
        op::BS_PUT_STRING => place == 1,
        op::BS_MATCH_STRING => place == 3,
        // A source of a segment is a plain number only in a string.
        op::BS_CREATE_BIN => {
            let list = args.len() - behind_list(args).len();
            place.checked_sub(list).is_some_and(|inside| inside % SEGMENT == 4)
        }
        _ => false,
    }
}

/// Kind, segment, unit, flags, source, size.
const SEGMENT: usize = 6;

fn segments<'s, 'a>(args: &'s [Arg<'a>]) -> impl Iterator<Item = &'s [Arg<'a>]> {
    behind_list(args).chunks(SEGMENT)
}

/// What is in the list with which an instruction ends.
pub(super) fn behind_list<'s, 'a>(args: &'s [Arg<'a>]) -> &'s [Arg<'a>] {
    let list = args.iter().position(|arg| matches!(arg, Arg::List(_)));
    list.and_then(|list| args.get(list + 1..)).unwrap_or_default()
}

/// A small integer that is not negative.
fn integer(bytes: &[u8]) -> Option<u64> {
    Reader::new(bytes).tagged()?.value
}
