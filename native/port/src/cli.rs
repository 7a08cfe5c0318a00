//! What can be asked on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use hot_patch_core::Options;

const EXIT_CODES: &str = "\
Exit codes:
  0  every archive is accepted
  1  at least one archive is refused; the output says by which rule
  2  wrong usage, or a file cannot be read

Examples:
  hot_patch inspect fix-42.zip
  hot_patch inspect --json patches/*.zip | jq '.[].files[].module'";

/// Look into HotPatch archives.
#[derive(Debug, Parser)]
#[command(name = "hot_patch", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say what archives hold, or why they are refused
    ///
    /// Reads each archive by the rules a running system applies before it accepts a patch.
    /// Nothing is unpacked to disk and no code is run. A file that is a damaged module is
    /// listed with the reason; it does not make the archive refused.
    #[command(after_help = EXIT_CODES)]
    Inspect(Inspect),

    Build(Box<crate::build::Build>),
}

#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// Archives to read
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,

    /// Print JSON: an array with one object for each archive
    #[arg(long)]
    pub(crate) json: bool,

    /// The largest archive accepted, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Options::default().max_archive_bytes)]
    max_archive: u64,

    /// The most bytes that an archive may unpack to
    #[arg(long, value_name = "BYTES", default_value_t = Options::default().max_unpacked_bytes)]
    max_unpacked: u64,

    /// The most entries in an archive
    #[arg(long, value_name = "COUNT", default_value_t = Options::default().max_entries)]
    max_entries: u32,
}

impl Inspect {
    pub(crate) fn options(&self) -> Options {
        Options {
            max_archive_bytes: self.max_archive,
            max_unpacked_bytes: self.max_unpacked,
            max_entries: self.max_entries,
            ..Options::default()
        }
    }
}
