//! Tables that break a rule.

use std::io::Write as _;

use hot_patch_beam::LoaderRule as Rule;

use crate::module::{
    LABELS, NIL, a, functions as functions_with, i, limits, lines, list, module, op, q, types, u,
    with, x,
};
use crate::support::beam::{
    AtomFormat, atom_chunk, code, function, literals, raw_literals, table, words,
};
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    [
        functions(),
        lambdas(),
        literal_tables(),
        terms(),
        line_tables(),
        type_tables(),
        data(),
        sizes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn functions() -> Vec<Case> {
    let exports = |entries: &[[u32; 3]]| module().with(b"ExpT", table(entries));
    vec![
        case(Rule::FunctionEntry, "a label beyond the count", exports(&[[2, 1, 99]])),
        case(Rule::FunctionEntry, "the label 0", exports(&[[2, 1, 0]])),
        case(Rule::FunctionEntry, "where no function begins", exports(&[[2, 1, 1]])),
        case(Rule::FunctionEntry, "another name", exports(&[[3, 1, 2]])),
        case(Rule::FunctionEntry, "another number of arguments", exports(&[[2, 0, 2]])),
        case(Rule::FunctionTwice, "two entries", exports(&[[2, 1, 2], [3, 0, 4], [2, 1, 2]])),
        case(Rule::FunctionEntry, "a local one", module().with(b"LocT", table(&[[1, 0, 5]]))),
    ]
}

fn lambdas() -> Vec<Case> {
    let funs = |entry: [u32; 6]| {
        module().with(b"FunT", [words(&[2]), words(&[1, 0, 6, 0, 0, 7]), words(&entry)].concat())
    };
    // The function that makes one of the two makes none.
    let unmade = |place: usize, function: Vec<u8>| {
        let mut functions = functions_with(&[]);
        functions[place] = function;
        module().with(b"Code", code(178, LABELS, &functions))
    };
    let three = [words(&[3]), module().chunk(b"FunT")[4..].to_vec(), words(&[3, 0, 4, 2, 0, 7])];
    let three = module().with(b"FunT", three.concat());
    vec![
        case(Rule::LambdaEntry, "a label beyond the count", funs([14, 1, 99, 1, 1, 7])),
        case(Rule::LambdaEntry, "a negative label", funs([14, 1, 1 << 31, 1, 1, 7])),
        case(Rule::LambdaEntry, "where no function begins", funs([14, 1, 7, 1, 1, 7])),
        case(Rule::LambdaEntry, "the atom 0", funs([0, 1, 8, 1, 1, 7])),
        case(Rule::LambdaEntry, "2^31 arguments", funs([14, 1 << 31, 8, 1, 1, 7])),
        case(Rule::LambdaEntry, "another number of arguments", funs([14, 2, 8, 1, 1, 7])),
        case(Rule::LambdaFree, "2^31 free variables", funs([14, 1, 8, 1, 1 << 31, 7])),
        case(Rule::LambdaFree, "more than arguments", funs([14, 1, 8, 1, 2, 7])),
        case(Rule::LambdaIndex, "another index", funs([14, 1, 8, 0, 1, 7])),
        case(Rule::LambdaMade, "without free variables", unmade(3, function(7, 14, 1, &[19]))),
        case(
            Rule::LambdaMade,
            "with a free variable",
            unmade(2, function(5, 1, 0, &[153, 16, 19])),
        ),
        case(Rule::LambdaMade, "a third", three),
        case(Rule::LambdaLabel, "two at one label", {
            module().with(b"FunT", words(&[2, 14, 1, 8, 0, 0, 7, 14, 1, 8, 1, 1, 7]))
        }),
    ]
}

fn packed(declared: u32, table: &[u8]) -> Vec<u8> {
    let mut encoder =
        flate2::write::ZlibEncoder::new(words(&[declared]), flate2::Compression::default());
    encoder.write_all(table).unwrap();
    encoder.finish().unwrap()
}

fn literal_tables() -> Vec<Case> {
    let with = |chunk: Vec<u8>| module().with(b"LitT", chunk);
    let good = literals(&[b"\x83j", b"\x83j"]);
    let size = good.len() as u32;
    let raw = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut table = good.clone();
        change(&mut table);
        with([&[0; 4], &table[..]].concat())
    };
    vec![
        // One byte of a real module is enough.
        case(Rule::LiteralSize, "2^31 declared", with(packed(0x8000_0000 | size, &good))),
        case(Rule::LiteralSize, "2^31 - 1 declared", with(packed(i32::MAX as u32, &good))),
        case(Rule::LiteralPacked, "one more declared", with(packed(size + 1, &good))),
        case(Rule::LiteralPacked, "one less declared", with(packed(size - 1, &good))),
        case(Rule::LiteralPacked, "bytes behind", with([packed(size, &good), vec![0]].concat())),
        case(Rule::LiteralPacked, "no zlib stream", with([words(&[size]), good.clone()].concat())),
        case(Rule::LiteralTable, "no size", with(vec![0; 3])),
        case(Rule::LiteralTable, "no count", with(vec![0; 6])),
        case(Rule::LiteralTable, "2^31 literals", raw(&|table| table[0] = 0x80)),
        case(Rule::LiteralTable, "one more", raw(&|table| table[3] = 3)),
        case(Rule::LiteralTable, "one less", raw(&|table| table[3] = 1)),
        case(Rule::LiteralTable, "a literal beyond the end", raw(&|table| table[13] = 3)),
        case(Rule::LiteralTable, "bytes behind", raw(&|table| table.push(0))),
    ]
}

