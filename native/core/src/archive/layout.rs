//! Every byte of an archive must belong to exactly one part of it.

use std::ops::Range;

use super::central::Central;
use super::end::{self, End};
use super::fields::has;
use super::local::{self, Data};
use super::signature;
use crate::options::Options;
use crate::refusal::{Refusal, Rule};

/// Checks that the directory ends where the end record begins.
pub(super) fn check_directory(bytes: &[u8], end: &End) -> Result<(), Refusal> {
    let claimed_end = end.directory.saturating_add(end.directory_size);
    if claimed_end > end.position {
        let detail = "its directory reaches beyond its end record";
        return Err(Refusal::archive(Rule::BadDirectory, detail));
    }
    let shift = end.position - claimed_end;
    if shift == 0 {
        return Ok(());
    }
    // Either the whole archive was moved by bytes put before it, or the bytes lie here.
    let moved = end.directory.saturating_add(shift);
    if !has(bytes, end.directory, signature::CENTRAL) && has(bytes, moved, signature::CENTRAL) {
        return Err(before_first(bytes, shift));
    }
    let detail = format!("{shift} bytes lie between its directory and its end record");
    Err(Refusal::archive(Rule::Gap, detail))
}

/// Checks the local headers, and that headers, data and descriptors fill the archive from its
/// first byte to the directory. Returns where the data of each entry lies.
pub(super) fn check_entries(
    bytes: &[u8],
    entries: &[Central<'_>],
    directory: usize,
    options: &Options,
) -> Result<Vec<Range<usize>>, Refusal> {
    let mut data = Vec::with_capacity(entries.len());
    for entry in entries {
        data.push(local::check(bytes, entry, options)?);
    }
    let mut order: Vec<(&Central<'_>, Data)> = entries.iter().zip(data.iter().copied()).collect();
    order.sort_by_key(|(entry, _)| entry.offset);
    let starts = order.iter().map(|(entry, _)| entry.offset).skip(1).chain([directory]);
    let mut filled = 0;
    for ((entry, data), next) in order.iter().zip(starts) {
        check_start(bytes, entry, filled)?;
        filled = data.end;
        if entry.has_descriptor() {
            filled = local::descriptor_end(bytes, entry, *data, next)?;
        }
        if filled > next {
            let detail = "shares bytes with what follows it";
            return Err(Refusal::entry(Rule::Overlap, entry.name.as_bytes(), detail));
        }
    }
    if filled < directory {
        return Err(between(bytes, filled, directory));
    }
    Ok(data.into_iter().map(|data| data.start..data.end).collect())
}

fn check_start(bytes: &[u8], entry: &Central<'_>, filled: usize) -> Result<(), Refusal> {
    match entry.offset {
        start if start == filled => Ok(()),
        start if filled == 0 => Err(before_first(bytes, start)),
        start => Err(between(bytes, filled, start)),
    }
}

/// Refuses the bytes before the end record of an archive that lists no entry.
pub(super) fn unclaimed(bytes: &[u8], end: &End) -> Refusal {
    before_first(bytes, end.position)
}

/// Refuses the `count` bytes before the first entry.
fn before_first(bytes: &[u8], count: usize) -> Refusal {
    let before = bytes.get(..count).unwrap_or_default();
    if end::closes(before) {
        return Refusal::archive(Rule::SecondArchive, "another archive stands before it");
    }
    if has(bytes, 0, signature::LOCAL) {
        return hidden(0);
    }
    Refusal::archive(Rule::Prefix, format!("{count} bytes stand before its first entry"))
}

/// Refuses the bytes from `from` to `to`, which no entry claims.
fn between(bytes: &[u8], from: usize, to: usize) -> Refusal {
    if has(bytes, from, signature::LOCAL) {
        return hidden(from);
    }
    let detail = format!("{} bytes at {from} belong to no entry", to - from);
    Refusal::archive(Rule::Gap, detail)
}

fn hidden(at: usize) -> Refusal {
    let detail = format!("the entry at byte {at} is not in its directory");
    Refusal::archive(Rule::HiddenEntry, detail)
}
