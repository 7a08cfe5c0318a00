//! Why a request was not carried out.

use hot_patch_beam::etf;

/// Why a request could not be carried out. An archive that is refused is no failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// There is no request of this name.
    #[error("there is no request \"{0}\"")]
    Unknown(String),
    /// Its blobs or options are not those it takes.
    #[error("{0}")]
    BadRequest(String),
    /// Nobody waits for it any more.
    #[error("it was cancelled")]
    Cancelled,
    /// A bug of ours.
    #[error("a bug in the archive reader: {0}")]
    Internal(String),
    /// The system gave no memory.
    #[error("there is no memory for {0}")]
    OutOfMemory(&'static str),
    /// A file that was named instead of bytes cannot be read.
    #[error("{0}")]
    File(String),
}

impl Failure {
    /// The name of its kind, which crosses to Erlang as an atom.
    pub fn kind(&self) -> &'static str {
        match self {
            Failure::Unknown(_) => "unknown_request",
            Failure::BadRequest(_) => "bad_request",
            Failure::Cancelled => "cancelled",
            Failure::Internal(_) => "internal",
            Failure::OutOfMemory(_) => "no_memory",
            Failure::File(_) => "file",
        }
    }
}

impl From<etf::DecodeError> for Failure {
    fn from(error: etf::DecodeError) -> Self {
        Failure::BadRequest(format!("the options are no term: {error}"))
    }
}
