//! What is known of the VM's instructions (genop.tab of each release).

/// `label`, which begins every block.
pub(super) const LABEL: u8 = 1;
/// `func_info`, which says whose function follows: module, name, arity.
pub(super) const FUNC_INFO: u8 = 2;
/// `int_code_end`, the last instruction.
pub(super) const INT_CODE_END: u8 = 3;
/// `on_load`, behind the label where its function begins.
pub(super) const ON_LOAD: u8 = 149;

/// Instructions whose operands have a meaning that does not show, or that say what a function
/// returns.
pub(super) mod op {
    pub(crate) const CALL: u8 = 4;
    pub(crate) const CALL_LAST: u8 = 5;
    pub(crate) const CALL_ONLY: u8 = 6;
    pub(crate) const CALL_EXT: u8 = 7;
    pub(crate) const CALL_EXT_LAST: u8 = 8;
    pub(crate) const BIF0: u8 = 9;
    pub(crate) const BIF1: u8 = 10;
    pub(crate) const BIF2: u8 = 11;
    pub(crate) const ALLOCATE: u8 = 12;
    pub(crate) const ALLOCATE_HEAP_ZERO: u8 = 15;
    pub(crate) const TEST_HEAP: u8 = 16;
    pub(crate) const DEALLOCATE: u8 = 18;
    pub(crate) const RETURN: u8 = 19;
    pub(crate) const SEND: u8 = 20;
    pub(crate) const IS_LT: u8 = 39;
    pub(crate) const SELECT_VAL: u8 = 59;
    pub(crate) const SELECT_TUPLE_ARITY: u8 = 60;
    pub(crate) const JUMP: u8 = 61;
    pub(crate) const CATCH: u8 = 62;
    pub(crate) const CATCH_END: u8 = 63;
    pub(crate) const MOVE: u8 = 64;
    pub(crate) const SET_TUPLE_ELEMENT: u8 = 67;
    pub(crate) const BADMATCH: u8 = 72;
    pub(crate) const CASE_END: u8 = 74;
    pub(crate) const CALL_FUN: u8 = 75;
    pub(crate) const CALL_EXT_ONLY: u8 = 78;
    pub(crate) const BS_PUT_STRING: u8 = 92;
    pub(crate) const MAKE_FUN2: u8 = 103;
    pub(crate) const TRY: u8 = 104;
    pub(crate) const TRY_CASE: u8 = 106;
    pub(crate) const TRY_CASE_END: u8 = 107;
    pub(crate) const RAISE: u8 = 108;
    pub(crate) const APPLY: u8 = 112;
    pub(crate) const APPLY_LAST: u8 = 113;
    pub(crate) const IS_BOOLEAN: u8 = 114;
    pub(crate) const IS_FUNCTION2: u8 = 115;
    pub(crate) const GC_BIF1: u8 = 124;
    pub(crate) const GC_BIF2: u8 = 125;
    pub(crate) const BS_MATCH_STRING: u8 = 132;
    pub(crate) const BS_INIT_WRITABLE: u8 = 133;
    pub(crate) const TRIM: u8 = 136;
    pub(crate) const GC_BIF3: u8 = 152;
    pub(crate) const LINE: u8 = 153;
    pub(crate) const PUT_MAP_ASSOC: u8 = 154;
    pub(crate) const PUT_MAP_EXACT: u8 = 155;
    pub(crate) const IS_MAP: u8 = 156;
    pub(crate) const HAS_MAP_FIELDS: u8 = 157;
    pub(crate) const GET_MAP_ELEMENTS: u8 = 158;
    pub(crate) const IS_TAGGED_TUPLE: u8 = 159;
    pub(crate) const BUILD_STACKTRACE: u8 = 160;
    pub(crate) const RAW_RAISE: u8 = 161;
    pub(crate) const PUT_TUPLE2: u8 = 164;
    pub(crate) const SWAP: u8 = 169;
    pub(crate) const MAKE_FUN3: u8 = 171;
    pub(crate) const BS_CREATE_BIN: u8 = 177;
    pub(crate) const CALL_FUN2: u8 = 178;
    pub(crate) const BADRECORD: u8 = 180;
    pub(crate) const EXECUTABLE_LINE: u8 = 183;
    pub(crate) const DEBUG_LINE: u8 = 184;
}

/// The number of operands of each instruction, from opcode 1 on.
#[rustfmt::skip]
const OPERANDS: [u8; NEWEST as usize] = [
    1, 3, 0, 2, 3, 2, 2, 3, 2, 4, 5, 2, 3, 2, 3, 2, // 1
    1, 1, 0, 0, 0, 0, 2, 1, 1, 2, 4, 4, 4, 4, 4, 4, // 17
    4, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, // 33
    2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 1, 2, 1, 2, // 49
    3, 3, 3, 3, 3, 2, 1, 1, 0, 1, 1, 3, 2, 2, 2, 5, // 65
    5, 5, 4, 2, 1, 1, 2, 2, 5, 5, 5, 2, 1, 0, 1, 2, // 81
    2, 4, 4, 4, 4, 3, 1, 2, 1, 1, 1, 2, 6, 3, 5, 1, // 97
    2, 2, 3, 5, 7, 7, 7, 5, 3, 2, 2, 5, 6, 2, 2, 2, // 113
    2, 1, 3, 4, 0, 8, 6, 2, 6, 5, 4, 5, 4, 5, 4, 3, // 129
    3, 3, 3, 3, 0, 1, 1, 7, 1, 5, 5, 2, 3, 3, 4, 0, // 145
    0, 2, 2, 2, 3, 4, 3, 2, 2, 4, 3, 1, 2, 1, 1, 1, // 161
    6, 3, 0, 1, 5, 3, 2, 4, 6, 2, 4, 3, 6, 3, 5, // 177
];

/// The highest opcode that is known here.
pub(super) const NEWEST: u32 = 191;

/// How many operands an instruction has, if it is known.
pub(super) fn operands(opcode: u8) -> Option<u8> {
    OPERANDS.get(usize::from(opcode).checked_sub(1)?).copied()
}

/// Each release that added instructions, and the highest opcode it knows. OTP 30 has more than
/// 29, which is the last one here.
const HIGHEST: [(u32, u32); 11] = [
    (19, 158),
    (20, 159),
    (21, 161),
    (22, 168),
    (23, 170),
    (24, 176),
    (25, 180),
    (26, 182),
    (27, 183),
    (28, 184),
    (29, 191),
];

/// The release whose atom tables have lengths as compact numbers, which none before can read.
const LONG_ATOMS: u32 = 28;

/// The first release known to load a module, judged by its highest opcode and by the format of
/// its atom table; `None` if the opcode is of no release known here. A module may need a newer
/// release for reasons that do not show.
pub(super) fn release_of(max_opcode: u32, long_atoms: bool) -> Option<u32> {
    let (release, _) = HIGHEST.iter().find(|(_, highest)| max_opcode <= *highest)?;
    Some(if long_atoms { LONG_ATOMS.max(*release) } else { *release })
}

#[cfg(test)]
mod tests {
    use super::release_of;

    #[test]
    fn tells_the_release() {
        assert_eq!(release_of(0, false), Some(19));
        assert_eq!(release_of(176, false), Some(24));
        assert_eq!(release_of(177, false), Some(25));
        assert_eq!(release_of(180, false), Some(25));
        assert_eq!(release_of(182, false), Some(26));
        assert_eq!(release_of(183, false), Some(27));
        assert_eq!(release_of(170, true), Some(28));
        assert_eq!(release_of(185, true), Some(29));
        assert_eq!(release_of(192, true), None);
    }
}
