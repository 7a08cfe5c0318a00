//! Central directory headers (APPNOTE 4.3.12).

use super::end::End;
use super::fields::{take, u16_at, u32_at};
use super::{attributes, extra, names, signature};
use crate::options::Options;
use crate::refusal::{Refusal, Rule};

const SIZE: usize = 46;

/// General purpose flags (APPNOTE 4.4.4).
pub(super) mod flag {
    /// Bits 0, 6 and 13: encrypted, strongly encrypted, directory encrypted.
    pub(in super::super) const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
    /// Bits 1 and 2: how hard the packer tried; nothing a reader needs.
    pub(in super::super) const EFFORT: u16 = 1 << 1 | 1 << 2;
    /// Bit 3: sizes and checksum follow the data.
    pub(in super::super) const DESCRIPTOR: u16 = 1 << 3;
    /// Bit 11: the name is UTF-8. Names are taken as UTF-8 with or without it.
    pub(in super::super) const UTF8: u16 = 1 << 11;
}

/// The newest version of the zip format that an entry may ask for, times ten: that of zip64,
/// which some tools name without need. Info-ZIP leaves out what asks for more than 4.6.
const NEWEST: u16 = 45;

/// How an entry is packed (APPNOTE 4.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Store,
    Deflate,
}

/// An entry as the directory describes it, all rules on its header kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Central<'a> {
    pub(super) name: &'a str,
    pub(super) flags: u16,
    pub(super) raw_method: u16,
    pub(super) method: Method,
    pub(super) crc32: u32,
    pub(super) packed_size: u32,
    pub(super) size: u32,
    /// Where its local header begins.
    pub(super) offset: usize,
    /// Whether its owner may run it.
    pub(super) executable: bool,
}

impl Central<'_> {
    pub(super) fn is_folder(&self) -> bool {
        self.name.ends_with('/')
    }

    pub(super) fn has_descriptor(&self) -> bool {
        self.flags & flag::DESCRIPTOR != 0
    }
}

/// Checks the version that an entry says it takes; the upper byte may name a system.
pub(super) fn check_version(needed: u16, name: &[u8]) -> Result<(), Refusal> {
    let version = needed & 0xff;
    if version > NEWEST {
        let detail = format!("asks for version {}.{} of zip", version / 10, version % 10);
        return Err(Refusal::entry(Rule::UnsupportedVersion, name, detail));
    }
    Ok(())
}

/// The systems by which tools of today say that an entry was made (4.4.2.2): MS-DOS, Unix, NTFS by its
/// number and by that of Info-ZIP, VFAT, the Mac.
const SYSTEMS: [u16; 6] = [0, 3, 10, 11, 14, 19];

/// Checks the system that made an entry. The attributes of others have bits of their own: a file of
/// the Amiga that runs as another user is a folder for 7-Zip.
fn check_system(made_by: u16, name: &[u8]) -> Result<(), Refusal> {
    let system = made_by >> 8;
    if SYSTEMS.contains(&system) {
        return Ok(());
    }
    let detail = format!("says that it was made by the system {system}");
    Err(Refusal::entry(Rule::UnknownSystem, name, detail))
}

/// Reads the whole directory, which must fill its place exactly.
pub(super) fn read<'a>(
    bytes: &'a [u8],
    end: &End,
    options: &Options,
) -> Result<Vec<Central<'a>>, Refusal> {
    let broken = |detail: &str| Refusal::archive(Rule::BadDirectory, detail);
    let place = end.directory..end.position;
    let mut rest = bytes.get(place).ok_or_else(|| broken("its directory lies beyond its end"))?;
    let count = usize::from(end.entries);
    if count > rest.len() / SIZE {
        return Err(broken("its directory is too small for the entries it counts"));
    }
    let mut entries = Vec::new();
    entries
        .try_reserve_exact(count)
        .map_err(|_| Refusal::out_of_memory("the directory", count * size_of::<Central>()))?;
    for _ in 0..count {
        let raw = Raw::take(&mut rest)
            .ok_or_else(|| broken("its directory has fewer entries than it counts"))?;
        entries.push(raw.check(options)?);
    }
    if !rest.is_empty() {
        return Err(broken("its directory goes on behind the entries it counts"));
    }
    Ok(entries)
}

/// A header as it stands.
struct Raw<'a> {
    fixed: &'a [u8; SIZE],
    name: &'a [u8],
    extra: &'a [u8],
}

impl<'a> Raw<'a> {
    fn take(rest: &mut &'a [u8]) -> Option<Self> {
        let fixed: &[u8; SIZE] = take(rest, SIZE)?.first_chunk()?;
        if !fixed.starts_with(signature::CENTRAL) {
            return None;
        }
        let [name, extra, comment] =
            [28, 30, 32].map(|at| u16_at(fixed, at).map_or(usize::MAX, usize::from));
        let name = take(rest, name)?;
        let extra = take(rest, extra)?;
        take(rest, comment)?;
        Some(Raw { fixed, name, extra })
    }

    fn u16(&self, at: usize) -> u16 {
        u16_at(self.fixed, at).unwrap_or_default()
    }

    fn u32(&self, at: usize) -> u32 {
        u32_at(self.fixed, at).unwrap_or_default()
    }

    fn check(&self, options: &Options) -> Result<Central<'a>, Refusal> {
        let name = names::check(self.name, options.max_name_bytes)?;
        let refuse = |rule, detail: &str| Refusal::entry(rule, self.name, detail);
        let flags = self.u16(8);
        let raw_method = self.u16(10);
        if flags & flag::ENCRYPTED != 0 {
            return Err(refuse(Rule::Encrypted, "is encrypted"));
        }
        extra::check(self.extra, self.name)?;
        let method = self.method(raw_method)?;
        let known = flag::EFFORT | flag::DESCRIPTOR | flag::UTF8;
        if flags & !known != 0 {
            let detail = format!("has the flags {:#06x}", flags & !known);
            return Err(refuse(Rule::UnsupportedFlag, &detail));
        }
        check_version(self.u16(6), self.name)?;
        check_system(self.u16(4), self.name)?;
        let (packed_size, size, offset) = (self.u32(20), self.u32(24), self.u32(42));
        if [packed_size, size, offset].contains(&u32::MAX) || self.u16(34) == u16::MAX {
            return Err(refuse(Rule::Zip64, "refers to zip64 sizes"));
        }
        if self.u16(34) != 0 {
            return Err(refuse(Rule::MultiDisk, "begins on another disk"));
        }
        attributes::check(self.u32(38), self.name)?;
        let offset = usize::try_from(offset)
            .map_err(|_| refuse(Rule::BadLocalHeader, "lies beyond the archive"))?;
        let crc32 = self.u32(16);
        let executable = attributes::is_executable(self.u32(38));
        let entry = Central {
            name,
            flags,
            raw_method,
            method,
            crc32,
            packed_size,
            size,
            offset,
            executable,
        };
        if entry.is_folder() && size != 0 {
            return Err(refuse(Rule::FolderWithData, "is a folder with content"));
        }
        Ok(entry)
    }

    fn method(&self, raw: u16) -> Result<Method, Refusal> {
        match raw {
            0 => Ok(Method::Store),
            8 => Ok(Method::Deflate),
            _ => {
                let detail = format!("is packed with method {raw}");
                Err(Refusal::entry(Rule::UnsupportedMethod, self.name, detail))
            }
        }
    }
}
