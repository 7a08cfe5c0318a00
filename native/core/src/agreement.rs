//! A manifest must fit the files of the archive it is in.

use std::collections::{HashMap, HashSet};

use hot_patch_beam::text::printable;

use crate::composition::{File, Kind};
use crate::manifest::{FileEntry, MANIFEST, Manifest, Version};
use crate::refusal::{Refusal, Rule};

/// Checks that the manifest covers exactly these files, and says of each what it is. What an upgrade
/// only puts on disk is no module from then on, whatever is in it.
pub(crate) fn covers(manifest: &Manifest, files: &mut [File<'_>]) -> Result<(), Refusal> {
    if let Some(upgrade) = &manifest.upgrade {
        let paths: HashSet<&str> = files.iter().map(|file| file.path).collect();
        for file in files.iter_mut().filter(|file| upgrade.is_data(file.path, &paths)) {
            file.kind = Kind::Other;
        }
    }
    let mut listed: HashMap<&str, &FileEntry> =
        manifest.files.iter().map(|file| (file.path.as_str(), file)).collect();
    for file in files {
        let Some(entry) = listed.remove(file.path) else {
            let detail = format!("is not in the manifest ({MANIFEST})");
            return Err(Refusal::entry(Rule::ManifestUnlisted, file.path.as_bytes(), detail));
        };
        covers_file(entry, file)?;
    }
    match listed.keys().min() {
        None => Ok(()),
        Some(path) => {
            let path = printable(path.as_bytes());
            let detail = format!("lists \"{path}\", which is not in the archive");
            Err(Refusal::entry(Rule::ManifestMissing, MANIFEST.as_bytes(), detail))
        }
    }
}

fn covers_file(entry: &FileEntry, file: &File<'_>) -> Result<(), Refusal> {
    let refuse = |rule, detail: String| Err(Refusal::entry(rule, file.path.as_bytes(), detail));
    if entry.sha256.0 != file.sha256 {
        let detail = format!("does not have the SHA-256 of the manifest, {}", entry.sha256);
        return refuse(Rule::ManifestDigest, detail);
    }
    let module = match &file.kind {
        Kind::Beam(module) => Some((module.name(), Version::of(module))),
        Kind::Damaged(_) | Kind::Other => None,
    };
    let declared = entry.module.as_ref().map(|module| (module.name.as_str(), &module.brings));
    match (module, declared) {
        (None, None) => Ok(()),
        (Some((name, version)), Some((other, brings))) if name == other && version == *brings => {
            Ok(())
        }
        _ => {
            let detail = "is another module, or another version of it, than the manifest says";
            refuse(Rule::ManifestModule, detail.to_owned())
        }
    }
}
