//! Reads HotPatch archives: zip files of BEAM files, from hands that are not trusted.
//!
//! [`read_archive`] takes bytes and gives either a [`Composition`], whose files are exactly what
//! was validated, or a [`Refusal`] that names the [`Rule`] broken. It makes no atoms, and bounds
//! every count, size and depth before it acts on it.
//!
//! | module | concept |
//! |---|---|
//! | [`archive`] | the zip policy: which archives are accepted; and how one is written |
//! | [`manifest`] | what the one who built an archive says of it, and its signature |
//! | `agreement` | that a manifest fits the files of its archive |
//! | [`read_archive`] | all of these: from bytes to a [`Composition`], or a [`Refusal`] |
//! | [`sign`] | a signature into an archive |
//! | [`appup`] | the instructions of OTP's release handler: syntax alone |
//! | [`analysis`] | what a change of modules means: order, states, what breaks, an appup |
//! | [`calls`] | where functions lead, in given modules and out of them |
//! | [`funs`] | which fun of a module is which of its next version |
//! | [`json`] | Erlang terms as JSON |
//! | [`requests`] | what can be asked from outside, by name: the same for the NIF and the port |
//! | [`reply`] | the result as one Erlang term, for the NIF and the port |
//! | [`workers`] | work spread over the processors |
//!
//! What a single module is, and Erlang terms, is the crate below, `hot_patch_beam`. What reads
//! files is above, `hot_patch_build`: nothing here opens any.

#![forbid(unsafe_code)]
// What comes from outside may be anything: where something cannot be, that is an error too.
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::unreachable, clippy::unwrap_used)
)]

mod agreement;
pub mod analysis;
pub mod appup;
pub mod archive;
pub mod calls;
mod composition;
mod failure;
pub mod funs;
pub mod json;
pub mod manifest;
mod options;
mod read;
mod refusal;
pub mod reply;
pub mod requests;
mod signing;
pub mod workers;

pub use composition::{Composition, Fault, File, Kind};
pub use failure::Failure;
pub use options::Options;
pub use read::{read_archive, read_until};
pub use refusal::{Refusal, Rule};
pub use signing::{SignError, sign};
