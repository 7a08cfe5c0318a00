//! The command `inspect`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hot_patch_core::{Options, read_archive};

use crate::cli::Inspect;
use crate::report::Report;
use crate::table;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    Refused,
    Unusable,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        ExitCode::from(match verdict {
            Verdict::Accepted => 0,
            Verdict::Refused => 1,
            Verdict::Unusable => 2,
        })
    }
}

/// Why there is nothing to say about the archives.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Reads all archives and says what they hold.
pub(crate) fn run(args: &Inspect) -> Result<(String, Verdict), Error> {
    let options = args.options();
    let mut reports = Vec::new();
    for path in &args.files {
        let bytes =
            read(path, &options).map_err(|source| Error::Read { path: path.clone(), source })?;
        reports.push(Report::new(path, &read_archive(&bytes, &options)));
    }
    let accepted = reports.iter().all(Report::is_accepted);
    let output = if args.json {
        serde_json::to_string_pretty(&reports)? + "\n"
    } else {
        reports.iter().map(table::render).collect::<Vec<_>>().join("\n")
    };
    Ok((output, if accepted { Verdict::Accepted } else { Verdict::Refused }))
}

/// Reads no more of a file than shows that it is too large.
fn read(path: &Path, options: &Options) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = options.max_archive_bytes.saturating_add(1);
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
