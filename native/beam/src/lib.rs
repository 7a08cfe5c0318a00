//! Reads BEAM files from hands that are not trusted: what a module is called, what it offers and
//! needs, what its functions do, and its MD5; and judges whether OTP's loaders can take it.
//!
//! It knows of no archive, no manifest and no change, opens no file and makes no atom: names stay
//! text. Every count, size and depth is bounded before anything is done by it. A file is parsed
//! once, into a `Verified` (in [`verify`]) that can be had in no other way; all else reads that.
//!
//! | module | concept |
//! |---|---|
//! | [`judge`](Judge) | what a file is: a module, none, or a damaged one |
//! | [`verify`] | the rules that a module must keep before it comes before a loader |
//! | [`module`](Module) | what is told of a module that keeps them |
//! | [`parsed`](Parsed) | a module with its file, for those who compare two |
//! | [`functions`] | its functions one by one: a digest of the meaning, what it calls, what it returns |
//! | [`shadow`] | a copy of it under another name |
//! | `iff`, `chunk`, `atoms`, `tables`, `code`, `operands`, `info`, `gzip`, `md5` | the parts of the file |
//! | `ops`, `opcodes`, `role` | all instructions of OTP, and what their operands are |
//! | `reader`, `writer` | bytes in and out |
//! | [`etf`] | the External Term Format, decoded within bounds |
//! | [`effort`] | what a request may take: memory, work, time |
//! | [`digest`] | SHA-256 and MD5 |
//! | [`text`] | names that are safe to show |

#![forbid(unsafe_code)]
// What comes from outside may be anything: where something cannot be, that is an error too.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::unreachable, clippy::unwrap_used)
)]

mod atoms;
mod budget;
mod chunk;
mod code;
mod damage;
pub mod digest;
pub mod effort;
pub mod etf;
pub mod functions;
mod gzip;
mod iff;
mod info;
mod judge;
mod limits;
mod md5;
mod module;
mod opcodes;
mod operands;
mod ops;
mod parsed;
mod reader;
mod role;
pub mod shadow;
mod stop;
mod tables;
pub mod text;
pub mod verify;
mod writer;

pub use chunk::{Chunk, ChunkId};
pub use damage::Damage;
pub use judge::{Judge, Reading};
pub use limits::{LoadLimits, MOST_UNPACKED};
pub use md5::SIGNIFICANT_CHUNKS;
pub use module::{Export, Import, Module};
pub use parsed::Parsed;
pub use stop::Stop;
pub use verify::{Breach, Load, LoaderRule};
