//! Why no patch was built.

use std::io;
use std::path::PathBuf;

use hot_patch_beam::text::named;
use hot_patch_core::archive::WriteError;

/// What stood in the way, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read.
    #[error("cannot read {}: {source}", named(path))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path leads to no build.
    #[error(
        "{} holds no build: expected a release or its tar, _build/ENV, or a folder with \
         applications (APP/ebin)", named(.0)
    )]
    NoBuild(PathBuf),
    /// A name that no archive may have.
    #[error("{} has a name that is not UTF-8: a patch cannot carry it, rename it", named(.0))]
    Name(PathBuf),
    /// Folders within folders without end.
    #[error("{} is nested too deep: is there a link that leads back?", named(.0))]
    TooDeep(PathBuf),
    /// A link in a tar.
    #[error("{tar}: {entry} is a link: make the tar with links followed (tar -h), or name a folder",
        tar = named(tar))]
    Link {
        /// The archive.
        tar: PathBuf,
        /// The entry.
        entry: String,
    },
    /// A tar that is not what release tools write.
    #[error("{}: {why}. Make the tar again, as `mix release` or rebar3 does", named(tar))]
    Tar {
        /// The archive.
        tar: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Two versions of one application.
    #[error(
        "{}: there are {one} and {other}, and no release says which of them runs: \
         remove the one that does not",
        named(root)
    )]
    TwoVersions {
        /// The build.
        root: PathBuf,
        /// A folder.
        one: String,
        /// Another for the same application.
        other: String,
    },
    /// A module that cannot be read.
    #[error("{file}: {what} Compile it again.")]
    Damaged {
        /// The file.
        file: String,
        /// What is wrong, as a sentence.
        what: String,
    },
    /// A module was asked for that is not there.
    #[error("no module {0} in the build: compile it first, and mind the spelling")]
    UnknownModule(String),
    /// Neither two builds nor a choice.
    #[error(
        "nothing says what to take: give the build that runs (--from), or the modules (--modules)"
    )]
    NothingAsked,
    /// There is nothing to patch.
    #[error(
        "nothing differs in {compared} files: a patch would change nothing. \
         Are these the right two builds, and was the repaired one compiled?"
    )]
    NothingChanged {
        /// How many files were compared.
        compared: usize,
    },
    /// Two releases that no upgrade leads between.
    #[error("{0}")]
    NoUpgrade(String),
    /// Something is accepted that is not there.
    #[error(
        "--accept {accepted} matches nothing that was found: leave it out, or correct its name \
         (NAME or NAME:MODULE). Found: {found}"
    )]
    NothingToAccept {
        /// What was accepted.
        accepted: String,
        /// What was found, as it would be accepted.
        found: String,
    },
    /// Nobody waits for it any more.
    #[error("the build was stopped, and nothing was written")]
    Stopped,
    /// The archive cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}
