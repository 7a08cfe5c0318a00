//! What is known of the VM's instructions (genop.tab of each release).

/// `label`, which begins every block.
pub(super) const LABEL: u8 = 1;
/// `func_info`, which says whose function follows: module, name, arity.
pub(super) const FUNC_INFO: u8 = 2;
/// `int_code_end`, the last instruction.
pub(super) const INT_CODE_END: u8 = 3;
/// `on_load`, behind the label where its function begins.
pub(super) const ON_LOAD: u8 = 149;

/// The number of operands of each instruction, from opcode 1 on.
#[rustfmt::skip]
const OPERANDS: [u8; 191] = [
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
