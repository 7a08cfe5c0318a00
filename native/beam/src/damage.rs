//! Why a file is no module that can be loaded.

use crate::chunk::ChunkId;
use crate::etf::DecodeError;
use crate::verify::rule::Breach;

/// What is wrong with a BEAM file, as a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not a BEAM file at all.
    #[error("The file does not begin like a BEAM file.")]
    NotBeam,
    /// The gzip stream is damaged.
    #[error("The file is compressed with gzip, and the compressed data is damaged.")]
    Gzip,
    /// The form is larger or smaller than the file.
    #[error(
        "The file has {real} bytes and its header says {claimed}: it is cut off or was added to."
    )]
    FormSize {
        /// What the header says, with the header itself.
        claimed: u64,
        /// What there is.
        real: u64,
    },
    /// A chunk reaches beyond the end.
    #[error("The chunk at byte {0} reaches beyond the end of the file.")]
    ChunkSize(usize),
    /// A chunk is there twice.
    #[error("The chunk \"{}\" is there twice.", .0.escape_ascii())]
    DuplicateChunk(ChunkId),
    /// More chunks than any compiler makes.
    #[error("The file has more than {0} chunks.")]
    TooManyChunks(usize),
    /// A chunk without which no module loads.
    #[error("The chunk \"{}\" is missing.", .0.escape_ascii())]
    MissingChunk(ChunkId),
    /// Two atom tables.
    #[error("The file has two atom tables, \"Atom\" and \"AtU8\".")]
    TwoAtomTables,
    /// A chunk's content is malformed.
    #[error("The chunk \"{}\" is malformed: {what}.", .chunk.escape_ascii())]
    Malformed {
        /// The chunk.
        chunk: ChunkId,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A term in a chunk cannot be decoded.
    #[error("The chunk \"{}\" holds no acceptable term: {error}.", .chunk.escape_ascii())]
    Term {
        /// The chunk.
        chunk: ChunkId,
        /// What is wrong with the term.
        error: DecodeError,
    },
    /// The loader would take something on trust that is not so.
    #[error("{0}")]
    Breach(Breach),
    /// The module has another name than the file.
    #[error(
        "The file is named \"{file}\" and holds the module \"{module}\": name it \"{module}.beam\"."
    )]
    OtherName {
        /// The module's name.
        module: String,
        /// The file's name.
        file: String,
    },
    /// The system gave no memory.
    #[error("There is no memory to read the file.")]
    OutOfMemory,
}

impl From<Breach> for Damage {
    fn from(breach: Breach) -> Self {
        Damage::Breach(breach)
    }
}

impl Damage {
    /// The name of the rule that is broken; it is stable.
    pub fn rule(&self) -> &'static str {
        match self {
            Damage::NotBeam => "not_beam",
            Damage::Gzip => "gzip",
            Damage::FormSize { .. } => "form_size",
            Damage::ChunkSize(_) => "chunk_size",
            Damage::DuplicateChunk(_) => "chunk_twice",
            Damage::TooManyChunks(_) => "chunk_count",
            Damage::MissingChunk(_) => "chunk_missing",
            Damage::TwoAtomTables => "two_atom_tables",
            Damage::Malformed { .. } => "chunk_malformed",
            Damage::Term { .. } => "chunk_term",
            Damage::Breach(breach) => breach.rule.name(),
            Damage::OtherName { .. } => "other_name",
            Damage::OutOfMemory => "no_memory",
        }
    }
}

/// Why there is no module.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is none that can be loaded.
    Damage(Damage),
    /// The limit on unpacked bytes was reached.
    OverBudget,
}

impl From<Damage> for Failure {
    fn from(damage: Damage) -> Self {
        Failure::Damage(damage)
    }
}

impl From<Breach> for Failure {
    fn from(breach: Breach) -> Self {
        Failure::Damage(breach.into())
    }
}
