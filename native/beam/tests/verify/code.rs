//! Code that breaks a rule.

use hot_patch_beam::LoaderRule as Rule;

use crate::module::{
    ATOMS, LABELS, NIL, a, code_of, fr, functions, i, l, list, module, need, op, q, tx, types, u,
    with, x, y,
};
use crate::support::beam::{AtomFormat, atom_chunk, code, words};
use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    [header(), shape(), labels(), operands(), numbers(), places(), lists(), bitstrings()]
        .into_iter()
        .flatten()
        .collect()
}

/// One instruction, or some, in a module that is right otherwise.
fn one(rule: Rule, what: &'static str, instructions: &[Vec<u8>]) -> Case {
    let instructions: Vec<&[u8]> = instructions.iter().map(Vec::as_slice).collect();
    case(rule, what, with(&instructions))
}

fn header() -> Vec<Case> {
    let head = |words_of: [u32; 3]| {
        let [max_opcode, labels, count] = words_of;
        let mut chunk = code(max_opcode, labels, &functions(&[]));
        chunk[16..20].copy_from_slice(&count.to_be_bytes());
        module().with(b"Code", chunk)
    };
    vec![
        case(Rule::CodeLabelCount, "2^31 - 1", head([178, i32::MAX as u32, 4])),
        case(Rule::CodeLabelCount, "negative", head([178, u32::MAX, 4])),
        case(Rule::CodeLabelCount, "0", head([178, 0, 4])),
        case(Rule::CodeLabelCount, "more than the code has room for", head([178, 60, 4])),
        case(Rule::CodeLabelCount, "one too few", head([178, LABELS - 1, 4])),
        case(Rule::CodeFunctionCount, "2^31", head([178, LABELS, 1 << 31])),
        case(Rule::CodeFunctionCount, "one too few", head([178, LABELS, 3])),
        case(Rule::CodeFunctionCount, "one too many", head([178, LABELS, 5])),
        case(Rule::CodeHighestOpcode, "below the highest", head([152, LABELS, 4])),
    ]
}

fn shape() -> Vec<Case> {
    let all = |functions: &[Vec<u8>]| module().with(b"Code", code(178, LABELS, functions));
    let changed = |place: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut functions = functions(&[]);
        change(&mut functions[place]);
        all(&functions)
    };
    let open = |chunk: &dyn Fn(&mut Vec<u8>)| {
        let mut code = code_of(178, LABELS, &[]);
        chunk(&mut code);
        module().with(b"Code", code)
    };
    vec![
        case(Rule::CodeFunction, "something before it", changed(0, &|f| f.insert(0, 19))),
        case(
            Rule::CodeFunction,
            "a line before it",
            changed(0, &|f| f.splice(..0, [153, 0]).fold((), |(), _| ())),
        ),
        case(Rule::CodeFunction, "two labels before it", {
            let mut functions = functions(&[]);
            functions.insert(0, vec![1, 0x90]);
            let mut code = code(178, LABELS + 1, &functions);
            code[16..20].copy_from_slice(&[0, 0, 0, 4]);
            module().with(b"Code", code)
        }),
        case(Rule::CodeFunction, "of another module", changed(1, &|f| f[3] = 0x22)),
        case(
            Rule::CodeFunction,
            "func_info where another begins",
            changed(1, &|f| {
                f.splice(8..8, [2, 0x12, 0x32, 0]).fold((), |(), _| ());
            }),
        ),
        case(Rule::CodeFunction, "its labels the other way round", {
            changed(3, &|f| (f[1], f[7]) = (0x80, 0x70))
        }),
        case(Rule::CodeFunction, "a label left out between them", {
            let mut functions = functions(&[]);
            functions[3][7] = 0x90;
            module().with(b"Code", code(178, LABELS + 1, &functions))
        }),
        case(Rule::CodeFunctionTwice, "by one atom", changed(3, &|f| f[4] = 0x22)),
        case(Rule::CodeFunctionTwice, "by two atoms of one name", {
            // The local function `lambda/1` is called `f` like the one that is exported.
            let names = ATOMS.map(|name| if name == "lambda" { "f" } else { name });
            module().with(b"AtU8", atom_chunk(AtomFormat::Utf8, &names).1)
        }),
        case(Rule::CodeEnd, "no end", open(&|code| code.truncate(code.len() - 1))),
        case(Rule::CodeEnd, "something behind it", open(&|code| code.push(3))),
        case(Rule::CodeEnd, "in the middle", with(&[&[3]])),
        case(Rule::CodeEnd, "behind a label", {
            let mut functions = functions(&[]);
            functions[3].truncate(8);
            all(&functions)
        }),
        case(Rule::CodeUnknown, "opcode 0", with(&[&[0]])),
        case(Rule::CodeUnknown, "opcode 192", with(&[&[192]])),
        one(Rule::CodeObsolete, "put_literal", &[op(128, &[u(0), x(0)])]),
        one(Rule::CodeOnLoad, "inside", &[vec![20], vec![149]]),
        case(Rule::CodeOnLoad, "twice", {
            let mut functions = functions(&[&[149]]);
            functions[1].insert(8, 149);
            all(&functions)
        }),
    ]
}

