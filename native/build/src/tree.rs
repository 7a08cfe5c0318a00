//! The files of a build that matter, from a folder or a tar, by their paths from the root of the
//! build: `lib/APP-VSN/ebin/...`, `releases/VSN/...`.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

mod tar;

use crate::changes::Build;
use crate::error::Error;

/// More folders within each other mean a link that leads back.
const DEEPEST: usize = 40;

/// A file of a build.
#[derive(Debug)]
pub(crate) struct Content {
    place: Place,
    /// Whether its owner may run it.
    pub(crate) executable: bool,
}

/// Where the bytes of a file are.
#[derive(Debug)]
enum Place {
    OnDisk(PathBuf),
    InMemory(Vec<u8>),
    /// A link in a tar, which only matters if it is of what is taken.
    Link {
        tar: PathBuf,
        entry: String,
    },
}

impl Content {
    pub(crate) fn read(&self) -> Result<Cow<'_, [u8]>, Error> {
        match &self.place {
            Place::OnDisk(path) => fs::read(path).map(Cow::Owned).map_err(|e| at(path, e)),
            Place::InMemory(bytes) => Ok(Cow::Borrowed(bytes)),
            Place::Link { tar, entry } => {
                Err(Error::Link { tar: tar.clone(), entry: entry.clone() })
            }
        }
    }

    /// As a file of which nobody asks whether it is a module.
    pub(crate) fn plain(&self) -> Result<Build, Error> {
        let bytes = self.read()?.into_owned();
        Ok(Build { bytes, executable: self.executable, module: None })
    }
}

#[cfg(unix)]
fn is_executable(about: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    about.permissions().mode() & 0o100 != 0
}

#[cfg(not(unix))]
fn is_executable(_about: &fs::Metadata) -> bool {
    false
}

/// A path from the root, and its content.
pub(crate) type Files = Vec<(String, Content)>;

/// All files of the build at `path`; `most` are the most bytes that a tar may be unpacked to.
pub(crate) fn read(path: &Path, most: Option<u64>) -> Result<Files, Error> {
    let about = fs::metadata(path).map_err(|error| at(path, error))?;
    let mut files = if about.is_dir() { folder(path)? } else { tar::read(path, most)? };
    if !files.iter().any(|(name, _)| matches!(parts(name)[..], ["lib", _, "ebin", _])) {
        return Err(Error::NoBuild(path.to_owned()));
    }
    // What HotPatch has staged there is of no build.
    files.retain(|(name, _)| !name.contains(".hot_patch-"));
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(files)
}

pub(crate) fn parts(path: &str) -> Vec<&str> {
    path.split('/').collect()
}

/// Whether a file or folder is of the build's code, or says what the build is.
fn is_wanted(path: &str) -> bool {
    matches!(
        parts(path)[..],
        ["lib" | "releases" | "consolidated"]
            | ["lib" | "releases" | "consolidated", _]
            | ["lib", _, "ebin" | "priv" | "consolidated", ..]
            | ["releases", _, _]
            | ["releases", _, "consolidated", _]
    )
}

/// Whether it is of an application or of a version of the release, whatever it is; a script that
/// starts it; or of its runtime system.
fn is_of_release(path: &str) -> bool {
    matches!(parts(path)[..], ["lib" | "releases", _, _, ..] | ["bin"] | ["bin", _])
        || is_of_runtime(path)
}

/// Whether it is of a runtime system that comes with the release.
fn is_of_runtime(path: &str) -> bool {
    path.starts_with("erts-")
}

fn folder(path: &Path) -> Result<Files, Error> {
    let mut files = Vec::new();
    let prefix = prefix(path)?;
    // Of a release all of an application may be wanted; elsewhere there is more than code.
    let whole = path.join("releases").is_dir();
    walk(path, &prefix, whole, 0, &mut files)?;
    Ok(files)
}

/// What the folder is called below the root: it may also be `lib` itself, or one application.
fn prefix(path: &Path) -> Result<String, Error> {
    if path.join("lib").is_dir() {
        return Ok(String::new());
    }
    if path.join("ebin").is_dir() {
        let real = fs::canonicalize(path).map_err(|error| at(path, error))?;
        let name = real.file_name().and_then(|name| name.to_str());
        return Ok(format!("lib/{}", name.ok_or_else(|| Error::Name(path.to_owned()))?));
    }
    Ok("lib".to_owned())
}

fn walk(
    path: &Path,
    prefix: &str,
    whole: bool,
    depth: usize,
    files: &mut Files,
) -> Result<(), Error> {
    if depth > DEEPEST {
        return Err(Error::TooDeep(path.to_owned()));
    }
    for entry in fs::read_dir(path).map_err(|error| at(path, error))? {
        let entry = entry.map_err(|error| at(path, error))?;
        let file_name = entry.file_name();
        let name = file_name.to_str().ok_or_else(|| Error::Name(entry.path()))?;
        let relative = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        if !(is_wanted(&relative) || (whole && is_of_release(&relative))) {
            continue;
        }
        // Links are followed: `_build` has the source's priv behind one.
        let about = fs::metadata(entry.path()).map_err(|error| at(&entry.path(), error))?;
        if about.is_dir() {
            walk(&entry.path(), &relative, whole, depth + 1, files)?;
        } else if about.is_file() {
            let executable = is_executable(&about);
            files.push((relative, Content { place: Place::OnDisk(entry.path()), executable }));
        }
    }
    Ok(())
}

fn at(path: &Path, source: io::Error) -> Error {
    Error::Read { path: path.to_owned(), source }
}
