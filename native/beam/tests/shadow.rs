//! Copies of modules under other names.

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod support;

use std::io::{Read, Write};

use hot_patch_beam::Reading;
use hot_patch_beam::shadow::{self, Naming, Shadow};
use hot_patch_beam::{Export, Import, Module};
use support::beam::{
    AtomFormat, Beam, MAKE_FUN, atom_chunk, code, function, literals, minimal, minimal_code,
    one_function, raw_code, table, words,
};
use support::random::Random;
use support::reading_of;

const FORMATS: [AtomFormat; 3] = [AtomFormat::Latin1, AtomFormat::Utf8, AtomFormat::Long];

/// No lines.
const LINE: [u8; 20] = [0; 20];
const PLAIN: Naming<'_> = Naming { suffix: "$2", helper: None, closed: false };

fn named(suffix: &str) -> Naming<'_> {
    Naming { suffix, helper: None, closed: false }
}

fn make(beam: &Beam) -> Result<Shadow, String> {
    make_from(&beam.bytes())
}

fn make_from(bytes: &[u8]) -> Result<Shadow, String> {
    let mut shadows = shadow::make(&[bytes], &PLAIN);
    assert_eq!(shadows.len(), 1);
    shadows.remove(0).map_err(|reason| reason.to_string())
}

/// What the reader says of a shadow.
fn module(shadow: &Shadow) -> Box<Module> {
    match reading_of(&format!("{}.beam", shadow.name), &shadow.bytes) {
        Reading::Module(module) => module,
        other => panic!("{other:?}"),
    }
}

fn chunk(shadow: &Shadow, id: &[u8; 4]) -> Option<Vec<u8>> {
    let mut rest = &shadow.bytes[12..];
    while !rest.is_empty() {
        let size = u32::from_be_bytes(rest[4..8].try_into().unwrap()) as usize;
        if &rest[..4] == id {
            return Some(rest[8..8 + size].to_vec());
        }
        rest = &rest[8 + size.next_multiple_of(4)..];
    }
    None
}

/// The module `m`: a function of its name that has to do with it in every way code can, calls of
/// itself and of `n`, and the fun `m:m/1` as a literal.
fn selfish(format: AtomFormat) -> Beam {
    let body = [
        &[59, 0x03, 0x15, 0x17, 0x40][..], // select_val x0, label 1, of 4:
        &[0x12, 0x25, 0x22, 0x35],         // m to label 2, f to label 3
        &[1, 0x30, 64, 0x12, 0x13],        // label 3; move m to x1
        &[64, 0x0a, 0x01, 0x03],           // move m, in two bytes, to x0
        &[64, 0x02, 0x03, 64, 0x47, 0x10, 0x03], // move [] to x0; move literal 1 to x0
        &[7, 0x10, 0x00, 19],              // call_ext 1 m:m/1; return
    ]
    .concat();
    let functions = [function(1, 1, 1, &body), function(4, 3, 0, &[&MAKE_FUN[..], &[19]].concat())];
    let names = ["m", "f", "module_info", "n", "erlang", "+"];
    let (id, atoms) = atom_chunk(format, &names);
    minimal(AtomFormat::Utf8)
        .without(b"AtU8")
        .without(b"LocT")
        .with(&id, atoms)
        .with(b"Code", code(180, 6, &functions))
        .with(b"ImpT", table(&[[1, 1, 1], [4, 2, 1], [5, 6, 2], [4, 1, 1]]))
        .with(b"ExpT", table(&[[1, 1, 2], [3, 0, 5]]))
        .with(b"FunT", words(&[1, 1, 1, 2, 0, 1, 7]))
        .with(b"LitT", [&[0; 4], &literals(&[b"\x83j", b"\x83j"])[..]].concat())
        .with(b"Line", LINE.to_vec())
        .with(b"Dbgi", vec![4])
}

fn replaced(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = bytes.windows(old.len()).position(|window| window == old).expect("it is there");
    [&bytes[..at], new, &bytes[at + old.len()..]].concat()
}

