//! Ways to damage a module.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{ZlibDecoder, ZlibEncoder};

use crate::module::{Id, Instruction, Module, Number, decode, encode};
use crate::random::Random;

/// What was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// Bytes anywhere in the file.
    Bytes,
    /// Bytes or words of one chunk.
    Content,
    /// A chunk as a whole.
    Chunk,
    /// Operands of instructions.
    Operand,
    /// Instructions as a whole.
    Instruction,
    /// Literals, unpacked and packed again.
    Literal,
}

impl Way {
    pub(crate) const ALL: [Way; 6] =
        [Way::Bytes, Way::Content, Way::Chunk, Way::Operand, Way::Instruction, Way::Literal];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Way::Bytes => "bytes of the file",
            Way::Content => "bytes of a chunk",
            Way::Chunk => "a whole chunk",
            Way::Operand => "operands",
            Way::Instruction => "instructions",
            Way::Literal => "literals",
        }
    }
}

/// How often each way is taken, of twenty.
const WEIGHTS: [(Way, usize); 6] = [
    (Way::Bytes, 3),
    (Way::Content, 4),
    (Way::Chunk, 1),
    (Way::Operand, 8),
    (Way::Instruction, 3),
    (Way::Literal, 1),
];

/// Values at which something changes: of registers, sizes, signs.
const EDGES: [u64; 34] = [
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    9,
    15,
    16,
    31,
    32,
    33,
    63,
    64,
    65,
    127,
    128,
    255,
    256,
    257,
    1022,
    1023,
    1024,
    4095,
    0xffff,
    0x1_0000,
    (1 << 24) - 1,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    1 << 32,
    1 << 60,
    u64::MAX >> 1,
];

/// A real module, taken apart once.
pub(crate) struct Seed {
    module: Module,
    file: Vec<u8>,
    code: Option<(Vec<u8>, Vec<Instruction>)>,
}

impl Seed {
    pub(crate) fn new(file: &[u8]) -> Option<Seed> {
        let module = Module::read(file)?;
        let code = module.chunk(b"Code").and_then(|code| decode(code));
        Some(Seed { file: module.write(), module, code })
    }

    pub(crate) fn size(&self) -> usize {
        self.file.len()
    }

    /// A damaged copy, and how it was damaged.
    pub(crate) fn damage(&self, other: &Seed, random: &mut Random) -> (Way, Vec<u8>) {
        let mut at = random.below(WEIGHTS.iter().map(|(_, weight)| weight).sum());
        let mut way = Way::Bytes;
        for (one, weight) in WEIGHTS {
            if at < weight {
                way = one;
                break;
            }
            at -= weight;
        }
        (way, self.damage_by(way, other, random))
    }

    fn damage_by(&self, way: Way, other: &Seed, random: &mut Random) -> Vec<u8> {
        let mut module = self.module.clone();
        match way {
            Way::Bytes => {
                let mut file = self.file.clone();
                bytes(&mut file[12..], random);
                return file;
            }
            Way::Content => {
                let place = random.below(module.0.len());
                content(&mut module.0[place].1, random);
            }
            Way::Chunk => chunk(&mut module, &other.module, random),
            Way::Operand | Way::Instruction => {
                if let (Some((header, all)), Some(code)) = (&self.code, module.chunk_mut(b"Code")) {
                    let mut all = all.clone();
                    for _ in 0..1 + random.below(3) {
                        match way {
                            Way::Operand => operand(&mut all, random),
                            _ => instruction(&mut all, random),
                        }
                    }
                    *code = encode(header, &all);
                }
            }
            Way::Literal => {
                if let Some(chunk) = module.chunk_mut(b"LitT") {
                    literal(chunk, random);
                }
            }
        }
        module.write()
    }
}

/// Changes one to three bytes.
fn bytes(data: &mut [u8], random: &mut Random) {
    if data.is_empty() {
        return;
    }
    for _ in 0..1 + random.below(3) {
        let at = random.below(data.len());
        data[at] = match random.below(3) {
            0 => data[at] ^ 1 << random.below(8),
            1 => data[at].wrapping_add(*random.one_of(&[1, 0xff])),
            _ => random.byte(),
        };
    }
}

/// Changes bytes of a chunk, or one of its words.
fn content(data: &mut [u8], random: &mut Random) {
    if data.len() < 8 || random.once_in(2) {
        return bytes(data, random);
    }
    // Tables begin with words; deep inside there are seldom any.
    let words = data.len() / 4;
    let most = if random.once_in(2) { words.min(6) } else { words };
    let at = 4 * random.below(most);
    let word = match random.below(3) {
        0 => *random.one_of(&EDGES) as u32,
        1 => (*random.one_of(&EDGES) as u32).wrapping_neg(),
        _ => {
            let old = u32::from_be_bytes(*data[at..].first_chunk().expect("there are four"));
            old.wrapping_add(*random.one_of(&[1, 2, u32::MAX]))
        }
    };
    data[at..at + 4].copy_from_slice(&word.to_be_bytes());
}

