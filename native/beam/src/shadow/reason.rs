//! Why a module has no shadow.

use crate::damage::Damage;

/// What keeps a module from being copied under another name, as a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No module that can be loaded.
    #[error(transparent)]
    Damage(#[from] Damage),
    /// The limit on unpacked bytes was reached.
    #[error("The modules unpack to more bytes than a patch may have.")]
    TooLarge,
    /// The new name is longer than the module's atom table can hold.
    #[error("The name \"{}\" is too long.", crate::text::printable(.0.as_bytes()))]
    NameTooLong(String),
    /// Another module of the set has the new name, or the module itself.
    #[error("The name \"{}\" is taken.", crate::text::printable(.0.as_bytes()))]
    NameTaken(String),
    /// A call by a name that is known only when it runs, with very many arguments.
    #[error("It calls functions of more than {0} arguments by names known only when it runs.")]
    ManyArguments(u64),
    /// An instruction for a function that may have effects, in a closed set.
    #[error("It has an instruction that calls {}, which may have effects.", crate::text::printable(.0.as_bytes()))]
    Instruction(String),
    /// Code that runs when the module is loaded, in a closed set.
    #[error("It runs code when it is loaded.")]
    OnLoad,
    /// Values of native records name the module that made them.
    #[error("The module defines native records, whose values name their module.")]
    NativeRecords,
}
