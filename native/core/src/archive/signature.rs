//! The four bytes that begin each record of a zip archive.

/// Local file header (APPNOTE 4.3.7).
pub(super) const LOCAL: &[u8; 4] = b"PK\x03\x04";
/// Data descriptor (APPNOTE 4.3.9.3); optional there.
pub(super) const DESCRIPTOR: &[u8; 4] = b"PK\x07\x08";
/// Central directory header (APPNOTE 4.3.12).
pub(super) const CENTRAL: &[u8; 4] = b"PK\x01\x02";
/// End of central directory record (APPNOTE 4.3.16).
pub(super) const END: &[u8; 4] = b"PK\x05\x06";
/// Zip64 end of central directory record (APPNOTE 4.3.14).
pub(super) const ZIP64_END: &[u8; 4] = b"PK\x06\x06";
/// Zip64 end of central directory locator (APPNOTE 4.3.15).
pub(super) const ZIP64_LOCATOR: &[u8; 4] = b"PK\x06\x07";

/// All of them.
pub(super) const ALL: [&[u8; 4]; 6] = [LOCAL, DESCRIPTOR, CENTRAL, END, ZIP64_END, ZIP64_LOCATOR];
