//! Extra fields (APPNOTE 4.5). Taken are those that zip tools write by default and that carry
//! times, owners, permissions or a comment, and such as say of the entry what its header says too.
//! Any other may make something else of an entry for a reader that knows it, and is refused.

use super::fields::{take, u16_at, u32_at};
use crate::refusal::{Refusal, Rule};

/// Checks the extra fields of the entry `name`, as one header carries them.
pub(super) fn check(extra: &[u8], name: &[u8]) -> Result<(), Refusal> {
    let mut rest = extra;
    while !rest.is_empty() {
        let (id, body) = next(&mut rest).ok_or_else(|| cut_off(name))?;
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
        // Times: of NTFS (by 7-Zip, WinZip, WinRAR), and by Info-ZIP "UT", which nearly all write.
        0x000a | 0x5455
        // Times and owner by Info-ZIP: "UX", which the Mac's Archive Utility writes; "Ux"; "ux".
        | 0x5855 | 0x7855 | 0x7875
        // Permissions of Windows, by Info-ZIP there.
        | 0x4453
        // The comment in UTF-8 (4.6.8), by those who write the Unicode path too.
        | 0x6375
        // The mark of a Java archive, which is empty.
        | 0xcafe => Ok(()),
        // Times and owner of PKWARE for Unix (4.5.7); what is longer has a link target or device.
        0x000d if body.len() == 12 => Ok(()),
        0x000d => {
            Err(Refusal::entry(Rule::SpecialFile, name, "has a link target or a device number"))
        }
        // Mode and owner, by Ant.
        0x756e => check_asi(body, name),
        // Info-ZIP Unicode path (4.6.9): version, CRC of the name in the header, the name.
        0x7075 => check_unicode_path(body, name),
        // Zip64 sizes (4.5.3).
        0x0001 => Err(Refusal::entry(Rule::Zip64, name, "has zip64 sizes")),
        // Strong encryption (4.5.12), and AES by WinZip.
        0x0017 | 0x9901 => Err(Refusal::entry(Rule::Encrypted, name, "is encrypted")),
        _ => {
            let detail = format!("has an extra field {id:#06x}");
            Err(Refusal::entry(Rule::UnknownExtraField, name, detail))
        }
    }
}

/// A CRC, a mode, the length of a link target or a device number, owner and group, a link target.
fn check_asi(body: &[u8], name: &[u8]) -> Result<(), Refusal> {
    let (Some(mode), Some(other)) = (u16_at(body, 4), u32_at(body, 6)) else {
        return Err(cut_off(name));
    };
    let external = u32::from(mode) << 16;
    super::attributes::check(external, name)?;
    if other != 0 || body.len() > 14 {
        let detail = "has a link target or a device number";
        return Err(Refusal::entry(Rule::SpecialFile, name, detail));
    }
    Ok(())
}

fn cut_off(name: &[u8]) -> Refusal {
    Refusal::entry(Rule::BadExtraField, name, "has an extra field that is cut off")
}

fn check_unicode_path(body: &[u8], name: &[u8]) -> Result<(), Refusal> {
    let path = body.get(5..).ok_or_else(|| cut_off(name))?;
    if path != name {
        let other = hot_patch_beam::text::printable(path);
        let detail = format!("is named \"{other}\" in an extra field");
        return Err(Refusal::entry(Rule::SecondName, name, detail));
    }
    Ok(())
}
