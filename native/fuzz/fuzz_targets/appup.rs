//! Any bytes as the file of an appup or a relup, and as the text of an instruction.
#![no_main]

use hot_patch_core::appup::{Appup, Instruction, Value};
use hot_patch_fuzz::request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    request("instructions", &[bytes], b"\x83j");
    request("instructions", &[bytes, b"{load_module,m}", bytes], b"\x83j");
    if let Ok(value) = Value::consult(bytes) {
        let again = Value::consult(format!("%% coding: utf-8\n{value}.\n").as_bytes());
        assert_eq!(again.expect("what was written can be read"), value);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // What was read is written so that it is read again as it was, and written the same.
    if let Ok(appup) = Appup::parse(text) {
        let written = appup.to_string();
        let again = Appup::parse(&written).expect("what was written can be read");
        assert_eq!(again, appup);
        assert_eq!(again.to_string(), written);
    }
    if let Ok(instruction) = Instruction::parse(text) {
        let written = instruction.to_string();
        let again = Instruction::parse(&written).expect("what was written can be read");
        assert_eq!(again, instruction);
        request("instructions", &[written.as_bytes()], b"\x83j");
    }
});
