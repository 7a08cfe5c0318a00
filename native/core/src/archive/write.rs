//! Writes archives, always the same bytes for the same content.

use std::io::{self, Cursor, Write};

use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// A file of an archive that is written.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Its path.
    pub path: &'a str,
    /// What it holds.
    pub bytes: &'a [u8],
    /// Whether its owner may run it.
    pub executable: bool,
}

impl<'a> Content<'a> {
    /// One that nobody runs.
    pub fn plain(path: &'a str, bytes: &'a [u8]) -> Self {
        Self { path, bytes, executable: false }
    }
}

/// An archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// It is more than an archive can hold, or is named as no entry may be.
    #[error("cannot write the archive: {0}")]
    Zip(#[from] ZipError),
    /// Its content could not be packed.
    #[error("cannot write the archive: {0}")]
    Pack(#[from] io::Error),
}

/// The archive of these files, in this order.
pub fn write<'a>(files: impl IntoIterator<Item = Content<'a>>) -> Result<Vec<u8>, WriteError> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for file in files {
        put(&mut zip, &file)?;
    }
    Ok(zip.finish()?.into_inner())
}

fn put(zip: &mut ZipWriter<Cursor<Vec<u8>>>, file: &Content<'_>) -> Result<(), WriteError> {
    // Neither the time nor the rights of the file on the building machine, which would make two
    // builds of the same differ; but whether it is a program is part of what it is.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default())
        .unix_permissions(if file.executable { 0o755 } else { 0o644 });
    zip.start_file(file.path, options)?;
    zip.write_all(file.bytes)?;
    Ok(())
}
