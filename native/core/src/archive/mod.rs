//! The zip policy: which archives are accepted.
//!
//! Only archives that every reader understands the same way are. They are read from the end
//! record through the directory to the local headers; each field that is there twice must say
//! the same, and each byte must belong to one part. Accepted are:
//!
//! * entries that are stored or deflated, with or without data descriptors;
//! * folders as entries of their own, which are checked and not listed;
//! * what the Mac's Archive Utility adds, which is checked as all else is, and named, and no file
//!   of the patch;
//! * comments: of an entry; of the archive, if it ends with the archive and holds no zip record;
//! * extra fields that carry times, owners and the like, as zip tools write them by default.
//!
//! What is refused, and why, is in [`Rule`].

mod attributes;
mod central;
mod end;
mod extra;
mod fields;
mod inflate;
mod layout;
mod leftovers;
mod local;
mod names;
mod second_reader;
mod signature;
mod tree;
mod write;

use std::fmt::Display;

use crate::options::Options;
use crate::refusal::{Refusal, Rule};
use central::{Central, Method};
pub(crate) use inflate::Unpacker;
pub use leftovers::is_of_mac;
pub use names::check as check_name;
pub use write::{Content, WriteError, write};

/// An entry whose headers keep all rules. Its content is still to be unpacked and checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) crc32: u32,
    /// Whether its owner may run it.
    pub(crate) executable: bool,
    method: Method,
    packed: &'a [u8],
    size: u32,
}

impl Entry<'_> {
    pub(crate) fn is_folder(&self) -> bool {
        self.name.ends_with('/')
    }

    /// The size it declares.
    pub(crate) fn size(&self) -> usize {
        usize::try_from(self.size).unwrap_or(usize::MAX)
    }

    /// A measure of the work to unpack and hash it.
    pub(crate) fn packed_size(&self) -> usize {
        self.packed.len()
    }

    pub(crate) fn refuse(&self, rule: Rule, detail: impl Display) -> Refusal {
        Refusal::entry(rule, self.name.as_bytes(), detail)
    }
}

/// Reads the structure of an archive and checks it against every rule that needs no unpacking.
/// The declared sizes add up to no more than the limit.
pub(crate) fn entries<'a>(bytes: &'a [u8], options: &Options) -> Result<Vec<Entry<'a>>, Refusal> {
    check_size(bytes, options)?;
    let end = end::find(bytes)?;
    check_count(bytes, &end, options)?;
    layout::check_directory(bytes, &end)?;
    let central = central::read(bytes, &end, options)?;
    tree::check(central.iter().map(|entry| entry.name))?;
    let data = layout::check_entries(bytes, &central, end.directory, options)?;
    check_totals(&central, options)?;
    second_reader::check(bytes, &central)?;
    Ok(central
        .into_iter()
        .zip(data)
        .map(|(entry, data)| Entry {
            name: entry.name,
            crc32: entry.crc32,
            executable: entry.executable,
            method: entry.method,
            packed: bytes.get(data).unwrap_or_default(),
            size: entry.size,
        })
        .collect())
}

fn check_size(bytes: &[u8], options: &Options) -> Result<(), Refusal> {
    let limit = options.max_archive_bytes;
    if bytes.len() as u64 > limit {
        // How much larger is not said: who sends it need send no more than shows that it is.
        let detail = format!("it is larger than the limit of {limit} bytes");
        return Err(Refusal::archive(Rule::ArchiveTooBig, detail));
    }
    Ok(())
}

fn check_count(bytes: &[u8], end: &end::End, options: &Options) -> Result<(), Refusal> {
    let limit = options.max_entries;
    if u32::from(end.entries) > limit {
        let detail = format!("it has {} entries; the limit is {limit}", end.entries);
        return Err(Refusal::archive(Rule::TooManyEntries, detail));
    }
    if end.entries == 0 && end.position == 0 {
        return Err(Refusal::archive(Rule::EmptyArchive, "it holds no file"));
    }
    if end.entries == 0 && end.directory_size == 0 {
        return Err(layout::unclaimed(bytes, end));
    }
    Ok(())
}

fn check_totals(entries: &[Central<'_>], options: &Options) -> Result<(), Refusal> {
    let limit = options.max_unpacked_bytes;
    let total: u64 = entries.iter().map(|entry| u64::from(entry.size)).sum();
    if total > limit {
        let detail = format!("it unpacks to {total} bytes; the limit is {limit}");
        return Err(Refusal::archive(Rule::UnpackedTooBig, detail));
    }
    if entries.iter().all(Central::is_folder) {
        return Err(Refusal::archive(Rule::EmptyArchive, "it holds only folders"));
    }
    Ok(())
}