fn labels() -> Vec<Case> {
    let gap = |instruction: Vec<u8>| {
        // The label 9 is not there, the label 10 is.
        module().with(b"Code", code_of(178, 11, &[&op(1, &[u(10)]), &instruction]))
    };
    vec![
        one(Rule::CodeLabelTwice, "two of one function", &[op(1, &[u(2)])]),
        one(Rule::CodeLabelCount, "defined beyond the count", &[op(1, &[u(9)])]),
        one(Rule::CodeLabelCount, "the label 0", &[op(1, &[u(0)])]),
        one(Rule::CodeLabel, "beyond the count", &[op(61, &[l(9)])]),
        case(Rule::CodeLabel, "in a gap", gap(op(61, &[l(9)]))),
        case(
            Rule::CodeLabel,
            "in a gap, in a list",
            gap(op(59, &[x(0), l(1), list(2), i(1), l(9)])),
        ),
        one(Rule::CodeEntry, "not where a function begins", &[op(4, &[u(1), l(1)])]),
        one(Rule::CodeEntry, "another number of arguments", &[op(6, &[u(2), l(2)])]),
    ]
}

fn operands() -> Vec<Case> {
    let cut = |bytes: &[u8]| {
        let mut chunk = words(&[16, 0, 178, 2, 1]);
        chunk.extend(bytes);
        module().with(b"Code", chunk)
    };
    vec![
        case(Rule::CodeOperand, "cut off", cut(&[1, 0x10, 2, 0x12])),
        case(Rule::CodeOperand, "cut off in a number", cut(&[1, 0x18])),
        one(Rule::CodeOperand, "a character", &[vec![64, 0x16, 0x03]]),
        one(Rule::CodeOperand, "extended 0", &[vec![64, 0x07, 0x03]]),
        one(Rule::CodeOperand, "extended 6", &[vec![64, 0x67, 0x03]]),
        one(Rule::CodeOperand, "a size with a size", &[vec![64, 0xf9, 0xf8, 0xf8]]),
        one(
            Rule::CodeOperand,
            "a type of no register",
            &[[&[64, 0x57][..], &i(1), &u(0), &x(0)].concat()],
        ),
        one(Rule::CodeKind, "a number to be moved", &[op(64, &[u(1), x(0)])]),
        one(Rule::CodeKind, "a constant as a register", &[op(64, &[x(0), i(1)])]),
        one(Rule::CodeKind, "a register as a label", &[op(61, &[x(1)])]),
        one(Rule::CodeKind, "an exception where there is none", &[op(61, &[l(0)])]),
        one(Rule::CodeKind, "a list to be moved", &[op(64, &[list(0), x(0)])]),
        one(Rule::CodeKind, "no list", &[op(59, &[x(0), l(1), u(0)])]),
        one(Rule::CodeKind, "a name that is no atom", &[op(2, &[a(1), a(NIL), u(0)])]),
        one(
            Rule::CodeInteger,
            "nine bytes too many",
            &[[&[64, 0xf9, 0x00, 0, 0, 1][..], &[0; 6], &x(0)].concat()],
        ),
        one(
            Rule::CodeInteger,
            "a sign too many",
            &[[&[64, 0xf9, 0x00, 0xff, 0xff, 1][..], &[0; 6], &x(0)].concat()],
        ),
        one(Rule::CodeRegister, "x", &[op(64, &[i(1), x(1024)])]),
        one(Rule::CodeRegister, "y", &[op(64, &[y(1024), x(0)])]),
        one(Rule::CodeRegister, "of a float", &[op(96, &[x(0), fr(1024)])]),
        one(Rule::CodeRegister, "with a type", &[op(64, &[tx(1024, 0), x(0)])]),
        one(
            Rule::CodeRegister,
            "beyond 64 bits",
            &[[&[64, 0xfb, 0x00][..], &[1; 9], &x(0)].concat()],
        ),
    ]
}

