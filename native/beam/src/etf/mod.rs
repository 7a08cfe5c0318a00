//! The External Term Format, for terms that come from hands that are not trusted.
//!
//! [`decode()`] bounds depth, number and size of terms before it allocates, where common crates
//! end the process. Terms that only mean something to one node (pids, ports, references, funs)
//! and compressed terms are refused: nothing we read has any.

mod canonical;
mod captures;
mod cursor;
mod decimal;
mod decode;
mod encode;
mod term;
mod text;
mod weigh;

pub(crate) use canonical::{Canonical, Unread, canonical};
pub use canonical::{Outline, StructForm};
pub(crate) use captures::captures;
pub use decode::{DecodeError, Limits, decode};
pub use encode::encode;
pub use encode::{Count, Sink, Write};
pub use term::{Big, Term};
pub use text::{encoded_to_text, to_text};
pub(crate) use weigh::{Scale, TermFault, Weighed};

/// Tags of the External Term Format.
mod tag {
    pub(super) const VERSION: u8 = 131;
    pub(super) const NEW_FLOAT: u8 = 70;
    pub(super) const BIT_BINARY: u8 = 77;
    pub(super) const COMPRESSED: u8 = 80;
    pub(super) const SMALL_INTEGER: u8 = 97;
    pub(super) const INTEGER: u8 = 98;
    pub(super) const FLOAT: u8 = 99;
    pub(super) const ATOM: u8 = 100;
    pub(super) const SMALL_TUPLE: u8 = 104;
    pub(super) const LARGE_TUPLE: u8 = 105;
    pub(super) const NIL: u8 = 106;
    pub(super) const STRING: u8 = 107;
    pub(super) const LIST: u8 = 108;
    pub(super) const BINARY: u8 = 109;
    pub(super) const EXPORT: u8 = 113;
    pub(super) const SMALL_BIG: u8 = 110;
    pub(super) const LARGE_BIG: u8 = 111;
    pub(super) const SMALL_ATOM: u8 = 115;
    pub(super) const MAP: u8 = 116;
    pub(super) const ATOM_UTF8: u8 = 118;
    pub(super) const SMALL_ATOM_UTF8: u8 = 119;
    /// All that begin an atom.
    pub(super) const ATOMS: [u8; 4] = [SMALL_ATOM_UTF8, ATOM_UTF8, SMALL_ATOM, ATOM];
}
