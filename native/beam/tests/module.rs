//! BEAM files: what is read of good ones, and what is said of damaged ones.

#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod support;

use std::io::Write;

use hot_patch_beam::Reading;
use hot_patch_beam::etf::{self, Limits, Term};
use hot_patch_beam::{Export, Import, Module};
use support::beam::{
    AtomFormat, Beam, atom_chunk, minimal, minimal_code, one_function, table, words,
};
use support::random::Random;
use support::reading_of;

const FORMATS: [AtomFormat; 3] = [AtomFormat::Latin1, AtomFormat::Utf8, AtomFormat::Long];

fn module(beam: &Beam) -> Box<Module> {
    match reading_of("ebin/m.beam", &beam.bytes()) {
        Reading::Module(module) => module,
        other => panic!("{other:?}"),
    }
}

fn damage(beam: &Beam) -> String {
    damage_of(&beam.bytes())
}

fn damage_of(bytes: &[u8]) -> String {
    match reading_of("ebin/m.beam", bytes) {
        Reading::Damaged(damage) => damage.to_string(),
        other => panic!("{other:?}"),
    }
}

fn good() -> Beam {
    minimal(AtomFormat::Utf8)
}

#[test]
fn tables_in_every_atom_format() {
    for format in FORMATS {
        let module = module(&minimal(format));
        assert_eq!(module.name(), "m");
        let exports: Vec<Export<'_>> = module.exports().collect();
        let info = Export { function: "module_info", arity: 0 };
        assert_eq!(exports, [Export { function: "f", arity: 1 }, info]);
        let imports: Vec<Import<'_>> = module.imports().collect();
        assert_eq!(imports, [Import { module: "erlang", function: "+", arity: 2 }]);
        assert_eq!(module.behaviours, ["erlang"]);
        assert_eq!(module.compiler.as_deref(), Some("8.2"));
        let needs = if matches!(format, AtomFormat::Long) { 28 } else { 25 };
        assert_eq!(module.needs_otp, Some(needs));
        assert!(!module.on_load && !module.load_nif && !module.compressed);
        assert_eq!(module.chunks.len(), 9);
        assert_eq!((module.chunks[3].id, module.chunks[3].size), (*b"ImpT", 16));
    }
}

#[test]
fn attributes_are_given_back_as_terms() {
    let module = module(&good());
    assert_eq!(module.attributes, good().chunk(b"Attr"));
    assert_eq!(module.vsn.as_deref(), Some(&b"\x83k\0\x01\x01"[..]));
    let limits = Limits { depth: 10, terms: 100 };
    assert_eq!(etf::decode(module.vsn.as_deref().unwrap(), limits), Ok(Term::Bytes(&[1])));
}

#[test]
fn a_module_without_attributes() {
    let module = module(&good().without(b"Attr").without(b"CInf"));
    assert_eq!((module.vsn.as_ref(), module.compiler.as_ref()), (None, None));
    assert_eq!(module.attributes, b"\x83j");
}

#[test]
fn the_md5_covers_code_and_neither_attributes_nor_old_uniq() {
    let md5 = module(&good()).md5;
    let same = [
        good().with(b"Attr", b"\x83j".to_vec()),
        good().with(b"Line", words(&[0, 0, 0, 0, 0])),
        good().with(b"FunT", words(&[1, 1, 1, 6, 0, 1, 7])),
    ];
    assert!(same.iter().all(|beam| module(beam).md5 == md5));
    let different = [
        good().with(b"Code", minimal_code(&[20])),
        good().with(b"LitT", vec![0; 8]),
        good().with(b"Meta", b"\x83j".to_vec()),
    ];
    assert!(different.iter().all(|beam| module(beam).md5 != md5));
    let without_funs = one_function(&[]);
    let with_none = without_funs.clone().with(b"FunT", words(&[0]));
    assert_ne!(module(&without_funs).md5, module(&with_none).md5);
}

#[test]
fn what_runs_when_it_is_loaded() {
    assert!(module(&good().with(b"Code", minimal_code(&[149]))).on_load);
    let atoms = atom_chunk(AtomFormat::Utf8, &["m", "f", "module_info", "erlang", "load_nif"]);
    assert!(module(&good().with(b"AtU8", atoms.1)).load_nif);
}

#[test]
fn long_and_unusual_names() {
    let long = "ü".repeat(255);
    let names = ["m", "f", "module_info", &long, ""];
    for format in [AtomFormat::Latin1, AtomFormat::Long] {
        let (id, chunk) = atom_chunk(format, &names);
        let module = module(&good().without(b"AtU8").with(&id, chunk));
        let import = Import { module: &long, function: "", arity: 2 };
        assert_eq!(module.imports().next(), Some(import));
    }
    let too_long = "ü".repeat(256);
    let (_, chunk) = atom_chunk(AtomFormat::Long, &["m", "f", "module_info", &too_long, "+"]);
    assert!(damage(&good().with(b"AtU8", chunk)).contains("255 characters"));
}

