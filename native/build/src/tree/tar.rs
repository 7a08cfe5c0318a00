//! A build from a tar, packed or not. Its entries are judged as those of a zip are: each name for
//! what it is, each once, and nothing behind the end.

use std::cell::Cell;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::rc::Rc;

use flate2::bufread::GzDecoder;
use hot_patch_core::archive::check_name;
use tar::{Archive, Entry, EntryType};

use super::{Content, Files, Place, at, is_of_release, is_wanted};
use crate::error::Error;

/// The longest name of an entry, in bytes.
const LONGEST_NAME: u32 = 1024;

pub(super) fn read(path: &Path, most: Option<u64>) -> Result<Files, Error> {
    let mut file = BufReader::new(File::open(path).map_err(|error| at(path, error))?);
    let mut start = [0; 2];
    let known = file.read(&mut start).map_err(|error| at(path, error))?;
    let rest = io::Cursor::new(start.get(..known).unwrap_or_default().to_vec()).chain(file);
    match start {
        [0x1f, 0x8b] => {
            let mut packed = GzDecoder::new(rest);
            let files = entries(path, &mut packed, most)?;
            match packed.into_inner().read(&mut [0]) {
                Ok(0) => Ok(files),
                Ok(_) => Err(refused(path, "it goes on behind its end")),
                Err(error) => Err(at(path, error)),
            }
        }
        _ => entries(path, rest, most),
    }
}

/// Reads to the end, so that a checksum there counts.
fn entries(path: &Path, bytes: impl Read, most: Option<u64>) -> Result<Files, Error> {
    let left = Rc::new(Cell::new(most.unwrap_or(u64::MAX)));
    let mut bytes = Bounded { bytes, left: Rc::clone(&left) };
    let broken = |_: io::Error| match left.get() {
        0 => refused(path, "it is unpacked to more bytes than are allowed"),
        _ => Error::NoBuild(path.to_owned()),
    };
    let mut files = Vec::new();
    let mut seen = HashSet::new();
    let mut archive = Archive::new(&mut bytes);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = name(path, &entry)?;
        if name.is_empty() || entry.header().entry_type().is_dir() {
            continue;
        }
        if !seen.insert(name.clone()) {
            return Err(refused(path, &format!("it has {name} twice")));
        }
        if is_wanted(&name) || is_of_release(&name) {
            let content = content(path, &name, &mut entry).map_err(|error| match left.get() {
                0 => refused(path, "it is unpacked to more bytes than are allowed"),
                _ => error,
            })?;
            files.push((name, content));
        }
    }
    let mut rest = [0; 8192];
    loop {
        match bytes.read(&mut rest).map_err(broken)? {
            0 => return Ok(files),
            read if rest.get(..read).is_some_and(|rest| rest.iter().all(|byte| *byte == 0)) => {}
            _ => return Err(refused(path, "it goes on behind its end")),
        }
    }
}

/// Its path from the root of the build; empty for that root itself.
fn name<R: Read>(path: &Path, entry: &Entry<'_, R>) -> Result<String, Error> {
    let bytes = entry.path_bytes().into_owned();
    let name = String::from_utf8(bytes).map_err(|_| Error::Name(path.to_owned()))?;
    let name = name.strip_prefix("./").unwrap_or(&name);
    let plain = name.strip_suffix('/').unwrap_or(name);
    if plain.is_empty() || plain == "." {
        return Ok(String::new());
    }
    match check_name(plain.as_bytes(), LONGEST_NAME) {
        Ok(plain) => Ok(plain.to_owned()),
        Err(refusal) => Err(refused(path, &refusal.message)),
    }
}

fn content<R: Read>(path: &Path, name: &str, entry: &mut Entry<'_, R>) -> Result<Content, Error> {
    let executable = entry.header().mode().is_ok_and(|mode| mode & 0o100 != 0);
    match entry.header().entry_type() {
        EntryType::Symlink | EntryType::Link => {
            let place = Place::Link { tar: path.to_owned(), entry: name.to_owned() };
            Ok(Content { place, executable: false })
        }
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|error| at(path, error))?;
            Ok(Content { place: Place::InMemory(bytes), executable })
        }
        _ => Err(refused(path, &format!("{name} is neither a file nor a folder"))),
    }
}

fn refused(path: &Path, why: &str) -> Error {
    Error::Tar { tar: path.to_owned(), why: why.to_owned() }
}

/// Bytes, up to a limit.
struct Bounded<R> {
    bytes: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(into)?;
        let left = self.left.get().saturating_sub(read as u64);
        self.left.set(left);
        if left == 0 && read > 0 { Err(io::Error::other("too many bytes")) } else { Ok(read) }
    }
}
