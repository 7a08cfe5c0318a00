//! Builds for tests, and what is made of them.

pub(crate) mod shop;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use hot_patch_beam::SIGNIFICANT_CHUNKS;
use hot_patch_build::{Built, Error, Progress, Request, build};
use hot_patch_core::manifest::Manifest;

use crate::beam::{AtomFormat, Beam, atom_chunk, minimal};

/// The module `name` in the version `vsn`.
pub(crate) fn module(name: &str, vsn: u8) -> Beam {
    minimal(AtomFormat::Utf8).with(b"AtU8", atoms(name)).with(b"Attr", attributes(vsn))
}

pub(crate) fn atoms(name: &str) -> Vec<u8> {
    atom_chunk(AtomFormat::Utf8, &[name, "f", "module_info", "erlang", "+"]).1
}

/// `[{vsn, [Vsn]}]`
pub(crate) fn attributes(vsn: u8) -> Vec<u8> {
    let mut chunk = b"\x83l\0\0\0\x01h\x02w\x03vsnk\0\x01".to_vec();
    chunk.extend([vsn, b'j']);
    chunk
}

/// A folder for one test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("build").join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn put(&self, path: &str, bytes: &[u8]) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// The same as a tar, packed or not.
    pub(crate) fn tar(&self, packed: bool) -> PathBuf {
        let path = self.0.with_extension(if packed { "tar.gz" } else { "tar" });
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_dir_all(".", &self.0).unwrap();
        let bytes = tar.into_inner().unwrap();
        let file = fs::File::create(&path).unwrap();
        if packed {
            let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            gzip.write_all(&bytes).unwrap();
            gzip.finish().unwrap();
        } else {
            (&file).write_all(&bytes).unwrap();
        }
        path
    }
}

pub(crate) fn request(from: &Path, to: &Path) -> Request {
    Request::new(Some(from.to_owned()), to.to_owned(), "fix".to_owned())
}

pub(crate) fn try_build(request: &Request) -> Result<Built, Error> {
    build(request, &SIGNIFICANT_CHUNKS, &Progress::new())
}

pub(crate) fn built(request: &Request) -> Built {
    try_build(request).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn paths(manifest: &Manifest) -> Vec<&str> {
    manifest.files.iter().map(|file| file.path.as_str()).collect()
}
