//! Reads HotPatch archives: zip files of BEAM files, from hands that are not trusted.
//!
//! [`read_archive`] takes bytes and gives either a [`Composition`], whose files are exactly what
//! was validated, or a [`Refusal`] that names the [`Rule`] broken. It makes no atoms, and bounds every count, size and depth before it acts on it.
//!
//! | module | concept |
//! |---|---|
//! | [`analysis`] | what a change of modules means: order, states, what breaks |
//! | [`archive`] | the zip policy: which archives are accepted |
//! | [`beam`] | one BEAM file: names, tables, MD5; copies of it under another name |
//! | [`beam::verify`] | the rules that a module must keep before it comes before a loader |
//! | [`manifest`] | what the one who built an archive says of it, and its signature |
//! | [`etf`] | the External Term Format, decoded within bounds |
//! | [`requests`] | what can be asked from outside, by name: the same for the NIF and the port |
//! | [`build`] | a patch out of two builds, the only part that reads files |
//! | [`reply`] | the result as one Erlang term, for the NIF and the port |
//! | [`json`] | Erlang terms as JSON |

#![forbid(unsafe_code)]
// What comes from outside may be anything: where something cannot be, that is an error too.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::unreachable, clippy::unwrap_used)
)]

pub mod analysis;
pub mod archive;
pub mod beam;
mod budget;
pub mod build;
mod composition;
mod digest;
mod effort;
pub mod etf;
pub mod json;
pub mod manifest;
mod options;
mod read;
mod refusal;
pub mod reply;
pub mod requests;
mod stop;
mod text;
mod workers;

pub use composition::{Composition, Fault, File, Kind};
pub use digest::{Md5Sum, Sha256Sum};
pub use options::{ChunkId, LoadLimits, Options, SIGNIFICANT_CHUNKS};
pub use read::read_archive;
pub use refusal::{Refusal, Rule};
pub use stop::Stop;
pub use text::{named, visible};
