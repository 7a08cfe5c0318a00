//! What is known of the VM's instructions (genop.tab of each release).

use std::fmt::{self, Display, Formatter};

use crate::ops::{OPS, Op};

/// `label`, which begins every block.
pub(crate) const LABEL: u8 = 1;
/// `func_info`, which says whose function follows: module, name, arity.
pub(crate) const FUNC_INFO: u8 = 2;
/// `int_code_end`, the last instruction.
pub(crate) const INT_CODE_END: u8 = 3;
/// `on_load`, behind the label where its function begins.
pub(crate) const ON_LOAD: u8 = 149;

/// Instructions whose operands have a meaning that does not show, or that say what a function
/// returns.
pub(crate) mod op {
    pub(crate) const CALL: u8 = 4;
    pub(crate) const CALL_LAST: u8 = 5;
    pub(crate) const CALL_ONLY: u8 = 6;
    pub(crate) const CALL_EXT: u8 = 7;
    pub(crate) const CALL_EXT_LAST: u8 = 8;
    pub(crate) const ALLOCATE: u8 = 12;
    pub(crate) const ALLOCATE_HEAP_ZERO: u8 = 15;
    pub(crate) const TEST_HEAP: u8 = 16;
    pub(crate) const DEALLOCATE: u8 = 18;
    pub(crate) const RETURN: u8 = 19;
    pub(crate) const SEND: u8 = 20;
    pub(crate) const LOOP_REC: u8 = 23;
    pub(crate) const LOOP_REC_END: u8 = 24;
    pub(crate) const WAIT: u8 = 25;
    pub(crate) const WAIT_TIMEOUT: u8 = 26;
    pub(crate) const IS_LT: u8 = 39;
    pub(crate) const SELECT_VAL: u8 = 59;
    pub(crate) const SELECT_TUPLE_ARITY: u8 = 60;
    pub(crate) const JUMP: u8 = 61;
    pub(crate) const CATCH: u8 = 62;
    pub(crate) const CATCH_END: u8 = 63;
    pub(crate) const MOVE: u8 = 64;
    pub(crate) const SET_TUPLE_ELEMENT: u8 = 67;
    pub(crate) const BADMATCH: u8 = 72;
    pub(crate) const IF_END: u8 = 73;
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
    pub(crate) const BS_MATCH_STRING: u8 = 132;
    pub(crate) const BS_INIT_WRITABLE: u8 = 133;
    pub(crate) const TRIM: u8 = 136;
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
    pub(crate) const BS_CREATE_BIN: u8 = 177;
    pub(crate) const CALL_FUN2: u8 = 178;
    pub(crate) const BADRECORD: u8 = 180;
    pub(crate) const EXECUTABLE_LINE: u8 = 183;
    pub(crate) const DEBUG_LINE: u8 = 184;
}

/// What is known of an instruction.
pub(crate) fn find(opcode: u8) -> Option<&'static Op> {
    OPS.get(usize::from(opcode).checked_sub(1)?)
}

/// Whether no release known here has an instruction with this opcode.
pub(crate) fn is_newer(opcode: u8) -> bool {
    usize::from(opcode) > OPS.len()
}

/// How many operands an instruction has, if it is known.
pub(crate) fn operands(opcode: u8) -> Option<u8> {
    u8::try_from(find(opcode)?.roles.len()).ok()
}

/// An instruction by its name, as in `call/2`.
pub(crate) struct Named(pub(crate) u8);

impl Display for Named {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match find(self.0) {
            Some(op) => write!(f, "{}/{}", op.name, op.roles.len()),
            None => write!(f, "opcode {}", self.0),
        }
    }
}

/// The release whose atom tables have lengths as compact numbers, which none before can read.
const LONG_ATOMS: u32 = 28;

/// The first release known to load a module, judged by its highest opcode and by the format of
/// its atom table; `None` if the opcode is of no release known here. A module may need a newer
/// release for reasons that do not show.
pub(crate) fn release_of(max_opcode: u32, long_atoms: bool) -> Option<u32> {
    let highest = u8::try_from(max_opcode.max(1)).ok()?;
    let release = u32::from(find(highest)?.since);
    Some(if long_atoms { LONG_ATOMS.max(release) } else { release })
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
