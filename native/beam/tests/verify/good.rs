//! What must pass: instructions at their bounds, and what only some releases have.

use hot_patch_beam::LoadLimits;
use hot_patch_beam::verify;

use crate::module::{
    LABELS, NIL, a, code_of, fr, functions, i, l, limits, list, module, need, op, q, tx, types, u,
    with, x, y,
};
use crate::support::beam::{Beam, code, function, raw_literals, words};

fn passes(what: &str, beam: &Beam) {
    let verdict = verify::judge(&beam.bytes(), &LoadLimits::default());
    assert!(verdict.is_ok(), "{what}: {}", verdict.unwrap_err());
}

#[test]
fn instructions_at_their_bounds() {
    let tuple = (1 << 24) - 1;
    let good = [
        op(1, &[u(9)]),
        op(4, &[u(1), l(2)]),
        op(5, &[u(0), l(6), u(1023)]),
        op(7, &[u(1), u(1)]),
        op(10, &[l(1), u(1), x(0), x(1023)]),
        op(12, &[u(1023), u(1023)]),
        op(16, &[need(&[(0, 1), (1, 1), (2, 1)]), u(0)]),
        op(58, &[l(1), x(0), u(tuple)]),
        op(59, &[x(0), l(1), list(4), i(1), l(1), q(1), l(2)]),
        op(59, &[x(0), l(1), list(4), a(1), l(1), a(2), l(9)]),
        op(59, &[x(0), l(1), list(2), q(1), l(1)]),
        op(64, &[tx(0, 1), y(1023)]),
        op(64, &[a(NIL), x(0)]),
        // -1 and 1 in nine bytes, as they must be; 2^59, which is no small integer.
        [&[64, 0xf9, 0x00, 0xff, 0x7f][..], &[0; 7], &x(0)].concat(),
        [&[64, 0xf9, 0x00, 0x00, 0x80][..], &[0; 7], &x(0)].concat(),
        op(64, &[i(1 << 59), x(0)]),
        op(92, &[u(3), u(0)]),
        op(96, &[fr(1023), x(0)]),
        op(121, &[l(1), x(0), u((1 << 31) - 1)]),
        // A number of bits that 63 bits do not hold never matches.
        [&[121][..], &l(1), &x(0), &[0xf8, 0x00], &[1; 9]].concat(),
        op(131, &[l(1), x(0), u(256)]),
        op(132, &[l(1), x(0), u(24), u(0)]),
        op(154, &[l(0), q(0), x(0), u(0), list(2), x(0), x(0)]),
        op(154, &[l(0), q(0), x(0), u(0), list(4), a(1), x(0), i(1), x(0)]),
        op(157, &[l(1), x(0), list(1), x(0)]),
        op(164, &[x(0), list(0)]),
        op(171, &[u(0), x(0), list(0)]),
        op(171, &[u(1), x(0), list(1), i(1)]),
        op(172, &[list(2), y(0), y(1)]),
        op(177, &[l(0), u(0), u(1000), u(1), x(0), list(6), a(8), u(0), u(8), a(NIL), u(0), i(3)]),
        op(178, &[a(2), u(255), x(0)]),
        op(181, &[a(2), u(3), x(0), x(0), list(4), u(1), x(0), u(3), x(1)]),
        op(182, &[l(1), x(0), list(6), a(12), u(0), a(NIL), u(8), u(1), x(0)]),
        op(182, &[l(1), x(0), list(4), a(11), a(NIL), u(64), u(1)]),
        op(183, &[u(1), u(1)]),
        op(188, &[l(1), x(0), list(2), a(1), x(0)]),
        op(189, &[l(0), a(2), a(NIL), x(0), u(0), list(0)]),
    ];
    for instruction in &good {
        // The first of them defines the label.
        let first = if instruction[0] == 1 { vec![] } else { op(1, &[u(9)]) };
        let code = code_of(191, 10, &[&first, instruction]);
        passes(verify::instruction(instruction[0]).unwrap(), &module().with(b"Code", code));
    }
}

