//! Puts a signature into an archive.

use std::iter::once;

use hot_patch_beam::Stop;

use crate::archive::{self, Content, WriteError};
use crate::composition::Composition;
use crate::manifest::{MANIFEST, SIGNATURE, Signature};
use crate::options::Options;
use crate::read::read_until;
use crate::refusal::Refusal;

/// Why a patch was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The archive or the signature is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It has no manifest, which is what would be signed.
    #[error("the archive has no manifest to sign: build it with `mix hot_patch.build`")]
    NoManifest,
    /// The archive with it cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The same patch with a signature, in place of any that it had.
pub fn sign(patch: &Composition<'_>, signature: &Signature) -> Result<Vec<u8>, SignError> {
    let declared = patch.manifest.as_ref().ok_or(SignError::NoManifest)?;
    let mut json = serde_json::to_vec_pretty(signature).unwrap_or_default();
    json.push(b'\n');
    let files = patch.files.iter().map(|file| Content {
        path: file.path,
        bytes: &file.bytes,
        executable: file.executable,
    });
    let manifest = Content::plain(MANIFEST, &declared.bytes);
    let signature = Content::plain(SIGNATURE, &json);
    Ok(archive::write(once(manifest).chain(files).chain(once(signature)))?)
}

/// The same of an archive and a signature as JSON.
pub(crate) fn sign_archive(
    stop: &Stop,
    (archive, signature): (&[u8], &[u8]),
    options: &Options,
) -> Result<Vec<u8>, SignError> {
    let patch = read_until(stop, archive, options)?;
    sign(&patch, &Signature::read(signature)?)
}