fn terms() -> Vec<Case> {
    let with = |term: &[u8]| module().with(b"LitT", raw_literals(&[b"\x83j", term]));
    let deep = [&b"\x83"[..], &b"h\x01".repeat(1001), b"j"].concat();
    let one_atom_each: Vec<u8> =
        (0..70_000_u32).flat_map(|n| format!("w\x05{n:05}").into_bytes()).collect();
    let atoms = [&b"\x83l\x00\x01\x11\x70"[..], &one_atom_each, b"j"].concat();
    vec![
        case(Rule::LiteralTerm, "no term", with(b"")),
        case(Rule::LiteralTerm, "another version", with(b"\x82j")),
        case(Rule::LiteralTerm, "bytes behind", with(b"\x83jj")),
        case(Rule::LiteralTerm, "cut off", with(b"\x83h\x02j")),
        case(Rule::LiteralTerm, "2^32 elements", with(b"\x83l\xff\xff\xff\xffjj")),
        case(Rule::LiteralTerm, "compressed", with(b"\x83P\0\0\0\0")),
        case(Rule::LiteralTerm, "a pid", with(b"\x83gw\x01n\0\0\0\x01\0\0\0\0\0")),
        case(Rule::LiteralTerm, "an atom of 256 characters", {
            with(&[&b"\x83v\x01\x00"[..], &[b'a'; 256]].concat())
        }),
        case(Rule::LiteralTerm, "an atom that is not UTF-8", with(b"\x83w\x01\xff")),
        case(Rule::LiteralKeys, "a key twice", with(b"\x83t\0\0\0\x02a\x01ja\x01j")),
        case(Rule::ModuleDepth, "a thousand levels and one", with(&deep)),
        Case {
            limits: limits(|limits| limits.literal_words = 30),
            ..case(
                Rule::ModuleLiterals,
                "a list of a string",
                with(b"\x83k\x00\x10aaaaaaaaaaaaaaaa"),
            )
        },
        case(Rule::ModuleAtoms, "in a literal", with(&atoms)),
    ]
}

fn line_tables() -> Vec<Case> {
    let with = |chunk: Vec<u8>| module().with(b"Line", chunk);
    let names = |names: &[&[u8]]| {
        let mut chunk = words(&[0, 0, 1, 1, names.len() as u32]);
        chunk.push(0x11);
        for name in names {
            chunk.extend((name.len() as u16).to_be_bytes());
            chunk.extend(*name);
        }
        chunk
    };
    vec![
        case(Rule::LineTable, "cut off", with(vec![0; 19])),
        case(Rule::LineTable, "2^31 items", with(words(&[0, 0, 1, 1 << 31, 0]))),
        case(Rule::LineTable, "2^31 names", with(words(&[0, 0, 1, 0, 1 << 31]))),
        case(Rule::LineTable, "an item too few", with(words(&[0, 0, 1, 1, 0]))),
        case(Rule::LineTable, "an item of another kind", with(lines(1, &[0x13]))),
        case(Rule::LineTable, "bytes behind", with(lines(1, &[0x11, 0x11]))),
        case(
            Rule::LineTable,
            "a name cut off",
            with([names(&[b"a"]), vec![]].concat()[..23].to_vec()),
        ),
        case(Rule::LineCount, "2^31 instructions", with(lines(1 << 31, &[0x11]))),
        case(Rule::LineCount, "a negative number", with(lines(u32::MAX, &[0x11]))),
        case(Rule::LineCount, "one too many", with(lines(2, &[0x11]))),
        case(Rule::LineItem, "2^31", with(lines(1, &[0x79, 0, 0x80, 0, 0, 0]))),
        case(
            Rule::LineItem,
            "beyond 64 bits",
            with(lines(1, &[&[0xf9, 0x00][..], &[1; 9]].concat())),
        ),
        case(Rule::LineItem, "a file beyond the table", with(lines(1, &[0x12, 0x11]))),
        case(Rule::LineName, "not UTF-8", with(names(&[b"\xff"]))),
        case(Rule::LineName, "longer than a path", with(names(&[&[b'a'; 4097]]))),
        case(Rule::ModuleAdded, "10,001 names", with(names(&vec![&b""[..]; 10_001]))),
    ]
}