#[test]
fn tables_in_every_atom_format() {
    for format in FORMATS {
        let other = minimal(AtomFormat::Utf8);
        let other = other.with(b"AtU8", atom_chunk(AtomFormat::Utf8, &["n", "f", "g", "h", "i"]).1);
        let shadows = shadow::make(&[&selfish(format).bytes(), &other.bytes()], &PLAIN);
        let shadow = shadows[0].as_ref().unwrap();
        assert_eq!(shadow.name, "m$2");
        let module = module(shadow);
        let exports: Vec<Export<'_>> = module.exports().collect();
        let info = Export { function: "module_info", arity: 0 };
        assert_eq!(exports, [Export { function: "m", arity: 1 }, info]);
        let imports: Vec<Import<'_>> = module.imports().collect();
        let import = |module, function, arity| Import { module, function, arity };
        let expected = [
            import("m$2", "m", 1),
            import("n$2", "f", 1),
            import("erlang", "+", 2),
            import("n$2", "m", 1),
        ];
        assert_eq!(imports, expected);
        assert_eq!(chunk(shadow, b"FunT"), Some(words(&[1, 7, 1, 2, 0, 1, 7])));
        assert_eq!(chunk(shadow, b"Line"), Some(LINE.to_vec()));
        let long = matches!(format, AtomFormat::Long);
        let count = if long { -8_i32 } else { 8 };
        assert_eq!(chunk(shadow, b"AtU8").unwrap()[..4], count.to_be_bytes());
        for dropped in [b"Atom", b"Attr", b"CInf", b"LocT", b"Dbgi"] {
            assert_eq!(chunk(shadow, dropped), None);
        }
    }
}

#[test]
fn the_name_is_data_everywhere_but_where_functions_begin() {
    let old = selfish(AtomFormat::Utf8);
    let new = make(&old).unwrap();
    let expected = replaced(old.chunk(b"Code"), &[2, 0x12, 0x12], &[2, 0x12, 0x72]);
    let expected = replaced(&expected, &[0x12, 0x25], &[0x72, 0x25]);
    let expected = replaced(&expected, &[64, 0x12, 0x13], &[64, 0x72, 0x13]);
    let expected = replaced(&expected, &[0x0a, 0x01], &[0x72]);
    assert_eq!(chunk(&new, b"Code"), Some(expected));
}

fn local_name(operand: &[u8]) -> Vec<u8> {
    [&[2, 0x12][..], operand, &[0x10]].concat()
}

