//! The end of central directory record (APPNOTE 4.3.16).

use memchr::memmem;

use super::fields::{has, u16_at, u32_at};
use super::signature;
use crate::refusal::{Refusal, Rule};

/// Size of the record without its comment.
const SIZE: usize = 22;

/// Size of the zip64 locator that stands before the record if there is one (APPNOTE 4.3.15).
const ZIP64_LOCATOR_SIZE: usize = 20;

/// What the record says, and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Where the record begins, which is where the directory must end.
    pub(super) position: usize,
    /// The number of entries in the directory.
    pub(super) entries: u16,
    /// Where the directory begins.
    pub(super) directory: usize,
    /// The size of the directory.
    pub(super) directory_size: usize,
}

/// Finds the one end record. A comment behind it is accepted if it ends with the archive and
/// holds no zip signature, so that a reader which searches forwards, backwards or anywhere
/// finds the same record.
pub(super) fn find(bytes: &[u8]) -> Result<End, Refusal> {
    let position = locate(bytes)?;
    let comment = bytes.get(position + SIZE..).unwrap_or_default();
    if signature::ALL.iter().any(|record| memmem::find(comment, &record[..]).is_some()) {
        let detail = "its comment holds zip records of its own";
        return Err(Refusal::archive(Rule::SecondArchive, detail));
    }
    let locator = position.checked_sub(ZIP64_LOCATOR_SIZE);
    if locator.is_some_and(|at| has(bytes, at, signature::ZIP64_LOCATOR)) {
        return Err(Refusal::archive(Rule::Zip64, "it has a zip64 end record"));
    }
    parse(bytes, position).ok_or_else(truncated)?
}

/// Where the end record stands whose comment reaches exactly to the end of the archive.
fn locate(bytes: &[u8]) -> Result<usize, Refusal> {
    let farthest = bytes.len().saturating_sub(SIZE + usize::from(u16::MAX));
    let window = bytes.get(farthest..).unwrap_or_default();
    let mut last_miss = None;
    let mut found = None;
    for position in memmem::rfind_iter(window, signature::END).map(|at| at + farthest) {
        let Some(length) = u16_at(bytes, position + 20) else {
            last_miss = last_miss.or(Some((position, None)));
            continue;
        };
        let comment_end = position + SIZE + usize::from(length);
        if comment_end != bytes.len() {
            last_miss = last_miss.or(Some((position, Some(comment_end))));
        } else if found.replace(position).is_some() {
            let detail = "it has two end records, one in the comment of the other";
            return Err(Refusal::archive(Rule::SecondArchive, detail));
        }
    }
    match (found, last_miss) {
        // A record behind the one that fits lies in its comment.
        (Some(position), Some((miss, _))) if miss > position => {
            let detail = "the comment of its end record holds another end record";
            Err(Refusal::archive(Rule::SecondArchive, detail))
        }
        (Some(position), _) => Ok(position),
        (None, Some((_, Some(end)))) if end < bytes.len() => {
            let detail = format!("{} bytes follow its end record", bytes.len() - end);
            Err(Refusal::archive(Rule::Suffix, detail))
        }
        (None, Some(_)) => Err(truncated()),
        (None, None) => Err(no_end_record(bytes)),
    }
}

/// Whether `bytes` end with the end record of an archive.
pub(super) fn closes(bytes: &[u8]) -> bool {
    locate(bytes).is_ok()
}

fn parse(bytes: &[u8], position: usize) -> Option<Result<End, Refusal>> {
    let disk = u16_at(bytes, position + 4)?;
    let directory_disk = u16_at(bytes, position + 6)?;
    let entries_here = u16_at(bytes, position + 8)?;
    let entries = u16_at(bytes, position + 10)?;
    let size = u32_at(bytes, position + 12)?;
    let offset = u32_at(bytes, position + 16)?;
    if entries == u16::MAX || size == u32::MAX || offset == u32::MAX {
        return Some(Err(Refusal::archive(Rule::Zip64, "its end record refers to zip64 fields")));
    }
    if disk != 0 || directory_disk != 0 || entries_here != entries {
        return Some(Err(Refusal::archive(Rule::MultiDisk, "its end record names several disks")));
    }
    Some(Ok(End {
        position,
        entries,
        directory: usize::try_from(offset).ok()?,
        directory_size: usize::try_from(size).ok()?,
    }))
}

fn no_end_record(bytes: &[u8]) -> Refusal {
    if has(bytes, 0, signature::LOCAL) {
        truncated()
    } else if bytes.is_empty() {
        Refusal::archive(Rule::NotAZip, "it is empty")
    } else {
        Refusal::archive(Rule::NotAZip, "it is no zip archive")
    }
}

fn truncated() -> Refusal {
    Refusal::archive(Rule::Truncated, "it ends before it is complete")
}