fn type_tables() -> Vec<Case> {
    let with = |chunk: Vec<u8>| module().with(b"Type", chunk);
    let bounds = |version: u32, kind: u16, low: i64, high: i64| {
        let mut chunk = types(version, &[if version == 3 { 0x0fff } else { 0x1fff }]);
        chunk[7] = 2;
        chunk.extend(kind.to_be_bytes());
        chunk.extend(low.to_be_bytes());
        chunk.extend(high.to_be_bytes());
        chunk
    };
    let integer = 1 << 5;
    vec![
        case(Rule::TypeTable, "no version", with(vec![0; 3])),
        case(Rule::TypeTable, "2^31 types", with(words(&[4, 1 << 31]))),
        case(Rule::TypeTable, "one more", with([words(&[4, 2]), vec![0x1f, 0xff]].concat())),
        case(Rule::TypeTable, "bytes behind", with([types(4, &[0x1fff]), vec![0]].concat())),
        case(Rule::TypeTable, "a bound cut off", with(types(4, &[0x1fff, 1 << 13 | integer]))),
        case(Rule::TypeTable, "a unit cut off", with(types(4, &[0x1fff, 1 << 15 | 1 << 1]))),
        case(Rule::TypeEntry, "none", with(types(4, &[0x1fff, 0]))),
        case(Rule::TypeEntry, "an atom with bounds", with(bounds(3, 0b11 << 12 | 1, 1, 2))),
        case(Rule::TypeEntry, "bounds out of order", with(bounds(4, 0b11 << 13 | integer, 2, 1))),
        case(Rule::TypeEntry, "an integer with a unit", {
            with([types(4, &[0x1fff, 1 << 15 | integer]), vec![8]].concat())
                .with(b"StrT", b"abc".to_vec())
        }),
        case(Rule::TypeFirst, "no type", with(types(4, &[]))),
        case(Rule::TypeFirst, "an integer", with(types(4, &[integer]))),
        case(Rule::TypeFirst, "of another release", with(types(3, &[0x07ff]))),
    ]
}

