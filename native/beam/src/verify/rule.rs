//! What the VM's loader takes on trust, as rules with names.

use std::fmt::{self, Display, Formatter};

use crate::chunk::ChunkId;
use crate::opcodes;

macro_rules! rules {
    ($($(#[$about:meta])* $variant:ident, $name:literal, $what:literal;)+) => {
        /// A rule that a module must keep before it comes before a loader. The names are stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum LoaderRule {
            $(#[doc = $what] $(#[$about])* $variant,)+
        }

        impl LoaderRule {
            /// Every rule.
            pub const ALL: &'static [LoaderRule] = &[$(LoaderRule::$variant,)+];

            /// The rule's name in `snake_case`.
            pub fn name(self) -> &'static str {
                match self { $(LoaderRule::$variant => $name,)+ }
            }

            /// What is wrong where the rule is broken, as a clause about the chunk.
            pub fn what(self) -> &'static str {
                match self { $(LoaderRule::$variant => $what,)+ }
            }
        }
    };
}

rules! {
    // The header of the code, against the code.
    CodeLabelCount, "code_label_count",
        "its header counts more labels than the code can have, or fewer than it has";
    CodeFunctionCount, "code_function_count",
        "its header counts other functions than the code has";
    CodeHighestOpcode, "code_highest_opcode",
        "its header names a lower opcode as the highest than the code has";

    // The code as a whole.
    CodeFunction, "code_function",
        "a function does not begin with a label, func_info of this module and the next label";
    CodeFunctionTwice, "code_function_twice",
        "two functions have one name and as many arguments, and it is not said which of them counts";
    CodeEnd, "code_end",
        "the code does not end with int_code_end, or has it before its end";
    CodeUnknown, "code_unknown",
        "an instruction is unknown here: it is damaged, or of a newer OTP than this HotPatch knows";
    CodeObsolete, "code_obsolete",
        "an instruction is not loaded by OTP 25 or later: compile the module again";
    CodeOnLoad, "code_on_load",
        "on_load stands elsewhere than once at the beginning of a function";
    CodeLabelTwice, "code_label_twice", "a label is defined twice";
    CodeLabel, "code_label", "an instruction names a label that is not defined";
    CodeEntry, "code_entry",
        "a call leads to where no function with that many arguments begins";

    // One operand.
    CodeOperand, "code_operand", "an operand is cut off or of an unknown kind";
    CodeKind, "code_kind", "an operand is of a kind that the instruction does not take there";
    CodeNumber, "code_number", "a number is out of the range that the instruction takes";
    CodeInteger, "code_integer", "an integer is written with more bytes than it needs";
    CodeRegister, "code_register", "a register beyond the last one is named";
    CodeAtom, "code_atom", "an atom is named that does not exist";
    CodeLiteral, "code_literal", "a literal is named that does not exist";
    CodeType, "code_type", "a type is named that does not exist";
    CodeImport, "code_import",
        "a function of another module is called that is not imported with that many arguments";
    CodeFun, "code_fun",
        "a local fun is made that does not exist, or with another number of free variables";
    CodeString, "code_string", "a string reaches beyond the chunk of strings";
    CodeLine, "code_line", "a line is named that does not exist";
    CodeDebug, "code_debug", "debug information is named that does not exist";
    CodeList, "code_list", "a list of operands is not as the instruction takes it";

    // The other chunks.
    LambdaEntry, "lambda_entry",
        "an entry does not fit the function at its label: name, number of arguments, or place";
    LambdaFree, "lambda_free", "a fun has more free variables than arguments";
    LambdaIndex, "lambda_index", "the index of an entry is not its place";
    LambdaLabel, "lambda_label", "two entries have one label";
    LambdaMade, "lambda_made", "no instruction makes the fun of an entry";
    FunctionEntry, "function_entry",
        "an entry does not fit the function at its label: name or number of arguments";
    FunctionTwice, "function_twice", "a function is listed twice";
    LiteralSize, "literal_size", "its size is not the one that it declares";
    LiteralPacked, "literal_packed", "its packed data is damaged";
    LiteralTable, "literal_table", "a literal reaches beyond it, or bytes follow the last one";
    LiteralTerm, "literal_term", "a literal is no term that a module can have";
    LiteralKeys, "literal_keys", "a map among the literals has a key twice";
    LineTable, "line_table", "it is cut off, or bytes follow its last entry";
    LineCount, "line_count", "it counts more instructions for lines than the code has";
    LineItem, "line_item", "a line is too large, or is in a file that does not exist";
    LineName, "line_name", "the name of a file is too long or not UTF-8";
    TypeTable, "type_table", "it is cut off, or bytes follow its last entry";
    TypeEntry, "type_entry", "a type is impossible";
    TypeFirst, "type_first", "its first type is not that of any term";
    MetaTerm, "meta_term", "it is no list of named values";
    DebugTable, "debug_table", "its entries are not as the loader takes them";
    RecordTable, "record_table", "its entries are not as the loader takes them";

    // What the module takes.
    ModuleAtoms, "module_atoms", "the module has more atoms than the limit";
    ModuleFunctions, "module_functions",
        "the module names more functions of its own and of others than the limit";
    ModuleLiterals, "module_literals", "the literals take more memory than the limit";
    ModuleDepth, "module_depth", "a literal is nested deeper than the limit";
    ModuleAdded, "module_added",
        "the loader must compare more names, numbers and keys with each other than the limit";
    ModuleMemory, "module_memory", "the module takes more memory than the limit";
}

pub(super) type Check<T = ()> = Result<T, LoaderRule>;

/// A rule that is broken, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The rule.
    pub rule: LoaderRule,
    /// The chunk.
    pub chunk: ChunkId,
    /// Where in the chunk, where that is known: of code, the byte behind the header at which the
    /// instruction begins; of a table, the place of the entry.
    pub at: Option<usize>,
    /// The instruction.
    pub opcode: Option<u8>,
}

impl Breach {
    pub(super) fn of(chunk: &ChunkId, rule: LoaderRule) -> Self {
        Breach { rule, chunk: *chunk, at: None, opcode: None }
    }

    pub(super) fn at(self, at: usize) -> Self {
        Breach { at: Some(at), ..self }
    }
}

impl Display for Breach {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Breach { rule, chunk, at, opcode } = self;
        write!(f, "The chunk \"{}\" is malformed: {}", chunk.escape_ascii(), rule.what())?;
        match (chunk, at, opcode) {
            (b"Code", Some(at), Some(opcode)) => {
                write!(f, " (byte {at}, {}", opcodes::Named(*opcode))?;
            }
            (b"Code", Some(at), None) => write!(f, " (byte {at}")?,
            (_, Some(at), _) => write!(f, " (entry {at}")?,
            _ => f.write_str(" (")?,
        }
        let comma = if at.is_some() { ", " } else { "" };
        write!(f, "{comma}rule {}).", rule.name())
    }
}