fn numbers() -> Vec<Case> {
    let large = 1 << 24;
    vec![
        one(Rule::CodeNumber, "arguments of a fun", &[op(75, &[u(256)])]),
        one(Rule::CodeNumber, "arguments of a function", &[op(2, &[a(1), a(2), u(256)])]),
        one(Rule::CodeNumber, "words of the stack", &[op(12, &[u(1024), u(0)])]),
        one(Rule::CodeNumber, "zeroed words of the stack", &[op(14, &[u(1024), u(0)])]),
        one(Rule::CodeNumber, "live registers", &[op(12, &[u(0), u(1024)])]),
        one(Rule::CodeNumber, "words of the heap", &[op(16, &[u(large), u(0)])]),
        one(
            Rule::CodeNumber,
            "floats of the heap",
            &[op(16, &[need(&[(0, 1), (1, large / 2)]), u(0)])],
        ),
        one(Rule::CodeNumber, "size of a tuple", &[op(58, &[l(1), x(0), u(large)])]),
        one(Rule::CodeNumber, "place in a tuple", &[op(66, &[x(0), u(large), x(0)])]),
        one(Rule::CodeNumber, "no unit", &[op(131, &[l(1), x(0), u(0)])]),
        one(Rule::CodeNumber, "unit", &[op(131, &[l(1), x(0), u(257)])]),
        one(Rule::CodeNumber, "flags", &[op(139, &[l(1), x(0), u(0), u(32)])]),
        one(Rule::CodeNumber, "bits", &[op(121, &[l(1), x(0), u(1 << 31)])]),
        one(
            Rule::CodeNumber,
            "size of a bitstring",
            &[op(109, &[l(0), u(1 << 31), u(0), u(0), u(0), x(0)])],
        ),
        one(Rule::CodeList, "four kinds of need", &[op(16, &[need(&[(0, 1); 4]), u(0)])]),
        one(Rule::CodeList, "an unknown kind of need", &[op(16, &[need(&[(3, 1)]), u(0)])]),
    ]
}

fn places() -> Vec<Case> {
    let without = |id: &[u8; 4], instruction: Vec<u8>| with(&[&instruction]).without(id);
    vec![
        one(Rule::CodeAtom, "beyond the table", &[op(64, &[a(16), x(0)])]),
        one(Rule::CodeLiteral, "beyond the table", &[op(64, &[q(2), x(0)])]),
        case(Rule::CodeLiteral, "without a table", without(b"LitT", op(64, &[q(0), x(0)]))),
        one(Rule::CodeType, "beyond the table", &[op(64, &[tx(0, 2), x(0)])]),
        case(Rule::CodeType, "where all have one type", {
            with(&[&op(64, &[tx(0, 1), x(0)])]).with(b"Type", types(4, &[0x1fff]))
        }),
        one(Rule::CodeImport, "beyond the table", &[op(7, &[u(2), u(2)])]),
        one(Rule::CodeImport, "another number of arguments", &[op(7, &[u(1), u(0)])]),
        one(Rule::CodeImport, "a BIF of two", &[op(10, &[l(0), u(0), x(0), x(0)])]),
        one(Rule::CodeImport, "a BIF of none", &[op(9, &[u(0), x(0)])]),
        one(
            Rule::CodeImport,
            "a BIF of three",
            &[op(152, &[l(0), u(0), u(0), x(0), x(0), x(0), x(0)])],
        ),
        one(Rule::CodeFun, "beyond the table", &[op(103, &[u(2)])]),
        one(Rule::CodeFun, "beyond the table, with values", &[op(171, &[u(2), x(0), list(0)])]),
        one(Rule::CodeFun, "too few values", &[op(171, &[u(1), x(0), list(0)])]),
        one(Rule::CodeFun, "too many values", &[op(171, &[u(0), x(0), list(1), x(1)])]),
        one(Rule::CodeFun, "called", &[op(178, &[u(2), u(0), x(0)])]),
        one(Rule::CodeString, "beyond the end", &[op(132, &[l(1), x(0), u(16), u(2)])]),
        one(Rule::CodeString, "begun bits", &[op(132, &[l(1), x(0), u(17), u(1)])]),
        one(Rule::CodeString, "bytes", &[op(92, &[u(4), u(0)])]),
        one(Rule::CodeString, "an overflow", &[op(92, &[u(1), u(u64::MAX >> 1)])]),
        one(Rule::CodeLine, "beyond the table", &[op(153, &[u(2)])]),
        one(Rule::CodeLine, "of a place to be counted", &[op(183, &[u(2), u(1)])]),
        case(Rule::CodeLine, "to be counted without lines", {
            without(b"Line", op(183, &[u(1), u(1)]))
        }),
        case(Rule::CodeDebug, "place 0", debug(op(184, &[a(2), u(1), u(0), u(0)]))),
        case(Rule::CodeDebug, "beyond the table", debug(op(184, &[a(2), u(1), u(2), u(0)]))),
    ]
}

