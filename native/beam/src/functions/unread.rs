//! Why the functions of a module are not known.

use crate::damage::Damage;
use crate::effort::Exhausted;

/// Why the functions of a module are not known, in a clause that follows its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// It was compiled by a newer OTP than is known here.
    #[error("has instructions that are unknown here (up to opcode {opcode})")]
    Newer {
        /// The highest one.
        opcode: u32,
    },
    /// It is no module that can be loaded.
    #[error(transparent)]
    Damaged(Damage),
    /// What may be made of all modules together is used up, or nobody waits any more.
    #[error("takes more than one analysis may take")]
    Exhausted,
}

impl From<Damage> for Unread {
    fn from(damage: Damage) -> Self {
        Unread::Damaged(damage)
    }
}

impl From<Exhausted> for Unread {
    fn from(Exhausted: Exhausted) -> Self {
        Unread::Exhausted
    }
}
