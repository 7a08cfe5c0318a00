//! Builds BEAM files.

/// The chunks of a file.
#[derive(Clone)]
pub struct Beam(pub Vec<([u8; 4], Vec<u8>)>);

/// How the atom table is written.
#[derive(Clone, Copy)]
pub enum AtomFormat {
    /// `Atom`, before OTP 20.
    Latin1,
    /// `AtU8`, lengths of one byte.
    Utf8,
    /// `AtU8` with a negative count and compact lengths, from OTP 28.
    Long,
}

/// The module `m`, which exports `f/1` and `module_info/0`, imports `erlang:+/2`, and has the
/// local function `m/1`, which is a fun with a free variable too, and makes itself.
pub fn minimal(format: AtomFormat) -> Beam {
    Beam(vec![
        atom_chunk(format, &["m", "f", "module_info", "erlang", "+"]),
        (*b"Code", minimal_code(&[])),
        (*b"StrT", Vec::new()),
        (*b"ImpT", table(&[[4, 5, 2]])),
        (*b"ExpT", table(&[[2, 1, 2], [3, 0, 4]])),
        (*b"LocT", table(&[[1, 1, 6]])),
        (*b"FunT", words(&[1, 1, 1, 6, 0, 1, 0xdead_beef])),
        // [{vsn, [1]}, {behaviour, [erlang]}]
        (
            *b"Attr",
            b"\x83l\0\0\0\x02h\x02w\x03vsnk\0\x01\x01h\x02w\x09behaviourl\0\0\0\x01w\x06erlangjj"
                .to_vec(),
        ),
        // [{version, "8.2"}]
        (*b"CInf", b"\x83l\0\0\0\x01h\x02w\x07versionk\0\x038.2j".to_vec()),
    ])
}

/// The code of `minimal`, with instructions at the beginning of `f/1`, whose labels begin at 7.
pub fn minimal_code(instructions: &[u8]) -> Vec<u8> {
    minimal_code_with(7, instructions)
}

/// The same, with so many labels in all.
pub fn minimal_code_with(labels: u32, instructions: &[u8]) -> Vec<u8> {
    let functions = [
        function(1, 2, 1, &[instructions, &[RETURN]].concat()),
        function(3, 3, 0, &[RETURN]),
        function(5, 1, 1, &[&MAKE_FUN[..], &[RETURN]].concat()),
    ];
    code(180, labels, &functions)
}

const RETURN: u8 = 19;

/// `make_fun3` of the first fun, whose one free variable is x0, into x0.
pub const MAKE_FUN: [u8; 6] = [171, 0x00, 0x03, 0x17, 0x10, 0x03];

/// A function of the module whose name is the first atom: its label and the next one, the place of
/// its name among the atoms, its arity, and what stands behind the second label.
pub fn function(label: u8, name: u8, arity: u8, body: &[u8]) -> Vec<u8> {
    let head = [1, label << 4, 2, 0x12, name << 4 | 2, arity << 4, 1, (label + 1) << 4];
    [&head, body].concat()
}

pub fn atom_chunk(format: AtomFormat, names: &[&str]) -> ([u8; 4], Vec<u8>) {
    let count = names.len() as i32;
    let (id, count) = match format {
        AtomFormat::Latin1 => (*b"Atom", count),
        AtomFormat::Utf8 => (*b"AtU8", count),
        AtomFormat::Long => (*b"AtU8", -count),
    };
    let mut chunk = count.to_be_bytes().to_vec();
    for name in names {
        let name = match format {
            AtomFormat::Latin1 => name.chars().map(|c| c as u8).collect(),
            _ => name.as_bytes().to_vec(),
        };
        match (format, name.len()) {
            (AtomFormat::Long, size @ 0..16) => chunk.push((size as u8) << 4),
            (AtomFormat::Long, size) => chunk.extend([(size >> 8 << 5) as u8 | 8, size as u8]),
            (_, size) => chunk.push(size as u8),
        }
        chunk.extend(name);
    }
    (id, chunk)
}

/// Code of functions, with `int_code_end` behind.
pub fn code(max_opcode: u32, labels: u32, functions: &[Vec<u8>]) -> Vec<u8> {
    let mut chunk = words(&[16, 0, max_opcode, labels, functions.len() as u32]);
    chunk.extend(functions.concat());
    chunk.push(3);
    chunk
}

/// Code of these instructions, whatever they are.
pub fn raw_code(max_opcode: u32, labels: u32, functions: u32, instructions: &[u8]) -> Vec<u8> {
    let mut chunk = words(&[16, 0, max_opcode, labels, functions]);
    chunk.extend(instructions);
    chunk
}

/// A compact number, as short as can be: the tag in its low three bits.
pub fn tagged(tag: u8, value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    match value {
        0..16 => vec![(value as u8) << 4 | tag],
        16..0x800 => vec![((value >> 8) as u8) << 5 | 8 | tag, value as u8],
        _ => {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let from = if bytes[zeros] >= 0x80 { zeros.saturating_sub(1) } else { zeros }.min(6);
            let digits = &bytes[from..];
            [&[((digits.len() - 2) as u8) << 5 | 0x18 | tag], digits].concat()
        }
    }
}

/// The module `m` with the one function `f/0`, of these instructions and a return.
pub fn one_function(instructions: &[u8]) -> Beam {
    // label 1; func_info m f 0; label 2; ...; return; int_code_end
    let body = [&[1, 0x10, 2, 0x12, 0x22, 0, 1, 0x20], instructions, &[19, 3]].concat();
    minimal(AtomFormat::Utf8)
        .with(b"Code", raw_code(180, 3, 1, &body))
        .with(b"ExpT", table(&[[2, 0, 2]]))
        .without(b"LocT")
        .without(b"FunT")
}

/// `LitT` of these encoded terms, not packed (OTP 28).
pub fn raw_literals(terms: &[&[u8]]) -> Vec<u8> {
    [&[0; 4], &literals(terms)[..]].concat()
}

/// The table of these encoded terms.
pub fn literals(terms: &[&[u8]]) -> Vec<u8> {
    let mut table = words(&[terms.len() as u32]);
    for term in terms {
        table.extend(words(&[term.len() as u32]));
        table.extend(*term);
    }
    table
}

pub fn table(entries: &[[u32; 3]]) -> Vec<u8> {
    let mut chunk = words(&[entries.len() as u32]);
    chunk.extend(words(&entries.concat()));
    chunk
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

impl Beam {
    /// The file with the chunk `id` replaced, or added.
    pub fn with(mut self, id: &[u8; 4], data: Vec<u8>) -> Beam {
        match self.0.iter_mut().find(|(other, _)| other == id) {
            Some((_, old)) => *old = data,
            None => self.0.push((*id, data)),
        }
        self
    }

    pub fn without(mut self, id: &[u8; 4]) -> Beam {
        self.0.retain(|(other, _)| other != id);
        self
    }

    pub fn chunk(&self, id: &[u8; 4]) -> &[u8] {
        &self.0.iter().find(|(other, _)| other == id).expect("the chunk is there").1
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut body = b"BEAM".to_vec();
        for (id, data) in &self.0 {
            body.extend(id);
            body.extend((data.len() as u32).to_be_bytes());
            body.extend(data);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut file = b"FOR1".to_vec();
        file.extend((body.len() as u32).to_be_bytes());
        file.extend(body);
        file
    }
}
