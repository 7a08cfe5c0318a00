//! Archives as files, and the limits under which they are read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use clap::Args;
use hot_patch_beam::SIGNIFICANT_CHUNKS;
use hot_patch_core::Options;

use crate::load_args::LoadArgs;
use crate::outcome::Error;

/// The limits on an archive, as options of the command line.
#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// The largest archive accepted, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Options::default().max_archive_bytes)]
    max_archive: u64,

    /// The most bytes that an archive may unpack to
    #[arg(long, value_name = "BYTES", default_value_t = Options::default().max_unpacked_bytes)]
    max_unpacked: u64,

    /// The most entries in an archive
    #[arg(long, value_name = "COUNT", default_value_t = Options::default().max_entries)]
    max_entries: u32,

    /// The longest path in an archive, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = Options::default().max_name_bytes)]
    max_name: u32,

    #[command(flatten)]
    load: LoadArgs,

    /// The OTP release of the running system: its loader decides what a module's MD5 covers
    /// (`inspect`, `diff`) and which modules it can load (`verify`)
    #[arg(long, value_name = "RELEASE")]
    pub(crate) otp: Option<u32>,
}

impl Limits {
    pub(crate) fn options(&self) -> Options {
        let mut significant_chunks = SIGNIFICANT_CHUNKS.to_vec();
        if self.otp.is_some_and(|release| release >= 29) {
            significant_chunks.extend([*b"Recs", *b"DbgB"]);
        }
        Options {
            max_archive_bytes: self.max_archive,
            max_unpacked_bytes: self.max_unpacked,
            max_entries: self.max_entries,
            max_name_bytes: self.max_name,
            load: self.load.limits(),
            significant_chunks,
        }
    }
}

/// Reads no more of a file than shows that it is too large.
pub(crate) fn read(path: &Path, options: &Options) -> Result<Vec<u8>, Error> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let most = options.max_archive_bytes.saturating_add(1);
        File::open(path)?.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| Error::Read { path: path.to_owned(), source })
}