/// Debug information of one item.
fn debug(instruction: Vec<u8>) -> crate::support::beam::Beam {
    with(&[&instruction]).with(b"DbgB", [words(&[1, 1, 0]), op(4, &[u(0), a(NIL)])].concat())
}

fn lists() -> Vec<Case> {
    let select = |operands: &[Vec<u8>]| {
        op(59, &[&[x(0), l(1), list(operands.len() as u64)], operands].concat())
    };
    let assoc = |operands: &[Vec<u8>]| {
        let size = list(operands.len() as u64);
        op(154, &[&[l(0), q(0), x(0), u(0), size], operands].concat())
    };
    let update = |operands: &[Vec<u8>]| {
        let size = list(operands.len() as u64);
        op(181, &[&[a(2), u(3), x(0), x(0), size], operands].concat())
    };
    vec![
        one(Rule::CodeList, "more than there are bytes", &[op(164, &[x(0), list(1 << 20)])]),
        one(Rule::CodeList, "a list in a list", &[op(164, &[x(0), list(1), list(0)])]),
        one(Rule::CodeList, "a label in a tuple", &[op(164, &[x(0), list(1), l(1)])]),
        one(Rule::CodeList, "a float in a tuple", &[op(164, &[x(0), list(1), fr(1)])]),
        one(Rule::CodeList, "an x register among y", &[op(172, &[list(1), x(0)])]),
        one(Rule::CodeList, "no values", &[select(&[])]),
        one(Rule::CodeList, "half a pair", &[select(&[i(1)])]),
        one(Rule::CodeList, "a value that is a register", &[select(&[x(1), l(1)])]),
        one(Rule::CodeList, "a value that leads to an exception", &[select(&[i(1), l(0)])]),
        one(Rule::CodeList, "an atom among numbers", &[select(&[i(1), l(1), a(1), l(1)])]),
        one(Rule::CodeList, "a number among atoms", &[select(&[a(1), l(1), i(1), l(1)])]),
        one(Rule::CodeList, "an atom among literals", &[select(&[q(0), l(1), a(1), l(1)])]),
        one(Rule::CodeList, "a size that is none", &[op(60, &[x(0), l(1), list(2), i(1), l(1)])]),
        one(
            Rule::CodeNumber,
            "a size of no tuple",
            &[op(60, &[x(0), l(1), list(2), u(1 << 24), l(1)])],
        ),
        one(Rule::CodeList, "a map without keys", &[assoc(&[])]),
        one(Rule::CodeList, "half a pair of a map", &[assoc(&[a(1)])]),
        one(Rule::CodeList, "two keys, one in a register", &[assoc(&[a(1), x(0), x(0), x(0)])]),
        one(Rule::CodeList, "a label as a value", &[assoc(&[a(1), l(1)])]),
        one(Rule::CodeList, "no key asked for", &[op(157, &[l(1), x(0), list(0)])]),
        one(Rule::CodeList, "two keys asked for", &[op(157, &[l(1), x(0), list(2), x(0), a(1)])]),
        one(
            Rule::CodeList,
            "a value that goes nowhere",
            &[op(158, &[l(1), x(0), list(2), a(1), i(1)])],
        ),
        one(Rule::CodeList, "no update", &[update(&[])]),
        one(Rule::CodeNumber, "the place 0", &[update(&[u(0), x(0)])]),
        one(Rule::CodeNumber, "a place beyond the tuple", &[update(&[u(4), x(0)])]),
        one(Rule::CodeNumber, "places out of order", &[update(&[u(2), x(0), u(1), x(0)])]),
        one(Rule::CodeNumber, "a place twice", &[update(&[u(2), x(0), u(2), x(0)])]),
        one(
            Rule::CodeList,
            "a field that is no atom",
            &[op(188, &[l(1), x(0), list(2), i(1), x(0)])],
        ),
        one(
            Rule::CodeList,
            "half a field",
            &[op(189, &[l(0), a(2), a(NIL), x(0), u(0), list(1), a(1)])],
        ),
    ]
}