#[test]
fn far_places_take_more_bytes() {
    for (count, operand) in [(15, &[0x0a, 16][..]), (2047, &[0x1a, 0x08, 0x00][..])] {
        let names: Vec<String> = (0..count).map(|n| format!("a{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let beam = minimal(AtomFormat::Utf8)
            .with(b"AtU8", atom_chunk(AtomFormat::Utf8, &names).1)
            .with(b"Code", minimal_code(&[64, 0x12, 0x13]));
        let moved = [&[64][..], operand, &[0x13]].concat();
        // The local function is named as the module, which is now its old name.
        let local = |code: Vec<u8>| replaced(&code, &[2, 0x12, 0x12, 0x10], &local_name(operand));
        let expected = local(minimal_code(&moved));
        assert_eq!(chunk(&make(&beam).unwrap(), b"Code"), Some(expected));
    }
}

fn packed(table: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(
        words(&[table.len() as u32]),
        flate2::Compression::default(),
    );
    encoder.write_all(table).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn external_funs_lead_to_the_shadow() {
    let own = b"\x83h\x02qw\x01mw\x01fa\x01w\x01m";
    let other = b"\x83qw\x01nw\x01fa\x01";
    let old = literals(&[b"\x83j", own, other]);
    let new = literals(&[b"\x83j", b"\x83h\x02qw\x03m$2w\x01fa\x01w\x01m", other]);
    let beam = one_function(&[]);
    assert!(!make(&beam).unwrap().lambdas);

    let raw = make(&beam.clone().with(b"LitT", [&[0; 4], &old[..]].concat())).unwrap();
    assert_eq!(chunk(&raw, b"LitT"), Some([&[0; 4], &new[..]].concat()));
    assert!(raw.lambdas);

    let zlib = make(&beam.clone().with(b"LitT", packed(&old))).unwrap();
    let chunk_of = chunk(&zlib, b"LitT").unwrap();
    assert_eq!(chunk_of[..4], words(&[new.len() as u32]));
    let mut table = Vec::new();
    flate2::read::ZlibDecoder::new(&chunk_of[4..]).read_to_end(&mut table).unwrap();
    assert_eq!(table, new);
    assert!(zlib.lambdas);

    let none = packed(&literals(&[b"\x83w\x01m", other]));
    let none = make(&beam.with(b"LitT", none.clone())).map(|new| (chunk(&new, b"LitT"), none));
    assert!(none.is_ok_and(|(new, old)| new == Some(old)));
}

#[test]
fn tells_of_local_funs() {
    assert!(make(&minimal(AtomFormat::Utf8)).unwrap().lambdas);
    let without = one_function(&[]);
    assert!(!make(&without).unwrap().lambdas);
    assert!(!make(&without.with(b"FunT", words(&[0]))).unwrap().lambdas);
}

#[test]
fn a_compressed_module_comes_out_uncompressed() {
    let bytes = minimal(AtomFormat::Utf8).bytes();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&bytes).unwrap();
    assert_eq!(make_from(&encoder.finish().unwrap()), make_from(&bytes));
    // It claims to unpack to more than a patch may.
    let mut large = vec![0; 200_000];
    large[..2].copy_from_slice(&[0x1f, 0x8b]);
    large.extend(200_000_000_u32.to_le_bytes());
    assert!(make_from(&large).unwrap_err().contains("more bytes"));
}

#[test]
fn what_has_no_shadow() {
    let good = || minimal(AtomFormat::Utf8);
    let cases = [
        (good().with(b"Recs", words(&[0, 0, 0])), "native records"),
        (good().with(b"Code", minimal_code(&[255])), "(byte 8, opcode 255, rule code_unknown)"),
        (good().with(b"Code", minimal_code(&[64, 0x62, 0x03])), "rule code_atom"),
        (good().with(b"ImpT", table(&[[6, 1, 1]])), "an atom that does not exist"),
        (good().with(b"FunT", words(&[1, 2])), "\"FunT\" is malformed"),
        (good().with(b"ExpT", words(&[0, 2])), "\"ExpT\" is malformed"),
        (good().with(b"LitT", words(&[u32::MAX])), "rule literal_size"),
        (good().without(b"ImpT"), "\"ImpT\" is missing"),
        (Beam(Vec::new()), "\"AtU8\" is missing"),
    ];
    for (beam, expected) in cases {
        let reason = make(&beam).unwrap_err();
        assert!(reason.contains(expected), "{reason:?} does not say {expected:?}");
        assert!(reason.ends_with('.'), "{reason}");
    }
}

#[test]
fn names_that_cannot_be() {
    let good = minimal(AtomFormat::Utf8).bytes();
    let reason =
        |suffix: &str| shadow::make(&[&good], &named(suffix))[0].clone().unwrap_err().to_string();
    assert!(reason("").contains("is taken"));
    assert!(reason(&"a".repeat(255)).contains("is too long"));
    assert!(shadow::make(&[&good], &named(&"a".repeat(254)))[0].is_ok());
    // 255 characters, more bytes: only the later format has room for them.
    let wide = "ü".repeat(254);
    assert!(reason(&wide).contains("is too long"));
    assert!(shadow::make(&[&minimal(AtomFormat::Long).bytes()], &named(&wide))[0].is_ok());
    let (_, atoms) = atom_chunk(AtomFormat::Utf8, &["m$2", "f", "g", "h", "i"]);
    let other = minimal(AtomFormat::Utf8).with(b"AtU8", atoms).bytes();
    let shadows = shadow::make(&[&good, &other], &PLAIN);
    assert!(shadows[0].clone().unwrap_err().to_string().contains("\"m$2\" is taken"));
    assert_eq!(shadows[1].as_ref().unwrap().name, "m$2$2");
}

#[test]
fn neither_cuts_nor_mutations_panic() {
    let mut random = Random(7);
    let funs = literals(&[b"\x83j", b"\x83h\x02qw\x01mw\x01fa\x01w\x01m"]);
    for format in FORMATS {
        for literals in [[&[0; 4], &funs[..]].concat(), packed(&funs)] {
            let bytes = selfish(format).with(b"LitT", literals).bytes();
            assert!(make_from(&bytes).is_ok());
            for size in 0..bytes.len() {
                assert!(make_from(&bytes[..size]).is_err());
                let mut resized = bytes[..size].to_vec();
                if let Some(claim) = resized.get_mut(4..8) {
                    claim.copy_from_slice(&(size as u32).wrapping_sub(8).to_be_bytes());
                }
                let _ = make_from(&resized);
            }
            for _ in 0..10_000 {
                let _ = make_from(&random.mutate(&bytes));
            }
        }
    }
}

/// The module `m`: `f` is `Module:Function(X)`, once with the stack and once as the last call, and
/// calls `Elixir.Kernel:struct/2` and `n:struct/2`.
fn calling_by_name(format: AtomFormat) -> Beam {
    let instructions = [
        &[1, 0x10, 2, 0x12, 0x22, 0x30, 1, 0x20][..], // label 1; func_info m f 3; label 2
        &[112, 0x10],                                 // apply 1
        &[7, 0x20, 0x00, 7, 0x20, 0x10],              // call_ext 2 of both
        &[112, 0x20],                                 // apply 2
        &[113, 0x10, 0x40, 3],                        // apply_last 1, 4 words
    ]
    .concat();
    let names = ["m", "f", "Elixir.Kernel", "struct", "n"];
    let mut beam = minimal(format)
        .without(b"FunT")
        .without(b"LocT")
        .with(b"Code", raw_code(180, 3, 1, &instructions))
        .with(b"ExpT", table(&[[2, 3, 2]]))
        .with(b"ImpT", table(&[[3, 4, 2], [5, 4, 2]]));
    beam.0[0] = atom_chunk(format, &names);
    beam
}

#[test]
fn calls_by_name_go_to_the_helper() {
    for format in FORMATS {
        let file = calling_by_name(format).bytes();
        let plain = shadow::make(&[&file], &PLAIN).remove(0).unwrap();
        assert!(!plain.by_name);
        assert!(chunk(&plain, b"Code").unwrap().windows(2).any(|two| two == [112, 0x10]));

        let naming = Naming { suffix: "$2", helper: Some("helper"), closed: false };
        let shadow = shadow::make(&[&file], &naming).remove(0).unwrap();
        assert!(shadow.by_name);
        let module = module(&shadow);
        let imports: Vec<(&str, &str, u8)> = module
            .imports()
            .map(|Import { module, function, arity }| (module, function, arity))
            .collect();
        let expected = [
            ("helper", "struct", 2),
            ("n", "struct", 2),
            ("helper", "call", 3),
            ("helper", "call", 4),
        ];
        assert_eq!(imports, expected);
        let instructions = [
            &[1, 0x10, 2, 0x12, 0x22, 0x30, 1, 0x20][..],
            &[7, 0x30, 0x20], // call_ext 3, import 2
            &[7, 0x20, 0x00, 7, 0x20, 0x10],
            &[7, 0x40, 0x30],          // call_ext 4, import 3
            &[8, 0x30, 0x20, 0x40, 3], // call_ext_last 3, import 2, 4 words
        ];
        assert_eq!(chunk(&shadow, b"Code").unwrap()[20..], instructions.concat());
    }
}

#[test]
fn a_module_that_calls_nothing_by_name_has_no_helper() {
    let naming = Naming { suffix: "$2", helper: Some("helper"), closed: false };
    let file = minimal(AtomFormat::Utf8).bytes();
    let shadow = shadow::make(&[&file], &naming).remove(0).unwrap();
    assert!(!shadow.by_name);
    let plain = shadow::make(&[&file], &PLAIN).remove(0).unwrap();
    assert_eq!(shadow, plain);
}

#[test]
fn a_call_by_name_with_very_many_arguments_is_refused() {
    let naming = Naming { suffix: "$2", helper: Some("helper"), closed: false };
    let code = raw_code(180, 3, 1, &[1, 0x10, 2, 0x12, 0x22, 0x30, 1, 0x20, 112, 0x08, 33, 19, 3]);
    let file = calling_by_name(AtomFormat::Utf8).with(b"Code", code).bytes();
    let reason = shadow::make(&[&file], &naming).remove(0).unwrap_err().to_string();
    assert!(reason.contains("more than 32 arguments"), "{reason}");
}

const CLOSED: Naming<'_> = Naming { suffix: "$2", helper: Some("gate"), closed: true };

/// The module `m`, atoms from 1: m f ets insert erlang error + n.
fn leading_out(format: AtomFormat, instructions: &[u8], functions: u32) -> Beam {
    let names = ["m", "f", "ets", "insert", "erlang", "error", "+", "halt"];
    let mut beam = minimal(format)
        .without(b"FunT")
        .without(b"LocT")
        .with(b"Code", raw_code(180, if functions == 1 { 3 } else { 7 }, functions, instructions))
        .with(b"ExpT", table(&[[2, 3, 2]]))
        .with(b"ImpT", table(&[[3, 4, 2], [5, 6, 1], [1, 2, 3], [5, 7, 2], [5, 8, 1]]));
    beam.0[0] = atom_chunk(format, &names);
    beam
}

const BEGIN: &[u8] = &[1, 0x10, 2, 0x12, 0x22, 0x30, 1, 0x20]; // label 1; func_info m f 3; label 2
const END: &[u8] = &[19, 3];

#[test]
fn all_that_leads_out_of_a_closed_set_goes_to_the_gate() {
    for format in FORMATS {
        let instructions = [
            BEGIN,
            &[7, 0x20, 0x00],                           // call_ext 2 ets:insert/2
            &[78, 0x20, 0x00],                          // call_ext_only
            &[8, 0x20, 0x00, 0x40],                     // call_ext_last, 4 words
            &[7, 0x10, 0x10],                           // call_ext 1 erlang:error/1
            &[7, 0x30, 0x20],                           // call_ext 3 m:f/3
            &[20],                                      // send
            &[75, 0x10],                                // call_fun 1
            &[178, 0x22, 0x10, 0x04],                   // call_fun2 f 1 y0
            &[112, 0x10],                               // apply 1
            &[125, 0x05, 0x20, 0x30, 0x03, 0x13, 0x03], // gc_bif2 + x0 x1 x0
            END,
        ];
        let file = leading_out(format, &instructions.concat(), 1).bytes();
        let shadow = shadow::make(&[&file], &CLOSED).remove(0).unwrap();
        let module = module(&shadow);
        let imports: Vec<(&str, &str, u8)> = module
            .imports()
            .map(|Import { module, function, arity }| (module, function, arity))
            .collect();
        let expected = [
            ("ets", "insert", 2),
            ("erlang", "error", 1),
            ("m$2", "f", 3),
            ("erlang", "+", 2),
            ("erlang", "halt", 1),
            ("gate", "call", 4),
            ("gate", "send", 2),
            ("gate", "call_fun", 2),
            ("gate", "call", 3),
        ];
        assert_eq!(imports, expected);
        let named = &[64, 0x32, 0x23, 64, 0x42, 0x33][..]; // move ets x2; move insert x3
        let code = [
            BEGIN,
            named,
            &[7, 0x40, 0x50],
            named,
            &[78, 0x40, 0x50],
            named,
            &[8, 0x40, 0x50, 0x40],
            &[7, 0x10, 0x10],
            &[7, 0x30, 0x20],
            &[7, 0x20, 0x60],
            &[7, 0x20, 0x70],
            &[64, 0x04, 0x13, 7, 0x20, 0x70], // move y0 x1
            &[7, 0x30, 0x80],
            &[125, 0x05, 0x20, 0x30, 0x03, 0x13, 0x03],
            END,
        ];
        assert_eq!(chunk(&shadow, b"Code").unwrap()[20..], code.concat());
    }
}

/// Another function, which does not receive.
const ANOTHER: &[u8] = &[1, 0x50, 2, 0x12, 0x22, 0x00, 1, 0x60, 19, 3];

/// The code of the copy of a function that receives, beside another.
fn receiving(instructions: &[&[u8]]) -> Vec<u8> {
    let code = [BEGIN, &instructions.concat(), ANOTHER].concat();
    let file = leading_out(AtomFormat::Utf8, &code, 2).bytes();
    let shadow = shadow::make(&[&file], &CLOSED).remove(0).unwrap();
    let gate = module(&shadow).imports().last().map(|import| import.function.to_owned());
    assert_eq!(gate.as_deref(), Some("receives"));
    chunk(&shadow, b"Code").unwrap()[20..].to_vec()
}

#[test]
fn what_receives_is_left_where_it_stands_with_what_the_function_has_of_the_stack() {
    let first = [48, 0x55, 0x03]; // is_atom label 5 x0
    let receives = receiving(&[
        &first[..],
        &[12, 0x20, 0x30, 136, 0x10, 0x10], // allocate 2 3; trim 1 1
        &[1, 0x30, 23, 0x45, 0x03, 21],     // label 3; loop_rec label 4 x0; remove_message
        &[18, 0x10, 19, 1, 0x40, 25, 0x35], // deallocate 1; return; label 4; wait label 3
    ]);
    let left = [8, 0x00, 0x50, 0x10]; // call_ext_last 0 gate:receives/0, 1 word
    let code = [
        BEGIN,
        &first,
        &[12, 0x20, 0x30, 136, 0x10, 0x10],
        &[1, 0x30],
        &left,
        &left,
        &[18, 0x10, 19, 1, 0x40],
        &left,
        ANOTHER,
    ];
    assert_eq!(receives, code.concat());
}

#[test]
fn a_function_that_catches_or_of_which_not_all_is_known_is_left_where_it_begins() {
    let left = [78, 0x00, 0x50]; // call_ext_only 0 gate:receives/0
    let waits = [1, 0x30, 25, 0x35]; // label 3; wait label 3
    let torn = [48, 0x35, 0x03, 12, 0x10, 0x30]; // is_atom label 3 x0; allocate 1 3
    for before in [&[12, 0x10, 0x30, 62, 0x04, 0x35][..], &torn, &[19]] {
        let code = [BEGIN, &left, before, &waits, ANOTHER].concat();
        assert_eq!(receiving(&[before, &waits]), code, "{before:?}");
    }
    assert_eq!(receiving(&[&waits]), [BEGIN, &[1, 0x30], &left, ANOTHER].concat());
}

#[test]
fn an_instruction_for_what_is_no_guard_has_no_place_in_a_closed_set() {
    let halts = [BEGIN, &[10, 0x05, 0x40, 0x03, 0x03], END].concat(); // bif1 halt x0 x0
    let file = leading_out(AtomFormat::Utf8, &halts, 1).bytes();
    let reason = shadow::make(&[&file], &CLOSED).remove(0).unwrap_err().to_string();
    assert!(reason.contains("erlang:halt/1"), "{reason}");
    assert!(shadow::make(&[&file], &PLAIN).remove(0).is_ok());
}

#[test]
fn a_header_says_what_has_come_in() {
    let code = raw_code(20, 3, 1, &[BEGIN, &[20, 19, 3]].concat());
    let file = leading_out(AtomFormat::Utf8, &[], 1).with(b"Code", code).bytes();
    let shadow = shadow::make(&[&file], &CLOSED).remove(0).unwrap();
    assert_eq!(chunk(&shadow, b"Code").unwrap()[8..12], 78_u32.to_be_bytes());
    module(&shadow);
}