#[test]
fn labels_that_are_left_out() {
    let code = code_of(178, 12, &[&op(1, &[u(11)]), &op(61, &[l(11)])]);
    passes("a gap that nobody names", &module().with(b"Code", code));
}

#[test]
fn what_is_not_there_or_of_another_version() {
    passes("all", &module());
    // Without funs no instruction makes one.
    let mut functions = functions(&[]);
    functions[2] = function(5, 1, 0, &[153, 0x10, 19]);
    functions[3] = function(7, 14, 1, &[19]);
    let unmade = module().with(b"Code", code(178, LABELS, &functions));
    passes("without funs", &unmade.without(b"FunT"));
    for id in [b"LocT", b"LitT", b"Line", b"Type", b"Meta"] {
        passes("without a chunk", &module().without(id));
        if id != b"LocT" {
            passes("with an empty chunk", &module().with(id, Vec::new()));
        }
    }
    let typed = |version| module().with(b"Type", types(version, &[0x0fff, 1 << 5]));
    passes("types of OTP 27", &typed(3));
    passes("types of a release to come", &typed(5));
    passes("lines of a release to come", &module().with(b"Line", words(&[1, 9, 9])));
    passes("debug information of a release to come", &module().with(b"DbgB", words(&[2, 9])));
}

#[test]
fn types_of_otp_25_have_bounds_that_contradict_each_other() {
    let mut chunk = words(&[1, 2]);
    for (kind, low, high) in [(0x1fff_u16, 0_i64, -1_i64), (1 << 6, 1, 2)] {
        chunk.extend(kind.to_be_bytes());
        chunk.extend(low.to_be_bytes());
        chunk.extend(high.to_be_bytes());
    }
    passes("two types", &module().with(b"Type", chunk));
}

#[test]
fn tables_that_are_written_as_instructions() {
    let debug = [
        words(&[1, 2, 8]),
        op(4, &[u(0), a(NIL)]),
        op(4, &[u(1), list(2), q(0), x(0)]),
        op(4, &[u(0), u(7)]),
        op(4, &[u(2), list(6), u(2), q(0), a(2), u(256), a(1), q(0)]),
    ];
    let instruction = op(184, &[a(2), u(1), u(2), u(0)]);
    passes("debug", &with(&[&instruction]).with(b"DbgB", debug.concat()));
    let records = [
        words(&[0, 2, 3]),
        op(5, &[a(1), a(2), list(4), a(1), u(0), a(2), q(1)]),
        op(5, &[a(2), a(2), list(2), a(1), i(7)]),
    ];
    passes("records", &module().with(b"Recs", records.concat()));
}

#[test]
fn the_load_of_a_module() {
    let load = |beam: Beam| verify::judge(&beam.bytes(), &LoadLimits::default()).unwrap();
    // The atom `a` of the literal and fifteen of the table; two functions of its own, of which one
    // is imported too, and one of Erlang's; three words of the tuple.
    let plain = load(module());
    assert_eq!((plain.atoms, plain.functions, plain.literal_words), (16, 3, 3));
    let same = load(module().with(b"Attr", b"\x83l\0\0\0\x01h\x02w\x03vsnk\0\x01\x01j".to_vec()));
    assert_eq!(same.atoms, 17);
    let external =
        load(module().with(b"LitT", raw_literals(&[b"\x83qw\x01mw\x01fa\x03", b"\x83j"])));
    assert_eq!((external.atoms, external.functions), (15, 4));
    assert!(plain.memory > 1_000 && plain.memory < 10_000, "{}", plain.memory);
    let binary = [&b"\x83m\0\x10\0\0"[..], &vec![0; 1 << 20]].concat();
    let large = load(module().with(b"LitT", raw_literals(&[&binary, b"\x83j"])));
    assert!(large.memory > 1 << 20, "{}", large.memory);
    let few = limits(|limits| limits.module_atoms = 16);
    assert!(verify::judge(&module().bytes(), &few).is_ok());
    let fewer = limits(|limits| limits.module_atoms = 15);
    assert!(verify::judge(&module().bytes(), &fewer).is_err());
}
