//! Any bytes as the instructions of a module, behind a header that counts what they may have.
#![no_main]

use hot_patch_beam::LoadLimits;
use hot_patch_beam::shadow::Naming;
use hot_patch_beam::{shadow, verify};
use hot_patch_fuzz::module;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The first two bytes are the counts of labels and of functions.
    let [labels, functions, instructions @ ..] = bytes else { return };
    let header = [16, 0, 191, u32::from(*labels), u32::from(*functions)];
    let mut code: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
    code.extend(instructions);
    // Two literals: [] and 1.5.
    let literals = b"\0\0\0\x02\0\0\0\x02\x83j\0\0\0\x0a\x83F\x3f\xf8\0\0\0\0\0\0";
    let file = module(&code, literals);
    let Ok(load) = verify::judge(&file, &LoadLimits::default()) else { return };
    assert!(load.memory > 0 && load.atoms >= 64);
    // What passes can be copied under another name, and the copy passes too.
    let copies =
        shadow::make(&[&file], &Naming { suffix: "@hot_patch", helper: None, closed: false });
    for copy in copies {
        let copy = copy.expect("a module that passes has a copy");
        verify::judge(&copy.bytes, &LoadLimits::default()).expect("the copy passes too");
    }
});
