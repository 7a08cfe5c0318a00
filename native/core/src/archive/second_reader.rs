//! A cross-check: the `zip` crate, which many tools use, must read the archive as we do.

use std::io::Cursor;

use zip::ZipArchive;
use zip::read::{ArchiveOffset, Config};

use super::central::Central;
use crate::refusal::{Refusal, Rule};

/// Checks that the `zip` crate finds the archive consistent, and the same entries in it.
pub(super) fn check(bytes: &[u8], entries: &[Central<'_>]) -> Result<(), Refusal> {
    let refuse = |detail: &dyn std::fmt::Display| {
        Refusal::archive(
            Rule::InconsistentHeaders,
            format_args!("as a cross-check found, {detail}"),
        )
    };
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, Cursor::new(bytes))
        .and_then(|mut archive| archive.validate_header_consistency().map(|()| archive))
        .map_err(|error| {
            let error = hot_patch_beam::text::printable(error.to_string().as_bytes());
            refuse(&error)
        })?;
    if archive.len() != entries.len() {
        return Err(refuse(&"the number of entries is in doubt"));
    }
    for (index, entry) in entries.iter().enumerate() {
        if !same(&mut archive, index, entry) {
            let detail = "reads differently in another zip reader";
            return Err(Refusal::entry(Rule::InconsistentHeaders, entry.name.as_bytes(), detail));
        }
    }
    Ok(())
}

fn same(archive: &mut ZipArchive<Cursor<&[u8]>>, index: usize, entry: &Central<'_>) -> bool {
    archive.by_index_data(index).is_ok_and(|other| {
        other.name_raw() == entry.name.as_bytes()
            && other.header_start() == entry.offset as u64
            && other.compressed_size() == u64::from(entry.packed_size)
            && other.size() == u64::from(entry.size)
            && other.crc32() == entry.crc32
            && other.is_dir() == entry.is_folder()
            && !other.is_symlink()
    })
}
