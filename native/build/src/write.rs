//! The archive of a patch: its manifest, then its files by their paths.

use std::iter::once;

use hot_patch_core::archive::{self, Content};
use hot_patch_core::manifest::{MANIFEST, Manifest};

use crate::changes::Change;
use crate::error::Error;

/// The archive.
pub(crate) fn archive(manifest: &Manifest, changes: &[Change]) -> Result<Vec<u8>, Error> {
    let files = changes.iter().filter_map(|change| {
        let after = change.after.as_ref()?;
        Some(Content { path: &change.path, bytes: &after.bytes, executable: after.executable })
    });
    let manifest = manifest.to_json();
    Ok(archive::write(once(Content::plain(MANIFEST, &manifest)).chain(files))?)
}
