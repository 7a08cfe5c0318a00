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
    let files = changes
        .iter()
        .filter_map(|change| Some((change.path.as_str(), change.after.as_ref()?.bytes.as_slice())));
    write(&manifest.to_json(), files, None)
}

/// The same patch with a signature, in place of any that it had. None without a manifest: there
/// is nothing to sign.
pub fn sign(patch: &Composition<'_>, signature: &Signature) -> Option<Result<Vec<u8>, Error>> {
    let declared = patch.manifest.as_ref()?;
    let mut json = serde_json::to_vec_pretty(signature).unwrap_or_default();
    json.push(b'\n');
    let files = patch.files.iter().map(|file| (file.path, &*file.bytes));
    Some(write(&declared.bytes, files, Some(&json)))
}

fn write<'a>(
    manifest: &[u8],
    files: impl Iterator<Item = (&'a str, &'a [u8])>,
    signature: Option<&[u8]>,
) -> Result<Vec<u8>, Error> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    put(&mut zip, MANIFEST, manifest)?;
    for (path, bytes) in files {
        put(&mut zip, path, bytes)?;
    }
    if let Some(signature) = signature {
        put(&mut zip, SIGNATURE, signature)?;
    }
    Ok(zip.finish()?.into_inner())
}

fn put(zip: &mut ZipWriter<Cursor<Vec<u8>>>, path: &str, bytes: &[u8]) -> Result<(), Error> {
    // Neither the time nor the rights of the file on the building machine: they would make two
    // builds of the same differ.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    zip.start_file(path, options)?;
    zip.write_all(bytes)?;
    Ok(())
}
