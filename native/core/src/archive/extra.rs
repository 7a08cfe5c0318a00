//! Extra fields (APPNOTE 4.5). Those that only carry times, owners or padding are passed over;
//! those that change what an entry is are refused.

use super::fields::{take, u16_at};
use crate::refusal::{Refusal, Rule};

/// Checks the extra fields of the entry `name`, as one header carries them.
pub(super) fn check(extra: &[u8], name: &[u8]) -> Result<(), Refusal> {
    let mut rest = extra;
    while !rest.is_empty() {
        let (id, body) = next(&mut rest).ok_or_else(|| {
            Refusal::entry(Rule::BadExtraField, name, "has an extra field that is cut off")
        })?;
        check_field(id, body, name)?;
    }
    Ok(())
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let head = take(rest, 4)?;
    let id = u16_at(head, 0)?;
    let size = u16_at(head, 2)?;
    Some((id, take(rest, usize::from(size))?))
}

fn check_field(id: u16, body: &[u8], name: &[u8]) -> Result<(), Refusal> {
    match id {
        // Zip64 sizes (APPNOTE 4.5.3).
        0x0001 => Err(Refusal::entry(Rule::Zip64, name, "has zip64 sizes")),
        // Strong encryption (4.5.12), and AES by WinZip.
        0x0017 | 0x9901 => Err(Refusal::entry(Rule::Encrypted, name, "is encrypted")),
        // PKWARE Unix (4.5.7): after 12 bytes of times and owners, a link target or device.
        0x000d if body.len() > 12 => {
            Err(Refusal::entry(Rule::SpecialFile, name, "has a link target or a device number"))
        }
        // ASi Unix: a CRC, a mode, a link target.
        0x756e => check_asi(body, name),
        // Info-ZIP Unicode path (4.6.9): version, CRC of the name in the header, the name.
        0x7075 => check_unicode_path(body, name),
        _ => Ok(()),
    }
}

fn check_asi(body: &[u8], name: &[u8]) -> Result<(), Refusal> {
    let mode = u16_at(body, 4).ok_or_else(|| {
        Refusal::entry(Rule::BadExtraField, name, "has an extra field that is cut off")
    })?;
    super::attributes::check_mode(u32::from(mode), name)
}

fn check_unicode_path(body: &[u8], name: &[u8]) -> Result<(), Refusal> {
    let path = body.get(5..).ok_or_else(|| {
        Refusal::entry(Rule::BadExtraField, name, "has an extra field that is cut off")
    })?;
    if path != name {
        let other = crate::text::printable(path);
        let detail = format!("is named \"{other}\" in an extra field");
        return Err(Refusal::entry(Rule::SecondName, name, detail));
    }
    Ok(())
}
