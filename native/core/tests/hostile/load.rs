//! Archives whose modules are right one by one, and too much for a VM all together.

use hot_patch_beam::LoadLimits;
use hot_patch_core::{Options, Rule, read_archive};

use crate::Case;
use crate::support::beam::{AtomFormat, minimal};
use crate::support::zip::{build, file};

/// Two modules, each with five atoms in its table and three in terms, and three functions with
/// those it calls. They have five atoms in common.
fn two_modules() -> Vec<u8> {
    let module = minimal(AtomFormat::Utf8);
    let other = module.clone().with(b"AtU8", other_names());
    build(&[file("m.beam", &module.bytes()), file("o.beam", &other.bytes())], b"").bytes
}

pub(crate) fn cases() -> Vec<Case> {
    let limited = |rule, what, change: fn(&mut LoadLimits)| {
        let mut options = Options::default();
        change(&mut options.load);
        Case { rule, what, bytes: two_modules(), options }
    };
    vec![
        limited(Rule::TooManyAtoms, "one more", |load| load.atoms = 10),
        limited(Rule::TooManyFunctions, "one more", |load| load.functions = 5),
        limited(Rule::TooMuchMemory, "of two modules", |load| load.memory = 5000),
    ]
}

#[test]
fn at_the_limits_they_are_accepted() {
    let bytes = two_modules();
    let load = read_archive(&bytes, &Options::default()).unwrap().load;
    assert_eq!((load.atoms, load.functions, load.literal_words), (11, 6, 0));
    let mut options = Options::default();
    options.load.atoms = 11;
    options.load.functions = 6;
    options.load.memory = load.memory;
    assert_eq!(read_archive(&bytes, &options).map(|read| read.load), Ok(load));
}

fn other_names() -> Vec<u8> {
    crate::support::beam::atom_chunk(AtomFormat::Utf8, &["o", "p", "module_info", "erlang", "-"]).1
}