#[test]
fn compressed_with_gzip() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&good().bytes()).unwrap();
    let packed = encoder.finish().unwrap();
    let Reading::Module(module) = reading_of("m.beam", &packed) else { panic!("it is a module") };
    assert!(module.compressed);
    assert_eq!(module.md5, self::module(&good()).md5);
    assert!(damage_of(&packed[..packed.len() - 9]).contains("gzip"));
    assert!(damage_of(&[&packed[..], &[0]].concat()).contains("gzip"));
    let mut wrong = packed.clone();
    wrong[20] ^= 1;
    assert!(damage_of(&wrong).contains("gzip"));
}

#[test]
fn damage_is_told_precisely() {
    let beam = good();
    let bytes = beam.bytes();
    let two_tables = beam.clone().with(b"Atom", beam.chunk(b"AtU8").to_vec());
    let mut duplicate = beam.clone();
    duplicate.0.push((*b"Line", vec![1]));
    duplicate.0.push((*b"Line", vec![2]));
    let mut many = beam.clone();
    many.0.extend((0..300u32).map(|id| (id.to_be_bytes(), Vec::new())));
    let cases = [
        (damage_of(b"text"), "does not begin like a BEAM file"),
        (damage_of(&bytes[..bytes.len() - 4]), "cut off or was added to"),
        (damage_of(&[&bytes[..], b"...."].concat()), "cut off or was added to"),
        (damage(&duplicate), "\"Line\" is there twice"),
        (damage(&many), "more than 256 chunks"),
        (damage(&two_tables), "two atom tables"),
        (damage(&beam.clone().without(b"AtU8")), "\"AtU8\" is missing"),
        (damage(&beam.clone().without(b"Code")), "\"Code\" is missing"),
        (damage(&beam.clone().without(b"StrT")), "\"StrT\" is missing"),
        (damage(&beam.clone().without(b"ImpT")), "\"ImpT\" is missing"),
        (damage(&beam.clone().without(b"ExpT")), "\"ExpT\" is missing"),
        (damage(&beam.clone().with(b"AtU8", words(&[0]))), "no atoms"),
        (damage(&beam.clone().with(b"AtU8", words(&[u32::MAX >> 1]))), "cut off"),
        (damage(&beam.clone().with(b"AtU8", words(&[1 << 31]))), "cut off"),
        (damage(&beam.clone().with(b"AtU8", b"\0\0\0\x01\x01\xff".to_vec())), "not UTF-8"),
        (damage(&beam.clone().with(b"AtU8", b"\0\0\0\x01\x01mm".to_vec())), "follow its last"),
        (damage(&beam.clone().with(b"ImpT", table(&[[4, 6, 2]]))), "atom that does not exist"),
        (damage(&beam.clone().with(b"ImpT", table(&[[0, 5, 2]]))), "atom that does not exist"),
        (damage(&beam.clone().with(b"ImpT", table(&[[4, 5, 256]]))), "255 arguments"),
        (damage(&beam.clone().with(b"ImpT", words(&[2, 4, 5, 2]))), "\"ImpT\" is malformed"),
        (damage(&beam.clone().with(b"ImpT", words(&[u32::MAX]))), "\"ImpT\" is malformed"),
        (damage(&beam.clone().with(b"ExpT", table(&[[6, 1, 2]]))), "atom that does not exist"),
        (damage(&beam.clone().with(b"LocT", table(&[[9, 1, 1]]))), "\"LocT\" is malformed"),
        (damage(&beam.clone().with(b"FunT", words(&[1, 2]))), "\"FunT\" is malformed"),
        (damage(&beam.clone().with(b"Code", words(&[16, 1, 180, 4, 1]))), "format is unknown"),
        (damage(&beam.clone().with(b"Code", words(&[99, 0, 180]))), "\"Code\" is malformed"),
        (damage(&beam.clone().with(b"Attr", b"\x83w\x01a".to_vec())), "list of named values"),
        (damage(&beam.clone().with(b"Attr", b"\x83P\0\0\0\0".to_vec())), "compressed"),
        (damage(&beam.with(b"Attr", b"\x83l\xff\xff\xff\xff".to_vec())), "cut off"),
    ];
    for (reason, expected) in cases {
        assert!(reason.contains(expected), "{reason:?} does not say {expected:?}");
        assert!(reason.ends_with('.'), "{reason}");
    }
}

#[test]
fn names_that_differ_from_the_file_are_named() {
    let Reading::Damaged(damage) = reading_of("ebin/other.beam", &good().bytes()) else { panic!() };
    let reason = damage.to_string();
    assert!(reason.contains("\"other.beam\"") && reason.contains("\"m.beam\""), "{reason}");
}

#[test]
fn a_cut_anywhere_is_damage() {
    for format in FORMATS {
        let bytes = minimal(format).bytes();
        for size in 0..bytes.len() {
            damage_of(&bytes[..size]);
            let mut resized = bytes[..size].to_vec();
            if let Some(claim) = resized.get_mut(4..8) {
                claim.copy_from_slice(&(size as u32).wrapping_sub(8).to_be_bytes());
            }
            // A file cut between two chunks may be whole without the last.
            let _ = reading_of("m.beam", &resized);
        }
    }
}

#[test]
fn no_mutation_panics() {
    let mut random = Random(1);
    for format in FORMATS {
        let bytes = minimal(format).bytes();
        for _ in 0..10_000 {
            let _ = reading_of("m.beam", &random.mutate(&bytes));
        }
    }
}
