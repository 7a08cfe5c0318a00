//! Writes archives, always the same bytes for the same content.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::changes::Change;
use super::error::Error;
use crate::composition::Composition;
use crate::manifest::{MANIFEST, Manifest, SIGNATURE, Signature};

/// The archive of a patch: its manifest, then its files by their paths.
pub(super) fn archive(manifest: &Manifest, changes: &[Change]) -> Result<Vec<u8>, Error> {
    let files = changes.iter().filter_map(|change| {
        let after = change.after.as_ref()?;
        Some(Content { path: &change.path, bytes: &after.bytes, executable: after.executable })
    });
    write(&manifest.to_json(), files, None)
}

/// The same patch with a signature, in place of any that it had. None without a manifest: there
/// is nothing to sign.
pub fn sign(patch: &Composition<'_>, signature: &Signature) -> Option<Result<Vec<u8>, Error>> {
    let declared = patch.manifest.as_ref()?;
    let mut json = serde_json::to_vec_pretty(signature).unwrap_or_default();
    json.push(b'\n');
    let files = patch.files.iter().map(|file| Content {
        path: file.path,
        bytes: &file.bytes,
        executable: file.executable,
    });
    Some(write(&declared.bytes, files, Some(&json)))
}

/// A file of an archive that is written.
struct Content<'a> {
    path: &'a str,
    bytes: &'a [u8],
    executable: bool,
}

impl<'a> Content<'a> {
    fn plain(path: &'a str, bytes: &'a [u8]) -> Self {
        Self { path, bytes, executable: false }
    }
}

fn write<'a>(
    manifest: &[u8],
    files: impl Iterator<Item = Content<'a>>,
    signature: Option<&[u8]>,
) -> Result<Vec<u8>, Error> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    put(&mut zip, &Content::plain(MANIFEST, manifest))?;
    for file in files {
        put(&mut zip, &file)?;
    }
    if let Some(signature) = signature {
        put(&mut zip, &Content::plain(SIGNATURE, signature))?;
    }
    Ok(zip.finish()?.into_inner())
}

fn put(zip: &mut ZipWriter<Cursor<Vec<u8>>>, file: &Content<'_>) -> Result<(), Error> {
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
