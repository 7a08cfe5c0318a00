//! How a command ended.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use hot_patch_beam::text::named;

/// What the exit code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    Bad,
    Unusable,
}

impl Verdict {
    pub(crate) fn good_if(good: bool) -> Self {
        if good { Verdict::Good } else { Verdict::Bad }
    }
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        ExitCode::from(match verdict {
            Verdict::Good => 0,
            Verdict::Bad => 1,
            Verdict::Unusable => 2,
        })
    }
}

/// What there is to print, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) verdict: Verdict,
}

/// Why there is nothing to say.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read {}: {source}", named(path))]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: refused ({rule}), so that there is nothing to compare. {message}", named(path))]
    Refused { path: PathBuf, rule: &'static str, message: String },
    #[error("there is no command {0:?} to describe")]
    NoCommand(String),
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("cannot write the manual page: {0}")]
    Man(#[from] io::Error),
}
