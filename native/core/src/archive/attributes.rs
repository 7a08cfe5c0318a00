//! What kind of thing an entry is (APPNOTE 4.4.15): only files and folders are wanted.

use crate::refusal::{Refusal, Rule};

const TYPE_MASK: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

/// Bits of MS-DOS, in the low byte.
const DOS_LABEL: u32 = 0x08;
const DOS_FOLDER: u32 = 0x10;
const DOS_DEVICE: u32 = 0x40;

/// The bit of Windows for what is a link or the like, in the second byte.
const REPARSE_POINT: u32 = 0x400;

/// Checks the external attributes of the entry `name`. The upper half is a Unix mode, if it has
/// a file type, the lower half has the attributes of MS-DOS and Windows. Both are heeded whatever
/// system the archive claims to come from, because one tool or another heeds them too.
pub(super) fn check(external: u32, name: &[u8]) -> Result<(), Refusal> {
    let mode = external >> 16;
    check_mode(mode, name)?;
    check_windows(external, name)?;
    let named_folder = name.ends_with(b"/");
    let mode_folder = match mode & TYPE_MASK {
        FOLDER => true,
        REGULAR => false,
        _ => named_folder,
    };
    if mode_folder != named_folder || (external & DOS_FOLDER != 0 && !named_folder) {
        let detail = if named_folder {
            "is a folder by its name and a file by its attributes"
        } else {
            "is a file by its name and a folder by its attributes"
        };
        return Err(Refusal::entry(Rule::KindMismatch, name, detail));
    }
    Ok(())
}

/// Whether a file may be run by its owner, as far as the archive has a Unix mode.
pub(super) fn is_executable(external: u32) -> bool {
    (external >> 16) & 0o100 != 0
}

fn check_windows(external: u32, name: &[u8]) -> Result<(), Refusal> {
    for (bit, rule, detail) in [
        (DOS_LABEL, Rule::VolumeLabel, "is the label of a disk by its attributes"),
        (DOS_DEVICE, Rule::SpecialFile, "is a device by its attributes"),
        (REPARSE_POINT, Rule::SpecialFile, "is a link of Windows by its attributes"),
    ] {
        if external & bit != 0 {
            return Err(Refusal::entry(rule, name, detail));
        }
    }
    Ok(())
}

/// Refuses every Unix file type but file, folder and none.
pub(super) fn check_mode(mode: u32, name: &[u8]) -> Result<(), Refusal> {
    match mode & TYPE_MASK {
        0 | REGULAR | FOLDER => Ok(()),
        SYMLINK => Err(Refusal::entry(Rule::Symlink, name, "is a symbolic link")),
        kind => {
            let what = match kind {
                0o010_000 => "a fifo",
                0o020_000 => "a character device",
                0o060_000 => "a block device",
                0o140_000 => "a socket",
                _ => "of an unknown type",
            };
            Err(Refusal::entry(Rule::SpecialFile, name, format_args!("is {what}")))
        }
    }
}