fn data() -> Vec<Case> {
    let meta = |chunk: &[u8]| module().with(b"Meta", chunk.to_vec());
    let debug = |head: [u32; 3], entries: &[Vec<u8>]| {
        case(
            Rule::DebugTable,
            "",
            module().with(b"DbgB", [words(&head), entries.concat()].concat()),
        )
    };
    let records = |head: [u32; 3], entries: &[Vec<u8>]| {
        case(
            Rule::RecordTable,
            "",
            module().with(b"Recs", [words(&head), entries.concat()].concat()),
        )
    };
    let named = |what, case: Case| Case { what, ..case };
    let frame = || op(4, &[u(0), a(NIL)]);
    let variables =
        |operands: &[Vec<u8>]| op(4, &[&[u(1), list(operands.len() as u64)], operands].concat());
    let calls =
        |operands: &[Vec<u8>]| op(4, &[&[u(2), list(operands.len() as u64)], operands].concat());
    let record = |operands: &[Vec<u8>]| {
        op(5, &[&[a(1), a(2), list(operands.len() as u64)], operands].concat())
    };
    vec![
        case(Rule::MetaTerm, "no term", meta(b"\x82")),
        case(Rule::MetaTerm, "no list", meta(b"\x83w\x01a")),
        case(Rule::MetaTerm, "no names", meta(b"\x83l\0\0\0\x01w\x01aj")),
        named("2^31 items", debug([1, 1 << 31, 0], &[frame()])),
        named("2^31 terms", debug([1, 1, 1 << 31], &[frame()])),
        named("an item too few", debug([1, 2, 0], &[frame()])),
        named("an item too many", debug([1, 1, 0], &[frame(), frame()])),
        named(
            "variables before the first item",
            debug([1, 1, 2], &[variables(&[q(0), x(0)]), frame()]),
        ),
        named("half a variable", debug([1, 1, 1], &[frame(), variables(&[q(0)])])),
        named(
            "a variable in a label",
            debug([1, 1, 2], &[frame(), variables(&[q(0), crate::module::l(1)])]),
        ),
        named("a name that is an atom", debug([1, 1, 2], &[frame(), variables(&[a(1), x(0)])])),
        named("more terms than counted", debug([1, 1, 1], &[frame(), variables(&[q(0), x(0)])])),
        named(
            "variables behind calls",
            debug([1, 1, 4], &[frame(), calls(&[q(0), q(0)]), variables(&[q(0), x(0)])]),
        ),
        named("a call without a function", debug([1, 1, 2], &[frame(), calls(&[u(1), a(1)])])),
        named("a call of 512 arguments", debug([1, 1, 2], &[frame(), calls(&[u(512), a(1)])])),
        named("an atom alone", debug([1, 1, 1], &[frame(), calls(&[a(1)])])),
        named("an unknown entry", debug([1, 1, 1], &[frame(), op(4, &[u(3), list(1), a(1)])])),
        named("no list", debug([1, 1, 1], &[frame(), op(4, &[u(1), u(1)])])),
        named("another instruction", debug([1, 1, 0], &[op(6, &[u(0), a(NIL)])])),
        named("another version", records([1, 0, 0], &[])),
        named("2^31 records", records([0, 1 << 31, 0], &[])),
        named("a record too few", records([0, 2, 0], &[record(&[])])),
        named("half a field", records([0, 1, 1], &[record(&[a(1)])])),
        named("a field that is no atom", records([0, 1, 1], &[record(&[i(1), i(1)])])),
        named("a value in a register", records([0, 1, 1], &[record(&[a(1), x(1)])])),
        named("more fields than counted", records([0, 1, 0], &[record(&[a(1), i(1)])])),
        named("fewer fields than counted", records([0, 1, 2], &[record(&[a(1), i(1)])])),
        named("bytes behind", records([0, 0, 0], &[vec![0]])),
    ]
}

/// What is too much.
fn sizes() -> Vec<Case> {
    let names: Vec<String> = (0..70_000).map(|n| format!("a{n}")).collect();
    let names: Vec<&str> = ["m"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let many = || module().with(b"AtU8", atom_chunk(AtomFormat::Utf8, &names).1);
    let imports: Vec<[u32; 3]> = [[4, 5, 2], [1, 2, 1]]
        .into_iter()
        .chain((0..256).flat_map(|arity| (1..257).map(move |name| [4, name, arity])))
        .collect();
    let stack = vec![op(14, &[u(1023), u(0)]); 400];
    let stack: Vec<&[u8]> = stack.iter().map(Vec::as_slice).collect();
    let numbers = vec![[&[64, 0xf9, 0x00][..], &[1; 9], &x(0)].concat(); 10_001];
    let numbers: Vec<&[u8]> = numbers.iter().map(Vec::as_slice).collect();
    let maps = vec![op(154, &[crate::module::l(0), q(0), x(0), u(0), list(2), a(1), x(0)]); 10_001];
    let maps: Vec<&[u8]> = maps.iter().map(Vec::as_slice).collect();
    vec![
        case(Rule::ModuleAtoms, "70,000", many()),
        Case {
            limits: limits(|limits| limits.module_atoms = 100_000),
            ..case(
                Rule::ModuleFunctions,
                "65,536 of two names",
                many().with(b"ImpT", table(&imports)),
            )
        },
        case(Rule::ModuleAdded, "10,001 integers", with(&numbers)),
        case(Rule::ModuleAdded, "10,001 sets of keys", with(&maps)),
        Case {
            limits: limits(|limits| limits.module_memory = 10_000_000),
            ..case(Rule::ModuleMemory, "400,000 words of the stack", with(&stack))
        },
    ]
}