fn bitstrings() -> Vec<Case> {
    let make = |live: u64, operands: &[Vec<u8>]| {
        let size = list(operands.len() as u64);
        op(177, &[&[l(0), u(0), u(live), u(1), x(0), size], operands].concat())
    };
    let segment = |what: u64, unit: u64, value: Vec<u8>, size: Vec<u8>| {
        vec![a(what), u(1), u(unit), a(NIL), value, size]
    };
    let binary = || segment(7, 8, x(0), i(1));
    let fetch = |operands: &[Vec<u8>]| {
        let size = list(operands.len() as u64);
        op(182, &[&[l(1), x(0), size], operands].concat())
    };
    let integer = |size: u64, unit: u64| vec![a(12), u(0), a(NIL), u(size), u(unit), x(0)];
    vec![
        one(Rule::CodeList, "no segment", &[make(0, &[])]),
        one(Rule::CodeList, "five operands", &[make(0, &binary()[..5])]),
        one(Rule::CodeList, "an unknown segment", &[make(0, &segment(2, 8, x(0), i(1)))]),
        one(Rule::CodeList, "a segment of matching", &[make(0, &segment(10, 8, x(0), i(1)))]),
        one(
            Rule::CodeList,
            "append behind another",
            &[make(0, &[binary(), segment(6, 8, x(0), i(1))].concat())],
        ),
        one(
            Rule::CodeList,
            "flags that are none",
            &[make(0, &[a(7), u(1), u(8), a(1), x(0), i(1)])],
        ),
        one(Rule::CodeList, "a label as a size", &[make(0, &segment(7, 8, x(0), l(1)))]),
        one(Rule::CodeList, "a string in a register", &[make(0, &segment(8, 8, x(0), i(1)))]),
        one(Rule::CodeString, "a string too long", &[make(0, &segment(8, 8, u(0), i(4)))]),
        one(
            Rule::CodeString,
            "a string of negative size",
            &[make(0, &segment(8, 8, u(0), vec![0x19, 0xff, 0xff]))],
        ),
        one(Rule::CodeNumber, "a string of bits", &[make(0, &segment(8, 1, u(0), i(1)))]),
        one(Rule::CodeNumber, "a unit of none", &[make(0, &segment(7, 0, x(0), i(1)))]),
        one(Rule::CodeNumber, "a unit too large", &[make(0, &segment(7, 257, x(0), i(1)))]),
        one(Rule::CodeNumber, "a unit of utf8", &[make(0, &segment(13, 1, x(0), a(2)))]),
        one(Rule::CodeNumber, "no registers left for copies", &[make(1022, &binary())]),
        one(Rule::CodeList, "an unknown command", &[fetch(&[a(2)])]),
        one(Rule::CodeList, "a command that is no atom", &[fetch(&[i(1)])]),
        one(Rule::CodeList, "a command cut off", &[op(182, &[l(1), x(0), list(1), a(10), u(1)])]),
        one(Rule::CodeNumber, "a unit of none", &[fetch(&[a(9), u(1), u(0)])]),
        one(Rule::CodeNumber, "more bits than there can be", &[fetch(&[a(9), u(1 << 31), u(1)])]),
        one(Rule::CodeNumber, "a segment too large", &[fetch(&integer(1 << 17, 128))]),
        one(Rule::CodeNumber, "a segment without unit", &[fetch(&integer(8, 0))]),
        one(Rule::CodeNumber, "too much to be passed over", &[fetch(&[a(10), u(1 << 24)])]),
        one(
            Rule::CodeNumber,
            "more than 64 bits compared",
            &[fetch(&[a(11), a(NIL), u(65), u(1)])],
        ),
        one(Rule::CodeNumber, "live registers", &[fetch(&[a(15), u(1024), u(8), x(0)])]),
        one(
            Rule::CodeList,
            "flags that are none",
            &[fetch(&[a(12), u(0), i(1), u(8), u(1), x(0)])],
        ),
        one(Rule::CodeList, "a destination that is none", &[fetch(&[a(15), u(1), u(8), a(1)])]),
    ]
}