fn chunk(module: &mut Module, other: &Module, random: &mut Random) {
    let place = random.below(module.0.len());
    let (id, data) = &mut module.0[place];
    let id: Id = *id;
    match random.below(6) {
        0 => data.truncate(random.below(data.len() + 1)),
        1 => data.clear(),
        2 => data.extend((0..1 + random.below(40)).map(|_| random.byte())),
        3 => data.fill(0),
        4 => {
            module.0.remove(place);
        }
        _ => {
            if let Some(others) = other.chunk(&id) {
                *data = others.clone();
            }
        }
    }
}

/// Replaces an operand.
fn operand(all: &mut [Instruction], random: &mut Random) {
    let Some(place) = with_operands(all, random) else { return };
    let which = random.below(all[place].operands.len());
    let old = all[place].operands[which].clone();
    let new = match random.below(12) {
        0..5 => same_kind(&old, random),
        5..10 => {
            // An operand of an instruction of the same kind fits best.
            let opcode = all[place].opcode;
            let others: Vec<&Instruction> = all.iter().filter(|one| one.opcode == opcode).collect();
            let from = *random.one_of(&others);
            from.operands.get(which).cloned().unwrap_or(old)
        }
        10 => {
            let Some(from) = with_operands(all, random) else { return };
            random.one_of(&all[from].operands).clone()
        }
        _ => Number { tag: random.below(8) as u8, value: edge(random) }.write(),
    };
    all[place].operands[which] = new;
}

fn with_operands(all: &[Instruction], random: &mut Random) -> Option<usize> {
    (0..20).map(|_| random.below(all.len())).find(|place| !all[*place].operands.is_empty())
}

fn edge(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => random.below(64) as u64,
        1 => random.one_of(&EDGES).wrapping_neg(),
        _ => *random.one_of(&EDGES),
    }
}

/// An operand of the same kind with another number.
fn same_kind(old: &[u8], random: &mut Random) -> Vec<u8> {
    let mut rest = old;
    let Some(number) = Number::read(&mut rest) else { return old.to_vec() };
    let other = |value: u64, random: &mut Random| match random.below(5) {
        0 => value.wrapping_add(1),
        1 => value.wrapping_sub(1) & (u64::MAX >> 1),
        2 | 3 => random.below(24) as u64,
        _ => edge(random),
    };
    if number.tag != 7 {
        return Number { tag: number.tag, value: other(number.value, random) }.write();
    }
    // Extended: the kind, and numbers behind, of which one is changed.
    let mut numbers = vec![number];
    while let Some(next) = Number::read(&mut rest) {
        numbers.push(next);
    }
    let which = if numbers.len() > 1 { 1 + random.below(numbers.len() - 1) } else { 0 };
    numbers[which].value = other(numbers[which].value, random);
    numbers.into_iter().flat_map(Number::write).collect()
}

/// Takes an instruction away, or puts it somewhere else too.
fn instruction(all: &mut Vec<Instruction>, random: &mut Random) {
    if all.len() < 3 {
        return;
    }
    let place = random.below(all.len());
    match random.below(6) {
        0 => {
            all.remove(place);
        }
        1 => all.insert(place, all[place].clone()),
        2 => {
            let other = random.below(all.len());
            all.swap(place, other);
        }
        3 => all[place].opcode = 1 + random.below(191) as u8,
        4 => {
            let copy = all[place].clone();
            all.insert(random.below(all.len()), copy);
        }
        _ => {
            // A list with more operands, or fewer: its size stays true.
            let Some(list) = all[place].operands.iter().position(|it| it.starts_with(&[0x17]))
            else {
                return;
            };
            let operands = &mut all[place].operands;
            if random.once_in(2) && operands.len() > list + 1 {
                operands.remove(list + 1 + random.below(operands.len() - list - 1));
            } else {
                let copy = random.one_of(operands).clone();
                operands.push(copy);
            }
            let size = (operands.len() - list - 1) as u64;
            operands[list] = [vec![0x17], Number { tag: 0, value: size }.write()].concat();
        }
    }
}

/// Changes bytes of the unpacked table.
fn literal(chunk: &mut Vec<u8>, random: &mut Random) {
    let Some((size, packed)) = chunk.split_first_chunk::<4>() else { return };
    let is_packed = *size != [0; 4];
    let mut table = if is_packed {
        let mut decoder = ZlibDecoder::new(Vec::new());
        let Ok(table) = decoder.write_all(packed).and_then(|()| decoder.finish()) else { return };
        table
    } else {
        packed.to_vec()
    };
    bytes(&mut table, random);
    let size = if is_packed { table.len() as u32 } else { 0 };
    *chunk = size.to_be_bytes().to_vec();
    if is_packed {
        let mut encoder = ZlibEncoder::new(std::mem::take(chunk), Compression::none());
        let packed = encoder.write_all(&table).and_then(|()| encoder.finish());
        *chunk = packed.expect("a vector takes all");
    } else {
        chunk.extend(table);
    }
}
