//! Local file headers (APPNOTE 4.3.7) and data descriptors (4.3.9), which must agree with the
//! directory.

use memchr::memmem;

use super::central::{Central, Method, check_version, flag};
use super::fields::{has, take, u16_at, u32_at};
use super::{extra, names, signature};
use crate::options::Options;
use crate::refusal::{Refusal, Rule};

const SIZE: usize = 30;

/// Where an entry's packed data lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Checks the local header of `entry` and finds its data.
pub(super) fn check(bytes: &[u8], entry: &Central<'_>, options: &Options) -> Result<Data, Refusal> {
    let refuse = |rule, detail| Refusal::entry(rule, entry.name.as_bytes(), detail);
    let header = bytes
        .get(entry.offset..)
        .and_then(Header::parse)
        .ok_or_else(|| refuse(Rule::BadLocalHeader, "has no header where the directory says"))?;
    names::check(header.name, options.max_name_bytes)?;
    extra::check(header.extra, header.name)?;
    check_version(u16_at(header.fixed, 4).unwrap_or_default(), header.name)?;
    if let Some(difference) = header.difference(entry) {
        return Err(refuse(Rule::HeaderMismatch, difference));
    }
    let start = entry.offset + header.size;
    let end = usize::try_from(entry.packed_size)
        .ok()
        .and_then(|size| start.checked_add(size))
        .filter(|end| *end <= bytes.len())
        .ok_or_else(|| refuse(Rule::Overlap, "reaches beyond the archive"))?;
    Ok(Data { start, end })
}

struct Header<'a> {
    fixed: &'a [u8; SIZE],
    name: &'a [u8],
    extra: &'a [u8],
    /// Bytes from its signature to the data.
    size: usize,
}

impl<'a> Header<'a> {
    fn parse(at: &'a [u8]) -> Option<Self> {
        let mut rest = at;
        let fixed: &[u8; SIZE] = take(&mut rest, SIZE)?.first_chunk()?;
        if !fixed.starts_with(signature::LOCAL) {
            return None;
        }
        let name = take(&mut rest, usize::from(u16_at(fixed, 26)?))?;
        let extra = take(&mut rest, usize::from(u16_at(fixed, 28)?))?;
        Some(Header { fixed, name, extra, size: SIZE + name.len() + extra.len() })
    }

    /// How this header and the directory differ, if they do.
    fn difference(&self, entry: &Central<'_>) -> Option<&'static str> {
        let flags = u16_at(self.fixed, 6)?;
        let method = u16_at(self.fixed, 8)?;
        if self.name != entry.name.as_bytes() {
            return Some("has another name in its own header");
        }
        if flags & !flag::EFFORT != entry.flags & !flag::EFFORT {
            return Some("has other flags in its own header");
        }
        if method != entry.raw_method {
            return Some("has another packing method in its own header");
        }
        let in_directory = [entry.crc32, entry.packed_size, entry.size];
        for (at, expected) in [14, 18, 22].into_iter().zip(in_directory) {
            let here = u32_at(self.fixed, at)?;
            // Unknown when a streaming tool wrote the header.
            let unknown = entry.has_descriptor() && here == 0;
            if here != expected && !unknown {
                return Some("has another checksum or size in its own header");
            }
        }
        None
    }
}

/// Checks the data descriptor of `entry`, which lies between its data and the `next` part of the
/// archive, and returns where it ends.
///
/// Behind deflated data the signature is optional and may by chance be the checksum, so the room
/// there is decides.
pub(super) fn descriptor_end(
    bytes: &[u8],
    entry: &Central<'_>,
    data: Data,
    next: usize,
) -> Result<usize, Refusal> {
    let bare = agrees(bytes, data.end, entry).then_some(data.end + 12);
    let signed = (has(bytes, data.end, signature::DESCRIPTOR)
        && agrees(bytes, data.end + 4, entry))
    .then_some(data.end + 16);
    if entry.method == Method::Store && signed.is_none() {
        return Err(unsigned(entry, bare));
    }
    let end = match (bare, signed) {
        (Some(end), _) if end == next && entry.method == Method::Deflate => end,
        (_, Some(end)) | (Some(end), None) => end,
        (None, None) => return Err(differs(entry)),
    };
    check_stored(bytes, entry, data)?;
    Ok(end)
}

fn differs(entry: &Central<'_>) -> Refusal {
    let detail = "has sizes or a checksum after its data that differ from the directory";
    Refusal::entry(Rule::BadDescriptor, entry.name.as_bytes(), detail)
}

/// Who reads a stream finds the end of what is stored by the signature of the descriptor alone, also
/// where there is nothing before it: without one the next entry is read as its data.
fn unsigned(entry: &Central<'_>, bare: Option<usize>) -> Refusal {
    if bare.is_none() {
        return differs(entry);
    }
    let detail = "is stored, and the sizes after its data have no signature by which to find them";
    Refusal::entry(Rule::BareDescriptor, entry.name.as_bytes(), detail)
}

/// What is stored does not say itself where it ends, so who reads a stream looks for the record
/// that follows it: none may stand before that.
fn check_stored(bytes: &[u8], entry: &Central<'_>, data: Data) -> Result<(), Refusal> {
    let stored = bytes.get(data.start..data.end).unwrap_or_default();
    let found = |record| memmem::find(stored, record).is_some();
    if entry.method == Method::Store && signature::ALL.iter().any(|record| found(&record[..])) {
        let detail = "has a zip record in its data, and no size before it";
        return Err(Refusal::entry(Rule::RecordInData, entry.name.as_bytes(), detail));
    }
    Ok(())
}

fn agrees(bytes: &[u8], at: usize, entry: &Central<'_>) -> bool {
    u32_at(bytes, at) == Some(entry.crc32)
        && u32_at(bytes, at + 4) == Some(entry.packed_size)
        && u32_at(bytes, at + 8) == Some(entry.size)
}
