//! Every instruction of every release: made by opcodes/opcodes.exs, not by hand.

use crate::role::Role::{self, *};

/// An instruction.
#[derive(Debug)]
pub(crate) struct Op {
    /// Its name.
    pub(crate) name: &'static str,
    /// The first release that has it; 19 stands for all before too.
    pub(crate) since: u8,
    /// The last release known here that loads it; 0 if none from OTP 25 on does.
    pub(crate) last: u8,
    /// What its operands must be. An instruction that is not loaded has `Any`.
    pub(crate) roles: &'static [Role],
}

const fn op(name: &'static str, since: u8, last: u8, roles: &'static [Role]) -> Op {
    Op { name, since, last, roles }
}

/// By the opcode, from 1 on.
#[rustfmt::skip]
pub(crate) static OPS: &[Op] = &[
    op("label", 19, 29, &[Definition]), // 1
    op("func_info", 19, 29, &[Module, Atom, Arity]), // 2
    op("int_code_end", 19, 29, &[]), // 3
    op("call", 19, 29, &[Arity, Entry]), // 4
    op("call_last", 19, 29, &[Arity, Entry, Stack]), // 5
    op("call_only", 19, 29, &[Arity, Entry]), // 6
    op("call_ext", 19, 29, &[Arity, Import]), // 7
    op("call_ext_last", 19, 29, &[Arity, Import, Stack]), // 8
    op("bif0", 19, 29, &[Bif0, Register]), // 9
    op("bif1", 19, 29, &[Fail, Bif1, Source, Register]), // 10
    op("bif2", 19, 29, &[Fail, Bif2, Source, Source, Register]), // 11
    op("allocate", 19, 29, &[Stack, Live]), // 12
    op("allocate_heap", 19, 29, &[Stack, Heap, Live]), // 13
    op("allocate_zero", 19, 25, &[ZeroedStack, Live]), // 14
    op("allocate_heap_zero", 19, 25, &[ZeroedStack, Heap, Live]), // 15
    op("test_heap", 19, 29, &[Heap, Live]), // 16
    op("init", 19, 25, &[Y]), // 17
    op("deallocate", 19, 29, &[Stack]), // 18
    op("return", 19, 29, &[]), // 19
    op("send", 19, 29, &[]), // 20
    op("remove_message", 19, 29, &[]), // 21
    op("timeout", 19, 29, &[]), // 22
    op("loop_rec", 19, 29, &[Label, Register]), // 23
    op("loop_rec_end", 19, 29, &[Label]), // 24
    op("wait", 19, 29, &[Label]), // 25
    op("wait_timeout", 19, 29, &[Label, Source]), // 26
    op("m_plus", 19, 0, &[Any, Any, Any, Any]), // 27
    op("m_minus", 19, 0, &[Any, Any, Any, Any]), // 28
    op("m_times", 19, 0, &[Any, Any, Any, Any]), // 29
    op("m_div", 19, 0, &[Any, Any, Any, Any]), // 30
    op("int_div", 19, 0, &[Any, Any, Any, Any]), // 31
    op("int_rem", 19, 0, &[Any, Any, Any, Any]), // 32
    op("int_band", 19, 0, &[Any, Any, Any, Any]), // 33
    op("int_bor", 19, 0, &[Any, Any, Any, Any]), // 34
    op("int_bxor", 19, 0, &[Any, Any, Any, Any]), // 35
    op("int_bsl", 19, 0, &[Any, Any, Any, Any]), // 36
    op("int_bsr", 19, 0, &[Any, Any, Any, Any]), // 37
    op("int_bnot", 19, 0, &[Any, Any, Any]), // 38
    op("is_lt", 19, 29, &[Label, Source, Source]), // 39
    op("is_ge", 19, 29, &[Label, Source, Source]), // 40
    op("is_eq", 19, 29, &[Label, Source, Source]), // 41
    op("is_ne", 19, 29, &[Label, Source, Source]), // 42
    op("is_eq_exact", 19, 29, &[Label, Source, Source]), // 43
    op("is_ne_exact", 19, 29, &[Label, Source, Source]), // 44
    op("is_integer", 19, 29, &[Label, Source]), // 45
    op("is_float", 19, 29, &[Label, Source]), // 46
    op("is_number", 19, 29, &[Label, Source]), // 47
    op("is_atom", 19, 29, &[Label, Source]), // 48
    op("is_pid", 19, 29, &[Label, Source]), // 49
    op("is_reference", 19, 29, &[Label, Source]), // 50
    op("is_port", 19, 29, &[Label, Source]), // 51
    op("is_nil", 19, 29, &[Label, Source]), // 52
    op("is_binary", 19, 29, &[Label, Source]), // 53
    op("is_constant", 19, 0, &[Any, Any]), // 54
    op("is_list", 19, 29, &[Label, Source]), // 55
    op("is_nonempty_list", 19, 29, &[Label, Source]), // 56
    op("is_tuple", 19, 29, &[Label, Source]), // 57
    op("test_arity", 19, 29, &[Label, Source, TupleSize]), // 58
    op("select_val", 19, 29, &[Source, Label, SelectValues]), // 59
    op("select_tuple_arity", 19, 29, &[Register, Label, SelectSizes]), // 60
    op("jump", 19, 29, &[Label]), // 61
    op("catch", 19, 29, &[Y, Label]), // 62
    op("catch_end", 19, 29, &[Y]), // 63
    op("move", 19, 29, &[Source, Register]), // 64
    op("get_list", 19, 29, &[Register, Register, Register]), // 65
    op("get_tuple_element", 19, 29, &[Register, TupleIndex, Register]), // 66
    op("set_tuple_element", 19, 29, &[Source, Register, TupleIndex]), // 67
    op("put_string", 19, 0, &[Any, Any, Any]), // 68
    op("put_list", 19, 29, &[Source, Source, Register]), // 69
    op("put_tuple", 19, 0, &[Any, Any]), // 70
    op("put", 19, 0, &[Any]), // 71
    op("badmatch", 19, 29, &[Source]), // 72
    op("if_end", 19, 29, &[]), // 73
    op("case_end", 19, 29, &[Source]), // 74
    op("call_fun", 19, 29, &[Arity]), // 75
    op("make_fun", 19, 0, &[Any, Any, Any]), // 76
    op("is_function", 19, 29, &[Label, Source]), // 77
    op("call_ext_only", 19, 29, &[Arity, Import]), // 78
    op("bs_start_match", 19, 0, &[Any, Any]), // 79
    op("bs_get_integer", 19, 0, &[Any, Any, Any, Any, Any]), // 80
    op("bs_get_float", 19, 0, &[Any, Any, Any, Any, Any]), // 81
    op("bs_get_binary", 19, 0, &[Any, Any, Any, Any, Any]), // 82
    op("bs_skip_bits", 19, 0, &[Any, Any, Any, Any]), // 83
    op("bs_test_tail", 19, 0, &[Any, Any]), // 84
    op("bs_save", 19, 0, &[Any]), // 85
    op("bs_restore", 19, 0, &[Any]), // 86
    op("bs_init", 19, 0, &[Any, Any]), // 87
    op("bs_final", 19, 0, &[Any, Any]), // 88
    op("bs_put_integer", 19, 27, &[Fail, Source, Unit, Flags, Source]), // 89
    op("bs_put_binary", 19, 27, &[Fail, Source, Unit, Flags, Source]), // 90
    op("bs_put_float", 19, 27, &[Fail, Source, Unit, Flags, Source]), // 91
    op("bs_put_string", 19, 27, &[StringBytes, StringOffset]), // 92
    op("bs_need_buf", 19, 0, &[Any]), // 93
    op("fclearerror", 19, 25, &[]), // 94
    op("fcheckerror", 19, 25, &[Fail]), // 95
    op("fmove", 19, 29, &[FloatOrSource, FloatOrRegister]), // 96
    op("fconv", 19, 29, &[Source, Float]), // 97
    op("fadd", 19, 29, &[Fail, Float, Float, Float]), // 98
    op("fsub", 19, 29, &[Fail, Float, Float, Float]), // 99
    op("fmul", 19, 29, &[Fail, Float, Float, Float]), // 100
    op("fdiv", 19, 29, &[Fail, Float, Float, Float]), // 101
    op("fnegate", 19, 29, &[Fail, Float, Float]), // 102
    op("make_fun2", 19, 25, &[Fun]), // 103
    op("try", 19, 29, &[Y, Label]), // 104
    op("try_end", 19, 29, &[Y]), // 105
    op("try_case", 19, 29, &[Y]), // 106
    op("try_case_end", 19, 29, &[Source]), // 107
    op("raise", 19, 29, &[Source, Source]), // 108
    op("bs_init2", 19, 27, &[Fail, SizeOrSource, Heap, Live, Flags, Register]), // 109
    op("bs_bits_to_bytes", 19, 0, &[Any, Any, Any]), // 110
    op("bs_add", 19, 27, &[Fail, Source, Source, Unit, Register]), // 111
    op("apply", 19, 29, &[Arity]), // 112
    op("apply_last", 19, 29, &[Arity, Stack]), // 113
    op("is_boolean", 19, 29, &[Label, Source]), // 114
    op("is_function2", 19, 29, &[Label, Source, Source]), // 115
    op("bs_start_match2", 19, 0, &[Any, Any, Any, Any, Any]), // 116
    op("bs_get_integer2", 19, 29, &[Label, Register, Live, Source, Unit, Flags, Register]), // 117
    op("bs_get_float2", 19, 29, &[Label, Register, Live, Source, Unit, Flags, Register]), // 118
    op("bs_get_binary2", 19, 29, &[Label, Register, Live, Source, Unit, Flags, Register]), // 119
    op("bs_skip_bits2", 19, 29, &[Label, Register, Source, Unit, Flags]), // 120
    op("bs_test_tail2", 19, 29, &[Label, Register, Bits]), // 121
    op("bs_save2", 19, 0, &[Any, Any]), // 122
    op("bs_restore2", 19, 0, &[Any, Any]), // 123
    op("gc_bif1", 19, 29, &[Fail, Live, Bif1, Source, Register]), // 124
    op("gc_bif2", 19, 29, &[Fail, Live, Bif2, Source, Source, Register]), // 125
    op("bs_final2", 19, 0, &[Any, Any]), // 126
    op("bs_bits_to_bytes2", 19, 0, &[Any, Any]), // 127
    op("put_literal", 19, 0, &[Any, Any]), // 128
    op("is_bitstr", 19, 29, &[Label, Source]), // 129
    op("bs_context_to_binary", 19, 0, &[Any]), // 130
    op("bs_test_unit", 19, 27, &[Label, Register, Unit]), // 131
    op("bs_match_string", 19, 29, &[Label, Register, StringBits, StringOffset]), // 132
    op("bs_init_writable", 19, 29, &[]), // 133
    op("bs_append", 19, 27, &[Fail, Source, Heap, Live, Unit, Source, Flags, Register]), // 134
    op("bs_private_append", 19, 27, &[Fail, Source, Unit, Source, Flags, Register]), // 135
    op("trim", 19, 29, &[Stack, Stack]), // 136
    op("bs_init_bits", 19, 27, &[Fail, SizeOrSource, Heap, Live, Flags, Register]), // 137
    op("bs_get_utf8", 19, 29, &[Label, Register, Live, Flags, Register]), // 138
    op("bs_skip_utf8", 19, 29, &[Label, Register, Live, Flags]), // 139
    op("bs_get_utf16", 19, 29, &[Label, Register, Live, Flags, Register]), // 140
    op("bs_skip_utf16", 19, 29, &[Label, Register, Live, Flags]), // 141
    op("bs_get_utf32", 19, 29, &[Label, Register, Live, Flags, Register]), // 142
    op("bs_skip_utf32", 19, 29, &[Label, Register, Live, Flags]), // 143
    op("bs_utf8_size", 19, 27, &[Fail, Source, Register]), // 144
    op("bs_put_utf8", 19, 27, &[Fail, Flags, Source]), // 145
    op("bs_utf16_size", 19, 27, &[Fail, Source, Register]), // 146
    op("bs_put_utf16", 19, 27, &[Fail, Flags, Source]), // 147
    op("bs_put_utf32", 19, 27, &[Fail, Flags, Source]), // 148
    op("on_load", 19, 29, &[]), // 149
    op("recv_mark", 19, 25, &[Label]), // 150
    op("recv_set", 19, 25, &[Label]), // 151
    op("gc_bif3", 19, 29, &[Fail, Live, Bif3, Source, Source, Source, Register]), // 152
    op("line", 19, 29, &[Line]), // 153
    op("put_map_assoc", 19, 29, &[Fail, Source, Register, Live, MapPairs]), // 154
    op("put_map_exact", 19, 29, &[Fail, Source, Register, Live, MapPairs]), // 155
    op("is_map", 19, 29, &[Label, Source]), // 156
    op("has_map_fields", 19, 29, &[Label, Source, MapKeys]), // 157
    op("get_map_elements", 19, 29, &[Label, Source, MapElements]), // 158
    op("is_tagged_tuple", 20, 29, &[Label, Source, TupleSize, Atom]), // 159
    op("build_stacktrace", 21, 29, &[]), // 160
    op("raw_raise", 21, 29, &[]), // 161
    op("get_hd", 21, 29, &[Register, Register]), // 162
    op("get_tl", 21, 29, &[Register, Register]), // 163
    op("put_tuple2", 22, 29, &[Register, Sources]), // 164
    op("bs_get_tail", 22, 29, &[Register, Register, Live]), // 165
    op("bs_start_match3", 22, 29, &[Fail, Source, Live, Register]), // 166
    op("bs_get_position", 22, 29, &[Register, Register, Live]), // 167
    op("bs_set_position", 22, 29, &[Register, Register]), // 168
    op("swap", 23, 29, &[Register, Register]), // 169
    op("bs_start_match4", 23, 29, &[LabelOrAtom, Live, Source, Register]), // 170
    op("make_fun3", 24, 29, &[Fun, Register, FunValues]), // 171
    op("init_yregs", 24, 29, &[Ys]), // 172
    op("recv_marker_bind", 24, 29, &[Register, Register]), // 173
    op("recv_marker_clear", 24, 29, &[Register]), // 174
    op("recv_marker_reserve", 24, 29, &[Register]), // 175
    op("recv_marker_use", 24, 29, &[Register]), // 176
    op("bs_create_bin", 25, 29, &[Fail, Heap, Live, Unit, Register, Segments]), // 177
    op("call_fun2", 25, 29, &[FunTag, Arity, Source]), // 178
    op("nif_start", 25, 29, &[]), // 179
    op("badrecord", 25, 29, &[Source]), // 180
    op("update_record", 26, 29, &[Atom, TupleSize, Source, Register, Updates]), // 181
    op("bs_match", 26, 29, &[Label, Register, Commands]), // 182
    op("executable_line", 27, 29, &[ExecutableLine, Number]), // 183
    op("debug_line", 28, 29, &[Atom, ExecutableLine, DebugIndex, Live]), // 184
    op("bif3", 29, 29, &[Fail, Bif3, Source, Source, Source, Register]), // 185
    op("is_any_native_record", 29, 29, &[Label, Register]), // 186
    op("is_native_record", 29, 29, &[Label, Register, Atom, Atom]), // 187
    op("get_record_elements", 29, 29, &[Label, Register, RecordElements]), // 188
    op("put_record", 29, 29, &[NoFail, Source, NilOrRegister, Register, Live, RecordPairs]), // 189
    op("is_record_accessible", 29, 29, &[Label, Register, Atom]), // 190
    op("get_record_field", 29, 29, &[Fail, Register, Source, Atom, Register]), // 191
];
