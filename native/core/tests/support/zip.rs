//! A zip writer that writes what it is told, also what is wrong.

use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;

/// How sizes and checksum follow the data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Descriptor {
    None,
    Bare,
    Signed,
}

/// An entry to write.
#[derive(Clone)]
pub struct Item {
    pub name: Vec<u8>,
    pub method: u16,
    pub crc32: u32,
    pub size: u32,
    pub packed: Vec<u8>,
    pub flags: u16,
    pub external: u32,
    pub descriptor: Descriptor,
    pub local_extra: Vec<u8>,
    pub central_extra: Vec<u8>,
    pub comment: Vec<u8>,
    /// Bytes put before its local header.
    pub before: Vec<u8>,
    /// Whether the directory lists it.
    pub listed: bool,
}

/// An archive, and where its parts begin.
#[derive(Clone)]
pub struct Built {
    pub bytes: Vec<u8>,
    pub locals: Vec<usize>,
    pub data: Vec<usize>,
    pub centrals: Vec<usize>,
    pub directory: usize,
    pub end: usize,
}

pub fn file(name: &str, content: &[u8]) -> Item {
    item(name.as_bytes(), content, 0, content.to_vec())
}

pub fn deflated(name: &str, content: &[u8]) -> Item {
    item(name.as_bytes(), content, 8, deflate(content))
}

pub fn folder(name: &str) -> Item {
    Item { external: 0o040_755 << 16 | 0x10, ..file(name, b"") }
}

fn item(name: &[u8], content: &[u8], method: u16, packed: Vec<u8>) -> Item {
    Item {
        name: name.to_vec(),
        method,
        crc32: crc32fast::hash(content),
        size: content.len() as u32,
        packed,
        flags: 0,
        external: 0o100_644 << 16,
        descriptor: Descriptor::None,
        local_extra: Vec::new(),
        central_extra: Vec::new(),
        comment: Vec::new(),
        before: Vec::new(),
        listed: true,
    }
}

pub fn deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

impl Item {
    pub fn named(name: &[u8]) -> Item {
        item(name, b"content", 0, b"content".to_vec())
    }

    pub fn with(mut self, change: impl FnOnce(&mut Item)) -> Item {
        change(&mut self);
        self
    }

    pub fn streamed(mut self, descriptor: Descriptor) -> Item {
        self.flags |= 8;
        self.descriptor = descriptor;
        self
    }

    fn local(&self, out: &mut Vec<u8>) {
        let known = self.descriptor == Descriptor::None;
        let [crc32, packed, size] = self.facts().map(|fact| if known { fact } else { 0 });
        out.extend(b"PK\x03\x04");
        put16s(out, &[20, self.flags, self.method, 0x6000, 0x5a21]);
        put32s(out, &[crc32, packed, size]);
        put16s(out, &[self.name.len() as u16, self.local_extra.len() as u16]);
        out.extend(&self.name);
        out.extend(&self.local_extra);
    }

    fn after(&self, out: &mut Vec<u8>) {
        match self.descriptor {
            Descriptor::None => return,
            Descriptor::Bare => {}
            Descriptor::Signed => out.extend(b"PK\x07\x08"),
        }
        put32s(out, &self.facts());
    }

    fn central(&self, offset: usize, out: &mut Vec<u8>) {
        out.extend(b"PK\x01\x02");
        put16s(out, &[0x031e, 20, self.flags, self.method, 0x6000, 0x5a21]);
        put32s(out, &self.facts());
        let lengths =
            [&self.name, &self.central_extra, &self.comment].map(|part| part.len() as u16);
        put16s(out, &lengths);
        put16s(out, &[0, 0]);
        put32s(out, &[self.external, offset as u32]);
        out.extend(&self.name);
        out.extend(&self.central_extra);
        out.extend(&self.comment);
    }

    fn facts(&self) -> [u32; 3] {
        [self.crc32, self.packed.len() as u32, self.size]
    }
}

/// Writes an archive of `items` with the comment `comment`.
pub fn build(items: &[Item], comment: &[u8]) -> Built {
    let mut built = Built {
        bytes: Vec::new(),
        locals: Vec::new(),
        data: Vec::new(),
        centrals: Vec::new(),
        directory: 0,
        end: 0,
    };
    let out = &mut built.bytes;
    for item in items {
        out.extend(&item.before);
        built.locals.push(out.len());
        item.local(out);
        built.data.push(out.len());
        out.extend(&item.packed);
        item.after(out);
    }
    built.directory = out.len();
    for (item, offset) in items.iter().zip(&built.locals).filter(|(item, _)| item.listed) {
        built.centrals.push(out.len());
        item.central(*offset, out);
    }
    built.end = out.len();
    let listed = built.centrals.len() as u16;
    out.extend(b"PK\x05\x06");
    put16s(out, &[0, 0, listed, listed]);
    put32s(out, &[(built.end - built.directory) as u32, built.directory as u32]);
    put16s(out, &[comment.len() as u16]);
    out.extend(comment);
    built
}

/// An archive of stored files.
pub fn stored(files: &[(&str, &[u8])]) -> Built {
    let items: Vec<Item> = files.iter().map(|(name, content)| file(name, content)).collect();
    build(&items, b"")
}

impl Built {
    pub fn put16(mut self, at: usize, value: u16) -> Built {
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        self
    }

    pub fn put32(mut self, at: usize, value: u32) -> Built {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    pub fn insert(mut self, at: usize, bytes: &[u8]) -> Built {
        self.bytes.splice(at..at, bytes.iter().copied());
        self
    }
}

fn put16s(out: &mut Vec<u8>, values: &[u16]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn put32s(out: &mut Vec<u8>, values: &[u32]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}
